//! The web identity of the GKE pod, with the environment that its manifest has: at an STS that others wrote, and at one that
//! looks into the tokens, as AWS does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::configuration::environment;
use crate::emulator::Emulator;
use crate::process::{Worker, http, owlpost, until};
use crate::tools::{named, pod, template};

const CONFIG: &str = r#"
[http]
listen = "127.0.0.1:0"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "events"
kind = "http"
[mailer]
kind = "ses"
from = "Athenz <access@example.com>"
[quota]
per_second = 1000
per_day = 100000
[recipients]
allowed_domains = ["example.com"]
[[directory]]
kind = "rules"
rules = [{ principal = "user.{name}", address = "{name}@example.com" }]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
[log]
format = "json"
"#;

/// What the manifest's container has for AWS, with the token in `folder` instead of the projected volume.
fn variables(folder: &Path, sts: &str, ses: &str) -> BTreeMap<String, String> {
    let documents = template("gke-web-identity", &[]);
    let worker = &pod(named(&documents, "Deployment", "owlpost-deliver")).unwrap()["containers"][0];
    let mut env: BTreeMap<_, _> =
        environment(worker).into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect();
    let token = env.get_mut("AWS_WEB_IDENTITY_TOKEN_FILE").unwrap();
    *token = folder.join("token").to_str().unwrap().to_owned();
    // The pod's name.
    env.insert("AWS_ROLE_SESSION_NAME".to_owned(), "owlpost-deliver-0".to_owned());
    env.insert("AWS_ENDPOINT_URL_STS".to_owned(), format!("http://{sts}"));
    env.insert("AWS_ENDPOINT_URL_SESV2".to_owned(), format!("http://{ses}"));
    env
}

fn command(folder: &Path, env: &BTreeMap<String, String>) -> Command {
    fs::write(folder.join("owlpost.toml"), CONFIG).unwrap();
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("HOME", folder).env("OWLPOST_CONFIG", "owlpost.toml").envs(env);
    command
}

/// A token of a cluster; `id` tells one from another.
fn token(id: &str, audience: &str, expires: i64) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims =
        json!({ "aud": [audience], "exp": expires, "jti": id, "sub": "system:serviceaccount:owlpost:owlpost" });
    format!("{}.{}.{}", part(json!({ "alg": "RS256" })), part(claims), URL_SAFE_NO_PAD.encode("signature"))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// As the kubelet does it: a new file in the old one's place.
fn place(folder: &Path, token: &str) {
    fs::write(folder.join("token.new"), token).unwrap();
    fs::rename(folder.join("token.new"), folder.join("token")).unwrap();
}

/// An STS that refuses tokens for others and tokens that are too old, and hands out credentials for a moment only.
struct Sts {
    address: String,
    /// The ids of the tokens that it took.
    taken: Arc<Mutex<Vec<String>>>,
}

impl Sts {
    fn start() -> Sts {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let ids = taken.clone();
        // It ends with the process: a test's thread that waits for a connection costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own affair.
                let _ = answer(stream, &ids);
            }
        });
        Sts { address, taken }
    }

    fn took(&self, id: &str) -> bool {
        self.taken.lock().unwrap().iter().any(|taken| taken == id)
    }
}

fn answer(mut stream: TcpStream, taken: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let field =
        |name: &str| body.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
    let claims: Value = field("WebIdentityToken")
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let refused = |code: &str, message: &str| {
        let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
        ("400 Bad Request", format!("<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"))
    };
    let (status, xml) = if field("Action") == "GetCallerIdentity" {
        let who = "<Arn>arn:aws:sts::111122223333:assumed-role/owlpost/owlpost-deliver-0</Arn><Account>111122223333</Account>";
        (
            "200 OK",
            format!(
                "<GetCallerIdentityResponse><GetCallerIdentityResult>{who}</GetCallerIdentityResult></GetCallerIdentityResponse>"
            ),
        )
    } else if claims["aud"] != json!(["sts.amazonaws.com"]) {
        refused("InvalidIdentityToken", "Incorrect token audience")
    } else if claims["exp"].as_i64() < Some(now()) {
        refused("ExpiredTokenException", "Token expired: current date must be before the expiration date")
    } else {
        taken.lock().unwrap().push(claims["jti"].as_str().unwrap_or_default().to_owned());
        // So soon at its end that the client asks again for its next call.
        let until = jiff::Timestamp::from_second(now() + 2).unwrap();
        let keys = format!(
            "<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{until}</Expiration>"
        );
        (
            "200 OK",
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        )
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        xml.len()
    );
    stream.write_all((head + &xml).as_bytes())
}

/// What `check --live` says of AWS.
fn live(folder: &Path, env: &BTreeMap<String, String>) -> String {
    let out = command(folder, env).args(["check", "--live", "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    let findings = said["live"].as_array().unwrap().iter();
    findings.map(|found| format!("{} {}\n", found["ok"], found["what"].as_str().unwrap())).collect()
}

#[test]
fn the_pods_environment_is_a_role_at_an_sts_that_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(folder.path());
    place(folder.path(), &token("one", "sts.amazonaws.com", now() + 3600));
    let env = variables(folder.path(), &emulator.address, &emulator.address);
    let said = live(folder.path(), &env);
    let role = "true sts: this process is arn:aws:sts::111122223333:assumed-role/owlpost/owlpost-deliver-0";
    assert!(said.contains(role), "{said}");
    assert!(said.contains("true ses: region eu-west-1"), "{said}");
}

#[test]
fn what_is_wrong_with_a_token_is_told_by_the_live_check() {
    let folder = tempfile::tempdir().unwrap();
    let sts = Sts::start();
    let env = variables(folder.path(), &sts.address, &sts.address);
    let hint = "check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE";
    place(folder.path(), &token("other", "gke.example.com", now() + 3600));
    let said = live(folder.path(), &env);
    assert!(said.contains("InvalidIdentityToken") && said.contains("Incorrect token audience"), "{said}");
    assert!(said.contains(hint), "{said}");
    place(folder.path(), &token("old", "sts.amazonaws.com", now() - 60));
    let said = live(folder.path(), &env);
    assert!(said.contains("ExpiredTokenException") && said.contains(hint), "{said}");
    fs::remove_file(folder.path().join("token")).unwrap();
    let said = live(folder.path(), &env);
    assert!(said.contains("No such file or directory") && said.contains(hint), "{said}");
    assert!(sts.taken.lock().unwrap().is_empty());
    let mut without = env.clone();
    without.remove("AWS_REGION");
    let said = live(folder.path(), &without);
    assert!(said.contains("no AWS region is known: set mailer.region or AWS_REGION"), "{said}");
}

#[test]
fn a_token_that_kubernetes_renewed_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (emulator, sts) = (Emulator::start(folder.path()), Sts::start());
    place(folder.path(), &token("one", "sts.amazonaws.com", now() + 3600));
    let mut run = command(folder.path(), &variables(folder.path(), &sts.address, &emulator.address));
    run.arg("run");
    let mut worker = Worker::spawn(folder.path(), run);
    let address = worker.address();
    let publish = |id: &str| {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"io.athenz.membership.requested.v1","data":{{"domain":"sports","collection":{{"kind":"role","name":"{id}"}},"member":"user.joe","change":"add","requester":"user.joe","recipients":["user.{id}"]}}}}"#
        );
        let (status, body) =
            http(&address, "POST", "/v1/events", "content-type: application/cloudevents+json\r\n", event.as_bytes())
                .unwrap();
        assert_eq!(status, 202, "{body}");
    };
    let arrived = |id: &str| {
        let to = format!("{id}@example.com");
        until("the mail", || emulator.mails().iter().any(|mail| mail["To"][0] == *to).then_some(()));
    };
    publish("first");
    arrived("first");
    assert!(sts.took("one"));
    place(folder.path(), &token("two", "sts.amazonaws.com", now() + 3600));
    publish("second");
    arrived("second");
    until("the new token", || sts.took("two").then_some(()));
    worker.signal("TERM");
    assert!(worker.wait().success(), "{}", worker.log());
    let log = worker.log();
    assert!(!log.contains("eyJ") && !log.contains("@example.com"), "no token and no address: {log}");
}
