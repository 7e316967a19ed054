//! The arithmetic of the quota: any window of any length admits no more than burst + rate x (length + slot); what the
//! account gives is used; a day is never passed.

use std::time::Duration;

use owlpost::model::{Priority, Time};
use owlpost::quota::{Day, Rate, SLOT, Terms};
use proptest::prelude::*;

const START: Time = Time(1_795_000_000_000_000);

fn terms(per_second: f64, burst: u32) -> Terms {
    Terms { per_second: Some(per_second), burst, ..Terms::default() }
}

/// Seconds that a window of calls takes.
fn span(from: Time, to: Time) -> f64 {
    to.since(from).as_secs_f64()
}

/// The worst window of these calls: how many more it holds than it may; at most 0 is good.
fn excess(mut calls: Vec<Time>, rate: f64, burst: f64) -> f64 {
    calls.sort();
    let mut worst = f64::MIN;
    for (i, first) in calls.iter().enumerate() {
        for (j, last) in calls.iter().enumerate().skip(i) {
            let admitted = burst + rate * (span(*first, *last) + SLOT.as_secs_f64());
            worst = worst.max((j - i + 1) as f64 - admitted);
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However the asks come, whenever in its slot each call starts, and though the server slows the rate down in between.
    #[test]
    fn no_window_admits_more_than_burst_and_rate(
        rate in 0.5f64..2_000.0,
        burst in 1u32..20,
        steps in prop::collection::vec((0u64..300_000, 1u8..12, 0u64..200_000, 0u8..20), 1..80),
    ) {
        let terms = terms(rate, burst.min(rate.max(1.0) as u32));
        let (mut state, mut now, mut calls) = (Rate::FULL, START, Vec::new());
        for (pass_us, asks, late_us, trouble) in steps {
            now = now.plus(Duration::from_micros(pass_us));
            if trouble == 0 {
                state.slow_down(&terms, now);
            }
            for _ in 0..asks {
                match state.take(&terms, now) {
                    Ok(from) => {
                        prop_assert!(from >= now);
                        calls.push(from.plus(Duration::from_micros(late_us).min(SLOT)));
                    }
                    Err(until) => prop_assert!(until > now, "a wait that is no wait would spin"),
                }
            }
        }
        let worst = excess(calls, rate, f64::from(terms.burst));
        prop_assert!(worst <= 1e-6, "{worst} too many");
    }

    /// Workers that share an account ask for the moment at which their own begin will be over, one later than the other.
    #[test]
    fn workers_that_begin_at_different_speeds_share_one_rate(
        rate in 0.5f64..2_000.0,
        leads_ms in prop::collection::vec(0u64..2_000, 2..6),
        steps in prop::collection::vec((0u64..20_000, 0usize..6, 1u8..9), 1..60),
    ) {
        let (terms, mut state, mut now, mut calls) = (terms(rate, 1), Rate::FULL, START, Vec::new());
        for (pass_us, worker, asks) in steps {
            now = now.plus(Duration::from_micros(pass_us));
            let begun = now.plus(Duration::from_millis(leads_ms[worker % leads_ms.len()]));
            for _ in 0..asks {
                calls.extend(state.take(&terms, begun).ok());
            }
        }
        let worst = excess(calls, rate, 1.0);
        prop_assert!(worst <= 1e-6, "{worst} too many");
    }

    /// A permit that was refused comes at the moment that was said.
    #[test]
    fn the_wait_that_is_said_is_the_wait(rate in 0.5f64..2_000.0, asks in 1usize..50) {
        let (terms, mut state, mut now) = (terms(rate, 1), Rate::FULL, START);
        for _ in 0..asks {
            match state.take(&terms, now) {
                Ok(_) => {}
                Err(until) => {
                    now = until;
                    prop_assert!(state.take(&terms, now).is_ok());
                }
            }
        }
    }

    /// With work waiting, what the account gives is used, though nobody asks but every some milliseconds.
    #[test]
    fn at_least_99_percent_of_the_rate_is_used(rate in 1.0f64..1_000.0, every_ms in 1u64..40) {
        let (terms, mut state, mut permits) = (terms(rate, 1), Rate::FULL, 0u32);
        let end = START.plus(Duration::from_secs(60));
        let mut now = START;
        while now < end {
            while state.take(&terms, now).is_ok() {
                permits += 1;
            }
            now = now.plus(Duration::from_millis(every_ms));
        }
        prop_assert!(f64::from(permits) >= 0.99 * rate * 60.0 - 1.0, "{permits} of {}", rate * 60.0);
    }

    /// Whole microseconds cost a fast account none of it.
    #[test]
    fn a_fast_account_uses_all_but_what_is_left_free(rate in 500.0f64..2_000.0) {
        let (terms, mut state, mut now) = (terms(rate, 1), Rate::FULL, START);
        let mut last = START;
        for _ in 0..20_000 {
            match state.take(&terms, now) {
                Ok(from) => last = from,
                Err(until) => now = until,
            }
        }
        let before = last;
        let mut permits = 0u32;
        while permits < 10_000 {
            match state.take(&terms, now) {
                Ok(from) => (last, permits) = (from, permits + 1),
                Err(until) => now = until,
            }
        }
        let share = f64::from(permits) / last.since(before).as_secs_f64() / rate;
        let free = if rate < 1_000.0 { 0.994 } else { 0.9928 };
        prop_assert!((free - share).abs() < 0.0003, "{share} of {rate}/s");
    }

    /// Claims, settlements and refusals in any order: a day is never passed, and the reserve is left to urgent mails.
    #[test]
    fn a_day_is_never_passed(
        per_day in 0u64..200,
        reserve in 0.0f64..1.0,
        external in 0u64..50,
        steps in prop::collection::vec((any::<bool>(), 0u8..3), 0..400),
    ) {
        let terms = Terms { per_day: Some(per_day), urgent_reserve: reserve, ..Terms::default() };
        let mut day = Day { external, ..Day::default() };
        for (urgent, what) in steps {
            let priority = if urgent { Priority::Urgent } else { Priority::Bulk };
            match what {
                0 if day.room(&terms, priority) > 0 => day.reserved += 1,
                1 if day.reserved > 0 => (day.reserved, day.used) = (day.reserved - 1, day.used + 1),
                2 if day.reserved > 0 => day.reserved -= 1,
                _ => {}
            }
            prop_assert!(day.used + day.reserved == 0 || day.used + day.reserved + external <= per_day);
            prop_assert!(day.room(&terms, Priority::Urgent) >= day.room(&terms, Priority::Normal));
        }
    }
}

#[test]
fn a_silence_saves_up_a_burst_and_no_more() {
    let (terms, mut state) = (terms(10.0, 5), Rate::FULL);
    let now = START.plus(Duration::from_secs(3_600));
    let at_once = (0..20).filter(|_| state.take(&terms, now).is_ok_and(|from| from == now)).count();
    assert_eq!(at_once, 5);
}

/// It makes its connection first, whoever sends the others: a second later one of them must not come too early.
#[test]
fn the_first_call_after_a_silence_may_be_late_at_the_server() {
    let (terms, mut state) = (terms(14.0, 1), Rate::FULL);
    let second = Duration::from_secs(1);
    let mut calls = Vec::new();
    for ms in (0..5_000u64).step_by(5) {
        let now = START.plus(Duration::from_millis(ms));
        calls.extend(std::iter::from_fn(|| state.take(&terms, now).ok()));
    }
    calls[0] = calls[0].plus(Duration::from_millis(50));
    for (i, at) in calls.iter().enumerate() {
        let within = calls[i..].iter().filter(|later| later.since(*at) < second).count();
        assert!(within <= 14, "{within} calls in the second from {at}");
    }
}

#[test]
fn too_fast_said_by_many_calls_at_once_counts_once() {
    let (terms, mut state) = (terms(14.0, 1), Rate::FULL);
    for _ in 0..50 {
        state.slow_down(&terms, START);
    }
    let once = state.factor(START);
    assert!((0.85..0.95).contains(&once), "{once}");
    let mut now = START;
    for _ in 0..30 {
        now = now.plus(Duration::from_secs(2));
        state.slow_down(&terms, now);
    }
    assert!(state.factor(now) >= 0.1, "never to a standstill");
    assert_eq!(state.factor(now.plus(Duration::from_secs(60))), 1.0, "and back in a minute");
}

#[test]
fn mails_too_early_cost_a_fast_account_little_and_a_deaf_server_a_tenth_a_second() {
    let (terms, mut state) = (terms(500.0, 1), Rate::FULL);
    state.slow_down(&terms, START);
    assert!((0.99..0.999).contains(&state.factor(START)), "{}", state.factor(START));
    assert_eq!(state.factor(START.plus(Duration::from_secs(1))), 1.0, "it is over in a second");
    // They come together, after a moment in which the server was late.
    let later = START.plus(Duration::from_secs(5));
    for ms in [0, 50, 100, 150, 200] {
        state.slow_down(&terms, later.plus(Duration::from_millis(ms)));
    }
    assert_eq!(state.factor(later.plus(Duration::from_secs(2))), 1.0, "over in two seconds as well");
    // Everything is refused: down to half in seconds, and no faster however many hear it.
    let deaf = START.plus(Duration::from_secs(60));
    for ms in 0..10_000 {
        state.slow_down(&terms, deaf.plus(Duration::from_millis(ms)));
    }
    let now = deaf.plus(Duration::from_secs(10));
    assert!((0.3..0.5).contains(&state.factor(now)), "{}", state.factor(now));
}

#[test]
fn a_rate_that_is_none_stops_nothing_for_ever_and_panics_nowhere() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-12, 1e12] {
        let mut state = Rate::FULL;
        let _ = state.take(&terms(rate, 1), START);
        if let Err(until) = state.take(&terms(rate, 1), START) {
            assert!(until.since(START) <= Duration::from_secs(86_400), "{rate}");
        }
    }
}

#[test]
fn a_clock_that_jumps_makes_no_permit_and_stops_none() {
    let (terms, mut state) = (terms(1.0, 1), Rate::FULL);
    assert!(state.take(&terms, START).is_ok());
    let back = START.minus(Duration::from_secs(86_400));
    let Err(until) = state.take(&terms, back) else { panic!("it just gave one") };
    assert!(until.since(back) < Duration::from_secs(2));
    assert!(state.take(&terms, until).is_ok(), "the wait does not begin anew");
}
