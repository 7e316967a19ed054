//! The store's traits for every [`Engine`]: which rule runs in which transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::each::{Each, HELD_AT_MOST, Kind, each};
use super::permits::Permitted;
use super::strangers::ALONE;
use super::tx::Tx;
use super::{
    Books, Shared, act, asking, begin, claim, condition, desk, expire, forward, learn, own, permits, purge, windows,
};
use crate::model::{Lease, Time};
use crate::quota::Terms;
use crate::store::{
    Answer, Ask, Asking, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intent, Learned, Leased,
    Left, Letter, Letters, Page, Planning, Portion, Query, Report, Result, Rows, Sent, Tidied, Turn, Upkeep,
};

/// A database that runs the rules. What it gets may run more than once: a transaction that lost a race is begun anew.
#[async_trait]
pub(in crate::store) trait Engine: Send + Sync {
    /// One transaction: everything that `work` did becomes durable, or nothing.
    async fn write<T, W>(&self, now: Time, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static;

    /// What every transaction may ask.
    fn shared(&self) -> &Shared;

    /// The same, waiting no longer than `wait` for each row that another transaction has. `None`: it has it still, and nothing
    /// was done. (Where there is one writer, nobody has.)
    async fn write_within<T, W>(&self, now: Time, _wait: Duration, work: W) -> Result<Option<T>>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.write(now, work).await.map(Some)
    }

    /// Whether two transactions can be under way at once.
    fn works_side_by_side(&self) -> bool;

    /// The same for a batch of intake, which comes again and again to the same mailboxes. `committed` may be called before
    /// it is durable, once whatever is made durable later is durable only with it.
    async fn take_in<T, W, C>(&self, now: Time, work: W, _committed: C) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
        C: FnOnce() + Send + 'static,
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

/// Begins of which nothing was heard: those that are written were not called. Those that somebody else holds stay unheard.
async fn look_up_unheard<E: Engine>(engine: &E, now: Time, leases: Vec<Lease>) -> Result<()> {
    if leases.is_empty() {
        return Ok(());
    }
    let leases = Arc::new(leases);
    let of = Each {
        digest: |lease: &Lease| lease.digest.number,
        lock: own::lock,
        work: |books, lease| own::look_up(books, lease).map(|()| true),
        broken: |lease, why| {
            // Its lease ends by itself, in a doubt.
            tracing::error!(digest = %lease.digest, error = %why, "a begin could not be looked up; the others go on");
            true
        },
        held: |_| false,
        failed: None,
        frees: true,
        wary: false,
        kind: Kind::Unheard,
    };
    let heard = each(engine, now, leases.clone(), of).await?;
    let mut own = engine.shared().own();
    leases.iter().zip(heard).filter(|(_, heard)| *heard).for_each(|(lease, _)| own.heard(lease.digest.number));
    Ok(())
}

/// Notes what somebody else holds shortly before its lease ends: he may let go just then, and whoever has its answer needs a
/// moment to see that.
async fn see_who_holds<E: Engine>(engine: &E, now: Time, soon: Vec<i64>) -> Result<()> {
    let of = Each {
        digest: |no: &i64| *no,
        lock: expire::lock,
        work: |_, _| Ok(()),
        broken: |_, _| (),
        held: |_| (),
        failed: None,
        frees: false,
        wary: true,
        kind: Kind::EndsSoon,
    };
    each(engine, now, Arc::new(soon), of).await.map(drop)
}

/// Each for itself: what can't be ended is put off, and holds up no other.
async fn end_each<E: Engine>(engine: &E, now: Time, ended: Vec<i64>, doubts_now: bool) -> Result<Tidied> {
    let ended = Arc::new(ended);
    let of = Each {
        digest: |no: &i64| *no,
        lock: expire::lock,
        work: if doubts_now { expire::end_now } else { expire::end },
        broken: |no, why| {
            tracing::error!(digest = no, error = %why, "a digest could not be ended; it is put off, the others go on");
            expire::Ended::Broken
        },
        held: |_| expire::Ended::Held,
        failed: None,
        frees: true,
        wary: true,
        kind: Kind::Ends,
    };
    let all = each(engine, now, ended.clone(), of).await?;
    for (no, _) in ended.iter().copied().zip(&all).filter(|(_, one)| **one == expire::Ended::Broken) {
        engine.write(now, move |books| expire::put_off(books, no)).await?;
    }
    Ok(expire::tidied(&all))
}

#[async_trait]
impl<E: Engine> Delivery for E {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        let ask = *ask;
        self.write(now, move |books| claim::claim(books, &ask)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        let unheard = self.shared().unheard(mails.iter().map(|mail| mail.lease));
        look_up_unheard(self, now, unheard).await?;
        // What somebody holds of these is to be looked up before it may begin anew.
        let still: Vec<Lease> = self.shared().unheard(mails.iter().map(|mail| mail.lease));
        let free = mails.iter().filter(|mail| !still.contains(&mail.lease)).cloned().collect();
        let free = Arc::new(permits::give(self, now, free).await?);
        let of = Each {
            digest: |one: &Permitted| one.mail.lease.digest.number,
            lock: begin::lock,
            work: begin::begin,
            broken: |one, why| {
                // Its lease ends by itself; then it is tried again.
                tracing::error!(digest = %one.mail.lease.digest, error = %why, "a mail could not begin; the others go on");
                Begun::Lost
            },
            held: |_| Begun::Later,
            failed: Some(|shared, one| {
                shared.own().heard_nothing(one.mail.lease);
                Begun::Later
            }),
            frees: true,
            wary: false,
            kind: Kind::Begins,
        };
        let begun = match permits::none(&free) {
            Some(none) => Ok(none),
            None => each(self, now, free.clone(), of).await,
        };
        let mut own = self.shared().own();
        let begun = match begun {
            Ok(begun) => begun,
            Err(why) => {
                // Its commit may have been the last that the server heard of us.
                free.iter().for_each(|one| own.heard_nothing(one.mail.lease));
                return Err(why);
            }
        };
        for (one, begun) in free.iter().zip(&begun) {
            if matches!(begun, Begun::Empty | Begun::Lost | Begun::Paused) {
                own.given_back(one.mail.lease);
            }
        }
        permits::spare(self, &free, &begun);
        let mut begun = begun.into_iter();
        let of_each = |mail: &Intent| match still.contains(&mail.lease) {
            true => Begun::Later,
            false => begun.next().unwrap_or(Begun::Later),
        };
        Ok(mails.iter().map(of_each).collect())
    }

    async fn account(&self, now: Time, terms: Terms, sent: Option<Sent>) -> Result<()> {
        let says = move |books: &mut Books<'_>| {
            books.account_says(terms, sent)?;
            sent.map_or(Ok(()), |sent| asking::answered(books, sent.ours.at))
        };
        self.write(now, says).await
    }

    async fn take_turn(&self, now: Time, turn: Turn) -> Result<Asking> {
        self.write(now, move |books| asking::take_turn(books, turn)).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        let mine = self.shared().store_id;
        let here = |one: &&Evidence| one.attempt.digest.store == mine;
        {
            let mut own = self.shared().own();
            evidence.iter().filter(here).for_each(|one| own.knows(one.attempt));
        }
        let of = Each {
            digest: |one: &Evidence| one.attempt.digest.number,
            lock: learn::lock,
            work: learn::learn,
            broken: |one, why| {
                // Its lease ends by itself, in a doubt.
                tracing::error!(attempt = %one.attempt, error = %why, "an answer could not be taken; the others go on");
                Learned::Unknown
            },
            held: |_| Learned::Held,
            failed: None,
            frees: true,
            wary: false,
            kind: Kind::Answers,
        };
        let learned = each(self, now, evidence.clone(), of).await?;
        let mut own = self.shared().own();
        for (one, learned) in evidence.iter().zip(&learned).filter(|(one, _)| here(one)) {
            if *learned != Learned::Held {
                own.told(one.attempt, !matches!(one.answer, Answer::Ambiguous { .. }));
            }
        }
        Ok(learned)
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        look_up_unheard(self, now, self.shared().unheard(leases.iter().copied())).await?;
        let of = Each {
            digest: |lease: &Lease| lease.digest.number,
            lock: claim::lock,
            work: |books, lease| claim::release(books, *lease).map(|()| true),
            broken: |lease, why| {
                tracing::error!(digest = %lease.digest, error = %why, "a lease could not be given back; it ends by itself");
                false
            },
            held: |_| false,
            failed: None,
            frees: true,
            wary: false,
            kind: Kind::Leases,
        };
        let back = each(self, now, leases.clone(), of).await?;
        let mut own = self.shared().own();
        leases.iter().zip(back).filter(|(_, back)| *back).for_each(|(lease, _)| own.given_back(*lease));
        Ok(())
    }

    async fn under_way(&self, now: Time) -> Result<u64> {
        self.peek(move |tx, shared| own::to_see_through(tx, shared, now)).await
    }

    async fn left(&self, now: Time) -> Result<Left> {
        self.peek(move |tx, _| claim::left(tx, now)).await
    }

    fn works_side_by_side(&self) -> bool {
        Engine::works_side_by_side(self)
    }

    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>> {
        let ask = *ask;
        self.peek(move |tx, shared| claim::next_due(tx, shared, &ask)).await
    }
}

#[async_trait]
impl<E: Engine> Upkeep for E {
    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        let look = move |books: &mut Books<'_>| Ok((expire::ended(books, doubts_now)?, expire::ends_soon(books)?));
        let (ended, soon) = self.write(now, look).await?;
        if !soon.is_empty() {
            see_who_holds(self, now, soon).await?;
        }
        end_each(self, now, ended, doubts_now).await
    }

    async fn end_own_doubts(&self, now: Time) -> Result<Tidied> {
        let ended = self.write(now, expire::own_doubts).await?;
        end_each(self, now, ended, true).await
    }

    async fn take_planning(&self, now: Time, started: Time) -> Result<Planning> {
        self.write(now, move |books| windows::take(books, started)).await
    }

    async fn keep_planning(&self, now: Time, since: Time, done: bool) -> Result<()> {
        self.write(now, move |books| windows::keep(books, since, done)).await
    }

    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
        let wait = self.shared().strangers().wait(now);
        match self.write_within(now, wait, move |books| windows::replan(books, cursor, limit)).await? {
            Some(next) => Ok(next),
            None => windows::replan_each(self, now, cursor, limit).await,
        }
    }

    async fn purge(&self, now: Time) -> Result<Tidied> {
        let done = self.write_within(now, purge::WAITS, purge::purge).await?;
        Ok(done.unwrap_or_else(|| purge::pass_over(self.shared())))
    }

    async fn compact(&self, now: Time) -> Result<()> {
        self.write(now, purge::roll_up).await?;
        self.give_back().await
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.peek(expire::next_upkeep).await
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
        let (all, wait) = (command.clone(), self.shared().strangers().wait(now));
        if let Some(report) = self.write_within(now, wait, move |books| act::act(books, &all)).await? {
            return Ok(report);
        }
        let whole = command.clone();
        let Some(parts) = self.peek(move |tx, shared| act::parts(tx, shared, &whole)).await? else {
            let all = command.clone();
            return self.write(now, move |books| act::act(books, &all)).await;
        };
        act_each(self, now, parts).await
    }
}

/// What somebody else holds is refused for now, and the rest is done.
async fn act_each<E: Engine>(engine: &E, now: Time, parts: Vec<(String, Command)>) -> Result<Report> {
    let (mut report, mut waited) = (Report::default(), Duration::ZERO);
    for (id, part) in parts {
        let done = match waited < HELD_AT_MOST {
            true => engine.write_within(now, ALONE, move |books| act::act(books, &part)).await?,
            false => None,
        };
        match done {
            Some(one) => {
                report.changed += one.changed;
                report.refused.extend(one.refused);
            }
            None => {
                waited += ALONE;
                report
                    .refused
                    .push(format!("{id}: somebody else's transaction holds it; try again when that has ended"));
            }
        }
    }
    Ok(report)
}
