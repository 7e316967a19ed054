//! The real binary where it must not be comfortable: every bad environment ends in a clear message and a defined state.

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process::{Worker, get, http, owlpost, post, until};
use rusqlite::Connection;
use tempfile::TempDir;

const HTTP: &str = "[[source]]\nname = \"in\"\nkind = \"http\"";
const FILE: &str = "[[source]]\nname = \"in\"\nkind = \"file\"\npath = \"in.ndjson\"";

fn config(folder: &Path, source: &str, store: &str, route: &str) {
    let text = format!(
        r#"
{source}
[store]
url = "sqlite:{store}"
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "outbox"
dir = "outbox"
from = "Athenz <access@example.com>"
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
template = "changes"
{route}
[log]
format = "json"
"#
    );
    fs::write(folder.join("c.toml"), text).unwrap();
}

fn event(id: &str, filler: usize) -> String {
    let day = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24)).strftime("%Y-%m-%d");
    let notes = "x".repeat(filler);
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"zms/test","type":"io.athenz.domain.changed.v1","time":"{day}T10:00:00Z","data":{{"domain":"sports","object":{{"kind":"role","name":"{id}"}},"notes":"{notes}","recipients":["user.alice"]}}}}"#
    )
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

const RUN: &[&str] = &["-c", "c.toml"];
const IDLE: &[&str] = &["--until-idle", "-c", "c.toml"];

/// A file system of its own, unmounted at the end; `None` where nobody may mount.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, size: &str) -> Option<Mount> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "owlpost-test"]).arg(&at).output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Mount(at));
        }
        println!("skipped: this user may not mount a tmpfs");
        None
    }

    fn read_only(&self) {
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let folder = folder();
    let Some(mount) = Mount::new(folder.path().join("data"), "2m") else { return };
    config(folder.path(), HTTP, "data/owlpost.db", "");
    fs::write(mount.0.join("filler"), vec![0; 900_000]).unwrap();
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    let mut taken = 0i64;
    until("a refused batch", || {
        let batch: Vec<String> = (0..10).map(|n| event(&format!("a{taken}-{n}"), 2_000)).collect();
        // Sent without patience: on a full disk the answer is "come again", or none before the source's own limit.
        let acknowledged = post(&address, &batch);
        taken += i64::from(acknowledged);
        (!acknowledged).then_some(())
    });
    assert!(worker.is_running(), "{}", worker.log());
    assert!(worker.log().contains("full"), "{}", worker.log());
    until("the store is told as not ready", || (get(&address, "/readyz").ok()?.0 == 503).then_some(()));
    assert_eq!(get(&address, "/livez").unwrap().0, 200);
    fs::remove_file(mount.0.join("filler")).unwrap();
    until("an acknowledgement", || post(&address, &[event("late", 10)]).then_some(()));
    until("the way back in the log", || worker.log().contains("the store is back").then_some(()));
    assert_eq!(worker.log().matches("the store took no batch").count(), 1, "once: {}", worker.log());
    worker.kill();
    let conn = Connection::open(mount.0.join("owlpost.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
    assert!(kept > taken * 10, "{kept} events are kept, {taken} batches of 10 and one event were acknowledged");
}

#[test]
fn a_read_only_data_folder_is_named_at_the_start() {
    let folder = folder();
    let Some(mount) = Mount::new(folder.path().join("data"), "2m") else { return };
    mount.read_only();
    config(folder.path(), HTTP, "data/owlpost.db", "");
    let log = Worker::start(folder.path(), RUN).ends_with(1);
    assert!(log.contains("data/owlpost.db") && log.contains("writable"), "{log}");
}

/// A store that a worker made, with one event in it.
fn made(folder: &Path) -> PathBuf {
    config(folder, FILE, "owlpost.db", "");
    fs::write(folder.join("in.ndjson"), event("first", 10)).unwrap();
    Worker::start(folder, IDLE).ends_with(0);
    folder.join("owlpost.db")
}

#[test]
fn a_corrupt_store_is_refused_and_left_alone() {
    let folder = folder();
    let store = made(folder.path());
    let mut bytes = fs::read(&store).unwrap();
    bytes[100..16_384].fill(0xAB);
    fs::write(&store, &bytes).unwrap();
    let log = Worker::start(folder.path(), IDLE).ends_with(1);
    assert!(log.contains("owlpost.db") && log.contains("backup"), "{log}");
    assert_eq!(fs::read(&store).unwrap(), bytes);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let text = "my notes, which nobody may overwrite\n".repeat(100);
    fs::write(folder.path().join("owlpost.db"), &text).unwrap();
    let log = Worker::start(folder.path(), RUN).ends_with(1);
    assert!(log.contains("owlpost.db") && log.contains("no owlpost store"), "{log}");
    assert_eq!(fs::read_to_string(folder.path().join("owlpost.db")).unwrap(), text);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let path = folder.path().join("owlpost.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE photo (name TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    let log = Worker::start(folder.path(), RUN).ends_with(1);
    assert!(log.contains("owlpost.db") && log.contains("another program"), "{log}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_worker_whose_store_is_removed_or_replaced_acknowledges_nothing_more_and_ends() {
    for (name, put_back) in [("owlpost.db", false), ("owlpost.db", true), ("owlpost.db.lock", false)] {
        let folder = folder();
        config(folder.path(), HTTP, "owlpost.db", "");
        let mut worker = Worker::start(folder.path(), RUN);
        let address = worker.address();
        assert!(post(&address, &[event("before", 10)]));
        fs::remove_file(folder.path().join(name)).unwrap();
        if put_back {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(!post(&address, &[event("after", 10)]), "{name}");
        let log = worker.ends_with(1);
        assert!(log.contains(name) && log.contains("removed or replaced"), "{log}");
    }
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let folder = folder();
    let store = made(folder.path());
    Connection::open(&store)
        .unwrap()
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'later', '', '0')",
            [],
        )
        .unwrap();
    let log = Worker::start(folder.path(), IDLE).ends_with(1);
    assert!(log.contains("version 999") && log.contains("later"), "{log}");
}

#[test]
fn a_second_worker_on_the_same_store_is_refused_and_the_first_goes_on() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let mut first = Worker::start(folder.path(), RUN);
    let address = first.address();
    let second = owlpost(folder.path()).arg("run").args(RUN).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another worker has this store"), "{said}");
    assert!(post(&address, &[event("still-here", 10)]));
}

#[test]
fn a_port_in_use_is_named() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    config(folder.path(), FILE, "owlpost.db", "");
    fs::write(folder.path().join("in.ndjson"), event("first", 10)).unwrap();
    let mut command = owlpost(folder.path());
    command.arg("run").args(RUN).env("OWLPOST__HTTP__LISTEN", &address);
    let log = Worker::spawn(folder.path(), command).ends_with(1);
    assert!(log.contains(&address) && log.contains("another program listens there"), "{log}");
    let conn = Connection::open(folder.path().join("owlpost.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 0, "nothing was begun");
}

#[test]
fn an_unknown_key_is_wrong_usage_and_the_nearest_known_one_is_named() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "prioritty = \"urgent\"");
    let log = Worker::start(folder.path(), RUN).ends_with(2);
    assert!(log.contains("c.toml:") && log.contains("prioritty") && log.contains("priority"), "{log}");
    assert!(!folder.path().join("owlpost.db").exists(), "nothing was begun");
}

#[test]
fn an_http_source_has_no_end_to_wait_for() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let log = Worker::start(folder.path(), IDLE).ends_with(2);
    assert!(log.contains("--until-idle") && log.contains("source in"), "{log}");
}

#[test]
fn held_digests_are_told_in_the_exit_code() {
    let folder = folder();
    config(folder.path(), FILE, "owlpost.db", "hold = true");
    fs::write(folder.path().join("in.ndjson"), event("held", 10)).unwrap();
    let log = Worker::start(folder.path(), IDLE).ends_with(1);
    assert!(log.contains("1 item is still open: held"), "{log}");
    assert!(!folder.path().join("outbox").exists());
}

#[test]
fn a_signal_drains_and_ends_with_success() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    for signal in ["TERM", "INT"] {
        let mut worker = Worker::start(folder.path(), RUN);
        let address = worker.address();
        assert!(post(&address, &[event(signal, 10)]));
        worker.signal(signal);
        let log = worker.ends_with(0);
        assert!(log.contains("stopped"), "{log}");
    }
    let conn = Connection::open(folder.path().join("owlpost.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2);
}

#[test]
fn intake_alone_is_idle_at_the_end_of_its_sources_and_leaves_the_sending_to_others() {
    let folder = folder();
    config(folder.path(), FILE, "owlpost.db", "");
    fs::write(folder.path().join("in.ndjson"), event("later", 10)).unwrap();
    let role = |role| [&["--role", role][..], IDLE].concat();
    Worker::start(folder.path(), &role("intake")).ends_with(0);
    assert!(!folder.path().join("outbox").exists());
    Worker::start(folder.path(), &role("deliver")).ends_with(0);
    assert_eq!(fs::read_dir(folder.path().join("outbox")).unwrap().count(), 2);
}

#[test]
fn an_event_that_is_too_old_is_found_among_the_others_of_its_request() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let mut worker = Worker::start(folder.path(), RUN);
    let mut old: serde_json::Value = serde_json::from_str(&event("old-one", 10)).unwrap();
    old["time"] = "2020-01-01T00:00:00Z".into();
    let body = format!("{}\n{old}\n", event("new-one", 10));
    let sent = http(&worker.address(), "POST", "/v1/events", "content-type: application/x-ndjson\r\n", body.as_bytes());
    assert_eq!(sent.unwrap().0, 202);
    let listed = owlpost(folder.path()).args(["-c", "c.toml", "dead-letters", "list", "--json"]).output().unwrap();
    let letter: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(letter["reason"], "too_old");
    assert_eq!(letter["position"], "POST /v1/events event 2");
    assert!(worker.log().contains("too_old") && !worker.log().contains("old-one"), "an id may be an address");
}

#[test]
fn a_signal_before_idle_is_no_failure_and_says_what_is_left() {
    let folder = folder();
    let endless = "[[source]]\nname = \"endless\"\nkind = \"file\"\npath = \"-\"";
    config(folder.path(), &format!("{FILE}\n{endless}"), "owlpost.db", "");
    fs::write(folder.path().join("in.ndjson"), event("waits", 10)).unwrap();
    let mut command = owlpost(folder.path());
    // Nobody ever writes into this pipe, so that source has no end.
    command.arg("run").args(IDLE).stdin(Stdio::piped()).env("RUST_LOG", "debug");
    let worker = Worker::spawn(folder.path(), command);
    until("the event", || worker.log().contains("batch committed").then_some(()));
    worker.signal("TERM");
    let log = worker.ends_with(0);
    assert!(log.contains("stopped before idle: 1 pending") && !log.contains("held"), "{log}");
}

#[test]
fn the_log_of_a_worker_is_json_to_its_last_line() {
    let folder = folder();
    // A warning of the configuration, and a failure at the start: the folder of the store is a file.
    config(folder.path(), HTTP, "c.toml/owlpost.db", "");
    let text = fs::read_to_string(folder.path().join("c.toml")).unwrap();
    fs::write(folder.path().join("c.toml"), format!("{text}[limits]\nevent_bytes = 100_000_000\n")).unwrap();
    let log = Worker::start(folder.path(), RUN).ends_with(1);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
    assert_eq!((&first["level"], &first["fields"]["file"]), (&"WARN".into(), &"c.toml".into()), "{log}");
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().unwrap().contains("c.toml"), "{log}");
}

#[test]
fn each_role_counts_what_it_has_and_nothing_else() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    for (role, has_sources) in [("intake", true), ("deliver", false)] {
        let mut worker = Worker::start(folder.path(), &["--role", role, "-c", "c.toml"]);
        let address = worker.address();
        let metrics = || get(&address, "/metrics").unwrap().1;
        until("the gauges of the store", || (!metrics().contains("owlpost_store_size_bytes 0\n")).then_some(()));
        assert_eq!(metrics().contains("owlpost_source_up{source=\"in\"}"), has_sources, "{role}");
        if has_sources {
            assert!(post(&address, &[event("late", 10)]));
            let lag = "owlpost_intake_lag_seconds_count 1";
            until("a sample of the lag", || metrics().contains(lag).then_some(()));
            assert!(metrics().contains("owlpost_intake_lag_seconds_bucket{le=\"3600\"} 0"), "hours, by its own time");
        }
        worker.signal("TERM");
        worker.ends_with(0);
    }
}

/// Or a replica that waits for its broker would look like one that refuses its producers.
#[test]
fn probes_do_not_count_as_requests() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    for path in ["/livez", "/readyz", "/readyz"] {
        get(&address, path).unwrap();
    }
    let counted = |n: u32| format!("owlpost_http_requests_total{{status=\"200\"}} {n}\n");
    for n in 0..3 {
        let metrics = get(&address, "/metrics").unwrap().1;
        assert!(metrics.contains(&counted(n)), "only its own requests before: {n}\n{metrics}");
    }
    worker.signal("TERM");
    worker.ends_with(0);
}

#[test]
fn a_second_signal_ends_the_worker_at_once() {
    let folder = folder();
    config(folder.path(), HTTP, "owlpost.db", "");
    let mut worker = Worker::start(folder.path(), RUN);
    let address = worker.address();
    // A request that never comes to its end keeps the listener draining.
    let mut slow = TcpStream::connect(&address).unwrap();
    slow.write_all(b"POST /v1/events HTTP/1.1\r\nhost: owlpost\r\ncontent-type: application/cloudevents+json\r\ncontent-length: 1000\r\n\r\n{").unwrap();
    assert_eq!(get(&address, "/livez").unwrap().0, 200);
    worker.signal("TERM");
    until("the stop", || worker.log().contains("a second signal stops at once").then_some(()));
    worker.signal("TERM");
    let log = worker.ends_with(1);
    assert!(log.contains("second signal"), "{log}");
}
