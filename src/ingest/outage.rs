//! A source, or the directory that its events need, that gave an error and may heal by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::Health;

/// A source that gave an error, was asked again and has been waiting for so long since is not down any more.
const WELL_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Outage {
    why: String,
    /// Its last pause, and when that is over.
    pause: Duration,
    pub until: Instant,
}

impl Outage {
    /// Another one: its pause is twice as long as the last one's. `retry`: the shortest pause and the longest.
    pub fn after(before: &Option<Outage>, retry: (Duration, Duration), why: String) -> Outage {
        let pause = before.as_ref().map_or(retry.0, |a| (a.pause * 2).min(retry.1));
        Outage { why, pause, until: Instant::now() + pause }
    }

    pub fn pause_ms(&self) -> u64 {
        self.pause.as_millis() as u64
    }

    /// Not down any more, if it was asked again and has been waiting for messages for a while since.
    pub fn of(away: &Option<Outage>) -> Option<Health> {
        away.as_ref().filter(|a| a.lasts()).map(|a| Health::Down(a.why.clone()))
    }

    pub fn lasts(&self) -> bool {
        Instant::now() < self.until + WELL_AFTER
    }
}
