//! Intake and subjects: what is over, in whichever order it is heard.

use std::time::Duration;

use owlpost::model::{Entry, Reason, Receipt, RefusedReason};
use owlpost::store::Begun;

use crate::bench::{DAY, Setup};
use crate::events::{decision, expiring, news, refused, renewed, request};
use crate::oracle::{DEAD, DELIVERED, PENDING, WITHDRAWN};
use crate::world::worlds;

/// `dedupe`
#[test]
fn receiving_an_event_again_changes_nothing() {
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.accept(request("r1")), Receipt::Accepted);
        let before = w.look();
        w.role = ["bob".to_owned()].into();
        assert_eq!(w.accept(request("r1")), Receipt::Duplicate);
        assert_eq!(w.look(), before);
        // In one batch too, and after the mail.
        assert_eq!(w.accept_all(vec![request("r1"), request("r1")]), [Receipt::Duplicate, Receipt::Duplicate]);
        assert_eq!(w.accept(request("r1").from("other")), Receipt::Accepted, "the key is source and id");
    }
}

/// `dedupe`: of two copies in one batch the first counts.
#[test]
fn copies_in_one_batch_are_one_event() {
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.accept_all(vec![request("r1"), request("r1")]), [Receipt::Accepted, Receipt::Duplicate]);
        assert_eq!(w.before.items.len(), 1);
    }
}

/// `dedupe`, among events that share a topic: its chain goes on from the event before the copy.
#[test]
fn a_copy_among_the_twins_of_a_topic_breaks_no_chain() {
    let twins = |of: std::ops::Range<usize>| {
        let asks = |i| expiring(&format!("e{i}"), "d1").to([["ann", "bob", "kim", "lee"][i % 4]]);
        let copies = (0..8).map(|i| expiring(&format!("c{i}"), "d1"));
        of.map(asks).chain(copies).collect::<Vec<_>>()
    };
    for mut w in worlds(Setup::default()) {
        // Known under the ids of the copies, and about nothing.
        w.accept_all((0..8).map(|i| news(&format!("c{i}"))).collect());
        for of in [0..4, 4..8] {
            let receipts = w.accept_all(twins(of));
            assert_eq!(receipts, [vec![Receipt::Accepted; 4], vec![Receipt::Duplicate; 8]].concat());
        }
        assert_eq!(w.accept(renewed("r").at(9)), Receipt::Accepted);
        for i in 0..8 {
            assert_eq!(w.state(&format!("e{i}"), ["ann", "bob", "kim", "lee"][i % 4]), WITHDRAWN, "{i}");
        }
    }
}

/// `dedupe`, for a text without an id: it counts as a copy for so long, then somebody asks again.
#[test]
fn the_same_text_counts_as_a_copy_for_ten_minutes_only() {
    let again = || {
        let mut event = request("hash");
        event.counts_for = Some(Duration::from_secs(600));
        event
    };
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.accept(again()), Receipt::Accepted);
        w.pass(Duration::from_secs(599));
        assert_eq!(w.accept(again()), Receipt::Duplicate);
        w.pass(Duration::from_secs(1));
        let (now, entry) = (w.now, again().at(2).entry(&w.role));
        let receipts = w.call(async |s| s.accept(now, std::sync::Arc::new(vec![entry])).await).unwrap();
        assert_eq!(receipts, [Receipt::Accepted]);
        assert_eq!(w.look().items.len(), 2);
    }
}

/// `too_old`
#[test]
fn an_event_older_than_the_retention_is_refused_unless_its_key_is_known() {
    let stale = |id: &str| {
        let mut event = request(id);
        event.stale = true;
        event
    };
    for mut w in worlds(Setup::default()) {
        w.accept(request("known"));
        assert_eq!(w.accept(stale("known")), Receipt::Duplicate);
        let refusal = Receipt::Refused { reason: RefusedReason::TooOld, detail: "too old".into(), at: None };
        assert_eq!(w.accept(stale("r1")), refusal);
        assert_eq!(w.accept(request("r1")), Receipt::Accepted, "what is refused takes no key");
        // A corrected one may stand right behind it.
        assert_eq!(w.accept_all(vec![stale("r2"), request("r2")]), [refusal, Receipt::Accepted]);
    }
}

/// `too_old`, for a text without an id: a copy that is too old is not somebody asking again.
#[test]
fn an_old_text_is_not_accepted_anew_when_it_stops_being_a_copy() {
    for mut w in worlds(Setup::default()) {
        let mut event = request("hash");
        event.counts_for = Some(Duration::from_secs(600));
        w.accept(event.clone());
        w.pass(DAY);
        event.stale = true;
        assert_eq!(w.accept(event), Receipt::Duplicate);
        assert_eq!(w.before.items.len(), 1);
    }
}

/// `tombstone`
#[test]
fn a_decision_that_comes_before_its_request_closes_it() {
    for mut w in worlds(Setup::default()) {
        w.accept(decision("d1").at(2));
        w.accept(request("r1").at(1));
        assert_eq!(w.state("r1", "ann"), WITHDRAWN);
        let reason = w.before.items.iter().find(|(key, _)| key.0 == "r1").unwrap().1.reason;
        assert_eq!(reason, Some(Reason::Decided as i64), "what `why` tells");
        assert!(w.claim_all().is_empty());
        // Both in one batch, in any order.
        w.accept_all(vec![decision("d2").at(2).about(["x"]), request("r2").at(1).about(["x"])]);
        assert_eq!(w.state("r2", "ann"), WITHDRAWN);
        // At the same time, the closing event is the later one.
        w.accept(decision("a").at(5).about(["y"]));
        w.accept(request("z").at(5).about(["y"]));
        assert_eq!(w.state("z", "ann"), WITHDRAWN);
    }
}

/// `tombstone`, over and over: on SQLite the marks have moved from one table to the other each time.
#[test]
fn what_is_over_stays_over_whatever_comes_in_between() {
    for mut w in worlds(Setup::default()) {
        let between = |n: u32| (0..40).map(|i| news(&format!("n{n}-{i}"))).collect::<Vec<_>>();
        w.accept(request("r1").at(10));
        for n in 0..3 {
            for event in between(n) {
                w.accept(event);
            }
            let at = 20 + 10 * i64::from(n);
            w.accept(decision(&format!("d{n}")).at(at));
            for event in between(10 + n) {
                w.accept(event);
            }
            w.accept(request(&format!("late{n}")).at(at - 1));
            assert_eq!(w.state(&format!("late{n}"), "ann"), WITHDRAWN);
        }
        w.accept(request("r2").at(60));
        assert_eq!((w.state("r1", "ann"), w.state("r2", "ann")), (WITHDRAWN, PENDING));
    }
}

/// `total_order`
#[test]
fn events_of_one_time_and_id_are_ordered_by_their_source() {
    for order in [["s1", "s2"], ["s2", "s1"]] {
        for mut w in worlds(Setup::default()) {
            for source in order {
                w.accept(request("e").from(source));
            }
            let state = |source: &str| w.before.items.iter().find(|(k, _)| k.1 == source).unwrap().1.state;
            assert_eq!((state("s1"), state("s2")), (WITHDRAWN, PENDING), "heard in the order {order:?}");
        }
        for mut w in worlds(Setup::default()) {
            w.accept_all(order.iter().map(|source| request("e").from(source)).collect());
            let state = |source: &str| w.before.items.iter().find(|(k, _)| k.1 == source).unwrap().1.state;
            assert_eq!((state("s1"), state("s2")), (WITHDRAWN, PENDING), "heard in the order {order:?}");
        }
    }
}

/// `total_order`: text is compared as bytes, and the id comes before the source.
#[test]
fn events_of_one_time_are_ordered_by_the_bytes_of_their_ids() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("a").from("s9"));
        w.accept(request("Z").from("s1"));
        assert_eq!((w.state("a", "ann"), w.state("Z", "ann")), (PENDING, WITHDRAWN));
        w.accept(request("é").from("s0"));
        assert_eq!((w.state("a", "ann"), w.state("é", "ann")), (WITHDRAWN, PENDING));
    }
}

/// `twins`, `twin_replaces_own`
#[test]
fn a_twin_leaves_the_people_that_it_does_not_name_and_replaces_those_that_it_names() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("old", "A").at(1).to(["bob"]));
        w.accept(renewed("renewed").at(2));
        w.accept(expiring("e3", "A").at(3).to(["ann"]));
        w.accept(expiring("e4", "A").at(4).to(["bob"]));
        assert_eq!((w.state("e3", "ann"), w.state("e4", "bob")), (PENDING, PENDING));
        w.accept(expiring("again", "A").at(5).to(["ann"]));
        assert_eq!(w.state("e3", "ann"), WITHDRAWN);
        assert_eq!((w.state("e4", "bob"), w.state("again", "ann")), (PENDING, PENDING));
        assert_eq!(w.state("old", "bob"), WITHDRAWN);
        w.accept(expiring("late", "A").at(3).to(["ann", "bob"]).from("other"));
        assert_eq!((w.state("late", "ann"), w.state("late", "bob")), (WITHDRAWN, WITHDRAWN));
    }
}

/// `other_date_replaces_all`, `both_marks`
#[test]
fn another_date_replaces_everybodys_items_even_when_the_date_came_back() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1).to(["ann"]));
        w.accept(expiring("e2", "A").at(2).to(["bob"]));
        w.accept(expiring("back", "A").at(4).to(["bob"]));
        assert_eq!(w.state("e1", "ann"), PENDING);
        // Heard last, but it moved the date between the two.
        w.accept(expiring("moved", "B").at(3).to(["bob"]));
        assert_eq!((w.state("e1", "ann"), w.state("e2", "bob")), (WITHDRAWN, WITHDRAWN));
        assert_eq!((w.state("moved", "bob"), w.state("back", "bob")), (WITHDRAWN, PENDING));
    }
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1).to(["ann"]));
        w.accept(expiring("moved", "B").at(3).to(["bob"]));
        w.accept(expiring("back", "A").at(4).to(["bob"]));
        assert_eq!(w.state("e1", "ann"), WITHDRAWN);
        w.accept(expiring("twin", "A").at(2).to(["kim"]));
        assert_eq!(w.state("twin", "kim"), WITHDRAWN, "older than the move");
    }
}

/// `other_date_replaces_all`: no date is a date of its own.
#[test]
fn an_opener_without_a_date_replaces_all_before_it() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1").at(1).to(["ann"]));
        w.accept(request("r2").at(2).to(["bob"]));
        assert_eq!((w.state("r1", "ann"), w.state("r2", "bob")), (WITHDRAWN, PENDING));
        w.accept(request("r0").at(0).to(["kim"]));
        assert_eq!(w.state("r0", "kim"), WITHDRAWN);
    }
}

/// `closer_closes_twins`
#[test]
fn a_closing_event_closes_all_twins() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1).to(["ann"]));
        w.accept(expiring("e2", "A").at(2).to(["bob"]));
        w.accept(renewed("renewed").at(3));
        assert_eq!((w.state("e1", "ann"), w.state("e2", "bob")), (WITHDRAWN, WITHDRAWN));
        assert!(w.claim_all().is_empty());
    }
}

/// `topic_in_key`
#[test]
fn expiring_and_review_of_one_membership_are_topics_of_their_own() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1));
        w.accept(expiring("v1", "B").at(1).about(["m/review"]));
        assert_eq!((w.state("e1", "ann"), w.state("v1", "ann")), (PENDING, PENDING));
        // `renewed` closes both, whatever comes between.
        w.accept(renewed("renewed").at(2));
        assert_eq!((w.state("e1", "ann"), w.state("v1", "ann")), (WITHDRAWN, WITHDRAWN));
        w.accept(expiring("v3", "B").at(3).about(["m/review"]));
        w.accept(expiring("e4", "A").at(4));
        assert_eq!((w.state("v3", "ann"), w.state("e4", "ann")), (PENDING, PENDING));
        w.accept(expiring("v0", "B").at(1).about(["m/review"]).from("late"));
        assert_eq!(w.state("v0", "ann"), WITHDRAWN);
    }
}

/// A producer that names one topic twice closes it once.
#[test]
fn a_closing_event_may_name_a_topic_twice() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1));
        w.accept(renewed("renewed").at(2).about(["m/expiring", "m/expiring"]));
        w.accept(expiring("e3", "A").at(3));
        assert_eq!((w.state("e1", "ann"), w.state("e3", "ann")), (WITHDRAWN, PENDING));
    }
}

/// `route_in_key`
#[test]
fn each_route_asks_for_itself() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1").by(["ask", "copy"]));
        assert_eq!(w.before.items.len(), 2);
        let leased = w.claim_all();
        assert_eq!(leased.len(), 2, "a digest a route");
        for l in &leased {
            let mail = w.begun(l);
            w.accepted(&mail);
        }
        assert!(w.before.items.values().all(|row| row.state == DELIVERED));
    }
}

/// `nobody_is_dead`
#[test]
fn a_named_audience_that_is_nobody_is_one_dead_item() {
    for mut w in worlds(Setup::default()) {
        w.role.clear();
        w.accept(request("r1"));
        w.accept(news("n1"));
        assert_eq!(w.state("r1", "sports:role.admin"), DEAD);
        assert_eq!(w.state("n1", "sports:role.admin"), DEAD);
        assert!(w.before.items.values().all(|row| row.reason == Some(1)), "unreachable");
        assert!(w.before.digests.is_empty());
    }
}

/// `asks_nobody`
#[test]
fn an_event_that_names_nobody_makes_no_item() {
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.accept(decision("d1")), Receipt::Accepted);
        assert!(w.before.items.is_empty());
    }
}

/// An event beyond its `expirytime` keeps its key and asks nobody; one whose time comes later is withdrawn.
#[test]
fn nobody_hears_of_what_has_expired() {
    for mut w in worlds(Setup::default()) {
        let mut late = request("late");
        late.expiry = Some(w.now);
        assert_eq!(w.accept(late.clone()), Receipt::Dropped);
        assert_eq!(w.accept(late), Receipt::Duplicate);
        let mut soon = request("soon");
        soon.expiry = Some(w.now.plus(Duration::from_secs(5)));
        w.accept(soon);
        w.pass(Duration::from_secs(5));
        let leased = w.claim();
        assert_eq!(w.begin(&leased), Begun::Empty);
        assert_eq!(w.state("soon", "ann"), WITHDRAWN);
    }
}

/// Refused input is kept once by its bytes, and counted.
#[test]
fn the_same_refused_input_is_one_dead_letter() {
    for mut w in worlds(Setup::default()) {
        let bad = |text: &str| Entry::Refused(Box::new(refused(text, RefusedReason::NotJson)));
        let receipts = w.accept_entries(vec![bad("x"), bad("y"), bad("x")]);
        assert!(receipts.iter().all(|r| matches!(r, Receipt::Refused { .. })));
        let counts = w.bench.rows("SELECT count FROM dead_letter ORDER BY count");
        assert_eq!(counts.iter().map(|r| r[0].int()).collect::<Vec<_>>(), [1, 2]);
        w.check();
    }
}

/// A person can have so many open items; more are dead, and counted.
#[test]
fn a_flood_for_one_person_is_bounded() {
    let mut setup = Setup::default();
    setup.limits.open_items_per_recipient = 2;
    for mut w in worlds(setup) {
        w.accept_all(["a", "b", "c"].iter().map(|id| news(id)).collect());
        w.accept(news("d").to(["bob"]));
        let states: Vec<i64> = w.before.items.values().map(|r| r.state).collect();
        assert_eq!(states.iter().filter(|s| **s == DEAD).count(), 1);
        assert_eq!(states.iter().filter(|s| **s == PENDING).count(), 3);
        let leased = w.claim_all();
        for l in &leased {
            let mail = w.begun(l);
            w.accepted(&mail);
        }
        w.accept(news("e"));
        assert_eq!(w.state("e", "ann"), PENDING, "what has left makes room");
    }
}

/// What a decision ended makes room in the batch that comes next, as what was mailed does.
#[test]
fn what_was_withdrawn_makes_room_for_the_next_batch() {
    let mut setup = Setup::default();
    setup.limits.open_items_per_recipient = 2;
    for mut w in worlds(setup) {
        w.accept_all(vec![request("r").to(["ann"]), news("a").to(["ann"])]);
        w.accept(decision("d"));
        assert_eq!(w.state("r", "ann"), WITHDRAWN);
        w.accept(news("b").to(["ann"]));
        w.accept(news("c").to(["ann"]));
        assert_eq!(w.state("b", "ann"), PENDING, "the decision has made room");
        assert_eq!(w.state("c", "ann"), DEAD, "two are open again");
    }
}

/// An operator's command beside the worker changes a window that the last batch filled: the next batch must not undo it.
#[test]
fn what_another_connection_changes_between_two_batches_stands() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.accept(news("a").to(["ann"]));
        assert_eq!(w.claim_all().len(), 0, "it is held");
        w.bench.run("UPDATE digest SET state = 0, due_at = 0");
        w.accept(news("b").to(["ann"]));
        let leased = w.claim();
        let mail = w.begun(&leased);
        assert_eq!(mail.items.len(), 2, "both in the digest that was released");
    }
}

/// Twins of which each comes in a batch of its own, the first of them alone in its topic until then.
#[test]
fn a_second_twin_replaces_the_first_for_those_that_both_name() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("t1", "march").at(1).to(["ann", "bob"]));
        w.accept(renewed("other").about(["m/review"]).at(1));
        w.accept(expiring("t2", "march").at(2).to(["bob", "cat"]));
        assert_eq!(w.state("t1", "ann"), PENDING);
        assert_eq!(w.state("t1", "bob"), WITHDRAWN);
        w.accept(expiring("t3", "march").at(3).to(["cat", "ann"]));
        assert_eq!(w.state("t1", "ann"), WITHDRAWN);
        assert_eq!(w.state("t2", "cat"), WITHDRAWN);
        assert_eq!(w.state("t2", "bob"), PENDING);
        // An older one that comes late is over for all who have a later one.
        w.accept(expiring("t0", "march").at(0).to(["ann", "bob", "dan"]));
        assert_eq!(w.state("t0", "ann"), WITHDRAWN);
        assert_eq!(w.state("t0", "bob"), WITHDRAWN);
        assert_eq!(w.state("t0", "dan"), PENDING);
    }
}
