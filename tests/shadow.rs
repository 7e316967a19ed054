//! `run --shadow`: the real binary beside a real deployment's store. It decides and records everything and sends nothing.

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::Path;

use process::{Worker, get, owlpost, post, until};
use rusqlite::Connection;
use serde_json::Value;

fn config(folder: &Path, name: &str, source: &str, routes: &str) {
    let text = format!(
        r#"
{source}
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
{routes}
[log]
format = "json"
"#
    );
    fs::write(folder.join(name), text).unwrap();
}

const FILE: &str = "[[source]]\nname = \"in\"\nkind = \"file\"\npath = \"in.ndjson\"";
const HTTP: &str = "[[source]]\nname = \"in\"\nkind = \"http\"";
const ROUTES: &str = r#"
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
template = "changes"
cadence = { first_after = "1h" }
"#;

fn event(id: &str, domain: &str, recipients: &str) -> String {
    let day = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24)).strftime("%Y-%m-%d");
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"zms/test","type":"io.athenz.domain.changed.v1","time":"{day}T10:00:00Z","data":{{"domain":"{domain}","object":{{"kind":"role","name":"{id}"}},"recipients":[{recipients}]}}}}"#
    )
}

/// A store of a real worker that has sent 40 mails' worth of events to two people.
fn real(folder: &Path) {
    config(folder, "c.toml", FILE, ROUTES);
    let mut lines: Vec<String> =
        (0..40).map(|n| event(&format!("e{n}"), "sports", r#""user.alice","user.joe""#)).collect();
    lines.push(event("m1", "media", r#""user.alice""#));
    fs::write(folder.join("in.ndjson"), lines.join("\n")).unwrap();
    Worker::start(folder, &["--until-idle", "-c", "c.toml"]).ends_with(0);
}

/// What a shadow prints on stdout.
fn shadow(folder: &Path, args: &[&str]) -> (String, String) {
    let out = owlpost(folder).args(["run", "--shadow", "--until-idle"]).args(args).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}");
    (String::from_utf8(out.stdout).unwrap(), said)
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn mails(folder: &Path) -> usize {
    let files = fs::read_dir(folder.join("outbox")).unwrap().map(|f| f.unwrap().file_name());
    files.filter(|name| name.to_string_lossy().ends_with(".eml")).count()
}

#[test]
fn a_shadow_with_the_same_configuration_shows_no_difference_sends_nothing_and_leaves_the_real_store_alone() {
    let folder = tempfile::tempdir().unwrap();
    real(folder.path());
    let (sent, store) = (mails(folder.path()), fs::read(folder.path().join("owlpost.db")).unwrap());
    assert!(sent > 0);
    let (said, log) = shadow(folder.path(), &["-c", "c.toml"]);
    assert!(said.contains("41 events seen by both (0 by the real worker alone, 0 by the shadow alone)"), "{said}");
    assert!(said.contains("0 of 81 items settled otherwise"), "{said}");
    assert!(!said.contains("DIFFERENCE"), "{said}");
    assert!(log.contains("this is a shadow"), "{log}");
    assert_eq!(mails(folder.path()), sent, "nothing is sent");
    assert_eq!(fs::read(folder.path().join("owlpost.db")).unwrap(), store, "not a byte of it has changed");
    assert_eq!(shadow(folder.path(), &["-c", "c.toml", "--json"]).0, "");
}

#[test]
fn a_changed_route_shows_exactly_what_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    real(folder.path());
    let changed = r#"
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
where = { "data.domain" = "sports" }
template = "changes"
[[route]]
name = "media"
types = ["io.athenz.domain.changed.v1"]
where = { "data.domain" = "media" }
template = "changes"
hold = true
"#;
    config(folder.path(), "next.toml", FILE, changed);
    let (said, log) = shadow(folder.path(), &["-c", "next.toml", "--json"]);
    let rows = rows(&said);
    let told: Vec<(&str, &str, &str, &str)> = rows
        .iter()
        .map(|r| {
            let text = |name: &str| r[name].as_str().unwrap();
            (text("difference"), text("id"), text("route"), text("recipient"))
        })
        .collect();
    assert_eq!(
        told,
        [("only_in_real", "m1", "changes", "user.alice"), ("only_in_shadow", "m1", "media", "user.alice")]
    );
    assert_eq!((&rows[0]["real"]["state"], &rows[0]["shadow"]), (&"delivered".into(), &Value::Null));
    assert_eq!((&rows[1]["shadow"]["state"], &rows[1]["real"]), (&"pending".into(), &Value::Null));
    assert!(log.contains("2 of 82 items settled otherwise"), "{log}");
    let (said, _) = shadow(folder.path(), &["-c", "next.toml"]);
    assert!(said.contains("DIFFERENCE") && said.contains("only in shadow"), "{said}");
}

#[test]
fn a_person_who_may_not_be_mailed_and_one_who_has_gone_are_another_outcome() {
    let folder = tempfile::tempdir().unwrap();
    real(folder.path());
    let one_domain = format!("[recipients]\nallowed_domains = [\"example.org\"]\n{ROUTES}");
    config(folder.path(), "next.toml", FILE, &one_domain);
    let rows = rows(&shadow(folder.path(), &["-c", "next.toml", "--json"]).0);
    assert_eq!(rows.len(), 81);
    assert!(rows.iter().all(|r| {
        r["difference"] == "other_outcome"
            && r["real"]["reason"].is_null()
            && r["shadow"]["reason"] == "domain_not_allowed"
    }));
    let (said, _) = shadow(folder.path(), &["-c", "next.toml"]);
    assert!(said.contains("suppressed (domain_not_allowed)") && said.contains("and 61 more; --json has all"), "{said}");
}

#[test]
fn a_shadow_knows_who_must_not_be_mailed_and_begins_anew_unless_it_is_told_to_keep_its_store() {
    let folder = tempfile::tempdir().unwrap();
    real(folder.path());
    let add = owlpost(folder.path()).args(["-c", "c.toml", "suppressions", "add", "joe@example.com"]).output().unwrap();
    assert!(add.status.success());
    let rows = rows(&shadow(folder.path(), &["-c", "c.toml", "--json"]).0);
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|r| r["recipient"] == "user.joe" && r["shadow"]["state"] == "suppressed"));
    // The kept one knows the events; a new one decides again.
    let remove =
        owlpost(folder.path()).args(["-c", "c.toml", "suppressions", "remove", "joe@example.com"]).output().unwrap();
    assert!(remove.status.success());
    assert_eq!(shadow(folder.path(), &["-c", "c.toml", "--json", "--keep"]).0.lines().count(), 40);
    assert_eq!(shadow(folder.path(), &["-c", "c.toml", "--json"]).0, "");
}

#[test]
fn a_shadow_beside_a_running_worker_tells_what_it_saw_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "c.toml", HTTP, ROUTES);
    let mut real = Worker::start(folder.path(), &["-c", "c.toml"]);
    let address = real.address();
    let events: Vec<String> = (0..3).map(|n| event(&format!("e{n}"), "sports", r#""user.alice""#)).collect();
    assert!(post(&address, &events));
    // Its log is a file of its own folder; the store's path leads to the real one.
    let aside = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("owlpost.db").display());
    let mut command = owlpost(aside.path());
    command.arg("-c").arg(folder.path().join("c.toml")).args(["run", "--shadow"]).env("OWLPOST__STORE__URL", &store);
    let mut shadow = Worker::spawn(aside.path(), command);
    let beside = shadow.address();
    assert!(post(&beside, &events[..2]));
    until("the shadow's metrics", || {
        let (_, metrics) = get(&beside, "/metrics").ok()?;
        metrics.contains("owlpost_events_total{source=\"in\",outcome=\"accepted\"} 2").then_some(())
    });
    shadow.signal("TERM");
    let said = shadow.ends_with(0);
    assert!(said.contains("2 events seen by both (1 by the real worker alone, 0 by the shadow alone)"), "{said}");
    assert!(real.is_running());
    real.signal("TERM");
    real.ends_with(0);
    let conn = Connection::open(folder.path().join("owlpost.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 3);
}

#[test]
fn without_a_real_store_there_is_nothing_to_compare_with() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "c.toml", FILE, ROUTES);
    fs::write(folder.path().join("in.ndjson"), event("e1", "sports", r#""user.alice""#)).unwrap();
    let (said, log) = shadow(folder.path(), &["-c", "c.toml"]);
    assert!(said.is_empty() && log.contains("nothing to compare with"), "{said}{log}");
    assert!(!folder.path().join("owlpost.db").exists() && !folder.path().join("outbox").exists());
}

#[test]
fn half_a_shadow_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "c.toml", FILE, ROUTES);
    let out = owlpost(folder.path()).args(["-c", "c.toml", "run", "--shadow", "--role", "intake"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let out = owlpost(folder.path()).args(["-c", "c.toml", "run", "--keep"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}
