//! Domains take turns while more is due than leaves: `claim` takes an equal part of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bench::Setup;
use crate::events::news;
use crate::world::{World, worlds};

/// A mail is due to each of so many people of a domain.
fn due(w: &mut World, domain: &str, people: usize) {
    let entries = (0..people)
        .map(|n| {
            let who = format!("{domain}.p{n}");
            news(&format!("{domain}-{n}")).of_domain(domain).to([who.as_str()]).entry(&BTreeSet::new())
        })
        .collect();
    w.accept_entries(entries);
    w.pass(Duration::from_secs(1));
}

/// How many of each domain a claim takes.
fn taken(w: &mut World, limit: u32) -> BTreeMap<String, usize> {
    let mut of = BTreeMap::new();
    for leased in w.claim_up_to(limit) {
        let (domain, _) = leased.recipient.split_once('.').unwrap();
        *of.entry(domain.to_owned()).or_default() += 1;
    }
    of
}

#[test]
fn a_domain_with_much_that_is_due_holds_up_no_other() {
    for mut w in worlds(Setup::default()) {
        due(&mut w, "big", 400);
        due(&mut w, "small", 3);
        due(&mut w, "medium", 30);
        let first = taken(&mut w, 20);
        assert_eq!(first.values().sum::<usize>(), 20);
        assert_eq!(first["small"], 3, "{first:?}");
        assert!(first["medium"] >= 6 && first["big"] >= 7, "{first:?}");
        // What room the small ones leave is used.
        let rest: Vec<_> = (0..5).map(|_| taken(&mut w, 100)).collect();
        assert!(rest[..4].iter().all(|of| of.values().sum::<usize>() == 100), "{rest:?}");
        assert!(w.claim_all().is_empty());
    }
}

#[test]
fn more_domains_than_a_claim_looks_at_each_have_their_turn() {
    for mut w in worlds(Setup::default()) {
        due(&mut w, "big", 2_000);
        for n in 0..300 {
            due(&mut w, &format!("d{n}"), 1);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..14 {
            seen.extend(taken(&mut w, 50).into_keys());
        }
        assert_eq!(seen.len(), 301, "700 mails are enough for a turn of each of 301 domains");
    }
}

/// A worker of a slow account claims a handful: those go to other domains each time.
#[test]
fn claims_that_are_smaller_than_the_domains_are_many_go_round() {
    for mut w in worlds(Setup::default()) {
        for n in 0..50 {
            due(&mut w, &format!("d{n}"), 12);
        }
        let mut all = BTreeMap::<String, usize>::new();
        for _ in 0..20 {
            for (domain, n) in taken(&mut w, 14) {
                *all.entry(domain).or_default() += n;
            }
        }
        assert_eq!(all.values().sum::<usize>(), 280);
        // 13 of each claim in turn; the earliest of all have the place that is left.
        let of_others: BTreeSet<usize> =
            all.iter().filter(|(domain, _)| !["d0", "d1", "d2"].contains(&domain.as_str())).map(|(_, n)| *n).collect();
        assert!(all.len() == 50 && of_others.iter().all(|n| (5..=6).contains(n)), "{all:?}");
    }
}

/// Open windows of many domains stand between those of which something is due.
#[test]
fn lanes_of_which_nothing_is_due_keep_no_other_from_its_turn() {
    for mut w in worlds(Setup::default()) {
        due(&mut w, "big", 2_000);
        for n in 0..600 {
            due(&mut w, &format!("d{n}"), 1);
        }
        w.bench.run("UPDATE digest SET due_at = due_at + 3600000000 WHERE no > 2000");
        due(&mut w, "small", 1);
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            seen.extend(taken(&mut w, 50).into_keys());
        }
        assert_eq!(seen, BTreeSet::from(["big".to_owned(), "small".to_owned()]), "600 lanes are three looks");
    }
}

/// An account of one mail a second claims one at a time.
#[test]
fn of_claims_of_one_digest_some_go_by_due_time() {
    for mut w in worlds(Setup::default()) {
        due(&mut w, "nobody", 1);
        // As an earlier version has left it.
        w.bench.run("UPDATE digest SET lane = 0");
        due(&mut w, "a", 20);
        due(&mut w, "b", 20);
        let first: Vec<String> = (0..4).flat_map(|_| taken(&mut w, 1).into_keys()).collect();
        assert!(first.contains(&"nobody".to_owned()), "{first:?}");
    }
}

#[test]
fn as_long_as_all_that_is_due_leaves_it_leaves_by_its_time() {
    for mut w in worlds(Setup::default()) {
        for n in 0..5 {
            due(&mut w, ["a", "b"][n % 2], 1 + n);
        }
        let order: Vec<_> = w.claim_up_to(15).into_iter().map(|leased| leased.due_at).collect();
        assert!(order.len() == 9 && order.is_sorted(), "{order:?}");
    }
}
