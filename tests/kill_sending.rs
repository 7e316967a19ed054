//! The real binary, killed in the middle of sends (SIGKILL), again and again; judged by what the receiving server has:
//! nobody gets a digest twice but after an honest doubt on a route that resends. Through SES, and through SMTP
//! with STARTTLS and a login, in turn.
//!
//! `OWLPOST_ROUNDS=N` rounds (default 5), `OWLPOST_SEED=K` replays one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
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
    config_of(folder, &server.mailer(), source);
}

fn config_of(folder: &Path, mailer: &str, source: &str) {
    let text = format!(
        r#"
        [store]
        url = "sqlite:owlpost.db"
        [http]
        listen = "127.0.0.1:0"
        {source}
        [mailer]
        {mailer}
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
        "#
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

/// A mail server that takes one mail: it says when it has it, and answers when it is told to.
struct Slow {
    port: u16,
    has: Receiver<()>,
    answer: Sender<()>,
    taken: Arc<AtomicUsize>,
}

impl Slow {
    fn start(serve: fn(TcpStream, &dyn Fn())) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ((has, got), (answer, go)) = (mpsc::channel(), mpsc::channel::<()>());
        let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (count, go) = (taken.clone(), Arc::new(Mutex::new(go)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (has, go, count) = (has.clone(), go.clone(), count.clone());
                std::thread::spawn(move || {
                    serve(stream.unwrap(), &|| {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = has.send(());
                        let _ = go.lock().unwrap().recv();
                    });
                });
            }
        });
        Slow { port, has: got, answer, taken }
    }
}

fn smtp(stream: TcpStream, taken: &dyn Fn()) {
    let (mut lines, mut out) = (BufReader::new(stream.try_clone().unwrap()).lines(), stream);
    let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes());
    say("220 slow ESMTP").unwrap();
    while let Some(Ok(line)) = lines.next() {
        let told = match line.split(' ').next().unwrap() {
            "DATA" => {
                say("354 go on").unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| line != ".")) {}
                taken();
                say("250 queued as 4F3A5B")
            }
            _ => say("250 slow"),
        };
        if told.is_err() {
            return;
        }
    }
}

fn ses(stream: TcpStream, taken: &dyn Fn()) {
    let (mut input, mut out) = (BufReader::new(stream.try_clone().unwrap()), stream);
    loop {
        let (mut line, mut length, mut is_mail) = (String::new(), 0, false);
        while input.read_line(&mut line).is_ok_and(|n| n > 2) {
            is_mail |= line.starts_with("POST");
            let value = line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse().unwrap());
            (length, line) = (value.unwrap_or(length), String::new());
        }
        if line.is_empty() || input.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let body = if is_mail {
            taken();
            r#"{"MessageId":"m-1"}"#
        } else {
            r#"{"SendQuota":{"Max24HourSend":1000,"MaxSendRate":10,"SentLast24Hours":0},"SendingEnabled":true}"#
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        if out.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).is_err() {
            return;
        }
    }
}

/// The machine stands still for longer than a call may take, and the answer comes meanwhile: it is no doubt.
#[test]
fn an_answer_that_came_while_the_worker_stood_still_counts() {
    type Serve = fn(TcpStream, &dyn Fn());
    let by_smtp = |port| format!("kind = \"smtp\"\nhost = \"localhost\"\nport = {port}\ntls = \"none\"");
    let by_ses = |port| format!("kind = \"ses\"\nregion = \"eu-west-1\"\nendpoint_url = \"http://127.0.0.1:{port}\"");
    let both: [(Serve, &dyn Fn(u16) -> String); 2] = [(smtp, &by_smtp), (ses, &by_ses)];
    for (serve, mailer) in both {
        let (server, folder) = (Slow::start(serve), tempfile::tempdir().unwrap());
        let source = "[[source]]\nname = \"in\"\nkind = \"file\"\npath = \"in.ndjson\"";
        config_of(folder.path(), &mailer(server.port), source);
        let text = fs::read_to_string(folder.path().join("owlpost.toml")).unwrap();
        let text = text.replace("in_flight = 32", "in_flight = 32\ncall_timeout = \"2s\"\ndrain = \"2s\"");
        fs::write(folder.path().join("owlpost.toml"), text).unwrap();
        fs::write(folder.path().join("in.ndjson"), event(1) + "\n").unwrap();
        let worker = run(folder.path(), &["--until-idle"]);
        server.has.recv_timeout(process::PATIENCE).unwrap();
        worker.signal("STOP");
        server.answer.send(()).unwrap();
        // As long as that: no event ends it.
        std::thread::sleep(Duration::from_secs(3));
        worker.signal("CONT");
        worker.ends_with(0);
        let store = Connection::open(folder.path().join("owlpost.db")).unwrap();
        let outcomes: Vec<i64> = {
            let mut all = store.prepare("SELECT outcome FROM attempt").unwrap();
            all.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(outcomes, [2], "accepted at once");
        assert_eq!(server.taken.load(Ordering::SeqCst), 1);
    }
}
