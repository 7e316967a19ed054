//! The upkeep loop in virtual time, over a store that is there or away: when it ends leases, and when it leaves them to
//! whoever has an answer that could not be stored.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::clock::VirtualClock;
use owlpost::model::{Entry, Lease, Receipt, Time};
use owlpost::phase::Phase;
use owlpost::quota::Terms;
use owlpost::store::{
    Ask, Asking, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intake, Intent, Learned, Leased,
    Left, Letter, Letters, Page, Planning, Portion, Query, Report, Result, Rows, Sent, StoreError, Tidied, Turn,
    Upkeep as Duties,
};
use owlpost::upkeep::{Rhythm, Upkeep};
use owlpost::vitals::Vitals;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NOW: Time = Time(1_795_000_000_000_000);

/// Seconds from the start.
type Spans = &'static [(u64, u64)];

/// A store for the upkeep loop alone. A lease has ended before the start, so that each look has something to do.
struct Watched {
    is_shared: bool,
    start: Instant,
    /// Every call fails.
    away: Spans,
    /// Only a purge does.
    purge_fails: bool,
    expired: Mutex<Vec<u64>>,
    own_doubts: Mutex<Vec<u64>>,
    looks: Mutex<Vec<u64>>,
}

impl Watched {
    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn here(&self) -> Result<()> {
        let second = self.second();
        match self.away.iter().any(|(from, to)| (*from..*to).contains(&second)) {
            true => Err(StoreError::Unavailable("away".into())),
            false => Ok(()),
        }
    }

    fn note(&self, calls: &Mutex<Vec<u64>>) -> Result<()> {
        self.here()?;
        calls.lock().unwrap().push(self.second());
        Ok(())
    }
}

#[async_trait]
impl Duties for Watched {
    async fn expire(&self, _: Time, _: bool) -> Result<Tidied> {
        self.note(&self.expired).map(|()| Tidied::default())
    }

    async fn end_own_doubts(&self, _: Time) -> Result<Tidied> {
        self.note(&self.own_doubts).map(|()| Tidied::default())
    }

    async fn take_planning(&self, now: Time, _: Time) -> Result<Planning> {
        self.here().map(|()| Planning::Mine(now))
    }

    async fn keep_planning(&self, _: Time, _: Time, _: bool) -> Result<()> {
        self.here()
    }

    async fn replan(&self, _: Time, _: i64, _: u32) -> Result<Option<i64>> {
        self.here().map(|()| None)
    }

    async fn purge(&self, _: Time) -> Result<Tidied> {
        self.here()?;
        if self.purge_fails { Err(StoreError::Unavailable("purge".into())) } else { Ok(Tidied::default()) }
    }

    async fn compact(&self, _: Time) -> Result<()> {
        self.here()
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.note(&self.looks).map(|()| Some(NOW))
    }

    async fn gauges(&self, _: Time) -> Result<Gauges> {
        self.here().map(|()| Gauges::default())
    }

    async fn report(&self, _: Time, _: Arc<Vec<Condition>>) -> Result<()> {
        self.here()
    }
}

const NOT_ASKED: &str = "upkeep asks for nothing else";

#[async_trait]
impl Intake for Watched {
    async fn accept(&self, _: Time, _: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        unreachable!("{NOT_ASKED}")
    }
}

#[async_trait]
impl Delivery for Watched {
    fn works_side_by_side(&self) -> bool {
        self.is_shared
    }

    async fn claim(&self, _: Time, _: &Ask) -> Result<Vec<Leased>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn account(&self, _: Time, _: Terms, _: Option<Sent>) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }

    async fn take_turn(&self, _: Time, _: Turn) -> Result<Asking> {
        unreachable!("{NOT_ASKED}")
    }

    async fn begin(&self, _: Time, _: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn learn(&self, _: Time, _: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn release(&self, _: Time, _: Arc<Vec<Lease>>) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }

    async fn left(&self, _: Time) -> Result<Left> {
        unreachable!("{NOT_ASKED}")
    }

    async fn under_way(&self, _: Time) -> Result<u64> {
        unreachable!("{NOT_ASKED}")
    }

    async fn next_due(&self, _: &Ask) -> Result<Option<Time>> {
        unreachable!("{NOT_ASKED}")
    }
}

#[async_trait]
impl Letters for Watched {
    async fn unforwarded(&self, _: Portion) -> Result<Vec<Letter>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn forwarded(&self, _: Time, _: Arc<Vec<(String, Fate)>>) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }
}

#[async_trait]
impl Desk for Watched {
    async fn read(&self, _: &Query, _: Page) -> Result<Rows> {
        unreachable!("{NOT_ASKED}")
    }

    async fn act(&self, _: Time, _: &Command) -> Result<Report> {
        unreachable!("{NOT_ASKED}")
    }
}

/// Runs the loop for so many seconds.
async fn watched(is_shared: bool, phase: Phase, away: Spans, purge_fails: bool, seconds: u64) -> Arc<Watched> {
    let store = Arc::new(Watched {
        is_shared,
        start: Instant::now(),
        away,
        purge_fails,
        expired: Mutex::default(),
        own_doubts: Mutex::default(),
        looks: Mutex::default(),
    });
    let (_phase, phases) = watch::channel(phase);
    let clock = Arc::new(VirtualClock::starting_at(NOW));
    let upkeep = Upkeep { store: store.clone(), clock, rhythm: Rhythm::default() };
    let running = upkeep.run(Vitals::new(), Arc::new(Notify::new()), phases, CancellationToken::new());
    // It has no end by itself.
    let _ = tokio::time::timeout(Duration::from_secs(seconds), running).await;
    store
}

fn calls(calls: &Mutex<Vec<u64>>) -> Vec<u64> {
    calls.lock().unwrap().clone()
}

/// A try on a silent connection and the next one take 38 seconds.
const FIRST: u64 = 45;

#[tokio::test(start_paused = true)]
async fn on_a_shared_store_no_lease_ends_until_answers_had_their_time_after_a_start() {
    let store = watched(true, Phase::Normal, &[], false, 100).await;
    let expired = calls(&store.expired);
    assert_eq!(expired.first(), Some(&FIRST), "{expired:?}");
    assert!(calls(&store.looks).iter().any(|second| *second < 10), "it is seen whether the store is there");
}

#[tokio::test(start_paused = true)]
async fn on_a_shared_store_no_lease_ends_until_answers_had_their_time_after_an_outage() {
    // The second and the third begin while answers have their time after the one before.
    let away: Spans = &[(100, 160), (180, 181), (190, 200), (400, 401)];
    let store = watched(true, Phase::Normal, away, false, 600).await;
    let expired = calls(&store.expired);
    let within = |from: u64, to: u64| expired.iter().filter(|second| (from..to).contains(*second)).count();
    assert!(within(FIRST, 100) > 0 && within(FIRST + 200, 400) > 0, "{expired:?}");
    // The last look that failed is as old as a pause between two at most.
    assert_eq!(within(100, 200 + FIRST - Rhythm::default().look_every.as_secs()), 0, "{expired:?}");
    assert_eq!(within(400, 400 + FIRST), 0, "{expired:?}");
}

#[tokio::test(start_paused = true)]
async fn each_look_that_fails_begins_the_time_of_answers_anew() {
    // There for three seconds in each ten: looks succeed now and then, and none in a row for long enough.
    let away: Spans =
        &[(50, 57), (60, 67), (70, 77), (80, 87), (90, 97), (100, 107), (110, 117), (120, 127), (130, 137), (140, 147)];
    let store = watched(true, Phase::Normal, away, false, 250).await;
    let expired = calls(&store.expired);
    let early: Vec<&u64> = expired.iter().filter(|second| (51..140 + FIRST).contains(*second)).collect();
    assert!(early.is_empty(), "{expired:?}");
    assert!(expired.iter().any(|second| *second >= 140 + FIRST), "{expired:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_to_the_end_ends_its_own_doubts_meanwhile_and_nothing_else() {
    let store = watched(true, Phase::Flushing, &[(60, 70)], false, 200).await;
    let (expired, own) = (calls(&store.expired), calls(&store.own_doubts));
    assert!(own.contains(&0) && own.contains(&(FIRST - 1)), "{own:?}");
    assert_eq!(expired.first(), Some(&FIRST), "{expired:?}");
    assert!(!expired.iter().any(|second| (60..65 + FIRST).contains(second)), "{expired:?}");
    assert!(own.iter().any(|second| (70..70 + FIRST).contains(second)), "{own:?}");
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_fails_puts_off_no_end_of_a_lease() {
    let store = watched(true, Phase::Normal, &[], true, 200).await;
    let expired = calls(&store.expired);
    assert!(expired.len() > 20 && expired[0] == FIRST, "{expired:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_alone_ends_leases_at_its_start_and_soon_after_an_outage() {
    let store = watched(false, Phase::Normal, &[(100, 160)], false, 300).await;
    let expired = calls(&store.expired);
    assert_eq!(expired.first(), Some(&0), "{expired:?}");
    let back = expired.iter().find(|second| **second >= 100).unwrap();
    assert!((160..=175).contains(back), "{expired:?}");
}
