//! What is claimed ahead of the sends, and the claims themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Air, CLAIM_MAX, Deliver, Phase};
use crate::model::Lease;
use crate::source::Health;
use crate::store::{Ask, Intent, Leased, StoreError};

/// How far ahead digests are claimed: so long they wait for sends that go as they went lately. What comes meanwhile may be
/// more urgent, and gaps to the previous mail count from the begin.
const AHEAD: Duration = Duration::from_millis(250);

/// If none has left for so long, they go back: the sends hang.
const STALE: Duration = Duration::from_secs(1);

/// How soon what somebody else's locks kept from beginning is tried again.
const LATER: Duration = Duration::from_secs(1);

/// So many of those keep their lease here; the others go back, and are claimed again when nobody has them.
const LATER_MAX: usize = CLAIM_MAX;

/// After all that was due has been claimed, what becomes due gathers for so long, so that one transaction serves several.
pub(super) const DUE_GATHERS: Duration = Duration::from_millis(25);

/// The account answers the first question sooner, if it does at all.
const UNKNOWN_IS_TOLD: Duration = Duration::from_secs(5);

/// How soon the directory is asked again after it gave no answer.
const DIRECTORY_AWAY: Duration = Duration::from_secs(1);

/// Digests under a lease that have not begun, urgent ones first. Bounded by what may be in flight.
#[derive(Default)]
pub(super) struct Ahead {
    pub digests: VecDeque<(Leased, Intent)>,
    /// Leased, and held by somebody else: tried again from then on.
    later: Vec<Leased>,
    later_at: Option<Instant>,
    /// There is no permit for the first of them before then.
    pub until: Option<Instant>,
    /// When the last of them left, or the first one came.
    since: Option<Instant>,
    /// Nothing is claimed before then: the directory is away, or all that was due has just been claimed.
    pub not_before: Option<Instant>,
    /// Looks for what is due since a claim found something.
    pub looks_in_vain: u32,
    /// The last claim left something that is due.
    pub is_pressed: bool,
    pub pace: Ends,
}

/// How many sends ended lately.
#[derive(Default)]
pub(super) struct Ends {
    since: Option<Instant>,
    now: usize,
    before: usize,
}

impl Ends {
    pub fn count(&mut self, at: Instant) {
        self.turn(at);
        self.now += 1;
    }

    fn turn(&mut self, at: Instant) {
        let age = self.since.map_or(AHEAD * 2, |since| at.saturating_duration_since(since));
        if age >= AHEAD {
            self.before = if age < AHEAD * 2 { self.now } else { 0 };
            (self.since, self.now) = (Some(at), 0);
        }
    }

    /// In a time of [`AHEAD`].
    pub fn lately(&mut self, at: Instant) -> usize {
        self.turn(at);
        self.before.max(self.now)
    }
}

impl Ahead {
    pub fn may_begin(&self) -> bool {
        !self.digests.is_empty() && self.until.is_none_or(|until| until <= Instant::now())
    }

    /// What has no permit yet is not stale: the account's rate is what it is, and no more than leaves in a second waits.
    pub fn is_stale(&self) -> bool {
        let old = self.since.is_some_and(|since| since.elapsed() > STALE);
        !self.digests.is_empty() && self.until.is_none() && old
    }

    /// So many, of as many as were asked for.
    pub fn has_claimed(&mut self, digests: usize, most: usize, phase: Phase) {
        self.is_pressed = digests >= most;
        if digests > 0 {
            self.looks_in_vain = 0;
        }
        if !self.is_pressed && phase != Phase::Flushing {
            self.not_before = Some(Instant::now() + DUE_GATHERS);
        }
    }

    fn put(&mut self, claimed: impl Iterator<Item = (Leased, Intent)>) {
        if self.digests.is_empty() {
            self.since = Some(Instant::now());
        }
        self.digests.extend(claimed);
        self.digests.make_contiguous().sort_by_key(|(leased, _)| leased.priority);
    }

    /// Some have begun: those behind them wait on as long as that goes on.
    pub fn moves(&mut self) {
        self.since = Some(Instant::now());
    }

    pub fn take(&mut self) -> Vec<Leased> {
        self.until = None;
        self.digests.drain(..).map(|(leased, _)| leased).collect()
    }

    /// And those that somebody else holds.
    pub fn take_all(&mut self) -> Vec<Leased> {
        let mut all = self.take();
        all.append(&mut self.later);
        all
    }

    /// They could not be given back: perhaps the store has begun them and nobody heard of it.
    pub fn keep(&mut self, leased: Vec<Leased>) {
        leased.into_iter().for_each(|one| drop(self.put_by(one)));
    }

    /// Somebody else holds it. Gives what has no room here.
    pub fn put_by(&mut self, leased: Leased) -> Option<Leased> {
        self.later_at = Some(Instant::now() + LATER);
        if self.later.len() >= LATER_MAX {
            return Some(leased);
        }
        self.later.push(leased);
        None
    }
}

impl Deliver {
    /// How many more may begin.
    pub(super) fn room(&self, air: &Air) -> usize {
        if air.held.is_full() {
            return 0;
        }
        if air.valve.is_probing() { usize::from(air.sends.is_empty()) } else { air.calls.room(air.sends.len()) }
    }

    /// What somebody else held comes back to those that may begin, with what the directory says of it now.
    pub(super) async fn bring_back(&self, air: &mut Air) {
        if air.ahead.later.is_empty() || air.ahead.later_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        match self.intents(&air.ahead.later).await {
            Ok(intents) => {
                let later = std::mem::take(&mut air.ahead.later);
                air.ahead.put(later.into_iter().zip(intents));
            }
            Err(_) => air.ahead.later_at = Some(Instant::now() + DIRECTORY_AWAY),
        }
    }

    /// What has not begun goes back.
    pub(super) async fn give_back_ahead(&self, air: &mut Air) -> Result<(), StoreError> {
        let claimed = air.ahead.take();
        let back = self.give_back(&claimed).await;
        if back.is_err() {
            air.ahead.keep(claimed);
        }
        back
    }

    pub(super) async fn give_back(&self, claimed: &[Leased]) -> Result<(), StoreError> {
        if claimed.is_empty() {
            return Ok(());
        }
        let leases: Vec<Lease> = claimed.iter().map(|l| l.lease).collect();
        self.store.release(self.clock.now(), Arc::new(leases)).await
    }

    pub(super) fn ask(&self, limit: usize, phase: Phase) -> Ask {
        Ask { limit: limit as u32, lease: self.patience.lease, everything: phase == Phase::Flushing }
    }

    /// Claims for the room that there is, and ahead what will leave in a moment. `None`: it did not ask.
    pub(super) async fn claim(&self, air: &mut Air, phase: Phase) -> Result<Option<usize>, StoreError> {
        let Some(most) = self.to_claim(air, 0) else { return Ok(None) };
        if self.quota.as_ref().is_some_and(|quota| !quota.heard.load(Ordering::Relaxed)) {
            // The account loop wakes this one with its first answer.
            if air.unknown_since.get_or_insert_with(Instant::now).elapsed() >= UNKNOWN_IS_TOLD {
                let why = "the account has not said yet what it may send; the worker's log has what it said instead";
                air.vitals.set_mailer(self.mailer.kind(), Health::Down(why.into()));
            }
            return Ok(None);
        }
        if air.unknown_since.take().is_some() && air.valve.shut_until().is_none() {
            air.vitals.set_mailer(self.mailer.kind(), Health::Ready);
        }
        let claimed = self.store.claim(self.clock.now(), &self.ask(most, phase)).await?;
        air.ahead.has_claimed(claimed.len(), most, phase);
        self.take_in(air, claimed).await.map(Some)
    }

    /// How many to claim once so many of those that were claimed before have begun.
    fn to_claim(&self, air: &mut Air, begin: usize) -> Option<usize> {
        let now = Instant::now();
        let (room, kept) = (self.room(air).saturating_sub(begin), air.ahead.digests.len().saturating_sub(begin));
        let ahead = air.ahead.pace.lately(now).min(self.patience.in_flight);
        let most = if air.valve.is_probing() { room } else { room + ahead };
        air.ahead.not_before = air.ahead.not_before.filter(|at| *at > now);
        let waits = air.ahead.until.is_some() || air.ahead.not_before.is_some();
        (!waits && kept < most.div_ceil(2)).then(|| (most - kept).min(CLAIM_MAX))
    }

    /// How many to claim while others begin, where it is known before what becomes of those: no account gives out permits, and
    /// no mail tries whether the mailer is back.
    pub(super) fn to_claim_beside(&self, air: &mut Air) -> Option<usize> {
        let begin = if air.ahead.may_begin() { self.room(air).min(CLAIM_MAX).min(air.ahead.digests.len()) } else { 0 };
        if begin == 0 || self.quota.is_some() || air.valve.is_probing() {
            return None;
        }
        self.to_claim(air, begin)
    }

    /// Looks up what is to be known of those that were claimed; gives how many they are.
    pub(super) async fn take_in(&self, air: &mut Air, claimed: Vec<Leased>) -> Result<usize, StoreError> {
        let digests = claimed.len();
        if digests == 0 {
            return Ok(0);
        }
        match self.intents(&claimed).await {
            Ok(intents) => air.ahead.put(claimed.into_iter().zip(intents)),
            Err(why) => {
                tracing::warn!(error = why, digests, "the directory gave no answer; the digests go back");
                air.ahead.not_before = Some(Instant::now() + DIRECTORY_AWAY);
                self.give_back(&claimed).await?;
            }
        }
        Ok(digests)
    }
}
