//! The delivery loop: claim -> look up -> begin -> render -> send -> learn.
//!
//! As many calls are in flight as configured, each with its own deadline; what they answer is settled in batches. While
//! the store is away nothing begins, and answers wait until it is back. What will leave in a moment is claimed ahead, so that
//! a send that ends makes room for one that only has to begin; what has no permit of the account's rate yet is kept here
//! for the moment until it gets one, and nothing more is claimed meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::Id;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::mailer::Mailer;
use crate::metrics;
use crate::model::{Share, Time};
use crate::pace::Pace;
pub use crate::phase::Phase;
use crate::policy::Policies;
use crate::render::Renderer;
use crate::source::Health;
use crate::store::{Answer, Begun, Evidence, Intent, Leased, Store, StoreError};
use crate::vitals::Vitals;

mod ahead;
mod air;
mod attempt;
mod calls;
mod end;
mod landing;
mod lookup;
mod valve;

use ahead::DUE_GATHERS;
use air::Air;
use valve::{HALT, Said, Valve};

/// How patiently mails are sent (`[delivery]`).
#[derive(Clone, Debug)]
pub struct Patience {
    pub in_flight: usize,
    pub lease: Duration,
    pub send_within: Duration,
    pub call_timeout: Duration,
    pub drain: Duration,
    /// The longest wait without a look at the store: an operator's command may have made something due.
    pub look_every: Duration,
    /// How soon what is due and was not claimed is looked at again.
    pub look_again: Duration,
    /// How old an answer of the directory may be: approvers are looked up at the flush.
    pub directory_age: Duration,
    /// Bound on the wait that a throttled or halted answer asks for.
    pub throttle_max: Duration,
}

pub struct Deliver {
    pub store: Arc<dyn Store>,
    pub mailer: Arc<dyn Mailer>,
    pub directory: Arc<dyn Directory>,
    pub renderer: Arc<Renderer>,
    pub policies: Arc<Policies>,
    pub clock: Arc<dyn Clock>,
    /// Lower case; empty: every domain (only mailers that reach nobody allow that).
    pub allowed_domains: Vec<String>,
    pub patience: Patience,
    /// `None`: the mailer has no account with a quota.
    pub quota: Option<AccountGate>,
}

/// What holds the sends of this process to the account's quota, beside the store's permits.
pub struct AccountGate {
    pub pace: Arc<Pace>,
    /// Has the account asked again what it may send.
    pub ask: Arc<Notify>,
    /// What the account may send is known.
    pub heard: Arc<AtomicBool>,
}

/// How many digests one claim takes at most, and one begin: their transactions stay short.
const CLAIM_MAX: usize = 256;

/// A call that is further away than what a begin's guess of its own time may be wrong by waits for the account's rate.
const SOON: Duration = Duration::from_millis(10);

/// The store is not asked for permits more often: it gives them out some way ahead, and one transaction serves several.
const PERMITS_EVERY: Duration = Duration::from_millis(80);

/// No wait is shorter, whatever a clock says.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// How often a loop that waits shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Waits between tries while the store is away.
const STORE_AWAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

impl Deliver {
    /// Runs until `stop`, or until nothing is left (`Flushing`).
    ///
    /// # Errors
    /// The store can't be used any more.
    pub async fn run(
        self: Arc<Deliver>,
        vitals: Vitals,
        wake: Arc<Notify>,
        mut phase: watch::Receiver<Phase>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let pulse = vitals.pulse("delivery");
        if self.quota.is_some() {
            vitals.set_calls_may_wait();
        }
        vitals.set_mailer(self.mailer.kind(), Health::Ready);
        let mut air = Air::new(Valve::new(self.mailer.kind()), vitals.clone(), self.patience.in_flight);
        let mut wait = STORE_AWAY.0;
        let mut end = Ok(());
        while !stop.is_cancelled() {
            pulse.beat();
            let now_phase = *phase.borrow_and_update();
            let turned = match self.turn(&mut air, now_phase).await {
                Ok(turned) => {
                    wait = STORE_AWAY.0;
                    if vitals.set_store("delivery", Ok(())) {
                        tracing::info!("the store is back; mails are sent again");
                    }
                    let next = turned.next.into_iter().chain(air.settle_at()).min();
                    Turned { next, ..turned }
                }
                Err(StoreError::Unusable(why)) => {
                    end = Err(StoreError::Unusable(why));
                    break;
                }
                Err(why) => {
                    metrics::store_error();
                    if vitals.set_store("delivery", Err(why.to_string())) {
                        tracing::warn!(error = %why, retry_ms = wait.as_millis() as u64, "the store is away; nothing is sent");
                    }
                    let turned = Turned { next: Some(Instant::now() + wait), done: false };
                    wait = (wait * 2).min(STORE_AWAY.1);
                    turned
                }
            };
            if turned.done {
                break;
            }
            let next = turned.next.unwrap_or_else(|| Instant::now() + self.patience.look_every);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = air.sends.join_next_with_id(), if !air.sends.is_empty() => self.take(&mut air, ended),
                () = wake.notified() => {}
                _ = phase.changed() => {}
                () = tokio::time::sleep_until(next.min(Instant::now() + HEARTBEAT.max(self.patience.look_every))) => {}
            }
        }
        self.land(&mut air).await;
        pulse.finish();
        end
    }

    /// One turn: begin what was claimed, as far as sends have ended; settle what was answered; claim what is due. In this
    /// order, so that mails are on their way while the store is busy; or beside each other, where the store can.
    async fn turn(self: &Arc<Self>, air: &mut Air, phase: Phase) -> Result<Turned, StoreError> {
        if air.unsettled {
            // Answers never pile up behind new sends.
            self.settle(air).await?;
        }
        while let Some(ended) = air.sends.try_join_next_with_id() {
            self.take(air, ended);
        }
        if phase == Phase::Holding {
            self.settle(air).await?;
            return Ok(Turned::default());
        }
        if let Some(until) = air.valve.shut_until() {
            self.settle(air).await?;
            self.give_back_ahead(air).await?;
            let is_over = until <= Instant::now();
            if is_over && !air.sends.is_empty() {
                // What they say is of before: the one mail that is tried next says how it is now.
                return Ok(Turned::default());
            }
            if !is_over || !self.may_probe(air).await {
                // A run that is to end does not wait for somebody to mend the account.
                let done = phase == Phase::Flushing && air.sends.is_empty() && air.valve.is_stuck();
                return Ok(Turned { next: Some(until.max(Instant::now() + LEAST_WAIT)), done });
            }
        }
        if air.ahead.is_stale() {
            // The sends hang, or it can't begin: it may leave elsewhere, and what came meanwhile may be more urgent.
            self.give_back_ahead(air).await?;
        }
        self.bring_back(air).await;
        // What a settlement has in its hands a claim passes over, and for a flush that would look like the end.
        // What a server said of the account counts before more is called.
        let hurries = phase == Phase::Flushing || air.hears_of_account();
        let gathers = !hurries && (self.quota.is_some() || !air.ahead.is_pressed);
        let settles = !gathers || air.settle_at().is_some_and(|at| at <= Instant::now());
        let (in_vain, claimed) = if hurries || !settles || !self.store.works_side_by_side() {
            let in_vain = self.begins_in_vain(air).await?;
            if settles {
                self.settle(air).await?;
            }
            (in_vain, self.claim(air, phase).await?)
        } else {
            self.settle_beside(air, phase).await?
        };
        let now = Instant::now();
        let next = match air.ahead.until {
            _ if self.room(air) == 0 => None,
            Some(until) => Some(until),
            None if in_vain => Some(now + Duration::from_millis(50)),
            None if !air.ahead.digests.is_empty() => Some(now),
            None => {
                if claimed != Some(0) {
                    // It did not ask, or the directory was away.
                    let done = phase == Phase::Flushing && self.waits_in_vain(air).await?;
                    return Ok(Turned { next: air.ahead.not_before, done });
                }
                if phase == Phase::Flushing && self.nothing_can_leave(air).await? {
                    // What ended elsewhere since that claim, or became due, only another one sees.
                    return Ok(match self.claim(air, phase).await? {
                        Some(0) => Turned { next: None, done: true },
                        Some(_) => Turned { next: Some(Instant::now()), done: false },
                        None => Turned { next: air.ahead.not_before, done: false },
                    });
                }
                return Ok(Turned { next: self.next_due(phase).await?, done: false });
            }
        };
        Ok(Turned { next, done: false })
    }

    /// Something could begin, and nothing did.
    async fn begins_in_vain(self: &Arc<Self>, air: &mut Air) -> Result<bool, StoreError> {
        Ok(air.ahead.may_begin() && self.room(air) > 0 && self.begin(air).await? == 0)
    }

    /// The time after a halt is over. The account itself may know better than a mail that would be tried.
    async fn may_probe(&self, air: &mut Air) -> bool {
        let stopped = match self.mailer.account().await {
            Ok(Some(account)) => account.stopped,
            // It may not be allowed to ask, which says nothing about mails.
            _ => None,
        };
        if let Some(why) = stopped {
            tracing::warn!(reason = why, "still no mail can leave");
            air.vitals.set_mailer(self.mailer.kind(), Health::Down(why));
            air.valve.still_halted(Instant::now() + self.halt());
            return false;
        }
        if let Some(why) = air.calls.are_shut() {
            let why = format!("one mail is tried now; the last answer: {why}");
            air.vitals.set_mailer(self.mailer.kind(), Health::Down(why));
        }
        air.valve.probe();
        air.calls.shut(None);
        true
    }

    fn halt(&self) -> Duration {
        HALT.min(self.patience.throttle_max)
    }

    async fn next_due(&self, phase: Phase) -> Result<Option<Instant>, StoreError> {
        let ask = self.ask(0, phase);
        let now = self.clock.now();
        let least = if phase == Phase::Flushing { LEAST_WAIT } else { DUE_GATHERS };
        let until = |at: Time| at.since(now).max(least).min(self.patience.look_every);
        // Due, and yet nothing was claimed: paused, or another worker has its mailbox for a moment.
        Ok(self.store.next_due(&ask).await?.map(|at| {
            Instant::now() + if at <= now { self.patience.look_every.min(self.patience.look_again) } else { until(at) }
        }))
    }

    /// Passes the last gate with as many as there is room for, and starts their sends; gives how many are off the list.
    /// Those without a permit stay where they were, and the first of them says until when.
    async fn begin(self: &Arc<Self>, air: &mut Air) -> Result<usize, StoreError> {
        let room = self.room(air).min(CLAIM_MAX).min(air.ahead.digests.len());
        air.ahead.digests.iter_mut().take(room).for_each(|(_, intent)| intent.lead = air.lead);
        let intents: Vec<Intent> = air.ahead.digests.iter().take(room).map(|(_, intent)| intent.clone()).collect();
        // All deadlines count from before the begin, on this machine's monotonic clock.
        let asked_at = Instant::now();
        let now = self.clock.now();
        // If the store is away they stay: their leases run on.
        let begun = self.store.begin(now, Arc::new(intents)).await?;
        // A stall is no reason to plan for the next one; a slow disk is.
        air.lead = asked_at.elapsed().min(self.patience.send_within / 4);
        let tried: Vec<(Leased, Intent)> = air.ahead.digests.drain(..room).collect();
        let (mut done, mut later, mut over) = (0, Vec::new(), Vec::new());
        let soon = Instant::now() + SOON;
        air.ahead.until = None;
        for ((leased, intent), begun) in tried.into_iter().zip(begun) {
            match begun {
                Begun::Send(contents) => {
                    let attempt = contents.attempt;
                    let (me, slot, calls) = (self.clone(), self.slot(&contents, asked_at), air.calls.clone());
                    if slot.0 > soon {
                        air.vitals.set_calls_wait();
                    }
                    let handle = air.sends.spawn(async move { me.send(*contents, slot, calls).await });
                    air.tasks.insert(handle.id(), (attempt, leased.due_at));
                    done += 1;
                }
                Begun::NoRate(at) => {
                    air.vitals.set_calls_wait();
                    let until = || Instant::now() + at.since(self.clock.now()).clamp(PERMITS_EVERY, HEARTBEAT);
                    air.ahead.until.get_or_insert_with(until);
                    later.push((leased, intent));
                }
                Begun::Later => over.extend(air.ahead.put_by(leased)),
                // Most often another worker's claim, which looked at it just before it was claimed here.
                Begun::Busy => later.push((leased, Intent { waits: true, ..intent })),
                Begun::Empty => done += 1,
                // It may be due again at once.
                Begun::Lost | Begun::Paused => {}
            }
        }
        later.into_iter().rev().for_each(|kept| air.ahead.digests.push_front(kept));
        if done > 0 {
            air.ahead.moves();
        }
        self.give_back(&over).await?;
        Ok(done)
    }

    /// Takes an ended send's answer, and what it says about the mailer.
    fn take(&self, air: &mut Air, ended: Result<(Id, (Answer, Said)), tokio::task::JoinError>) {
        let (id, (answer, said)) = match ended {
            Ok(ended) => ended,
            Err(e) => (e.id(), (Answer::Ambiguous { detail: "the send broke off".into() }, Said::Nothing)),
        };
        let Some((attempt, due_at)) = air.tasks.remove(&id) else { return };
        air.ahead.pace.count(Instant::now());
        let (answer, said) = match answer {
            Answer::Throttled { detail, .. } if said == Said::Halted && air.valve.is_of_one_mail(attempt.digest) => {
                (Answer::Retryable { detail }, Said::Nothing)
            }
            answer => (answer, said),
        };
        match said {
            Said::Halted => {
                air.valve.halted(Instant::now() + self.halt());
                air.vitals.set_mailer(self.mailer.kind(), Health::Down(attempt::words(&answer).into()));
                air.calls.shut(Some(attempt::words(&answer)));
            }
            Said::Away => {
                let shut = air.valve.unreached(self.halt());
                self.tell_outage(air, shut, "the mail server can't be reached; nothing is sent", &answer);
            }
            Said::Unclear => {
                let shut = air.valve.unclear(attempt.digest, self.halt());
                self.tell_outage(
                    air,
                    shut,
                    "mail after mail is in doubt; one is tried now and then until one is taken",
                    &answer,
                );
            }
            Said::Nothing => {
                if matches!(answer, Answer::Accepted { .. }) {
                    metrics::lateness(self.clock.now().since(due_at));
                    if air.valve.took() {
                        air.vitals.set_mailer(self.mailer.kind(), Health::Ready);
                        tracing::info!("mails leave again");
                    }
                } else if matches!(answer, Answer::Permanent { .. } | Answer::Throttled { share: Some(_), .. }) {
                    air.valve.is_clear();
                }
            }
        }
        if let (Answer::Throttled { share: Some(Share::Day), .. }, Some(quota)) = (&answer, &self.quota) {
            quota.ask.notify_one();
        }
        self.tell(attempt, &answer, said);
        air.hears(Evidence { attempt, answer });
    }

    /// If the valve has just been shut.
    fn tell_outage(&self, air: &Air, shut: Option<Duration>, what: &'static str, answer: &Answer) {
        let Some(wait) = shut else { return };
        tracing::error!(mailer = self.mailer.kind(), wait_ms = wait.as_millis() as u64, "{what}");
        air.vitals.set_mailer(self.mailer.kind(), Health::Down(attempt::words(answer).into()));
        air.calls.shut(Some(attempt::words(answer)));
    }
}

#[derive(Default)]
struct Turned {
    /// When the next turn has something to do; `None`: when a send ends, or at the next look.
    next: Option<Instant>,
    done: bool,
}
