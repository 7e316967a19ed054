//! The upkeep loop: ends leases and doubts, plans windows anew, purges, rolls up, and shows the gauges.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::metrics;
use crate::model::{DigestState, ItemState, Time};
use crate::phase::Phase;
use crate::store::{ANSWERS_FIRST, Condition, Planning, Store, StoreError};
use crate::vitals::Vitals;

/// How often each duty comes round.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Gauges, and a look for ended leases.
    pub look_every: Duration,
    pub compact_every: Duration,
    pub purge_every: Duration,
}

impl Default for Rhythm {
    fn default() -> Rhythm {
        Rhythm {
            look_every: Duration::from_secs(5),
            compact_every: Duration::from_secs(60),
            purge_every: Duration::from_secs(600),
        }
    }
}

/// Between two pieces of a long duty, so that intake and delivery get their turns.
const BREATH: Duration = Duration::from_millis(20);

/// How the parts are is written down when it changes, and so often: whoever reads it wants to know that somebody still
/// looks, and a write costs one fsync.
const REPORT_EVERY: Duration = Duration::from_secs(30);

const LOOP: &str = "upkeep";

/// After a look at a store for one that was away, leases end no sooner: delivery tries to store its answers again within 5
/// seconds, and this loop looks as often. Ended at once, what was accepted would be a doubt first, and sent again. Of a store
/// that is shared nobody knows how long others could not reach it, nor what was before the start: see [`ANSWERS_FIRST`].
const OWN_ANSWERS_FIRST: Duration = Duration::from_secs(15);

/// What ended and yet could not be ended (somebody else holds it, or its answer is on its way) is looked at again so soon.
const HELD: Duration = Duration::from_secs(1);

/// While a long duty goes on, leases and doubts are looked for so often.
const LOOK_MEANWHILE: Duration = Duration::from_millis(250);

/// Another worker plans them: it is looked again whether it is done. And who plans them says so as often.
const PLANS_EVERY: Duration = Duration::from_secs(5);

/// Windows planned anew in one transaction.
const REPLAN: u32 = 500;

/// The windows that are planned anew after the start.
struct Plans {
    /// Those behind this one are not; `None`: all are.
    from: Option<i64>,
    /// When this worker did, by the clock.
    started: Time,
    /// It is this worker that does it, since then.
    mine: Option<Time>,
    /// When that is asked, or said, again.
    again: Instant,
}

/// What was last written down of the parts.
#[derive(Default)]
struct Reported {
    conditions: Arc<Vec<Condition>>,
    at: Option<Instant>,
}

pub struct Upkeep {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub rhythm: Rhythm,
}

impl Upkeep {
    /// Runs until `stop`.
    ///
    /// # Errors
    /// The store can't be used any more.
    pub async fn run(
        self,
        vitals: Vitals,
        wake: Arc<Notify>,
        phase: watch::Receiver<Phase>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let pulse = vitals.pulse(LOOP);
        let start = Instant::now();
        let (mut purge_at, mut compact_at) = (start, start + self.rhythm.compact_every);
        // The cadence, the zones or the calendar may have changed since the windows were planned.
        let mut plans = Plans { from: Some(0), started: self.clock.now(), mine: None, again: start };
        let mut reported = Reported::default();
        let shared = self.store.works_side_by_side();
        let answers_first = if shared { ANSWERS_FIRST } else { OWN_ANSWERS_FIRST };
        let mut expire_from = if shared { start + answers_first } else { start };
        let mut look_at = start;
        while !stop.is_cancelled() {
            pulse.beat();
            let flushing = *phase.borrow() == Phase::Flushing;
            let result = async {
                let mut more = false;
                if look_at <= Instant::now() {
                    // Only what concerns this duty puts it off: a purge that fails must not.
                    more = match self.expire_from(expire_from, flushing, &wake).await {
                        Ok(more) => more,
                        Err(why) => {
                            expire_from = Instant::now() + answers_first;
                            return Err(why);
                        }
                    };
                    if !more {
                        look_at = Instant::now() + LOOK_MEANWHILE;
                    }
                }
                more |= self.plan(&mut plans, &wake).await?;
                if purge_at <= Instant::now() {
                    let tidied = self.store.purge(self.clock.now()).await?;
                    metrics::purged(tidied.purged_items);
                    if tidied.more {
                        more = true;
                    } else {
                        purge_at = Instant::now() + self.rhythm.purge_every;
                    }
                }
                if compact_at <= Instant::now() {
                    self.store.compact(self.clock.now()).await?;
                    compact_at = Instant::now() + self.rhythm.compact_every;
                }
                if !more {
                    look_at = Instant::now();
                    self.show(&vitals).await?;
                    self.report(&vitals, &mut reported).await?;
                }
                Ok(more)
            };
            let result = result.await;
            let changed = vitals.set_store(LOOP, result.as_ref().map(|_| ()).map_err(ToString::to_string));
            let next = match result {
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) => {
                    metrics::store_error();
                    if changed {
                        tracing::warn!(error = %why, "upkeep could not use the store; it tries again until it can");
                    } else {
                        tracing::debug!(error = %why, "the store is still away");
                    }
                    self.rhythm.look_every
                }
                Ok(more) => {
                    if changed {
                        tracing::info!("the store is back");
                    }
                    if more { BREATH } else { self.pause(flushing, expire_from).await }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(next) => {}
            }
        }
        pulse.finish();
        Ok(())
    }

    /// Plans some windows anew; `true`: there are more.
    async fn plan(&self, plans: &mut Plans, wake: &Notify) -> Result<bool, StoreError> {
        let Some(cursor) = plans.from else { return Ok(false) };
        let since = match plans.mine {
            Some(since) => since,
            None if plans.again > Instant::now() => return Ok(false),
            None => {
                plans.again = Instant::now() + PLANS_EVERY;
                match self.store.take_planning(self.clock.now(), plans.started).await? {
                    Planning::Mine(since) => *plans.mine.insert(since),
                    Planning::Theirs => return Ok(false),
                    Planning::Done => {
                        plans.from = None;
                        return Ok(false);
                    }
                }
            }
        };
        let next = self.store.replan(self.clock.now(), cursor, REPLAN).await?;
        if next.is_none() || plans.again <= Instant::now() {
            self.store.keep_planning(self.clock.now(), since, next.is_none()).await?;
            plans.again = Instant::now() + PLANS_EVERY;
        }
        plans.from = next;
        wake.notify_one();
        Ok(next.is_some())
    }

    /// Nothing before that moment but what is known to be ours, and a look whether the store is there.
    async fn expire_from(&self, from: Instant, doubts_now: bool, wake: &Notify) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let tidied = match Instant::now() < from {
            true if !doubts_now => return self.store.next_upkeep().await.map(|_| false),
            true => self.store.end_own_doubts(now).await?,
            false => self.store.expire(now, doubts_now).await?,
        };
        if tidied.leases_ended > 0 {
            tracing::warn!(digests = tidied.leases_ended, "leases ended before their digests were settled");
            metrics::leases_expired(tidied.leases_ended);
        }
        if tidied.doubts_ended > 0 {
            tracing::warn!(digests = tidied.doubts_ended, "doubts ended without evidence; the routes' policy decides");
        }
        if tidied.leases_ended + tidied.doubts_ended > 0 {
            wake.notify_one();
        }
        Ok(tidied.more)
    }

    /// Until the next lease or doubt ends, or the next look.
    async fn pause(&self, flushing: bool, expire_from: Instant) -> Duration {
        let least = Duration::from_millis(if flushing { 20 } else { 100 });
        let most = if flushing { Duration::from_millis(100) } else { self.rhythm.look_every };
        let put_off = expire_from.saturating_duration_since(Instant::now());
        if !put_off.is_zero() {
            return put_off.min(most);
        }
        let now = self.clock.now();
        match self.store.next_upkeep().await {
            Ok(Some(at)) if at <= now => HELD.min(most),
            Ok(Some(at)) => at.since(now).clamp(least, most.max(least)),
            _ => most,
        }
    }

    async fn report(&self, vitals: &Vitals, reported: &mut Reported) -> Result<(), StoreError> {
        let now = self.clock.now();
        let conditions = vitals.conditions(now);
        let same = reported.conditions.len() == conditions.len()
            && reported
                .conditions
                .iter()
                .zip(&conditions)
                .all(|(a, b)| (a.part, &a.name, a.state, &a.detail) == (b.part, &b.name, b.state, &b.detail));
        if same && reported.at.is_some_and(|at| at.elapsed() < REPORT_EVERY) {
            return Ok(());
        }
        let conditions = Arc::new(conditions);
        self.store.report(now, conditions.clone()).await?;
        *reported = Reported { conditions, at: Some(Instant::now()) };
        Ok(())
    }

    async fn show(&self, vitals: &Vitals) -> Result<(), StoreError> {
        vitals.set_clock(clock::apart(self.clock.ahead_us()));
        let gauges = self.store.gauges(self.clock.now()).await?;
        for state in ItemState::ALL {
            metrics::items(state, gauges.item(state));
        }
        for state in DigestState::ALL.into_iter().filter(|s| *s != DigestState::Closed) {
            metrics::digests(state, gauges.digest(state));
        }
        metrics::oldest_due(gauges.oldest_due_at);
        metrics::pauses(gauges.pauses);
        metrics::dead_letters(gauges.dead_letters);
        if vitals.forwards() {
            metrics::unforwarded(gauges.unforwarded);
        }
        metrics::store_size(gauges.size_bytes);
        if let Some(quota) = &gauges.quota {
            metrics::quota(quota.terms.per_second, quota.terms.per_day, &quota.day, quota.factor);
        }
        Ok(())
    }
}
