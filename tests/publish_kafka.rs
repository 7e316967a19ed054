//! `owlpost publish --to kafka://…`, the real program, on a real broker.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/process.rs"]
mod process;

use kafka::{Broker, PASSWORD, Record, USER, certificates};
use process::{owlpost, until};

/// `publish ARGS` with a pipe to its stdin.
fn start(args: &[&str]) -> Child {
    let mut command: Command = owlpost(&std::env::temp_dir());
    command.arg("publish").args(args).env("KAFKA_PASSWORD", PASSWORD);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn publish(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = start(args);
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    told(child.wait_with_output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn url(broker: &str, topic: &str) -> String {
    format!("kafka://{broker}/{topic}")
}

fn event(id: usize, rest: &str) -> String {
    format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"test\",\"type\":\"t\"{rest}}}")
}

fn header<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    let mut found = record.headers.iter().filter(|(n, _)| n == name);
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "{name} is there once");
    Some(std::str::from_utf8(value.as_ref().unwrap()).unwrap())
}

#[test]
fn events_arrive_as_they_were_read_under_their_partition_key() {
    let broker = Broker::shared();
    let topic = broker.topic("structured", 1);
    let events: Vec<String> = (0..1_200).map(|n| event(n, r#", "partitionkey":"sports", "data":{"n":1.10}"#)).collect();
    let (code, out, err) = publish(&["--to", &url(&broker.plaintext(), &topic)], &events.join("\n"));
    assert_eq!((code, &*out), (Some(0), "1200 accepted, 0 duplicates, 0 rejected\n"), "{err}");
    let read = broker.consume(&topic);
    assert_eq!(read.iter().map(Record::text).collect::<Vec<_>>(), events, "in their order");
    assert!(read.iter().all(|r| r.key.as_deref() == Some(b"sports")));
    assert!(read.iter().all(|r| header(r, "content-type") == Some("application/cloudevents+json; charset=UTF-8")));
}

#[test]
fn in_binary_mode_attributes_are_headers() {
    let broker = Broker::shared();
    let topic = broker.topic("binary", 1);
    let events = [event(1, r#","subject":"Grüße","data":{"n":1.10}"#), event(2, "")];
    let (code, _, err) = publish(&["--binary", "--to", &url(&broker.plaintext(), &topic)], &events.join("\n"));
    assert_eq!(code, Some(0), "{err}");
    let read = broker.consume(&topic);
    let told: Vec<_> =
        ["ce_id", "ce_subject", "ce_specversion", "content-type"].iter().map(|name| header(&read[0], name)).collect();
    assert_eq!(told, [Some("1"), Some("Grüße"), Some("1.0"), Some("application/json")]);
    assert_eq!((read[0].text().as_str(), &read[0].key), (r#"{"n":1.10}"#, &None));
    assert_eq!(read[1].text(), events[1], "without data it would be a tombstone");
}

#[test]
fn athenz_messages_get_an_id_for_what_is_sent_twice() {
    let broker = Broker::shared();
    let topic = broker.topic("athenz", 1);
    let input = include_str!("../src/cli/demo/zms/notifications.jsonl");
    let (code, _, err) = publish(&["--to", &url(&broker.plaintext(), &topic)], input);
    assert_eq!(code, Some(0), "{err}");
    let read = broker.consume(&topic);
    let mut ids: Vec<&str> = read.iter().map(|r| header(r, "message-id").unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((read.len(), ids.len()), (input.lines().count(), input.lines().count()));
}

#[test]
fn what_the_topic_or_this_program_refuses_is_told_and_the_others_arrive() {
    let broker = Broker::shared();
    let topic = kafka::unique("small");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    let large = |id, bytes: usize| event(id, &format!(r#","data":"{}""#, noise(bytes)));
    let mut events: Vec<String> = (0..100).map(|n| large(n, 1_000)).collect();
    events[30] = large(30, 60_000);
    events[60] = "{\"id\":1}".to_owned();
    let to = url(&broker.plaintext(), &topic);
    let (code, out, err) = publish(&["--to", &to, "--property", "compression.type=none"], &events.join("\n"));
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("stdin line 31 (event 30): rejected: 60"), "{out}");
    assert!(out.contains("raise its max.message.bytes"), "{out}");
    assert!(out.contains("stdin line 61 (event 60): rejected: "), "{out}");
    assert!(out.ends_with("98 accepted, 0 duplicates, 2 rejected\n"), "{out}");
    let mut read: Vec<String> = broker.consume(&topic).iter().map(Record::text).collect();
    let mut expected: Vec<String> =
        events.into_iter().enumerate().filter(|(n, _)| !matches!(n, 30 | 60)).map(|(_, e)| e).collect();
    read.sort();
    expected.sort();
    assert_eq!(read, expected, "each once, although requests of several were refused as a whole");
}

/// Does not compress well.
fn noise(bytes: usize) -> String {
    let mut random = process::Random(7);
    (0..bytes).map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap())).collect()
}

#[test]
fn what_is_wrong_is_told_with_what_to_look_at() {
    let broker = Broker::shared();
    let topic = broker.topic("security", 1);
    let mine = broker.certificates();
    let stranger = certificates();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, strange) = (path(&mine.ca), path(&stranger.ca));
    let signed = |broker: &str, properties: &[(&str, &str)]| -> Vec<String> {
        let mut args = vec!["--to".to_owned(), url(broker, &topic)];
        for (name, value) in properties {
            args.extend(["--property".to_owned(), format!("{name}={value}")]);
        }
        args
    };
    let sasl = |password: &'static str| {
        [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", USER), ("sasl.password", password)]
    };
    let wrong_name = broker.sasl_ssl().replace("localhost", "127.0.0.1");
    for (args, word) in [
        (vec!["--to".to_owned(), url(&broker.plaintext(), "no-such-topic")], "topic no-such-topic is not there"),
        // Port 1 (tcpmux): nobody listens there.
        (vec!["--to".to_owned(), url("127.0.0.1:1", &topic)], "no broker answers; are they running"),
        (signed(&broker.sasl_ssl(), &[&sasl("wrong")[..], &[("ssl.ca.location", &ca)]].concat()), "sasl.password"),
        (
            signed(&broker.sasl_ssl(), &[&sasl(PASSWORD)[..], &[("ssl.ca.location", &strange)]].concat()),
            "ssl.ca.location",
        ),
        (signed(&wrong_name, &[&sasl(PASSWORD)[..], &[("ssl.ca.location", &ca)]].concat()), "certificate"),
        (signed(&broker.ssl(), &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)]), "ssl.certificate.location"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, out, err) = publish(&args, &event(1, ""));
        assert_eq!((code, &*out), (Some(1), "0 accepted, 0 duplicates, 0 rejected\n"), "{args:?}: {err}");
        assert!(err.contains(word), "{args:?}: {err}");
        assert!(!err.contains(PASSWORD) && !err.contains("\"wrong\""), "{args:?}: {err}");
    }
    assert_eq!(broker.watermarks(&topic), [(0, 0)]);

    let client = [("ssl.certificate.location", path(&mine.cert)), ("ssl.key.location", path(&mine.key))];
    let client: Vec<(&str, &str)> = client.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for args in [
        signed(&broker.sasl_ssl(), &[&sasl("${KAFKA_PASSWORD}")[..], &[("ssl.ca.location", &ca)]].concat()),
        signed(&broker.ssl(), &[&client[..], &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)]].concat()),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, _, err) = publish(&args, &event(1, ""));
        assert_eq!(code, Some(0), "{args:?}: {err}");
    }
    assert_eq!(broker.watermarks(&topic), [(0, 2)]);
}

#[test]
fn the_configurations_source_with_that_broker_says_how_to_sign_in() {
    let broker = Broker::shared();
    let topic = broker.topic("configured", 1);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"
[[source]]
name = "events"
kind = "kafka"
brokers = [{:?}]
topics = ["others"]
group = "owlpost"
[source.properties]
"sasl.mechanism" = "SCRAM-SHA-256"
"sasl.username" = "{USER}"
"sasl.password" = "${{KAFKA_PASSWORD}}"
"ssl.ca.location" = {:?}
"fetch.min.bytes" = 1
"#,
        broker.sasl_ssl(),
        broker.certificates().ca
    );
    let config = folder.path().join("owlpost.toml");
    std::fs::write(&config, text).unwrap();
    let args = ["--to", &url(&broker.sasl_ssl(), &topic), "-c", config.to_str().unwrap()];
    let (code, _, err) = publish(&args, &event(1, ""));
    assert_eq!(code, Some(0), "{err}");
    // What is given on the command line comes over it.
    let (code, _, err) = publish(&[&args[..], &["--property", "sasl.password=wrong"]].concat(), &event(2, ""));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the sign-in was refused"), "{err}");
    assert_eq!(broker.watermarks(&topic), [(0, 1)]);
}

#[test]
fn a_broker_that_is_killed_and_comes_back_gets_each_event_once() {
    let broker = Broker::start();
    let topic = broker.topic("restart", 1);
    let mut child = start(&["--to", &url(&broker.plaintext(), &topic)]);
    let mut stdin = child.stdin.take().unwrap();
    let events: Vec<String> = (0..200).map(|n| event(n, "") + "\n").collect();
    // The next ones go out when those before them are confirmed.
    for (from, to) in [(0, 50), (50, 100)] {
        stdin.write_all(events[from..to].concat().as_bytes()).unwrap();
        until("the events", || (broker.watermarks(&topic) == [(0, i64::try_from(to).unwrap())]).then_some(()));
    }
    broker.kill();
    stdin.write_all(events[100..].concat().as_bytes()).unwrap();
    drop(stdin);
    broker.restart();
    let (code, out, err) = told(child.wait_with_output().unwrap());
    assert_eq!((code, &*out), (Some(0), "200 accepted, 0 duplicates, 0 rejected\n"), "{err}");
    let read: Vec<String> = broker.consume(&topic).iter().map(|r| r.text() + "\n").collect();
    assert_eq!(read, events);
}
