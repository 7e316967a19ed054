//! What one transaction of intake takes, and how it is shared out to several.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::model::{Effect, Entry};

/// Below this, two transactions cost more than one.
const SPLIT_FROM: usize = 1_000;

/// Message, and event in it.
pub(super) type Place = (usize, usize);

#[derive(Debug)]
pub(super) struct Piece {
    pub entries: Arc<Vec<Entry>>,
    pub places: Vec<Place>,
    /// What they cost the store.
    pub items: usize,
}

impl Piece {
    /// For so many transactions side by side. What speaks of one topic stays together and in its order: such
    /// transactions would only wait for each other.
    pub fn shared_out(self, hands: usize) -> Vec<Piece> {
        if hands < 2 || self.entries.len() < SPLIT_FROM {
            return vec![self];
        }
        let items = self.items / hands;
        let mut parts: Vec<(Vec<Entry>, Vec<Place>)> = (0..hands).map(|_| (Vec::new(), Vec::new())).collect();
        let entries = Arc::try_unwrap(self.entries).unwrap_or_else(|shared| (*shared).clone());
        for (entry, place) in entries.into_iter().zip(self.places) {
            if let Some((entries, places)) = parts.get_mut(hand_of(&entry, hands)) {
                entries.push(entry);
                places.push(place);
            }
        }
        let piece = |(entries, places)| Piece { entries: Arc::new(entries), places, items };
        parts.into_iter().filter(|(entries, _)| !entries.is_empty()).map(piece).collect()
    }
}

fn hand_of(entry: &Entry, hands: usize) -> usize {
    let topic = match entry {
        Entry::Event(arrival) => match &arrival.event.effect {
            Effect::Opens { topic, .. } => Some(topic),
            // The second one, if there is one, may be in another hand: its row's lock is waited for.
            Effect::Closes { topics } => topics.first(),
            Effect::Informs => None,
        },
        Entry::Refused(_) => None,
    };
    let hash = match (topic, entry) {
        (Some(topic), _) => u64::from(topic.0[15]),
        (None, Entry::Event(arrival)) => {
            let hasher = BuildHasherDefault::<DefaultHasher>::default();
            hasher.hash_one((&arrival.event.source, &arrival.event.id))
        }
        (None, Entry::Refused(_)) => 0,
    };
    (hash % hands as u64) as usize
}
