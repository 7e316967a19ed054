//! `iam = true`: signing in to Amazon MSK. The broker here takes what MSK would take, as far as a signature tells
//! (`tests/support/SignedUrls.java`): it is Kafka's own side of OAUTHBEARER, with a check of the token that knows the key.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use broker::Msk;
use process::{Worker, owlpost};

const REGION: &str = "eu-west-1";
const MSK: Msk = Msk { region: REGION, key: "AKIDOFTHETESTS", secret: "secret+of/the=tests", session: "session+/=" };

fn config(folder: &Path, broker: &Broker, topic: &str, group: &str) {
    let text = format!(
        r#"
[http]
listen = "127.0.0.1:0"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "events"
kind = "kafka"
brokers = [{:?}]
topics = [{topic:?}]
group = {group:?}
iam = true
[source.properties]
"ssl.ca.location" = {:?}
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
"#,
        broker.sasl_ssl(),
        broker.certificates().ca.display().to_string()
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

/// `owlpost` as that identity, and as nobody else.
fn command(folder: &Path, who: &Msk, args: &[&str]) -> Command {
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env_remove("HOME").env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", who.region);
    command.env("AWS_ACCESS_KEY_ID", who.key).env("AWS_SECRET_ACCESS_KEY", who.secret);
    command.env("AWS_SESSION_TOKEN", who.session).args(args).args(["-c", "owlpost.toml"]);
    command
}

#[test]
fn with_iam_the_broker_lets_in_who_signs_with_its_key_and_nobody_else() {
    let broker = Broker::of_msk(&MSK);
    let (topic, group) = (broker.topic("iam", 2), unique("group"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, &broker, &topic, &group);
    let events: Vec<String> = (0..10)
        .map(|n| {
            format!(
                r#"{{"specversion":"1.0","id":"{n}","source":"test","type":"test.happened","data":{{"recipients":["user.joe"]}}}}"#
            )
        })
        .collect();
    fs::write(folder.join("events.ndjson"), events.join("\n")).unwrap();
    let to = format!("kafka://{}/{topic}", broker.sasl_ssl());

    let strangers = [
        (Msk { secret: "of another", ..MSK }, "another signature"),
        (Msk { key: "AKIDOFANOTHER", ..MSK }, "another key"),
        (Msk { session: "another", ..MSK }, "another session"),
        (Msk { region: "eu-west-2", ..MSK }, "another host"),
    ];
    for (stranger, why) in &strangers {
        let log = Worker::spawn(folder, command(folder, stranger, &["run", "--until-idle"])).ends_with(1);
        assert!(log.contains("source.iam") && !log.contains(stranger.secret), "{why}: {log}");
        assert!(broker.log().contains(&format!("token refused: {why}")), "{why}: {}", broker.log());
    }
    let out = command(folder, &strangers[0].0, &["publish", "--to", &to, "events.ndjson"]).output().unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && err.contains("iam = true"), "{err}");
    assert_eq!(broker.watermarks(&topic), [(0, 0); 2], "nobody got in");

    let out = command(folder, &MSK, &["check", "--live", "--json"]).output().unwrap();
    let told = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && told.contains("has 2 partitions"), "{told}");
    let out = command(folder, &MSK, &["publish", "--to", &to, "events.ndjson"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let log = Worker::spawn(folder, command(folder, &MSK, &["run", "--until-idle"])).ends_with(0);
    assert!(log.contains("\"delivered\":10"), "{log}");
    assert_eq!(broker.lag(&group, &topic), 0);
}
