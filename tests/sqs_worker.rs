//! The real binary with an SQS queue as its source: what goes in is in the store, and the queue is empty.

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;

use std::fs;
use std::path::Path;
use std::process::Command;

use aws_sdk_sqs::types::QueueAttributeName;
use elasticmq::{Depth, ENVIRONMENT, ElasticMq, unique};
use process::{Worker, get, owlpost, until};
use proxy::{Fault, Proxy};
use rusqlite::Connection;
use serde_json::{Value, json};

const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };

fn config(folder: &Path, endpoint: &str, queue: &str) {
    let text = format!(
        r#"
[[source]]
name = "queue"
kind = "sqs"
{queue}
endpoint_url = "{endpoint}"
[store]
url = "sqlite:owlpost.db"
[http]
listen = "127.0.0.1:0"
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
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
audience = ["user.chief"]
template = "changes"
[log]
format = "json"
"#
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

/// `owlpost` with the server's credentials and nothing else of AWS's.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env_remove("HOME").envs(ENVIRONMENT).args(args).args(["-c", "owlpost.toml"]);
    command
}

fn until_idle(folder: &Path) -> String {
    Worker::spawn(folder, command(folder, &["run", "--until-idle"])).ends_with(0)
}

fn request(id: &str, member: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "zms/sqs", "type": "io.athenz.membership.requested.v1",
        "data": {
            "domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": member, "change": "add",
            "requester": member, "recipients": ["user.chief"]
        }
    })
}

fn ids(folder: &Path) -> Vec<String> {
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    let mut found = conn.prepare("SELECT id FROM event ORDER BY id").unwrap();
    found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn dead_letters(folder: &Path) -> Vec<Value> {
    let out = command(folder, &["dead-letters", "list", "--json"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    match serde_json::from_str(&text) {
        Ok(Value::Array(all)) => all,
        _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    }
}

#[test]
fn every_envelope_becomes_events_and_the_queue_is_empty() {
    let server = ElasticMq::shared();
    let url = server.queue(&[]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, server.endpoint(), &format!("queue_url = \"{url}\""));
    let sns = |text: &str| json!({"Type": "Notification", "MessageId": "s", "TopicArn": "arn:t", "Message": text});
    let change = json!({"domainName": "sports", "messageId": "raw", "objectType": "ROLE", "objectName": "r"});
    let bodies = [
        request("plain", "user.a").to_string(),
        json!([request("one-of-two", "user.b"), request("two-of-two", "user.c")]).to_string(),
        sns(&request("in-sns", "user.d").to_string()).to_string(),
        json!({"version": "0", "id": "eb", "detail-type": "x", "source": "y", "detail": request("in-bridge", "user.e")})
            .to_string(),
        // Raw message delivery: nothing around it.
        change.to_string(),
        "poison".to_owned(),
        request("plain", "user.a").to_string(),
    ];
    server.send(&url, &bodies);
    until_idle(folder);
    assert_eq!(ids(folder), ["in-bridge", "in-sns", "one-of-two", "plain", "raw", "two-of-two"]);
    let dead = dead_letters(folder);
    assert_eq!(dead.len(), 1, "{dead:?}");
    let name = url.rsplit('/').next().unwrap();
    assert!(dead[0]["position"].as_str().unwrap().starts_with(&format!("queue {name} message ")), "{dead:?}");
    assert_eq!(server.depth(&url), EMPTY);
}

#[test]
fn a_run_of_a_thousand_poison_messages_holds_up_nobody() {
    let server = ElasticMq::shared();
    let (url, dead) = server.with_redrive(1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, server.endpoint(), &format!("queue_url = \"{url}\""));
    let mut bodies = vec![request("before", "user.a").to_string()];
    bodies.extend((0..1_000).map(|n| format!("poison {n}")));
    bodies.push(request("behind", "user.b").to_string());
    server.send(&url, &bodies);
    until_idle(folder);
    assert_eq!(ids(folder), ["before", "behind"]);
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT count(*) FROM dead_letter", [], |row| row.get(0)).unwrap();
    assert_eq!((kept, server.depth(&url), server.depth(&dead)), (1_000, EMPTY, EMPTY), "ours, and not the queue's");
}

#[test]
fn a_redriven_queue_mails_nobody_twice() {
    let server = ElasticMq::shared();
    let url = server.queue(&[]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, server.endpoint(), &format!("queue = \"{}\"", url.rsplit('/').next().unwrap()));
    let bodies: Vec<String> = (0..30).map(|n| request(&format!("r{n}"), &format!("user.m{n}")).to_string()).collect();
    let mails = || fs::read_dir(folder.join("outbox")).unwrap().count();
    server.send(&url, &bodies);
    until_idle(folder);
    let before = mails();
    server.send(&url, &bodies);
    until_idle(folder);
    assert_eq!((ids(folder).len(), mails(), server.depth(&url)), (30, before, EMPTY));
}

#[test]
fn sigterm_ends_an_idle_worker_and_a_full_one_with_nothing_lost() {
    let server = ElasticMq::shared();
    let url = server.queue(&[]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, server.endpoint(), &format!("queue_url = \"{url}\""));
    let mut worker = Worker::spawn(folder, command(folder, &["run"]));
    worker.address();
    let all: Vec<String> = (0..500).map(|n| request(&format!("t{n}"), &format!("user.m{n}")).to_string()).collect();
    server.send(&url, &all);
    until("some events", || (folder.join("owlpost.db").exists() && ids(folder).len() > 20).then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
    let after = server.depth(&url);
    assert_eq!(after.in_flight, 0, "given back: {after:?}");
    assert_eq!(ids(folder).len() as u64 + after.visible, 500, "committed is deleted, the rest is there");
    until_idle(folder);
    assert_eq!((ids(folder).len(), server.depth(&url)), (500, EMPTY));
}

#[test]
fn readiness_and_metrics_say_what_is_wrong_with_the_queue() {
    let server = ElasticMq::shared();
    let url = server.queue(&[]);
    let proxy = Proxy::start(server.endpoint());
    proxy.plan("ReceiveMessage", Fault::Answer { status: 403, code: "AccessDenied" }, 100_000);
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), proxy.url(), &format!("queue_url = \"{url}\""));
    let mut worker = Worker::spawn(folder.path(), command(folder.path(), &["run"]));
    let address = worker.address();
    let told = until("not ready", || get(&address, "/readyz").ok().filter(|(status, _)| *status == 503)).1;
    assert!(told.contains("sqs:ReceiveMessage"), "{told}");
    let metrics = get(&address, "/metrics").unwrap().1;
    assert!(metrics.contains("owlpost_source_up{source=\"queue\"} 0"), "{metrics}");
    assert!(metrics.contains("owlpost_sqs_deletes_failed_total{source=\"queue\"} 0"), "{metrics}");
    proxy.heal();
    until("ready", || get(&address, "/readyz").ok().filter(|(status, _)| *status == 200));
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_run_to_the_end_fails_where_there_is_no_queue_and_says_why() {
    let server = ElasticMq::shared();
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), server.endpoint(), &format!("queue = \"{}\"", unique("none")));
    let log = Worker::spawn(folder.path(), command(folder.path(), &["run", "--until-idle"])).ends_with(1);
    assert!(log.contains("the queue is not there"), "{log}");
}

#[test]
fn without_a_region_the_worker_says_what_to_set() {
    let server = ElasticMq::shared();
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), server.endpoint(), "queue = \"events\"");
    let mut command = command(folder.path(), &["run"]);
    command.env_remove("AWS_REGION");
    let log = Worker::spawn(folder.path(), command).ends_with(1);
    assert!(log.contains("source.region or AWS_REGION"), "{log}");
}

#[test]
fn without_credentials_the_source_is_down_and_says_so() {
    let server = ElasticMq::shared();
    let url = server.queue(&[]);
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), server.endpoint(), &format!("queue_url = \"{url}\""));
    let mut command = command(folder.path(), &["run", "--until-idle"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let log = Worker::spawn(folder.path(), command).ends_with(1);
    assert!(log.contains("no AWS credentials"), "{log}");
}

#[test]
fn the_live_check_tells_how_the_queue_is_set_up() {
    let server = ElasticMq::shared();
    let (url, _) = server.with_redrive(5, &[(QueueAttributeName::VisibilityTimeout, "45")]);
    let plain = server.queue(&[]);
    let folder = tempfile::tempdir().unwrap();
    let live = |queue: &str| {
        config(folder.path(), server.endpoint(), &format!("queue_url = \"{queue}\""));
        let out = command(folder.path(), &["check", "--live"]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, text) = live(&url);
    assert!(text.contains("visibility timeout 45 s") && text.contains("after 5 receives to arn:"), "{code:?} {text}");
    assert!(live(&plain).1.contains("no redrive policy"));
    let (code, text) = live(&format!("{}/000000000000/{}", server.endpoint(), unique("none")));
    assert!(code == Some(1) && text.contains("the queue is not there"), "{text}");
}

#[test]
fn what_is_published_to_a_queue_is_taken_from_it() {
    let server = ElasticMq::shared();
    for url in [server.queue(&[]), server.fifo(&[])] {
        let name = url.rsplit('/').next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        config(folder, server.endpoint(), &format!("queue = \"{name}\""));
        let mut lines: Vec<String> = (0..25).map(|n| request(&format!("p{n:02}"), "user.a").to_string()).collect();
        lines.push("{\"specversion\":\"1.0\"}".to_owned());
        fs::write(folder.join("events.ndjson"), lines.join("\n")).unwrap();
        let publish = |to: &str| {
            let mut command = command(folder, &["publish", "--json", "--to", to, "events.ndjson"]);
            command.env("AWS_ENDPOINT_URL_SQS", server.endpoint()).output().unwrap()
        };
        let out = publish(&format!("sqs://{name}"));
        assert_eq!(out.status.code(), Some(1), "one is rejected: {}", String::from_utf8_lossy(&out.stderr));
        let sum: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&sum["accepted"], &sum["rejected_total"]), (&json!(25), &json!(1)));
        until_idle(folder);
        assert_eq!((ids(folder).len(), server.depth(&url)), (25, EMPTY));
        let out = publish(&format!("sqs://{}", unique("none")));
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stderr).contains("the queue is not there"));
    }
}

/// Another process writes to the store and does not end: nothing can be committed.
fn lock(folder: &Path) -> Connection {
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

#[test]
fn a_queue_that_is_deleted_under_a_worker_whose_store_is_away_costs_nothing_that_was_received() {
    let server = ElasticMq::shared();
    let url = server.queue(&[(QueueAttributeName::VisibilityTimeout, "3")]);
    let name = url.rsplit('/').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, server.endpoint(), &format!("queue_url = \"{url}\""));
    let mut worker = Worker::spawn(folder, command(folder, &["run"]));
    let address = worker.address();
    let all = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|n| request(&format!("g{n}"), &format!("user.m{n}")).to_string()).collect()
    };
    let away = lock(folder);
    // As many as are received before the store has said a word.
    server.send(&url, &all(0..10));
    until("all of them are held", || (server.depth(&url) == Depth { in_flight: 10, ..EMPTY }).then_some(()));
    server.delete(&url);
    let why = until("not ready", || {
        let (status, body) = get(&address, "/readyz").ok()?;
        (status == 503 && body.contains("the queue is not there")).then_some(body)
    });
    assert!(why.contains("source queue") && why.contains(name), "{why}");
    assert_eq!(get(&address, "/livez").unwrap().0, 200);
    away.execute_batch("ROLLBACK").unwrap();
    until("what was received", || (ids(folder).len() == 10).then_some(()));
    // The same name: a queue of its own, which begins empty.
    server.call(server.client().create_queue().queue_name(name).send()).unwrap();
    server.send(&url, &all(10..20));
    until("the new queue's", || (ids(folder).len() == 20).then_some(()));
    until("ready", || get(&address, "/readyz").ok().filter(|(status, _)| *status == 200));
    worker.signal("TERM");
    worker.ends_with(0);
    assert_eq!(server.depth(&url), EMPTY);
}
