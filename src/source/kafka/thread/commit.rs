//! Commits: what is said to the group, and what follows if it does not hear it.

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::{Client, Poller, Queue, in_words};
use crate::metrics::kafka as metrics;
use crate::source::kafka::kept::Key;
use crate::source::kafka::offsets::Progress;

impl Poller {
    /// What `due` says of each partition; from here on it counts as said.
    fn commits(&self, of: impl Fn(Key) -> bool, due: impl Fn(&Progress) -> Option<i64>) -> TopicPartitionList {
        let mut state = self.shared.state();
        let due = state.say(|key, topic| of(key) && self.ids.may_commit(key, topic), due);
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (key, offset) in due {
            if let Err(e) = list.add_partition_offset(state.name(key), key.1, Offset::Offset(offset)) {
                tracing::debug!(error = %in_words(&e), offset, "an offset can't be committed");
            }
        }
        for mut element in list.elements() {
            if let Some(note) = self.ids.note(element.topic()) {
                element.set_metadata(note);
            }
        }
        list
    }

    /// What is settled and was not said yet. The answer is an event.
    pub(super) fn commit(&mut self, events: &Queue<'_>) {
        let list = self.commits(|_| true, Progress::to_commit);
        if list.count() > 0
            && let Err(code) = events.commit(&list)
        {
            self.commit_failed(code, &list);
        }
    }

    /// What is settled and not known to have been heard, before the partitions go. Waits for the answer.
    pub(super) fn commit_last(&mut self, consumer: &Client, of: impl Fn(Key) -> bool) {
        let list = self.commits(of, Progress::last_commit);
        if list.count() == 0 {
            return;
        }
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => self.committed(&list),
            Err(KafkaError::ConsumerCommit(code)) => self.commit_failed(code, &list),
            Err(e) => tracing::warn!(source = self.settings.name, error = %in_words(&e), "offsets not committed"),
        }
    }

    pub(super) fn committed(&mut self, list: &TopicPartitionList) {
        self.commit_trouble = None;
        self.each(list, Progress::is_committed);
        if self.settings.until_idle {
            // That may have been all that the run waits for.
            self.shared.news.notify_one();
        }
    }

    /// Tells the partitions of a list what became of the offset that stands there. Those that are gone are nobody's.
    fn each(&self, list: &TopicPartitionList, tell: impl Fn(&mut Progress, i64)) {
        let mut state = self.shared.state();
        for element in list.elements() {
            let key = (state.topic(element.topic()), element.partition());
            if let (Some(progress), Offset::Offset(offset)) = (state.partitions.get_mut(&key), element.offset()) {
                tell(progress, offset);
            }
        }
    }

    pub(super) fn commit_failed(&mut self, code: RDKafkaErrorCode, list: &TopicPartitionList) {
        use RDKafkaErrorCode::{
            IllegalGeneration, NoOffset, RebalanceInProgress, StaleMemberEpoch, State, UnknownMemberId,
            WaitingForCoordinator,
        };
        self.each(list, Progress::commit_failed);
        if code == NoOffset {
            return;
        }
        metrics::commit_failed(&self.settings.name);
        // Said again each second: once is enough for whoever reads the log.
        let is_news = self.commit_trouble.replace(code) != Some(code);
        match code {
            // The group is being shared out anew: told by the assignment.
            IllegalGeneration
            | RebalanceInProgress
            | StaleMemberEpoch
            | State
            | UnknownMemberId
            | WaitingForCoordinator => {
                tracing::debug!(source = self.settings.name, error = %code, "offsets not committed; tried again");
            }
            _ if is_news => {
                tracing::warn!(source = self.settings.name, error = %code, "offsets not committed; tried again")
            }
            _ => tracing::debug!(source = self.settings.name, error = %code, "offsets still not committed"),
        }
    }
}
