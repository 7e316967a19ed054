//! Workers that share an account ask it one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::account::{AccountWatch, Wanted};
use owlpost::clock::VirtualClock;
use owlpost::mailer::{Account, Finding, Mailer, MessageId, SendError};
use owlpost::model::{AttemptId, Email};
use owlpost::pace::Pace;
use owlpost::quota::Terms;
use owlpost::store::postgres::Postgres;
use owlpost::store::{Asking, Delivery as _, Opening, Store, Turn, Upkeep as _};
use owlpost::vitals::Vitals;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::postgres::Server;
use crate::store::{NOW, runtime, settings, try_open};

const TURN: Turn = Turn { fresh: Duration::from_secs(60), within: Duration::from_secs(15) };

fn terms(per_second: f64) -> Terms {
    Terms { per_second: Some(per_second), per_day: Some(1_000), burst: 1, urgent_reserve: 0.1 }
}

fn workers(n: usize) -> (crate::postgres::Database, Vec<Arc<Postgres>>) {
    let database = Server::shared().database(None);
    let stores = (0..n).map(|_| try_open(settings(database.url(), Opening::Worker)).unwrap()).collect();
    (database, stores)
}

#[test]
fn of_many_workers_one_asks_until_its_answer_is_old_or_it_is_gone() {
    let (_database, stores) = workers(4);
    let after = |seconds| NOW.plus(Duration::from_secs(seconds));
    let each = |seconds, turn: Turn| {
        let looks = stores.iter().map(|store| store.take_turn(after(seconds), turn));
        let looks = runtime().block_on(futures_util::future::join_all(looks));
        looks.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    let mine = |looks: &[Asking]| looks.iter().filter(|look| **look == Asking::Mine).count();
    let first = each(0, TURN);
    assert_eq!(mine(&first), 1, "{first:?}");
    assert!(first.contains(&Asking::Theirs { again: after(15), known: None }), "{first:?}");
    // It ended before it had the answer.
    assert_eq!(mine(&each(14, TURN)), 0);
    assert_eq!(mine(&each(15, TURN)), 1);
    runtime().block_on(stores[0].account(after(16), terms(14.0), Some(7))).unwrap();
    let told = each(17, TURN);
    assert!(told.iter().all(|look| *look == Asking::Theirs { again: after(75), known: Some(terms(14.0)) }), "{told:?}");
    // In a hurry, and still not all of them.
    let hurry = Turn { fresh: Duration::from_secs(5), ..TURN };
    assert_eq!(mine(&each(19, hurry)), 0);
    assert_eq!(mine(&each(20, hurry)), 1);
    assert_eq!(mine(&each(34, hurry)), 0, "somebody asks already");
    assert_eq!(mine(&each(35, TURN)), 1);
    runtime().block_on(stores[3].account(after(36), terms(14.0), Some(7))).unwrap();
    assert_eq!(mine(&each(94, TURN)), 0);
    assert_eq!(mine(&each(95, TURN)), 1);
    // The server's clock was set back.
    assert_eq!(mine(&each(0, TURN)), 1);
}

/// Counts its questions; answers when it is let.
struct Counting {
    asked: AtomicUsize,
    answers: Semaphore,
}

#[async_trait]
impl Mailer for Counting {
    fn kind(&self) -> &'static str {
        "ses"
    }

    async fn send(&self, _: &Email, _: AttemptId, _: tokio::time::Instant) -> Result<MessageId, SendError> {
        Err(SendError::Retryable("nothing is sent here".into()))
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answers.acquire().await.expect("it is not closed").forget();
        Ok(Some(Account { per_second: 14.0, per_day: Some(1_000), sent_24h: 7, stopped: None }))
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![]
    }

    fn gives_evidence(&self) -> bool {
        true
    }
}

#[test]
fn workers_that_start_at_once_ask_once_and_each_keeps_to_its_own_numbers() {
    let (_database, stores) = workers(4);
    let mailer = Arc::new(Counting { asked: AtomicUsize::new(0), answers: Semaphore::new(0) });
    let stop = CancellationToken::new();
    let start = |store: Arc<dyn Store>, per_second| {
        let watch = AccountWatch {
            store,
            mailer: mailer.clone(),
            clock: Arc::new(VirtualClock::starting_at(NOW)),
            pace: Arc::new(Pace::default()),
            wanted: Wanted { per_second, per_day: None, burst: 1, urgent_reserve: 0.1 },
        };
        let wake = Arc::new(Notify::new());
        let run = watch.run(Vitals::new(), wake.clone(), Arc::new(Notify::new()), stop.clone());
        (runtime().spawn(run), wake)
    };
    let first: Vec<_> = stores[..3].iter().map(|store| start(store.clone(), None)).collect();
    let known = || runtime().block_on(stores[0].gauges(NOW)).unwrap().quota.map(|q| (q.terms, q.day.external));
    crate::process::until("the question", || (mailer.asked.load(Ordering::SeqCst) > 0).then_some(()));
    assert_eq!(known(), None);
    mailer.answers.add_permits(100);
    for (_, wake) in &first {
        runtime().block_on(wake.notified());
    }
    crate::process::until("the answer", known);
    assert_eq!(known(), Some((terms(14.0), 7)));
    // One that comes later, and may send less: it needs no answer of the account for that.
    let (last, wake) = start(stores[3].clone(), Some(2.0));
    runtime().block_on(wake.notified());
    assert_eq!(known(), Some((terms(2.0), 7)));
    assert_eq!(mailer.asked.load(Ordering::SeqCst), 1);
    stop.cancel();
    for (task, _) in first.into_iter().chain([(last, wake)]) {
        runtime().block_on(task).unwrap().unwrap();
    }
}
