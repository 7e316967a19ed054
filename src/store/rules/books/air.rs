//! The calls that this process began and has not settled: what their mails list, so that a settlement asks the database for
//! no more than the digest's row.
//!
//! While a digest is in a call, its items only change by evidence for another attempt that listed them, and then fewer of them
//! are open. So the row says whether what was known at the begin is still so: the same lease, in its first call, with as
//! many open items.

use std::collections::{BTreeSet, HashMap};

use super::held::EventRow;
use super::{Books, Digest, Item};
use crate::model::{DigestState, ItemState};

/// Items that are remembered at most, and digests: some megabytes. What was forgotten is read again.
const MOST: usize = 16_384;

/// The first call of a digest.
#[derive(Debug)]
pub(in crate::store) struct Call {
    token: i64,
    mailbox: i64,
    pub listed: Vec<(Item, EventRow)>,
}

impl Call {
    pub fn is(&self, digest: &Digest) -> bool {
        digest.state == DigestState::Sending
            && (digest.token, digest.attempts, digest.mailbox) == (self.token, 1, self.mailbox)
            && usize::try_from(digest.open).is_ok_and(|open| open == self.listed.len())
    }
}

#[derive(Debug, Default)]
pub(in crate::store) struct Air {
    calls: HashMap<i64, Call>,
    items: usize,
    /// Of digests that were claimed here; a digest's never changes.
    mailboxes: HashMap<i64, i64>,
}

impl Air {
    fn put(&mut self, digest: i64, call: Call) {
        if self.items + call.listed.len() > MOST {
            (self.calls, self.items) = (HashMap::new(), 0);
        }
        self.items += call.listed.len();
        if let Some(old) = self.calls.insert(digest, call) {
            self.items -= old.listed.len();
        }
    }

    pub fn claimed(&mut self, digest: i64, mailbox: i64) {
        if self.mailboxes.len() >= MOST {
            self.mailboxes.clear();
        }
        self.mailboxes.insert(digest, mailbox);
    }

    pub fn mailbox_of(&self, digest: i64) -> Option<i64> {
        self.mailboxes.get(&digest).copied()
    }

    /// Known mailboxes of digests, each once, and the digests whose mailbox is not known.
    pub fn mailboxes_of(&self, digests: &[i64]) -> (BTreeSet<i64>, Vec<i64>) {
        let known = digests.iter().filter_map(|no| self.mailboxes.get(no)).copied().collect();
        (known, digests.iter().filter(|no| !self.mailboxes.contains_key(no)).copied().collect())
    }

    pub fn take(&mut self, digest: i64) -> Option<Call> {
        let call = self.calls.remove(&digest)?;
        self.items -= call.listed.len();
        Some(call)
    }
}

impl Books<'_> {
    /// A digest's call begins. If this transaction is not committed after all, its row will say so.
    pub fn takes_off(&self, no: i64) {
        let Some(digest) = self.kept.digests.get(&no).filter(|d| d.attempts == 1) else { return };
        let Some(items) = self.held.items_of(no) else { return };
        let pending = items.filter(|item| item.digest == Some(no) && item.state == ItemState::Pending);
        let listed: Option<Vec<(Item, EventRow)>> =
            pending.map(|item| Some((*item, *self.held.event(item.event_no)?))).collect();
        let Some(listed) = listed else { return };
        self.shared.air().put(no, Call { token: digest.token, mailbox: digest.mailbox, listed });
    }
}
