//! When a run that is to end (`run --until-idle`) is over.

use std::time::Duration;

use super::{Air, Deliver};
use crate::store::StoreError;

/// A run that is to end looks so often, one `Patience::look_again` after the other, for what is due and was not claimed: longer
/// than a transaction of the store takes, and not as long as a stranger may hold a row.
const LOOKS_IN_VAIN: u32 = 10;

/// And it waits so long for the account to say what it may send: that was asked some times.
const UNKNOWN_AT_MOST: Duration = Duration::from_secs(30);

impl Deliver {
    /// Nothing is in flight, and, unless another claim finds something, what is still open is held or paused, or the account has no
    /// room for it.
    pub(super) async fn nothing_can_leave(&self, air: &mut Air) -> Result<bool, StoreError> {
        if !air.sends.is_empty() {
            return Ok(false);
        }
        let now = self.clock.now();
        // What is another worker's is another worker's to end.
        if self.store.under_way(now).await? > 0 {
            return Ok(false);
        }
        let left = self.store.left(now).await?;
        if left.is_due && self.store.works_side_by_side() && air.ahead.looks_in_vain < LOOKS_IN_VAIN {
            // A batch of intake, or of windows that are planned anew, has its mailbox until its commit.
            air.ahead.looks_in_vain += 1;
            return Ok(false);
        }
        Ok(left.retry_at.is_none())
    }

    /// Nothing is in flight, and nobody has said for so long what the account may send.
    pub(super) async fn waits_in_vain(&self, air: &Air) -> Result<bool, StoreError> {
        let unknown = air.unknown_since.is_some_and(|since| since.elapsed() >= UNKNOWN_AT_MOST);
        // The store is asked as well: one that is away is waited for.
        Ok(unknown && air.sends.is_empty() && self.store.under_way(self.clock.now()).await? == 0)
    }
}
