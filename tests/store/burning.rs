//! Patience: which attempts count, how long a retry waits, when nobody tries any more, who is woken.

use std::time::Duration;

use owlpost::store::Learned;

use crate::bench::{LEASE, Setup};
use crate::events::request;
use crate::oracle::{DEAD, PENDING};
use crate::world::{World, worlds};

/// `throttle_burns_nothing`
#[test]
fn throttled_and_uncalled_attempts_burn_nothing() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        for answer in [World::throttled, World::not_called, World::refused, World::throttled, World::throttled] {
            let mail = w.send();
            answer(&mut w, &mail);
            assert_eq!(w.state("r1", "ann"), PENDING);
            w.retry_is_due();
        }
        let last = w.send();
        assert_eq!(last.attempt.number, 6);
        w.refused(&last);
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(7)));
    }
}

/// `throttle_burns_nothing`: nor after doubts that burned.
#[test]
fn throttling_kills_no_mail_after_doubts() {
    for mut w in worlds(Setup { attempts_max: 3, ..Setup::default() }) {
        w.accept(request("r1"));
        for _ in 0..2 {
            let mail = w.send();
            w.lost_sent(&mail);
            w.doubt_ends();
            w.retry_is_due();
        }
        let third = w.send();
        w.throttled(&third);
        assert_eq!(w.state("r1", "ann"), PENDING);
        w.retry_is_due();
        let fourth = w.send();
        w.permanent(&fourth);
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(9)));
    }
}

/// `late_throttle_refunds`
#[test]
fn a_late_throttled_gives_its_attempt_back() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let first = w.send();
        w.lease_ends();
        w.doubt_ends();
        w.retry_is_due();
        let leased = w.claim();
        assert_eq!(w.not_called(&first), Learned::Settled);
        let second = w.begun(&leased);
        w.refused(&second);
        assert_eq!(w.state("r1", "ann"), PENDING);
        w.retry_is_due();
        let third = w.send();
        w.refused(&third);
        assert_eq!(w.state("r1", "ann"), DEAD);
    }
}

/// `doubt_burns`
#[test]
fn resends_after_doubts_are_bounded() {
    for mut w in worlds(Setup { attempts_max: 3, ..Setup::default() }) {
        w.accept(request("r1"));
        let first = w.send();
        w.refused(&first);
        w.retry_is_due();
        for _ in 0..2 {
            let mail = w.send();
            w.lost_sent(&mail);
            w.doubt_ends();
            w.retry_is_due();
        }
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(7)));
        assert_eq!(w.mails.len(), 3);
    }
}

/// `patience`
#[test]
fn giving_up_adds_up_waits_and_does_not_read_the_clock() {
    let setup = Setup { attempts_max: 9, give_up_after: Duration::from_secs(30), ..Setup::default() };
    for mut w in worlds(setup) {
        w.accept(request("r1"));
        let first = w.send();
        w.pause();
        w.refused(&first);
        w.pass(Duration::from_secs(10 * 86_400));
        w.resume();
        for _ in 0..5 {
            let mail = w.send();
            w.throttled(&mail);
            w.retry_is_due();
        }
        let second = w.send();
        w.refused(&second);
        assert_eq!(w.state("r1", "ann"), PENDING, "10 s and 20 s");
        w.retry_is_due();
        let third = w.send();
        w.lost_unsent(&third);
        w.doubt_ends();
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(8)));
    }
}

/// A retry waits as long as the policy, or the server, says.
#[test]
fn a_retry_waits_its_time() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.refused(&mail);
        let ask = w.ask();
        assert_eq!(w.call(async |s| s.next_due(&ask).await).unwrap(), Some(w.now.plus(Duration::from_secs(10))));
        w.pass(Duration::from_secs(9));
        assert!(w.claim_all().is_empty());
        w.pass(Duration::from_secs(1));
        w.send();
    }
}

/// Whose mail leaves with the third attempt has waited since the first.
#[test]
fn a_digest_is_as_late_as_since_it_was_due_first() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let (first, began) = (w.claim(), w.now);
        assert!(first.due_at <= began);
        let mail = w.begun(&first);
        w.refused(&mail);
        w.retry_is_due();
        let second = w.claim();
        assert_eq!((second.due_at, second.lease.digest), (began, first.lease.digest));
        let mail = w.begun(&second);
        w.throttled(&mail);
        w.retry_is_due();
        assert_eq!(w.claim().due_at, began);
    }
}

/// `wake_for_all`
#[test]
fn the_store_says_when_leases_doubts_and_retries_need_somebody() {
    for mut w in worlds(Setup::default()) {
        let (ask, upkeep) = (w.ask(), |w: &World| w.call(async |s| s.next_upkeep().await).unwrap());
        assert_eq!(upkeep(&w), None);
        w.accept(request("r1"));
        assert!(w.call(async |s| s.next_due(&ask).await).unwrap().is_some_and(|at| at <= w.now));
        let leased = w.claim();
        assert_eq!(upkeep(&w), Some(w.now.plus(LEASE)));
        let mail = w.begun(&leased);
        assert_eq!(upkeep(&w), Some(w.now.plus(LEASE)));
        assert_eq!(w.call(async |s| s.next_due(&ask).await).unwrap(), None);
        w.lost_sent(&mail);
        assert_eq!(upkeep(&w), Some(w.now.plus(Duration::from_secs(3_600))));
        w.doubt_ends();
        assert_eq!(upkeep(&w), None);
        assert_eq!(w.call(async |s| s.next_due(&ask).await).unwrap(), Some(w.now.plus(Duration::from_secs(10))));
    }
}
