//! A small world around a store: people, a clock, mails with their true fate. After every step the oracle looks at all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::model::{AttemptId, DigestId, Entry, Receipt, Time};
use owlpost::quota::Terms;
use owlpost::store::{
    Answer, Ask, Asking, Begun, Command, Evidence, Intent, Learned, Leased, Ours, Page, Query, Report, Result, Rows,
    Sent, Store, Tidied, Turn,
};

use crate::bench::{Bench, LEASE, OnSqlite, Said, Setup, benches};
use crate::events::{Ev, ROLE, at, person};
use crate::oracle::{Known, Snapshot, Truth};

/// Event (id, source), recipient, route.
pub type Key = (String, String, String, String);

/// One attempt: what it listed, what happened to it, what the store was told of it.
#[derive(Clone, Debug)]
pub struct Mail {
    pub attempt: AttemptId,
    pub items: BTreeSet<Key>,
    pub truth: Truth,
    pub known: Known,
    /// Known to be throttled or never called.
    pub free: bool,
}

pub struct World {
    pub bench: Box<dyn Bench>,
    pub store: Option<Arc<dyn Store>>,
    pub policy: Arc<Said>,
    runtime: tokio::runtime::Runtime,
    pub now: Time,
    pub role: BTreeSet<String>,
    pub blocked: BTreeSet<String>,
    pub paused: bool,
    /// What was accepted, in the order of arrival.
    pub history: Vec<Ev>,
    pub mails: Vec<Mail>,
    /// Mails more than one that an item may be in: resends after a doubt, replays.
    pub may: BTreeMap<Key, u32>,
    pub before: Snapshot,
    /// Every step, for the one who reads a failure.
    pub trace: Vec<String>,
    pub purged: bool,
}

/// A fresh world on every store.
pub fn worlds(setup: Setup) -> Vec<World> {
    benches().into_iter().map(|bench| World::on(bench, setup.clone())).collect()
}

/// For what is tried hundreds of times: on the quick store each time, on all of them now and then.
pub fn some_worlds(setup: Setup, time: u64) -> Vec<World> {
    if time.is_multiple_of(NOW_AND_THEN) { worlds(setup) } else { vec![World::on(Box::new(OnSqlite::new()), setup)] }
}

const NOW_AND_THEN: u64 = 16;

impl World {
    pub fn on(mut bench: Box<dyn Bench>, setup: Setup) -> World {
        let now = at(1_000);
        let limits = setup.limits;
        let policy = Arc::new(Said(Mutex::new(setup)));
        let store = bench.open(policy.clone(), limits, now).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // An account that lets everything through; `tests/store/quota.rs` says something else.
        runtime.block_on(store.account(now, Terms::default(), None)).unwrap();
        World {
            bench,
            store: Some(store),
            policy,
            runtime,
            now,
            role: ["ann".to_owned()].into(),
            blocked: BTreeSet::new(),
            paused: false,
            history: vec![],
            mails: vec![],
            may: BTreeMap::new(),
            before: Snapshot::default(),
            trace: vec![],
            purged: false,
        }
    }

    pub fn setup(&self) -> Setup {
        self.policy.0.lock().unwrap().clone()
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.policy.0.lock().unwrap());
    }

    pub fn call<T>(&self, ask: impl AsyncFnOnce(&dyn Store) -> T) -> T {
        let store = self.store.as_ref().expect("the store is open");
        self.runtime.block_on(ask(store.as_ref()))
    }

    fn note(&mut self, step: impl Into<String>) {
        self.trace.push(step.into());
    }

    /// The worker stops, or dies, and another one takes over: at once where there can be only one, else when the leases
    /// are over.
    pub fn restart(&mut self) {
        self.note("restart");
        self.store = None;
        let limits = self.setup().limits;
        self.store = Some(self.bench.open(self.policy.clone(), limits, self.now).unwrap());
        self.check();
        if !self.bench.is_alone() {
            self.pass(LEASE);
            self.expire();
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.note(format!("{time:?} pass"));
        self.now = self.now.plus(time);
    }

    // ---- intake

    pub fn accept(&mut self, event: Ev) -> Receipt {
        self.accept_all(vec![event]).remove(0)
    }

    /// One batch, one transaction.
    pub fn accept_all(&mut self, events: Vec<Ev>) -> Vec<Receipt> {
        let entries: Vec<Entry> = events.iter().map(|e| e.entry(&self.role)).collect();
        self.note(format!("accept {}", events.iter().map(|e| e.id.as_str()).collect::<Vec<_>>().join(", ")));
        let receipts = self.accept_entries(entries);
        for (event, receipt) in events.into_iter().zip(&receipts) {
            if *receipt == Receipt::Accepted {
                self.history.push(event);
            }
        }
        self.check();
        receipts
    }

    pub fn accept_entries(&mut self, entries: Vec<Entry>) -> Vec<Receipt> {
        let now = self.now;
        self.call(async |s| s.accept(now, Arc::new(entries)).await).unwrap()
    }

    // ---- the account

    /// What the account may send from now on, and what all who use it have sent: it was asked just now.
    pub fn account(&mut self, terms: Terms, sent_24h: Option<u64>) {
        let ours = self.ours();
        self.account_says(terms, sent_24h.map(|all| Sent { all, ours }));
    }

    /// The same, and it was asked before.
    pub fn account_says(&mut self, terms: Terms, sent: Option<Sent>) {
        let now = self.now;
        self.note(format!("the account says {terms:?}, {sent:?}"));
        self.call(async |s| s.account(now, terms, sent).await).unwrap();
        self.check();
    }

    /// What is used of the day when the account is asked now.
    pub fn ours(&self) -> Ours {
        let (now, turn) = (self.now, Turn { fresh: Duration::ZERO, within: Duration::ZERO });
        match self.call(async |s| s.take_turn(now, turn).await).unwrap() {
            Asking::Mine(ours) => ours,
            theirs => panic!("there is no other worker: {theirs:?}"),
        }
    }

    pub fn gauges(&self) -> owlpost::store::Gauges {
        let now = self.now;
        self.call(async |s| s.gauges(now).await).unwrap()
    }

    pub fn mails_sent(&self) -> u64 {
        let query = Query::Status { now: self.now };
        match self.call(async |s| s.read(&query, Page::FIRST).await).unwrap() {
            Rows::Status(status) => status.mails.sent,
            other => panic!("not a status: {other:?}"),
        }
    }

    // ---- delivery

    pub fn ask(&self) -> Ask {
        Ask { limit: 100, lease: LEASE, everything: false }
    }

    pub fn claim_up_to(&mut self, limit: u32) -> Vec<Leased> {
        let (now, ask) = (self.now, Ask { limit, ..self.ask() });
        let leased = self.call(async |s| s.claim(now, &ask).await).unwrap();
        self.note(format!("claim {:?}", leased.iter().map(|l| l.lease.digest.number).collect::<Vec<_>>()));
        self.check();
        leased
    }

    pub fn claim_all(&mut self) -> Vec<Leased> {
        self.claim_up_to(100)
    }

    /// The only digest that is due.
    pub fn claim(&mut self) -> Leased {
        let mut leased = self.claim_all();
        assert_eq!(leased.len(), 1, "one digest is due\n{}", self.story());
        leased.remove(0)
    }

    pub fn intent(&self, leased: &Leased) -> Intent {
        let named = |references: &[String]| {
            let all = references
                .iter()
                .flat_map(|r| if r == ROLE { self.role.iter().cloned().collect() } else { vec![r.clone()] });
            all.map(|p| person(&p)).collect::<Vec<_>>()
        };
        Intent {
            lease: leased.lease,
            recipient: person(&leased.recipient),
            domain_allowed: true,
            audiences: leased.audiences.iter().map(|n| (n.event_number, named(&n.references))).collect(),
            send_within: Duration::from_secs(15),
            lead: Duration::ZERO,
            waits: true,
        }
    }

    pub fn begin(&mut self, leased: &Leased) -> Begun {
        let intent = self.intent(leased);
        self.begin_with(leased, intent)
    }

    pub fn begin_with(&mut self, leased: &Leased, intent: Intent) -> Begun {
        let now = self.now;
        let begun = self.call(async |s| s.begin(now, Arc::new(vec![intent])).await).unwrap().remove(0);
        let said = match &begun {
            Begun::Send(c) => {
                format!("{} lists {}", c.attempt, c.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        };
        self.note(format!("begin {} for {}: {said}", leased.lease.digest.number, leased.recipient));
        if let Begun::Send(contents) = &begun {
            let key = |i: &owlpost::model::Listed| {
                (i.id.clone(), i.source.clone(), leased.recipient.clone(), leased.route.clone())
            };
            let mail = Mail {
                attempt: contents.attempt,
                items: contents.items.iter().map(key).collect(),
                truth: Truth::Uncalled,
                known: Known::Unknown,
                free: false,
            };
            assert_eq!(mail.items.len(), contents.items.len(), "no item twice in one mail");
            self.gate(&mail);
            self.mails.push(mail);
        }
        self.check();
        begun
    }

    /// Claims the only digest that is due, and begins it.
    pub fn send(&mut self) -> Mail {
        let leased = self.claim();
        self.begun(&leased)
    }

    pub fn begun(&mut self, leased: &Leased) -> Mail {
        let begun = self.begin(leased);
        assert!(matches!(begun, Begun::Send(_)), "the mail may leave, not {begun:?}\n{}", self.story());
        self.mails.last().unwrap().clone()
    }

    // ---- answers: what really happened, and what the store hears of it

    pub fn learn(&mut self, mail: &Mail, answer: Answer) -> Learned {
        let (now, evidence) = (self.now, Evidence { attempt: mail.attempt, answer: answer.clone() });
        let learned = self.call(async |s| s.learn(now, Arc::new(vec![evidence])).await).unwrap().remove(0);
        self.note(format!("learn {} {answer:?}: {learned:?}", mail.attempt));
        self.heard(mail.attempt, &answer);
        self.check();
        learned
    }

    /// Several answers at once. Those of mails that the server did not take.
    pub fn learn_unsent(&mut self, answers: &[(&Mail, Answer)]) {
        let evidence = |(mail, answer): &(&Mail, Answer)| Evidence { attempt: mail.attempt, answer: answer.clone() };
        let (now, all) = (self.now, Arc::new(answers.iter().map(evidence).collect::<Vec<_>>()));
        let learned = self.call(async |s| s.learn(now, all).await).unwrap();
        for ((mail, answer), learned) in answers.iter().zip(learned) {
            self.truth(mail, Truth::Unsent);
            self.note(format!("learn {} {answer:?}: {learned:?}", mail.attempt));
            self.heard(mail.attempt, answer);
        }
        self.check();
    }

    fn truth(&mut self, mail: &Mail, truth: Truth) {
        let mine = self.mails.iter_mut().find(|m| m.attempt == mail.attempt).unwrap();
        assert_eq!(mine.truth, Truth::Uncalled, "one call an attempt");
        mine.truth = truth;
    }

    /// The server takes it; nobody says so yet.
    pub fn taken(&mut self, mail: &Mail) {
        self.truth(mail, Truth::Sent);
    }

    pub fn accepted(&mut self, mail: &Mail) -> Learned {
        self.taken(mail);
        self.evidence(mail)
    }

    /// An event, or a late answer, says that it was accepted.
    pub fn evidence(&mut self, mail: &Mail) -> Learned {
        self.learn(mail, Answer::Accepted { message_id: Some(format!("m-{}", mail.attempt)) })
    }

    pub fn bounced(&mut self, mail: &Mail) -> Learned {
        let mine = self.mails.iter_mut().find(|m| m.attempt == mail.attempt).unwrap();
        assert!(matches!(mine.truth, Truth::Sent | Truth::Bounced), "only what was sent can bounce");
        mine.truth = Truth::Bounced;
        self.learn(mail, Answer::Failed { detail: "550 no such user".into() })
    }

    /// Accepted, but the answer is lost.
    pub fn lost_sent(&mut self, mail: &Mail) -> Learned {
        self.taken(mail);
        self.learn(mail, Answer::Ambiguous { detail: "connection reset".into() })
    }

    pub fn lost_unsent(&mut self, mail: &Mail) -> Learned {
        self.truth(mail, Truth::Unsent);
        self.learn(mail, Answer::Ambiguous { detail: "connection reset".into() })
    }

    /// The server does not take it; what it says comes apart.
    pub fn unsent(&mut self, mail: &Mail) {
        self.truth(mail, Truth::Unsent);
    }

    pub fn refused(&mut self, mail: &Mail) -> Learned {
        self.truth(mail, Truth::Unsent);
        self.learn(mail, Answer::Retryable { detail: "451 later".into() })
    }

    pub fn permanent(&mut self, mail: &Mail) -> Learned {
        self.truth(mail, Truth::Unsent);
        self.learn(mail, Answer::Permanent { detail: "554 no".into() })
    }

    pub fn throttled(&mut self, mail: &Mail) -> Learned {
        self.truth(mail, Truth::Unsent);
        self.learn(
            mail,
            Answer::Throttled { retry_in: Duration::from_secs(1), share: None, detail: "slow down".into() },
        )
    }

    pub fn not_called(&mut self, mail: &Mail) -> Learned {
        self.truth(mail, Truth::Unsent);
        self.learn(mail, Answer::NotCalled { unrenderable: vec![], detail: "too late".into() })
    }

    // ---- upkeep

    pub fn expire(&mut self) -> Tidied {
        let now = self.now;
        let tidied = self.call(async |s| s.expire(now, false).await).unwrap();
        self.note(format!("expire: {} leases, {} doubts", tidied.leases_ended, tidied.doubts_ended));
        self.allow_resends();
        self.check();
        tidied
    }

    /// All leases are over, and upkeep looks.
    pub fn lease_ends(&mut self) {
        self.pass(LEASE);
        assert!(self.expire().leases_ended > 0, "a lease ended\n{}", self.story());
    }

    /// All doubts are over, and upkeep looks.
    pub fn doubt_ends(&mut self) {
        let grace = self.setup().grace;
        self.pass(grace);
        assert!(self.expire().doubts_ended > 0, "a doubt ended\n{}", self.story());
    }

    /// Long enough for every retry.
    pub fn retry_is_due(&mut self) {
        self.pass(Duration::from_secs(60));
    }

    /// Purges to the end; gives the turns that it took.
    pub fn purge(&mut self) -> u32 {
        let (now, mut turns) = (self.now, 1);
        self.purged = true;
        loop {
            let tidied = self.call(async |s| s.purge(now).await).unwrap();
            self.check();
            if !tidied.more {
                break;
            }
            turns += 1;
            assert!(turns < 10_000, "a purge comes to its end");
        }
        self.note("purge");
        turns
    }

    pub fn compact(&mut self) {
        let now = self.now;
        self.call(async |s| s.compact(now).await).unwrap();
        self.note("compact");
        self.check();
    }

    // ---- operators

    pub fn act(&mut self, command: Command) -> Report {
        let now = self.now;
        let report = self.call(async |s| s.act(now, &command).await).unwrap();
        self.note(format!("{command:?}: {report:?}"));
        self.check();
        report
    }

    pub fn pause(&mut self) {
        self.paused = true;
        self.act(Command::Pause { route: None });
    }

    pub fn resume(&mut self) {
        self.paused = false;
        self.act(Command::Resume { route: None });
    }

    pub fn suppress(&mut self, who: &str) {
        self.blocked.insert(who.into());
        self.note(format!("suppress {who}"));
        self.bench.run(&format!(
            "INSERT INTO suppression (address, reason, since) VALUES ('{who}@example.com', 'complaint', 0) ON CONFLICT DO NOTHING"
        ));
    }

    pub fn send_now(&mut self, leased: &Leased) -> Report {
        self.act(Command::SendNow { digest: leased.lease.digest.to_string() })
    }

    /// The same of a digest that nobody has a lease on.
    pub fn hurry(&mut self, number: i64) -> Report {
        let store = self.bench.rows("SELECT store_id FROM meta")[0][0].int();
        let id = DigestId { store: u32::try_from(store).unwrap(), number };
        self.act(Command::SendNow { digest: id.to_string() })
    }

    pub fn replay(&mut self, item: &Key) -> Report {
        let row = self.before.items[item].clone();
        let report = self.act_unchecked(Command::ReplayItems { ids: vec![row.id] });
        if report.changed == 1 {
            *self.may.entry(item.clone()).or_default() += 1;
        }
        self.check();
        report
    }

    fn act_unchecked(&mut self, command: Command) -> Report {
        let now = self.now;
        let report = self.call(async |s| s.act(now, &command).await).unwrap();
        self.note(format!("{command:?}: {report:?}"));
        report
    }

    pub fn release(&mut self, leased: &Leased) -> Result<()> {
        let (now, leases) = (self.now, Arc::new(vec![leased.lease]));
        let released = self.call(async |s| s.release(now, leases).await);
        self.note("release");
        self.check();
        released
    }

    // ---- the end

    /// Faults are over: everything leaves that can leave.
    pub fn finish(&mut self) {
        if self.paused {
            self.resume();
        }
        for _ in 0..60 {
            self.act(Command::Release { digest: None, route: None });
            for leased in self.claim_all() {
                if let Begun::Send(_) = self.begin(&leased) {
                    let mail = self.mails.last().unwrap().clone();
                    self.accepted(&mail);
                }
            }
            if self.before.is_settled() {
                return;
            }
            self.pass(self.setup().grace.max(self.setup().window).max(LEASE));
            self.expire();
        }
        panic!("everything comes to an end\n{}", self.story());
    }
}
