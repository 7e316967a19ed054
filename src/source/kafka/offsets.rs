//! How far a partition was read, and how far it is settled: what may be committed. Pure.
//!
//! Offsets have gaps (transaction markers, aborted transactions, compaction). A message therefore stands for everything
//! from where the one before it ended to its own end, `from..to`: these spans have no gaps between them, and a partition
//! is settled as far as its spans are, without one missing.

use std::collections::BTreeMap;

/// One partition while it is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The assignment it belongs to: what was read under an earlier one is its next owner's.
    pub since: u64,
    /// What was read before it can't be committed: that of the assignment, or of the last time the log began again.
    pub epoch: u64,
    /// Where the next message may begin. `None`: nothing was read yet.
    read: Option<i64>,
    /// Everything before it is settled.
    settled: Option<i64>,
    /// Settled spans behind one that is not. At most one for each batch that is out.
    ahead: BTreeMap<i64, i64>,
    /// What the last commit said.
    committed: Option<i64>,
    /// What the broker is known to have: it said so.
    confirmed: Option<i64>,
    /// The end that was reached last.
    end: Option<i64>,
    /// The end at the start of a run that goes no further (`--until-idle`).
    goal: Option<i64>,
}

/// The log begins again before what was read: the topic was made anew, or its end was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rewound;

impl Progress {
    pub fn new(epoch: u64) -> Progress {
        Progress {
            since: epoch,
            epoch,
            read: None,
            settled: None,
            ahead: BTreeMap::new(),
            committed: None,
            confirmed: None,
            end: None,
            goal: None,
        }
    }

    /// The log begins again: nothing of what was read counts, and a goal is as good as reached. What the broker has is of
    /// the old one.
    pub fn anew(&self, epoch: u64) -> Progress {
        Progress { goal: self.goal.map(|_| 0), ..self.over(epoch) }
    }

    /// It is read from its beginning, up to the goal that it had.
    pub fn over(&self, epoch: u64) -> Progress {
        Progress { since: self.since, goal: self.goal, ..Progress::new(epoch) }
    }

    /// Whether anything of it was read, be it that there is nothing.
    pub fn has_begun(&self) -> bool {
        self.read.is_some()
    }

    /// What the group had committed before this began.
    pub fn had(&mut self, offset: i64) {
        if self.committed.is_none() {
            (self.committed, self.confirmed) = (Some(offset), Some(offset));
        }
    }

    pub fn set_goal(&mut self, end: i64) {
        self.goal = Some(end);
    }

    /// The goal, if a message at this offset, or an end there, is behind it: that is for the next run. (Of a log that has
    /// begun again there is none.)
    fn goal_before(&self, offset: i64) -> Option<i64> {
        self.goal.filter(|goal| *goal > 0 && offset > *goal && self.read.is_none_or(|read| read <= *goal))
    }

    /// Whether a message is for the next run. Then everything of this one was read.
    pub fn leaves(&mut self, offset: i64) -> bool {
        match self.goal_before(offset.saturating_add(1)) {
            // Where it stands nothing can have begun again.
            Some(goal) => self.reached(goal).is_ok(),
            None => false,
        }
    }

    /// A message was read. Gives where its span begins.
    ///
    /// # Errors
    /// It lies before what was read: this progress is over.
    pub fn read(&mut self, offset: i64) -> Result<i64, Rewound> {
        let from = self.read.unwrap_or(offset);
        if offset < from {
            return Err(Rewound);
        }
        if self.read.is_none() {
            // News to the broker, unless it is what the group had: whoever begins again must not begin elsewhere.
            self.settled = Some(offset);
        }
        self.read = Some(offset.saturating_add(1));
        Ok(from)
    }

    /// There is no message left before `end`: what lies between the last one and it is nothing to wait for.
    ///
    /// # Errors
    /// It lies before what was read: this progress is over.
    pub fn reached(&mut self, end: i64) -> Result<(), Rewound> {
        // What lies between the goal and this end was left, not settled.
        let end = self.goal_before(end).unwrap_or(end);
        match self.read {
            Some(read) if end < read => return Err(Rewound),
            Some(read) if end > read => self.settle(read, end),
            Some(_) => {}
            None => self.settled = Some(end),
        }
        (self.read, self.end) = (Some(end), Some(end));
        Ok(())
    }

    /// What follows from the messages of this span is durable.
    pub fn settle(&mut self, from: i64, to: i64) {
        if self.settled != Some(from) {
            self.ahead.insert(from, to);
            return;
        }
        let mut at = to;
        while let Some(next) = self.ahead.remove(&at) {
            at = next;
        }
        self.settled = Some(at);
    }

    /// The offset to commit, if no commit has said it yet.
    pub fn to_commit(&self) -> Option<i64> {
        self.settled.filter(|_| self.settled != self.committed)
    }

    /// The offset to commit before the partition goes: what was said and has no answer is said again, since nobody will
    /// be there to hear that it failed.
    pub fn last_commit(&self) -> Option<i64> {
        self.settled.filter(|_| self.settled != self.confirmed)
    }

    /// A commit that says so is on its way.
    pub fn commits(&mut self, offset: i64) {
        self.committed = Some(offset);
    }

    /// The broker has it. A commit that waited for the group's coordinator may be heard after a later one, which then
    /// counts for nothing and is said again.
    pub fn is_committed(&mut self, offset: i64) {
        let is_answered = self.committed == self.confirmed;
        self.confirmed = Some(offset);
        if is_answered {
            self.committed = Some(offset);
        }
    }

    /// The commit that said so failed: unless a later one is on its way, the broker is told again.
    pub fn commit_failed(&mut self, offset: i64) {
        if self.committed == Some(offset) {
            self.committed = self.confirmed;
        }
    }

    /// The broker has everything that is settled.
    pub fn is_heard(&self) -> bool {
        self.last_commit().is_none()
    }

    pub fn settled(&self) -> Option<i64> {
        self.settled
    }

    /// Everything that was there when the run began is settled.
    pub fn is_at_end(&self) -> bool {
        let passed = |end: Option<i64>| end.is_some_and(|end| self.settled.is_some_and(|settled| settled >= end));
        passed(self.end) || passed(self.goal) || self.goal == Some(0)
    }
}

#[cfg(test)]
mod tests;
