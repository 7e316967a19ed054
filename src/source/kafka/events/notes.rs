//! Notes at a group's offsets: which topic an offset is of. Kafka knows a committed offset by the topic's name alone, and a
//! topic that is deleted and made again has the same one. A question and its answer, which the `rdkafka` crate does not
//! have for a consumer.

use std::ffi::CString;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{Consumer as _, ConsumerContext};

use super::{Event, Events, TopicId, code_of, elements, slice, text};

/// Before the id, and between it and the cluster's, in the text that is committed with an offset.
const PREFIX: &str = "topic-id=";
const OF: &str = " cluster=";

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::kafka) struct Note {
    pub topic: String,
    pub partition: i32,
    /// `None`: nothing.
    pub offset: Option<i64>,
    /// The topic that it is of, and the cluster's id, if whoever committed it said so: tools that carry a group to another
    /// cluster may carry this too.
    pub of: Option<(TopicId, String)>,
}

/// The text to commit with an offset.
pub(in crate::source::kafka) fn written(id: TopicId, cluster: &str) -> String {
    format!("{PREFIX}{:016x}{:016x}{OF}{cluster}", id.0, id.1)
}

fn read(text: &[u8]) -> Option<(TopicId, String)> {
    let (digits, cluster) = std::str::from_utf8(text).ok()?.strip_prefix(PREFIX)?.split_once(OF)?;
    let half = |range| digits.get(range).and_then(|part| u64::from_str_radix(part, 16).ok()).map(u64::cast_signed);
    (digits.len() == 32).then_some(((half(0..16)?, half(16..32)?), cluster.to_owned()))
}

impl<C: ConsumerContext> Events<'_, C> {
    /// Asks what the group has committed for these; the answer comes as [`super::Told::Notes`], also if there is none.
    pub fn ask_notes(&self, group: &str, of: &TopicPartitionList) {
        let Ok(group) = CString::new(group) else { return };
        // SAFETY: group and list live through the call that copies them; the request is copied too and ours to destroy;
        // client and queue live through the call, which holds on to the queue itself.
        unsafe {
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), of.ptr());
            let client = self.consumer.client().native_ptr();
            sys::rd_kafka_ListConsumerGroupOffsets(client, &mut request, 1, std::ptr::null(), self.queue.as_ptr());
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
    }
}

impl Event<'_> {
    /// Of an event that tells a group's offsets: those that the coordinator knows, or knows to be missing.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut count = 0;
        // SAFETY: the result and what it points to live as long as the event; librdkafka keeps `count` groups there.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(self.event.as_ptr());
            if result.is_null() {
                return Vec::new();
            }
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
            let groups = if groups.is_null() { &[][..] } else { std::slice::from_raw_parts(groups, count) };
            let mut notes = Vec::new();
            for group in groups {
                let error = sys::rd_kafka_group_result_error(*group);
                if !error.is_null() && code_of(sys::rd_kafka_error_code(error)).is_some() {
                    continue;
                }
                let known = elements(sys::rd_kafka_group_result_partitions(*group)).iter();
                notes.extend(known.filter(|element| code_of(element.err).is_none()).map(|element| Note {
                    topic: text(element.topic),
                    partition: element.partition,
                    offset: Some(element.offset).filter(|offset| *offset >= 0),
                    of: slice(element.metadata.cast_const().cast(), element.metadata_size).and_then(read),
                }));
            }
            notes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        for id in [(1, 2), (-1, i64::MIN), (i64::MAX, 0)] {
            assert_eq!(read(written(id, "c").as_bytes()), Some((id, "c".to_owned())));
        }
        for other in ["", "topic-id=", "topic-id=1", "topic-id=1 cluster=c", "topic-id=é cluster=c"] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
