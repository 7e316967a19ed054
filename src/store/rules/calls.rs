//! The store's traits for every [`Engine`]: which rule runs in which transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::tx::Tx;
use super::{Books, Shared, accept, act, asking, begin, claim, condition, desk, expire, forward, learn, purge};
use crate::model::{Entry, Lease, Receipt, Time};
use crate::quota::Terms;
use crate::store::{
    Ask, Asking, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intake, Intent, Learned, Leased,
    Letter, Letters, Page, Portion, Query, Report, Result, Rows, StoreError, Tidied, Turn, Upkeep,
};

/// A database that runs the rules. What it gets may run more than once: a transaction that lost a race is begun anew.
#[async_trait]
pub(in crate::store) trait Engine: Send + Sync {
    /// One transaction: everything that `work` did becomes durable, or nothing.
    async fn write<T, W>(&self, now: Time, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static;

    /// Whether two transactions can be under way at once.
    fn works_side_by_side(&self) -> bool;

    /// The same for a batch of intake, which comes again and again to the same mailboxes.
    async fn take_in<T, W>(&self, now: Time, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.write(now, work).await
    }

    /// A consistent look at the store, however long: it holds up nobody.
    async fn look<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static;

    /// Short look-ups of the loops.
    async fn peek<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static;

    /// Gives space back that the purge has freed, a bounded part a call.
    async fn give_back(&self) -> Result<()>;
}

/// For a list: one transaction for all. If one of them can't be done, now or ever, each gets a transaction of its own and
/// only that one is given up, so that it holds up no other. `counts`: once the first is done, what was done counts, and an
/// error of the whole call would hide it; else it is all asked again, and what is done is known then.
async fn write_each<E: Engine, T: Send + Sync + 'static, U: Send + 'static>(
    engine: &E,
    now: Time,
    list: Arc<Vec<T>>,
    lock: fn(&mut Books<'_>, &[T]) -> Result<()>,
    work: fn(&mut Books<'_>, &T) -> Result<U>,
    give_up: fn(&T, &StoreError) -> U,
    counts: bool,
) -> Result<Vec<U>> {
    let all = list.clone();
    let together = move |books: &mut Books<'_>| {
        lock(books, &all)?;
        all.iter().map(|one| work(books, one)).collect()
    };
    match engine.write(now, together).await {
        Err(StoreError::Broken(_)) => {}
        result => return result,
    }
    let mut done = Vec::with_capacity(list.len());
    for i in 0..list.len() {
        let all = list.clone();
        let alone = move |books: &mut Books<'_>| {
            lock(books, &all[i..=i])?;
            work(books, &all[i])
        };
        done.push(match engine.write(now, alone).await {
            Ok(one) => one,
            Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
            Err(why) if (!counts || done.is_empty()) && !matches!(why, StoreError::Broken(_)) => return Err(why),
            Err(why) => give_up(&list[i], &why),
        });
    }
    Ok(done)
}

/// Each in a transaction of its own: what can't be ended is put off, and holds up no other.
async fn expire_each<E: Engine>(engine: &E, now: Time, doubts_now: bool) -> Result<Tidied> {
    let mut all = Tidied::default();
    for no in engine.write(now, move |books| expire::ended(books, doubts_now)).await? {
        match engine.write(now, move |books| expire::expire(books, &[no], doubts_now)).await {
            Ok(tidied) => {
                all.leases_ended += tidied.leases_ended;
                all.doubts_ended += tidied.doubts_ended;
            }
            Err(StoreError::Broken(why)) => {
                tracing::error!(digest = no, error = %why, "a digest could not be ended; it is put off, the others go on");
                engine.write(now, move |books| expire::put_off(books, no)).await?;
            }
            Err(why) => return Err(why),
        }
    }
    Ok(all)
}

#[async_trait]
impl<E: Engine> Intake for E {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        self.take_in(now, move |books| accept::accept(books, &entries)).await
    }
}

#[async_trait]
impl<E: Engine> Delivery for E {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        let ask = *ask;
        self.write(now, move |books| claim::claim(books, &ask)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        write_each(
            self,
            now,
            mails,
            begin::lock,
            begin::begin,
            |mail, why| {
                // Its lease ends by itself; then it is tried again.
                tracing::error!(digest = %mail.lease.digest, error = %why, "a mail could not begin; the others go on");
                Begun::Lost
            },
            true,
        )
        .await
    }

    async fn account(&self, now: Time, terms: Terms, sent_24h: Option<u64>) -> Result<()> {
        let says = move |books: &mut Books<'_>| {
            books.account_says(terms, sent_24h)?;
            if sent_24h.is_some() { asking::answered(books) } else { Ok(()) }
        };
        self.write(now, says).await
    }

    async fn take_turn(&self, now: Time, turn: Turn) -> Result<Asking> {
        self.write(now, move |books| asking::take_turn(books, turn)).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        write_each(
            self,
            now,
            evidence,
            learn::lock,
            learn::learn,
            |one, why| {
                // Its lease ends by itself, in a doubt.
                tracing::error!(attempt = %one.attempt, error = %why, "an answer could not be taken; the others go on");
                Learned::Unknown
            },
            false,
        )
        .await
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        self.write(now, move |books| {
            claim::lock(books, &leases)?;
            leases.iter().try_for_each(|lease| claim::release(books, *lease))
        })
        .await
    }

    fn works_side_by_side(&self) -> bool {
        Engine::works_side_by_side(self)
    }

    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>> {
        let ask = *ask;
        self.peek(move |tx, _| claim::next_due(tx, &ask)).await
    }
}

#[async_trait]
impl<E: Engine> Upkeep for E {
    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        let once = move |books: &mut Books<'_>| {
            let ended = expire::ended(books, doubts_now)?;
            expire::expire(books, &ended, doubts_now)
        };
        match self.write(now, once).await {
            Err(StoreError::Broken(_)) => expire_each(self, now, doubts_now).await,
            result => result,
        }
    }

    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
        self.write(now, move |books| claim::replan(books, cursor, limit)).await
    }

    async fn purge(&self, now: Time) -> Result<Tidied> {
        self.write(now, purge::purge).await
    }

    async fn compact(&self, now: Time) -> Result<()> {
        self.write(now, purge::roll_up).await?;
        self.give_back().await
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.peek(|tx, _| expire::next_upkeep(tx)).await
    }

    async fn gauges(&self, now: Time) -> Result<Gauges> {
        self.peek(move |tx, shared| desk::gauges(tx, shared, now)).await
    }

    async fn report(&self, now: Time, conditions: Arc<Vec<Condition>>) -> Result<()> {
        self.write(now, move |books| condition::report(books, &conditions)).await
    }
}

#[async_trait]
impl<E: Engine> Letters for E {
    async fn unforwarded(&self, portion: Portion) -> Result<Vec<Letter>> {
        self.peek(move |tx, _| forward::unforwarded(tx, portion)).await
    }

    async fn forwarded(&self, now: Time, fates: Arc<Vec<(String, Fate)>>) -> Result<()> {
        self.write(now, move |books| forward::forwarded(books, &fates)).await
    }
}

#[async_trait]
impl<E: Engine> Desk for E {
    async fn read(&self, query: &Query, page: Page) -> Result<Rows> {
        let query = query.clone();
        self.look(move |tx, shared| desk::read(tx, shared, &query, page)).await
    }

    async fn act(&self, now: Time, command: &Command) -> Result<Report> {
        let command = command.clone();
        self.write(now, move |books| act::act(books, &command)).await
    }
}
