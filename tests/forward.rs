//! Dead letters on their way to a broker, in virtual time: the loop on real SQLite with a broker that follows a script.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::app::Parts;
use owlpost::clock::{Clock, VirtualClock};
use owlpost::config;
use owlpost::forward::Forward;
use owlpost::model::{Entry, Refused, RefusedReason, Time};
use owlpost::outlet::{Outgoing, Outlet, OutletError};
use owlpost::store::desk::{DeadLetter, Status};
use owlpost::store::sqlite::{Opening, Sqlite};
use owlpost::store::{Command, Desk, Intake, Page, Query, Rows, Upkeep as _};
use owlpost::vitals::Vitals;
use sha2::Digest as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the broker does with a message.
type Mood = dyn Fn(&Outgoing, Instant) -> Verdict + Send + Sync;

enum Verdict {
    Takes,
    /// It has the message, but its answer is lost.
    TakesSilently,
    Says(OutletError),
    /// Nothing comes back at all.
    Hangs,
}

struct Broker {
    mood: Box<Mood>,
    /// By id, how often it got the letter.
    has: Mutex<BTreeMap<String, Vec<Outgoing>>>,
    calls: Mutex<Vec<usize>>,
}

impl Broker {
    fn new(mood: impl Fn(&Outgoing, Instant) -> Verdict + Send + Sync + 'static) -> Arc<Broker> {
        Arc::new(Broker { mood: Box::new(mood), has: Mutex::default(), calls: Mutex::default() })
    }

    fn counts(&self) -> Vec<(String, usize)> {
        self.has.lock().unwrap().iter().map(|(id, got)| (id.clone(), got.len())).collect()
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn message(&self, id: &str) -> Outgoing {
        self.has.lock().unwrap()[id][0].clone()
    }
}

fn header<'m>(message: &'m Outgoing, name: &str) -> Option<&'m str> {
    let mut found = message.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let first = found.next();
    assert_eq!(found.next(), None, "{name} stands once");
    first
}

#[async_trait]
impl Outlet for Broker {
    fn place(&self) -> String {
        "kafka://broker:9092/dead".into()
    }

    async fn send(&self, messages: &[Outgoing]) -> Vec<Result<(), OutletError>> {
        self.calls.lock().unwrap().push(messages.len());
        let mut answers = Vec::new();
        for message in messages {
            let verdict = (self.mood)(message, Instant::now());
            if matches!(verdict, Verdict::Takes | Verdict::TakesSilently) {
                let id = header(message, "owlpost-id").unwrap().to_owned();
                self.has.lock().unwrap().entry(id).or_default().push(message.clone());
            }
            answers.push(match verdict {
                Verdict::Takes => Ok(()),
                Verdict::TakesSilently => Err(OutletError::Unavailable("no answer".into())),
                Verdict::Says(why) => Err(why),
                Verdict::Hangs => std::future::pending().await,
            });
        }
        answers
    }
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let memory = Path::new("/dev/shm");
        Bench { folder: if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap() }
    }

    fn open(&self, clock: &Arc<dyn Clock>) -> Arc<Sqlite> {
        let file = self.folder.path().join("c.toml");
        let store = self.folder.path().join("owlpost.db");
        let text = format!(
            "[store]\nurl = \"sqlite:{}\"\n[[source]]\nname = \"events\"\nkind = \"file\"\npath = \"-\"\n",
            store.display()
        );
        std::fs::write(&file, text).unwrap();
        let config = config::load(&[file], std::iter::empty()).unwrap_or_else(|p| panic!("{p:?}"));
        let parts = Parts::new(&config, clock.clone(), false).unwrap_or_else(|e| panic!("{e}"));
        Arc::new(parts.open_sqlite(&config, Opening::Worker).unwrap_or_else(|e| panic!("{e}")))
    }
}

/// A store with a forward loop on it. Dropped, the loop ends wherever it is, as in a crash.
struct Life {
    store: Arc<Sqlite>,
    clock: Arc<dyn Clock>,
    vitals: Vitals,
    finish: CancellationToken,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Life {
    fn begin(bench: &Bench, broker: &Arc<Broker>) -> Life {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::starting_at(Time(1_795_000_000_000_000)));
        let store = bench.open(&clock);
        let (vitals, finish, stop) = (Vitals::new(), CancellationToken::new(), CancellationToken::new());
        let forward = Forward {
            store: store.clone(),
            outlet: broker.clone(),
            clock: clock.clone(),
            kafka: ["events".to_owned()].into(),
        };
        let (v, f, s) = (vitals.clone(), finish.clone(), stop.clone());
        let task = tokio::spawn(async move { forward.run(v, f, s).await.unwrap_or_else(|e| panic!("{e}")) });
        Life { store, clock, vitals, finish, stop, task }
    }

    async fn refuse(&self, texts: impl IntoIterator<Item = String>) {
        let entry = |text: String| Entry::Refused(Box::new(letter(&text)));
        let entries = texts.into_iter().map(entry).collect();
        self.store.accept(self.clock.now(), Arc::new(entries)).await.unwrap();
    }

    async fn waiting(&self) -> u64 {
        self.store.gauges(self.clock.now()).await.unwrap().unforwarded
    }

    async fn letter(&self, id: &str) -> DeadLetter {
        match self.store.read(&Query::DeadLetter { id: id.into() }, Page::FIRST).await.unwrap() {
            Rows::DeadLetter(Some(letter)) => *letter,
            other => panic!("{other:?}"),
        }
    }

    async fn status(&self) -> Status {
        self.store.report(self.clock.now(), Arc::new(self.vitals.conditions(self.clock.now()))).await.unwrap();
        match self.store.read(&Query::Status { now: self.clock.now() }, Page::FIRST).await.unwrap() {
            Rows::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The power fails.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn letter(text: &str) -> Refused {
    Refused {
        source: "events".into(),
        position: "orders 3 offset 12".into(),
        reason: RefusedReason::NotJson,
        detail: "not JSON: EOF while parsing a value (column 1)".into(),
        body: text.as_bytes()[..text.len().min(64 * 1024)].to_vec(),
        bytes: text.len() as u64,
        sha256: sha2::Sha256::digest(text.as_bytes()).into(),
        headers: vec![("content-type".into(), "application/json".into())],
        broker_id: Some("orders/3/12".into()),
    }
}

fn texts(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|i| format!("{{ {i}"))
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[tokio::test(start_paused = true)]
async fn a_letter_arrives_with_its_bytes_and_says_what_is_wrong_and_where_it_came_from() {
    let (bench, broker) = (Bench::new(), Broker::new(|_, _| Verdict::Takes));
    let life = Life::begin(&bench, &broker);
    life.refuse(["{".into(), "x".repeat(70_000)]).await;
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(life.waiting().await, 0);
    let message = broker.message("in-1");
    assert_eq!((message.body.as_slice(), message.key.as_deref()), (&b"{"[..], Some("events")));
    let at = life.letter("in-1").await.row.first_at;
    let sha256 = life.letter("in-1").await.sha256.unwrap();
    for (name, value) in [
        ("content-type", "application/json"),
        ("owlpost-kind", "input"),
        ("owlpost-reason", "not_json"),
        ("owlpost-detail", "not JSON: EOF while parsing a value (column 1)"),
        ("owlpost-source", "events"),
        ("owlpost-position", "orders 3 offset 12"),
        ("owlpost-topic", "orders"),
        ("owlpost-partition", "3"),
        ("owlpost-offset", "12"),
        ("owlpost-time", &at),
        ("owlpost-count", "1"),
        ("owlpost-bytes", "1"),
        ("owlpost-truncated", "false"),
        ("owlpost-sha256", &sha256),
    ] {
        assert_eq!(header(&message, name), Some(value), "{name}");
    }
    // All of it in one, for brokers that take few headers.
    assert_eq!(message.headers[0].0, "owlpost-letter");
    let all: serde_json::Value = serde_json::from_str(&message.headers[0].1).unwrap();
    assert_eq!((&all["id"], &all["offset"]), (&"in-1".into(), &"12".into()));
    assert_eq!(all["headers"], serde_json::json!([["content-type", "application/json"]]));
    let cut = broker.message("in-2");
    assert_eq!((header(&cut, "owlpost-bytes"), header(&cut, "owlpost-truncated")), (Some("70000"), Some("true")));
    assert_eq!(cut.body.len(), 64 * 1024);
    assert!(life.letter("in-2").await.row.forwarded_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_broker_and_the_mark_sends_again_and_loses_nothing() {
    let bench = Bench::new();
    // The broker has taken the first portion when the worker dies: no answer ever reaches it.
    let silent = Broker::new(|message, _| match header(message, "owlpost-id") {
        Some("in-3") => Verdict::Hangs,
        _ => Verdict::TakesSilently,
    });
    let life = Life::begin(&bench, &silent);
    life.refuse(texts(5)).await;
    tokio::time::sleep(minutes(1)).await;
    assert_eq!((silent.counts(), life.waiting().await), (vec![("in-1".into(), 1), ("in-2".into(), 1)], 5));
    life.crash().await;

    let broker = Broker::new(|_, _| Verdict::Takes);
    let life = Life::begin(&bench, &broker);
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(life.waiting().await, 0);
    assert_eq!(broker.counts(), (1..=5).map(|n| (format!("in-{n}"), 1)).collect::<Vec<_>>());
    // What is marked is not sent by the next worker.
    life.crash().await;
    let life = Life::begin(&bench, &broker);
    tokio::time::sleep(minutes(1)).await;
    assert!(broker.counts().iter().all(|(_, n)| *n == 1), "{:?}", broker.counts());
    life.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_for_an_hour_gets_everything_afterwards_and_is_not_pestered() {
    let start = Instant::now();
    let (bench, broker) = (
        Bench::new(),
        Broker::new(move |_, now| {
            if now - start < minutes(60) {
                Verdict::Says(OutletError::Unavailable("connection refused".into()))
            } else {
                Verdict::Takes
            }
        }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(250)).await;
    tokio::time::sleep(minutes(59)).await;
    assert_eq!(life.waiting().await, 250);
    assert!((60..=70).contains(&broker.calls()), "once a minute at last, not {} times", broker.calls());
    assert!(life.vitals.readiness().reasons.is_empty(), "intake goes on: {:?}", life.vitals.readiness());
    assert_eq!(life.vitals.silent(), []);
    let status = life.status().await;
    let told = status.forwarding.unwrap();
    assert_eq!((told.state.as_str(), told.detail.as_deref()), ("down", Some("connection refused")));
    assert_eq!((told.name.as_str(), status.unforwarded), ("kafka://broker:9092/dead", 250));

    tokio::time::sleep(minutes(3)).await;
    assert_eq!((life.waiting().await, broker.counts().len()), (0, 250));
    assert!(broker.counts().iter().all(|(_, n)| *n == 1));
    assert_eq!(life.status().await.forwarding.unwrap().state, "ready");
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_refused_for_ever_is_marked_and_holds_up_no_other() {
    let (bench, broker) = (
        Bench::new(),
        Broker::new(|message, _| match header(message, "owlpost-id") {
            Some("in-2") => Verdict::Says(OutletError::Refused("larger than message.max.bytes".into())),
            _ => Verdict::Takes,
        }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(3)).await;
    tokio::time::sleep(minutes(1)).await;
    assert_eq!((life.waiting().await, broker.calls()), (0, 1));
    let refused = life.letter("in-2").await.row;
    assert_eq!(refused.forward_error.as_deref(), Some("larger than message.max.bytes"));
    assert_eq!(refused.forwarded_at, None);
    assert_eq!(broker.counts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_never_gets_through_does_not_stop_those_behind_it() {
    let (bench, broker) = (
        Bench::new(),
        Broker::new(|message, _| match header(message, "owlpost-id") {
            Some("in-1") => Verdict::Says(OutletError::Unavailable("timed out".into())),
            _ => Verdict::Takes,
        }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(350)).await;
    tokio::time::sleep(minutes(2)).await;
    assert_eq!((life.waiting().await, broker.counts().len()), (1, 349));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_answers_counts_as_away_and_the_loop_lives() {
    let start = Instant::now();
    let (bench, broker) = (
        Bench::new(),
        Broker::new(move |_, now| if now - start < minutes(20) { Verdict::Hangs } else { Verdict::Takes }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(3)).await;
    tokio::time::sleep(minutes(15)).await;
    assert_eq!(life.vitals.silent(), []);
    assert_eq!(life.status().await.forwarding.unwrap().state, "down");
    tokio::time::sleep(minutes(15)).await;
    assert_eq!(life.waiting().await, 0);
}

#[tokio::test(start_paused = true)]
async fn without_permission_it_is_tried_each_minute_and_goes_on_when_somebody_has_acted() {
    let start = Instant::now();
    let (bench, broker) = (
        Bench::new(),
        Broker::new(move |_, now| {
            if now - start < minutes(30) {
                Verdict::Says(OutletError::Fatal("no permission to write to the topic".into()))
            } else {
                Verdict::Takes
            }
        }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(3)).await;
    tokio::time::sleep(minutes(29)).await;
    assert!((25..=31).contains(&broker.calls()), "{} calls", broker.calls());
    assert!(life.vitals.readiness().reasons.is_empty());
    tokio::time::sleep(minutes(3)).await;
    assert_eq!(life.waiting().await, 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_run_the_last_letters_leave_and_a_broker_that_is_away_is_not_waited_for() {
    let (bench, broker) = (Bench::new(), Broker::new(|_, _| Verdict::Takes));
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(1_000)).await;
    life.finish.cancel();
    tokio::time::timeout(minutes(1), life.task).await.expect("it ends").unwrap();
    assert_eq!(broker.counts().len(), 1_000);

    let away = Broker::new(|_, _| Verdict::Says(OutletError::Unavailable("connection refused".into())));
    drop((life.store, life.vitals, life.clock, life.stop));
    let life = Life::begin(&bench, &away);
    life.refuse(["new".into()]).await;
    life.finish.cancel();
    tokio::time::timeout(minutes(1), life.task).await.expect("it ends").unwrap();
    let left = life.store.gauges(life.clock.now()).await.unwrap().unforwarded;
    assert_eq!((left, away.calls()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_a_moment_for_the_brokers_answer_and_no_longer() {
    let (bench, broker) = (Bench::new(), Broker::new(|_, _| Verdict::Hangs));
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(1)).await;
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(broker.calls(), 1);
    life.stop.cancel();
    let began = Instant::now();
    life.task.await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_is_discarded_while_the_broker_is_away_never_leaves() {
    let start = Instant::now();
    let (bench, broker) = (
        Bench::new(),
        Broker::new(move |_, now| {
            if now - start < minutes(5) {
                Verdict::Says(OutletError::Unavailable("connection refused".into()))
            } else {
                Verdict::Takes
            }
        }),
    );
    let life = Life::begin(&bench, &broker);
    life.refuse(texts(3)).await;
    life.store.act(life.clock.now(), &Command::Discard { ids: vec!["in-2".into()] }).await.unwrap();
    tokio::time::sleep(minutes(10)).await;
    assert_eq!(broker.counts(), [("in-1".to_owned(), 1), ("in-3".to_owned(), 1)]);
}
