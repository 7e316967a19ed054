//! Several sources in one worker: one that is down holds up none of the others, and everybody can see which and why.

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::Path;

use process::{Worker, get, owlpost, post, until};
use serde_json::Value;

fn source(name: &str, kind: &str) -> String {
    let path = if kind == "file" { format!("path = \"{name}.ndjson\"\n") } else { String::new() };
    format!("[[source]]\nname = \"{name}\"\nkind = \"{kind}\"\n{path}")
}

fn config(folder: &Path, sources: &[(&str, &str)]) {
    let sources: String = sources.iter().map(|(name, kind)| source(name, kind)).collect();
    let text = format!(
        r#"
{sources}
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
name = "changes"
types = ["io.athenz.domain.changed.v1"]
template = "changes"
[log]
format = "json"
"#
    );
    fs::write(folder.join("c.toml"), text).unwrap();
}

fn event(id: &str) -> String {
    let day = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24)).strftime("%Y-%m-%d");
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"zms/test","type":"io.athenz.domain.changed.v1","time":"{day}T10:00:00Z","data":{{"domain":"sports","object":{{"kind":"role","name":"{id}"}},"recipients":["user.alice"]}}}}"#
    )
}

const RUN: &[&str] = &["-c", "c.toml"];

fn status(folder: &Path) -> Value {
    let out = owlpost(folder).args(["-c", "c.toml", "status", "--json"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn readyz(address: &str) -> (u16, Value) {
    let (status, body) = get(address, "/readyz").unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn one_that_is_down_from_the_start_is_named_holds_up_none_and_comes_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &[("orders", "file"), ("in", "http")]);
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    assert!(post(&address, &[event("by-http")]), "{}", worker.log());
    let (code, said) = until("the source that is down", || {
        let (code, said) = readyz(&address);
        (!said["reasons"][0].is_null()).then_some((code, said))
    });
    assert_eq!((code, &said["ready"]), (200, &Value::Bool(true)), "{said}");
    let reason = said["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("source orders: ") && reason.contains("orders.ndjson"), "{reason}");
    assert_eq!(said["sources"]["in"], "ready");
    let metrics = get(&address, "/metrics").unwrap().1;
    assert!(metrics.contains("owlpost_source_up{source=\"orders\"} 0"), "{metrics}");
    assert!(metrics.contains("owlpost_source_up{source=\"in\"} 1"), "{metrics}");
    until("the status of both", || {
        let sources = &status(folder.path())["sources"];
        (sources[0]["name"] == "in" && sources[0]["state"] == "ready" && sources[1]["state"] == "down").then_some(())
    });
    let told = owlpost(folder.path()).args(["-c", "c.toml", "status"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("orders          down since ") && told.contains("orders.ndjson"), "{told}");

    fs::write(folder.path().join("orders.ndjson"), event("by-file")).unwrap();
    until("its event", || {
        let (_, metrics) = get(&address, "/metrics").ok()?;
        metrics.contains("owlpost_events_total{source=\"orders\",outcome=\"accepted\"} 1").then_some(())
    });
    let (code, said) = readyz(&address);
    assert_eq!((code, said["reasons"].as_array().unwrap().len()), (200, 0), "{said}");
    let metrics = get(&address, "/metrics").unwrap().1;
    assert!(!metrics.contains("owlpost_source_restarts_total{source=\"orders\"} 0"), "{metrics}");
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn all_that_are_down_are_not_ready_and_due_mails_leave_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // What an earlier run took.
    config(folder.path(), &[("in", "http")]);
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    owlpost(folder.path()).args(["-c", "c.toml", "pause"]).status().unwrap();
    assert!(post(&address, &[event("e1")]));
    worker.signal("TERM");
    worker.ends_with(0);

    config(folder.path(), &[("orders", "file"), ("others", "file")]);
    owlpost(folder.path()).args(["-c", "c.toml", "resume"]).status().unwrap();
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    let (_, said) = until("both to be down", || {
        let (code, said) = readyz(&address);
        (code == 503 && said["reasons"].as_array()?.len() == 2).then_some((code, said))
    });
    assert_eq!(said["ready"], false);
    assert_eq!(get(&address, "/livez").unwrap().0, 200);
    until("the mail", || (status(folder.path())["ledger"]["delivered"] == 1).then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn the_only_source_that_can_not_be_opened_ends_the_worker_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &[("orders", "file")]);
    let log = Worker::start(folder.path(), RUN).ends_with(1);
    assert!(log.contains("orders.ndjson"), "{log}");
}

#[test]
fn a_run_to_the_end_fails_when_a_source_can_not_be_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &[("there", "file"), ("orders", "file")]);
    fs::write(folder.path().join("there.ndjson"), event("e1")).unwrap();
    let log = Worker::start(folder.path(), &["--until-idle", "-c", "c.toml"]).ends_with(1);
    assert!(log.contains("orders.ndjson"), "{log}");
}

#[test]
fn a_status_without_a_worker_says_when_one_was_last_seen() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &[("in", "http")]);
    let mut worker = Worker::start(folder.path(), RUN);
    worker.address();
    until("the source in the status", || status(folder.path())["sources"][0]["name"].is_string().then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
    // As if it had been an hour ago.
    let conn = rusqlite::Connection::open(folder.path().join("owlpost.db")).unwrap();
    conn.execute("UPDATE condition SET at = at - 3600000000", []).unwrap();
    let told = owlpost(folder.path()).args(["-c", "c.toml", "status"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("Sources, when a worker was last seen, at "), "{told}");
}
