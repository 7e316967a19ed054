//! Every trait, with faults: errors before the effect and after it, delays, lost replies, redelivery, people who move.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use owlpost::directory::{Audience, Directory, DirectoryError};
use owlpost::mailer::{Account, Finding, Mailer, MessageId, SendError};
use owlpost::model::{AttemptId, Email, Entry, Lease, Person, Receipt, Share, Time};
use owlpost::quota::Terms;
use owlpost::source::{Ack, Batch, Health, Message, Room, Source, SourceError};
use owlpost::store::sqlite::Sqlite;
use owlpost::store::{
    Answer, Ask, Begun, Command, Delivery, Desk, Evidence, Gauges, Intake, Intent, Learned, Leased, Page, Query,
    Report, Result, Rows, StoreError, Tidied, Upkeep,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::oracle::Oracle;
use crate::world::{Shared, lock};

/// Continues at a moment of virtual time that depends on the kind of call alone: blocking threads end in any order, and
/// nothing may depend on it. Time only moves when everything else waits.
async fn slot(world: &Shared, offset_ms: u64) {
    let now_ms = lock(world).elapsed().as_millis() as u64;
    let next_ms = (now_ms / 20 + 1) * 20 + offset_ms;
    sleep(Duration::from_millis(next_ms - now_ms)).await;
}

const DELIVERY: u64 = 0;
const ACCOUNT: u64 = 2;
const INTAKE: u64 = 4;
const UPKEEP: u64 = 8;
const OPERATOR: u64 = 12;
const DIRECTORY: u64 = 16;

// ---- the store

pub struct FaultyStore {
    pub inner: Arc<Sqlite>,
    pub world: Shared,
    /// One call at a time, so that the oracle sees the store as the call left it.
    pub oracle: tokio::sync::Mutex<Oracle>,
}

impl FaultyStore {
    async fn call<T>(
        &self,
        kind: &'static str,
        offset_ms: u64,
        work: impl Future<Output = Result<T>>,
        after: impl FnOnce(&mut Oracle, &T),
    ) -> Result<T> {
        if lock(&self.world).fault(kind, 4) {
            slot(&self.world, offset_ms).await;
            lock(&self.world).note(format!("{kind}: fails before"));
            return Err(StoreError::Unavailable("fault before".into()));
        }
        let slow = lock(&self.world).fault(kind, 3);
        if slow {
            let ms = lock(&self.world).dice(kind).below(150_000);
            lock(&self.world).note(format!("{kind}: slow by {ms} ms"));
            sleep(Duration::from_millis(ms)).await;
        }
        let result = {
            let mut oracle = self.oracle.lock().await;
            let result = work.await;
            slot(&self.world, offset_ms).await;
            if let Ok(value) = &result {
                after(&mut oracle, value);
                oracle.check(kind);
            }
            result
        };
        if lock(&self.world).fault(kind, 4) {
            lock(&self.world).note(format!("{kind}: fails after"));
            return Err(StoreError::Unavailable("fault after".into()));
        }
        result
    }
}

#[async_trait]
impl Intake for FaultyStore {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        let given = entries.clone();
        self.call("accept", INTAKE, self.inner.accept(now, entries), |oracle, receipts| {
            oracle.accepted(&given, receipts)
        })
        .await
    }
}

#[async_trait]
impl Delivery for FaultyStore {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        self.call("claim", DELIVERY, self.inner.claim(now, ask), |oracle, leased| oracle.claimed(leased)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        let intents = mails.clone();
        self.call("begin", DELIVERY, self.inner.begin(now, mails), |oracle, begun| oracle.begun(&intents, begun)).await
    }

    async fn account(&self, now: Time, terms: Terms, sent_24h: Option<u64>) -> Result<()> {
        self.call("account", ACCOUNT, self.inner.account(now, terms, sent_24h), |_, ()| {}).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        let told = evidence.clone();
        self.call("learn", DELIVERY, self.inner.learn(now, evidence), |oracle, learned| oracle.learned(&told, learned))
            .await
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        self.call("release", DELIVERY, self.inner.release(now, leases), |_, ()| {}).await
    }

    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>> {
        self.call("next_due", DELIVERY, self.inner.next_due(ask), |_, _| {}).await
    }
}

#[async_trait]
impl Upkeep for FaultyStore {
    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        self.call("expire", UPKEEP, self.inner.expire(now, doubts_now), |_, _| {}).await
    }

    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
        self.call("replan", UPKEEP, self.inner.replan(now, cursor, limit), |_, _| {}).await
    }

    async fn purge(&self, now: Time) -> Result<Tidied> {
        self.call("purge", UPKEEP, self.inner.purge(now), |_, _| {}).await
    }

    async fn compact(&self, now: Time) -> Result<()> {
        self.call("compact", UPKEEP, self.inner.compact(now), |_, ()| {}).await
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.call("next_upkeep", UPKEEP, self.inner.next_upkeep(), |_, _| {}).await
    }

    async fn gauges(&self, now: Time) -> Result<Gauges> {
        self.call("gauges", UPKEEP, self.inner.gauges(now), |_, _| {}).await
    }
}

#[async_trait]
impl Desk for FaultyStore {
    async fn read(&self, query: &Query, page: Page) -> Result<Rows> {
        self.inner.read(query, page).await
    }

    async fn act(&self, now: Time, command: &Command) -> Result<Report> {
        self.call("act", OPERATOR, self.inner.act(now, command), |oracle, report| oracle.acted(command, report)).await
    }
}

// ---- the source

/// Hands out what has arrived, in any order, more than once, and again after every fault.
pub struct SimSource {
    pub world: Shared,
    out: Vec<(u64, Vec<usize>)>,
    next_batch: u64,
    /// At its end when nothing is left; else it waits for more for ever, as a broker does.
    pub ends: bool,
}

impl SimSource {
    pub fn new(world: Shared, ends: bool) -> SimSource {
        SimSource { world, out: Vec::new(), next_batch: 0, ends }
    }

    fn take(&mut self, ack: Ack) -> Vec<usize> {
        let at = self.out.iter().position(|(batch, _)| *batch == ack.batch).expect("acked once, and what was given");
        self.out.remove(at).1
    }
}

enum Found {
    Batch(Batch),
    Fault,
    End,
    Later(Duration),
    Nothing,
}

impl SimSource {
    fn look(&mut self, room: Room) -> Found {
        let mut world = lock(&self.world);
        if world.fault("source", 3) {
            return Found::Fault;
        }
        let now_ms = world.elapsed().as_millis() as u64;
        let busy: Vec<usize> = self.out.iter().flat_map(|(_, parcels)| parcels.iter().copied()).collect();
        let open = |p: &crate::world::Parcel| !p.acked || p.copies > 0;
        let mut ready: Vec<usize> = (0..world.parcels.len())
            .filter(|i| !busy.contains(i) && open(&world.parcels[*i]) && world.parcels[*i].at_ms <= now_ms)
            .collect();
        if ready.is_empty() {
            let next = world.parcels.iter().filter(|p| open(p) && p.at_ms > now_ms).map(|p| p.at_ms).min();
            return match next {
                Some(at_ms) => Found::Later(Duration::from_millis(at_ms - now_ms)),
                None if busy.is_empty() && self.ends => Found::End,
                None => Found::Nothing,
            };
        }
        let most = 1 + world.dice("source").below(6) as usize;
        let mut chosen = Vec::new();
        while !ready.is_empty() && chosen.len() < most.min(room.messages) {
            let at = world.dice("source").below(ready.len() as u64) as usize;
            chosen.push(ready.remove(at));
        }
        let messages = chosen.iter().map(|i| message(&world.facts[world.parcels[*i].fact].json)).collect();
        let ids: Vec<String> = chosen.iter().map(|i| world.facts[world.parcels[*i].fact].id.clone()).collect();
        world.note(format!("source: {}", ids.join(" ")));
        self.next_batch += 1;
        self.out.push((self.next_batch, chosen));
        Found::Batch(Batch { messages, ack: Ack { batch: self.next_batch, epoch: 0 } })
    }
}

#[async_trait]
impl Source for SimSource {
    fn name(&self) -> &str {
        "zms"
    }

    async fn next(&mut self, room: Room) -> std::result::Result<Option<Batch>, SourceError> {
        loop {
            slot(&self.world, INTAKE).await;
            match self.look(room) {
                Found::Batch(batch) => return Ok(Some(batch)),
                Found::Fault => return Err(SourceError::Unavailable("fault".into())),
                Found::End => return Ok(None),
                Found::Later(wait) => sleep(wait).await,
                // While a batch is out, its refusal is the only news; the loop asks again after it.
                Found::Nothing => std::future::pending::<()>().await,
            }
        }
    }

    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]) {
        let parcels = self.take(ack);
        assert_eq!(parcels.len(), receipts.len(), "a receipt list a message");
        let mut world = lock(&self.world);
        for i in parcels {
            let later_ms = world.dice("source").below(1_200_000);
            let now_ms = world.elapsed().as_millis() as u64;
            // An ack that the broker never saw is the message once more.
            let lost = world.fault("source", 5);
            let parcel = &mut world.parcels[i];
            parcel.acked = !lost;
            parcel.copies = parcel.copies.saturating_sub(1);
            parcel.at_ms = now_ms + later_ms;
        }
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        let parcels = self.take(ack);
        let mut world = lock(&self.world);
        let now_ms = world.elapsed().as_millis() as u64;
        for i in parcels {
            world.parcels[i].at_ms = now_ms + retry_in.as_millis() as u64;
        }
    }

    async fn stop(&mut self, _by: Instant) {}

    fn health(&self) -> Health {
        Health::Ready
    }
}

fn message(json: &str) -> Message {
    Message {
        position: "simulated".into(),
        broker_id: None,
        headers: vec![("content-type".into(), "application/cloudevents+json".into())],
        body: json.as_bytes().to_vec(),
        time: None,
    }
}

// ---- the directory

/// Everybody has an address but those beyond the allowed domain; the role's members come and go.
pub struct SimDirectory {
    pub world: Shared,
}

#[async_trait]
impl Directory for SimDirectory {
    async fn resolve(&self, who: &[String], _max_age: Duration) -> std::result::Result<Vec<Audience>, DirectoryError> {
        slot(&self.world, DIRECTORY).await;
        let mut world = lock(&self.world);
        if world.fault("directory", 4) {
            return Err(DirectoryError("fault".into()));
        }
        let audience = |reference: &String| Audience {
            reference: reference.clone(),
            known: true,
            inside: vec![],
            people: if reference == crate::events::ROLE {
                world.role.iter().map(|p| person(p)).collect()
            } else {
                vec![person(reference)]
            },
        };
        Ok(who.iter().map(audience).collect())
    }
}

pub fn person(principal: &str) -> Person {
    let name = principal.trim_start_matches("user.");
    // Eve lives elsewhere: nobody may ever mail her.
    let domain = if name == "eve" { "elsewhere.example" } else { "example.com" };
    Person { principal: principal.to_owned(), address: Some(format!("{name}@{domain}")), zone: None, language: None }
}

// ---- the mail server

pub struct SimMailer {
    pub world: Shared,
}

#[async_trait]
impl Mailer for SimMailer {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: Instant) -> std::result::Result<MessageId, SendError> {
        assert!(Instant::now() <= by, "a call of {tag} starts after its last moment");
        assert!(mail.to.ends_with("@example.com"), "mail leaves for a domain that is not allowed");
        // Its own dice: sends run side by side, and which comes first must not matter.
        let mut dice = crate::events::Dice::new(lock(&self.world).seed, &format!("mail {}", tag.number));
        for _ in 0..tag.digest.number {
            dice.next();
        }
        let (faults, throw) = (lock(&self.world).faults, dice.below(100));
        let throw = if faults { throw } else { 0 };
        let slow_ms = if dice.chance(10) && faults { dice.below(14_000) } else { dice.below(300) };
        let record = |sent: bool| {
            let mut world = lock(&self.world);
            let at = world.elapsed();
            world.calls.push(crate::world::Call { at, attempt: tag, sent, bounced: false });
            world.quota_holds();
        };
        lock(&self.world).note(format!("call {}.{}: {throw} in {slow_ms} ms", tag.digest.number, tag.number));
        // Sent at once, though the reply may come too late or never.
        let sent = throw < 62 || (92..96).contains(&throw);
        record(sent);
        sleep_until(Instant::now() + Duration::from_millis(slow_ms)).await;
        match throw {
            0..=61 => Ok(format!("m-{tag}")),
            62..=74 => Err(SendError::Retryable("simulated".into())),
            75..=85 => {
                let share = if dice.chance(80) { Share::Second } else { Share::Day };
                Err(SendError::Throttled { reason: "simulated".into(), share })
            }
            86..=88 => Err(SendError::Permanent("simulated".into())),
            89..=91 => Err(SendError::Halted("simulated".into())),
            _ => Err(SendError::Ambiguous("simulated".into())),
        }
    }

    async fn account(&self) -> std::result::Result<Option<Account>, SendError> {
        let mut world = lock(&self.world);
        if world.fault("account", 20) {
            return Err(SendError::Retryable("simulated".into()));
        }
        // At the end the account grows, so that everything can come to its end.
        let per_day = if world.faults { world.per_day } else { 1_000_000 };
        let (per_second, sent_24h) = (crate::world::RATE, world.sent_24h());
        Ok(Some(Account { per_second, per_day: Some(per_day), sent_24h, stopped: None }))
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![]
    }

    fn gives_evidence(&self) -> bool {
        true
    }
}

/// An SES event about an attempt, through the same gate as every answer.
pub async fn tell(store: &FaultyStore, now: Time, attempt: AttemptId, failed: bool) {
    let answer = if failed {
        Answer::Failed { detail: "bounced".into() }
    } else {
        Answer::Accepted { message_id: Some(format!("m-{attempt}")) }
    };
    let evidence = Arc::new(vec![Evidence { attempt, answer }]);
    let told = evidence.clone();
    let _ = store
        .call("evidence", OPERATOR, store.inner.learn(now, evidence), |oracle, learned| oracle.learned(&told, learned))
        .await;
}
