//! Events that come in and mails that leave while something happens to the server, and what must be true of it in the end:
//! nothing acknowledged is lost, nobody is told twice, the ledger balances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::model::AttemptId;
use owlpost::store::postgres::Postgres;
use owlpost::store::{
    Answer, Begun, Delivery as _, Desk as _, Evidence, Intent, Leased, Page, Query, Rows, StoreError, Upkeep as _,
};

use crate::process::until;
use crate::store::{NOW, accept, ask, news, person, runtime};

/// News of one batch.
const BATCH: usize = 5;
/// Few, so that what happens at once meets.
const PEOPLE: usize = 12;

#[derive(Default)]
pub struct Traffic {
    acknowledged: AtomicUsize,
    /// By (event, person): mails that a server took.
    sent: Mutex<BTreeMap<(String, String), u32>>,
    /// What calls that failed said.
    pub said: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

impl Traffic {
    pub fn new() -> Traffic {
        Traffic::default()
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs the traffic of some workers while `story` goes on, and lets it end in order. Give each worker as often as it is
    /// to have tasks.
    pub fn around(&self, workers: &[Arc<Postgres>], story: impl FnOnce()) {
        std::thread::scope(|scope| {
            for (i, store) in workers.iter().enumerate() {
                scope.spawn(move || self.feed(store, i));
                scope.spawn(move || self.deliver(store));
            }
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
            self.stop.store(true, Ordering::Relaxed);
            if let Err(why) = ended {
                std::panic::resume_unwind(why);
            }
        });
    }

    /// Waits until so many more events are acknowledged, and a mail more has left.
    pub fn goes_on(&self, events: usize) {
        let (acknowledged, sent) = (self.acknowledged(), self.sent());
        until("traffic that goes on", || {
            (self.acknowledged() >= acknowledged + events && self.sent() > sent).then_some(())
        });
    }

    fn failed(&self, why: &StoreError) {
        assert!(matches!(why, StoreError::Unavailable(_)), "worth another try: {why:?}");
        self.said.lock().unwrap().insert(why.to_string());
        std::thread::yield_now();
    }

    fn feed(&self, store: &Postgres, feeder: usize) {
        let mut batch = 0;
        while !self.stopped() {
            let event = |i: usize| news(format!("{feeder}-{batch}-{i}"), &format!("p{}", (batch + i) % PEOPLE));
            let entries: Vec<_> = (0..BATCH).map(event).collect();
            // The same again until it is taken, as a broker does.
            until("a batch that is taken", || accept(store, entries.clone()).inspect_err(|why| self.failed(why)).ok());
            self.acknowledged.fetch_add(BATCH, Ordering::Relaxed);
            batch += 1;
        }
    }

    fn deliver(&self, store: &Postgres) {
        while !self.stopped() {
            match runtime().block_on(store.claim(NOW, &ask())) {
                Ok(leased) if leased.is_empty() => std::thread::yield_now(),
                Ok(leased) => self.send(store, &leased, NOW),
                Err(why) => self.failed(&why),
            }
        }
    }

    /// One after another, as the server takes them; a begin whose answer is lost sends nothing.
    fn send(&self, store: &Postgres, leased: &[Leased], now: owlpost::model::Time) {
        let begun = match runtime().block_on(store.begin(now, Arc::new(leased.iter().map(intent).collect()))) {
            Ok(begun) => begun,
            Err(why) => return self.failed(&why),
        };
        let mut evidence = Vec::new();
        for (begun, leased) in begun.into_iter().zip(leased) {
            let Begun::Send(mail) = begun else { continue };
            let mut sent = self.sent.lock().unwrap();
            for item in &mail.items {
                *sent.entry((item.id.clone(), leased.recipient.clone())).or_default() += 1;
            }
            evidence.push(accepted(mail.attempt));
        }
        let evidence = Arc::new(evidence);
        until("answers that are taken", || {
            runtime().block_on(store.learn(now, evidence.clone())).inspect_err(|why| self.failed(why)).ok()
        });
    }

    /// Whatever was cut off comes to its end with one worker; then everything is compared. Gives how many mails that are
    /// in nobody's records may or may not have left.
    pub fn compare(&self, store: &Postgres) -> usize {
        for hour in 1..200 {
            let now = NOW.plus(Duration::from_secs(3_600) * hour);
            runtime().block_on(async { while store.expire(now, true).await.unwrap().more {} });
            let leased = runtime().block_on(store.claim(now, &ask())).unwrap();
            self.send(store, &leased, now);
            let next = runtime().block_on(store.next_upkeep()).unwrap();
            if next.is_none() && runtime().block_on(store.next_due(&ask())).unwrap().is_none() {
                break;
            }
        }
        let Rows::Verified(found) = runtime().block_on(store.read(&Query::Verify, Page::FIRST)).unwrap() else {
            panic!("not verified");
        };
        assert_eq!(found.differences, [] as [&str; 0]);
        let (ledger, sent) = (found.counted, self.sent.lock().unwrap());
        let twice: Vec<_> = sent.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "told twice: {twice:?}");
        assert_eq!(ledger.items as usize, self.acknowledged(), "what was acknowledged is there once");
        assert_eq!(ledger.delivered as usize, sent.len(), "delivered is what was sent");
        // The intent was written, and its answer lost: nobody sends that again here.
        assert_eq!(ledger.delivered + ledger.dead, ledger.items);
        ledger.dead as usize
    }
}

pub fn intent(leased: &Leased) -> Intent {
    Intent {
        lease: leased.lease,
        recipient: person(&leased.recipient),
        domain_allowed: true,
        audiences: vec![],
        send_within: Duration::from_secs(15),
        lead: Duration::ZERO,
        waits: true,
    }
}

pub fn accepted(attempt: AttemptId) -> Evidence {
    Evidence { attempt, answer: Answer::Accepted { message_id: Some(format!("m-{attempt}")) } }
}
