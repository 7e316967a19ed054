//! What is claimed ahead of the sends, and the claims themselves.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Air, CLAIM_MAX, Deliver, Phase};
use crate::store::{Ask, Intent, Leased, StoreError};

/// Digests under a lease that have not begun, in the order of their claim. Bounded by what may be in flight.
#[derive(Default)]
pub(super) struct Ahead {
    pub digests: VecDeque<(Leased, Intent)>,
    /// There is no permit for the first of them before then.
    pub until: Option<Instant>,
}

impl Ahead {
    pub fn may_begin(&self) -> bool {
        !self.digests.is_empty() && self.until.is_none_or(|until| until <= Instant::now())
    }

    pub fn take(&mut self) -> Vec<Leased> {
        self.until = None;
        self.digests.drain(..).map(|(leased, _)| leased).collect()
    }
}

impl Deliver {
    /// How many more may be in flight.
    pub(super) fn room(&self, air: &Air) -> usize {
        if air.valve.is_probing() {
            usize::from(air.sends.is_empty())
        } else {
            self.patience.in_flight.saturating_sub(air.sends.len())
        }
    }

    pub(super) fn ask(&self, limit: usize, phase: Phase) -> Ask {
        Ask { limit: limit as u32, lease: self.patience.lease, everything: phase == Phase::Flushing }
    }

    /// Claims for the room that there is, and as much again ahead. `None`: it did not ask.
    pub(super) async fn claim(&self, air: &mut Air, phase: Phase) -> Result<Option<usize>, StoreError> {
        let (room, kept) = (self.room(air), air.ahead.digests.len());
        let most = if air.valve.is_probing() { room } else { room + self.patience.in_flight };
        if air.ahead.until.is_some() || kept >= most.div_ceil(2) {
            return Ok(None);
        }
        if self.quota.is_some() && !air.account_known {
            air.account_known = self.store.gauges(self.clock.now()).await?.quota.is_some();
            if !air.account_known {
                // The account loop wakes this one with its first answer.
                return Ok(None);
            }
        }
        let claimed = self.store.claim(self.clock.now(), &self.ask((most - kept).min(CLAIM_MAX), phase)).await?;
        if claimed.is_empty() {
            return Ok(Some(0));
        }
        match self.intents(&claimed).await {
            Ok(intents) => air.ahead.digests.extend(claimed.iter().cloned().zip(intents)),
            Err(why) => {
                let digests = claimed.len();
                tracing::warn!(error = why, digests, "the directory gave no answer; the digests go back");
                self.give_back(&claimed).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(Some(claimed.len()))
    }
}
