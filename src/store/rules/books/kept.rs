//! What one batch of intake has read and the next needs again: mailboxes, and the windows that gather.
//!
//! Reading them anew costs a small batch more than its own rows do. They are good for as long as nobody has written in
//! between, neither this connection nor another one (an operator's command).

use std::collections::HashMap;

use super::digests::Digest;
use super::mailboxes::Mailbox;

/// Mailboxes and digests that are kept at most: some megabytes.
const MOST: usize = 10_000;

#[derive(Default)]
pub(in crate::store) struct Kept {
    pub(super) digests: HashMap<i64, Digest>,
    /// The unfrozen digest of a mailbox; `None`: known to have none.
    pub(super) windows: HashMap<i64, Option<i64>>,
    pub(super) mailboxes: HashMap<i64, Mailbox>,
    /// Route, then recipient: looked up by borrowed text.
    pub(super) numbers: HashMap<String, HashMap<String, i64>>,
    /// Open items of a recipient, counted on first sight.
    pub(super) open: HashMap<String, i64>,
    as_of: Option<AsOf>,
}

/// The state of the database that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct AsOf {
    /// Rises with the commits of other connections.
    pub others: i64,
    /// Rises with each row that this connection changes, rolled back or not.
    pub own: u64,
}

impl Kept {
    /// What is still true in a transaction that sees this state and has written nothing yet.
    pub fn take(&mut self, now: AsOf) -> Kept {
        let kept = std::mem::take(self);
        if kept.as_of == Some(now) { kept } else { Kept::default() }
    }

    /// To be kept once the transaction, which writes nothing more, is committed.
    pub fn at(self, now: AsOf) -> Kept {
        if self.digests.len() > MOST || self.mailboxes.len() > MOST {
            return Kept::default();
        }
        Kept { as_of: Some(now), ..self }
    }
}
