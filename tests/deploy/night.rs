//! A night on call: real trouble at a real worker, the alert that it causes in a real Prometheus, and what the runbook says
//! to do about it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::process::{Worker, http, owlpost, until};
use crate::prometheus::Prometheus;

fn worker(folder: &TempDir) -> (Worker, String) {
    let config = r#"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "events"
kind = "http"
[mailer]
kind = "outbox"
dir = "outbox"
from = "Athenz <access@example.com>"
[[directory]]
kind = "rules"
rules = [{ principal = "user.{name}", address = "{name}@example.com" }]
[[route]]
name = "held"
types = ["com.example.held"]
hold = true
[[route]]
name = "asked"
types = ["com.example.asked"]
"#;
    fs::write(folder.path().join("owlpost.toml"), config).unwrap();
    let mut command = owlpost(folder.path());
    command.args(["run", "-c", "owlpost.toml"]);
    let mut worker = Worker::spawn(folder.path(), command);
    let address = worker.address();
    (worker, address)
}

fn operator(folder: &TempDir, words: &[&str]) {
    let done = owlpost(folder.path()).args(words).args(["-c", "owlpost.toml"]).output().unwrap();
    assert!(done.status.success(), "owlpost {}: {}", words.join(" "), crate::prometheus::said(&done));
}

fn event(kind: &str, recipient: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{kind}","source":"night","type":"com.example.{kind}","data":{{"recipients":["{recipient}"]}}}}"#
    )
}

fn publish(address: &str, body: &str) -> u16 {
    let headers = "content-type: application/cloudevents+json\r\n";
    http(address, "POST", "/v1/events", headers, body.as_bytes()).unwrap().0
}

fn fires(server: &Prometheus, alert: &str) -> bool {
    let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
    !server.query(&firing).unwrap().is_empty()
}

fn seen(server: &Prometheus, alert: &str) {
    until(&format!("{alert} to fire"), || fires(server, alert).then_some(()));
}

fn mended(server: &Prometheus, alert: &str) {
    until(&format!("{alert} to end"), || (!fires(server, alert)).then_some(()));
}

fn mails(folder: &Path) -> usize {
    let files = fs::read_dir(folder.join("outbox")).map(|files| files.filter_map(Result::ok).collect::<Vec<_>>());
    files.unwrap_or_default().iter().filter(|file| file.path().extension().is_some_and(|end| end == "eml")).count()
}

#[test]
fn each_alert_is_seen_and_ends_when_the_runbook_was_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (worker, address) = worker(&folder);
    let server = Prometheus::impatient(&address);
    until("a scrape", || server.query("owlpost_build_info").ok().filter(|found| !found.is_empty()));

    // A producer that has changed its format.
    assert_eq!(publish(&address, "{"), 400);
    seen(&server, "OwlpostDeadLetters");
    operator(&folder, &["dead-letters", "list", "--kind", "input"]);
    operator(&folder, &["dead-letters", "discard", "--all"]);
    mended(&server, "OwlpostDeadLetters");

    // A digest that waits for somebody.
    assert_eq!(publish(&address, &event("held", "user.alice")), 202);
    seen(&server, "OwlpostDigestsHeld");
    assert_eq!(mails(folder.path()), 0);
    operator(&folder, &["digests", "release", "--route", "held"]);
    mended(&server, "OwlpostDigestsHeld");
    until("its mail", || (mails(folder.path()) == 1).then_some(()));

    // The kill switch, forgotten.
    operator(&folder, &["pause"]);
    seen(&server, "OwlpostPaused");
    assert_eq!(publish(&address, &event("asked", "user.alice")), 202);
    let waiting = "owlpost_digests{state=\"gathering\"} > 0";
    until("it to wait", || server.query(waiting).ok().filter(|found| !found.is_empty()));
    assert_eq!(server.query("owlpost:oldest_due:age_seconds").unwrap(), [serde_json::Value::Null; 0], "none may leave");
    assert!(!fires(&server, "OwlpostNothingLeaves"), "somebody knows");
    operator(&folder, &["resume"]);
    mended(&server, "OwlpostPaused");
    until("its mail", || (mails(folder.path()) == 2).then_some(()));

    // Somebody who has no address.
    assert_eq!(publish(&address, &event("asked", "robots.night").replace("\"id\":\"asked\"", "\"id\":\"robot\"")), 202);
    seen(&server, "OwlpostItemsDied");

    assert!(!fires(&server, "OwlpostDown"));
    worker.kill();
    seen(&server, "OwlpostDown");
}
