//! A part of the worker that works or does not: a source, the forwarding of dead letters, the mailer.

use tokio::time::Instant;

use crate::model::Time;
use crate::source::Health;
use crate::store::Condition;

/// A part that works or does not, whatever the others do.
pub(super) struct Part {
    pub health: Health,
    pub lag: Option<u64>,
    since: Instant,
}

impl Part {
    pub fn new(health: Health) -> Part {
        Part { health, lag: None, since: Instant::now() }
    }

    /// Another reason for being down is the same outage.
    pub fn turn(&mut self, health: Health) {
        if std::mem::discriminant(&self.health) != std::mem::discriminant(&health) {
            self.since = Instant::now();
        }
        self.health = health;
    }

    pub fn condition(&self, part: &'static str, name: &str, now: Time) -> Condition {
        let (state, detail) = match &self.health {
            Health::Ready => ("ready", ""),
            Health::Ended => ("ended", ""),
            Health::Down(why) => ("down", why.as_str()),
        };
        let since = now.minus(self.since.elapsed());
        Condition { part, name: name.to_owned(), state, detail: detail.to_owned(), lag: self.lag, since }
    }
}

pub(super) fn set(part: &mut Option<(String, Part)>, name: &str, health: Health) {
    match part {
        Some((known, part)) if *known == *name => part.turn(health),
        other => *other = Some((name.to_owned(), Part::new(health))),
    }
}
