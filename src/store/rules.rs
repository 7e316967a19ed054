//! The rules of the life cycle as transactions, once for every database: an adapter brings statements, commits and locks
//! ([`tx::Database`]), and gives itself as an [`Engine`]; that makes it a store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Limits, Policy};

pub(crate) mod tx;

mod accept;
mod act;
mod asking;
mod begin;
mod books;
mod calls;
mod claim;
mod closure;
mod condition;
mod desk;
mod each;
mod expire;
mod forward;
mod heads;
mod learn;
mod notices;
mod own;
mod permits;
mod purge;
mod sql;
mod strangers;
mod subject;
mod windows;
mod young;

pub(super) use books::{AsOf, Books, Kept};
pub(super) use calls::Engine;
pub(super) use expire::{heal, take_over};
pub(super) use sql::LITE_OTHERS;
#[cfg(test)]
pub(super) use sql::many_of;
pub use sql::{HOT, LITE_HOT, QUOTA, hot_of_many};
pub(super) use sql::{Many, many};
pub use young::YOUNG_EVENTS;

/// Each has a connection while it waits, of those that delivery needs too.
const AHEAD_MAX: usize = 2;

/// What every transaction may ask.
pub(super) struct Shared {
    /// The first half of every digest id.
    pub store_id: u32,
    pub limits: Limits,
    pub policy: Arc<dyn Policy>,
    /// Whose quota counts, for example `ses/eu-west-1`; `None`: the mailer has none.
    pub account: Option<String>,
    /// Where the purge goes on; a walk starts anew after a restart.
    purge_cursor: Mutex<purge::Cursor>,
    /// Where claims go on while much is paused.
    steps: Mutex<claim::paused::Steps>,
    /// Whose turn it is while more is due than leaves.
    turns: Mutex<claim::lanes::Turns>,
    /// After so many events a part of what is young moves on (SQLite).
    young_events: usize,
    /// What is certainly not old (SQLite).
    old: Mutex<books::old::Old>,
    /// What is on its way.
    air: Mutex<books::Air>,
    /// Permits for the next calls (PostgreSQL).
    spare_permits: Mutex<permits::Spare>,
    /// Where the living begin (PostgreSQL).
    heads: Mutex<heads::Heads>,
    /// Batches that are ahead of their turn.
    ahead: Arc<Semaphore>,
    /// What only this process knows of it.
    own: Mutex<own::Own>,
    /// What somebody else was seen to hold.
    strangers: Mutex<strangers::Strangers>,
    /// A route was met that the configuration does not have, and the log says so.
    told_unknown: AtomicBool,
}

impl Shared {
    pub fn new(store_id: u32, limits: Limits, policy: Arc<dyn Policy>, account: Option<String>) -> Shared {
        Shared {
            store_id,
            limits,
            policy,
            account,
            purge_cursor: Mutex::default(),
            steps: Mutex::default(),
            turns: Mutex::default(),
            young_events: YOUNG_EVENTS,
            old: Mutex::default(),
            air: Mutex::default(),
            spare_permits: Mutex::default(),
            heads: Mutex::default(),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            own: Mutex::default(),
            strangers: Mutex::default(),
            told_unknown: AtomicBool::new(false),
        }
    }

    /// Once a start: each of a million windows may be of such a route.
    fn tell_unknown(&self, route: &str) {
        if !self.told_unknown.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                route,
                "open digests are of a route that this configuration does not have: they keep their time and leave as plain \
                 digests, held ones wait for `owlpost digests release`, and doubts are buried (in PostgreSQL after a day, if no \
                 worker has the route); all workers of a store should have the same routes"
            );
        }
    }

    /// The same where another number of events moves a part of what is young.
    pub fn aging(self, young_events: usize) -> Shared {
        Shared { young_events, ..self }
    }

    /// Whatever a panic has left of it: it names too much and never too little.
    fn old(&self) -> MutexGuard<'_, books::old::Old> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn air(&self) -> MutexGuard<'_, books::Air> {
        self.air.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare_permits(&self) -> MutexGuard<'_, permits::Spare> {
        self.spare_permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heads<T>(&self, look: impl FnOnce(&mut heads::Heads) -> T) -> T {
        look(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A batch may go ahead of its turn, while this lives; `None`: others do.
    fn ahead(&self) -> Option<OwnedSemaphorePermit> {
        self.ahead.clone().try_acquire_owned().ok()
    }

    fn own(&self) -> MutexGuard<'_, own::Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, strangers::Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
