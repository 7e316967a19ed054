//! A primary that ends under load, and a standby that takes its place: workers that know both hosts go on by themselves.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use owlpost::store::postgres::Postgres;
use owlpost::store::{Delivery as _, Desk as _, Opening, Page, Query, StoreError};

use crate::postgres::{Database, PASSWORD, Server, Value};
use crate::process::{Worker, get, post, until};
use crate::store::{NOW, ask, open, runtime, settings, try_open};
use crate::traffic::Traffic;

/// A primary and its standby, with a store in them.
fn pair() -> (&'static Server, Database, &'static Server) {
    let primary: &'static Server = Box::leak(Box::new(Server::start(&[("fsync", "on")])));
    let database = primary.database(None);
    drop(open(database.url()));
    let standby: &'static Server = Box::leak(Box::new(primary.standby()));
    (primary, database, standby)
}

fn url(hosts: &[&Server], database: &Database) -> String {
    let hosts: Vec<String> = hosts.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    format!("postgres://owlpost@{}/{}", hosts.join(","), database.name)
}

fn refused(result: Result<Arc<Postgres>, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("it may be promoted later: {:?}", other.err()),
    }
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let (primary, database, standby) = pair();
    // Whichever stands first.
    for hosts in [[standby, primary], [primary, standby]] {
        let store = try_open(settings(url(&hosts, &database), Opening::Worker)).unwrap();
        runtime().block_on(store.claim(NOW, &ask())).unwrap();
    }
    // Who only reads may say so, and reads what there is.
    let reads = url(&[standby, primary], &database) + "?target_session_attrs=any";
    let store = try_open(settings(reads, Opening::Operator)).unwrap();
    runtime().block_on(store.read(&Query::Status { now: NOW }, Page::FIRST)).unwrap();
    primary.kill();
    for hosts in [[standby, primary], [primary, standby]] {
        let why = refused(try_open(settings(url(&hosts, &database), Opening::Worker)));
        let advised = ["must name the primary", "is the server up"].iter().any(|advice| why.contains(advice));
        assert!(advised && why.contains(&standby.port().to_string()), "{why}");
    }
    let why = refused(try_open(settings(url(&[primary, standby], &database), Opening::Worker)));
    assert!(why.contains("must name the primary"), "{why}");
}

#[test]
fn a_standby_that_is_promoted_under_load_goes_on_with_everything_that_was_acknowledged() {
    let (primary, database, standby) = pair();
    // The primary alone would acknowledge what the standby does not have yet.
    let admin = primary.admin("postgres");
    admin.run("ALTER SYSTEM SET synchronous_standby_names = '*'");
    admin.run("SELECT pg_reload_conf()");
    until("a standby that is waited for", || {
        (admin.rows("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == [[Value::Int(1)]])
            .then_some(())
    });
    let both = url(&[primary, standby], &database);
    let workers: Vec<_> = (0..2).map(|_| try_open(settings(both.clone(), Opening::Worker)).unwrap()).collect();
    let traffic = Traffic::new();
    traffic.around(&workers, || {
        traffic.goes_on(100);
        primary.kill();
        until("workers that see that it is gone", || (!traffic.said.lock().unwrap().is_empty()).then_some(()));
        standby.promote();
        traffic.goes_on(100);
    });
    traffic.compare(&workers[0]);
}

/// A host name that leads to another server than before, while the old one still answers: a connection to what is a
/// standby by now is given up.
#[test]
fn a_connection_to_a_server_that_became_read_only_is_not_used_again() {
    let server = Server::shared();
    let database = server.database(None);
    let store = open(database.url());
    let admin = database.admin();
    // Only this session is: as if it led to another server.
    admin.run(&format!(
        "CREATE FUNCTION demote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NOT EXISTS (SELECT FROM left_behind WHERE pid = pg_backend_pid()) THEN RETURN NEW; END IF; \
         RAISE 'cannot execute INSERT in a read-only transaction' USING ERRCODE = '25006'; END $$; \
         CREATE TABLE left_behind (pid int); \
         CREATE TRIGGER demote BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION demote(); \
         INSERT INTO left_behind SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name
    ));
    // As many connections as the pool may have, and each fails at most once.
    let mut failed = 0;
    until("a connection to the primary", || {
        match crate::store::accept(&store, vec![crate::store::news("n1", "ann")]) {
            Ok(_) => Some(()),
            Err(why) => {
                assert!(why.to_string().contains("read-only"), "{why}");
                failed += 1;
                None
            }
        }
    });
    assert!((1..=3).contains(&failed), "{failed} calls failed");
}

pub fn configure(folder: &Path, url: &str) {
    let text = format!(
        r#"
[[source]]
name = "in"
kind = "http"
[store]
url = "{url}"
password = "{PASSWORD}"
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "outbox"
dir = "outbox"
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
template = "changes"
[log]
format = "json"
"#
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

/// The real worker: it says what is wrong, or finds the primary, now and when it is another one.
#[test]
fn a_worker_does_not_begin_on_a_standby_and_follows_the_primary() {
    let (primary, database, standby) = pair();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    configure(folder, &url(&[standby], &database));
    let log = Worker::start(folder, &["-c", "owlpost.toml"]).ends_with(1);
    assert!(log.contains("must name the primary"), "{log}");

    configure(folder, &url(&[standby, primary], &database));
    let mut worker = Worker::start(folder, &["-c", "owlpost.toml"]);
    let address = worker.address();
    let tell = |id: &str| {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"zms/test","type":"io.athenz.domain.changed.v1","data":{{"domain":"sports","object":{{"kind":"role","name":"{id}"}},"recipients":["user.{id}"]}}}}"#
        );
        until("an acknowledgement", || post(&address, std::slice::from_ref(&event)).then_some(()));
        until("its mail", || {
            let mails = fs::read_dir(folder.join("outbox")).ok()?.flatten();
            let text = mails.filter_map(|mail| fs::read_to_string(mail.path()).ok());
            text.collect::<String>().contains(&format!("{id}@example.com")).then_some(())
        });
    };
    tell("before");
    primary.kill();
    until("a worker that is not ready", || matches!(get(&address, "/readyz"), Ok((503, _))).then_some(()));
    standby.promote();
    tell("after");
    until("a worker that is ready again", || matches!(get(&address, "/readyz"), Ok((200, _))).then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
}
