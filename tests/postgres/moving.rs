//! A store that moves from a SQLite file into a database is the same store.

use std::sync::Arc;

use owlpost::model::{Receipt, Refused, RefusedReason};
use owlpost::store::sqlite::{self, Sqlite};
use owlpost::store::{
    Answer, Begun, Command, Delivery as _, Desk as _, Evidence, Intake as _, Intent, Leased, Limits, Opening, Page,
    Query, Rows, Store,
};

use crate::postgres::{PASSWORD, Server};
use crate::process::owlpost;
use crate::store::{AtOnce, NOW, ask, news, open, person, runtime, verified};

fn intent(leased: &Leased) -> Intent {
    Intent {
        lease: leased.lease,
        recipient: person(&leased.recipient),
        domain_allowed: true,
        audiences: vec![],
        send_within: std::time::Duration::from_secs(15),
        lead: std::time::Duration::ZERO,
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

#[test]
fn a_store_that_is_copied_goes_on_as_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owlpost.db");
    let settings = sqlite::Settings {
        path: path.clone(),
        opening: Opening::Worker,
        migrate: true,
        limits: Limits { open_items_per_recipient: 100_000, retention: std::time::Duration::from_secs(90 * 86_400) },
        policy: Arc::new(AtOnce),
        account: Some("test/one".into()),
    };
    let database = Server::shared().database(None);
    let (before, leased, id) = runtime().block_on(async {
        let old = Sqlite::open(settings, NOW).unwrap();
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
    let config = format!("[store]\nurl = {:?}\npassword = {PASSWORD:?}\n[mailer]\nkind = \"outbox\"\n", database.url());
    std::fs::write(folder.path().join("owlpost.toml"), config).unwrap();
    let copy = || {
        owlpost(folder.path()).args(["-c", "owlpost.toml", "store", "copy", "--from", "owlpost.db"]).output().unwrap()
    };
    let done = copy();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("5000 items"), "{done:?}");

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

    let again = copy();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"), "{again:?}");
}
