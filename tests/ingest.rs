//! The intake loop on a scripted source and a store that only writes down what it is given.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::clock::{Clock, VirtualClock};
use owlpost::decode::{Decoder, Limits, Settings};
use owlpost::directory::{Audience, Directory, DirectoryError};
use owlpost::ingest::{self, Bounds, Pipeline};
use owlpost::model::{Arrival, Entry, Person, Receipt, RefusedReason, Time, is_collection};
use owlpost::route::{RouteConfig, Router};
use owlpost::source::{Ack, Batch, Health, Message, Room, Source, SourceError};
use owlpost::store::{Intake, Place, StoreError};
use owlpost::vitals::Vitals;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The batch, and the receipts of all its events.
type Acked = (u64, Vec<Receipt>);

/// `big:role.all` has so many people.
const CROWD: usize = 500;

/// Gives out its batches in order, and again what was refused; at its end when all are acknowledged.
#[derive(Default)]
struct Tape {
    batches: VecDeque<(u64, Vec<String>)>,
    again: VecDeque<(u64, Vec<String>)>,
    out: VecDeque<(u64, Vec<String>)>,
    acked: Arc<Mutex<Vec<Acked>>>,
    /// Asked at each acknowledgement what it has just then.
    store: Option<Arc<Notebook>>,
    had: Arc<Mutex<Vec<usize>>>,
}

impl Tape {
    fn of(batches: Vec<Vec<String>>) -> Tape {
        Tape { batches: batches.into_iter().enumerate().map(|(n, b)| (n as u64, b)).collect(), ..Tape::default() }
    }
}

#[async_trait]
impl Source for Tape {
    fn name(&self) -> &str {
        "tape"
    }

    async fn next(&mut self, _room: Room) -> Result<Option<Batch>, SourceError> {
        let Some((number, bodies)) = self.again.pop_front().or_else(|| self.batches.pop_front()) else {
            return match self.out.is_empty() {
                true => Ok(None),
                false => std::future::pending().await,
            };
        };
        let message = |(n, body): (usize, &String)| Message {
            position: format!("batch {number} message {n}"),
            broker_id: None,
            headers: vec![],
            body: body.clone().into_bytes(),
            time: None,
        };
        let messages = bodies.iter().enumerate().map(message).collect();
        self.out.push_back((number, bodies));
        Ok(Some(Batch { messages, ack: Ack { batch: number, epoch: 0 } }))
    }

    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]) {
        let (number, _) = self.out.pop_front().unwrap();
        assert_eq!(number, ack.batch, "settled in the order they were given");
        self.acked.lock().unwrap().push((number, receipts.concat()));
        self.had.lock().unwrap().extend(self.store.as_ref().map(|store| store.has.lock().unwrap().0));
    }

    async fn refuse(&mut self, ack: Ack, _retry_in: Duration) {
        let refused = self.out.pop_front().unwrap();
        assert_eq!(refused.0, ack.batch, "settled in the order they were given");
        self.again.push_back(refused);
    }

    async fn stop(&mut self, _by: Instant) {}

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// Writes down each transaction; the first `away` of them fail.
#[derive(Default)]
struct Notebook {
    away: Mutex<usize>,
    /// Told with each transaction that mails wait for their moment.
    calls_wait: Option<Vitals>,
    /// Larger transactions run into a timeout; 0: none does.
    most: usize,
    pieces: Mutex<Vec<Arc<Vec<Entry>>>>,
    /// What holds an event with one of these ids it can never take.
    poison: &'static [&'static str],
    /// How often it said so.
    broken: Mutex<usize>,
    /// So often it writes nothing new, after its first transaction; it still knows what it has.
    full: Mutex<usize>,
    /// It takes a batch that is handed over before the one before it is durable.
    ahead: bool,
    /// How many it has now, and had at most.
    has: Mutex<(usize, usize)>,
}

impl Notebook {
    fn sizes(&self) -> Vec<(usize, usize)> {
        let items = |entry: &Entry| match entry {
            Entry::Event(arrival) => arrival.asked.iter().map(|asked| asked.people.len()).sum(),
            Entry::Refused(_) => 0,
        };
        self.pieces.lock().unwrap().iter().map(|piece| (piece.len(), piece.iter().map(items).sum())).collect()
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let pieces = self.pieces.lock().unwrap();
        let arrival = |entry: &Entry| match entry {
            Entry::Event(arrival) => (**arrival).clone(),
            Entry::Refused(refused) => panic!("{refused:?}"),
        };
        pieces.iter().flat_map(|piece| piece.iter().map(arrival)).collect()
    }
}

#[async_trait]
impl Intake for Notebook {
    async fn accept(&self, _now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>, StoreError> {
        // Long enough for the loop to read the next batch.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(vitals) = &self.calls_wait {
            vitals.set_calls_wait();
        }
        if self.most > 0 && entries.len() > self.most {
            return Err(StoreError::Unavailable("canceling statement due to statement timeout".into()));
        }
        let mut away = self.away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return Err(StoreError::Unavailable("away".into()));
        }
        if *self.full.lock().unwrap() > 0 {
            let known: BTreeSet<String> = self.arrivals().into_iter().map(|a| a.event.id).collect();
            let knows = |entry: &Entry| matches!(entry, Entry::Event(a) if known.contains(&a.event.id));
            if entries.iter().all(knows) {
                return Ok(vec![Receipt::Duplicate; entries.len()]);
            }
            if !known.is_empty() {
                *self.full.lock().unwrap() -= 1;
                return Err(StoreError::Unavailable("database or disk is full".into()));
            }
        }
        let poisons = |entry: &Entry| matches!(entry, Entry::Event(a) if self.poison.contains(&a.event.id.as_str()));
        if entries.iter().any(poisons) {
            *self.broken.lock().unwrap() += 1;
            return Err(StoreError::Broken("index row size exceeds the maximum".into()));
        }
        let receipt = |entry: &Entry| match entry {
            Entry::Event(_) => Receipt::Accepted,
            Entry::Refused(one) => Receipt::Refused { reason: one.reason, detail: one.detail.clone(), at: None },
        };
        let receipts = entries.iter().map(receipt).collect();
        self.pieces.lock().unwrap().push(entries);
        Ok(receipts)
    }

    async fn accept_in_line(
        &self,
        now: Time,
        entries: Arc<Vec<Entry>>,
        place: Place,
    ) -> Result<Vec<Receipt>, StoreError> {
        {
            let mut has = self.has.lock().unwrap();
            *has = (has.0 + 1, has.1.max(has.0 + 1));
        }
        let taken = match place.turn().await {
            Ok(()) => self.accept(now, entries).await,
            failed => failed.map(|()| vec![]),
        };
        self.has.lock().unwrap().0 -= 1;
        place.ends(taken.is_ok());
        taken
    }

    fn works_ahead(&self) -> bool {
        self.ahead
    }
}

#[test]
fn a_store_that_works_ahead_has_two_batches_at_once_and_they_end_in_their_order_whatever_fails() {
    let batches = || (0..6).map(|n| for_one_person(n * 600, 600)).collect();
    for away in 0..4 {
        let store = Notebook { away: Mutex::new(away), ahead: true, ..Notebook::default() };
        let (store, acked) = take_into(store, batches(), CROWD);
        let arrivals = store.arrivals();
        assert!(arrivals.is_sorted_by(|a, b| a.event.id < b.event.id && a.time < b.time), "{away}");
        let acked: Vec<(u64, usize)> = acked.into_iter().map(|(n, receipts)| (n, receipts.len())).collect();
        assert_eq!(acked, [0, 1, 2, 3, 4, 5].map(|n| (n, 600)), "{away}");
        assert_eq!(store.has.lock().unwrap().1, 2, "{away}");
    }
    let (store, _) = take_into(Notebook::default(), batches(), CROWD);
    assert_eq!(store.has.lock().unwrap().1, 1, "one that does not has one");
}

#[test]
fn small_batches_follow_one_another_also_where_the_store_works_ahead() {
    let store = Notebook { ahead: true, ..Notebook::default() };
    let (store, acked) = take_into(store, (0..6).map(|n| for_one_person(n * 100, 100)).collect(), CROWD);
    assert_eq!((acked.len(), store.has.lock().unwrap().1), (6, 1));
}

#[test]
fn a_batch_in_pieces_is_acknowledged_after_its_last_also_where_the_store_works_ahead() {
    let store = Notebook { ahead: true, ..Notebook::default() };
    let (store, acked) = take_into(store, (0..3).map(|n| for_one_person(n * 2_500, 2_500)).collect(), CROWD);
    let sizes: Vec<usize> = store.sizes().into_iter().map(|(entries, _)| entries).collect();
    assert!(sizes.len() > 3 && store.has.lock().unwrap().1 == 2, "{sizes:?}");
    let acked: Vec<(u64, usize)> = acked.into_iter().map(|(n, receipts)| (n, receipts.len())).collect();
    assert_eq!(acked, [0, 1, 2].map(|n| (n, 2_500)));
}

#[tokio::test(start_paused = true)]
async fn the_store_has_the_next_batch_before_the_last_is_acknowledged() {
    for ahead in [false, true] {
        let store = Arc::new(Notebook { ahead, ..Notebook::default() });
        let batches = (0..6).map(|n| for_one_person(n * 600, 600)).collect();
        let tape = Tape { store: Some(store.clone()), ..Tape::of(batches) };
        let had = tape.had.clone();
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let intake = Arc::new(pipeline(CROWD));
        ingest::run(Box::new(tape), intake, store, Bounds::default(), Vitals::new(), wake, stop).await.unwrap();
        assert_eq!(*had.lock().unwrap(), [1, 1, 1, 1, 1, 0], "ahead: {ahead}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_both_batches_that_the_store_has_are_finished_and_acknowledged() {
    let store = Arc::new(Notebook { ahead: true, ..Notebook::default() });
    let tape = Tape::of((0..6).map(|n| for_one_person(n * 600, 600)).collect());
    let (acked, stop) = (tape.acked.clone(), CancellationToken::new());
    let intake = ingest::run(
        Box::new(tape),
        Arc::new(pipeline(CROWD)),
        store.clone(),
        Bounds::default(),
        Vitals::new(),
        Arc::new(Notify::new()),
        stop.clone(),
    );
    let task = tokio::spawn(intake);
    while store.has.lock().unwrap().0 < 2 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    task.await.unwrap().unwrap();
    let acked: Vec<u64> = acked.lock().unwrap().iter().map(|(n, _)| *n).collect();
    assert_eq!((store.sizes().len(), acked), (2, vec![0, 1]));
}

struct Crowd;

#[async_trait]
impl Directory for Crowd {
    async fn resolve(&self, who: &[String], _max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        let person = |principal: String| Person { principal, address: None, zone: None, language: None };
        let audience = |reference: &String| {
            let people = match is_collection(reference) {
                true => (0..CROWD).map(|n| person(format!("user.p{n}"))).collect(),
                false => vec![person(reference.clone())],
            };
            Audience { reference: reference.clone(), known: true, people, inside: vec![] }
        };
        Ok(who.iter().map(audience).collect())
    }
}

fn event(id: &str, kind: &str, more: serde_json::Value) -> String {
    let mut data = json!({"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "user.joe",
        "change": "add", "decision": "approve"});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"specversion": "1.0", "id": id, "source": "zms", "type": kind, "data": data}).to_string()
}

fn news(id: usize, recipients: &[&str]) -> String {
    event(&format!("{id:06}"), "news", json!({ "recipients": recipients }))
}

fn pipeline(recipients_max: usize) -> Pipeline {
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::starting_at(Time::parse("2026-11-21T12:00:00Z").unwrap()));
    let audience = vec!["{{data.domain}}:role.admin".into()];
    let route = RouteConfig { types: vec!["*".into()], audience, ..RouteConfig::named("all") };
    let settings =
        Settings { source: "tape".into(), origin: "tape".into(), realm: String::new(), limits: Limits::default() };
    Pipeline {
        source: "tape".into(),
        decoder: Decoder::new(settings),
        router: Arc::new(Router::new(&[route], "").unwrap()),
        directory: Arc::new(Crowd),
        clock,
        retention: Duration::from_secs(90 * 86_400),
        recipients_max,
    }
}

/// Runs the loop over all batches; the store fails `away` times.
fn take(batches: Vec<Vec<String>>, away: usize, recipients_max: usize) -> (Arc<Notebook>, Vec<Acked>) {
    take_into(Notebook { away: Mutex::new(away), ..Notebook::default() }, batches, recipients_max)
}

fn take_into(store: Notebook, batches: Vec<Vec<String>>, recipients_max: usize) -> (Arc<Notebook>, Vec<Acked>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let pipeline = pipeline(recipients_max);
        let vitals = store.calls_wait.clone().unwrap_or_default();
        let store = Arc::new(store);
        let tape = Tape::of(batches);
        let acked = tape.acked.clone();
        let intake = ingest::run(
            Box::new(tape),
            Arc::new(pipeline),
            store.clone(),
            Bounds::default(),
            vitals,
            Arc::new(Notify::new()),
            CancellationToken::new(),
        );
        intake.await.unwrap();
        let acked = acked.lock().unwrap().clone();
        (store, acked)
    })
}

#[test]
fn a_batch_that_asks_a_crowd_is_committed_in_pieces_and_acknowledged_once() {
    let events = |from: usize| (from..from + 300).map(|n| news(n, &["big:role.all"])).collect();
    let (store, acked) = take(vec![events(0), events(300)], 0, CROWD);
    let sizes = store.sizes();
    assert!(sizes.iter().all(|(_, items)| *items <= 20_000), "{sizes:?}");
    assert_eq!(sizes.iter().map(|(entries, _)| entries).sum::<usize>(), 600);
    let ids: Vec<String> = store.arrivals().into_iter().map(|a| a.event.id).collect();
    assert_eq!(ids, (0..600).map(|n| format!("{n:06}")).collect::<Vec<_>>(), "in their order");
    let all = |n| (n, vec![Receipt::Accepted; 300]);
    assert_eq!(acked, [all(0), all(1)]);
}

fn for_one_person(from: usize, events: usize) -> Vec<String> {
    (from..from + events).map(|n| news(n, &["user.joe"])).collect()
}

#[test]
fn once_the_store_is_known_to_be_quick_a_batch_that_asks_one_person_an_event_is_one_transaction() {
    let (store, acked) = take((0..9).map(|n| for_one_person(n * 7_000, 7_000)).collect(), 0, CROWD);
    let sizes: Vec<usize> = store.sizes().into_iter().map(|(entries, _)| entries).collect();
    assert_eq!(sizes[..2], [1_000, 2_000], "nobody knew yet how quick it is");
    assert_eq!(sizes[sizes.len() - 3..], [7_000; 3], "{sizes:?}");
    assert_eq!((sizes.iter().sum::<usize>(), acked.len()), (63_000, 9));
}

#[test]
fn at_the_start_of_a_worker_that_keeps_to_a_rate_transactions_are_short_too() {
    let vitals = Vitals::new();
    assert!(!vitals.calls_wait(), "who sends at no rate has nobody who waits");
    vitals.set_calls_may_wait();
    assert!(vitals.calls_wait());
}

#[test]
fn while_mails_wait_for_their_moment_transactions_are_short_and_all_is_taken() {
    let store = Notebook { calls_wait: Some(Vitals::new()), ..Notebook::default() };
    let (store, acked) = take_into(store, vec![for_one_person(0, 3_000), for_one_person(3_000, 3_000)], CROWD);
    let sizes: Vec<usize> = store.sizes().into_iter().map(|(entries, _)| entries).collect();
    // A transaction takes 100 ms here whatever is in it: no size is small enough.
    assert!(sizes[2..].iter().all(|n| *n <= 1_000) && sizes.ends_with(&[200; 5]), "{sizes:?}");
    let ids: Vec<String> = store.arrivals().into_iter().map(|a| a.event.id).collect();
    assert_eq!(ids, (0..6_000).map(|n| format!("{n:06}")).collect::<Vec<_>>(), "in their order");
    assert_eq!(acked.len(), 2);
}

#[test]
fn a_transaction_that_is_too_large_for_the_store_is_tried_smaller_until_it_is_taken() {
    let store = Notebook { most: 300, ..Notebook::default() };
    let (store, acked) = take_into(store, vec![for_one_person(0, 2_000)], CROWD);
    assert!(store.sizes().iter().all(|(entries, _)| *entries <= 300));
    let ids: BTreeSet<String> = store.arrivals().into_iter().map(|a| a.event.id).collect();
    assert_eq!((ids.len(), acked.len()), (2_000, 1));
}

/// The beginning of a batch is known, and its answer is no sign that the disk has room again.
#[tokio::test(start_paused = true)]
async fn a_store_that_has_no_room_is_tried_less_and_less_often_though_it_knows_a_part_of_the_batch() {
    let store = Arc::new(Notebook { full: Mutex::new(8), ..Notebook::default() });
    let (tape, began, vitals) = (Tape::of(vec![for_one_person(0, 3_000)]), tokio::time::Instant::now(), Vitals::new());
    let (stop, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
    let bounds = Bounds::default();
    ingest::run(Box::new(tape), Arc::new(pipeline(CROWD)), store.clone(), bounds, vitals, wake, stop).await.unwrap();
    let ids: BTreeSet<String> = store.arrivals().into_iter().map(|a| a.event.id).collect();
    assert_eq!(ids.len(), 3_000);
    // 0.25 s, 0.5 s and so on, 15 s at most.
    assert!(began.elapsed() > Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn after_a_failed_commit_receipt_times_still_rise_in_the_order_of_arrival() {
    for away in [1, 2, 3] {
        let batches = (0..6).map(|n| vec![news(2 * n, &["user.joe"]), news(2 * n + 1, &["user.joe"])]).collect();
        let (store, acked) = take(batches, away, CROWD);
        let arrivals = store.arrivals();
        assert!(arrivals.is_sorted_by(|a, b| a.event.id < b.event.id && a.time < b.time), "{away}: {arrivals:#?}");
        assert_eq!(acked.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}

/// It is found, and kept with its reason; all others are taken, each once.
#[test]
fn an_event_that_the_store_can_never_take_holds_up_no_other() {
    for ahead in [false, true] {
        // In the first piece of a batch, in its last, and in another batch.
        let poison: &[&str] = &["000007", "001500", "003500", "004400", "004650"];
        let batches = vec![for_one_person(0, 4_500), for_one_person(4_500, 600)];
        let (store, acked) = take_into(Notebook { poison, ahead, ..Notebook::default() }, batches, CROWD);
        let pieces = store.pieces.lock().unwrap();
        let (mut taken, mut refused) = (BTreeSet::new(), Vec::new());
        for entry in pieces.iter().flat_map(|piece| piece.iter()) {
            match entry {
                Entry::Event(arrival) => drop(taken.insert(arrival.event.id.clone())),
                Entry::Refused(one) => refused.push(one),
            }
        }
        let ids: BTreeSet<String> = (0..5_100).map(|n| format!("{n:06}")).collect();
        let missing: Vec<&String> = ids.difference(&taken).collect();
        assert_eq!(missing, poison, "{ahead}");
        // One may be refused again with the rest of its batch: for a store it is the same letter.
        let letters: BTreeSet<_> = refused.iter().map(|one| one.sha256).collect();
        assert_eq!(letters.len(), 5);
        let broken = *store.broken.lock().unwrap();
        // Each round finds the next one; if those that were found were forgotten, rounds would double with each (23 here, for 5).
        assert!(broken <= 18, "asked {broken} times for what it can't take");
        assert_eq!(refused[0].position, "batch 0 message 7");
        assert_eq!(refused[0].detail, "the store can't hold it; the worker's log says why");
        let kept: serde_json::Value = serde_json::from_slice(&refused[0].body).unwrap();
        assert_eq!((&kept["id"], &kept["specversion"]), (&json!("000007"), &json!("1.0")));
        assert_eq!(acked.iter().map(|(_, receipts)| receipts.len()).collect::<Vec<_>>(), [4_500, 600]);
        let told = acked.iter().flat_map(|(_, r)| r).filter(|r| matches!(r, Receipt::Refused { .. })).count();
        assert_eq!(told, 5);
    }
}

/// The id is the producer's, and may be an address: it stands in the letter alone.
#[test]
fn what_is_refused_is_named_by_its_place_and_keeps_the_time_when_it_came() {
    let body = format!("[{},{}]", news(1, &["user.a"]), news(2, &["big:role.all"]));
    let (store, _) = take(vec![vec![body]], 0, CROWD - 1);
    let arrival = store.arrivals().remove(1);
    let refused = arrival.stale.unwrap();
    assert_eq!(refused.position, "batch 0 message 0 event 2");
    let came = ("x-owlpost-time".to_owned(), arrival.time.to_string());
    assert!(refused.headers.contains(&came), "it had no time; replayed, it is no younger");
}

#[test]
fn an_audience_above_the_limit_is_refused_only_if_the_key_is_new() {
    let (store, _) = take(vec![vec![news(1, &["big:role.all"])]], 0, CROWD - 1);
    let arrival = store.arrivals().remove(0);
    // The store refuses what is stale and unknown, and knows a copy as a duplicate.
    let refused = arrival.stale.unwrap();
    assert_eq!((refused.reason, arrival.asked.len()), (RefusedReason::TooManyRecipients, 0));
    assert!(refused.detail.contains("500 people"), "{}", refused.detail);
}

#[test]
fn a_decision_for_too_many_people_still_closes_and_shows_whom_it_did_not_reach() {
    let decided =
        event("d", "io.athenz.membership.decided.v1", json!({"actor": "user.kim", "recipients": ["big:role.all"]}));
    let (store, acked) = take(vec![vec![decided]], 0, CROWD - 1);
    let arrival = store.arrivals().remove(0);
    assert!(arrival.stale.is_none(), "it is taken, with its mark");
    assert_eq!((arrival.asked[0].people.len(), &arrival.asked[0].references[0][..]), (0, "big:role.all"));
    assert_eq!(acked, [(0, vec![Receipt::Accepted])]);
}

#[test]
fn the_domain_of_an_event_goes_along_since_domains_take_turns() {
    let of = |data: serde_json::Value| {
        let (store, _) = take(vec![vec![event("e", "com.example.news", data)]], 0, CROWD);
        store.arrivals().remove(0).event.domain
    };
    assert_eq!(of(json!({"domain": "media", "recipients": ["user.joe"]})), Some("media".into()));
    assert_eq!(of(json!({"domain": ["media"], "recipients": ["user.joe"]})), None);
    assert_eq!(of(json!({"domain": null, "recipients": ["user.joe"]})), None);
}

#[test]
fn a_request_whose_audience_cannot_be_read_is_seen_to_reach_nobody() {
    let request = event("r", "io.athenz.membership.requested.v1", json!({"domain": "spo rts"}));
    let (store, _) = take(vec![vec![request]], 0, CROWD);
    let arrival = store.arrivals().remove(0);
    // References and no people: the store makes it one item, dead(unreachable).
    assert_eq!((arrival.asked[0].people.len(), &arrival.asked[0].references[0][..]), (0, "{{data.domain}}:role.admin"));
}

/// No broker answers until a moment; then there is nothing to read.
struct Shaky {
    until: Instant,
    asked: Arc<Mutex<usize>>,
}

#[async_trait]
impl Source for Shaky {
    fn name(&self) -> &str {
        "tape"
    }

    async fn next(&mut self, _room: Room) -> Result<Option<Batch>, SourceError> {
        *self.asked.lock().unwrap() += 1;
        if Instant::now() < self.until {
            return Err(SourceError::Unavailable("no broker answers".into()));
        }
        std::future::pending().await
    }

    async fn ack(&mut self, _ack: Ack, _receipts: &[Vec<Receipt>]) {}

    async fn refuse(&mut self, _ack: Ack, _retry_in: Duration) {}

    async fn stop(&mut self, _by: Instant) {}

    fn health(&self) -> Health {
        Health::Ready
    }

    fn lag(&self) -> Option<u64> {
        Some(12)
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_is_down_all_the_while_and_not_asked_without_a_pause() {
    let (hour, asked, vitals) = (Duration::from_secs(3_600), Arc::new(Mutex::new(0)), Vitals::new());
    let source = Shaky { until: Instant::now() + hour, asked: asked.clone() };
    let stop = CancellationToken::new();
    let (pipeline, store) = (Arc::new(pipeline(CROWD)), Arc::new(Notebook::default()));
    let wake = Arc::new(Notify::new());
    let intake = ingest::run(Box::new(source), pipeline, store, Bounds::default(), vitals.clone(), wake, stop.clone());
    let task = tokio::spawn(intake);
    let told = || vitals.conditions(Time(0)).remove(0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..120 {
        assert_eq!((told().state, told().detail.as_str(), told().lag), ("down", "no broker answers", Some(12)));
        tokio::time::sleep(hour / 121).await;
    }
    let n = *asked.lock().unwrap();
    assert!((240..=260).contains(&n), "every 15 s at last, not {n} times");
    assert!(vitals.silent().is_empty());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(told().state, "ready", "it waits for messages, which is no trouble");
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// Nobody can be looked up until a moment.
struct Absent {
    until: Instant,
    asked: Arc<Mutex<usize>>,
}

#[async_trait]
impl Directory for Absent {
    async fn resolve(&self, who: &[String], max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        *self.asked.lock().unwrap() += 1;
        match Instant::now() < self.until {
            true => Err(DirectoryError("no answer".into())),
            false => Crowd.resolve(who, max_age).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_directory_is_away_its_sources_are_down_and_nothing_is_lost() {
    let (hour, asked, vitals) = (Duration::from_secs(3_600), Arc::new(Mutex::new(0)), Vitals::new());
    let directory = Arc::new(Absent { until: Instant::now() + hour, asked: asked.clone() });
    let pipeline = Arc::new(Pipeline { directory, ..pipeline(CROWD) });
    let (store, wake, stop) = (Arc::new(Notebook::default()), Arc::new(Notify::new()), CancellationToken::new());
    let tape = Box::new(Tape::of(vec![vec![news(1, &["user.ann"])]]));
    let intake = ingest::run(tape, pipeline, store.clone(), Bounds::default(), vitals.clone(), wake, stop);
    let task = tokio::spawn(intake);
    let told = || vitals.conditions(Time(0)).remove(0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..120 {
        assert_eq!(told().state, "down");
        assert!(told().detail.contains("the directory gave no answer"), "{}", told().detail);
        tokio::time::sleep(hour / 121).await;
    }
    let n = *asked.lock().unwrap();
    assert!((240..=260).contains(&n), "every 15 s at last, not {n} times");
    task.await.unwrap().unwrap();
    assert_eq!(store.arrivals().len(), 1);
}
