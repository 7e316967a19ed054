//! The account's quota as the store keeps it: shares of the day, permits of the rate.

use std::time::Duration;

use owlpost::model::{Share, Time};
use owlpost::quota::{SLOT, Terms};
use owlpost::store::{Answer, Begun, Intent, Sent};

use crate::bench::{DAY, LEASE, Setup};
use crate::events::news;
use crate::world::{World, worlds};

/// So many a day, as fast as can be, nothing kept back.
fn per_day(n: u64) -> Terms {
    Terms { per_day: Some(n), burst: 1, ..Terms::default() }
}

fn per_second(n: f64) -> Terms {
    Terms { per_second: Some(n), burst: 1, ..Terms::default() }
}

/// A mail to each of so many people is due.
fn due(w: &mut World, names: std::ops::Range<usize>) {
    for n in names {
        let who = format!("p{n}");
        w.accept(news(&format!("n{n}")).to([who.as_str()]));
    }
}

fn used(w: &World) -> (u64, u64) {
    let day = w.gauges().quota.expect("the account is known").day;
    (day.used, day.reserved)
}

#[test]
fn nothing_leaves_before_the_account_has_said_what_may() {
    let mut bench = crate::bench::OnSqlite::new();
    let policy = std::sync::Arc::new(crate::bench::Said(std::sync::Mutex::new(Setup::default())));
    let store = crate::bench::Bench::open(&mut bench, policy, Setup::default().limits, crate::events::START).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gauges = runtime.block_on(store.gauges(crate::events::START)).unwrap();
    assert_eq!(gauges.quota, None);
}

#[test]
fn a_day_lets_through_what_it_has_and_no_more() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(3), Some(0));
        due(&mut w, 0..5);
        let leased = w.claim_all();
        assert_eq!(leased.len(), 3, "a claim reserves");
        assert!(w.claim_all().is_empty());
        for one in &leased {
            let mail = w.begun(one);
            w.accepted(&mail);
        }
        assert_eq!(used(&w), (3, 0));
        assert!(w.claim_all().is_empty(), "what was sent counts for 24 hours");
        w.pass(DAY);
        assert!(w.claim_all().is_empty(), "to the end of its minute");
        w.pass(Duration::from_secs(60));
        assert_eq!(w.claim_all().len(), 2);
    }
}

/// `permit_returns`, `permit_once`
#[test]
fn an_unused_share_comes_back_once() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(1), Some(0));
        due(&mut w, 0..2);
        let first = w.claim();
        assert_eq!(used(&w), (0, 1));
        w.lease_ends();
        assert_eq!(used(&w), (0, 0));
        let second = w.claim();
        // The old lease is given back once more, late: the share belongs to the new one.
        let (now, old) = (w.now, first.lease);
        w.call(async |s| s.release(now, std::sync::Arc::new(vec![old])).await).unwrap();
        assert_eq!(used(&w), (0, 1));
        assert!(w.claim_all().is_empty());
        let mail = w.begun(&second);
        assert_eq!(used(&w), (0, 1), "what is on its way holds its share");
        w.not_called(&mail);
        assert_eq!(used(&w), (0, 0), "a slot that was missed gives the day's share back");
        let again = w.claim_up_to(1).remove(0);
        let mail = w.begun(&again);
        w.throttled(&mail);
        assert_eq!(used(&w), (0, 0));
    }
}

/// `doubt_uses_permit`
#[test]
fn a_doubtful_mail_counts_as_sent_and_only_once() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(2), Some(0));
        due(&mut w, 0..1);
        let mail = w.send();
        w.lost_sent(&mail);
        assert_eq!(used(&w), (1, 0));
        w.evidence(&mail);
        assert_eq!(used(&w), (1, 0), "the evidence tells nothing new about the quota");
        // The same by the end of the lease: nobody came back.
        due(&mut w, 1..2);
        let mail = w.send();
        w.taken(&mail);
        w.lease_ends();
        assert_eq!(used(&w), (2, 0));
    }
}

/// `permit_outlives_window`
#[test]
fn what_is_claimed_counts_however_old_it_is() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(1), Some(0));
        due(&mut w, 0..2);
        let leased = w.claim();
        w.pass(DAY * 2);
        assert_eq!(used(&w), (0, 1));
        assert!(w.claim_all().is_empty());
        assert_eq!(w.begin(&leased), Begun::Lost, "its lease is long over");
    }
}

#[test]
fn others_who_send_from_the_account_are_counted_and_counted_anew() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(10), Some(9));
        due(&mut w, 0..4);
        let leased = w.claim_up_to(4).remove(0);
        let mail = w.begun(&leased);
        w.accepted(&mail);
        assert!(w.claim_all().is_empty(), "nine of others and one of ours");
        // The account counts ours as well: still nine of others.
        w.account(per_day(10), Some(10));
        assert_eq!(w.gauges().quota.unwrap().day.external, 9);
        assert!(w.claim_all().is_empty());
        // Theirs leave the window.
        w.account(per_day(10), Some(3));
        assert_eq!(w.claim_all().len(), 3);
    }
}

/// The account counts, its answer is on its way, and meanwhile mails are settled: those it did not count hide nobody else's.
#[test]
fn what_is_settled_while_the_account_answers_hides_no_mail_of_others() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(10), Some(0));
        due(&mut w, 0..10);
        let leased = w.claim_up_to(4);
        for one in &leased[..2] {
            let mail = w.begun(one);
            w.accepted(&mail);
        }
        w.pass(Duration::from_secs(1));
        let ours = w.ours();
        assert_eq!(ours.used, 2);
        // Three of others, it says; by the time it is heard, two more of ours have left.
        let said = Sent { all: 5, ours };
        for one in &leased[2..] {
            let mail = w.begun(one);
            w.accepted(&mail);
        }
        w.account_says(per_day(10), Some(said));
        assert_eq!(w.gauges().quota.unwrap().day.external, 3);
        assert_eq!(w.claim_all().len(), 3, "four of ours and three of others");
    }
}

/// It waited for somebody's locks, and another worker has asked and heard meanwhile.
#[test]
fn an_answer_that_was_long_on_its_way_replaces_no_newer_one() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(10), Some(0));
        let ours = w.ours();
        w.pass(Duration::from_secs(70));
        w.account(per_day(10), Some(8));
        w.account_says(per_day(20), Some(Sent { all: 1, ours }));
        let quota = w.gauges().quota.unwrap();
        assert_eq!((quota.day.external, quota.terms.per_day), (8, Some(10)));
        // A clock that was set back makes no answer newer than all that come.
        let later = owlpost::store::Ours { at: w.now.plus(DAY), ..w.ours() };
        w.account_says(per_day(10), Some(Sent { all: 9, ours: later }));
        w.account(per_day(10), Some(3));
        assert_eq!(w.gauges().quota.unwrap().day.external, 3);
    }
}

/// Whole minutes leave the day; the account lets each mail go at its second, and others may have taken its place.
#[test]
fn shares_about_to_leave_the_day_count_once_and_hide_no_mail_of_others() {
    for (all, room) in [(9, 1), (6, 4)] {
        for mut w in worlds(Setup::default()) {
            w.account(per_day(10), Some(0));
            due(&mut w, 0..6);
            for one in &w.claim_all() {
                let mail = w.begun(one);
                w.accepted(&mail);
            }
            w.pass(DAY);
            due(&mut w, 6..16);
            let ours = w.ours();
            w.account_says(per_day(10), Some(Sent { all, ours }));
            assert_eq!(w.claim_all().len(), room, "as the account says, {all} of 10");
            w.pass(Duration::from_secs(60));
            assert!(w.claim_all().is_empty(), "what leaves now, the account may have let go of before");
            let ours = w.ours();
            w.account_says(per_day(10), Some(Sent { all: all - 6, ours }));
            assert_eq!(w.claim_all().len(), 6);
        }
    }
}

#[test]
fn an_urgent_mail_has_a_reserve_that_others_leave_alone() {
    for mut w in worlds(Setup::default()) {
        w.account(Terms { urgent_reserve: 0.25, ..per_day(8) }, Some(0));
        due(&mut w, 0..10);
        assert_eq!(w.claim_all().len(), 6);
        for n in 0..3 {
            let who = format!("u{n}");
            w.accept(news(&format!("urgent{n}")).to([who.as_str()]).by(["urgent"]));
        }
        let urgent = w.claim_all();
        assert_eq!(urgent.len(), 2, "the reserve, and nothing beyond the quota");
        assert!(urgent.iter().all(|l| l.route == "urgent"));
    }
}

/// `permit_returns`: within one claim, what is urgent has taken its shares before the others ask.
#[test]
fn a_claim_of_several_priorities_takes_no_more_than_the_day_has() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(3), Some(0));
        due(&mut w, 0..3);
        for n in 0..2 {
            let who = format!("u{n}");
            w.accept(news(&format!("urgent{n}")).to([who.as_str()]).by(["urgent"]));
        }
        let leased = w.claim_up_to(5);
        assert_eq!(leased.iter().filter(|l| l.route == "urgent").count(), 2);
        assert_eq!(leased.len(), 3);
    }
}

#[test]
fn a_day_that_the_server_calls_full_is_full_until_the_account_or_ten_minutes_say_otherwise() {
    for mut w in worlds(Setup::default()) {
        w.account(per_day(100), Some(0));
        due(&mut w, 0..2);
        let full = |w: &mut World| {
            let leased = w.claim_up_to(1).remove(0);
            let mail = w.begun(&leased);
            let why = "Daily message quota exceeded".to_owned();
            w.unsent(&mail);
            w.learn(
                &mail,
                Answer::Throttled { retry_in: Duration::from_secs(60), share: Some(Share::Day), detail: why },
            );
        };
        full(&mut w);
        w.pass(Duration::from_secs(120));
        assert!(w.claim_all().is_empty(), "nothing is tried");
        w.pass(Duration::from_secs(490));
        assert_eq!(w.claim_up_to(1).len(), 1, "after ten minutes it is");
        w.pass(LEASE);
        w.expire();
        full(&mut w);
        w.account(per_day(100), Some(100));
        w.pass(Duration::from_secs(120));
        assert!(w.claim_all().is_empty());
        w.account(per_day(100), Some(50));
        assert_eq!(w.claim_up_to(1).len(), 1, "the account says that there is room");
    }
}

/// A permit for each mail, at its own moment; a retry needs another one.
#[test]
fn the_rate_gives_each_mail_a_moment_of_its_own() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(2.0), None);
        due(&mut w, 0..2);
        let leased = w.claim_all();
        assert_eq!(leased.len(), 2);
        let Begun::Send(first) = w.begin(&leased[0]) else { panic!("the first may leave") };
        assert_eq!(first.call_at, w.now);
        let Begun::NoRate(until) = w.begin(&leased[1]) else { panic!("the second has to wait") };
        assert!(until > w.now && until < w.now.plus(Duration::from_millis(500)));
        w.now = until;
        let Begun::Send(second) = w.begin(&leased[1]) else { panic!("now it may") };
        assert!(second.call_at.since(first.call_at) >= Duration::from_millis(500), "half a second apart");
    }
}

#[test]
fn a_slow_begin_gets_a_moment_that_is_still_to_come() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(10.0), None);
        due(&mut w, 0..1);
        let leased = w.claim();
        let intent = Intent { lead: Duration::from_secs(2), ..w.intent(&leased) };
        let Begun::Send(contents) = w.begin_with(&leased, intent) else { panic!("it may leave") };
        assert_eq!(contents.call_at, w.now.plus(Duration::from_secs(2)));
    }
}

#[test]
fn a_mail_that_turns_out_to_be_empty_uses_no_permit() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(1.0), None);
        due(&mut w, 0..2);
        w.accept(news("n9").to(["p9"]));
        let leased = w.claim_all();
        assert_eq!(leased.len(), 1, "no more than a second's worth");
        let outside = Intent { domain_allowed: false, ..w.intent(&leased[0]) };
        assert_eq!(w.begin_with(&leased[0], outside), Begun::Empty);
        let next = w.claim_all().remove(0);
        assert!(matches!(w.begin(&next), Begun::Send(_)));
    }
}

/// A slow account's permit may be minutes away.
#[test]
fn who_waits_for_a_permit_hears_of_a_pause_and_of_the_end_of_the_lease() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(0.005), None);
        due(&mut w, 0..2);
        let first = w.claim_up_to(1).remove(0);
        assert!(matches!(w.begin(&first), Begun::Send(_)));
        let second = w.claim_up_to(1).remove(0);
        assert!(matches!(w.begin(&second), Begun::NoRate(_)));
        w.pass(Duration::from_secs(1));
        w.pause();
        assert_eq!(w.begin(&second), Begun::Paused);
        w.resume();
        let again = w.claim_up_to(1).remove(0);
        assert!(matches!(w.begin(&again), Begun::NoRate(_)));
        w.pass(LEASE - Duration::from_secs(1));
        assert_eq!(w.begin(&again), Begun::Lost, "its call would end after its lease");
    }
}

#[test]
fn a_server_that_says_too_fast_is_heeded_for_a_while() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(100.0), None);
        due(&mut w, 0..1);
        let mail = w.send();
        w.unsent(&mail);
        let why = "Maximum sending rate exceeded".to_owned();
        w.learn(&mail, Answer::Throttled { retry_in: SLOT, share: Some(Share::Second), detail: why });
        let slowed = w.gauges().quota.unwrap().factor;
        assert!(slowed < 0.99, "{slowed}");
        w.pass(Duration::from_secs(120));
        assert_eq!(w.gauges().quota.unwrap().factor, 1.0);
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_the_mail() {
    for mut w in worlds(Setup::default()) {
        w.account(per_second(2.0), None);
        due(&mut w, 0..2);
        let leased = w.claim_all();
        assert!(matches!(w.begin(&leased[0]), Begun::Send(_)));
        w.now = Time(w.now.0 - 3_600_000_000);
        let Begun::NoRate(until) = w.begin(&leased[1]) else { panic!("it just sent one") };
        assert!(until.since(w.now) <= Duration::from_secs(1), "{until}");
        w.now = until;
        assert!(matches!(w.begin(&leased[1]), Begun::Send(_)), "the wait does not begin anew");
    }
}
