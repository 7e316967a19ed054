//! The snippets of `tests/producers/`, as a reader copies them, against the real binary with a source of every kind.

#![allow(clippy::duplicate_mod, reason = "both brokers run on the JVM, and most test files need one of them")]

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use elasticmq::{ENVIRONMENT, ElasticMq};
use kafka::{Broker, PASSWORD, USER, free_ports, unique};
use process::{PATIENCE, Worker, get, owlpost, until};
use serde_json::Value;

const TOKEN: &str = "a-token-of-the-tests-only";

/// What each snippet sends: the end of the id, and the type.
const HTTP: [(&str, &str); 4] = [
    ("requested", "io.athenz.membership.requested.v1"),
    ("decided", "io.athenz.membership.decided.v1"),
    ("added", "io.athenz.membership.added.v1"),
    ("oncall", "com.example.oncall.started.v1"),
];
const BROKER: [(&str, &str); 2] = [HTTP[0], HTTP[1]];

/// One snippet: its name, the end of its events' `source`, and how it is started.
struct Snippet {
    name: &'static str,
    program: Box<dyn Fn() -> Command>,
}

impl Snippet {
    fn new(name: &'static str, program: impl Fn() -> Command + 'static) -> Snippet {
        Snippet { name, program: Box::new(program) }
    }

    /// For one request of a member of its own, so that one's decision does not close another one's request.
    fn command(&self, address: &str) -> Command {
        let mut command = (self.program)();
        command
            .args([self.name, &format!("user.{}", self.name)])
            .env("OWLPOST_URL", format!("http://{address}"))
            .env("OWLPOST_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    fn source(&self) -> &'static str {
        match self.name {
            name if name.contains("kafka") => "kafka",
            name if name.contains("sqs") => "sqs",
            _ => "http",
        }
    }

    fn events(&self) -> &'static [(&'static str, &'static str)] {
        if self.source() == "http" { &HTTP } else { &BROKER }
    }
}

/// The worker with its three sources, and where they are.
struct World {
    folder: tempfile::TempDir,
    address: String,
    topic: String,
    queue: String,
    _worker: Worker,
}

impl World {
    fn start(listen: &str) -> World {
        let (broker, sqs) = (Broker::shared(), ElasticMq::shared());
        let (topic, queue) = (broker.topic("producers", 2), sqs.queue(&[]));
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"
[http]
listen = "{listen}"
token = "{TOKEN}"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "http"
kind = "http"
[[source]]
name = "kafka"
kind = "kafka"
brokers = ["{}"]
topics = ["{topic}"]
group = "{}"
[source.properties]
"security.protocol" = "plaintext"
[[source]]
name = "sqs"
kind = "sqs"
queue_url = "{queue}"
endpoint_url = "{}"
[mailer]
kind = "outbox"
dir = "outbox"
[recipients]
allowed_domains = ["example.com"]
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
cadence = {{ first_after = "1h" }}
[[route]]
name = "others"
types = ["io.athenz.membership.decided.v1", "io.athenz.membership.added.v1", "com.example.oncall.started.v1"]
template = "digest"
cadence = {{ first_after = "1h" }}
[log]
format = "json"
"#,
            broker.plaintext(),
            unique("group"),
            sqs.endpoint()
        );
        fs::write(folder.path().join("owlpost.toml"), text).unwrap();
        let mut command = owlpost(folder.path());
        command.envs(ENVIRONMENT).args(["run", "-c", "owlpost.toml"]);
        let mut worker = Worker::spawn(folder.path(), command);
        let address = worker.address();
        World { folder, address, topic, queue, _worker: worker }
    }

    /// Runs the snippet to its end.
    fn run(&self, snippet: &Snippet) {
        let broker = Broker::shared();
        let mut command = snippet.command(&self.address);
        command
            .env("KAFKA_BROKERS", broker.sasl_ssl())
            .env("KAFKA_TOPIC", &self.topic)
            .env("KAFKA_USER", USER)
            .env("KAFKA_PASSWORD", PASSWORD)
            .env("KAFKA_CA", &broker.certificates().ca)
            .env("SQS_QUEUE_URL", &self.queue)
            .env("AWS_ENDPOINT_URL_SQS", ElasticMq::shared().endpoint())
            .env("AWS_DEFAULT_REGION", "elasticmq")
            .envs(ENVIRONMENT);
        succeeds(snippet, &command.output().unwrap_or_else(|e| panic!("{}: {e}", snippet.name)));
    }

    /// `owlpost_events_total` of all sources.
    fn counted(&self, outcome: &str) -> usize {
        let metrics = get(&self.address, "/metrics").unwrap().1;
        let lines = metrics.lines().filter(|line| line.starts_with("owlpost_events_total{"));
        let of = format!("outcome=\"{outcome}\"");
        let numbers = lines.filter(|line| line.contains(&of)).map(|line| line.rsplit_once(' ').unwrap().1);
        numbers.map(|number| number.parse::<usize>().unwrap()).sum()
    }

    /// The command's answer, an object a line.
    fn ask(&self, args: &[&str]) -> Vec<Value> {
        let output = owlpost(self.folder.path()).args(args).args(["--json", "-c", "owlpost.toml"]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Of each event that made items: (type, how many items), by (source, id).
    fn ledger(&self) -> Events {
        let mut found = BTreeMap::new();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        for row in self.ask(&["ledger"]) {
            let key = (text(&row, "source"), text(&row, "id"));
            found.entry(key).or_insert_with(|| (text(&row, "type"), 0)).1 += 1;
        }
        found
    }
}

fn succeeds(snippet: &Snippet, output: &Output) {
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} ended with {}:\n{told}", snippet.name, output.status);
}

type Events = BTreeMap<(String, String), (String, usize)>;

/// What a snippet brings, each with one item.
fn events(language: &str, snippet: &Snippet) -> Events {
    let source = if language == "curl" { "curl".to_owned() } else { format!("{language}-{}", snippet.name) };
    let event = |(what, kind): &(&str, &str)| {
        ((format!("access-desk/{source}"), format!("{}-{what}", snippet.name)), ((*kind).to_owned(), 1))
    };
    snippet.events().iter().map(event).collect()
}

/// Runs each snippet twice. After the first run each of its events is there once, with its type and one item; the second
/// changes nothing but the count of duplicates.
fn arrive_once(language: &str, snippets: &[Snippet]) {
    let world = World::start("127.0.0.1:0");
    let expected: Events = snippets.iter().flat_map(|snippet| events(language, snippet)).collect();
    snippets.iter().for_each(|snippet| world.run(snippet));
    until("the events", || (world.counted("accepted") + world.counted("dead") >= expected.len()).then_some(()));
    assert_eq!(world.counted("dead"), 0, "{:?}", world.ask(&["dead-letters", "list"]));
    assert_eq!(world.ledger(), expected);
    for (source, id) in expected.keys() {
        let why = world.ask(&["why", id]).remove(0);
        let (matches, history) = (why["matches"].as_array().unwrap(), why["history"].as_array().unwrap());
        let told: Vec<&Value> = matches.iter().map(|event| &event["source"]).filter(|s| *s == source).collect();
        assert_eq!(told.len(), 1, "{why}");
        let received = history.iter().filter(|step| step["what"] == "received").count();
        assert_eq!(received, matches.len(), "{why}");
    }

    snippets.iter().for_each(|snippet| world.run(snippet));
    until("the duplicates", || (world.counted("duplicate") >= expected.len()).then_some(()));
    assert_eq!(world.counted("duplicate"), expected.len());
    assert_eq!((world.counted("accepted"), world.counted("dead")), (expected.len(), 0));
    assert_eq!(world.ledger(), expected);

    drop(world);
    snippets.iter().filter(|snippet| snippet.source() == "http").for_each(|snippet| go_on(language, snippet));
}

/// Its first connection is lost without an answer, then it is told to come later, twice, then nobody listens, then the
/// worker is there.
fn go_on(language: &str, snippet: &Snippet) {
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut command = snippet.command(&address);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the first connection", || listener.accept().ok());
    let mut not_before = Instant::now();
    for (status, seconds) in [("429 Too Many Requests", 2), ("503 Service Unavailable", 1)] {
        tells_to_wait(&listener, status, seconds);
        let came = Instant::now();
        assert!(came >= not_before, "{} {}: before Retry-After was over", language, snippet.name);
        not_before = came + Duration::from_secs(seconds);
    }
    drop(listener);
    let world = World::start(&address);
    succeeds(snippet, &running.wait_with_output().unwrap());
    assert_eq!(world.ledger(), events(language, snippet));
}

/// Takes one request to its end, as the worker does whose intake is full, or that stops.
fn tells_to_wait(listener: &TcpListener, status: &str, seconds: u64) {
    let (mut stream, _) = until("a request", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut request, mut piece) = (Vec::new(), [0u8; 4096]);
    while !is_whole(&request) {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "half a request");
        request.extend_from_slice(&piece[..n]);
    }
    let body = r#"{"error":"later"}"#;
    let answer = format!(
        "HTTP/1.1 {status}\r\nretry-after: {seconds}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).unwrap();
}

/// Whether the head is there and the body that it announces.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let body = &request[end + 4..];
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None => head.contains("transfer-encoding: chunked") && body.ends_with(b"0\r\n\r\n"),
    }
}

fn snippets(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers").join(language)
}

/// What `tests/run` has fetched for a language.
fn fetched(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let found = target.join("servers/producers").join(path);
    assert!(found.exists(), "{} is missing; tests/run fetches it: tests/run producers", found.display());
    found
}

/// Builds what the test then starts; the output is told if it fails.
fn build(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn curl_brings_each_event_once() {
    arrive_once("curl", &[Snippet::new("http", || Command::new(snippets("curl").join("http.sh")))]);
}

#[test]
fn python_brings_each_event_once() {
    let python = fetched("python/bin/python");
    let snippet = |name: &'static str| {
        let (python, file) = (python.clone(), snippets("python").join(name.replace('-', "_") + ".py"));
        Snippet::new(name, move || {
            let mut command = Command::new(&python);
            // Its own libraries only, and nothing written beside the sources.
            command.arg("-IB").arg(&file);
            command
        })
    };
    arrive_once("python", &["http-plain", "http-sdk", "kafka-plain", "kafka-sdk", "sqs"].map(snippet));
}

#[test]
fn java_brings_each_event_once() {
    let classes = tempfile::tempdir().unwrap();
    let libs = fetched("java/libs");
    let mut path = libs.join("*").into_os_string();
    let sources = fs::read_dir(snippets("java")).unwrap().map(|entry| entry.unwrap().path());
    let sources: Vec<PathBuf> = sources.filter(|path| path.extension().is_some_and(|e| e == "java")).collect();
    build(
        Command::new("javac")
            .args(["-Xlint:all", "-Werror", "-proc:none", "-cp"])
            .arg(&path)
            .arg("-d")
            .arg(classes.path())
            .args(sources),
    );
    path.push(":");
    path.push(classes.path());
    let snippet = |(name, class): (&'static str, &'static str)| {
        let path = path.clone();
        Snippet::new(name, move || {
            let mut command = Command::new("java");
            command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(&path).arg(class);
            command
        })
    };
    let all = [
        ("http-plain", "HttpPlain"),
        ("http-sdk", "HttpSdk"),
        ("kafka-plain", "KafkaPlain"),
        ("kafka-sdk", "KafkaSdk"),
        ("sqs", "Sqs"),
    ];
    arrive_once("java", &all.map(snippet));
}

#[test]
fn go_brings_each_event_once() {
    let programs = tempfile::tempdir().unwrap();
    let folder = programs.path().to_owned();
    build(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&folder)
            .arg("./...")
            .current_dir(snippets("go"))
            .env("GOMODCACHE", fetched("go/mod"))
            .env("GOCACHE", fetched("go/cache"))
            .env("GOFLAGS", "-mod=readonly -buildvcs=false")
            // Everything is in the cache: nothing is fetched.
            .envs([("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]),
    );
    let snippet = |name: &'static str| {
        let program = folder.join(name);
        Snippet::new(name, move || Command::new(&program))
    };
    arrive_once("go", &["http-plain", "http-sdk", "kafka-plain", "kafka-sdk", "sqs"].map(snippet));
}

#[test]
fn node_brings_each_event_once() {
    // Node looks for modules beside the file.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fetched("node/node_modules"), folder.path().join("node_modules")).unwrap();
    let path = folder.path().to_owned();
    let snippet = |name: &'static str| {
        let file = path.join(format!("{name}.mjs"));
        fs::copy(snippets("node").join(format!("{name}.mjs")), &file).unwrap();
        Snippet::new(name, move || {
            let mut command = Command::new("node");
            command.arg(&file);
            command
        })
    };
    arrive_once("node", &["http-plain", "http-sdk", "kafka-plain", "kafka-sdk", "sqs"].map(snippet));
}

#[test]
fn the_guide_names_every_snippet_and_nothing_else() {
    let guide = include_str!("producers/README.md");
    let links = guide.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    let linked: BTreeSet<PathBuf> = links.map(PathBuf::from).collect();
    let root = snippets("");
    let mut found = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let made = ["target", "node_modules", "venv", "__pycache__"];
            if path.is_dir() {
                // What somebody who tries a snippet here makes is not ours.
                folders.extend(Some(path).filter(|path| !made.iter().any(|name| path.ends_with(name))));
            } else {
                found.insert(path.strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    // What tools write beside what a person does.
    for told_by_another in ["README.md", "go/go.sum", "node/package-lock.json"] {
        assert!(found.remove(Path::new(told_by_another)));
    }
    assert_eq!(linked, found);
}
