//! Who asks the sending account what it may send, and what the answer is told with.

use std::time::Duration;

use crate::model::Time;
use crate::quota::Terms;

/// When the account is to be asked again.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// An answer is good for so long.
    pub fresh: Duration,
    /// Who asks has the answer within this, or has ended.
    pub within: Duration,
}

/// Who asks the account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asking {
    /// This worker, now.
    Mine(Ours),
    /// Another one does, or did a moment ago. `again`: the turn is free then. `known`: what the account said
    /// a moment ago.
    Theirs { again: Time, known: Option<Terms> },
}

/// What left from this store in the last 24 hours when the account was asked: what was settled since may not be among what the
/// account says, and would hide as many mails of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Shares of the day, but for those that are about to leave it ([`crate::quota::counted_from`]).
    pub used: u64,
    pub at: Time,
}

/// What left in the last 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// By all who use the account, as it says.
    pub all: u64,
    pub ours: Ours,
}

impl Sent {
    /// By other applications.
    pub fn others(&self) -> u64 {
        self.all.saturating_sub(self.ours.used)
    }
}
