//! The states of items and digests, and why items end.

use serde::Serialize;

/// The unit of the ledger: one event for one recipient by one route is in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemState {
    Pending = 0,
    InDoubt = 1,
    Delivered = 2,
    Withdrawn = 3,
    Suppressed = 4,
    Dead = 5,
}

impl ItemState {
    pub const ALL: [ItemState; 6] = [
        ItemState::Pending,
        ItemState::InDoubt,
        ItemState::Delivered,
        ItemState::Withdrawn,
        ItemState::Suppressed,
        ItemState::Dead,
    ];

    pub fn as_str(self) -> &'static str {
        ["pending", "in_doubt", "delivered", "withdrawn", "suppressed", "dead"][self as usize]
    }

    pub fn from_number(n: i64) -> Option<ItemState> {
        ItemState::ALL.get(usize::try_from(n).ok()?).copied()
    }

    pub fn is_final(self) -> bool {
        self as usize > ItemState::InDoubt as usize
    }
}

/// Why an item left for good (contract: `ledger`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Unreachable = 1,
    NoAddress = 2,
    DomainNotAllowed = 3,
    Suppressed = 4,
    LeftAudience = 5,
    TooManyOpen = 6,
    Attempts = 7,
    GaveUp = 8,
    Permanent = 9,
    Bounced = 10,
    Rendering = 11,
    Buried = 12,
    Decided = 13,
    Replaced = 14,
    Expired = 15,
}

impl Reason {
    pub const ALL: [Reason; 15] = [
        Reason::Unreachable,
        Reason::NoAddress,
        Reason::DomainNotAllowed,
        Reason::Suppressed,
        Reason::LeftAudience,
        Reason::TooManyOpen,
        Reason::Attempts,
        Reason::GaveUp,
        Reason::Permanent,
        Reason::Bounced,
        Reason::Rendering,
        Reason::Buried,
        Reason::Decided,
        Reason::Replaced,
        Reason::Expired,
    ];

    pub fn as_str(self) -> &'static str {
        [
            "unreachable",
            "no_address",
            "domain_not_allowed",
            "suppressed",
            "left_audience",
            "too_many_open",
            "attempts",
            "gave_up",
            "permanent",
            "bounced",
            "rendering",
            "buried",
            "decided",
            "replaced",
            "expired",
        ][self as usize - 1]
    }

    pub fn from_number(n: i64) -> Option<Reason> {
        Reason::ALL.get(usize::try_from(n).ok()?.checked_sub(1)?).copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestState {
    Gathering = 0,
    Held = 1,
    Leased = 2,
    Sending = 3,
    Waiting = 4,
    InDoubt = 5,
    Closed = 6,
}

impl DigestState {
    pub const ALL: [DigestState; 7] = [
        DigestState::Gathering,
        DigestState::Held,
        DigestState::Leased,
        DigestState::Sending,
        DigestState::Waiting,
        DigestState::InDoubt,
        DigestState::Closed,
    ];

    pub fn as_str(self) -> &'static str {
        ["gathering", "held", "leased", "sending", "waiting", "in_doubt", "closed"][self as usize]
    }

    pub fn from_number(n: i64) -> Option<DigestState> {
        DigestState::ALL.get(usize::try_from(n).ok()?).copied()
    }
}
