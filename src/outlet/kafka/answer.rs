//! From an error of librdkafka to an answer, in words that say what to look at. Pure.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::DELIVERY;
use super::trouble::Told;
use crate::outlet::OutletError;

/// For a person.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub brokers: String,
    pub topic: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}/{}", self.brokers, self.topic)
    }
}

/// `bytes`: of the message. `trouble`: what is wrong with the brokers, if something is.
pub(super) fn of(error: &KafkaError, place: &Place, bytes: usize, trouble: Option<Told>) -> OutletError {
    let Place { topic, .. } = place;
    let code = match error {
        // librdkafka's words repeat the value, which may be a password.
        KafkaError::ClientConfig(_, _, name, _) => {
            return OutletError::Fatal(format!("{place}: librdkafka does not take the value of property {name:?}"));
        }
        KafkaError::ClientCreation(why) => {
            return OutletError::Fatal(format!("{place}: librdkafka does not take the properties: {why}"));
        }
        other => other.rdkafka_error_code().unwrap_or(Code::Unknown),
    };
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            OutletError::Refused(format!(
                "{bytes} bytes with its headers, more than topic {topic} takes; raise its max.message.bytes, or send less"
            ))
        }
        Code::InvalidRecord => OutletError::Refused(format!(
            "topic {topic} does not take it; a compacted topic wants a key (the extension partitionkey)"
        )),
        Code::PolicyViolation | Code::InvalidTimestamp => {
            OutletError::Refused(format!("a rule of topic {topic} does not let it in ({code})"))
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            OutletError::Fatal(format!("{place}: topic {topic} is not there; make it, or correct its name"))
        }
        Code::TopicAuthorizationFailed => {
            OutletError::Fatal(format!("{place}: topic {topic} may not be written to; grant WRITE and DESCRIBE on it"))
        }
        Code::ClusterAuthorizationFailed => OutletError::Fatal(format!(
            "{place}: an idempotent producer is not allowed here; grant IDEMPOTENT_WRITE on the cluster"
        )),
        Code::UnsupportedCompressionType => OutletError::Fatal(format!(
            "{place}: the broker does not know this compression; set the property \"compression.type\", to lz4 say"
        )),
        _ => match trouble {
            Some(told) if told.is_refusal() => OutletError::Fatal(format!("{place}: {}", refusal(&told))),
            Some(told) => OutletError::Unavailable(format!("{place}: {}: {}", unconfirmed(code), told.words)),
            None => OutletError::Unavailable(format!("{place}: {}", unconfirmed(code))),
        },
    }
}

fn refusal(told: &Told) -> String {
    let words = &told.words;
    match told.code {
        Code::SSL if words.contains("certificate") => format!(
            "a certificate is not trusted; the property \"ssl.ca.location\" must name the CA that signed the broker's, and \
             \"ssl.certificate.location\" ours, if the broker wants one: {words}"
        ),
        Code::SSL => {
            format!("TLS failed; look at the properties \"security.protocol\" and \"ssl.*\": {words}")
        }
        _ => format!(
            "the sign-in was refused; look at the properties \"sasl.mechanism\", \"sasl.username\" and \
             \"sasl.password\", or with iam = true at the AWS identity: {words}"
        ),
    }
}

fn unconfirmed(code: Code) -> String {
    match code {
        Code::MessageTimedOut | Code::RequestTimedOut => format!(
            "no broker confirmed it within {} s; are they running, and can they be reached?",
            DELIVERY.as_secs()
        ),
        Code::PurgeQueue | Code::PurgeInflight => {
            "no broker answers; are they running, and can they be reached?".to_owned()
        }
        Code::QueueFull => "the brokers take messages more slowly than they come".to_owned(),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => {
            "too few replicas are in sync (the topic's min.insync.replicas)".to_owned()
        }
        _ => format!("the broker did not take it ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code, trouble: Option<(Code, &str)>) -> OutletError {
        let place = Place { brokers: "k.example.com:9093".to_owned(), topic: "events".to_owned() };
        let trouble = trouble.map(|(code, words)| Told { code, words: words.to_owned() });
        of(&KafkaError::MessageProduction(code), &place, 2_000_000, trouble)
    }

    #[test]
    fn each_answer_says_what_to_look_at() {
        let refused = |code, word: &str| match told(code, None) {
            OutletError::Refused(what) => assert!(what.contains(word), "{what}"),
            other => panic!("{other:?}"),
        };
        refused(
            Code::MessageSizeTooLarge,
            "2000000 bytes with its headers, more than topic events takes; raise its max.message.bytes",
        );
        refused(Code::InvalidRecord, "partitionkey");
        let fatal = |code, trouble, word: &str| match told(code, trouble) {
            OutletError::Fatal(what) => {
                assert!(what.starts_with("kafka://k.example.com:9093/events: ") && what.contains(word), "{what}");
            }
            other => panic!("{other:?}"),
        };
        fatal(Code::UnknownTopic, None, "topic events is not there");
        fatal(Code::TopicAuthorizationFailed, None, "WRITE");
        fatal(Code::MessageTimedOut, Some((Code::Authentication, "no")), "sasl.password");
        fatal(Code::PurgeQueue, Some((Code::SSL, "certificate verify failed")), "ssl.ca.location");
        let unavailable = |code, trouble, word: &str| match told(code, trouble) {
            OutletError::Unavailable(what) => assert!(what.contains(word), "{what}"),
            other => panic!("{other:?}"),
        };
        unavailable(Code::MessageTimedOut, None, "within 30 s");
        unavailable(Code::MessageTimedOut, Some((Code::Resolve, "no such host")), "no such host");
        unavailable(Code::NotEnoughReplicas, None, "min.insync.replicas");
    }

    #[test]
    fn a_property_is_named_and_its_value_is_not() {
        let place = Place { brokers: "k:1".to_owned(), topic: "t".to_owned() };
        let error = rdkafka::ClientConfig::from_iter([("security.protocol".to_owned(), "hush".to_owned())])
            .create_native_config()
            .err()
            .unwrap();
        let answer = of(&error, &place, 0, None).to_string();
        assert!(answer.contains("security.protocol") && !answer.contains("hush"), "{answer}");
    }
}
