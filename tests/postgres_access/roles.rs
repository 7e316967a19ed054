//! The grants of config/README.md, word for word: each role can do its part, and no more.

use std::sync::Arc;

use owlpost::store::postgres::Postgres;
use owlpost::store::{
    Command, Delivery as _, Desk as _, Letters as _, Opening, Page, Portion, Query, Rows, StoreError, Upkeep as _,
};

use crate::postgres::{Admin, Database, PASSWORD, Server};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};

const README: &str = include_str!("../../config/README.md");

/// Runs the statements of the docs that speak of this role, under a name that is the test's alone.
fn grant(database: &Database, role: &str) -> String {
    let own = format!("{role}_{}", database.name);
    let lines = README.lines().map(str::trim);
    let said: Vec<&str> = lines
        .filter(|line| line.ends_with(&format!(" {role};")) || line.contains(&format!(" ROLE {role} ")))
        .filter(|line| ["CREATE", "ALTER", "GRANT", "REVOKE"].iter().any(|verb| line.starts_with(verb)))
        .collect();
    assert!(said.len() >= 2, "{said:?}");
    let admin = database.admin();
    for line in said {
        let line = line.replace(&format!(" {role}"), &format!(" {own}")).replace('…', PASSWORD);
        admin.run(&line);
    }
    own
}

fn open_as(database: &Database, role: &str, opening: Opening) -> Result<Arc<Postgres>, StoreError> {
    let mut asked = settings(database.url().replace("owlpost@", &format!("{role}@")), opening);
    asked.migrate = false;
    try_open(asked)
}

fn connect_as(database: &Database, role: &str) -> Admin {
    let mut config = Server::shared().config(&database.name);
    config.user(role);
    Admin::connect(&config).unwrap()
}

#[test]
fn a_worker_changes_rows_and_no_tables() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let role = grant(&database, "worker");
    let store = open_as(&database, &role, Opening::Worker).unwrap();
    accept(&store, vec![news("n1", "ann")]).unwrap();
    runtime().block_on(async {
        store.account(NOW, owlpost::quota::Terms::default(), None).await.unwrap();
        assert_eq!(store.claim(NOW, &ask()).await.unwrap().len(), 1);
        store.expire(NOW, false).await.unwrap();
        store.purge(NOW).await.unwrap();
        store.compact(NOW).await.unwrap();
        store.gauges(NOW).await.unwrap();
        store.unforwarded(Portion { letters: 10, bytes: 1_000 }).await.unwrap();
        store.act(NOW, &Command::Pause { route: None }).await.unwrap();
    });
    assert_eq!(verified(&store)["pending"], 1);
    let by_hand = connect_as(&database, &role);
    for denied in [
        "CREATE TABLE public.more (n int)",
        "DROP TABLE item",
        "TRUNCATE item",
        "ALTER TABLE item ADD COLUMN more int",
        "UPDATE refinery_schema_history SET version = 999",
    ] {
        assert!(by_hand.try_run(denied).is_err(), "{denied}");
    }
}

#[test]
fn an_operator_of_few_rights_reads_everything_and_changes_nothing() {
    let database = Server::shared().database(None);
    accept(&open(database.url()), vec![news("n1", "ann")]).unwrap();
    let role = grant(&database, "reader");
    let store = open_as(&database, &role, Opening::Operator).unwrap();
    runtime().block_on(async {
        let digests = Query::Digests { state: None, route: None, now: NOW };
        let Rows::Digests { rows, .. } = store.read(&digests, Page { after: i64::MIN, limit: 10 }).await.unwrap()
        else {
            panic!("another answer");
        };
        for query in [
            Query::Status { now: NOW },
            Query::Verify,
            Query::Digest { id: rows[0].id.clone(), now: NOW },
            Query::DeadLetters { kind: None, reason: None, source: None, since: None, discarded: true },
            Query::DeadLetter { id: "1".into() },
            Query::Ledger { since: None, recipient: None },
            Query::Why { id: "n1".into(), now: NOW },
            Query::Suppressions,
        ] {
            store.read(&query, Page { after: i64::MIN, limit: 10 }).await.unwrap();
        }
        let why = store.act(NOW, &Command::Pause { route: None }).await.unwrap_err().to_string();
        assert!(why.contains("permission denied") && why.contains("the role needs rights"), "{why}");
    });
    assert!(open_as(&database, &role, Opening::Worker).is_err(), "a worker writes");
}

#[test]
fn an_autoscaler_sees_one_number() {
    let database = Server::shared().database(None);
    accept(&open(database.url()), vec![news("n1", "ann")]).unwrap();
    let role = grant(&database, "keda");
    let keda = connect_as(&database, &role);
    assert_eq!(keda.rows("SELECT due FROM owlpost_keda_backlog"), [[crate::postgres::Value::Int(1)]]);
    for denied in ["SELECT * FROM event", "SELECT * FROM mailbox", "SELECT * FROM meta", "DELETE FROM item"] {
        assert!(keda.try_run(denied).is_err(), "{denied}");
    }
}
