//! Commits: what is said to the group, and what follows if it does not hear it.

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::{Client, Poller, in_words};
use crate::metrics;
use crate::source::kafka::kept::Key;
use crate::source::kafka::offsets::Progress;

impl Poller {
    /// What is settled and not committed yet; from here on it counts as committed.
    pub(super) fn commits(&self, of: impl Fn(Key) -> bool) -> TopicPartitionList {
        let mut state = self.shared.state();
        let due: Vec<(Key, i64)> = state
            .partitions
            .iter_mut()
            .filter(|(key, _)| of(**key))
            .filter_map(|(key, progress)| {
                let offset = progress.to_commit()?;
                progress.commits(offset);
                Some((*key, offset))
            })
            .collect();
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (key, offset) in due {
            if let Err(e) = list.add_partition_offset(state.name(key), key.1, Offset::Offset(offset)) {
                tracing::debug!(error = %in_words(&e), offset, "an offset can't be committed");
            }
        }
        list
    }

    pub(super) fn commit(&self, consumer: &Client) {
        let list = self.commits(|_| true);
        if list.count() > 0
            && let Err(e) = consumer.commit(&list, CommitMode::Async)
        {
            self.not_committed(&e);
        }
    }

    pub(super) fn not_committed(&self, error: &KafkaError) {
        match error {
            KafkaError::ConsumerCommit(code) => self.commit_failed(*code),
            other => tracing::warn!(source = self.settings.name, error = %in_words(other), "offsets not committed"),
        }
    }

    pub(super) fn commit_failed(&self, code: RDKafkaErrorCode) {
        use RDKafkaErrorCode::{
            IllegalGeneration, NoOffset, RebalanceInProgress, StaleMemberEpoch, State, UnknownMemberId,
            WaitingForCoordinator,
        };
        self.shared.state().partitions.values_mut().for_each(Progress::commit_failed);
        if code == NoOffset {
            return;
        }
        metrics::kafka_commit_failed(&self.settings.name);
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
            _ => tracing::warn!(source = self.settings.name, error = %code, "offsets not committed; tried again"),
        }
    }
}
