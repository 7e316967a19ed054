//! The stop: sends in flight may finish for a while, and what they answer gets into the store.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Air, Deliver, STORE_AWAY};
use crate::store::StoreError;

/// How long answers may be on their way to the store after the drain time: less than what the stop of the whole allows.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

impl Deliver {
    /// What is left at the end of the drain time is in doubt, and the next start says so.
    pub(super) async fn land(&self, air: &mut Air) {
        let by = Instant::now() + self.patience.drain;
        let claimed = air.ahead.take_all();
        match timeout_at(by, self.give_back(&claimed)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::warn!(error = %why, "claimed digests could not be given back; their leases end by themselves");
            }
            Err(_) => tracing::warn!("claimed digests could not be given back in time; their leases end by themselves"),
        }
        self.await_sends(air, by).await;
        let left = air.sends.len();
        if left > 0 {
            tracing::warn!(mails = left, "sends were still under way at the end of the drain time; they are in doubt");
        }
        self.store_last_answers(air, by).await;
    }

    /// One server that is slow to answer must not keep what others answered out of the store: a kill would make a doubt of it.
    async fn await_sends(&self, air: &mut Air, by: Instant) {
        let (mut wait, mut not_before) = (STORE_AWAY.0, Instant::now());
        loop {
            let settle_at = air.settle_at().map_or(by, |at| at.max(not_before));
            tokio::select! {
                biased;
                ended = air.sends.join_next_with_id() => match ended {
                    Some(ended) => self.take(air, ended),
                    None => return,
                },
                () = sleep_until(by) => return,
                () = sleep_until(settle_at) => match timeout_at(by, self.settle(air)).await {
                    Ok(Ok(())) => wait = STORE_AWAY.0,
                    // The last tries say why.
                    Ok(Err(_)) | Err(_) => {
                        not_before = Instant::now() + wait;
                        wait = (wait * 2).min(STORE_AWAY.1);
                    }
                },
            }
        }
    }

    /// What is known now would be a doubt later, and mails that arrived would be sent again: a store that is away has as long
    /// to come back as the sends had.
    async fn store_last_answers(&self, air: &mut Air, by: Instant) {
        let mut wait = STORE_AWAY.0;
        loop {
            air.held.hurry();
            let mails = air.answers.len() + air.held.len();
            let why = match timeout_at(by + LAST_ANSWERS, self.settle(air)).await {
                Ok(Ok(())) if air.held.len() == 0 => return,
                Ok(Ok(())) => StoreError::Unavailable("somebody else's transaction holds their rows".into()),
                Ok(Err(why)) => why,
                Err(_) => StoreError::Unavailable("no answer in time".into()),
            };
            let again = Instant::now() + wait;
            if matches!(why, StoreError::Unusable(_)) || again > by {
                tracing::error!(error = %why, mails, "answers could not be stored; those mails are in doubt");
                return;
            }
            tracing::warn!(error = %why, mails, "the store is away; answers are kept until it is back, or the drain time is over");
            sleep_until(again).await;
            wait = (wait * 2).min(STORE_AWAY.1);
        }
    }
}
