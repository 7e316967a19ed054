//! The real binary, killed in the middle of sends (SIGKILL), again and again; judged by what the receiving server has:
//! nobody gets a digest twice but after an honest doubt on a route that resends. Through SES, and through SMTP
//! with STARTTLS and a login, in turn.
//!
//! `OWLPOST_ROUNDS=N` rounds (default 5), `OWLPOST_SEED=K` replays one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use owlpost::cli::demo::endpoint::{Account, Endpoint};
use rusqlite::Connection;

#[path = "support/process.rs"]
mod process;
#[path = "support/sink.rs"]
mod sink;

use process::{Random, Worker, owlpost, post, until};
use sink::Sink;

const EVENTS: usize = 240;

/// Where mails arrive.
enum Server {
    /// The runtime serves the endpoint.
    Ses(Endpoint, #[allow(dead_code, reason = "held while mails arrive")] tokio::runtime::Runtime),
    Smtp(Sink, sink::Certificates),
}

impl Server {
    fn ses() -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // A burst, so that many mails are in the air when the worker dies.
        let account = Account { per_second: 2_000.0, per_day: -1.0, enforced: false, ..Account::default() };
        let endpoint = runtime.block_on(Endpoint::start(account)).unwrap();
        Server::Ses(endpoint, runtime)
    }

    fn mailer(&self) -> String {
        match self {
            Server::Ses(endpoint, _) => {
                format!("kind = \"ses\"\nregion = \"eu-west-1\"\nendpoint_url = \"{}\"", endpoint.url())
            }
            Server::Smtp(sink, tls) => format!(
                "kind = \"smtp\"\nhost = \"localhost\"\nport = {}\ntls = \"starttls\"\nca_file = \"{}\"\nusername = \
                 \"owlpost\"\npassword = \"s3cret\"",
                sink.port("starttls"),
                tls.ca.display()
            ),
        }
    }

    /// How often each digest came.
    fn record(&self) -> BTreeMap<String, usize> {
        let digests: Vec<String> = match self {
            Server::Ses(endpoint, _) => endpoint.taken().into_iter().map(|m| m.digest).collect(),
            Server::Smtp(sink, _) => sink.mails().iter().map(digest_of).collect(),
        };
        let mut counts = BTreeMap::new();
        digests.into_iter().for_each(|digest| *counts.entry(digest).or_insert(0) += 1);
        counts
    }
}

fn digest_of(mail: &serde_json::Value) -> String {
    let raw = base64::engine::general_purpose::STANDARD.decode(mail["raw"].as_str().unwrap()).unwrap();
    let raw = String::from_utf8_lossy(&raw).into_owned();
    let line = raw.lines().find_map(|l| l.strip_prefix("X-Owlpost-Digest: ")).unwrap();
    line.trim().to_owned()
}

fn config(folder: &Path, server: &Server, source: &str) {
    let text = format!(
        r#"
        [store]
        url = "sqlite:owlpost.db"
        [http]
        listen = "127.0.0.1:0"
        {source}
        [mailer]
        {}
        [quota]
        per_second = 1000
        per_day = 1000000
        burst = 50
        [recipients]
        allowed_domains = ["example.com"]
        [delivery]
        in_flight = 32
        backoff_first = "1s"
        [[directory]]
        kind = "rules"
        rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
        [[route]]
        name = "again"
        types = ["com.example.again"]
        audience = ["{{{{data.to}}}}"]
        on_in_doubt = "resend"
        [[route]]
        name = "once"
        types = ["com.example.once"]
        audience = ["{{{{data.to}}}}"]
        on_in_doubt = "bury"
        [log]
        format = "json"
        level = "info"
        "#,
        server.mailer()
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

fn run(folder: &Path, args: &[&str]) -> Worker {
    let mut command = owlpost(folder);
    command.args(["run", "-c", "owlpost.toml"]).args(args);
    for (name, value) in
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")]
    {
        command.env(name, value);
    }
    Worker::spawn(folder, command)
}

fn event(n: usize) -> String {
    let kind = if n.is_multiple_of(2) { "again" } else { "once" };
    format!(
        r#"{{"specversion":"1.0","id":"e{n}","source":"kill","type":"com.example.{kind}","data":{{"to":"user.p{n}"}}}}"#
    )
}

const HTTP: &str = "[[source]]\nname = \"events\"\nkind = \"http\"";

/// Gives how many calls were left in doubt.
fn round(seed: u64, server: Server) -> i64 {
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), &server, HTTP);
    let mut worker = run(folder.path(), &[]);
    let address = worker.address();
    let events: Vec<String> = (0..EVENTS).map(event).collect();
    until("an acknowledgement", || post(&address, &events).then_some(()));
    for _ in 0..4 {
        // In the middle: some have arrived and some have not.
        let seen: usize = server.record().values().sum();
        let more = 1 + random.below(EVENTS as u64 / 5) as usize;
        let by = Instant::now() + Duration::from_secs(5);
        while server.record().values().sum::<usize>() < seen + more && Instant::now() < by {
            std::thread::yield_now();
        }
        worker.kill();
        worker = run(folder.path(), &[]);
        worker.address();
    }
    worker.kill();
    config(folder.path(), &server, "");
    run(folder.path(), &["--until-idle"]).ends_with(0);
    judge(folder.path(), &server, seed)
}

fn judge(folder: &Path, server: &Server, seed: u64) -> i64 {
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    let number = |sql: &str| -> i64 { conn.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(number("SELECT count(*) FROM event"), EVENTS as i64, "seed {seed}: acknowledged is durable");
    assert_eq!(number("SELECT count(*) FROM item WHERE state < 2"), 0, "seed {seed}: all came to an end");
    let store: u32 = conn.query_row("SELECT store_id FROM meta", [], |row| row.get(0)).unwrap();
    let record = server.record();
    let mut rows = conn
        .prepare(
            "SELECT d.no, m.route, (SELECT count(*) FROM attempt a WHERE a.digest_no = d.no AND a.outcome = 0), \
             (SELECT count(*) FROM attempt a WHERE a.digest_no = d.no AND a.outcome = 2), \
             (SELECT count(*) FROM item i WHERE i.digest_no = d.no AND i.state = 2) \
             FROM digest d JOIN mailbox m ON m.no = d.mailbox_no",
        )
        .unwrap();
    let found = rows
        .query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .unwrap();
    let (mut doubts, mut doubled) = (0i64, 0);
    for row in found {
        let (no, route, unknown, accepted, delivered): (i64, String, i64, i64, i64) = row.unwrap();
        let id = owlpost::model::DigestId { store, number: no }.to_string();
        let came = record.get(&id).copied().unwrap_or(0) as i64;
        let context = format!(
            "seed {seed}: digest {id} of route {route} came {came} times, {unknown} doubts, {accepted} accepted"
        );
        assert!(came >= accepted, "what the ledger calls accepted has arrived: {context}");
        assert!(came <= accepted + unknown, "twice only after a doubt: {context}");
        assert!((delivered > 0) == (accepted > 0), "delivered if and only if accepted: {context}");
        if route == "once" {
            assert!(came <= 1 && accepted + unknown <= 1, "never twice where once was promised: {context}");
        }
        doubts += unknown;
        doubled += i64::from(came > 1);
    }
    println!(
        "seed {seed}: {} mails arrived, {doubts} doubts, {doubled} came twice on a route that resends",
        record.values().sum::<usize>()
    );
    doubts
}

#[test]
fn killed_in_the_middle_of_sends_nobody_gets_a_digest_twice_but_after_an_honest_doubt() {
    let seed = std::env::var("OWLPOST_SEED").ok().and_then(|s| s.parse().ok());
    let rounds: u64 = std::env::var("OWLPOST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let all = seed.is_none();
    let seeds = seed.map_or(1..rounds + 1, |seed| seed..seed + 1);
    let mut doubts = 0;
    for seed in seeds {
        let server = if seed.is_multiple_of(2) {
            let tls = sink::certificates();
            let sink = Sink::start(&["--user", "owlpost", "--password", "s3cret"], Some(&tls));
            Server::Smtp(sink, tls)
        } else {
            Server::ses()
        };
        doubts += round(seed, server);
    }
    assert!(!all || doubts > 0, "no kill in {rounds} rounds came in the middle of a call: that proves nothing");
}
