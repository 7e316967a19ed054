//! PgBouncer in transaction mode, of the distribution's version: a worker's life goes on behind it.

use std::sync::Arc;

use owlpost::model::Receipt;
use owlpost::store::postgres::Postgres;
use owlpost::store::{
    Answer, Begun, Command, Delivery as _, Desk as _, Evidence, Intake as _, Intent, Leased, Opening, Page, Query,
    StoreError, Upkeep as _,
};

use crate::pgbouncer::PgBouncer;
use crate::postgres::{Server, Value};
use crate::store::{NOW, accept, ask, news, person, runtime, settings, try_open, verified};

/// Fewer than the workers' own, which is what a pooler is for.
const CONNECTIONS: u32 = 2;

fn behind(pooler: &PgBouncer, database: &str) -> Result<Arc<Postgres>, StoreError> {
    let mut settings = settings(pooler.url(database), Opening::Worker);
    settings.access.transaction_pooler = true;
    try_open(settings)
}

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

/// Claims, sends and settles until nothing is due; gives how many mails that were.
async fn deliver(store: &Postgres) -> usize {
    let mut sent = 0;
    loop {
        let leased = store.claim(NOW, &ask()).await.unwrap();
        if leased.is_empty() {
            return sent;
        }
        let intents = leased.iter().map(intent).collect();
        let begun = store.begin(NOW, Arc::new(intents)).await.unwrap();
        let mails = begun.into_iter().filter_map(|begun| match begun {
            Begun::Send(mail) => Some(mail),
            _ => None,
        });
        let answer = || Answer::Accepted { message_id: Some("m".into()) };
        let evidence: Vec<_> = mails.map(|mail| Evidence { attempt: mail.attempt, answer: answer() }).collect();
        sent += evidence.len();
        store.learn(NOW, Arc::new(evidence)).await.unwrap();
    }
}

#[test]
fn two_workers_live_behind_a_pooler_that_changes_their_connections() {
    const EACH: usize = 200;
    let database = Server::shared().database(None);
    let pooler = PgBouncer::before(Server::shared(), CONNECTIONS);
    let stores = [behind(&pooler, &database.name).unwrap(), behind(&pooler, &database.name).unwrap()];
    database.admin().run("ALTER TABLE pause ADD CHECK (route <> 'refused')");
    runtime().block_on(async {
        stores[0].account(NOW, owlpost::quota::Terms::default(), None).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..EACH {
            for (i, store) in stores.iter().cloned().enumerate() {
                tasks.spawn(async move {
                    let batch = vec![news(format!("{i}-{n}"), &format!("p{n}")), news(n, "ann")];
                    store.accept(NOW, Arc::new(batch)).await.unwrap()
                });
            }
        }
        let receipts = tasks.join_all().await;
        let taken = receipts.iter().flatten().filter(|receipt| **receipt == Receipt::Accepted).count();
        assert_eq!(taken, 3 * EACH, "each once, whoever was first");
        let (one, two) = tokio::join!(deliver(&stores[0]), deliver(&stores[1]));
        assert!(one + two > EACH, "{one} and {two} mails");
        for query in [
            Query::Status { now: NOW },
            Query::Why { id: "ann".into(), now: NOW },
            Query::Ledger { since: None, recipient: None },
            Query::Digests { state: None, route: None, now: NOW },
        ] {
            stores[1].read(&query, Page { after: i64::MIN, limit: 100 }).await.unwrap();
        }
        stores[1].act(NOW, &Command::Pause { route: None }).await.unwrap();
        stores[1].act(NOW, &Command::Resume { route: None }).await.unwrap();
        // What fails is rolled back, and its connection goes on.
        for _ in 0..2 * CONNECTIONS {
            let broken = stores[0].act(NOW, &Command::Pause { route: Some("refused".into()) }).await;
            assert!(matches!(broken, Err(StoreError::Broken(_))), "{broken:?}");
        }
        stores[0].expire(NOW, false).await.unwrap();
        stores[0].purge(NOW).await.unwrap();
        stores[0].compact(NOW).await.unwrap();
        stores[0].gauges(NOW).await.unwrap();
        stores[0].next_due(&ask()).await.unwrap();
    });
    let found = verified(&stores[1]);
    assert_eq!((found["items"], found["delivered"]), (3 * EACH as u64, 3 * EACH as u64));
    // On either connection: a statement that stays is in the way of another worker's of the same name.
    let admin = pooler.admin(&database.name);
    for _ in 0..2 * CONNECTIONS {
        admin.run(
            "DO $$ BEGIN IF EXISTS (SELECT FROM pg_prepared_statements) THEN RAISE 'statements are left'; END IF; END $$",
        );
    }
}

#[test]
fn workers_that_start_at_once_migrate_through_few_connections() {
    let database = Server::shared().database(None);
    let pooler = PgBouncer::before(Server::shared(), CONNECTIONS);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| behind(&pooler, &database.name).unwrap());
        }
    });
    let applied = database.admin().rows("SELECT count(*), count(DISTINCT version) FROM refinery_schema_history");
    assert_eq!(applied[0][0], applied[0][1]);
    assert_eq!(database.admin().rows("SELECT count(*) FROM meta"), [[Value::Int(1)]]);
}

/// Another worker's statement of the same name may be run in its place: nothing may begin.
#[test]
fn who_was_not_told_of_the_pooler_does_not_begin() {
    let database = Server::shared().database(None);
    let pooler = PgBouncer::before(Server::shared(), CONNECTIONS);
    for opening in [Opening::Worker, Opening::Operator, Opening::Worker] {
        match try_open(settings(pooler.url(&database.name), opening)) {
            Err(StoreError::Unusable(why)) => assert!(why.contains("transaction_pooler"), "{why}"),
            other => panic!("it opened: {:?}", other.err()),
        }
    }
    let told = behind(&pooler, &database.name).unwrap();
    accept(&told, vec![news("n1", "ann")]).unwrap();
}
