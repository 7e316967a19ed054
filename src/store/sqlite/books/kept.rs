//! What one batch of intake has read and the next needs again: mailboxes, and the windows that gather.
//!
//! Reading them anew costs a small batch more than its own rows do. They are good for as long as nobody has written in
//! between, neither this connection nor another one (an operator's command).

use std::collections::HashMap;

use rusqlite::Transaction;

use super::digests::Digest;
use super::mailboxes::Mailbox;
use crate::store::Result;

/// Mailboxes and digests that are kept at most: some megabytes.
const MOST: usize = 10_000;

#[derive(Default)]
pub(in crate::store::sqlite) struct Kept {
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

/// The state of the file that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
struct AsOf {
    /// Rises with the commits of other connections.
    others: i64,
    /// Rises with each row that this connection changes, rolled back or not.
    own: u64,
}

impl AsOf {
    fn now(tx: &Transaction<'_>) -> Result<AsOf> {
        let others = tx.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        Ok(AsOf { others, own: tx.total_changes() })
    }
}

impl Kept {
    /// What is still true in this transaction, which has written nothing yet.
    pub fn take(&mut self, tx: &Transaction<'_>) -> Result<Kept> {
        let kept = std::mem::take(self);
        Ok(if kept.as_of.is_some() && kept.as_of == Some(AsOf::now(tx)?) { kept } else { Kept::default() })
    }

    /// To be kept once this transaction, which writes nothing more, is committed.
    pub fn as_of(self, tx: &Transaction<'_>) -> Result<Kept> {
        if self.digests.len() > MOST || self.mailboxes.len() > MOST {
            return Ok(Kept::default());
        }
        Ok(Kept { as_of: Some(AsOf::now(tx)?), ..self })
    }
}
