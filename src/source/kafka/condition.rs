//! What is wrong between this consumer and the brokers, in words that say which setting to look at. Pure.

use std::collections::BTreeMap;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::events::Failure;

/// Nobody reads more names in one sentence.
const TOPICS_MAX: usize = 8;

/// What goes on now. Each part goes away by the sign that it is over.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// What a broker's connection failed of last.
    heard: Option<String>,
    /// Over as soon as a broker answers.
    connection: Option<(Cause, String)>,
    /// By topic: over once it is there and may be read.
    topics: BTreeMap<String, String>,
    /// Over as soon as there is a token.
    token: Option<String>,
    /// Over with the next assignment.
    group: Option<String>,
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
    pub fn failed(&mut self, failure: &Failure, group: &str) -> Meaning {
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
                let what = format!("topic {topic} may not be read; grant READ and DESCRIBE on it");
                self.topic(topic, what);
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
                return Meaning::Passing;
            }
            _ => return Meaning::Passing,
        }
        Meaning::Down
    }

    /// A subscribed topic is not there.
    pub fn missing(&mut self, topic: &str) {
        self.topic(topic, format!("topic {topic} is not there; make it, or correct source.topics"));
    }

    fn topic(&mut self, topic: &str, what: String) {
        if self.topics.len() < TOPICS_MAX || self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), what);
        }
    }

    /// A token was made, or why not. `true`: it is news.
    pub fn signed_in(&mut self, trouble: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.token, trouble.map(|why| format!("source.iam: {why}")));
        before != self.token
    }

    /// A broker answers. `true`: it is news.
    pub fn connected(&mut self) -> bool {
        self.connection.take().is_some()
    }

    /// Somebody answered, and said no.
    pub fn is_refused(&self) -> bool {
        matches!(self.connection, Some((Cause::Refused, _))) || self.group.is_some()
    }

    /// The topic is there. `true`: it is news.
    pub fn found(&mut self, topic: &str) -> bool {
        self.topics.remove(topic).is_some()
    }

    /// Partitions were assigned, perhaps none.
    pub fn joined(&mut self) {
        self.group = None;
    }

    /// Topics that are not there, or may not be read.
    pub fn troubled_topics(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// `None`: all is well.
    pub fn words(&self) -> Option<String> {
        let parts: Vec<&str> = self
            .connection
            .iter()
            .map(|(_, what)| what.as_str())
            .chain(self.token.as_deref())
            .chain(self.group.as_deref())
            .chain(self.topics.values().map(String::as_str))
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, text: &str, topic: Option<&str>) -> Failure {
        Failure { code, text: text.to_owned(), topic: topic.map(str::to_owned), fatal: false }
    }

    #[test]
    fn the_more_exact_cause_stands_until_a_broker_answers() {
        let mut condition = Condition::default();
        condition.failed(&failure(Code::Authentication, "refused", None), "mail");
        condition.failed(&failure(Code::AllBrokersDown, "1/1 brokers are down", None), "mail");
        assert!(condition.words().unwrap().contains("sasl.password"));
        assert!(condition.connected());
        assert_eq!(condition.words(), None);
        assert!(!condition.connected());
        condition.failed(&failure(Code::AllBrokersDown, "1/1 brokers are down", None), "mail");
        assert!(condition.words().unwrap().contains("source.brokers"));
    }

    #[test]
    fn each_missing_topic_is_named_until_it_is_there() {
        let mut condition = Condition::default();
        for topic in ["a", "b"] {
            condition.failed(&failure(Code::UnknownTopicOrPartition, "?", Some(topic)), "mail");
        }
        let words = condition.words().unwrap();
        assert!(words.contains("topic a ") && words.contains("topic b ") && words.contains("source.topics"), "{words}");
        assert!(condition.found("a"));
        assert!(!condition.found("a"));
        assert_eq!(condition.troubled_topics(), ["b"]);
    }

    #[test]
    fn trouble_that_passes_is_no_reason_to_be_down() {
        let mut condition = Condition::default();
        let meaning = condition.failed(&failure(Code::BrokerTransportFailure, "connection reset", None), "mail");
        assert_eq!((meaning, condition.words()), (Meaning::Passing, None));
    }
}
