//! The plugin for ZMS: compiled against as much of Athenz's types as it names, and run beside the real worker.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ports::free_ports;
use crate::process::{Worker, owlpost, until};
use crate::prometheus::{root, said};

const TOKEN: &str = "a-token-for-zms";

fn compiled(classes: &Path) {
    let sources = Command::new("find").arg(root().join("tests/deploy/zms")).args(["-name", "*.java"]).output().unwrap();
    let sources = String::from_utf8(sources.stdout).unwrap();
    let mut javac = Command::new("javac");
    javac.args(["-Xlint:all", "-Werror", "--release", "17", "-d"]).arg(classes).args(sources.lines());
    let made = javac.arg(root().join("deploy/zms-plugin/OwlpostPlugin.java")).output();
    let made = made.expect("a JDK: tests/run deploy installs it");
    assert!(made.status.success(), "{}", said(&made));
}

fn zms(folder: &Path, port: u16) -> Child {
    Command::new("java")
        .args(["-cp", "classes", "Zms"])
        .current_dir(folder)
        .env("OWLPOST_URL", format!("http://127.0.0.1:{port}/"))
        .env("OWLPOST_TOKEN_FILE", "token")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(folder.join("zms.out")).unwrap())
        .stderr(fs::File::create(folder.join("zms.err")).unwrap())
        .spawn()
        .unwrap()
}

fn worker(folder: &TempDir, port: u16) -> Worker {
    let config = format!(
        r#"
[http]
listen = "127.0.0.1:{port}"
token = "{TOKEN}"
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
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
"#
    );
    fs::write(folder.path().join("owlpost.toml"), config).unwrap();
    let mut command = owlpost(folder.path());
    command.args(["run", "-c", "owlpost.toml"]);
    let mut worker = Worker::spawn(folder.path(), command);
    worker.address();
    worker
}

fn texts(folder: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder.join("outbox")) else { return Vec::new() };
    let paths = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "html"));
    paths.map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn counted(folder: &Path) -> String {
    let told = owlpost(folder).args(["status", "-c", "owlpost.toml", "--json"]).output().unwrap();
    String::from_utf8(told.stdout).unwrap()
}

/// What the plugin's log says so far, once it says this.
fn told(folder: &Path, what: &str) -> Option<String> {
    fs::read_to_string(folder.join("zms.err")).ok().filter(|log| log.contains(what))
}

/// Waits until it says so: it took everything, though nobody was there yet.
fn took_all(folder: &Path) {
    until("ZMS to have notified of everything", || {
        fs::read_to_string(folder.join("zms.out")).ok().filter(|said| said.contains("all were taken"))
    });
}

#[test]
fn a_notification_of_zms_becomes_a_mail_once_though_owlpost_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let [port] = free_ports();
    compiled(&folder.path().join("classes"));
    fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let mut zms = zms(folder.path(), port);
    took_all(folder.path());
    until("ZMS to find nobody", || told(folder.path(), "can't be reached"));
    let _worker = worker(&folder, port);
    let mails = until("the mail", || Some(texts(folder.path())).filter(|texts| !texts.is_empty()));
    assert_eq!(mails.len(), 1);
    // What the requester wrote came through unharmed, and is escaped in the mail.
    let reason = ["&quot;quoted&quot;, a \\ and", "ü 🦉"];
    assert!(reason.iter().all(|part| mails[0].contains(part)), "{}", mails[0]);
    until("the reminder and the twin", || {
        let text = counted(folder.path());
        text.contains("\"dead_letters\":0").then_some(())
    });
    zms.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(zms.wait().unwrap().success());
    let log = fs::read_to_string(folder.path().join("zms.err")).unwrap();
    assert!(!log.contains("lost"), "{log}");
    assert!(!log.contains("joe") && !log.contains(TOKEN), "nobody's name and no token stand in the log: {log}");
}

#[test]
fn what_waits_when_zms_stops_is_still_sent() {
    let folder = tempfile::tempdir().unwrap();
    let [port] = free_ports();
    compiled(&folder.path().join("classes"));
    // The wrong token: refused again and again, so everything waits.
    fs::write(folder.path().join("token"), "another").unwrap();
    let _worker = worker(&folder, port);
    let mut zms = zms(folder.path(), port);
    took_all(folder.path());
    until("a refusal", || told(folder.path(), "answered 401"));
    fs::write(folder.path().join("token"), TOKEN).unwrap();
    drop(zms.stdin.take());
    assert!(zms.wait().unwrap().success());
    let mails = until("the mail", || Some(texts(folder.path())).filter(|texts| !texts.is_empty()));
    assert_eq!(mails.len(), 1);
}
