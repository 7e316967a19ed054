//! Is this process alive, and can it take work? The loops say so here, `/livez` and `/readyz` read it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics;
use crate::model::Time;
use crate::source::Health;
use crate::store::Condition;

mod part;
use part::{Part, set};

/// A loop that did not beat for so long hangs: every wait in a loop is shorter (the longest is a store call on a slow
/// disk, some seconds), and a restart that comes a minute late harms less than one that comes for nothing.
pub const SILENT_AFTER: Duration = Duration::from_secs(60);

/// How long a loop's last error of the store counts. Each loop tries again sooner while it has something to do; one that
/// has nothing (nobody sends requests to a process that is not ready) would stay not ready for ever.
pub const STORE_ERROR_COUNTS_FOR: Duration = Duration::from_secs(30);

/// How long a mail that had to wait says that there are more.
const CALLS_COUNT_FOR: Duration = Duration::from_secs(1);

/// At the start of a worker that keeps to a rate nobody knows yet whether mails will wait.
const CALLS_MAY_WAIT: Duration = Duration::from_secs(2);

/// Shared by all loops and the listener; cheap to clone.
#[derive(Clone)]
pub struct Vitals {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    stopping: AtomicBool,
    /// Milliseconds since `started`.
    calls_wait_until_ms: AtomicU64,
    pulses: Mutex<Vec<Arc<Beat>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What each loop's last call came to, and when. Empty: not open yet.
    stores: BTreeMap<String, (Instant, Result<(), String>)>,
    sources: BTreeMap<String, Part>,
    /// That this machine's clock is not the store's, in words.
    clock: Option<String>,
    /// Where dead letters are forwarded to. `None`: they are not.
    forwarding: Option<(String, Part)>,
    /// Whether mails can leave by this mailer. `None`: this process sends none.
    mailer: Option<(String, Part)>,
}

struct Beat {
    name: String,
    /// Milliseconds since `started`.
    last_ms: AtomicU64,
    finished: AtomicBool,
}

/// A loop's heartbeat. Dropping it without [`Pulse::finish`] (a panic) leaves the loop on the list, and it falls silent.
pub struct Pulse {
    beat: Arc<Beat>,
    started: Instant,
}

impl Pulse {
    /// The loop turns. To be called at least every [`SILENT_AFTER`], also when there is nothing to do.
    pub fn beat(&self) {
        self.beat.last_ms.store(elapsed_ms(self.started), Ordering::Relaxed);
    }

    /// The loop ended as it should.
    pub fn finish(self) {
        self.beat.finished.store(true, Ordering::Relaxed);
    }
}

/// What `/readyz` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Work can be taken: the store is there, and at least one source works.
    pub ready: bool,
    /// Why not; which sources are down beside others that work; that this machine's clock is wrong.
    pub reasons: Vec<String>,
    pub sources: Vec<(String, Health)>,
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals::new()
    }
}

impl Vitals {
    pub fn new() -> Vitals {
        let inner = Inner {
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            calls_wait_until_ms: AtomicU64::new(0),
            pulses: Mutex::new(Vec::new()),
            state: Mutex::new(State::default()),
        };
        Vitals { inner: Arc::new(inner) }
    }

    /// A heartbeat for the loop of this name; it counts from now.
    pub fn pulse(&self, name: impl Into<String>) -> Pulse {
        let started = self.inner.started;
        let beat =
            Beat { name: name.into(), last_ms: AtomicU64::new(elapsed_ms(started)), finished: AtomicBool::new(false) };
        let beat = Arc::new(beat);
        let mut pulses = lock(&self.inner.pulses);
        pulses.retain(|p| !p.finished.load(Ordering::Relaxed));
        pulses.push(Arc::clone(&beat));
        Pulse { beat, started }
    }

    /// The loops that did not beat for [`SILENT_AFTER`], and for how long. Empty: all is well.
    pub fn silent(&self) -> Vec<(String, Duration)> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            // It ends by itself, after a drain time that may be long: killed meanwhile, what it has heard would be lost.
            return vec![];
        }
        let now_ms = elapsed_ms(self.inner.started);
        lock(&self.inner.pulses)
            .iter()
            .filter(|p| !p.finished.load(Ordering::Relaxed))
            .map(|p| (p, Duration::from_millis(now_ms.saturating_sub(p.last_ms.load(Ordering::Relaxed)))))
            .filter(|(_, quiet)| *quiet >= SILENT_AFTER)
            .map(|(p, quiet)| (p.name.clone(), quiet))
            .collect()
    }

    /// This loop's last call of the store worked, or why it did not. One loop's success says nothing of another's: who
    /// only reads goes on while the disk is full. `true`: it went away, or came back, for this loop with this call.
    pub fn set_store(&self, of_loop: &str, result: Result<(), String>) -> bool {
        let works = result.is_ok();
        let before = lock(&self.inner.state).stores.insert(of_loop.to_owned(), (Instant::now(), result));
        before.is_none_or(|(_, before)| before.is_ok()) != works
    }

    /// The two clocks are apart, or no more.
    pub fn set_clock(&self, apart: Option<String>) {
        let before = std::mem::replace(&mut lock(&self.inner.state).clock, apart.clone());
        if let Some(why) = apart.filter(|_| before.is_none()) {
            tracing::warn!("{why}");
        }
    }

    /// Sets the metric `owlpost_source_up` with it.
    pub fn set_source(&self, name: &str, health: Health) {
        metrics::source_up(name, !matches!(health, Health::Down(_)));
        match lock(&self.inner.state).sources.entry(name.to_owned()) {
            Entry::Occupied(mut known) => known.get_mut().turn(health),
            Entry::Vacant(new) => {
                new.insert(Part::new(health));
            }
        }
    }

    /// Messages that wait in front of a source that said how it is.
    pub fn set_lag(&self, name: &str, lag: Option<u64>) {
        if let Some(known) = lock(&self.inner.state).sources.get_mut(name) {
            known.lag = lag;
        }
    }

    /// Whether dead letters leave for this place. It says nothing of what work can be taken.
    pub fn set_forwarding(&self, place: &str, health: Health) {
        set(&mut lock(&self.inner.state).forwarding, place, health);
    }

    /// Whether mails can leave by this mailer, and else what it, or its account, says. (Readiness does not hang on it: intake goes
    /// on.)
    pub fn set_mailer(&self, kind: &str, health: Health) {
        set(&mut lock(&self.inner.state).mailer, kind, health);
    }

    /// Whether this process forwards dead letters.
    pub fn forwards(&self) -> bool {
        lock(&self.inner.state).forwarding.is_some()
    }

    /// How all parts are, for those who look from outside.
    pub fn conditions(&self, now: Time) -> Vec<Condition> {
        let state = lock(&self.inner.state);
        let sources = state.sources.iter().map(|(name, part)| part.condition("source", name, now));
        let forwarding = state.forwarding.iter().map(|(place, part)| part.condition("forwarding", place, now));
        // Each worker has its own: one may reach a server that another does not.
        let name = |kind: &str| match std::env::var("HOSTNAME") {
            Ok(host) if !host.is_empty() => format!("{kind} of {host}"),
            _ => kind.to_owned(),
        };
        let mailer = state.mailer.iter().map(|(kind, part)| part.condition("mailer", &name(kind), now));
        sources.chain(forwarding).chain(mailer).collect()
    }

    /// Mails wait for their moment of the account's rate. Counts for [`CALLS_COUNT_FOR`].
    pub fn set_calls_wait(&self) {
        self.calls_wait_for(CALLS_COUNT_FOR);
    }

    /// Mails are about to leave at a rate: whether they will wait is not known yet. Counts for [`CALLS_MAY_WAIT`].
    pub fn set_calls_may_wait(&self) {
        self.calls_wait_for(CALLS_MAY_WAIT);
    }

    fn calls_wait_for(&self, time: Duration) {
        let until = self.inner.started.elapsed() + time;
        self.inner.calls_wait_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// If so, intake leaves the store to them between small batches.
    pub fn calls_wait(&self) -> bool {
        elapsed_ms(self.inner.started) < self.inner.calls_wait_until_ms.load(Ordering::Relaxed)
    }

    /// From now on no work is taken; there is no way back.
    pub fn set_stopping(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    pub fn readiness(&self) -> Readiness {
        let state = lock(&self.inner.state);
        let mut reasons = Vec::new();
        if self.inner.stopping.load(Ordering::Relaxed) {
            reasons.push("stopping".to_owned());
        }
        if state.stores.is_empty() {
            reasons.push("store: not open yet".to_owned());
        }
        for (at, result) in state.stores.values() {
            let reason = result.as_ref().err().map(|why| format!("store: {why}"));
            // Several loops meet the same trouble.
            if let Some(reason) = reason.filter(|r| at.elapsed() < STORE_ERROR_COUNTS_FOR && !reasons.contains(r)) {
                reasons.push(reason);
            }
        }
        let mut ready = reasons.is_empty();
        for (name, part) in &state.sources {
            if let Health::Down(why) = &part.health {
                reasons.push(format!("source {name}: {why}"));
            }
        }
        // What is at its end takes nothing either. Without a source (`--role deliver`), nothing is to be taken.
        let any = |wanted: fn(&Health) -> bool| state.sources.values().any(|part| wanted(&part.health));
        ready &= any(|h| *h == Health::Ready) || !any(|h| matches!(h, Health::Down(_)));
        reasons.extend(state.clock.iter().map(|why| format!("clock: {why}")));
        let sources = state.sources.iter().map(|(name, part)| (name.clone(), part.health.clone())).collect();
        Readiness { ready, reasons, sources }
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_beating_is_named_and_one_that_finished_is_not() {
        let vitals = Vitals::new();
        let (ingest, deliver, upkeep) = (vitals.pulse("ingest"), vitals.pulse("deliver"), vitals.pulse("upkeep"));
        upkeep.finish();
        tokio::time::advance(SILENT_AFTER - Duration::from_secs(1)).await;
        deliver.beat();
        assert_eq!(vitals.silent(), vec![]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(vitals.silent(), vec![("ingest".to_owned(), SILENT_AFTER)]);
        ingest.beat();
        assert_eq!(vitals.silent(), vec![]);
        vitals.set_stopping();
        tokio::time::advance(SILENT_AFTER).await;
        assert_eq!(vitals.silent(), vec![], "whoever restarts what is silent must not cut a long drain off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panicked_is_silent_not_finished() {
        let vitals = Vitals::new();
        drop(vitals.pulse("ingest"));
        tokio::time::advance(SILENT_AFTER).await;
        assert_eq!(vitals.silent().len(), 1);
    }

    #[test]
    fn readiness_tells_every_reason() {
        let vitals = Vitals::new();
        assert_eq!(vitals.readiness().reasons, ["store: not open yet"]);
        vitals.set_store("intake", Ok(()));
        vitals.set_source("events", Health::Ready);
        vitals.set_source("old", Health::Ended);
        assert!(vitals.readiness().reasons.is_empty());
        vitals.set_store("intake", Err("disk full".to_owned()));
        vitals.set_store("upkeep", Err("disk full".to_owned()));
        vitals.set_source("events", Health::Down("no broker".to_owned()));
        vitals.set_stopping();
        assert_eq!(vitals.readiness().reasons, ["stopping", "store: disk full", "source events: no broker"]);
    }

    #[test]
    fn one_source_that_is_down_is_told_and_does_not_take_the_others_along() {
        let vitals = Vitals::new();
        vitals.set_store("intake", Ok(()));
        vitals.set_source("orders", Health::Down("no broker".to_owned()));
        vitals.set_source("old", Health::Ended);
        assert!(!vitals.readiness().ready, "nothing can come in");
        vitals.set_source("events", Health::Ready);
        let readiness = vitals.readiness();
        assert_eq!((readiness.ready, readiness.reasons), (true, vec!["source orders: no broker".to_owned()]));
        vitals.set_store("intake", Err("disk full".to_owned()));
        assert!(!vitals.readiness().ready);
    }

    #[tokio::test(start_paused = true)]
    async fn another_reason_for_being_down_is_the_same_outage() {
        let (vitals, now) = (Vitals::new(), Time(1_000_000_000));
        vitals.set_source("orders", Health::Down("no broker".to_owned()));
        tokio::time::advance(Duration::from_secs(60)).await;
        vitals.set_source("orders", Health::Down("no route".to_owned()));
        vitals.set_lag("orders", Some(7));
        let told = vitals.conditions(now).remove(0);
        assert_eq!((told.state, told.detail.as_str(), told.lag), ("down", "no route", Some(7)));
        assert_eq!(told.since, now.minus(Duration::from_secs(60)));
        vitals.set_source("orders", Health::Ready);
        let told = vitals.conditions(now).remove(0);
        assert_eq!((told.state, told.detail.as_str(), told.since), ("ready", "", now));
    }

    #[test]
    fn a_wrong_clock_is_told_and_keeps_nobody_from_work() {
        let vitals = Vitals::new();
        vitals.set_store("intake", Ok(()));
        vitals.set_clock(crate::clock::apart(-2_000_000));
        let told = vitals.readiness();
        assert!(told.ready && told.reasons[0].contains("this machine's clock is 2.0 s ahead"), "{told:?}");
        vitals.set_clock(crate::clock::apart(999_999));
        assert!(vitals.readiness().reasons.is_empty());
    }

    #[test]
    fn one_loops_success_does_not_hide_anothers_failure() {
        let vitals = Vitals::new();
        vitals.set_store("intake", Err("disk full".to_owned()));
        vitals.set_store("delivery", Ok(()));
        assert_eq!(vitals.readiness().reasons, ["store: disk full"]);
        vitals.set_store("intake", Ok(()));
        assert!(vitals.readiness().reasons.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_with_nothing_to_try_again_does_not_stay_not_ready_for_ever() {
        let vitals = Vitals::new();
        vitals.set_store("intake", Err("disk full".to_owned()));
        tokio::time::advance(STORE_ERROR_COUNTS_FOR).await;
        assert!(vitals.readiness().reasons.is_empty());
    }

    #[test]
    fn a_loop_is_told_when_the_store_goes_and_when_it_comes_back() {
        let vitals = Vitals::new();
        let away = || Err("away".to_owned());
        let told = [Ok(()), away(), away(), Ok(()), Ok(())].map(|result| vitals.set_store("upkeep", result));
        assert_eq!(told, [false, true, false, true, false]);
    }
}
