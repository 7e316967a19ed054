//! Every trait, with faults: errors before the effect and after it, delays, lost replies, redelivery, people who move.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use owlpost::directory::{Audience, Directory, DirectoryError};
use owlpost::mailer::{Account, Finding, Mailer, MessageId, SendError};
use owlpost::model::{AttemptId, Email, Entry, Lease, Person, Receipt, Share, Time};
use owlpost::quota::Terms;
use owlpost::store::sqlite::Sqlite;
use owlpost::store::{
    Answer, Ask, Asking, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intake, Intent, Learned,
    Leased, Left, Letter, Letters, Page, Planning, Portion, Query, Report, Result, Rows, Sent, StoreError, Tidied,
    Turn, Upkeep,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::oracle::Oracle;
use crate::world::{Shared, lock};

/// Continues at a moment of virtual time that depends on the kind of call alone: blocking threads end in any order, and
/// nothing may depend on it. Time only moves when everything else waits.
pub async fn slot(world: &Shared, offset_ms: u64) {
    let now_ms = lock(world).elapsed().as_millis() as u64;
    let next_ms = (now_ms / 20 + 1) * 20 + offset_ms;
    sleep(Duration::from_millis(next_ms - now_ms)).await;
}

const DELIVERY: u64 = 0;
/// These two go on beside a begin.
const CLAIMS: u64 = 1;
const ANSWERS: u64 = 3;
const ACCOUNT: u64 = 2;
pub const INTAKE: u64 = 4;
const UPKEEP: u64 = 8;
const OPERATOR: u64 = 12;
const DIRECTORY: u64 = 16;

// ---- the store

pub struct FaultyStore {
    pub inner: Arc<Sqlite>,
    pub world: Shared,
    /// One call at a time, so that the oracle sees the store as the call left it.
    pub oracle: tokio::sync::Mutex<Oracle>,
    /// The loops take it for one that does more than one call at once, and have several under way.
    pub side_by_side: bool,
}

impl FaultyStore {
    async fn call<T>(
        &self,
        kind: &'static str,
        offset_ms: u64,
        work: impl Future<Output = Result<T>>,
        after: impl FnOnce(&mut Oracle, &T),
    ) -> Result<T> {
        let percent = if kind == "accept" { lock(&self.world).refusals } else { 4 };
        if lock(&self.world).fault(kind, percent) {
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

impl FaultyStore {
    /// Somebody else holds the rows of some, as he may in a database that is shared: which, and the others.
    fn strangers<T: Clone>(&self, what: &str, all: Arc<Vec<T>>, digest: fn(&T) -> i64) -> (Vec<bool>, Arc<Vec<T>>) {
        let mut world = lock(&self.world);
        let held: Vec<bool> = all.iter().map(|_| world.fault("strangers", 6)).collect();
        for (one, _) in all.iter().zip(&held).filter(|(_, held)| **held) {
            world.note(format!("a stranger holds the {what} {}", digest(one)));
        }
        let free = all.iter().zip(&held).filter(|(_, held)| !**held).map(|(one, _)| one.clone());
        (held.clone(), Arc::new(free.collect()))
    }
}

/// In the order of all.
fn with_held<T>(held: &[bool], free: Vec<T>, is_held: fn() -> T) -> Vec<T> {
    let mut free = free.into_iter();
    held.iter().map(|held| if *held { is_held() } else { free.next().expect("one for each") }).collect()
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
        self.call("claim", CLAIMS, self.inner.claim(now, ask), |oracle, leased| oracle.claimed(leased)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        let (held, intents) = self.strangers("begin of", mails.clone(), |mail| mail.lease.digest.number);
        let begin = self.inner.begin(now, intents.clone());
        let begun = self.call("begin", DELIVERY, begin, |oracle, begun| oracle.begun(&intents, begun)).await?;
        let mut begun = with_held(&held, begun, || Begun::Later);
        // The first time it does not wait to see whether they stay.
        let hasty = mails.iter().map(|mail| !mail.waits);
        for (one, _) in begun.iter_mut().zip(hasty).filter(|(one, hasty)| *hasty && **one == Begun::Later) {
            *one = Begun::Busy;
        }
        Ok(begun)
    }

    async fn account(&self, now: Time, terms: Terms, sent: Option<Sent>) -> Result<()> {
        self.call("account", ACCOUNT, self.inner.account(now, terms, sent), |_, ()| {}).await
    }

    async fn take_turn(&self, now: Time, turn: Turn) -> Result<Asking> {
        self.call("take_turn", ACCOUNT, self.inner.take_turn(now, turn), |_, _| {}).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        let (held, told) = self.strangers("answer of", evidence, |one| one.attempt.digest.number);
        let learn = self.inner.learn(now, told.clone());
        let learned = self.call("learn", ANSWERS, learn, |oracle, learned| oracle.learned(&told, learned)).await?;
        Ok(with_held(&held, learned, || Learned::Held))
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        self.call("release", DELIVERY, self.inner.release(now, leases), |_, ()| {}).await
    }

    fn works_side_by_side(&self) -> bool {
        self.side_by_side
    }

    async fn left(&self, now: Time) -> Result<Left> {
        self.call("left", DELIVERY, self.inner.left(now), |_, _| {}).await
    }

    async fn under_way(&self, now: Time) -> Result<u64> {
        self.call("under_way", DELIVERY, self.inner.under_way(now), |_, _| {}).await
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

    async fn end_own_doubts(&self, now: Time) -> Result<Tidied> {
        self.call("end_own_doubts", UPKEEP, self.inner.end_own_doubts(now), |_, _| {}).await
    }

    async fn take_planning(&self, now: Time, started: Time) -> Result<Planning> {
        self.call("take_planning", UPKEEP, self.inner.take_planning(now, started), |_, _| {}).await
    }

    async fn keep_planning(&self, now: Time, since: Time, done: bool) -> Result<()> {
        self.call("keep_planning", UPKEEP, self.inner.keep_planning(now, since, done), |_, ()| {}).await
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

    async fn report(&self, now: Time, conditions: Arc<Vec<Condition>>) -> Result<()> {
        self.call("report", UPKEEP, self.inner.report(now, conditions), |_, ()| {}).await
    }
}

#[async_trait]
impl Letters for FaultyStore {
    async fn unforwarded(&self, portion: Portion) -> Result<Vec<Letter>> {
        self.call("unforwarded", UPKEEP, self.inner.unforwarded(portion), |_, _| {}).await
    }

    async fn forwarded(&self, now: Time, fates: Arc<Vec<(String, Fate)>>) -> Result<()> {
        self.call("forwarded", UPKEEP, self.inner.forwarded(now, fates), |_, ()| {}).await
    }
}

#[async_trait]
impl Desk for FaultyStore {
    async fn read(&self, query: &Query, page: Page) -> Result<Rows> {
        self.inner.read(query, page).await
    }

    async fn act(&self, now: Time, command: &Command) -> Result<Report> {
        let replaying = match command {
            Command::ReplayItems { ids } => self.oracle.lock().await.replaying(ids),
            _ => Vec::new(),
        };
        let work = self.inner.act(now, command);
        let result = self.call("act", OPERATOR, work, |oracle, report| oracle.acted(command, report)).await;
        lock(&self.world).replaying.retain(|key| !replaying.contains(key));
        result
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
            62..=71 => Err(SendError::Retryable("simulated".into())),
            72..=74 => Err(SendError::Unreachable("simulated".into())),
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
