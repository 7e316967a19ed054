//! Partitions of a topic that was made again, which are to be read from its beginning: whether anything of them is read then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Poller;
use crate::source::kafka::kept::Key;

/// After a seek, or an assignment, a partition gives a message or its end within a second. If it gives neither for so long, librdkafka does not follow
/// the new topic: it ignores one whose leaders' epochs are lower than those of the old one, and says nothing of it (2.12.1,
/// "ignoring outdated metadata update"). Only another consumer reads it then.
const READS_WITHIN: Duration = Duration::from_secs(15);

/// Each with the moment until which something has to come.
#[derive(Debug, Default)]
pub(super) struct Sought(BTreeMap<Key, Instant>);

impl Sought {
    pub fn add(&mut self, key: Key, now: Instant) {
        self.0.insert(key, now + READS_WITHIN);
    }

    /// It waits since then, unless it does already.
    pub fn waits(&mut self, key: Key, now: Instant) {
        self.0.entry(key).or_insert(now + READS_WITHIN);
    }

    pub fn forget(&mut self, key: Key) {
        self.0.remove(&key);
    }

    /// Of those that still wait the first that has waited too long. While it can't be read, its time does not run.
    fn silent(&mut self, now: Instant, waits: impl Fn(&Key) -> bool, is_held_up: impl Fn(&Key) -> bool) -> Option<Key> {
        self.0.retain(|key, _| waits(key));
        self.0.iter_mut().filter(|(key, _)| is_held_up(key)).for_each(|(_, by)| *by = now + READS_WITHIN);
        self.0.iter().find(|(_, by)| now >= **by).map(|(key, _)| *key)
    }
}

impl Poller {
    /// A consumer that gets nothing of what was sought has to be made anew.
    pub(super) fn look_at_sought(&mut self) {
        if self.ids.sought.0.is_empty() {
            return;
        }
        let silent = {
            let state = self.shared.state();
            let waits = |key: &Key| state.partitions.get(key).is_some_and(|progress| !progress.has_begun());
            // Or it can't be read for a reason that is told.
            let held_up = |key: &Key| self.is_paused || state.condition.keeps_from(*key, state.name(*key));
            let silent = self.ids.sought.silent(Instant::now(), waits, held_up);
            silent.map(|key| format!("partition {} of {}", key.1, state.name(key)))
        };
        if let Some(silent) = silent {
            self.fatal(format!(
                "{silent} was made again, and this consumer gets nothing of it; the source is opened anew"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_or_given_back_is_not_waited_for_and_a_pause_does_not_count() {
        let (mut sought, now) = (Sought::default(), Instant::now());
        let (a, b) = ((0, 0), (0, 1));
        [a, b].into_iter().for_each(|key| sought.add(key, now));
        assert_eq!(sought.silent(now + READS_WITHIN / 2, |_| true, |_| false), None);
        assert_eq!(sought.silent(now + READS_WITHIN, |_| true, |_| true), None);
        assert_eq!(sought.silent(now + READS_WITHIN * 3 / 2, |_| true, |_| false), None);
        assert_eq!(sought.silent(now + READS_WITHIN * 2, |key| *key == b, |_| false), Some(b));
        sought.waits(b, now + READS_WITHIN);
        assert_eq!(sought.silent(now + READS_WITHIN * 2, |_| true, |key| *key == a), Some(b), "it waits already");
        sought.forget(b);
        assert_eq!(sought.silent(now + READS_WITHIN * 9, |_| true, |_| false), None);
    }
}
