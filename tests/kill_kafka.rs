//! The real binary, killed with SIGKILL in the middle of its batches while a topic fills, started again, and compared with
//! what was produced: every event accepted once, everybody told once or honestly in doubt, nothing left in the topic.
//!
//! `OWLPOST_ROUNDS` (default 5) kills; `OWLPOST_SEED` replays the traffic and the draws, though not the machine's timing.

#![allow(clippy::duplicate_mod, reason = "both servers are given free ports")]

#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka::{Broker, Producer, Record, unique};
use postgres::{PASSWORD, Server, Value};
use process::{Random, Worker, get, until};
use rusqlite::{Connection, OpenFlags};
use traffic::{Plan, compare, compare_rows, config, config_on, mails, number, plan, random_moment};

const REQUESTS_A_ROUND: u64 = 120;
const PARTITIONS: i32 = 4;
/// Nothing moves for so long: there is nothing left to be done. Longer than a group waits for a dead member.
const STILL: Duration = Duration::from_secs(8);

/// `instance`: the member's name, which lets a worker that is started again have its partitions back at once; without
/// one, the group first waits for the dead member's session to end.
fn source(topic: &str, group: &str, instance: Option<&str>) -> String {
    let broker = Broker::shared().plaintext();
    let instance = instance.map_or_else(String::new, |id| format!("instance_id = {id:?}\n"));
    format!(
        "[[source]]\nname = \"kill\"\nkind = \"kafka\"\nbrokers = [{broker:?}]\ntopics = [{topic:?}]\ngroup = {group:?}\n\
         {instance}properties = {{ \"session.timeout.ms\" = 2000, \"heartbeat.interval.ms\" = 300 }}"
    )
}

/// A decision has its request's key, so a partition has them in their order.
fn send(producer: &Producer, topic: &str, event: &str) {
    let id: serde_json::Value = serde_json::from_str(event).unwrap();
    let key = &id["id"].as_str().unwrap()[1..];
    let record = Record::of(event).key(key).header("content-type", "application/cloudevents+json; charset=UTF-8");
    producer.send(topic, &record);
}

/// Events that the store has, as another process sees it.
fn accepted(folder: &Path) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let count = |conn: Connection| conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0));
    let found = Connection::open_with_flags(folder.join("owlpost.db"), flags).and_then(count);
    // There is no store before the first start.
    found.map_or(0, |n| usize::try_from(n).unwrap())
}

/// Sends a round's share when its worker has been started: part of it is there at the start, the rest comes in while it
/// works.
fn produce(plan: &Plan, rounds: usize, topic: &str, begun: &AtomicUsize, random: &mut Random) {
    let producer = Broker::shared().producer(&[("partitioner", "murmur2_random")]);
    for (round, share) in plan.events.chunks(plan.events.len().div_ceil(rounds)).enumerate() {
        until("the round's worker", || (begun.load(Ordering::SeqCst) > round).then_some(()));
        let mut rest = share;
        while !rest.is_empty() {
            let several = if random.below(10) == 0 { 60 } else { 1 + random.below(4) as usize };
            let (batch, after) = rest.split_at(rest.len().min(several));
            for event in batch {
                send(&producer, topic, event);
            }
            // Each flush is a round trip: the batches that the worker reads stay small.
            producer.flush();
            rest = after;
        }
    }
}

#[test]
fn killed_in_the_middle_of_its_batches_every_produced_event_is_accepted_and_told_once() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed ^ 0xCAFCA);
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("kill", PARTITIONS), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, "named.toml", &source(&topic, &group, Some("worker-0")));
    config(folder, "unnamed.toml", &source(&topic, &group, None));
    let plan = Arc::new(plan(&mut random, rounds * REQUESTS_A_ROUND));

    let begun = Arc::new(AtomicUsize::new(0));
    let producer = {
        let (plan, topic, begun, mut random) = (plan.clone(), topic.clone(), begun.clone(), Random(seed ^ 0xF00D));
        std::thread::spawn(move || produce(&plan, rounds as usize, &topic, &begun, &mut random))
    };
    for round in 0..rounds {
        let name = if random.below(4) == 0 { "unnamed.toml" } else { "named.toml" };
        let worker = Worker::start(folder, &["-c", name]);
        begun.fetch_add(1, Ordering::SeqCst);
        let sends = random.below(2) == 0;
        random_moment(&mut random, STILL, || if sends { mails(folder) } else { accepted(folder) });
        worker.kill();
        let (events, mails) = (accepted(folder), mails(folder));
        println!("round {round}: killed at {events} events, {mails} mails; lag {}", broker.lag(&group, &topic));
    }
    producer.join().unwrap();
    Worker::start(folder, &["--until-idle", "-c", "named.toml"]).ends_with(0);
    assert_eq!(broker.lag(&group, &topic), 0);
    compare(folder, &plan);

    // A group that begins again takes nothing twice and mails nobody.
    let before = mails(folder);
    config(folder, "again.toml", &source(&topic, &unique("group"), None));
    let log = Worker::start(folder, &["--until-idle", "-c", "again.toml"]).ends_with(0);
    assert_eq!(mails(folder), before, "{log}");
    compare(folder, &plan);
}

/// Two workers of one group on one store: one is killed in the middle, and what it had goes on with the other.
#[test]
fn when_one_of_two_members_is_killed_the_other_takes_over_and_everybody_is_told_once() {
    let seed = number("OWLPOST_SEED", 1);
    let mut random = Random(seed ^ 0x2072);
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("two", PARTITIONS), unique("group"));
    let database = Server::shared().database(None);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let home = |name: &str| {
        let home = folder.join(name);
        fs::create_dir_all(&home).unwrap();
        // Leases are short, so that the mails of a dead worker go on soon.
        let times = "[delivery]\nlease = \"5s\"\nsend_within = \"1s\"\ncall_timeout = \"1s\"\nclock_error = \"1s\"\n";
        let store = format!("url = {:?}\npassword = {PASSWORD:?}\nconnections = 4", database.url());
        config_on(&home, "owlpost.toml", &format!("{times}{}", source(&topic, &group, None)), &store, "../outbox");
        home
    };
    let plan = plan(&mut random, 400);
    let look = database.admin();
    let count = |sql: &str| match look.rows(sql)[0][0] {
        Value::Int(n) => usize::try_from(n).unwrap(),
        ref other => panic!("{other:?}"),
    };
    let accepted = || count("SELECT count(*) FROM event");
    let events = plan.asked.len() + plan.asked.iter().filter(|asked| asked.decided).count();

    let start = |name: &str| {
        let mut worker = Worker::start(&home(name), &["-c", "owlpost.toml"]);
        let address = worker.address();
        (worker, address)
    };
    let (one, two) = (start("one"), start("two"));
    for (_, address) in [&one, &two] {
        until("partitions for each", || {
            let (_, text) = get(address, "/metrics").ok()?;
            text.contains("owlpost_source_partitions{source=\"kill\"} 2").then_some(())
        });
    }
    let producer = broker.producer(&[("partitioner", "murmur2_random")]);
    let (first, second) = plan.events.split_at(plan.events.len() / 2);
    first.iter().for_each(|event| send(&producer, &topic, event));
    producer.flush();
    random_moment(&mut random, STILL, accepted);
    one.0.kill();
    println!(
        "seed {seed}: killed at {} events, {} mails; lag {}",
        accepted(),
        mails(folder),
        broker.lag(&group, &topic)
    );
    second.iter().for_each(|event| send(&producer, &topic, event));
    producer.flush();

    let (mut worker, address) = two;
    until("all of them", || (accepted() == events).then_some(()));
    broker.until_no_lag(&group, &topic);
    let (_, metrics) = get(&address, "/metrics").unwrap();
    assert!(metrics.contains("owlpost_source_partitions{source=\"kill\"} 4"), "it has all of them");
    // After a start, whoever may have their answers comes first: most of a minute.
    until("the end of what a dead worker left", || {
        (count("SELECT count(*) FROM digest WHERE state IN (2, 3)") == 0).then_some(())
    });
    until("the end of all digests", || (count("SELECT count(*) FROM digest WHERE state <> 6") == 0).then_some(()));
    assert!(worker.is_running(), "{}", worker.log());
    worker.signal("TERM");
    worker.ends_with(0);
    let text = |value| match value {
        Value::Null => None,
        Value::Int(n) => Some(n.to_string()),
        Value::Text(text) => Some(text),
    };
    let rows = |sql: &str| look.rows(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect();
    compare_rows(&rows, folder, &plan);
}
