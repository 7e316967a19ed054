//! Clocks that are apart: workers go by the server's, whatever their own machines say, and each says when its machine's is
//! wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use owlpost::clock::Clock;
use owlpost::model::Time;
use owlpost::quota::Terms;
use owlpost::store::postgres::Postgres;
use owlpost::store::{Begun, Delivery as _, Intake as _, Opening, Upkeep as _};

use crate::failover::configure;
use crate::postgres::{Database, Server, Value};
use crate::process::{Worker, get, owlpost, until};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, verified};
use crate::traffic::{accepted, intent};

/// A machine whose clock is wrong by so much.
struct Wrong {
    by_us: AtomicI64,
    ahead_us: AtomicI64,
}

impl Clock for Wrong {
    fn now(&self) -> Time {
        let now = Time::from(jiff::Timestamp::now());
        Time(now.0 + self.by_us.load(Ordering::Relaxed) + self.ahead_us.load(Ordering::Relaxed))
    }

    fn follow(&self, ahead_us: i64) {
        self.ahead_us.store(ahead_us, Ordering::Relaxed);
    }

    fn ahead_us(&self) -> i64 {
        self.ahead_us.load(Ordering::Relaxed)
    }
}

fn replica(database: &Database, minutes: i64) -> (Arc<Postgres>, Arc<Wrong>) {
    let clock = Arc::new(Wrong { by_us: AtomicI64::new(minutes * 60_000_000), ahead_us: AtomicI64::new(0) });
    let store = runtime().block_on(Postgres::open(settings(database.url(), Opening::Worker), clock.clone())).unwrap();
    (Arc::new(store), clock)
}

/// A lease of 90 seconds, on machines that are half an hour apart.
#[test]
fn replicas_whose_clocks_differ_by_minutes_neither_end_each_others_leases_nor_send_twice() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let replicas: Vec<_> = [0, 17, -13].map(|minutes| replica(&database, minutes)).into();
    let times: Vec<i64> = replicas.iter().map(|(_, clock)| clock.now().0).collect();
    let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
    assert!(spread < 2_000_000, "all go by the server's: {times:?}");
    assert!(replicas[1].1.ahead_us() < -16 * 60_000_000 && replicas[2].1.ahead_us() > 12 * 60_000_000);
    let people = 60;
    accept(&replicas[0].0, (0..people).map(|n| news(n, &format!("p{n}"))).collect()).unwrap();
    let upkeep = || {
        for (store, clock) in &replicas {
            let tidied = runtime().block_on(store.expire(clock.now(), false)).unwrap();
            assert_eq!((tidied.leases_ended, tidied.doubts_ended), (0, 0), "another one's lease runs");
        }
    };
    let mut sent = 0;
    while sent < people {
        for (store, clock) in &replicas {
            let few = owlpost::store::Ask { limit: 7, ..ask() };
            let leased = runtime().block_on(store.claim(clock.now(), &few)).unwrap();
            upkeep();
            let intents = Arc::new(leased.iter().map(intent).collect());
            let begun = runtime().block_on(store.begin(clock.now(), intents)).unwrap();
            upkeep();
            let answers: Vec<_> = begun
                .into_iter()
                .map(|one| match one {
                    Begun::Send(mail) => accepted(mail.attempt),
                    other => panic!("its lease runs, and no clock says otherwise: {other:?}"),
                })
                .collect();
            sent += answers.len();
            runtime().block_on(store.learn(clock.now(), Arc::new(answers))).unwrap();
        }
    }
    assert_eq!(verified(&replicas[0].0)["delivered"], people as u64);
    assert_eq!(database.admin().rows("SELECT count(*) FROM attempt"), [[Value::Int(people as i64)]]);
    // What becomes due does so at one moment, whoever is asked.
    let wait = Duration::from_secs(30);
    database
        .admin()
        .run(&format!("UPDATE digest SET state = 4, due_at = {} WHERE no = 1", replicas[0].1.now().plus(wait).0));
    for (store, clock) in &replicas {
        let due = runtime().block_on(store.next_due(&ask())).unwrap().unwrap();
        assert!(due.since(clock.now()) > Duration::from_secs(20), "not yet");
        assert_eq!(runtime().block_on(store.claim(clock.now(), &ask())).unwrap(), []);
    }
}

/// Between two measurements: a machine whose clock is set, or that stood still, neither ends the lease of another nor has one
/// that is over for all others.
#[test]
fn a_clock_that_is_set_while_a_worker_runs_ends_nobodys_lease_and_makes_none_that_is_over() {
    for minutes in [60, -60, 25 * 60] {
        let database = Server::shared().database(None);
        drop(open(database.url()));
        let replicas: Vec<_> = [0, 3].map(|minutes| replica(&database, minutes)).into();
        let [(right, rights), (wrong, wrongs)] = &replicas[..] else { panic!("two") };
        accept(right, vec![news(1, "p1"), news(2, "p2")]).unwrap();
        let one = owlpost::store::Ask { limit: 1, ..ask() };
        let begin = |store: &Postgres, clock: &Wrong| {
            let leased = runtime().block_on(store.claim(clock.now(), &one)).unwrap();
            let intents = Arc::new(leased.iter().map(intent).collect());
            match runtime().block_on(store.begin(clock.now(), intents)).unwrap().pop() {
                Some(Begun::Send(mail)) => mail.attempt,
                other => panic!("{minutes}: {other:?}"),
            }
        };
        let ended = |store: &Postgres, clock: &Wrong| {
            let tidied = runtime().block_on(store.expire(clock.now(), false)).unwrap();
            (tidied.leases_ended, tidied.doubts_ended)
        };
        let first = begin(right, rights);
        wrongs.by_us.fetch_add(minutes * 60_000_000, Ordering::Relaxed);
        assert_eq!(ended(wrong, wrongs), (0, 0), "{minutes}: another one's lease runs");
        wrongs.by_us.fetch_add(minutes * 60_000_000, Ordering::Relaxed);
        let second = begin(wrong, wrongs);
        assert_eq!(ended(right, rights), (0, 0), "{minutes}: its lease runs for all");
        let apart = wrongs.now().0 - rights.now().0;
        assert!(apart.abs() < 1_000_000, "{minutes}: it goes by the server's again: {apart}");
        let answers = Arc::new(vec![accepted(first), accepted(second)]);
        runtime().block_on(right.learn(rights.now(), answers)).unwrap();
        assert_eq!(verified(right)["delivered"], 2);
    }
}

/// `check --live` and `/readyz` of a machine whose clock is seven minutes behind the store's.
#[test]
fn a_machine_whose_clock_is_wrong_is_told_so_and_goes_on() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    database.admin().run(&format!(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS \
         $$ SELECT pg_catalog.clock_timestamp() + interval '7 minutes' $$; \
         ALTER DATABASE {} SET search_path = public, pg_catalog",
        database.name
    ));
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &database.url());
    let check = |args: &[&str]| {
        let told = owlpost(folder.path()).args(["-c", "owlpost.toml", "check"]).args(args).output().unwrap();
        assert_eq!(told.status.code(), Some(0), "a warning: {}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).unwrap()
    };
    let told = check(&["--live"]);
    assert!(
        told.contains("warning: clock_error: this machine's clock is 4") && told.contains(" s behind the store's"),
        "{told}"
    );
    let json: serde_json::Value = serde_json::from_str(&check(&["--live", "--json"])).unwrap();
    assert_eq!((&json["ok"], &json["problems"][0]["severity"]), (&true.into(), &"warning".into()), "{json}");
    assert!(!check(&[]).contains("clock_error"), "nobody was asked");
    let mut worker = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
    let address = worker.address();
    let said = until("a worker that says it", || match get(&address, "/readyz") {
        Ok((200, said)) if said.contains("clock: this machine's clock is 4") => Some(said),
        _ => None,
    });
    assert!(said.contains("\"ready\":true"), "{said}");
    worker.signal("TERM");
    worker.ends_with(0);
}

/// Claims begin at the front of what is due, which is looked for each second; what this worker sets itself is known at once.
#[test]
fn what_another_worker_dates_before_the_front_leaves_a_second_later() {
    let database = Server::shared().database(None);
    let (mine, theirs) = (open(database.url()), open(database.url()));
    let claim = |ms: u64| {
        let leased = runtime().block_on(mine.claim(NOW.plus(Duration::from_millis(ms)), &ask())).unwrap();
        leased.into_iter().map(|one| one.recipient).collect::<Vec<_>>()
    };
    let behind = |store: &Postgres, who, by_s| {
        let entries = Arc::new(vec![news(who, who)]);
        runtime().block_on(store.accept(NOW.minus(Duration::from_secs(by_s)), entries)).unwrap();
    };
    accept(&mine, vec![news("ann", "ann")]).unwrap();
    assert_eq!(claim(0), ["ann"]);
    behind(&mine, "bob", 30);
    assert_eq!(claim(300), ["bob"]);
    behind(&theirs, "kim", 31);
    let found = [600, 999, 1_000].map(claim);
    assert_eq!(found, [vec![], vec![], vec!["kim".to_owned()]]);
}

/// The day's share of a lease counts from the front of what is under way on, and that is far enough back for another worker's
/// clock.
#[test]
fn the_lease_of_a_worker_whose_clock_is_a_minute_behind_has_its_share_of_the_day() {
    let database = Server::shared().database(None);
    let (mine, theirs) = (open(database.url()), open(database.url()));
    let terms = Terms { per_day: Some(2), ..Terms::default() };
    runtime().block_on(mine.account(NOW, terms, None)).unwrap();
    accept(&mine, vec![news(1, "ann"), news(2, "bob"), news(3, "kim")]).unwrap();
    let later = |ms: u64| NOW.plus(Duration::from_millis(ms));
    let one = owlpost::store::Ask { limit: 1, ..ask() };
    runtime().block_on(mine.expire(NOW, false)).unwrap();
    let short = owlpost::store::Ask { lease: Duration::from_secs(30), ..one };
    assert_eq!(runtime().block_on(mine.claim(later(100), &one)).unwrap().len(), 1);
    let behind = NOW.minus(Duration::from_secs(60));
    database.admin().run(&format!("UPDATE digest SET due_at = {} WHERE state = 0", behind.0));
    assert_eq!(runtime().block_on(theirs.claim(behind, &short)).unwrap().len(), 1);
    assert_eq!(runtime().block_on(mine.claim(later(1_200), &one)).unwrap(), [], "two are reserved");
}
