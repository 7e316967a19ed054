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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_committed_before_something_is_settled() {
        let mut progress = Progress::new(1);
        assert_eq!(progress.to_commit(), None);
        progress.had(5);
        assert_eq!(progress.read(5), Ok(5));
        assert_eq!(progress.read(6), Ok(6));
        assert_eq!(progress.to_commit(), None);
        progress.settle(5, 6);
        assert_eq!(progress.to_commit(), Some(6));
        progress.commits(6);
        assert_eq!(progress.to_commit(), None);
    }

    #[test]
    fn an_end_behind_markers_is_committed_only_once_everything_before_it_is_settled() {
        let mut progress = Progress::new(1);
        progress.had(0);
        assert_eq!(progress.read(0), Ok(0));
        assert_eq!(progress.reached(3), Ok(()));
        assert_eq!(progress.to_commit(), None);
        assert!(!progress.is_at_end());
        progress.settle(0, 1);
        assert_eq!(progress.to_commit(), Some(3));
        assert!(progress.is_at_end());
    }

    #[test]
    fn a_partition_with_nothing_but_markers_is_committed_to_its_end() {
        let mut progress = Progress::new(1);
        assert_eq!(progress.reached(4), Ok(()));
        assert_eq!(progress.to_commit(), Some(4));
    }

    #[test]
    fn a_log_that_begins_again_is_told() {
        let mut progress = Progress::new(1);
        progress.read(10).unwrap();
        assert_eq!(progress.read(3), Err(Rewound));
        assert_eq!(progress.reached(3), Err(Rewound));
    }

    #[test]
    fn where_a_group_begins_is_said_at_once_unless_it_has_that() {
        let mut progress = Progress::new(1);
        progress.read(7).unwrap();
        assert_eq!((progress.to_commit(), progress.last_commit()), (Some(7), Some(7)));
        progress.had(7);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
        // Out of range, say.
        let mut elsewhere = Progress::new(1);
        elsewhere.had(3);
        elsewhere.read(7).unwrap();
        assert_eq!(elsewhere.to_commit(), Some(7));
    }

    #[test]
    fn a_log_that_begins_again_does_not_keep_the_offset_of_the_one_before_it() {
        let mut progress = Progress::new(1);
        progress.had(9);
        progress.read(9).unwrap();
        progress.settle(9, 10);
        progress.commits(10);
        progress.is_committed(10);
        for mut again in [progress.anew(2), progress.over(2)] {
            again.read(0).unwrap();
            assert_eq!((again.to_commit(), again.last_commit(), again.is_heard()), (Some(0), Some(0), false));
            // The answer to a commit of before.
            again.is_committed(10);
            assert_eq!(again.to_commit(), Some(0));
        }
    }

    #[test]
    fn a_commit_that_is_heard_after_a_later_one_does_not_stay_the_last() {
        let mut progress = Progress::new(1);
        progress.had(0);
        for offset in 0..2 {
            progress.read(offset).unwrap();
            progress.settle(offset, offset + 1);
            progress.commits(offset + 1);
        }
        // The first waited for the group's coordinator.
        progress.is_committed(2);
        assert!(progress.is_heard());
        progress.is_committed(1);
        assert_eq!(
            (progress.to_commit(), progress.is_heard()),
            (Some(2), false),
            "the partition may be idle from now on"
        );
        progress.commits(2);
        progress.is_committed(2);
        assert_eq!((progress.to_commit(), progress.is_heard()), (None, true));
        // In their order.
        progress.read(2).unwrap();
        progress.settle(2, 3);
        progress.commits(3);
        progress.read(3).unwrap();
        progress.settle(3, 4);
        progress.commits(4);
        progress.is_committed(3);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(4)));
    }

    #[test]
    fn a_failed_commit_is_said_again() {
        let mut progress = Progress::new(1);
        progress.had(0);
        progress.read(0).unwrap();
        progress.settle(0, 1);
        progress.commits(1);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(1)));
        assert!(!progress.is_heard());
        progress.commit_failed(1);
        assert_eq!(progress.to_commit(), Some(1));
        progress.commits(1);
        progress.is_committed(1);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
        assert!(progress.is_heard());
    }

    #[test]
    fn a_failed_commit_neither_undoes_a_later_one_nor_commits_where_reading_began() {
        let mut progress = Progress::new(1);
        progress.had(5);
        progress.read(5).unwrap();
        progress.commit_failed(5);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
        progress.settle(5, 6);
        progress.commits(6);
        progress.read(6).unwrap();
        progress.settle(6, 7);
        progress.commits(7);
        progress.commit_failed(6);
        assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(7)));
    }

    proptest! {
        /// Any gaps, any batches, settled in any order, ends anywhere: what may be committed is exactly the end of the
        /// settled messages without one missing, and all of it in the end.
        #[test]
        fn what_is_committed_is_settled_and_in_the_end_everything_is(
            gaps in proptest::collection::vec((1i64..5, any::<bool>()), 1..40),
            order in proptest::collection::vec(any::<u16>(), 40),
            start in 0i64..100,
        ) {
            let mut progress = Progress::new(1);
            let (mut at, mut spans, mut last) = (start, Vec::new(), None);
            for (gap, ends) in gaps {
                let from = progress.read(at).unwrap();
                spans.push((from, at + 1, at));
                at += 1;
                if ends {
                    // Markers up to the end.
                    at += gap - 1;
                    progress.reached(at).unwrap();
                    last = Some(at);
                } else {
                    at += gap - 1;
                }
            }
            let read = spans.last().unwrap().1.max(last.unwrap_or(0));
            let mut open: Vec<_> = spans.clone();
            let mut turn = order.iter().cycle();
            while !open.is_empty() {
                let next = usize::from(*turn.next().unwrap()) % open.len();
                let (from, to, _) = open.remove(next);
                progress.settle(from, to);
                let first_open = open.iter().map(|(_, _, offset)| *offset).min();
                let settled = progress.settled().unwrap();
                match first_open {
                    Some(offset) => prop_assert!(settled <= offset, "{settled} is beyond {offset}"),
                    None => prop_assert_eq!(settled, read),
                }
                // Everything before it that is a message is settled, and nothing is held back.
                let settled_up_to = spans.iter().filter(|s| !open.contains(s)).take_while(|s| first_open.is_none_or(|o| s.2 < o)).map(|s| s.1).max();
                prop_assert!(settled_up_to.is_none_or(|to| settled >= to));
            }
            prop_assert!(progress.ahead.is_empty());
        }
    }
}
