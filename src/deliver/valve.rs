//! The valve between the loop and the mailer: shut while the mailer says that no mail can leave, then opened for one mail
//! at a time until one was taken. The breaker of `owlpost_breaker_state`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{self, Breaker};
use crate::model::DigestId;

/// How long no mail is tried after the mailer said that none can leave.
pub(super) const HALT: Duration = Duration::from_secs(60);

/// The same after the mailer could not be reached: at first, and twice as long after each mail that finds it away still.
const AWAY: Duration = Duration::from_secs(1);

/// So many mails in a row have to find that: one connection that fails among others that work is no outage.
const AWAY_MAX: u32 = 3;

/// So many mails in a row, one after another and no mail twice in a row, have to come to a doubt: that is no trouble of some mails,
/// and where half of the answers get lost it does not happen by chance.
const UNCLEAR_MAX: u32 = 16;

/// So many halts in a row end `run --until-idle`; the first ones may be credentials that are being renewed.
const HALTS_MAX: u32 = 5;

/// Digests that are remembered for a halt; they are forgotten together, and then shut the valve once more.
const HALTED_BY_MAX: usize = 1_024;

/// What an answer says of the mailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it is about the mail.
    Nothing,
    /// No mail can leave until somebody acts.
    Halted,
    /// It could not be reached.
    Away,
    /// Nobody knows what it did: it broke off, gave no answer, or said that it has an error of its own.
    Unclear,
}

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
    /// How many mails in a row did not reach it, and how often that, or doubts, have shut the valve.
    unreached: u32,
    /// How many came to a doubt in a row, and whose was the last one.
    unclear: u32,
    unclear_of: Option<DigestId>,
    outages: u32,
    /// How many mails were taken, but for those that were on their way when it was shut.
    taken: u64,
    /// Whose mails halted, and how many had been taken by then.
    halted_by: HashMap<DigestId, u64>,
}

impl Valve {
    pub fn new(mailer: &'static str) -> Valve {
        metrics::breaker(mailer, Breaker::Closed);
        Valve {
            mailer,
            state: State::Flowing,
            halts: 0,
            unreached: 0,
            unclear: 0,
            unclear_of: None,
            outages: 0,
            taken: 0,
            halted_by: HashMap::new(),
        }
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

    /// A mail did not reach the mailer, which waits no longer than `most` for the next one. Gives how long no mail is tried, if
    /// that has just begun.
    pub fn unreached(&mut self, most: Duration) -> Option<Duration> {
        self.unreached = self.unreached.saturating_add(1);
        self.shuts(self.unreached >= AWAY_MAX, most)
    }

    /// A mail came to a doubt; the same is given. (Each doubt burns an attempt, and may become a second mail.)
    pub fn unclear(&mut self, digest: DigestId, most: Duration) -> Option<Duration> {
        if self.unclear_of.replace(digest) != Some(digest) {
            self.unclear = self.unclear.saturating_add(1);
        }
        self.shuts(self.unclear >= UNCLEAR_MAX, most)
    }

    /// The server said what it did, if only with one mail.
    pub fn is_clear(&mut self) {
        (self.unclear, self.unclear_of) = (0, None);
    }

    fn shuts(&mut self, too_many: bool, most: Duration) -> Option<Duration> {
        let is_over = self.state == State::Probing || (self.state == State::Flowing && too_many);
        if !is_over {
            return None;
        }
        let wait = AWAY.saturating_mul(1 << self.outages.min(16)).min(most);
        self.outages += 1;
        self.halted(Instant::now() + wait);
        Some(wait)
    }

    /// This digest's mail halts. `true`: it has before, and others were taken since; it is that mail, and not the mailer. (A
    /// policy may forbid some recipients, in the words in which it forbids everything.)
    pub fn is_of_one_mail(&mut self, digest: DigestId) -> bool {
        if self.halted_by.len() >= HALTED_BY_MAX {
            self.halted_by.clear();
        }
        self.halted_by.insert(digest, self.taken).is_some_and(|then| then < self.taken)
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
        self.unreached = 0;
        self.is_clear();
        if !matches!(self.state, State::Shut(_)) {
            self.taken += 1;
        }
        if self.state != State::Probing {
            return false;
        }
        self.outages = 0;
        (self.state, self.halts) = (State::Flowing, 0);
        metrics::breaker(self.mailer, Breaker::Closed);
        true
    }
}
