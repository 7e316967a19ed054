//! What is kept, and for how long: restarts, damage, retention, purge, and that nothing grows without bound.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::model::{DigestId, Entry, Receipt, RefusedReason};
use owlpost::store::sqlite::{Opening, Sqlite};
use owlpost::store::{Begun, Command, Desk, Intake, StoreError};

use crate::bench::{Bench, DAY, OnSqlite, Said, Setup};
use crate::events::{Ev, at, decision, expiring, news, refused, renewed, request};
use crate::oracle::{DELIVERED, PENDING, WITHDRAWN};
use crate::world::{World, worlds};

fn count(w: &World, table: &str) -> i64 {
    w.bench.rows(&format!("SELECT count(*) FROM {table}"))[0][0].int()
}

fn policy() -> Arc<Said> {
    Arc::new(Said(Mutex::new(Setup::default())))
}

// ---- opening

/// A store that was closed, or whose worker was killed, has everything that was acknowledged.
#[test]
fn a_reopened_store_has_everything() {
    for mut w in worlds(Setup { window: DAY, ..Setup::default() }) {
        w.accept_all(vec![request("r1"), news("n1"), decision("d0").about(["x"])]);
        let before = w.look();
        w.restart();
        assert_eq!(w.look(), before);
        w.accept(request("r0").at(1).about(["x"]));
        assert_eq!(w.state("r0", "ann"), WITHDRAWN, "the tombstone is there");
        assert_eq!(w.accept(request("r1")), owlpost::model::Receipt::Duplicate);
        w.pass(DAY);
        w.finish();
    }
}

/// A topic that was rewound: nearly all are copies, and what is new among them is taken.
#[test]
fn among_a_crowd_of_copies_what_is_new_is_taken() {
    use owlpost::model::Receipt::{Accepted, Duplicate};
    for mut w in worlds(Setup { window: DAY, ..Setup::default() }) {
        let batch = |ids: std::ops::Range<usize>| ids.map(|n| news(&format!("n{n:03}"))).collect::<Vec<_>>();
        assert!(w.accept_all(batch(0..200)).iter().all(|r| *r == Accepted));
        let before = (count(&w, "event"), count(&w, "item"));
        assert!(w.accept_all(batch(0..200)).iter().all(|r| *r == Duplicate));
        assert_eq!((count(&w, "event"), count(&w, "item")), before);
        // In another order, each twice, with a fifth that is new.
        let mut more = batch(50..250);
        more.reverse();
        more.extend(batch(50..250));
        let receipts = w.accept_all(more.clone());
        for (n, (event, receipt)) in more.iter().zip(&receipts).enumerate() {
            let expected = if event.id.as_str() >= "n200" && n < 200 { Accepted } else { Duplicate };
            assert_eq!((*receipt).clone(), expected, "{} at {n}", event.id);
        }
        assert_eq!(count(&w, "event"), 250);
        w.pass(DAY);
        w.finish();
    }
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let bench = OnSqlite::new();
    std::fs::write(bench.path(), "not a database at all, but long enough to have a header ".repeat(40)).unwrap();
    let settings = bench.settings(policy(), Setup::default().limits, Opening::Worker);
    match Sqlite::open(settings, at(0)) {
        Err(StoreError::Unusable(why)) => {
            assert!(why.contains("owlpost.db") && why.contains("backup"), "says which file and what to do: {why}");
        }
        other => panic!("it opened, or may be tried again: {:?}", other.err()),
    }
    assert!(std::fs::read_to_string(bench.path()).unwrap().starts_with("not a database"));
}

#[test]
fn a_newer_schema_is_refused() {
    let mut bench = OnSqlite::new();
    drop(bench.open(policy(), Setup::default().limits, at(0)).unwrap());
    bench.run(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
    );
    let settings = bench.settings(policy(), Setup::default().limits, Opening::Worker);
    match Sqlite::open(settings, at(0)) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("999"), "{why}"),
        other => panic!("it opened: {:?}", other.err()),
    }
}

#[test]
fn a_second_worker_is_refused_until_the_first_is_gone() {
    let mut bench = OnSqlite::new();
    let first = bench.open(policy(), Setup::default().limits, at(0)).unwrap();
    let settings = || bench.settings(policy(), Setup::default().limits, Opening::Worker);
    match Sqlite::open(settings(), at(0)) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("another worker"), "{why}"),
        other => panic!("two workers: {:?}", other.err()),
    }
    drop(first);
    assert!(Sqlite::open(settings(), at(0)).is_ok());
}

/// The lock is the file's, whatever path leads to it; also where the link was there before the file.
#[cfg(unix)]
#[test]
fn a_second_worker_is_refused_behind_a_link() {
    for link_first in [true, false] {
        let bench = OnSqlite::new();
        let link = bench.path().with_file_name("link.db");
        let open = |path: std::path::PathBuf| {
            let settings = bench.settings(policy(), Setup::default().limits, Opening::Worker);
            Sqlite::open(owlpost::store::sqlite::Settings { path, ..settings }, at(0))
        };
        std::os::unix::fs::symlink(bench.path(), &link).unwrap();
        let paths = [link, bench.path()];
        let [first, second] = if link_first {
            paths
        } else {
            {
                let [a, b] = paths;
                [b, a]
            }
        };
        let _first = open(first).unwrap();
        match open(second) {
            Err(StoreError::Unusable(why)) => assert!(why.contains("another worker"), "{why}"),
            other => panic!("two workers: {:?}", other.err()),
        }
    }
}

#[test]
fn an_operator_finds_no_store_where_none_is() {
    let bench = OnSqlite::new();
    let settings = bench.settings(policy(), Setup::default().limits, Opening::Operator);
    assert!(matches!(Sqlite::open(settings, at(0)), Err(StoreError::Unusable(_))));
    assert!(!bench.path().exists(), "and makes none");
}

/// An operator's command works beside a running worker, and takes nothing over from it.
#[test]
fn an_operator_works_beside_the_worker() {
    let bench = OnSqlite::new();
    let settings = bench.settings(policy(), Setup::default().limits, Opening::Operator);
    let mut w = World::on(Box::new(bench), Setup::default());
    w.accept(request("r1"));
    let leased = w.claim();
    let operator = Sqlite::open(settings, w.now).unwrap();
    let now = w.now;
    w.call(async |_| operator.act(now, &Command::Pause { route: None }).await).unwrap();
    assert_eq!(w.begin(&leased), Begun::Paused, "the lease was still the worker's");
    w.call(async |_| operator.act(now, &Command::Resume { route: None }).await).unwrap();
    drop(operator);
    let mail = w.send();
    w.accepted(&mail);
}

// ---- retention

/// Everything is settled, and the retention is over.
fn settle_and_wait(w: &mut World, days: u32) {
    w.finish();
    w.pass(days * DAY);
}

/// `purge_by_horizon`
#[test]
fn nothing_is_purged_before_its_time() {
    for mut w in worlds(Setup::default()) {
        w.accept_all(vec![request("r1"), decision("d1").about(["x"]), news("n1")]);
        settle_and_wait(&mut w, 89);
        w.purge();
        assert_eq!((count(&w, "item"), count(&w, "event"), count(&w, "subject")), (2, 3, 2));
        w.pass(2 * DAY);
        w.purge();
        for table in ["item", "event", "subject", "standing", "asked", "digest", "attempt", "relisted", "mailbox"] {
            assert_eq!(count(&w, table), 0, "{table}");
        }
    }
}

/// The proof leaves, how many there were stays; what is left agrees with its counts.
#[test]
fn what_is_purged_stays_counted() {
    for mut w in worlds(Setup::default()) {
        w.accept_all(vec![request("r1"), decision("d1").about(["x"]), news("n1"), news("n2").to(["bob"])]);
        w.suppress("bob");
        settle_and_wait(&mut w, 91);
        w.purge();
        w.compact();
        w.accept(news("n3"));
        let query = owlpost::store::Query::Status { now: w.now };
        let status = w.call(async |s| s.read(&query, owlpost::store::Page::FIRST).await).unwrap();
        let owlpost::store::Rows::Status(status) = status else { panic!("a status") };
        let (left, gone) = (&status.ledger, &status.purged);
        assert_eq!((left.items, left.pending), (1, 1));
        assert_eq!((gone.items, gone.delivered, gone.suppressed), (3, 2, 1));
        let verified = w.call(async |s| s.read(&owlpost::store::Query::Verify, owlpost::store::Page::FIRST).await);
        let owlpost::store::Rows::Verified(verified) = verified.unwrap() else { panic!("a verdict") };
        assert_eq!(verified.differences, [""; 0]);
    }
}

/// `purge_by_horizon`: settled yesterday is young, however old the event; so is what came yesterday about long ago.
#[test]
fn what_was_settled_lately_is_kept() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.accept(request("r1"));
        w.pass(100 * DAY);
        w.purge();
        assert_eq!(w.state("r1", "ann"), PENDING, "not final");
        w.finish();
        w.purge();
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        w.pass(91 * DAY);
        w.purge();
        assert_eq!(count(&w, "item"), 0);
        w.accept(decision("d1").at(1));
        w.purge();
        assert_eq!(count(&w, "subject"), 1, "heard just now");
    }
}

/// Nothing writes one; a store that has it all the same is not to stop the purge.
#[test]
fn a_final_item_without_a_time_of_its_end_is_old() {
    for mut w in worlds(Setup::default()) {
        w.accept_all(vec![request("r1"), news("n1")]);
        settle_and_wait(&mut w, 91);
        w.bench.run("UPDATE item SET settled_at = NULL");
        w.purge();
        assert_eq!((count(&w, "item"), count(&w, "event")), (0, 0));
    }
}

/// `purge_whole`
#[test]
fn a_subject_leaves_as_a_whole_or_keeps_its_marks() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(decision("d1"));
        // A long doubt holds the request open; the decision alone would be old enough.
        w.change(|s| s.grace = 200 * DAY);
        w.lost_unsent(&mail);
        w.pass(100 * DAY);
        w.purge();
        w.pass(100 * DAY);
        w.expire();
        assert_eq!(w.state("r1", "ann"), WITHDRAWN, "the decision was not forgotten");
    }
    // Two topics that one closing event ties together.
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1));
        w.accept(renewed("renewed").at(2));
        settle_and_wait(&mut w, 60);
        let later = i64::try_from(DAY.as_secs()).unwrap() * 60;
        w.accept(expiring("v", "B").about(["m/review"]).at(later));
        w.pass(40 * DAY);
        w.purge();
        assert_eq!(count(&w, "subject"), 2, "its sister is young");
        w.finish();
        w.accept(expiring("e0", "A").at(1).from("late"));
        assert_eq!(w.state("e0", "ann"), WITHDRAWN);
        w.pass(100 * DAY);
        w.purge();
        assert_eq!((count(&w, "subject"), count(&w, "event"), count(&w, "item")), (0, 0, 0));
    }
}

/// `purge_whole`: one open item keeps its subject, also if it is no mark's.
#[test]
fn an_open_item_of_an_older_twin_keeps_its_subject() {
    // In either order of arrival.
    let ways = [true, false].map(|older_first| worlds(Setup::default()).into_iter().map(move |w| (w, older_first)));
    for (mut w, older_first) in ways.into_iter().flatten() {
        let (older, newer) = (expiring("e1", "A").at(1).to(["ann"]), expiring("e2", "A").at(2).to(["bob"]));
        for event in if older_first { [older, newer] } else { [newer, older] } {
            w.accept(event);
        }
        let leased = w.claim_all();
        let bobs = leased.iter().find(|l| l.recipient == "bob").unwrap();
        let mail = w.begun(bobs);
        w.accepted(&mail);
        w.pass(91 * DAY);
        w.purge();
        assert_eq!((w.state("e1", "ann"), w.state("e2", "bob")), (PENDING, DELIVERED));
        w.accept(renewed("c3").at(3));
        assert_eq!(w.state("e1", "ann"), WITHDRAWN);
    }
}

/// Evidence for what is purged is counted and dropped.
#[test]
fn evidence_for_purged_attempts_changes_nothing() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        let mail = w.begun(&leased);
        w.accepted(&mail);
        settle_and_wait(&mut w, 91);
        w.purge();
        assert_eq!(w.bounced(&mail), owlpost::store::Learned::Unknown);
        assert_eq!(w.begin(&leased), Begun::Lost);
        w.release(&leased).unwrap();
    }
}

fn subject_for_ever(w: &mut World, first: Ev, rounds: i64) {
    let day = i64::try_from(DAY.as_secs()).unwrap();
    w.accept(first);
    w.pass(DAY);
    for i in 1..=rounds {
        w.accept(expiring(&format!("e{i}"), &format!("d{i}")).at(i * day));
        let mail = w.send();
        w.accepted(&mail);
        w.pass(DAY);
        w.purge();
    }
}

/// A subject that lives for ever sheds its old events and keeps its marks.
#[test]
fn a_subject_that_lives_for_ever_does_not_grow_for_ever() {
    let mut setup = Setup::default();
    setup.limits.retention = 10 * DAY;
    // Behind an opener, and behind a closing event that stays the highest: that mark must not hold all others back.
    for first in [expiring("e0", "d0").at(0), renewed("renewed").at(0)] {
        for mut w in worlds(setup.clone()) {
            subject_for_ever(&mut w, first.clone(), 40);
            let events = count(&w, "event");
            assert!(events <= 16, "10 days of events and the marks, not {events}");
            w.accept(expiring("old", "d0").at(-1).from("late"));
            assert_eq!(w.state("old", "ann"), WITHDRAWN, "the marks are there");
            settle_and_wait(&mut w, 12);
            w.purge();
            w.purge();
            assert_eq!((count(&w, "subject"), count(&w, "event"), count(&w, "item")), (0, 0, 0));
        }
    }
}

/// What a purge took from the middle of a subject hides nothing that an operator opens again.
#[test]
fn an_old_item_that_is_replayed_still_hears_of_its_decision() {
    let mut setup = Setup::default();
    setup.limits.retention = 10 * DAY;
    let days = |n: i64| n * i64::try_from(DAY.as_secs()).unwrap();
    for mut w in worlds(setup) {
        w.accept(renewed("c1").at(0));
        w.accept(expiring("e1", "A").at(5));
        let mail = w.send();
        w.permanent(&mail);
        w.accept(expiring("before", "B").at(-1));
        w.pass(9 * DAY);
        // Its sister topic lives on, so the marks stay; what is no mark leaves.
        w.accept(expiring("v1", "C").about(["m/review"]).at(days(9)));
        w.finish();
        w.pass(3 * DAY);
        w.purge();
        assert_eq!(count(&w, "event"), 3);
        let item = w.key("e1", "ann");
        assert_eq!(w.replay(&item).changed, 1);
        w.accept(renewed("c2").at(days(12)));
        assert_eq!(w.state("e1", "ann"), WITHDRAWN);
    }
}

/// Feed, settle, wait, purge, again and again: the file does not grow.
#[test]
fn the_file_does_not_grow_without_bound() {
    for mut w in worlds(Setup::default()) {
        w.purged = true;
        let (mut sizes, mut time) = (vec![], 1);
        for round in 0..4 {
            for batch in 0..5 {
                let entries: Vec<Entry> = (0..200)
                    .map(|i| {
                        let id = format!("{round}-{batch}-{i}");
                        let event = if i % 4 == 0 { request(&id).about([&id]) } else { news(&id) };
                        event.at(time).to([["ann", "bob", "kim"][i % 3]]).entry(&w.role)
                    })
                    .chain([Entry::Refused(Box::new(refused(&format!("{round}-{batch}"), RefusedReason::NotJson)))])
                    .collect();
                w.accept_entries(entries);
            }
            let now = w.now;
            // What is gathered is suppressed at the last gate: final, as far as a purge is concerned.
            while let leased = w.call(async |s| s.claim(now, &w.ask()).await).unwrap()
                && !leased.is_empty()
            {
                let intents = leased
                    .iter()
                    .map(|l| owlpost::store::Intent { domain_allowed: false, ..w.intent(l) })
                    .collect::<Vec<_>>();
                w.call(async |s| s.begin(now, Arc::new(intents)).await).unwrap();
            }
            w.pass(91 * DAY);
            time += 91 * 86_400;
            let turns = w.purge();
            assert!(turns > 1, "1,000 events leave in bounded pieces");
            w.compact();
            for table in ["item", "event", "subject", "standing", "digest", "attempt", "dead_letter"] {
                assert_eq!(count(&w, table), 0, "{table}");
            }
            assert!(count(&w, "ledger_delta") == 0 && count(&w, "ledger_total") <= 6);
            w.bench.rest();
            sizes.push(w.call(async |s| s.gauges(now).await).unwrap().size_bytes);
        }
        assert!(sizes[3] <= sizes[0] + sizes[0] / 10, "{sizes:?}");
    }
}

/// A purge is a bounded transaction, also where one event asked many.
#[test]
fn a_purge_takes_a_bounded_number_of_rows_at_a_time() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.purged = true;
        let people: Vec<String> = (0..100).map(|i| format!("p{i}")).collect();
        for i in 0..100 {
            let mut event = request(&format!("r{i}")).about([&format!("t{i}")]);
            event.to = crate::events::To::People(people.clone());
            let close = decision(&format!("d{i}")).about([&format!("t{i}")]);
            w.accept_entries(vec![close.entry(&w.role), event.entry(&w.role)]);
        }
        assert_eq!(count(&w, "item"), 10_000);
        w.pass(91 * DAY);
        let (now, mut turns) = (w.now, 0);
        loop {
            let before = count(&w, "item");
            let tidied = w.call(async |s| s.purge(now).await).unwrap();
            assert!(before - count(&w, "item") <= 2_500, "{} rows at once", before - count(&w, "item"));
            turns += 1;
            if !tidied.more {
                break;
            }
        }
        assert!(turns >= 4);
        assert_eq!(count(&w, "item"), 0);
    }
}

/// Thousands of events of one subject: each accept walks only to what is open, not to the first event.
#[test]
fn a_long_subject_is_not_walked_from_its_head_to_its_foot_every_time() {
    for mut w in worlds(Setup::default()) {
        let events = if w.bench.is_alone() { 5_000 } else { 1_000i64 };
        for i in 0..events {
            let event = if i % 3 == 2 { decision(&format!("e{i}")) } else { request(&format!("e{i}")) };
            w.accept_entries(vec![event.at(i).entry(&w.role)]);
            if i % 500 == 499 {
                // From the head to where everything further back is final.
                let walk = "WITH RECURSIVE walk (no, n) AS (SELECT head, 0 FROM subject UNION ALL SELECT e.prev, n + 1 \
                            FROM walk JOIN event e ON e.no = walk.no WHERE walk.no <> (SELECT swept FROM subject)) \
                            SELECT max(n) FROM walk";
                let steps = w.bench.rows(walk)[0][0].int();
                assert!(steps <= 2, "{steps} steps at event {i}");
            }
        }
    }
}

/// At rest nothing is to do, and nobody is woken.
#[test]
fn the_next_worker_and_upkeep_have_nothing_to_do_at_rest() {
    for mut w in worlds(Setup::default()) {
        w.accept(news("n1"));
        w.finish();
        w.restart();
        let now = w.now;
        assert_eq!(w.call(async |s| s.next_upkeep().await).unwrap(), None);
        assert_eq!(w.call(async |s| s.expire(now, true).await).unwrap(), owlpost::store::Tidied::default());
        assert_eq!(w.call(async |s| s.replan(now, 0, 10).await).unwrap(), None);
        assert!(!w.call(async |s| s.purge(now).await).unwrap().more);
    }
}

/// Windows are planned anew in bounded steps, e.g. after a changed cadence; what is due stays due.
#[test]
fn a_changed_cadence_moves_what_is_not_due_yet() {
    for mut w in worlds(Setup { window: DAY, ..Setup::default() }) {
        for who in ["ann", "bob", "kim"] {
            w.accept(news(who).to([who]));
        }
        let due = w.now.plus(Duration::from_secs(60));
        w.change(|s| s.window = Duration::from_secs(60));
        let (now, mut cursor, mut turns) = (w.now, 0, 1);
        while let Some(next) = w.call(async |s| s.replan(now, cursor, 2).await).unwrap() {
            (cursor, turns) = (next, turns + 1);
        }
        w.check();
        assert_eq!(turns, 2);
        assert!(w.before.digests.values().all(|d| d.due_at == due.0));
        w.pass(Duration::from_secs(60));
        w.change(|s| s.window = DAY);
        let now = w.now;
        w.call(async |s| s.replan(now, 0, 10).await).unwrap();
        assert_eq!(w.claim_all().len(), 3);
    }
}

/// Ids of digests name their store: two deployments never meet.
#[test]
fn another_stores_digest_is_nobodys_business() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        let mut foreign = leased.clone();
        foreign.lease.digest = DigestId { store: leased.lease.digest.store ^ 1, ..leased.lease.digest };
        assert_eq!(w.begin(&foreign), Begun::Lost);
        w.release(&foreign).unwrap();
        w.begun(&leased);
    }
}

/// `run --until-idle`, or a worker that is scaled to zero: each of its lives sees few events.
#[test]
fn what_is_young_grows_old_also_in_short_lives() {
    let mut bench = OnSqlite::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for n in 0..20 {
        let open = || {
            let settings = bench.settings(policy(), Setup::default().limits, Opening::Worker);
            Sqlite::open(owlpost::store::sqlite::Settings { young_events: 4, ..settings }, at(n))
        };
        // A process that another test starts has all files for a moment, the lock of the life before among them.
        let store = (0..100_000).find_map(|_| open().inspect_err(|_| std::thread::yield_now()).ok()).expect("the lock");
        let entries = (0..3).map(|i| news(&format!("n{n}-{i}")).to(["p"]).entry(&BTreeSet::new())).collect();
        runtime.block_on(store.accept(at(n), Arc::new(entries))).unwrap();
    }
    let _store = bench.open(policy(), Setup::default().limits, at(200)).unwrap();
    let count = |table: &str| bench.rows(&format!("SELECT count(*) FROM {table}"))[0][0].int();
    let (young, old) = (count("young_key"), count("old_key"));
    assert!(young + old == 60 && old > 5, "{young} young, {old} old");
}

/// A worker knows without a look what is not old; an operator's command moves on what the worker has never seen.
#[test]
fn what_somebody_else_moved_on_is_known_all_the_same() {
    let bench = OnSqlite::new();
    let settings = bench.settings(policy(), Setup::default().limits, Opening::Operator);
    let mut w = World::on(Box::new(bench), Setup::default());
    // Each event moves one of all parts on.
    (0..40).for_each(|n| assert_eq!(w.accept(news(&format!("mine{n}")).to(["p"])), Receipt::Accepted));
    let (operator, now) = (Sqlite::open(settings, w.now).unwrap(), w.now);
    let theirs = |n| news(&format!("theirs{n}")).to(["p"]);
    for n in 0..40 {
        let entry = Arc::new(vec![theirs(n).entry(&BTreeSet::new())]);
        let receipts = w.call(async |_| operator.accept(now, entry).await).unwrap();
        assert_eq!(receipts, [Receipt::Accepted]);
    }
    drop(operator);
    for n in 0..40 {
        let receipts = w.accept_entries(vec![theirs(n).entry(&BTreeSet::new())]);
        assert_eq!(receipts, [Receipt::Duplicate], "{n}");
    }
}

/// Most of it is old by the second time, and was young when the worker knew already what is old.
#[test]
fn what_moved_on_before_the_workers_eyes_is_known() {
    let mut w = World::on(Box::new(OnSqlite::new()), Setup::default());
    let topic = |n: i32| format!("topic {n}");
    let asked = |n: i32| request(&format!("r{n}")).about([&*topic(n)]);
    (0..100).for_each(|n| assert_eq!(w.accept(asked(n)), Receipt::Accepted));
    (0..100).for_each(|n| assert_eq!(w.accept(asked(n)), Receipt::Duplicate, "{n}"));
    for n in 0..100 {
        w.accept(decision(&format!("d{n}")).about([&*topic(n)]));
        assert_eq!(w.state(&format!("r{n}"), "ann"), WITHDRAWN, "{n}");
    }
}

/// What the runbook says of a store that was restored: no number is used again.
#[test]
fn a_restored_store_takes_new_numbers() {
    let runbook = include_str!("../../deploy/runbook.md");
    let (_, section) = runbook.split_once("## A store that was restored").expect("the section");
    let blocks: Vec<&str> =
        section.split("```sql").skip(1).map(|block| block.split_once("```").expect("its end").0).collect();
    let [of_postgres, of_sqlite] = blocks[..] else { panic!("a block for each store: {blocks:?}") };
    for mut w in worlds(Setup::default()) {
        let event = |w: &World| w.bench.rows("SELECT max(no) FROM event")[0][0].int();
        w.accept(request("r1").to(["ann"]));
        let before = (w.claim().lease.digest.number, event(&w));
        w.bench.run(if w.bench.is_alone() { of_sqlite } else { of_postgres });
        w.accept(request("r2").to(["bob"]));
        let after = (w.claim().lease.digest.number, event(&w));
        assert!(after.0 > before.0 + 999_999_999 && after.1 > before.1 + 999_999_999, "{before:?}, then {after:?}");
    }
}

/// The statements that run for every event and every mail use their indexes: none reads a whole table.
#[test]
fn hot_statements_use_their_indexes() {
    let bench = OnSqlite::new();
    let mut w = World::on(Box::new(bench), Setup::default());
    w.accept(request("r1"));
    for statement in owlpost::store::sqlite::HOT.iter().chain(owlpost::store::sqlite::LITE_HOT) {
        // The plan does not depend on the values.
        let bound = (1..=9).rev().fold(statement.to_string(), |text, n| text.replace(&format!("?{n}"), "1"));
        let plan = w.bench.rows(&format!("EXPLAIN QUERY PLAN {bound}"));
        let steps: Vec<String> = plan.iter().map(|row| row[3].text()).collect();
        // `walk` is what a statement itself makes, with a bound.
        let no_table = |step: &&String| ["USING", "CONSTANT", "SCAN walk"].iter().any(|is| step.contains(is));
        let scans = |step: &&String| step.starts_with("SCAN") && !no_table(step);
        let scans: Vec<&String> = steps.iter().filter(scans).collect();
        assert!(scans.is_empty(), "{statement}\n{scans:?}");
        // A sort reads all rows before the first: no bound on the answer would be a bound on the work.
        let sorts = statement.contains("LIMIT") && steps.iter().any(|s| s.contains("TEMP B-TREE"));
        assert!(!sorts, "{statement}\n{steps:?}");
    }
}
