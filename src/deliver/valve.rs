//! The valve between the loop and the mailer: shut while the mailer says that no mail can leave, then opened for one mail
//! at a time until one was taken. The breaker of `owlpost_breaker_state`.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{self, Breaker};

/// How long no mail is tried after the mailer said that none can leave.
pub(super) const HALT: Duration = Duration::from_secs(60);

/// So many halts in a row end `run --until-idle`; the first ones may be credentials that are being renewed.
const HALTS_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    /// Nothing is let through before then.
    Shut(Instant),
    /// One mail at a time, to see whether it works again.
    Probing,
}

#[derive(Debug)]
pub(super) struct Valve {
    /// [`crate::mailer::Mailer::kind`], for the metric.
    mailer: &'static str,
    state: State,
    /// How often in a row the mailer said that no mail can leave.
    halts: u32,
}

impl Valve {
    pub fn new(mailer: &'static str) -> Valve {
        metrics::breaker(mailer, Breaker::Closed);
        Valve { mailer, state: State::Flowing, halts: 0 }
    }

    /// `None`: mails may be let through.
    pub fn shut_until(&self) -> Option<Instant> {
        match self.state {
            State::Shut(until) => Some(until),
            State::Flowing | State::Probing => None,
        }
    }

    pub fn is_probing(&self) -> bool {
        self.state == State::Probing
    }

    /// Somebody has to mend something first; a run that is to end does not wait for that.
    pub fn is_stuck(&self) -> bool {
        self.halts >= HALTS_MAX
    }

    /// The mailer said that no mail can leave; several in flight say it of the same trouble.
    pub fn halted(&mut self, until: Instant) {
        if self.shut_until().is_none() {
            metrics::breaker(self.mailer, Breaker::Open);
            self.halts += 1;
        }
        self.state = State::Shut(until);
    }

    /// The account says so itself, after the wait.
    pub fn still_halted(&mut self, until: Instant) {
        self.state = State::Shut(until);
        self.halts += 1;
    }

    pub fn probe(&mut self) {
        self.state = State::Probing;
        metrics::breaker(self.mailer, Breaker::Probing);
    }

    /// A mail was taken. `true`: after a halt, the first one.
    pub fn took(&mut self) -> bool {
        if self.state != State::Probing {
            return false;
        }
        (self.state, self.halts) = (State::Flowing, 0);
        metrics::breaker(self.mailer, Breaker::Closed);
        true
    }
}
