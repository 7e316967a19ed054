//! The real binary where it must not be comfortable: every bad environment ends in a clear message and a defined state.

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use process::{Worker, get, owlpost, post, until};
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
    assert!(log.contains("data/owlpost.db.lock") && log.contains("writable"), "{log}");
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
    config(folder.path(), HTTP, "owlpost.db", "");
    let mut command = owlpost(folder.path());
    command.arg("run").args(RUN).env("OWLPOST__HTTP__LISTEN", &address);
    let log = Worker::spawn(folder.path(), command).ends_with(1);
    assert!(log.contains(&address) && log.contains("another program listens there"), "{log}");
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
    assert!(log.contains("1 item") && log.contains("held"), "{log}");
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
