//! `check --live`: whether the brokers answer, the topics are there, and the group may be used. Joins no group and commits
//! nothing.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::condition::Condition;
use super::events::{Events, Failure, Told};
use super::{Quiet, Settings, thread};
use crate::kafka::iam::Tokens;

/// All of it, for each source.
const WITHIN: Duration = Duration::from_secs(10);
/// One call; between them librdkafka tells why there is no answer.
const CALL: Duration = Duration::from_secs(2);

/// What was found: whether it is well, and the words for it. Inside of a runtime.
pub async fn probe(settings: Settings) -> Vec<(bool, String)> {
    let name = settings.name.clone();
    let tokens = settings.cluster.iam.then(|| Tokens::keep(settings.identity.clone()));
    let asked = tokio::task::spawn_blocking(move || ask(&settings, tokens.as_ref())).await;
    let found = asked.unwrap_or_else(|_| vec![(false, "the check broke off".to_owned())]);
    found.into_iter().map(|(ok, what)| (ok, format!("source {name}: {what}"))).collect()
}

struct Asking<'c> {
    settings: &'c Settings,
    consumer: &'c BaseConsumer<Quiet>,
    events: Events<'c, Quiet>,
    tokens: Option<&'c Tokens>,
    wants_token: bool,
    condition: Condition,
    by: Instant,
}

fn ask(settings: &Settings, tokens: Option<&Tokens>) -> Vec<(bool, String)> {
    let made = settings.client().create_with_context::<_, BaseConsumer<Quiet>>(Quiet);
    let consumer = match made {
        Ok(consumer) => consumer,
        Err(e) => return vec![(false, thread::in_words(&e))],
    };
    let Some(events) = Events::of(&consumer) else { return vec![(false, "librdkafka gave no queue".to_owned())] };
    let asking = Asking {
        settings,
        consumer: &consumer,
        events,
        tokens,
        wants_token: false,
        condition: Condition::default(),
        by: Instant::now() + WITHIN,
    };
    asking.all()
}

impl Asking<'_> {
    fn all(mut self) -> Vec<(bool, String)> {
        let mut found = Vec::new();
        match self.until(|consumer| consumer.fetch_metadata(Some(&any(self.settings)), CALL)) {
            Ok(metadata) => {
                let how = self.settings.cluster.protocol();
                let count = metadata.brokers().len();
                let brokers = if count == 1 { "broker answers" } else { "brokers answer" };
                found.push((true, format!("{count} {brokers} ({how})")));
            }
            Err(why) => return vec![(false, why)],
        }
        let mut partitions = TopicPartitionList::new();
        for topic in &self.settings.topics {
            if topic.starts_with('^') {
                found.push((true, format!("topics that fit {topic:?} are taken when it subscribes, also later ones")));
                continue;
            }
            match self.until(|consumer| consumer.fetch_metadata(Some(topic), CALL)) {
                Err(why) => found.push((false, why)),
                Ok(metadata) => match metadata.topics().iter().find(|found| found.name() == topic) {
                    Some(there) if there.error().is_none() => {
                        let count = there.partitions().len();
                        let partitions_of = if count == 1 { "partition" } else { "partitions" };
                        found.push((true, format!("topic {topic} has {count} {partitions_of}")));
                        for partition in there.partitions() {
                            partitions.add_partition(topic, partition.id());
                        }
                    }
                    other => {
                        let mut condition = Condition::default();
                        let error = other.and_then(|t| t.error());
                        let code = error.map_or(RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::from);
                        let failure = Failure {
                            code,
                            text: code.to_string(),
                            topic: Some(topic.clone()),
                            partition: None,
                            fatal: false,
                        };
                        condition.failed(&failure, None, &self.settings.group);
                        let why = condition.words().unwrap_or_else(|| format!("topic {topic}: {code}"));
                        found.push((false, why));
                    }
                },
            }
        }
        if partitions.count() > 0 {
            let group = &self.settings.group;
            // What it gives is dropped here, before the consumer: librdkafka waits for it at its end.
            let asked = self.until(|c| c.committed_offsets(partitions.clone(), CALL).map(|list| committed(&list)));
            found.push(match asked {
                Ok(0) => (true, format!("group {group} may be used; it has committed nothing yet")),
                Ok(n) => (true, format!("group {group} may be used; it has committed offsets of {n} partitions")),
                Err(why) => (false, why),
            });
        }
        found
    }

    /// Repeats a call until it gives something, or there is no more time: why.
    fn until<T>(&mut self, call: impl Fn(&BaseConsumer<Quiet>) -> Result<T, KafkaError>) -> Result<T, String> {
        loop {
            self.listen();
            let error = match call(self.consumer) {
                Ok(found) => return Ok(found),
                Err(e) => e,
            };
            self.listen();
            if let Some(code) = error.rdkafka_error_code() {
                let failure = Failure { code, text: code.to_string(), topic: None, partition: None, fatal: false };
                if code == RDKafkaErrorCode::GroupAuthorizationFailed {
                    self.condition.failed(&failure, None, &self.settings.group);
                }
            }
            // A refused sign-in is not refused less the next time.
            let refused = self.condition.is_refused();
            if refused || Instant::now() >= self.by {
                return Err(self.condition.words().unwrap_or_else(|| {
                    format!("no answer from the brokers; look at source.brokers and \"security.protocol\": {error}")
                }));
            }
        }
    }

    /// Takes what librdkafka has to tell, and gives it a token if it wants one.
    fn listen(&mut self) {
        while let Some(event) = self.events.next(Duration::from_millis(10)) {
            match event.told() {
                Told::Failed(failure) => {
                    self.condition.failed(&failure, None, &self.settings.group);
                }
                Told::Line(level, facility, line) => thread::log_line(level.max(7), &facility, &line),
                Told::TokenWanted => self.wants_token = true,
                _ => {}
            }
        }
        if let (true, Some(tokens)) = (self.wants_token, self.tokens) {
            let given = tokens.latest().and_then(|t| self.events.set_token(&t.text, "owlpost", t.expires_ms));
            self.wants_token = given.is_err();
            self.condition.signed_in(given.err());
        }
    }
}

/// A topic to ask for: some cluster lets nobody see all of them.
fn any(settings: &Settings) -> String {
    let named = settings.topics.iter().find(|topic| !topic.starts_with('^'));
    named.cloned().unwrap_or_else(|| "owlpost".to_owned())
}

fn committed(list: &TopicPartitionList) -> usize {
    list.elements().iter().filter(|e| matches!(e.offset(), rdkafka::Offset::Offset(_))).count()
}
