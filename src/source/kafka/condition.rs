//! What is wrong between this consumer and the brokers, in words that say which setting to look at. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::error::RDKafkaErrorCode as Code;

use super::events::Failure;
use super::kept::Key;

/// Nobody reads more names in one sentence.
const TOPICS_MAX: usize = 8;

/// What goes on now. Each part goes away by the sign that it is over.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// What a broker's connection failed of last.
    heard: Option<String>,
    /// What passes, told last.
    passing: Option<String>,
    /// Over as soon as a broker answers.
    connection: Option<(Cause, String)>,
    /// By topic: over once the brokers show it. Told of the subscription.
    missing: BTreeMap<String, String>,
    /// By partition: over once one of its messages has come, or its end, or it is another member's. librdkafka tells each
    /// once, and the metadata says nothing of it. No more than are assigned.
    unread: BTreeMap<Key, String>,
    /// Over as soon as there is a token.
    token: Option<String>,
    /// Over with the next assignment.
    group: Option<String>,
    /// As `group`: the first assignment has been waited for too long.
    late: Option<String>,
}

/// The more exact one stands: a broker that refuses a sign-in is also one that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Silent,
    Refused,
}

/// What a failure means for the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Told by the condition.
    Down,
    /// A broker or a partition has trouble; librdkafka goes on trying.
    Passing,
}

impl Condition {
    /// `key`: the assigned partition that the failure is of, if it is of one.
    pub fn failed(&mut self, failure: &Failure, key: Option<Key>, group: &str) -> Meaning {
        let text = &failure.text;
        match failure.code {
            Code::SSL => {
                let what = if text.contains("certificate") {
                    format!(
                        "a broker's certificate is not trusted; source.properties \"ssl.ca.location\" must name the CA that \
                         signed it: {text}"
                    )
                } else {
                    format!(
                        "TLS with a broker failed; look at source.properties \"security.protocol\" and \"ssl.*\": {text}"
                    )
                };
                self.connection = Some((Cause::Refused, what));
            }
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
                let what = format!(
                    "a broker refused the sign-in; look at source.properties \"sasl.mechanism\", \"sasl.username\" and \
                     \"sasl.password\", or at source.iam: {text}"
                );
                self.connection = Some((Cause::Refused, what));
            }
            Code::AllBrokersDown => {
                if self.connection.as_ref().is_none_or(|(cause, _)| *cause == Cause::Silent) {
                    let heard = self.heard.as_ref().unwrap_or(text);
                    let what = format!("no broker answers; look at source.brokers: {heard}");
                    self.connection = Some((Cause::Silent, what));
                }
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                let Some(topic) = &failure.topic else { return Meaning::Passing };
                self.missing(topic);
            }
            Code::TopicAuthorizationFailed => {
                let Some(topic) = &failure.topic else { return Meaning::Passing };
                let what =
                    format!("topic {topic} may not be read; grant READ and DESCRIBE on it, or correct source.topics");
                match (failure.partition, key) {
                    (None, _) => self.not_shown(topic, what),
                    (_, Some(key)) => drop(self.unread.insert(key, what)),
                    (Some(_), None) => return Meaning::Passing,
                }
            }
            Code::AutoOffsetReset | Code::BadCompression | Code::BadMessage | Code::NotImplemented => {
                let (Some(topic), Some(key)) = (&failure.topic, key) else { return self.passes(text) };
                let what = match failure.code {
                    Code::AutoOffsetReset => format!(
                        "topic {topic} can't be read on where source.group left off; set the group's offsets, or \
                         source.properties \"auto.offset.reset\""
                    ),
                    Code::BadCompression => format!(
                        "messages of topic {topic} can't be read: {text}; if one is larger than source.properties \
                         \"receive.message.max.bytes\" once it is unpacked, raise that; or stop the group's workers and set its \
                         offset of partition {} behind the message",
                        key.1
                    ),
                    _ => format!("messages of topic {topic} can't be read: {text}"),
                };
                self.unread.insert(key, what);
            }
            Code::GroupAuthorizationFailed => {
                self.group = Some(format!("source.group {group:?} may not be used; grant READ on the group"));
            }
            Code::InconsistentGroupProtocol => {
                self.group = Some(format!(
                    "the members of source.group {group:?} share out partitions in another way; source.protocol and \
                     \"partition.assignment.strategy\" must fit theirs"
                ));
            }
            Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedAssignor => {
                self.group = Some(format!("the brokers can't do what is asked; look at source.protocol: {text}"));
            }
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut => {
                // Without the time that it took and a count, which would make news of the same thing.
                self.heard = Some(text.split(" (after ").next().unwrap_or_default().to_owned());
                return self.passes(text);
            }
            _ => return self.passes(text),
        }
        Meaning::Down
    }

    /// A subscribed topic is not there.
    pub fn missing(&mut self, topic: &str) {
        self.not_shown(topic, format!("topic {topic} is not there; make it, or correct source.topics"));
    }

    fn not_shown(&mut self, topic: &str, what: String) {
        if self.missing.len() < TOPICS_MAX || self.missing.contains_key(topic) {
            self.missing.insert(topic.to_owned(), what);
        }
    }

    fn passes(&mut self, text: &str) -> Meaning {
        self.passing = Some(text.split(" (after ").next().unwrap_or_default().to_owned());
        Meaning::Passing
    }

    /// The first assignment has not come in so many seconds. Gives the words for all of it.
    pub fn not_joined(&mut self, group: &str, seconds: u64) -> String {
        let last = self.passing.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
        self.late = Some(format!("source.group {group:?} was not joined within {seconds} seconds{last}"));
        self.words().unwrap_or_default()
    }

    /// A token was made, or why not. `true`: it is news.
    pub fn signed_in(&mut self, trouble: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.token, trouble.map(|why| format!("source.iam: {why}")));
        before != self.token
    }

    /// All brokers answer. `true`: it is news.
    pub fn connected(&mut self) -> bool {
        self.connection.take().is_some()
    }

    /// A broker answers; one that refuses may be another. `true`: it is news.
    pub fn answered(&mut self) -> bool {
        self.connection.take_if(|(cause, _)| *cause == Cause::Silent).is_some()
    }

    /// Somebody answered, and said no.
    pub fn is_refused(&self) -> bool {
        matches!(self.connection, Some((Cause::Refused, _))) || self.group.is_some()
    }

    /// The first assignment has been waited for too long.
    pub fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// The topic is there. `true`: it is news.
    pub fn found(&mut self, topic: &str) -> bool {
        self.missing.remove(topic).is_some()
    }

    /// A message of the partition has come, or its end. Called for each: mostly there is nothing to look up.
    pub fn read(&mut self, key: Key) {
        if !self.unread.is_empty() {
            self.unread.remove(&key);
        }
    }

    /// The partition is another member's.
    pub fn gone(&mut self, key: Key) {
        self.unread.remove(&key);
    }

    /// Some partition can't be read.
    pub fn is_unreadable(&self) -> bool {
        !self.unread.is_empty()
    }

    pub fn cant_read(&self, key: Key) -> bool {
        self.unread.contains_key(&key)
    }

    /// Whether something of this keeps a partition from being read.
    pub fn keeps_from(&self, key: Key, topic: &str) -> bool {
        self.connection.is_some()
            || self.token.is_some()
            || self.group.is_some()
            || self.late.is_some()
            || self.missing.contains_key(topic)
            || self.cant_read(key)
    }

    /// Partitions were assigned, perhaps none.
    pub fn joined(&mut self) {
        (self.group, self.late) = (None, None);
    }

    /// Topics that the brokers do not show.
    pub fn missing_topics(&self) -> Vec<String> {
        self.missing.keys().cloned().collect()
    }

    /// `None`: all is well.
    pub fn words(&self) -> Option<String> {
        // Partitions of one topic mostly have the same trouble.
        let unread: BTreeSet<&str> = self.unread.values().map(String::as_str).collect();
        let parts: Vec<&str> = self
            .connection
            .iter()
            .map(|(_, what)| what.as_str())
            .chain(self.token.as_deref())
            .chain(self.group.as_deref())
            .chain(self.late.as_deref())
            .chain(self.missing.values().map(String::as_str))
            .chain(unread.into_iter().take(TOPICS_MAX))
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, text: &str, topic: Option<&str>) -> Failure {
        Failure { code, text: text.to_owned(), topic: topic.map(str::to_owned), partition: None, fatal: false }
    }

    #[test]
    fn the_more_exact_cause_stands_until_a_broker_answers() {
        let mut condition = Condition::default();
        condition.failed(&failure(Code::Authentication, "refused", None), None, "mail");
        condition.failed(&failure(Code::AllBrokersDown, "1/1 brokers are down", None), None, "mail");
        assert!(condition.words().unwrap().contains("sasl.password"));
        assert!(condition.connected());
        assert_eq!(condition.words(), None);
        assert!(!condition.connected());
        condition.failed(&failure(Code::AllBrokersDown, "1/1 brokers are down", None), None, "mail");
        assert!(condition.words().unwrap().contains("source.brokers"));
    }

    #[test]
    fn each_missing_topic_is_named_until_it_is_there() {
        let mut condition = Condition::default();
        for topic in ["a", "b"] {
            condition.failed(&failure(Code::UnknownTopicOrPartition, "?", Some(topic)), None, "mail");
        }
        let words = condition.words().unwrap();
        assert!(words.contains("topic a ") && words.contains("topic b ") && words.contains("source.topics"), "{words}");
        assert!(condition.found("a"));
        assert!(!condition.found("a"));
        assert_eq!(condition.missing_topics(), ["b"]);
    }

    #[test]
    fn a_partition_that_may_not_be_read_is_told_until_something_of_it_is_read() {
        let mut condition = Condition::default();
        for partition in [0, 1] {
            let of = Failure { partition: Some(partition), ..failure(Code::TopicAuthorizationFailed, "?", Some("a")) };
            condition.failed(&of, Some((0, partition)), "mail");
        }
        assert_eq!(condition.words().unwrap().matches("topic a ").count(), 1);
        // The metadata shows a topic that may be described only.
        assert!(!condition.found("a"));
        condition.read((0, 0));
        assert!(condition.cant_read((0, 1)) && !condition.cant_read((0, 0)));
        condition.gone((0, 1));
        assert_eq!(condition.words(), None);
    }

    #[test]
    fn a_message_that_cannot_be_unpacked_is_told_with_its_partition_and_the_ways_on() {
        let mut condition = Condition::default();
        let of = failure(Code::BadCompression, "Decompression (codec 0x4) of message at 5 failed", Some("a"));
        condition.failed(&Failure { partition: Some(3), ..of }, Some((0, 3)), "mail");
        let words = condition.words().unwrap();
        assert!(
            ["topic a ", "at 5", "\"receive.message.max.bytes\"", "partition 3"].iter().all(|w| words.contains(w)),
            "{words}"
        );
    }

    #[test]
    fn one_broker_that_answers_does_not_speak_for_one_that_refuses() {
        let mut condition = Condition::default();
        condition.failed(&failure(Code::Authentication, "refused", None), None, "mail");
        assert!(!condition.answered());
        assert!(condition.is_refused());
        assert!(condition.connected());
    }

    #[test]
    fn a_group_that_is_not_joined_is_told_with_what_was_heard_last() {
        let mut condition = Condition::default();
        condition.failed(&failure(Code::CoordinatorNotAvailable, "no coordinator (after 5ms)", None), None, "mail");
        let words = condition.not_joined("mail", 60);
        assert!(words.contains("source.group \"mail\"") && words.ends_with("no coordinator"), "{words}");
        condition.joined();
        assert_eq!(condition.words(), None);
    }

    #[test]
    fn trouble_that_passes_is_no_reason_to_be_down() {
        let mut condition = Condition::default();
        let meaning = condition.failed(&failure(Code::BrokerTransportFailure, "connection reset", None), None, "mail");
        assert_eq!((meaning, condition.words()), (Meaning::Passing, None));
    }
}
