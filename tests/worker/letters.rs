//! Dead letters on their way out, to a real topic and a real queue.

use aws_sdk_sqs::types::Message;
use rusqlite::Connection;

use super::*;
use crate::elasticmq::ElasticMq;
use crate::kafka::unique;
use crate::process::{get, http, until};
use crate::proxy::{Fault, Proxy};

fn header<'r>(record: &'r Record, name: &str) -> &'r str {
    let found: Vec<_> = record.headers.iter().filter(|(n, _)| n == name).collect();
    let [(_, Some(value))] = found[..] else { panic!("{name}: {found:?}") };
    std::str::from_utf8(value).unwrap()
}

fn attribute<'m>(message: &'m Message, name: &str) -> &'m str {
    let found = message.message_attributes.as_ref().and_then(|all| all.get(name)?.string_value());
    found.unwrap_or_else(|| panic!("{name} in {:?}", message.message_attributes))
}

fn is_marked(letter: &Value) -> bool {
    letter["forwarded_at"].is_string()
}

/// An HTTP source, whose letters a test makes when it likes, and where they go.
fn http_to(folder: &Path, destination: &str) {
    config(folder, &format!("[[source]]\nname = \"in\"\nkind = \"http\"\n[dead_letters]\n{destination}\n"));
}

/// Posts an input that nobody can read; it is kept as a dead letter.
fn refuse(address: &str, text: &str) {
    let (status, _) =
        http(address, "POST", "/v1/events", "content-type: application/json\r\n", text.as_bytes()).unwrap();
    assert_eq!(status, 400);
}

#[test]
fn a_record_of_a_topic_arrives_on_the_other_with_what_is_wrong_and_where_it_stood() {
    let broker = broker();
    let (topic, group, dead) = (broker.topic("letters", 2), unique("group"), broker.topic("dead", 1));
    broker.produce(
        &topic,
        &[record(1).to(0), record(2).to(1), Record::of("poison").header("content-type", "application/json").to(1)],
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let to = format!("[dead_letters]\nforward_to = \"kafka://{}/{dead}\"\n", broker.plaintext());
    let plain = "[dead_letters.properties]\n\"security.protocol\" = \"plaintext\"\n";
    config(folder, &(kafka_source("events", &broker.plaintext(), &topic, &group) + &to + plain));
    until_idle(folder);
    let kept = dead_letters(folder);
    assert!(kept.len() == 1 && is_marked(&kept[0]), "{kept:?}");
    let read = broker.consume(&dead);
    assert_eq!(read.iter().map(Record::text).collect::<Vec<_>>(), ["poison"]);
    let id = kept[0]["id"].as_str().unwrap();
    let reason = kept[0]["reason"].as_str().unwrap();
    for (name, value) in [
        ("owlpost-id", id),
        ("owlpost-kind", "input"),
        ("owlpost-reason", reason),
        ("owlpost-source", "events"),
        ("owlpost-topic", &topic),
        ("owlpost-partition", "1"),
        ("owlpost-offset", "1"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(&read[0], name), value, "{name}");
    }
    assert!(!header(&read[0], "owlpost-detail").is_empty());
    header(&read[0], "owlpost-time").parse::<jiff::Timestamp>().unwrap();
    // Once is enough.
    until_idle(folder);
    assert_eq!(broker.consume(&dead).len(), 1);
}

#[test]
fn a_message_of_a_queue_arrives_on_the_other_after_its_server_was_away() {
    let server = ElasticMq::shared();
    let (url, dead) = (server.queue(&[]), server.queue(&[]));
    server.send(&url, &["poison".to_owned(), event(1).to_string()]);
    let proxy = Proxy::start(server.endpoint());
    proxy.plan("SendMessageBatch", Fault::Answer { status: 503, code: "ServiceUnavailable" }, 100_000);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let to = format!("[dead_letters]\nforward_to = {dead:?}\nendpoint_url = {:?}\n", proxy.url());
    config(folder, &(sqs_source("queue", server.endpoint(), &url) + &to));
    let mut worker = run(folder);
    let address = worker.address();
    until("a try, told", || {
        let told = status(folder)["forwarding"].to_string();
        (proxy.calls("SendMessageBatch") > 0 && told.contains("\"down\"")).then_some(())
    });
    // Neither intake nor readiness is held up.
    assert_eq!(get(&address, "/readyz").unwrap().0, 200);
    let kept = dead_letters(folder);
    assert!(kept.len() == 1 && !is_marked(&kept[0]), "{kept:?}");
    // The queue has the message, and the worker never hears of it: it comes twice, and is marked after the second.
    proxy.heal();
    proxy.plan("SendMessageBatch", Fault::LoseReply, 1);
    until("the mark", || is_marked(&dead_letters(folder)[0]).then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
    let read = server.drain(&dead);
    assert!(!read.is_empty());
    for message in &read {
        assert_eq!(message.body.as_deref(), Some("poison"));
        assert_eq!(attribute(message, "owlpost-id"), kept[0]["id"].as_str().unwrap());
        assert_eq!(attribute(message, "owlpost-reason"), kept[0]["reason"].as_str().unwrap());
        // All of it in one, since SQS takes ten attributes.
        let all: Value = serde_json::from_str(attribute(message, "owlpost-letter")).unwrap();
        assert_eq!((&all["source"], &all["position"]), (&json!("queue"), &kept[0]["position"]), "{all}");
        assert!(all["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{all}");
    }
}

#[test]
fn letters_wait_for_a_broker_that_is_killed_and_leave_when_it_is_back() {
    let broker = Broker::start();
    let dead = broker.topic("dead", 1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let to = format!("forward_to = \"kafka://{}/{dead}\"\n", broker.plaintext());
    http_to(folder, &(to + "[dead_letters.properties]\n\"security.protocol\" = \"plaintext\""));
    broker.kill();
    let mut worker = run(folder);
    let address = worker.address();
    for n in 0..5 {
        refuse(&address, &format!("poison {n}"));
    }
    until("the broker that is away, told", || (status(folder)["forwarding"]["state"] == "down").then_some(()));
    assert!(dead_letters(folder).iter().all(|letter| !is_marked(letter)));
    assert_eq!(get(&address, "/readyz").unwrap().0, 200);
    broker.restart();
    until("all marks", || dead_letters(folder).iter().all(is_marked).then_some(()));
    let mut read: Vec<String> = broker.consume(&dead).iter().map(Record::text).collect();
    read.sort();
    // A try that was given up may have arrived all the same.
    read.dedup();
    assert_eq!(read, (0..5).map(|n| format!("poison {n}")).collect::<Vec<_>>());
    worker.signal("TERM");
    worker.ends_with(0);
}

/// Another process writes to the store and does not end: a letter can be sent, and can't be marked.
fn lock(folder: &Path) -> Connection {
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    conn.busy_timeout(process::PATIENCE).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

#[test]
fn a_worker_that_is_killed_between_sending_a_letter_and_marking_it_sends_it_again() {
    let broker = broker();
    let dead = broker.topic("dead", 1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let to = format!("forward_to = \"kafka://{}/{dead}\"\n", broker.plaintext());
    http_to(folder, &(to + "[dead_letters.properties]\n\"security.protocol\" = \"plaintext\""));
    let mut worker = run(folder);
    let address = worker.address();
    // It looks for letters every few seconds, so the lock comes first; if not, another letter.
    let mut sent = 0;
    let id = loop {
        sent += 1;
        assert!(sent < 10, "the lock comes too late each time");
        refuse(&address, &format!("poison {sent}"));
        let locked = lock(folder);
        let letter = dead_letters(folder).into_iter().find(|letter| !is_marked(letter));
        let Some(letter) = letter else { continue };
        until("the letter on the topic", || (broker.consume(&dead).len() >= sent).then_some(()));
        worker.kill();
        drop(locked);
        break letter["id"].as_str().unwrap().to_owned();
    };
    let of_id = || broker.consume(&dead).iter().filter(|r| header(r, "owlpost-id") == id).count();
    assert_eq!(of_id(), 1);
    assert!(dead_letters(folder).iter().any(|letter| letter["id"] == *id && !is_marked(letter)));
    let mut worker = run(folder);
    worker.address();
    until("the mark", || dead_letters(folder).iter().all(is_marked).then_some(()));
    assert_eq!(of_id(), 2, "at least once: nobody had heard of the first");
    worker.signal("TERM");
    worker.ends_with(0);
}
