//! The real binary between real brokers: what it refuses goes out to one, what a shadow reads is another's, and a source
//! that is not let in holds up none of the others.

#![allow(clippy::duplicate_mod, reason = "both brokers run on the JVM")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

#[path = "../support/acls.rs"]
mod acls;
#[path = "../support/elasticmq.rs"]
mod elasticmq;
#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;

mod denied;
mod letters;
mod shadows;

use elasticmq::ENVIRONMENT;
use kafka::{Broker, Record};
use process::{Worker, owlpost};

/// The broker of these tests: it has access control.
fn broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(Broker::guarded)
}

/// `more`: sources, and what else a test is about.
fn config(folder: &Path, more: &str) {
    let text = format!(
        r#"
{more}
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
name = "all"
types = ["test.*"]
template = "digest"
[log]
format = "json"
"#
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

fn kafka_source(name: &str, brokers: &str, topic: &str, group: &str) -> String {
    format!(
        "[[source]]\nname = {name:?}\nkind = \"kafka\"\nbrokers = [{brokers:?}]\ntopics = [{topic:?}]\ngroup = {group:?}\n"
    )
}

fn sqs_source(name: &str, endpoint: &str, url: &str) -> String {
    format!("[[source]]\nname = {name:?}\nkind = \"sqs\"\nqueue_url = {url:?}\nendpoint_url = {endpoint:?}\n")
}

/// `owlpost ARGS -c owlpost.toml` with the queue server's credentials and nothing else of AWS's.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env_remove("HOME").envs(ENVIRONMENT).args(args).args(["-c", "owlpost.toml"]);
    command
}

fn run(folder: &Path) -> Worker {
    Worker::spawn(folder, command(folder, &["run"]))
}

fn until_idle(folder: &Path) -> String {
    Worker::spawn(folder, command(folder, &["run", "--until-idle"])).ends_with(0)
}

fn event(id: impl std::fmt::Display) -> Value {
    json!({
        "specversion": "1.0", "id": id.to_string(), "source": "test", "type": "test.happened",
        "data": {"recipients": ["user.joe"]}
    })
}

fn record(id: impl std::fmt::Display) -> Record {
    Record::of(event(id).to_string()).header("content-type", "application/cloudevents+json; charset=UTF-8")
}

/// What a command lists with `--json`: an array, or a line each.
fn rows(folder: &Path, args: &[&str]) -> Vec<Value> {
    let out = command(folder, &[args, &["--json"]].concat()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    match serde_json::from_str(&text) {
        Ok(Value::Array(all)) => all,
        _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    }
}

fn dead_letters(folder: &Path) -> Vec<Value> {
    rows(folder, &["dead-letters", "list"])
}

fn status(folder: &Path) -> Value {
    rows(folder, &["status"]).remove(0)
}

fn mails(folder: &Path) -> usize {
    let files = fs::read_dir(folder.join("outbox")).map_or(Vec::new(), |dir| dir.map(|f| f.unwrap().path()).collect());
    files.iter().filter(|path| path.extension().is_some_and(|x| x == "eml")).count()
}
