//! Workers that share an account ask it one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::account::{AccountWatch, Wanted};
use owlpost::clock::VirtualClock;
use owlpost::mailer::{Account, Finding, Mailer, MessageId, SendError};
use owlpost::model::{AttemptId, Email, Time};
use owlpost::pace::Pace;
use owlpost::quota::Terms;
use owlpost::store::postgres::Postgres;
use owlpost::store::{Asking, Delivery as _, Opening, Ours, Sent, StoreError, Turn, Upkeep as _};
use owlpost::vitals::Vitals;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::postgres::{Database, Server};
use crate::process::until;
use crate::store::{NOW, runtime, settings, try_open};

/// What the account says to who asked it then.
fn sent(at: Time) -> Option<Sent> {
    Some(Sent { all: 7, ours: Ours { used: 0, at } })
}

const TURN: Turn = Turn { fresh: Duration::from_secs(60), within: Duration::from_secs(15) };

fn terms(per_second: f64) -> Terms {
    Terms { per_second: Some(per_second), per_day: Some(1_000), burst: 1, urgent_reserve: 0.1 }
}

fn workers(n: usize) -> (Database, Vec<Arc<Postgres>>) {
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
    let mine = |looks: &[Asking]| looks.iter().filter(|look| matches!(look, Asking::Mine(_))).count();
    let first = each(0, TURN);
    assert_eq!(mine(&first), 1, "{first:?}");
    assert!(first.contains(&Asking::Theirs { again: after(15), known: None }), "{first:?}");
    // It ended before it had the answer.
    assert_eq!(mine(&each(14, TURN)), 0);
    assert_eq!(mine(&each(15, TURN)), 1);
    // What it heard after all is no answer to who asks now.
    runtime().block_on(stores[1].account(after(16), terms(14.0), sent(NOW))).unwrap();
    let asked = each(16, TURN);
    assert!(asked.iter().all(|look| *look == Asking::Theirs { again: after(30), known: None }), "{asked:?}");
    runtime().block_on(stores[0].account(after(16), terms(14.0), sent(after(15)))).unwrap();
    let told = each(17, TURN);
    assert!(told.iter().all(|look| *look == Asking::Theirs { again: after(75), known: Some(terms(14.0)) }), "{told:?}");
    // In a hurry, and still not all of them.
    let hurry = Turn { fresh: Duration::from_secs(5), ..TURN };
    assert_eq!(mine(&each(19, hurry)), 0);
    assert_eq!(mine(&each(20, hurry)), 1);
    assert_eq!(mine(&each(34, hurry)), 0, "somebody asks already");
    assert_eq!(mine(&each(35, TURN)), 1);
    runtime().block_on(stores[3].account(after(36), terms(14.0), sent(after(35)))).unwrap();
    assert_eq!(mine(&each(94, TURN)), 0);
    assert_eq!(mine(&each(95, TURN)), 1);
    // The server's clock was set back.
    assert_eq!(mine(&each(0, TURN)), 1);
}

/// Counts its questions; answers when it is let, if at all.
struct Counting {
    asked: AtomicUsize,
    answers: Semaphore,
    away: bool,
}

impl Counting {
    fn new(answers: usize, away: bool) -> Arc<Counting> {
        Arc::new(Counting { asked: AtomicUsize::new(0), answers: Semaphore::new(answers), away })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
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
        if self.away {
            return Err(SendError::Retryable("it may not ask".into()));
        }
        Ok(Some(Account { per_second: 14.0, per_day: Some(1_000), sent_24h: 7, stopped: None }))
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![]
    }

    fn gives_evidence(&self) -> bool {
        true
    }
}

/// A worker's loop that runs.
struct Watch {
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
    wake: Arc<Notify>,
    /// What may be sent is known to it.
    heard: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Watch {
    fn start(store: &Arc<Postgres>, mailer: &Arc<Counting>, now: Time, per_second: Option<f64>) -> Watch {
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let heard = Arc::new(AtomicBool::new(false));
        let watch = AccountWatch {
            store: store.clone(),
            mailer: mailer.clone(),
            clock: Arc::new(VirtualClock::starting_at(now)),
            pace: Arc::new(Pace::default()),
            heard: heard.clone(),
            wanted: Wanted { per_second, per_day: None, burst: 1, urgent_reserve: 0.1 },
        };
        let run = watch.run(Vitals::new(), wake.clone(), Arc::new(Notify::new()), stop.clone());
        Watch { task: runtime().spawn(run), wake, heard, stop }
    }

    fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// It has looked, and used what it found.
    fn looked(&self) {
        runtime().block_on(self.wake.notified());
    }

    fn end(self) {
        self.stop.cancel();
        runtime().block_on(self.task).unwrap().unwrap();
    }
}

fn known(store: &Postgres) -> Option<(Terms, u64)> {
    runtime().block_on(store.gauges(NOW)).unwrap().quota.map(|quota| (quota.terms, quota.day.external))
}

#[test]
fn workers_that_start_at_once_ask_once_and_each_keeps_to_its_own_numbers() {
    let (_database, stores) = workers(4);
    let mailer = Counting::new(0, false);
    let first: Vec<_> = stores[..3].iter().map(|store| Watch::start(store, &mailer, NOW, None)).collect();
    until("the question", || (mailer.asked() > 0).then_some(()));
    assert_eq!(known(&stores[0]), None);
    mailer.answers.add_permits(100);
    first.iter().for_each(Watch::looked);
    assert_eq!(until("the answer", || known(&stores[0])), (terms(14.0), 7));
    // One that comes later, and may send less: it needs no answer of the account for that.
    let last = Watch::start(&stores[3], &mailer, NOW, Some(2.0));
    last.looked();
    assert_eq!(known(&stores[0]), Some((terms(2.0), 7)));
    assert_eq!(mailer.asked(), 1);
    first.into_iter().chain([last]).for_each(Watch::end);
}

#[test]
fn a_worker_that_is_not_answered_leaves_the_question_to_another_one() {
    let (_database, stores) = workers(2);
    let (denied, allowed) = (Counting::new(100, true), Counting::new(100, false));
    let one = Watch::start(&stores[0], &denied, NOW, None);
    one.looked();
    let other = Watch::start(&stores[1], &allowed, NOW.plus(TURN.within), None);
    assert_eq!(until("the other's answer", || known(&stores[0])), (terms(14.0), 7));
    one.looked();
    assert_eq!((denied.asked(), allowed.asked()), (1, 1));
    [one, other].into_iter().for_each(Watch::end);
}

/// What is stored may be of yesterday, and others may have used up the day since.
#[test]
fn a_worker_that_comes_while_another_asks_waits_for_the_answer() {
    let (_database, stores) = workers(2);
    runtime().block_on(stores[0].account(NOW, terms(14.0), sent(NOW))).unwrap();
    let later = NOW.plus(Duration::from_secs(36_000));
    let mailer = Counting::new(0, false);
    let first = Watch::start(&stores[0], &mailer, later, None);
    until("the question", || (mailer.asked() > 0).then_some(()));
    let second = Watch::start(&stores[1], &mailer, later, None);
    second.looked();
    assert!(!first.has_heard() && !second.has_heard(), "nobody knows what others sent meanwhile");
    mailer.answers.add_permits(1);
    until("both have heard", || (first.has_heard() && second.has_heard()).then_some(()));
    assert_eq!(mailer.asked(), 1);
    [first, second].into_iter().for_each(Watch::end);
}
