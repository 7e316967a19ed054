//! Digests on their way: windows, claims, the last gate, closures that come at any moment.

use std::sync::Arc;
use std::time::Duration;

use owlpost::store::{Ask, Begun, Leased};

use crate::bench::{DAY, LEASE, Setup};
use crate::events::{at, decision, news, request};
use crate::oracle::{DELIVERED, PENDING, WITHDRAWN};
use crate::world::{World, worlds};

fn other(id: &str) -> crate::events::Ev {
    request(id).about(["leave"])
}

/// `freeze`
#[test]
fn a_digest_that_was_claimed_takes_no_other_item_not_even_for_its_retry() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.refused(&mail);
        w.accept(other("o1"));
        w.retry_is_due();
        let leased = w.claim_all();
        assert_eq!(leased.len(), 2);
        let again = leased.iter().find(|l| l.lease.digest == mail.attempt.digest).unwrap();
        let retry = w.begun(again);
        assert_eq!(retry.items, mail.items);
        assert_eq!(retry.attempt.digest, mail.attempt.digest, "`same_digest`");
        assert_eq!(retry.attempt.number, 2);
    }
}

/// `list_bound`, `claim_moves_rest`
#[test]
fn a_mail_lists_the_most_urgent_and_the_others_come_in_the_next() {
    let setup = Setup { max_listed: 2, ..Setup::default() };
    for mut w in worlds(setup) {
        let due = |id: &str, deadline: i64| {
            let mut event = news(id);
            event.deadline = Some(at(deadline));
            event
        };
        w.accept_all(vec![news("n1").at(1), due("later", 9_000), due("soon", 5_000), news("n0").at(0)]);
        let leased = w.claim_up_to(1).remove(0);
        let Begun::Send(contents) = w.begin(&leased) else { panic!("it may leave") };
        assert_eq!(contents.open_total, 4);
        let first = w.mails.last().unwrap().clone();
        let ids = |m: &crate::world::Mail| m.items.iter().map(|k| k.0.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first), ["later", "soon"]);
        w.refused(&first);
        w.retry_is_due();
        let leased = w.claim_all();
        assert_eq!(leased.len(), 2, "the rest did not wait for the retry");
        let rest: &Leased = leased.iter().find(|l| l.lease.digest != first.attempt.digest).unwrap();
        let Begun::Send(contents) = w.begin(rest) else { panic!("it may leave") };
        assert_eq!(contents.open_total, 2, "what waits for its retry is in no further mail");
        assert_eq!(ids(w.mails.last().unwrap()), ["n0", "n1"]);
        let again = leased.iter().find(|l| l.lease.digest == first.attempt.digest).unwrap();
        assert_eq!(w.begun(again).items, first.items);
    }
}

/// `list_bound`: at the edge the rank decides, not the order of arrival.
#[test]
fn who_is_listed_first_does_not_depend_on_the_order_of_arrival() {
    for ids in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
        for mut w in worlds(Setup { max_listed: 1, ..Setup::default() }) {
            for id in ids {
                w.accept(news(id));
            }
            let leased = w.claim_all();
            assert_eq!(w.begun(&leased[0]).items.first().unwrap().0, "a");
        }
    }
}

/// `claim_moves_rest`: a claim that is given back loses nothing.
#[test]
fn a_released_claim_is_claimed_again_with_what_it_held() {
    for mut w in worlds(Setup { max_listed: 1, ..Setup::default() }) {
        w.accept_all(vec![news("a"), news("b"), news("c")]);
        let leased = w.claim();
        w.release(&leased).unwrap();
        w.release(&leased).unwrap();
        let all = w.claim_all();
        assert_eq!(all.len(), 2);
        w.finish();
        assert!(w.before.items.values().all(|row| row.state == DELIVERED));
    }
}

/// `closure_reaches_leased`, `begin_reads_items`, `no_empty`
#[test]
fn what_is_decided_between_claim_and_begin_is_in_no_mail() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.accept(other("o1"));
        let leased = w.claim();
        w.accept(decision("d1"));
        assert_eq!(w.state("r1", "ann"), WITHDRAWN);
        let mail = w.begun(&leased);
        assert_eq!(mail.items.len(), 1);
        w.accepted(&mail);
        w.accept(request("r2").about(["x"]));
        let leased = w.claim();
        w.accept(decision("d2").about(["x"]));
        assert_eq!(w.begin(&leased), Begun::Empty);
        assert!(w.before.is_settled());
    }
}

/// `closure_reaches_waiting`
#[test]
fn what_is_decided_while_it_waits_for_a_retry_is_in_no_mail() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.refused(&mail);
        w.accept(decision("d1"));
        assert_eq!(w.state("r1", "ann"), WITHDRAWN);
        w.retry_is_due();
        assert!(w.claim_all().is_empty(), "`no_empty`");
        assert!(w.notices().is_empty(), "nobody was told");
    }
}

/// `no_empty`
#[test]
fn a_window_that_is_emptied_closes() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.accept(decision("d1"));
        assert!(w.before.is_settled());
        assert!(w.claim_all().is_empty());
        assert!(w.notices().is_empty(), "`notice_if_told`");
    }
}

/// `no_empty`: a lease that is given back, paused or over leaves no empty digest behind.
#[test]
fn an_emptied_digest_is_closed_however_its_lease_ends() {
    type End = fn(&mut World, &Leased);
    let ends: [End; 3] = [
        |w, l| w.release(l).unwrap(),
        |w, l| {
            w.pause();
            assert_eq!(w.begin(l), Begun::Paused);
        },
        |w, _| w.lease_ends(),
    ];
    for end in ends {
        for mut w in worlds(Setup::default()) {
            w.accept(request("r1"));
            let leased = w.claim();
            w.accept(decision("d1"));
            end(&mut w, &leased);
            assert!(w.before.is_settled());
        }
    }
}

/// `closure_waits_for_call`, `closure_spares_final`, `notice_on_settlement`
#[test]
fn a_decision_during_the_call_leaves_the_item_to_its_answer() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(decision("d1"));
        assert_eq!(w.state("r1", "ann"), PENDING);
        w.accepted(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        assert_eq!(w.notices(), [("d1".to_owned(), "ann".to_owned())]);
        w.accept(decision("d2").at(3));
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
}

/// `closure_after_refusal`
#[test]
fn what_was_decided_during_a_refused_call_is_withdrawn() {
    for answer in [World::refused, World::throttled, World::not_called, World::permanent] {
        for mut w in worlds(Setup::default()) {
            w.accept(request("r1"));
            let mail = w.send();
            w.accept(decision("d1"));
            answer(&mut w, &mail);
            assert_eq!(w.state("r1", "ann"), WITHDRAWN);
            w.retry_is_due();
            assert!(w.claim_all().is_empty());
            assert!(w.notices().is_empty(), "nobody was told");
        }
    }
}

/// `one_window`
#[test]
fn a_person_has_one_open_window_a_route() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.accept(other("o1"));
        assert_eq!(w.before.digests.len(), 1);
        let leased = w.claim();
        w.accept(news("n1").by(["ask"]));
        w.accept(news("n2").by(["ask"]));
        assert_eq!(w.before.digests.len(), 2);
        assert_eq!(w.begun(&leased).items.len(), 2);
    }
}

/// `fence_begin`
#[test]
fn only_the_running_lease_may_begin() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let old = w.claim();
        w.lease_ends();
        assert_eq!(w.begin(&old), Begun::Lost, "over");
        let new = w.claim();
        assert_eq!(w.begin(&old), Begun::Lost, "somebody else's");
        w.release(&old).unwrap();
        let mail = w.begun(&new);
        assert_eq!(w.begin(&new), Begun::Lost, "used");
        assert_eq!(w.begin(&old), Begun::Lost);
        w.accepted(&mail);
        assert_eq!(w.begin(&new), Begun::Lost, "closed");
        // Purged, or never there: lost as well, and no error for the others of its batch.
        let mut unknown = new.clone();
        unknown.lease.digest.number = 999_999;
        assert_eq!(w.begin(&unknown), Begun::Lost);
        w.release(&unknown).unwrap();
    }
}

/// `fence_begin`, `send_by`: a lease that would end before the call may start is over, though upkeep has not looked yet.
#[test]
fn a_lease_that_cannot_cover_the_call_is_lost() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        w.pass(LEASE - Duration::from_secs(14));
        assert_eq!(w.begin(&leased), Begun::Lost);
        let again = w.claim();
        w.pass(LEASE - Duration::from_secs(15));
        w.begun(&again);
    }
}

/// `lease_ends`
#[test]
fn a_lease_whose_holder_died_ends() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.claim();
        assert!(w.claim_all().is_empty());
        w.pass(LEASE - Duration::from_micros(1));
        assert_eq!(w.expire().leases_ended, 0);
        w.pass(Duration::from_micros(1));
        assert_eq!(w.expire().leases_ended, 1);
        let mail = w.send();
        assert_eq!(mail.attempt.number, 1, "nothing was burned");
    }
}

/// Urgent first, then by due time; `everything` takes windows before their time, never a retry.
#[test]
fn a_claim_takes_what_is_due_in_the_order_in_which_it_became_due() {
    for mut w in worlds(Setup { window: Duration::from_secs(60), ..Setup::default() }) {
        w.accept(news("n1").to(["ann"]));
        w.pass(Duration::from_secs(1));
        w.accept(news("n2").to(["bob"]));
        assert!(w.claim_all().is_empty());
        let (ask, all) = (w.ask(), Ask { everything: true, ..w.ask() });
        assert_eq!(w.call(async |s| s.next_due(&ask).await).unwrap(), Some(w.now.plus(Duration::from_secs(59))));
        assert!(w.call(async |s| s.next_due(&all).await).unwrap().is_some_and(|at| at <= w.now));
        w.pass(Duration::from_secs(60));
        let leased = w.claim_up_to(1);
        assert_eq!(leased[0].recipient, "ann");
        let mail = w.begun(&leased[0]);
        w.refused(&mail);
        let now = w.now;
        let leased = w.call(async |s| s.claim(now, &all).await).unwrap();
        assert_eq!(leased.iter().map(|l| l.recipient.as_str()).collect::<Vec<_>>(), ["bob"], "ann's retry waits");
    }
}

/// Due stays due: neither an item that joins nor one that leaves undoes what an operator hurried.
#[test]
fn a_window_that_is_due_stays_due() {
    for mut w in worlds(Setup { window: DAY, ..Setup::default() }) {
        w.accept(request("r1"));
        w.accept(other("o1"));
        let id = w.before.digests.keys().next().copied().unwrap();
        assert_eq!(w.hurry(id).changed, 1);
        w.pass(Duration::from_secs(1));
        w.accept(decision("d1"));
        w.accept(news("n1").by(["ask"]));
        assert_eq!(w.send().items.len(), 2);
    }
}

/// Many events of a megabyte are on their way at once, for many people: a mail gets of each what it can show.
#[test]
fn a_mail_gets_of_large_data_what_it_can_show() {
    for mut w in worlds(Setup::default()) {
        w.accept(news("n1").to(["ann", "bob"]));
        w.accept(news("n2").to(["ann"]));
        let pad = "1,".repeat(400_000);
        w.bench.run(&format!("UPDATE event SET data = '{{\"pad\":[{pad}1],\"member\":\"user.joe\"}}' WHERE id = 'n1'"));
        let leased = w.claim_all();
        let (now, intents) = (w.now, Arc::new(leased.iter().map(|l| w.intent(l)).collect::<Vec<_>>()));
        let begun = w.call(async |s| s.begin(now, intents).await).unwrap();
        let mut large = 0;
        for begun in begun {
            let Begun::Send(contents) = begun else { panic!("{begun:?}") };
            for item in contents.items {
                let (id, member) = (item.id.as_str(), item.data.get("member"));
                assert_eq!(member.and_then(|m| m.as_str()), (id == "n1").then_some("user.joe"), "{id}");
                assert!(serde_json::to_string(&item.data).unwrap().len() < 20_000, "{id}");
                large += usize::from(id == "n1");
            }
        }
        assert_eq!(large, 2);
    }
}
