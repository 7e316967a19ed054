//! A topic of Apache Kafka as an outlet.
//!
//! The producer is idempotent: within one session a message that librdkafka sends again arrives once, and in its order.
//! Each message is answered for itself, after the broker has it on all replicas in sync, or after [`DELIVERY`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::producer::{Producer as _, PurgeConfig};
use tokio::time::Instant;

use crate::aws::Identity;
use crate::kafka::Cluster;
use crate::kafka::iam::Tokens;
pub use crate::kafka::{address, flaws_of_outlet as flaws};
use crate::outlet::{Outgoing, Outlet, OutletError};

mod alone;
mod answer;
mod trouble;

use alone::Alone;
use answer::Place;
use trouble::{Trouble, Watch};

/// A message that no broker has confirmed by then is given up. Longer than an election of a partition's leader takes
/// (seconds), and short enough that whoever waits for the answer learns of it.
const DELIVERY: Duration = Duration::from_secs(30);
/// One request: two of them fit into [`DELIVERY`], so that a hanging broker is asked again.
const REQUEST: Duration = Duration::from_secs(12);
/// As long a call goes on to hand messages to librdkafka while its queue is full: with [`DELIVERY`], and as long again
/// for those that are asked for one by one ([`alone`]), the most that [`Outlet::send`] takes.
const ENQUEUE: Duration = Duration::from_secs(60);
/// How long a full queue is left alone when none of its messages is ours.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// How long a topic that the brokers do not know is asked for: made a moment ago, it is not known everywhere yet.
const TOPIC_KNOWN: Duration = Duration::from_secs(5);
/// Of messages that wait in librdkafka, whichever is reached first: a few round trips' worth, and a bound on memory.
const QUEUE_MESSAGES: usize = 10_000;
const QUEUE_KIB: usize = 32 * 1024;
/// Not a limit of ours: what a broker's topic takes is for the broker to say. librdkafka wants one all the same.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Of the properties of a source, those that are an outlet's too: how to reach the brokers and to sign in.
pub fn of_source(cluster: &Cluster) -> Cluster {
    let wrong: Vec<String> = flaws(cluster).into_iter().filter(|f| !f.is_warning).map(|f| f.property).collect();
    let mut kept = cluster.clone();
    kept.properties.retain(|name, _| !wrong.contains(name));
    kept
}

/// librdkafka's producer. The last drop waits for its threads, which no thread of the runtime may do.
struct Producer(Option<FutureProducer<Watch>>);

impl Drop for Producer {
    fn drop(&mut self) {
        let last = self.0.take();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // Without a thread it is dropped here: later than wished, and right.
        let _ = std::thread::Builder::new().name("kafka outlet".to_owned()).spawn(move || drop(last));
    }
}

/// Confirms what all replicas in sync have.
pub struct KafkaOutlet {
    place: Place,
    client: ClientConfig,
    trouble: Arc<Trouble>,
    tokens: Option<Arc<Tokens>>,
    /// Replaced when librdkafka gives it up.
    producer: Mutex<Arc<Producer>>,
}

impl KafkaOutlet {
    /// Reaches nobody yet. Inside of a runtime. `identity`: who signs in to a cluster with `iam`.
    ///
    /// # Errors
    /// [`OutletError::Fatal`]: librdkafka does not take the properties, or can't read a file that they name.
    pub fn new(cluster: &Cluster, identity: &Identity, topic: &str) -> Result<KafkaOutlet, OutletError> {
        let place = Place { brokers: cluster.brokers.join(","), topic: topic.to_owned() };
        let client = settings(cluster);
        let trouble = Arc::new(Trouble::default());
        let tokens = cluster.iam.then(|| Arc::new(Tokens::keep(identity.clone())));
        let producer = make(&client, &trouble, &tokens, &place)?;
        Ok(KafkaOutlet { place, client, trouble, tokens, producer: Mutex::new(producer) })
    }

    fn producer(&self) -> Arc<Producer> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A producer in which librdkafka has found that it can't keep its promise (a broker lost what it had confirmed)
    /// takes nothing any more.
    fn replace_broken(&self) {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if producer.0.as_ref().is_none_or(|p| p.client().fatal_error().is_none()) {
            return;
        }
        match make(&self.client, &self.trouble, &self.tokens, &self.place) {
            Ok(new) => *producer = new,
            Err(e) => tracing::warn!(place = %self.place, error = %e, "no new producer in the place of a broken one"),
        }
    }

    /// Its answer, or `None` while the queue is full.
    fn enqueue(
        &self,
        producer: &FutureProducer<Watch>,
        message: &Outgoing,
    ) -> Option<Result<DeliveryFuture, OutletError>> {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.place.topic).payload(&message.body);
        record.key = message.key.as_deref();
        // librdkafka's names end at the first one.
        if message.headers.iter().any(|(name, _)| name.contains('\0')) {
            return Some(Err(OutletError::Refused("the name of a header holds a NUL character".to_owned())));
        }
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(message.headers.iter().fold(headers, |all, (name, value)| {
                all.insert(Header { key: name.as_str(), value: Some(value.as_str()) })
            }));
        }
        match producer.send_result(record) {
            Ok(delivery) => Some(Ok(delivery)),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => None,
            Err((error, _)) => Some(Err(self.answer(&error, message))),
        }
    }

    fn answer(&self, error: &KafkaError, message: &Outgoing) -> OutletError {
        answer::of(error, &self.place, size(message), self.trouble.told())
    }

    /// Waits for a broker's word on a message.
    async fn settle(&self, delivery: DeliveryFuture, message: &Outgoing) -> Settled {
        match delivery.await {
            Ok(Ok(_)) => {
                self.trouble.is_over();
                Settled::Answered(Ok(()))
            }
            Ok(Err((error @ KafkaError::MessageProduction(code), _))) if is_of_all(code) => Settled::Together(error),
            Ok(Err((error, _))) => Settled::Answered(Err(self.answer(&error, message))),
            Err(_) => Settled::Answered(Err(OutletError::Unavailable(format!("{}: broken off", self.place)))),
        }
    }

    /// A request with several messages was refused for one of them: each for itself.
    async fn alone(&self, producer: &FutureProducer<Watch>, message: &Outgoing) -> Result<(), OutletError> {
        let delivery = match self.enqueue(producer, message) {
            Some(enqueued) => enqueued?,
            None => return Err(self.full()),
        };
        match self.settle(delivery, message).await {
            Settled::Answered(answer) => answer,
            Settled::Together(error) => Err(self.answer(&error, message)),
        }
    }

    fn full(&self) -> OutletError {
        let error = KafkaError::MessageProduction(Code::QueueFull);
        answer::of(&error, &self.place, 0, self.trouble.told())
    }

    /// Waits for all that is under way, but not for a broker that will never let us in.
    async fn drive(&self, producer: &FutureProducer<Watch>, messages: &[Outgoing], answers: &mut [Option<Settled>]) {
        let by = Instant::now() + ENQUEUE;
        let mut waiting: VecDeque<(usize, DeliveryFuture)> = VecDeque::new();
        for (n, message) in messages.iter().enumerate() {
            let enqueued = loop {
                if let Some(enqueued) = self.enqueue(producer, message) {
                    break enqueued;
                }
                if Instant::now() >= by {
                    break Err(self.full());
                }
                match waiting.pop_front() {
                    Some((first, delivery)) => answers[first] = Some(self.settle(delivery, &messages[first]).await),
                    None => tokio::time::sleep(QUEUE_PAUSE).await,
                }
            };
            match enqueued {
                Ok(delivery) => waiting.push_back((n, delivery)),
                Err(error) => answers[n] = Some(Settled::Answered(Err(error))),
            }
        }
        for (n, delivery) in waiting {
            answers[n] = Some(self.settle(delivery, &messages[n]).await);
        }
    }
}

/// What is known of a message.
enum Settled {
    Answered(Result<(), OutletError>),
    /// Refused, it or those it went with.
    Together(KafkaError),
}

/// What a broker counts, about.
fn size(message: &Outgoing) -> usize {
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len());
    message.body.len() + message.key.as_ref().map_or(0, String::len) + headers.sum::<usize>()
}

/// Whether a broker refuses all messages of a request with this, where one of them is wrong: for their size it names none,
/// and for another one's record it tells the others so.
fn is_of_all(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidDifferentRecord)
}

#[async_trait]
impl Outlet for KafkaOutlet {
    fn place(&self) -> String {
        self.place.to_string()
    }

    async fn send(&self, messages: &[Outgoing]) -> Vec<Result<(), OutletError>> {
        let held = self.producer();
        let Some(producer) = &held.0 else { return messages.iter().map(|_| Err(self.full())).collect() };
        let began = Instant::now();
        let mut answers: Vec<Option<Settled>> = std::iter::repeat_with(|| None).take(messages.len()).collect();
        {
            let driven = self.drive(producer, messages, &mut answers);
            tokio::pin!(driven);
            loop {
                tokio::select! {
                    () = &mut driven => break,
                    () = self.trouble.locked_out(began) => {
                        // Waiting for the time each message has would change nothing. What is handed over after it goes
                        // the same way.
                        producer.purge(PurgeConfig::default().queue().inflight());
                        if tokio::time::timeout(QUEUE_PAUSE, &mut driven).await.is_ok() {
                            break;
                        }
                    }
                }
            }
        }
        let mut told = Vec::with_capacity(messages.len());
        let mut alone = Alone::new();
        for (message, answer) in messages.iter().zip(answers) {
            told.push(match answer {
                Some(Settled::Answered(answer)) => answer,
                Some(Settled::Together(_)) => alone.ask(self.alone(producer, message)).await,
                None => Err(self.full()),
            });
        }
        self.trouble.call_is_over();
        self.replace_broken();
        told
    }
}

fn make(
    client: &ClientConfig,
    trouble: &Arc<Trouble>,
    tokens: &Option<Arc<Tokens>>,
    place: &Place,
) -> Result<Arc<Producer>, OutletError> {
    let made = client.create_with_context(Watch { trouble: Arc::clone(trouble), tokens: tokens.clone() });
    Ok(Arc::new(Producer(Some(made.map_err(|e| answer::of(&e, place, 0, None))?))))
}

fn settings(cluster: &Cluster) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // Events are JSON, whose names are the same in each; brokers know it since 2.1.
        .set("compression.type", "zstd")
        // A request for those that come within some milliseconds, instead of one each.
        .set("linger.ms", "5")
        .set("message.max.bytes", MESSAGE_BYTES.to_string())
        .set("topic.metadata.propagation.max.ms", TOPIC_KNOWN.as_millis().to_string())
        .set("socket.keepalive.enable", "true");
    if let Some(family) = cluster.address_family() {
        client.set("broker.address.family", family);
    }
    cluster.apply(&mut client);
    client
        .set("enable.idempotence", "true")
        // A misspelt name is a mistake to tell, not a topic to make; librdkafka's producers ask brokers to make it.
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", DELIVERY.as_millis().to_string())
        .set("request.timeout.ms", REQUEST.as_millis().to_string())
        .set("queue.buffering.max.messages", QUEUE_MESSAGES.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB.to_string());
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(properties: &[(&str, &str)]) -> Cluster {
        Cluster {
            brokers: vec!["kafka.example.com:9093".to_owned()],
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            iam: false,
        }
    }

    #[test]
    fn properties_come_over_defaults_and_under_what_is_promised() {
        let client = settings(&cluster(&[("compression.type", "lz4"), ("message.timeout.ms", "1")]));
        assert_eq!(client.get("compression.type"), Some("lz4"));
        assert_eq!(client.get("message.timeout.ms"), Some("30000"));
        assert_eq!(client.get("security.protocol"), Some("ssl"));
        assert_eq!(client.get("allow.auto.create.topics"), Some("false"), "a misspelt topic is not made");
    }

    #[test]
    fn an_address_names_brokers_and_a_topic() {
        let (brokers, topic) = address("kafka://a.example.com:9093,[::1]:9092/athenz.events_1").unwrap();
        assert_eq!((brokers.len(), topic.as_str()), (2, "athenz.events_1"));
        for bad in
            ["kafka://a:1", "kafka://a:1/", "kafka://a/t", "kafka://me:pw@a:1/t", "kafka://a:1/t/u", "kafka://a:1/t?x"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_outlet_decides_itself_is_refused_with_what_to_do() {
        let told = flaws(&cluster(&[("acks", "1"), ("linger.ms", "50"), ("group.id", "g"), ("lingr.ms", "1")]));
        let names: Vec<&str> = told.iter().map(|f| f.property.as_str()).collect();
        assert_eq!(names, ["acks", "group.id", "lingr.ms"]);
        assert!(told[0].what.contains("all replicas"));
    }

    #[test]
    fn of_a_source_the_way_to_the_brokers_is_taken() {
        let kept = of_source(&cluster(&[("sasl.username", "joe"), ("fetch.min.bytes", "1"), ("acks", "1")]));
        assert_eq!(kept.properties.keys().collect::<Vec<_>>(), ["sasl.username"]);
    }
}
