//! The ids of topics: a question and its answer, which the `rdkafka` crate does not have.

use std::ffi::{CString, c_char};

use rdkafka::bindings as sys;
use rdkafka::consumer::{Consumer as _, ConsumerContext};

use super::{Event, Events, code_of, text};

/// What a broker names a topic by: another one if it was deleted and made again.
pub(in crate::source::kafka) type TopicId = (i64, i64);

impl<C: ConsumerContext> Events<'_, C> {
    /// Asks for the ids of topics; the answer comes as [`super::Told::Ids`], also if there is none.
    pub fn ask_ids(&self, topics: &[String]) {
        let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names live through the call that copies them; the collection is ours to destroy; client and queue
        // live through the call, which holds on to the queue itself.
        unsafe {
            let all = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let client = self.consumer.client().native_ptr();
            sys::rd_kafka_DescribeTopics(client, all, std::ptr::null(), self.queue.as_ptr());
            sys::rd_kafka_TopicCollection_destroy(all);
        }
    }
}

impl Event<'_> {
    /// Of an event that describes topics: those that the brokers describe.
    pub(super) fn ids(&self) -> Vec<(String, TopicId)> {
        let mut count = 0;
        // SAFETY: the result and what it points to live as long as the event; librdkafka keeps `count` elements there.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.event.as_ptr());
            if result.is_null() {
                return Vec::new();
            }
            let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            let found = if found.is_null() { &[][..] } else { std::slice::from_raw_parts(found, count) };
            let id_of = |topic: &*const sys::rd_kafka_TopicDescription_t| {
                let (id, error) =
                    (sys::rd_kafka_TopicDescription_topic_id(*topic), sys::rd_kafka_TopicDescription_error(*topic));
                let is_well = error.is_null() || code_of(sys::rd_kafka_error_code(error)).is_none();
                let halves = (!id.is_null() && is_well).then(|| {
                    (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id))
                });
                // Brokers before 2.8 have no ids.
                let id = halves.filter(|id| *id != (0, 0))?;
                Some((text(sys::rd_kafka_TopicDescription_name(*topic)), id))
            };
            found.iter().filter_map(id_of).collect()
        }
    }
}
