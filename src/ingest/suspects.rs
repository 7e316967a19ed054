//! Events of which one can never be taken by the store: which, it says when it gets each by itself.

use std::collections::HashSet;

use crate::model::{Arrival, Entry, Refused, hash16};

/// What is remembered at most, a megabyte; a batch is smaller by far. What was forgotten is suspected anew.
const MOST: usize = 65_536;

/// By a hash, since they go back to their source and come again: in another order, perhaps, or to another worker.
#[derive(Default)]
pub(super) struct Suspects {
    seen: HashSet<Suspect>,
}

pub(super) type Suspect = [u8; 16];

pub(super) fn event(arrival: &Arrival) -> Suspect {
    hash16(b"suspected event", &[&arrival.event.source, &arrival.event.id])
}

pub(super) fn refused(refused: &Refused) -> Suspect {
    let mut sha256 = [0; 16];
    sha256.copy_from_slice(&refused.sha256[..16]);
    sha256
}

pub(super) fn entry(entry: &Entry) -> Suspect {
    match entry {
        Entry::Event(arrival) => event(arrival),
        Entry::Refused(one) => refused(one),
    }
}

impl Suspects {
    pub fn add(&mut self, all: impl Iterator<Item = Suspect>) {
        if self.seen.len() >= MOST {
            self.seen.clear();
        }
        self.seen.extend(all.take(MOST));
    }

    pub fn are_none(&self) -> bool {
        self.seen.is_empty()
    }

    pub fn have(&self, one: &Suspect) -> bool {
        self.seen.contains(one)
    }

    /// It was taken.
    pub fn clear(&mut self, one: &Suspect) {
        self.seen.remove(one);
    }
}
