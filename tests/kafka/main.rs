//! The Kafka source on a real broker (Apache Kafka, KRaft).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::aws::Identity;
use owlpost::kafka::Cluster;
use owlpost::model::Receipt;
use owlpost::source::kafka::{KafkaSource, Protocol, Settings};
use owlpost::source::{Batch, Health, Room, Source, SourceError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

#[path = "../support/kafka.rs"]
mod broker;
#[path = "../support/process.rs"]
mod process;

mod faults;
mod groups;
mod iam;
mod messages;
mod outlet;
mod promises;
mod run;

use broker::{Broker, Record, unique};
use process::PATIENCE;

const ROOMY: Room = Room { messages: 10_000, bytes: 8 * 1024 * 1024 };
/// Of members that are killed or lost: quick to be noticed.
const QUICK: [(&str, &str); 2] = [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "300")];

fn settings(broker: &str, topics: &[&str], group: &str) -> Settings {
    // What is counted before there is a recorder is lost.
    owlpost::metrics::install();
    Settings {
        name: unique("source"),
        cluster: Cluster { brokers: vec![broker.to_owned()], properties: properties(&QUICK), iam: false },
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        group: group.to_owned(),
        instance_id: None,
        protocol: Protocol::Classic,
        event_bytes: 1_048_576,
        identity: Identity::default(),
        until_idle: false,
    }
}

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn open(topics: &[&str], group: &str) -> KafkaSource {
    KafkaSource::open(settings(&Broker::shared().plaintext(), topics, group)).unwrap()
}

fn receipts(batch: &Batch) -> Vec<Vec<Receipt>> {
    batch.messages.iter().map(|_| vec![Receipt::Accepted]).collect()
}

fn bodies(batch: &Batch) -> Vec<String> {
    batch.messages.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect()
}

async fn next(source: &mut KafkaSource, room: Room) -> Batch {
    timeout(PATIENCE, source.next(room)).await.expect("a batch comes").unwrap().expect("no end")
}

/// Takes and acknowledges until `count` messages have come.
async fn take(source: &mut KafkaSource, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = next(source, ROOMY).await;
        all.extend(bodies(&batch));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    all
}

async fn stop(mut source: KafkaSource) {
    source.stop(Instant::now() + PATIENCE).await;
}

async fn until_health(source: &KafkaSource, what: &str, is: impl Fn(&Health) -> bool) -> Health {
    let by = Instant::now() + PATIENCE;
    loop {
        let health = source.health();
        if is(&health) {
            return health;
        }
        assert!(Instant::now() < by, "waited for {what}, it is {health:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls something of the broker, off the runtime.
async fn until_no_lag(group: &str, topic: &str) {
    let (group, topic) = (group.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || Broker::shared().until_no_lag(&group, &topic)).await.unwrap();
}

fn counter(name: &str, source: &str) -> u64 {
    let text = owlpost::metrics::install().render();
    let line = format!("{name}{{source=\"{source}\"}} ");
    let found = text.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or_else(|| panic!("{line} in\n{text}"));
    found.parse::<f64>().unwrap() as u64
}

/// A member of a group that takes whatever comes, on a task of its own.
struct Member {
    taken: Arc<Mutex<Vec<String>>>,
    leave: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    fn join(settings: Settings) -> Member {
        let (taken, leave) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (mine, left) = (Arc::clone(&taken), Arc::clone(&leave));
        let mut source = KafkaSource::open(settings).unwrap();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = left.notified() => break,
                    batch = source.next(Room { messages: 100, bytes: 1_000_000 }) => {
                        let batch = batch.unwrap().unwrap();
                        mine.lock().unwrap().extend(bodies(&batch));
                        source.ack(batch.ack, &receipts(&batch)).await;
                    }
                }
            }
            stop(source).await;
        });
        Member { taken, leave, task }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    async fn leave(self) {
        self.leave.notify_one();
        self.task.await.unwrap();
    }
}
