//! The real binary through the real SDK against an SES v2 emulator that others wrote (ministack): what an endpoint of our
//! own could get wrong in the same way as we do. `tests/run ses_server` sets it up.

use std::fs;
use std::path::Path;

#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/process.rs"]
mod process;
#[path = "support/sink.rs"]
mod sink;

use emulator::Emulator;
use process::{Worker, owlpost};

const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")];

fn config(folder: &Path, emulator: &Emulator, content: &str) {
    let text = format!(
        r#"
        [store]
        url = "sqlite:{content}.db"
        [http]
        listen = "127.0.0.1:0"
        [[source]]
        name = "events"
        kind = "file"
        path = "events.ndjson"
        [mailer]
        kind = "ses"
        region = "eu-west-1"
        endpoint_url = "http://{}"
        content = "{content}"
        [recipients]
        allowed_domains = ["example.com"]
        [[directory]]
        kind = "rules"
        rules = [{{ principal = "user.{{name}}", address = "{{name}}.{content}@example.com" }}]
        [[route]]
        name = "approvals"
        types = ["io.athenz.membership.requested.v1"]
        template = "approvals"
        [log]
        format = "json"
        "#,
        emulator.address
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

#[test]
fn digests_arrive_at_an_ses_that_others_wrote_and_the_live_check_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(folder.path());
    let events: Vec<String> = (0..20)
        .map(|n| {
            format!(
                r#"{{"specversion":"1.0","id":"r{n}","source":"test","type":"io.athenz.membership.requested.v1","data":{{"domain":"sports","collection":{{"kind":"role","name":"role{n}"}},"member":"user.joe","change":"add","requester":"user.joe","reason":"Grüße","recipients":["user.p{}"]}}}}"#,
                n % 10
            )
        })
        .collect();
    fs::write(folder.path().join("events.ndjson"), events.join("\n")).unwrap();
    for content in ["simple", "raw"] {
        config(folder.path(), &emulator, content);
        let mut command = owlpost(folder.path());
        command.args(["run", "--until-idle", "-c", "owlpost.toml"]).envs(KEYS);
        Worker::spawn(folder.path(), command).ends_with(0);
    }
    let mails = emulator.mails();
    let to = |content: &str| -> Vec<String> {
        let mine = |m: &&serde_json::Value| m["To"][0].as_str().unwrap_or_default().contains(content);
        let mut all: Vec<String> = mails.iter().filter(mine).map(|m| m["To"][0].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    for content in ["simple", "raw"] {
        let wanted: Vec<String> = (0..10).map(|n| format!("p{n}.{content}@example.com")).collect();
        assert_eq!(to(content), wanted, "one digest each, with both requests in it");
    }
    let simple = mails.iter().find(|m| m["To"][0] == "p3.simple@example.com").unwrap();
    assert_eq!(simple["Subject"], "2 approvals in sports");
    assert!(
        simple["BodyHtml"].as_str().unwrap().contains("Grüße")
            && simple["BodyText"].as_str().unwrap().contains("role13")
    );

    let live = owlpost(folder.path())
        .args(["check", "--live", "--json", "-c", "owlpost.toml"])
        .envs(KEYS)
        .env("AWS_ENDPOINT_URL_STS", format!("http://{}", emulator.address))
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&live.stdout).unwrap();
    let told: Vec<&str> = found["live"].as_array().unwrap().iter().map(|f| f["what"].as_str().unwrap()).collect();
    for words in ["store: sqlite:raw.db can be read", "sts: this process is arn:", "14 a second, 50000 in 24 hours"] {
        assert!(told.iter().any(|t| t.contains(words)), "{words}: {told:?}");
    }
    // Nobody has verified the sender there: that is said, and the exit code is that of a finding.
    assert!(told.iter().any(|t| t.contains("no verified identity")), "{told:?}");
    assert_eq!(live.status.code(), Some(1));
}
