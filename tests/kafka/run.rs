//! The worker with a Kafka source.

use std::fs;
use std::path::Path;

use super::*;
use process::{Worker, get, owlpost, until};

fn config(folder: &Path, source: &str) {
    let text = format!(
        r#"
[http]
listen = "127.0.0.1:0"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "events"
kind = "kafka"
{source}
[mailer]
kind = "outbox"
dir = "outbox"
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
[log]
format = "json"
"#
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

fn keys(broker: &str, topics: &[&str], group: &str) -> String {
    format!(
        "brokers = [{broker:?}]\ntopics = {topics:?}\ngroup = {group:?}\nproperties = {{ \"session.timeout.ms\" = 6000 }}\n"
    )
}

fn event(n: usize) -> Record {
    Record::of(format!(
        r#"{{"specversion":"1.0","id":"{n}","source":"zms/test","type":"io.athenz.membership.requested.v1",
        "data":{{"domain":"sports","collection":{{"kind":"role","name":"writers-{n}"}},"member":"user.joe","change":"add",
        "requester":"user.joe","recipients":["user.alice"]}}}}"#
    ))
    .header("content-type", "application/cloudevents+json; charset=UTF-8")
}

fn outbox(folder: &Path) -> usize {
    fs::read_dir(folder.join("outbox")).map_or(0, |dir| {
        dir.filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "eml"))).count()
    })
}

#[test]
fn a_run_to_the_end_reads_to_the_end_offsets_sends_and_leaves_no_lag() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("idle", 3), unique("group"));
    let mut records: Vec<Record> = (0..20).map(event).collect();
    // A duplicate, a poison message, a tombstone.
    records.extend([event(3), Record::of("not json"), Record { value: None, ..Record::default() }]);
    broker.produce(&topic, &records);
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let run = || Worker::start(folder.path(), &["-c", "owlpost.toml", "--until-idle"]);
    let log = run().ends_with(0);
    assert!(log.contains("\"delivered\":20"), "{log}");
    assert!(outbox(folder.path()) > 0);
    assert_eq!(broker.lag(&group, &topic), 0);
    // Nothing new: it ends all the same.
    run().ends_with(0);
}

#[test]
fn a_run_to_the_end_of_a_topic_that_is_not_there_fails_and_names_it() {
    let broker = Broker::shared();
    let topic = unique("nowhere");
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &unique("group")));
    let log = Worker::start(folder.path(), &["-c", "owlpost.toml", "--until-idle"]).ends_with(1);
    assert!(log.contains(&topic) && log.contains("source.topics"), "{log}");
}

#[test]
fn a_run_to_the_end_that_the_brokers_do_not_let_in_fails_and_says_what_to_look_at() {
    let broker = Broker::shared();
    let topic = broker.topic("refused", 1);
    let keys = format!(
        "brokers = [{:?}]\ntopics = [{topic:?}]\ngroup = \"g\"\n[source.properties]\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.username\" = {:?}\n\"sasl.password\" = \"wrong\"\n\"ssl.ca.location\" = {:?}\n",
        broker.sasl_ssl(),
        broker::USER,
        broker.certificates().ca.display().to_string()
    );
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys);
    let log = Worker::start(folder.path(), &["-c", "owlpost.toml", "--until-idle"]).ends_with(1);
    assert!(log.contains("sasl.password"), "{log}");
}

#[test]
fn readyz_says_which_source_is_down_and_why_and_the_metrics_are_there() {
    let broker = Broker::shared();
    let (topic, group) = (unique("later"), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    let address = worker.address();
    until("not ready, with the reason", || {
        let (status, body) = get(&address, "/readyz").ok()?;
        (status == 503 && body.contains("source events") && body.contains(&topic)).then_some(())
    });
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &[event(1)]);
    broker.until_no_lag(&group, &topic);
    until("ready again", || (get(&address, "/readyz").ok()?.0 == 200).then_some(()));
    let (_, metrics) = get(&address, "/metrics").unwrap();
    for line in [
        "owlpost_source_lag_messages{source=\"events\"} ",
        "owlpost_source_partitions{source=\"events\"} 1",
        "owlpost_source_commit_failures_total{source=\"events\"} 0",
        "owlpost_events_total{source=\"events\",outcome=\"accepted\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_consumer_that_is_killed_in_the_middle_costs_nothing() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("kill", 3), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let mut produced = 0;
    for _ in 0..3 {
        let records: Vec<Record> = (produced..produced + 200).map(event).collect();
        produced += records.len();
        broker.produce(&topic, &records);
        let worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
        until("something is taken", || {
            let mut status = owlpost(folder.path());
            let out = status.args(["-c", "owlpost.toml", "ledger", "--json"]).output().ok()?;
            (out.stdout.iter().filter(|b| **b == b'\n').count() > produced - 200).then_some(())
        });
        worker.kill();
    }
    let log = Worker::start(folder.path(), &["-c", "owlpost.toml", "--until-idle"]).ends_with(0);
    assert!(log.contains(&format!("\"delivered\":{produced}")), "{log}");
    assert_eq!(broker.lag(&group, &topic), 0);
}

/// Exit code and what was found.
fn check_live(folder: &Path) -> (Option<i32>, String) {
    let out = owlpost(folder).args(["-c", "owlpost.toml", "check", "--live", "--json"]).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

#[test]
fn check_live_says_what_the_brokers_say_of_topics_and_group() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("live", 3), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let (code, found) = check_live(folder.path());
    assert_eq!(code, Some(0), "{found}");
    for words in ["1 broker answers (plaintext)", "has 3 partitions", "may be used; it has committed nothing yet"] {
        assert!(found.contains(words), "{words} in {found}");
    }
    // It has joined nothing and committed nothing.
    assert_eq!(broker.committed(&group, &topic), [None; 3]);

    let missing = unique("missing");
    config(folder.path(), &keys(&broker.plaintext(), &[&missing, &topic], &group));
    let (code, found) = check_live(folder.path());
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains(&format!("topic {missing} is not there")) && found.contains("has 3 partitions"), "{found}");
}

#[test]
fn check_live_says_why_the_brokers_do_not_let_it_in() {
    let broker = Broker::shared();
    let topic = broker.topic("live", 1);
    let folder = tempfile::tempdir().unwrap();
    let secured = |ca: &str, password: &str| {
        format!(
            "brokers = [{:?}]\ntopics = [{topic:?}]\ngroup = \"g\"\n[source.properties]\n\"sasl.mechanism\" = \"PLAIN\"\n\
             \"sasl.username\" = {:?}\n\"sasl.password\" = {password:?}\n\"ssl.ca.location\" = {ca:?}\n",
            broker.sasl_ssl(),
            broker::USER
        )
    };
    let (ca, other) = (broker.certificates().ca.display().to_string(), broker::certificates());
    for (keys, code, words) in [
        (secured(&ca, broker::PASSWORD), 0, "1 broker answers (sasl_ssl)"),
        (secured(&ca, "wrong"), 1, "sasl.password"),
        (secured(&other.ca.display().to_string(), broker::PASSWORD), 1, "ssl.ca.location"),
    ] {
        config(folder.path(), &keys);
        let (exit, found) = check_live(folder.path());
        assert_eq!(exit, Some(code), "{found}");
        assert!(found.contains(words), "{words} in {found}");
        assert!(!found.contains("wrong\""), "no password in {found}");
    }
}

#[test]
fn memory_does_not_grow_with_the_backlog() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("backlog", 6), unique("group"));
    let producer = broker.producer(&[("compression.type", "zstd"), ("queue.buffering.max.messages", "1000000")]);
    // About 600 bytes each, 120 MB in all: more than the process may have.
    let mut random = process::Random(1);
    for n in 0..200_000 {
        // Compresses as text does, not as nothing does.
        let reason: String = (0..8).map(|_| format!("{:016x}{0:016x}", random.next())).collect();
        let text =
            event(n).text().replace("\"change\":\"add\"", &format!("\"change\":\"add\",\"reason\":\"{reason}\""));
        producer.send(&topic, &Record::of(text));
    }
    producer.flush();
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml", "--role", "intake"]);
    let address = worker.address();
    let mut peak = 0.0f64;
    until("30,000 of the backlog are taken", || {
        let (_, text) = get(&address, "/metrics").ok()?;
        let of = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        peak = peak.max(of("owlpost_process_resident_memory_bytes ")?);
        (of("owlpost_events_total{source=\"events\",outcome=\"accepted\"} ")? >= 30_000.0).then_some(())
    });
    assert!(broker.lag(&group, &topic) > 0, "there was a backlog all the time");
    let mib = peak / 1024.0 / 1024.0;
    println!("peak {mib:.0} MiB");
    assert!(mib < 128.0, "{mib:.0} MiB");
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_worker_that_is_held_up_loses_its_partitions_and_takes_part_again_afterwards() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("held-up", 2), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    worker.address();
    broker.produce(&topic, &(0..10).map(event).collect::<Vec<_>>());
    broker.until_no_lag(&group, &topic);
    // Its session ends; another member takes over.
    worker.signal("STOP");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let other = runtime.block_on(async { Member::join(settings(&broker.plaintext(), &[&topic], &group)) });
    broker.produce(&topic, &(10..20).map(event).collect::<Vec<_>>());
    broker.until_no_lag(&group, &topic);
    assert_eq!(other.taken().len(), 10);
    worker.signal("CONT");
    until("the worker hears of it", || worker.log().contains("partitions lost").then_some(()));
    runtime.block_on(other.leave());
    broker.produce(&topic, &(20..30).map(event).collect::<Vec<_>>());
    broker.until_no_lag(&group, &topic);
    let (_, metrics) = get(&worker.address(), "/metrics").unwrap();
    // Its own 10 and 10, and those of the other that the broker had sent to it already: a store that both share knows them.
    let accepted =
        metrics.lines().find_map(|l| l.strip_prefix("owlpost_events_total{source=\"events\",outcome=\"accepted\"} "));
    let accepted: usize = accepted.unwrap().parse().unwrap();
    assert!((20..=30).contains(&accepted), "{accepted}");
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_topic_that_is_made_again_with_as_many_messages_is_read_from_its_beginning() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("twin", 1), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(&broker.plaintext(), &[&topic], &group).replace("6000", "60000");
    config(folder.path(), &keys);
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    worker.address();
    broker.produce(&topic, &(0..5).map(event).collect::<Vec<_>>());
    broker.until_no_lag(&group, &topic);
    // It hears nothing of it: where it was, there is a message again.
    worker.signal("STOP");
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &(5..14).map(event).collect::<Vec<_>>());
    worker.signal("CONT");
    let taken = || {
        let conn = rusqlite::Connection::open(folder.path().join("owlpost.db")).ok()?;
        conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)).ok()
    };
    until("all of the new one", || taken().filter(|n| *n == 14));
    broker.until_no_lag(&group, &topic);
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_worker_that_is_killed_before_it_knows_that_its_topic_is_a_new_one_loses_nothing_of_it() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("killed-twin", 1), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    // Started again, it has its partition back at once.
    let keys = keys(&broker.plaintext(), &[&topic], &group).replace("6000", "60000") + "instance_id = \"worker-0\"\n";
    config(folder.path(), &keys);
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    worker.address();
    broker.produce(&topic, &(0..5).map(event).collect::<Vec<_>>());
    broker.until_no_lag(&group, &topic);
    worker.signal("STOP");
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &(5..14).map(event).collect::<Vec<_>>());
    worker.signal("CONT");
    // It reads on from where it was in the old one, and says so.
    broker.until_no_lag(&group, &topic);
    worker.kill();
    let worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    let taken = || {
        let conn = rusqlite::Connection::open(folder.path().join("owlpost.db")).ok()?;
        conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)).ok()
    };
    until("all of the new one", || taken().filter(|n| *n == 14));
    broker.until_no_lag(&group, &topic);
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_run_to_the_end_that_gets_no_partition_leaves_them_to_the_others_and_ends() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("held", 1), unique("group"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let other = runtime.block_on(async { Member::join(settings(&broker.plaintext(), &[&topic], &group)) });
    broker.produce(&topic, &[event(0)]);
    broker.until_no_lag(&group, &topic);
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &keys(&broker.plaintext(), &[&topic], &group));
    let log = Worker::start(folder.path(), &["-c", "owlpost.toml", "--until-idle"]).ends_with(0);
    assert!(log.contains("\"delivered\":0"), "{log}");
    runtime.block_on(other.leave());
}

/// With KIP-848 the broker tells a member nothing that gets nothing. It is one all the same, and takes over.
#[test]
fn a_member_that_gets_no_partition_with_the_new_protocol_stands_by() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("standby", 1), unique("group"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut held = Settings { protocol: Protocol::Consumer, ..settings(&broker.plaintext(), &[&topic], &group) };
    // The broker's to decide.
    held.cluster.properties.clear();
    let other = runtime.block_on(async { Member::join(held) });
    broker.produce(&topic, &[event(0)]);
    broker.until_no_lag(&group, &topic);
    let folder = tempfile::tempdir().unwrap();
    let own = format!(
        "\nprotocol = \"consumer\"\nbrokers = [{:?}]\ntopics = [{topic:?}]\ngroup = {group:?}\n",
        broker.plaintext()
    );
    config(folder.path(), &own);
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    let address = worker.address();
    until("a member without partitions", || worker.log().contains("in the group without partitions").then_some(()));
    assert_eq!(get(&address, "/readyz").unwrap().0, 200);
    runtime.block_on(other.leave());
    broker.produce(&topic, &[event(1)]);
    until("its own event", || {
        let (_, metrics) = get(&address, "/metrics").ok()?;
        metrics.contains("owlpost_events_total{source=\"events\",outcome=\"accepted\"} 1").then_some(())
    });
    worker.signal("TERM");
    worker.ends_with(0);
}
