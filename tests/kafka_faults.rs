//! Bad input and broken servers: the real binary on a real broker. After each fault what was accepted equals what was
//! produced, the ledger balances, and the group's lag is 0.

#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka::{Broker, Record, unique};
use owlpost::app::{self, Parts};
use owlpost::clock::SystemClock;
use owlpost::config;
use owlpost::ingest::{self, Bounds};
use owlpost::source::kafka::KafkaSource;
use owlpost::store::Intake;
use owlpost::store::sqlite::{Opening, Sqlite};
use owlpost::vitals::Vitals;
use process::{Worker, get, owlpost, until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rusqlite::Connection;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";

/// A worker's folder, and the topic that it reads.
struct World<'b> {
    broker: &'b Broker,
    topic: String,
    group: String,
    folder: tempfile::TempDir,
}

impl<'b> World<'b> {
    fn new(broker: &'b Broker, partitions: i32, settings: &[(&str, &str)]) -> World<'b> {
        World::with(broker, partitions, settings, "")
    }

    /// `properties`: of its source, beside those that make a group quick.
    fn with(broker: &'b Broker, partitions: i32, settings: &[(&str, &str)], properties: &str) -> World<'b> {
        let (topic, group) = (unique("faults"), unique("group"));
        broker.create_topic(&topic, partitions, settings);
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"
[[source]]
name = "events"
kind = "kafka"
brokers = [{:?}]
topics = [{topic:?}]
group = {group:?}
properties = {{ "session.timeout.ms" = 3000, "heartbeat.interval.ms" = 300{properties} }}
[store]
url = "sqlite:owlpost.db"
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "outbox"
dir = "outbox"
[limits]
event_bytes = 1048576
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "all"
types = ["test.*"]
template = "digest"
[log]
format = "json"
"#,
            broker.plaintext()
        );
        fs::write(folder.path().join("owlpost.toml"), text).unwrap();
        World { broker, topic, group, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self) -> Worker {
        Worker::start(self.path(), &["-c", "owlpost.toml"])
    }

    /// Takes what is there, sends it, and judges.
    fn settles(&self, events: u64, dead_letters: u64) {
        Worker::start(self.path(), &["--until-idle", "-c", "owlpost.toml"]).ends_with(0);
        self.judge(events, dead_letters);
    }

    /// So many events were taken, each of which asks one person; so many messages were refused; nothing is left.
    fn judge(&self, events: u64, dead_letters: u64) {
        assert_eq!(self.broker.lag(&self.group, &self.topic), 0);
        let told = owlpost(self.path()).args(["status", "--json", "--verify", "-c", "owlpost.toml"]).output().unwrap();
        let status: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert!(told.status.success(), "the ledger balances: {status}");
        let ledger = &status["ledger"];
        assert_eq!((&ledger["items"], &ledger["delivered"]), (&events.into(), &events.into()), "{status}");
        assert_eq!(status["dead_letters"], dead_letters, "{status}");
        assert_eq!(self.stored(), events);
    }

    fn stored(&self) -> u64 {
        let conn = Connection::open(self.path().join("owlpost.db")).unwrap();
        conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    }
}

fn event(id: impl std::fmt::Display) -> Record {
    Record::of(text(id, "")).header("content-type", STRUCTURED)
}

/// To one of a hundred people: nobody may have more than 10,000 open items.
fn text(id: impl std::fmt::Display, rest: &str) -> String {
    let id = id.to_string();
    let person = id.bytes().fold(0u32, |sum, byte| (sum * 31 + u32::from(byte)) % 100);
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"test.happened","data":{{"recipients":["user.p{person}"]}}{rest}}}"#
    )
}

fn poison(n: usize) -> Record {
    Record::of(format!("{{\"poison\": {n}")).header("content-type", STRUCTURED)
}

#[test]
fn a_poison_message_holds_up_nobody() {
    let world = World::new(Broker::shared(), 3, &[]);
    // The first of each partition, one between others, and one at the end.
    let mut records: Vec<Record> = (0..3).map(|p| poison(p as usize).to(p)).collect();
    records.extend((0..9).map(|n| event(n).to(n % 3)));
    records.extend([poison(10).to(0), event(9).to(0), poison(11).to(1)]);
    world.broker.produce(&world.topic, &records);
    world.settles(10, 5);
}

#[test]
fn a_run_of_ten_thousand_poison_messages_holds_up_nobody() {
    let world = World::new(Broker::shared(), 1, &[]);
    let mut records = vec![event("before")];
    records.extend((0..10_000).map(poison));
    records.push(event("behind"));
    world.broker.produce(&world.topic, &records);
    world.settles(2, 10_000);
}

#[test]
fn an_event_of_the_largest_size_is_taken_and_a_larger_one_refused() {
    const LIMIT: usize = 1_048_576;
    let world = World::new(Broker::shared(), 1, &[("max.message.bytes", "16000000")]);
    let sized = |id: &str, bytes: usize| {
        let pad = |n: usize| format!(r#","pad":"{}""#, "x".repeat(n));
        Record::of(text(id, &pad(bytes - text(id, &pad(0)).len()))).header("content-type", STRUCTURED)
    };
    let records = [sized("largest", LIMIT), sized("over", LIMIT + 1), sized("far over", 8_000_000), event("behind")];
    assert_eq!(records[0].value.as_ref().unwrap().len(), LIMIT);
    world.broker.produce(&world.topic, &records);
    world.settles(2, 2);
    let told = owlpost(world.path()).args(["dead-letters", "list", "--json", "-c", "owlpost.toml"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("too_large") && told.contains("1048577") && told.contains("8000000"), "{told}");
}

#[test]
fn every_compression_is_read() {
    let world = World::new(Broker::shared(), 1, &[]);
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = world.broker.producer(&[("compression.type", compression)]);
        for n in 0..200 {
            producer.send(&world.topic, &event(format!("{compression}-{n}")));
        }
        producer.flush();
    }
    assert_eq!(world.broker.codecs(&world.topic), (0..=4).collect(), "each is stored as it was sent");
    world.settles(1_000, 0);
}

#[test]
fn headers_that_are_missing_doubled_or_not_utf8_cost_their_own_message_at_most() {
    let world = World::new(Broker::shared(), 1, &[]);
    let binary = |id: &str| {
        let record = Record::of(r#"{"recipients":["user.joe"]}"#).header("ce_specversion", "1.0").header("ce_id", id);
        record.header("ce_source", "test").header("ce_type", "test.happened")
    };
    let taken = [
        binary("plain").header("content-type", "application/json"),
        binary("without content-type"),
        binary("said twice").header("ce_id", "said twice"),
        binary("somebody else's").header("trace", b"\xff\xfe"),
        Record { headers: vec![], ..event("structured, without headers") },
        event("structured, with a stranger").header("stranger", b"\xff"),
    ];
    let refused = [
        binary("two").header("ce_id", "ids"),
        binary("no text").header("ce_subject", b"\xff\xfe"),
        Record::of("{}").header("ce_specversion", "1.0").header("ce_type", "test.happened"),
        event("two types").header("content-type", "application/json"),
    ];
    world.broker.produce(&world.topic, &[&taken[..], &refused[..]].concat());
    world.settles(taken.len() as u64, refused.len() as u64);
}

#[test]
fn keys_and_values_that_are_null_are_no_fault() {
    let world = World::new(Broker::shared(), 1, &[("cleanup.policy", "compact,delete")]);
    let keyed = |record: Record, n: usize| record.key(format!("key {n}"));
    let tombstone = |record: Record| Record { value: None, ..record };
    let records = [
        keyed(event(1), 1),
        keyed(tombstone(event(2)), 1),
        keyed(tombstone(Record::default()), 2),
        keyed(event(3), 3),
        keyed(Record::of(""), 4),
    ];
    world.broker.produce(&world.topic, &records);
    world.settles(2, 0);
    let plain = World::new(world.broker, 1, &[]);
    plain.broker.produce(&plain.topic, &[event("null key"), tombstone(Record::default())]);
    plain.settles(1, 0);
}

#[test]
fn an_id_that_two_producers_use_in_different_partitions_counts_once() {
    let world = World::new(Broker::shared(), 4, &[]);
    let producers = [world.broker.producer(&[]), world.broker.producer(&[])];
    for n in 0..500 {
        for (producer, partition) in producers.iter().zip([n % 4, (n + 1) % 4]) {
            producer.send(&world.topic, &event(n).to(partition));
        }
    }
    producers.iter().for_each(kafka::Producer::flush);
    world.settles(500, 0);
}

/// Events `0..count`, one after the other, until it says stop.
fn keep_producing(broker: &Broker, topic: &str, stop: &AtomicBool) -> u64 {
    let producer = broker.producer(&[]);
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..20 {
            producer.send(topic, &event(count));
            count += 1;
        }
        // What a broker has confirmed bounds how far this runs ahead.
        producer.flush();
    }
    count
}

#[test]
fn a_broker_that_is_killed_under_load_and_comes_back_loses_nothing() {
    let broker = Broker::start();
    let world = World::new(&broker, 3, &[]);
    let mut worker = world.start();
    worker.address();
    let stop = AtomicBool::new(false);
    let produced = std::thread::scope(|scope| {
        let producing = scope.spawn(|| keep_producing(&broker, &world.topic, &stop));
        let mut seen = 0;
        for _ in 0..2 {
            seen = until("events taken", || Some(world.stored()).filter(|n| *n > seen + 200));
            broker.kill();
            broker.restart();
        }
        until("events taken again", || Some(world.stored()).filter(|n| *n > seen + 200));
        broker.signal("STOP");
        // Longer than the session of its consumers.
        let client: BaseConsumer = broker.client().create().unwrap();
        client.fetch_metadata(None, Duration::from_secs(4)).map(|_| "it answers").unwrap_err();
        broker.signal("CONT");
        stop.store(true, Ordering::SeqCst);
        producing.join().unwrap()
    });
    broker.until_no_lag(&world.group, &world.topic);
    assert!(worker.is_running(), "{}", worker.log());
    worker.signal("TERM");
    worker.ends_with(0);
    world.settles(produced, 0);
}

/// Its leaders' epochs are lower than those of the old one: librdkafka takes what is told of it for old news, and tells nobody.
#[test]
fn a_topic_that_is_made_again_after_its_leaders_changed_is_read() {
    let broker = Broker::start();
    let world = World::new(&broker, 2, &[]);
    let mut worker = world.start();
    worker.address();
    broker.produce(&world.topic, &(0..100).map(|n| event(n).to(n % 2)).collect::<Vec<_>>());
    broker.until_no_lag(&world.group, &world.topic);
    broker.kill();
    broker.restart();
    broker.produce(&world.topic, &(100..120).map(|n| event(n).to(n % 2)).collect::<Vec<_>>());
    broker.until_no_lag(&world.group, &world.topic);
    assert!(broker.leader_epoch(&world.topic) > 0, "as after any election");
    broker.delete_topic(&world.topic);
    broker.create_topic(&world.topic, 2, &[]);
    broker.produce(&world.topic, &(120..160).map(|n| event(n).to(n % 2)).collect::<Vec<_>>());
    until("what is new", || Some(world.stored()).filter(|n| *n == 160));
    broker.until_no_lag(&world.group, &world.topic);
    worker.signal("TERM");
    worker.ends_with(0);
    world.settles(160, 0);
}

#[test]
fn a_store_that_is_away_under_load_costs_no_message_and_no_rebalance() {
    // A consumer that is not polled for so long is put out of its group.
    let world = World::with(Broker::shared(), 3, &[], ", \"max.poll.interval.ms\" = 5000");
    let mut worker = world.start();
    let address = worker.address();
    let ready = |wanted: u16| {
        until("readiness", || {
            get(&address, "/readyz").ok().filter(|(status, _)| *status == wanted).map(|(_, body)| body)
        })
    };
    world.broker.produce(&world.topic, &(0..100).map(event).collect::<Vec<_>>());
    world.broker.until_no_lag(&world.group, &world.topic);
    ready(200);
    let rebalances = rebalances(&address);

    // Another process writes and does not end: nothing can be committed.
    let conn = Connection::open(world.path().join("owlpost.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.broker.produce(&world.topic, &(100..20_000).map(event).collect::<Vec<_>>());
    let why = ready(503);
    assert!(why.contains("store"), "{why}");
    // Twice as long as the group waits, and its member is there all the time.
    let began = Instant::now();
    until("the outage to be long enough", || (began.elapsed() > Duration::from_secs(10)).then_some(()));
    assert_eq!(self::rebalances(&address), rebalances);
    assert_eq!(world.broker.members(&world.group), Some(1));
    conn.execute_batch("ROLLBACK").unwrap();

    world.broker.until_no_lag(&world.group, &world.topic);
    ready(200);
    assert_eq!(self::rebalances(&address), rebalances);
    worker.signal("TERM");
    worker.ends_with(0);
    world.settles(20_000, 0);
}

fn rebalances(address: &str) -> String {
    let (_, text) = get(address, "/metrics").unwrap();
    text.lines().find(|line| line.starts_with("owlpost_source_rebalances_total")).unwrap().to_owned()
}

/// Consumers that share one store, as replicas will: each with its own source and intake loop.
struct Members<'w> {
    world: &'w World<'w>,
    config: config::Config,
    parts: Parts,
    store: Arc<Sqlite>,
    running: Vec<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl<'w> Members<'w> {
    fn of(world: &'w World<'w>) -> Members<'w> {
        let path = world.path().join("owlpost.db");
        let store = [("OWLPOST__STORE__URL".to_owned(), format!("sqlite:{}", path.display()))];
        let config = config::load(&[world.path().join("owlpost.toml")], store.into_iter()).unwrap();
        let parts = Parts::new(&config, Arc::new(SystemClock::new()), false).unwrap();
        let store = Arc::new(parts.open_sqlite(&config, Opening::Worker).unwrap());
        Members { world, config, parts, store, running: vec![] }
    }

    fn join(&mut self) {
        let section = &self.config.sources[0];
        let source = KafkaSource::open(app::kafka_settings(&self.config, section, false)).unwrap();
        let pipeline = self.parts.pipeline(&self.config, &section.name, section.origin());
        let stop = CancellationToken::new();
        let intake = ingest::run(
            Box::new(source),
            Arc::new(pipeline),
            Arc::clone(&self.store) as Arc<dyn Intake>,
            Bounds { messages: 50, ..Bounds::default() },
            Vitals::new(),
            Arc::new(Notify::new()),
            stop.clone(),
        );
        let task = tokio::spawn(async move { intake.await.unwrap() });
        self.running.push((stop, task));
    }

    /// The one that is there longest: it finishes its batch and leaves, or is cut off.
    async fn leave(&mut self, politely: bool) {
        let (stop, task) = self.running.remove(0);
        if politely {
            stop.cancel();
            task.await.unwrap();
        } else {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }

    /// Until all members are in the group and so many more events are taken.
    async fn take(&self, more: u64) {
        let (group, members) = (self.world.group.clone(), self.running.len());
        let (path, before) = (self.world.path().to_owned(), self.world.stored());
        let broker = Broker::shared();
        let waits = tokio::task::spawn_blocking(move || {
            until("the members in their group", || broker.members(&group).filter(|n| *n == members));
            let stored = || {
                let conn = Connection::open(path.join("owlpost.db")).ok()?;
                conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)).ok()
            };
            until("more events", || stored().filter(|n| u64::try_from(*n).unwrap() >= before + more));
        });
        waits.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_join_and_leave_under_load_take_everything_once() {
    for consumers in [2, 5] {
        let broker = Broker::shared();
        let world = World::new(broker, 6, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let producing = {
            let (topic, stop) = (world.topic.clone(), stop.clone());
            std::thread::spawn(move || keep_producing(broker, &topic, &stop))
        };
        let mut members = Members::of(&world);
        for _ in 0..consumers {
            members.join();
            members.take(20).await;
        }
        for round in 0..consumers {
            members.leave(round % 2 == 0).await;
            members.join();
            members.take(20).await;
        }
        for _ in 1..consumers {
            members.leave(true).await;
            members.take(20).await;
        }
        stop.store(true, Ordering::SeqCst);
        let produced = producing.join().unwrap();
        let (group, topic) = (world.group.clone(), world.topic.clone());
        tokio::task::spawn_blocking(move || broker.until_no_lag(&group, &topic)).await.unwrap();
        members.leave(true).await;
        drop(members);
        tokio::task::block_in_place(|| world.settles(produced, 0));
    }
}
