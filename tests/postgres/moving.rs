//! A store that moves from a SQLite file into a database is the same store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use owlpost::model::{Receipt, Refused, RefusedReason};
use owlpost::store::postgres::Postgres;
use owlpost::store::sqlite::{self, Sqlite};
use owlpost::store::{
    Answer, Begun, Command, Delivery as _, Desk as _, Evidence, Intake as _, Intent, Leased, Limits, Opening, Page,
    Query, Rows, Store, StoreError,
};

use crate::postgres::{Database, PASSWORD, Server, Value};
use crate::process::{owlpost, until};
use crate::store::{AtOnce, NOW, ask, news, open, person, runtime, settings, try_open, verified};

fn intent(leased: &Leased) -> Intent {
    Intent {
        lease: leased.lease,
        recipient: person(&leased.recipient),
        domain_allowed: true,
        audiences: vec![],
        send_within: std::time::Duration::from_secs(15),
        lead: std::time::Duration::ZERO,
        waits: true,
    }
}

fn refused() -> owlpost::model::Entry {
    owlpost::model::Entry::Refused(Box::new(Refused {
        source: "test".into(),
        position: "line 1\0".into(),
        reason: RefusedReason::NotJson,
        detail: "no JSON".into(),
        body: b"\0\xff".to_vec(),
        bytes: 2,
        sha256: [7; 32],
        headers: vec![("content-type".into(), "text/plain".into())],
        broker_id: None,
    }))
}

/// What an export of the ledger says, line for line.
async fn told(store: &dyn Store) -> String {
    let mut all = String::new();
    let queries = [
        Query::Ledger { since: None, recipient: None },
        Query::DeadLetters { kind: None, reason: None, source: None, since: None, discarded: true },
        Query::Suppressions,
    ];
    for query in queries {
        match store.read(&query, Page { after: i64::MIN, limit: 10_000 }).await.unwrap() {
            Rows::Ledger { rows, .. } => all += &serde_json::to_string(&rows).unwrap(),
            Rows::DeadLetters { rows, .. } => {
                all += &serde_json::to_string(&rows).unwrap().replace("\\u0000", "\u{fffd}")
            }
            Rows::Suppressions { rows, .. } => all += &serde_json::to_string(&rows).unwrap(),
            other => panic!("another answer: {other:?}"),
        }
    }
    all
}

fn file(path: PathBuf) -> sqlite::Settings {
    sqlite::Settings {
        path,
        opening: Opening::Worker,
        migrate: true,
        limits: Limits { open_items_per_recipient: 100_000, retention: std::time::Duration::from_secs(90 * 86_400) },
        policy: Arc::new(AtOnce),
        account: Some("test/one".into()),
        // So that some of what is copied is young, and some old.
        young_events: 1,
    }
}

#[test]
fn a_store_that_is_copied_goes_on_as_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owlpost.db");
    let database = Server::shared().database(None);
    let (before, leased, id) = runtime().block_on(async {
        let old = Sqlite::open(file(path), NOW).unwrap();
        old.account(NOW, owlpost::quota::Terms::default(), None).await.unwrap();
        // More than a page of rows.
        let many = (0..5_000).map(|i| news(i, &format!("p{}", i % 100))).chain([refused()]).collect();
        old.accept(NOW, Arc::new(many)).await.unwrap();
        old.act(NOW, &Command::Suppress { addresses: vec!["x@example.com".into()], reason: "by hand".into() })
            .await
            .unwrap();
        let leased = old.claim(NOW, &ask()).await.unwrap();
        let begun = old.begin(NOW, Arc::new(vec![intent(&leased[0])])).await.unwrap().remove(0);
        let Begun::Send(mail) = begun else { panic!("it may leave, not {begun:?}") };
        let answer = Answer::Accepted { message_id: Some("m-1".into()) };
        old.learn(NOW, Arc::new(vec![Evidence { attempt: mail.attempt, answer }])).await.unwrap();
        (told(&old).await, leased, old.store_id())
    });
    let (code, said) = copy(folder.path(), &database);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("5000 items"), "{said}");

    let new = open(database.url());
    assert_eq!(new.store_id(), id);
    assert_eq!(runtime().block_on(told(&*new)), before);
    assert_eq!(verified(&new)["items"], 5_000);
    runtime().block_on(async {
        // What was known is known, what was leased can begin, what is new gets numbers of its own.
        let receipts = new.accept(NOW, Arc::new(vec![news(17, "p17"), news("new", "somebody")])).await.unwrap();
        assert_eq!(receipts, [Receipt::Duplicate, Receipt::Accepted]);
        let begun = new.begin(NOW, Arc::new(vec![intent(&leased[1])])).await.unwrap().remove(0);
        assert!(matches!(begun, Begun::Send(_)), "{begun:?}");
        new.accept(NOW, Arc::new(vec![refused()])).await.unwrap();
    });
    assert_eq!(verified(&new)["items"], 5_001);

    drop(new);
    until("the end of its connections", || {
        let (code, said) = copy(folder.path(), &database);
        assert_eq!(code, Some(1));
        said.contains("not empty").then_some(())
    });
}

fn one_event_in(folder: &Path) -> Sqlite {
    let store = Sqlite::open(file(folder.join("owlpost.db")), NOW).unwrap();
    runtime().block_on(store.accept(NOW, Arc::new(vec![news("n1", "ann")]))).unwrap();
    store
}

fn copy(folder: &Path, database: &Database) -> (Option<i32>, String) {
    let config = format!("[store]\nurl = {:?}\npassword = {PASSWORD:?}\n[mailer]\nkind = \"outbox\"\n", database.url());
    std::fs::write(folder.join("owlpost.toml"), config).unwrap();
    let done = owlpost(folder).args(["-c", "owlpost.toml", "store", "copy", "--from", "owlpost.db"]).output().unwrap();
    (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

#[test]
fn a_file_that_a_worker_has_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let _worker = one_event_in(folder.path());
    let database = Server::shared().database(None);
    let (code, said) = copy(folder.path(), &database);
    assert_eq!(code, Some(1));
    assert!(said.contains("another worker has this store; stop it first"), "{said}");
    assert_eq!(database.admin().rows("SELECT count(*) FROM pg_class WHERE relname = 'event'"), [[Value::Int(0)]]);
}

#[test]
fn nothing_is_copied_into_a_database_that_a_worker_uses() {
    let folder = tempfile::tempdir().unwrap();
    drop(one_event_in(folder.path()));
    let database = Server::shared().database(None);
    // It has taken in nothing yet.
    let worker = open_as_outbox(&database);
    let (code, said) = copy(folder.path(), &database);
    assert_eq!(code, Some(1));
    assert!(said.contains("stop the workers first"), "{said}");
    runtime().block_on(worker.accept(NOW, Arc::new(vec![news("n1", "ann")]))).unwrap();
    assert_eq!(verified(&worker)["items"], 1);
}

/// One whose connections the copy can't see: behind a pooler, or under a name of its own.
#[test]
fn a_worker_that_is_overlooked_writes_nothing_into_the_store_that_took_its_place() {
    let folder = tempfile::tempdir().unwrap();
    drop(one_event_in(folder.path()));
    let database = Server::shared().database(None);
    let mut asked = settings(database.url() + "?application_name=another", Opening::Worker);
    asked.account = None;
    let worker = try_open(asked).unwrap();
    assert_eq!(copy(folder.path(), &database).0, Some(0));
    for result in [
        runtime().block_on(worker.claim(NOW, &ask())).map(drop),
        runtime().block_on(worker.accept(NOW, Arc::new(vec![news("n2", "ann")]))).map(drop),
    ] {
        match result {
            Err(StoreError::Unusable(why)) => assert!(why.contains("start again"), "{why}"),
            other => panic!("it goes on: {other:?}"),
        }
    }
    let after = open_as_outbox(&database);
    assert_eq!(runtime().block_on(after.claim(NOW, &ask())).unwrap().len(), 1);
    assert_eq!(verified(&after)["items"], 1);
}

fn open_as_outbox(database: &Database) -> Arc<Postgres> {
    let mut asked = settings(database.url(), Opening::Worker);
    asked.account = None;
    try_open(asked).unwrap()
}
