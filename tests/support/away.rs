//! A store that can be away for the delivery loop, and counts how often it is asked meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use owlpost::model::{Entry, Lease, Receipt, Time};
use owlpost::quota::Terms;
use owlpost::store::{
    Ask, Asking, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intake, Intent, Learned, Leased,
    Left, Letter, Letters, Page, Planning, Portion, Query, Report, Result, Rows, Sent, Store, StoreError, Tidied, Turn,
    Upkeep,
};

/// A loop that never waits would not let virtual time go on.
const ENDLESS: usize = 10_000;

pub struct Away {
    inner: Arc<dyn Store>,
    is_away: AtomicBool,
    refused: AtomicUsize,
    ends_doubts: AtomicBool,
}

impl Away {
    pub fn new(inner: Arc<dyn Store>) -> Away {
        Away {
            inner,
            is_away: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            ends_doubts: AtomicBool::new(false),
        }
    }

    pub fn set(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// How often it was asked in vain.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// From now on, between a claim that finds nothing and the next question, all doubts end.
    pub fn end_doubts_after_claims(&self) {
        self.ends_doubts.store(true, Ordering::SeqCst);
    }

    fn here(&self) -> Result<&dyn Store> {
        if !self.is_away.load(Ordering::SeqCst) {
            return Ok(&*self.inner);
        }
        let refused = self.refused.fetch_add(1, Ordering::SeqCst);
        assert!(refused < ENDLESS, "it is asked again and again, and nobody waits");
        Err(StoreError::Unavailable("away".into()))
    }
}

#[async_trait]
impl Delivery for Away {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        let claimed = self.here()?.claim(now, ask).await?;
        if claimed.is_empty() && self.ends_doubts.load(Ordering::SeqCst) {
            self.inner.expire(now, true).await?;
        }
        Ok(claimed)
    }

    async fn account(&self, now: Time, terms: Terms, sent: Option<Sent>) -> Result<()> {
        self.here()?.account(now, terms, sent).await
    }

    async fn take_turn(&self, now: Time, turn: Turn) -> Result<Asking> {
        self.here()?.take_turn(now, turn).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        self.here()?.begin(now, mails).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        self.here()?.learn(now, evidence).await
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        self.here()?.release(now, leases).await
    }

    fn works_side_by_side(&self) -> bool {
        self.inner.works_side_by_side()
    }

    async fn left(&self, now: Time) -> Result<Left> {
        self.here()?.left(now).await
    }

    async fn under_way(&self, now: Time) -> Result<u64> {
        self.here()?.under_way(now).await
    }

    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>> {
        self.here()?.next_due(ask).await
    }
}

#[async_trait]
impl Upkeep for Away {
    async fn gauges(&self, now: Time) -> Result<Gauges> {
        self.here()?.gauges(now).await
    }

    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        self.here()?.expire(now, doubts_now).await
    }

    async fn end_own_doubts(&self, now: Time) -> Result<Tidied> {
        self.here()?.end_own_doubts(now).await
    }

    async fn take_planning(&self, now: Time, started: Time) -> Result<Planning> {
        self.here()?.take_planning(now, started).await
    }

    async fn keep_planning(&self, now: Time, since: Time, done: bool) -> Result<()> {
        self.here()?.keep_planning(now, since, done).await
    }

    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
        self.here()?.replan(now, cursor, limit).await
    }

    async fn purge(&self, now: Time) -> Result<Tidied> {
        self.here()?.purge(now).await
    }

    async fn compact(&self, now: Time) -> Result<()> {
        self.here()?.compact(now).await
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.here()?.next_upkeep().await
    }

    async fn report(&self, now: Time, conditions: Arc<Vec<Condition>>) -> Result<()> {
        self.here()?.report(now, conditions).await
    }
}

#[async_trait]
impl Intake for Away {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        self.here()?.accept(now, entries).await
    }
}

#[async_trait]
impl Letters for Away {
    async fn unforwarded(&self, portion: Portion) -> Result<Vec<Letter>> {
        self.here()?.unforwarded(portion).await
    }

    async fn forwarded(&self, now: Time, fates: Arc<Vec<(String, Fate)>>) -> Result<()> {
        self.here()?.forwarded(now, fates).await
    }
}

#[async_trait]
impl Desk for Away {
    async fn read(&self, query: &Query, page: Page) -> Result<Rows> {
        self.here()?.read(query, page).await
    }

    async fn act(&self, now: Time, command: &Command) -> Result<Report> {
        self.here()?.act(now, command).await
    }
}
