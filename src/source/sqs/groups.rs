//! The message groups of a FIFO queue: what is held of each, in order, and which are in a call that deletes.

use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(Debug, Default)]
pub struct Groups {
    held: HashMap<String, BTreeSet<u64>>,
    /// Groups of which messages are in a call that deletes.
    busy: HashSet<String>,
}

impl Groups {
    pub fn add(&mut self, group: &str, key: u64) {
        match self.held.get_mut(group) {
            Some(keys) => drop(keys.insert(key)),
            None => drop(self.held.insert(group.to_owned(), BTreeSet::from([key]))),
        }
    }

    pub fn remove(&mut self, group: &str, key: u64) {
        let Some(keys) = self.held.get_mut(group) else { return };
        keys.remove(&key);
        if keys.is_empty() {
            self.held.remove(group);
        }
    }

    /// Whether it is to be deleted next, when so many before it go with the same call.
    pub fn is_next(&self, group: &str, key: u64, before: usize) -> bool {
        !self.busy.contains(group) && self.held.get(group).and_then(|keys| keys.iter().nth(before)) == Some(&key)
    }

    pub fn begin(&mut self, groups: impl IntoIterator<Item = String>) {
        self.busy.extend(groups);
    }

    pub fn end(&mut self, group: &str) {
        self.busy.remove(group);
    }

    /// What came after it, in order.
    pub fn behind(&self, group: &str, key: u64) -> impl Iterator<Item = u64> {
        self.held.get(group).into_iter().flat_map(move |keys| keys.range(key + 1..)).copied()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.busy.is_empty()
    }
}
