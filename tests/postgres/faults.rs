//! The server goes, comes back, cuts connections, refuses to write; others hold locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use owlpost::model::Receipt;
use owlpost::store::{Delivery as _, Intake as _, Opening, StoreError};

use crate::cuts::with_cuts;
use crate::postgres::{Frozen, Server, Value};
use crate::process::until;
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};
use crate::wire::{Cut, Wire};

/// A server of the test's own; it lives as long as the test's process, as databases borrow it.
fn server() -> &'static Server {
    Box::leak(Box::new(Server::start(&[("fsync", "on")])))
}

/// Each of which may be cut once.
const BATCHES: usize = 60;

fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("worth another try, and not {other:?}"),
    }
}

#[test]
fn a_restarted_server_is_used_again() {
    let server = server();
    let database = server.database(None);
    let store = open(database.url());
    accept(&store, vec![news("n1", "ann")]).unwrap();
    server.stop();
    let why = unavailable(accept(&store, vec![news("n2", "ann")]));
    assert!(why.contains(&database.name) && !why.contains(crate::postgres::PASSWORD), "it says where: {why}");
    server.restart();
    until("the store after the restart", || accept(&store, vec![news("n2", "ann")]).ok());
    assert_eq!(verified(&store)["pending"], 2);
}

/// `ack_after_commit`: what a call has answered survives the server's death; what it has not may be there, or not.
#[test]
fn a_killed_server_has_everything_that_was_acknowledged() {
    let server = server();
    let database = server.database(None);
    let store = open(database.url());
    let mut acknowledged = 0;
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            let feed = scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let entries = (0..20).map(|i| news(format!("{round}-{n}-{i}"), "ann")).collect();
                    if accept(&store, entries).is_err() {
                        break;
                    }
                    n += 1;
                }
                n
            });
            let look = server.admin(&database.name);
            until("some batches of this round", || {
                let there = look.rows("SELECT count(*) FROM event");
                matches!(there[0][0], Value::Int(n) if n > acknowledged + 100).then_some(())
            });
            server.kill();
            let n = feed.join().unwrap();
            stop.store(true, Ordering::Relaxed);
            n
        });
        server.restart();
        // The same again, as a broker would: copies of what is there.
        for n in 0..=taken {
            let entries: Vec<_> = (0..20).map(|i| news(format!("{round}-{n}-{i}"), "ann")).collect();
            let receipts = until("the store after the kill", || accept(&store, entries.clone()).ok());
            if n < taken {
                assert!(receipts.iter().all(|r| *r == Receipt::Duplicate), "batch {n} was acknowledged");
            }
        }
        acknowledged += 20 * (taken + 1);
        assert_eq!(verified(&store)["items"], acknowledged as u64);
    }
}

#[test]
fn cut_connections_lose_nothing_and_repeat_nothing() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    let batch = |n: usize| vec![news(n, "ann"), news(format!("b{n}"), "bob")];
    with_cuts(&database, |taken| {
        for n in 0..BATCHES {
            until("a batch that is taken", || accept(&store, batch(n)).ok());
            taken.store(n + 1, Ordering::Relaxed);
        }
    });
    until("a look that is not cut", || runtime().block_on(store.next_due(&ask())).ok());
    assert_eq!(verified(&store)["items"], 2 * BATCHES as u64);
}

/// A server, or a pooler before it, that takes connections and says nothing.
#[test]
fn what_takes_connections_and_says_nothing_is_away_in_time() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let wire = Wire::to(Server::shared().port());
    let through = |more: &str| format!("postgres://owlpost@127.0.0.1:{}{more}/{}", wire.port(), database.name);
    let in_time = |what: &str, work: &dyn Fn() -> Result<(), StoreError>| {
        let begun = Instant::now();
        let result = work();
        assert!(begun.elapsed() < Duration::from_secs(25), "{what}: {:?}", begun.elapsed());
        result
    };
    let store = try_open(settings(through(""), Opening::Worker)).unwrap();
    wire.cut(Cut::Silent);
    for url in [through(""), through("") + "?sslmode=verify-full"] {
        let why = unavailable(in_time("a start", &|| try_open(settings(url.clone(), Opening::Worker)).map(drop)));
        assert!(why.contains("no connection in 10 s"), "{why}");
    }
    // Of several, the next one is tried.
    let both = through(&format!(",127.0.0.1:{}", Server::shared().port()));
    in_time("a start on the next", &|| try_open(settings(both.clone(), Opening::Worker)).map(drop)).unwrap();
    // What was connected already, and what is connected for the next call.
    for said in ["no answer in 10 s", "no connection in 10 s"] {
        let why = unavailable(in_time("a call", &|| accept(&store, vec![news("n1", "ann")]).map(drop)));
        assert!(why.contains(said), "{why}");
    }
    wire.cut(Cut::Nothing);
    until("the store when it speaks again", || accept(&store, vec![news("n1", "ann")]).ok());
    assert_eq!(verified(&store)["items"], 1);
}

/// The server's processes behind the connections that there are say nothing any more; new ones would.
#[test]
fn connections_whose_server_process_froze_are_given_up_one_by_one() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    accept(&store, vec![news("n1", "ann")]).unwrap();
    let backends = database
        .admin()
        .rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'owlpost'");
    let pid = |row: &Vec<Value>| match row[0] {
        Value::Int(pid) => pid as u32,
        ref other => panic!("no process: {other:?}"),
    };
    let frozen = Frozen::processes(backends.iter().map(pid));
    let begun = Instant::now();
    let mut said = vec![];
    until("a connection that speaks", || {
        accept(&store, vec![news("n2", "ann")]).inspect_err(|why| said.push(why.to_string())).ok()
    });
    assert!(said.len() <= 3 && said.iter().all(|why| why.contains("no answer in 10 s")), "{said:?}");
    assert!(!said.is_empty() && begun.elapsed() < Duration::from_secs(10 * 3 + 5), "{:?}", begun.elapsed());
    drop(frozen);
    assert_eq!(verified(&store)["items"], 2);
}

#[test]
fn a_pool_smaller_than_the_tasks_serves_them_all() {
    let database = Server::shared().database(None);
    let store = {
        let mut few = settings(database.url(), Opening::Worker);
        few.pool = 1;
        try_open(few).unwrap()
    };
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..40 {
            let store = store.clone();
            tasks.spawn(async move { store.accept(NOW, Arc::new(vec![news(n, "ann")])).await.unwrap() });
        }
        tasks.join_all().await;
    });
    assert_eq!(verified(&store)["items"], 40);
}

/// Somebody who looks at a row for an hour holds up nothing but that row.
#[test]
fn a_lock_of_somebody_else_holds_up_nobody_else() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    accept(&store, vec![news("n1", "ann"), news("n2", "bob"), news("n3", "kim")]).unwrap();
    let other = database.admin();
    other.run("BEGIN; SELECT * FROM mailbox WHERE recipient = 'bob' FOR UPDATE");
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    let names: Vec<&str> = leased.iter().map(|l| l.recipient.as_str()).collect();
    assert_eq!(names, ["ann", "kim"]);
    other.run("ROLLBACK");
    assert_eq!(runtime().block_on(store.claim(NOW, &ask())).unwrap().len(), 1);
}

#[test]
fn a_read_only_standby_takes_nothing_and_says_why() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    database.admin().run(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    let admin = Server::shared().admin("postgres");
    admin.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", database.name));
    let why = until("the answer of the standby", || {
        let why = unavailable(accept(&store, vec![news("n1", "ann")]));
        why.contains("read-only").then_some(why)
    });
    assert!(why.contains("primary"), "{why}");
    verified(&store);
    admin.run(&format!("ALTER DATABASE {} SET default_transaction_read_only = off", database.name));
    admin.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", database.name));
    until("the store after the promotion", || accept(&store, vec![news("n1", "ann")]).ok());
}

#[test]
fn a_newer_schema_is_refused_and_an_older_one_is_not_changed_unasked() {
    let database = Server::shared().database(None);
    let mut older = settings(database.url(), Opening::Operator);
    older.migrate = false;
    match try_open(older) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("owlpost migrate"), "{why}"),
        other => panic!("it opened: {:?}", other.err()),
    }
    drop(open(database.url()));
    database.admin().run(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
    );
    match try_open(settings(database.url(), Opening::Worker)) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("999"), "{why}"),
        other => panic!("it opened: {:?}", other.err()),
    }
}

#[test]
fn workers_that_start_at_once_on_an_empty_database_migrate_it_once() {
    let database = Server::shared().database(None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| try_open(settings(database.url(), Opening::Worker)).unwrap());
        }
    });
    let applied = database.admin().rows("SELECT count(*), count(DISTINCT version) FROM refinery_schema_history");
    assert_eq!(applied[0][0], applied[0][1]);
    assert_eq!(database.admin().rows("SELECT count(*) FROM meta"), [[Value::Int(1)]]);
}
