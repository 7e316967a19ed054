//! The account's quota, as a transaction sees and changes it.

use std::time::Duration;

use crate::store::rules::tx::{Optional, Tx, params};

use super::super::{Shared, sql};
use super::Books;
use crate::model::{Priority, Time};
use crate::quota::{self, Day, Rate, Terms};
use crate::store::{Result, Sent};

/// The account's row. Shares that are reserved have no row: they are the digests that are leased or in a call.
#[derive(Clone, Debug)]
pub(in crate::store) struct Quota {
    pub terms: Terms,
    pub rate: Rate,
    external: u64,
    /// When the account was asked that; long ago: nobody has asked it.
    asked_at: Time,
    full_until: Option<Time>,
    dirty: bool,
    /// The row is this transaction's until it ends.
    held: bool,
}

/// What a transaction is about to do with the account's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Hold {
    /// Only look: nobody waits.
    Look,
    /// Change it: whoever else wants that waits until the end of this transaction.
    Change,
}

/// So many claims at the same moment have room for all that they ask for: then each only looks at the day. With less room, one
/// counts after the other. (One that looked and then stood still for up to a minute, until the server ends its transaction, has
/// room as long as the others claimed no more than that meanwhile.)
const CLAIMS_AT_ONCE: u64 = 1_000;

/// What the account lets through.
pub(in crate::store) enum Gate {
    /// This store's mailer has no account with a quota.
    Open,
    /// Nobody has said yet what the account may send.
    Unknown,
    Bound,
}

impl Books<'_> {
    pub fn gate(&mut self, hold: Hold) -> Result<Gate> {
        let Some(account) = self.shared.account.as_deref() else { return Ok(Gate::Open) };
        if self.quota.as_ref().is_none_or(|quota| hold == Hold::Change && !quota.held) {
            self.quota = read(self.tx, hold, account)?;
        }
        Ok(if self.quota.is_some() { Gate::Bound } else { Gate::Unknown })
    }

    /// How many mails may leave in about a second.
    pub fn second_room(&mut self) -> Result<u64> {
        let now = self.now;
        Ok(match (self.gate(Hold::Look)?, self.quota.as_ref()) {
            (Gate::Open, _) => u64::MAX,
            (_, Some(quota)) => {
                quota.rate.per_second(&quota.terms, now).map_or(u64::MAX, |rate| (rate.ceil() as u64).max(1))
            }
            _ => 0,
        })
    }

    /// How many more mails of this priority the day lets through, for a claim that asks for so many.
    pub fn day_room(&mut self, priority: Priority, most: u64) -> Result<u64> {
        let now = self.now;
        let room = match (self.gate(Hold::Look)?, self.quota.as_ref()) {
            (Gate::Open, _) => return Ok(u64::MAX),
            // A clock that was set back must not stop mail for longer than the server would.
            (_, Some(q)) if q.full_until.is_some_and(|until| now < until && until.since(now) <= FULL_FOR) => {
                return Ok(0);
            }
            (_, Some(q)) if q.terms.per_day.is_none() => return Ok(u64::MAX),
            (_, Some(q)) => {
                let (terms, held) = (q.terms, q.held);
                let room = self.day()?.room(&terms, priority);
                if held || room >= most.saturating_mul(CLAIMS_AT_ONCE) {
                    return Ok(room);
                }
                room
            }
            _ => return Ok(0),
        };
        if room == 0 {
            // Nobody else makes room but by time, and an answer of the account.
            return Ok(0);
        }
        // From here on nobody else counts.
        self.gate(Hold::Change)?;
        self.day = None;
        self.day_room(priority, most)
    }

    /// The day as it was counted, and what this transaction reserved.
    fn day(&mut self) -> Result<Day> {
        let counted = match (self.day, &self.shared.account, &self.quota) {
            (Some(known), ..) => known,
            (None, Some(account), Some(quota)) => day(self.tx, self.shared, account, quota, self.now)?,
            _ => Day::default(),
        };
        self.day = Some(counted);
        Ok(Day { reserved: counted.reserved + self.reserved_shares, ..counted })
    }

    /// A claim took a share of the day; it is counted from the digests in the next transaction.
    pub fn reserve_share(&mut self) {
        self.reserved_shares += 1;
    }

    /// A permit for one call: from when it may start, or when one may be free. `Change`: it is used up by that. A look waits
    /// for nobody, and may find one free that another takes before it.
    pub fn permit(&mut self, lead: Duration, hold: Hold) -> Result<std::result::Result<Time, Time>> {
        let now = self.now;
        let starts = now.plus(lead);
        match self.gate(hold)? {
            Gate::Open => return Ok(Ok(now)),
            Gate::Unknown => return Ok(Err(now.plus(Duration::from_secs(1)))),
            Gate::Bound => {}
        }
        let Some(quota) = self.quota.as_mut() else { return Ok(Ok(now)) };
        let mut rate = quota.rate;
        let taken = rate.take(&quota.terms, starts);
        if (hold == Hold::Change || taken.is_err()) && quota.rate != rate {
            if !quota.held {
                // The clock was set back: what is kept of that, one after the other writes.
                self.gate(Hold::Change)?;
                return self.permit(lead, hold);
            }
            (quota.rate, quota.dirty) = (rate, true);
        }
        Ok(taken.map_err(|at| at.minus(lead)))
    }

    /// Sent, or nobody knows: the share is used from now on.
    pub fn use_share(&mut self) {
        self.used_shares += 1;
    }

    /// The server said "too fast".
    pub fn too_fast(&mut self) -> Result<()> {
        let now = self.now;
        if let (Gate::Bound, Some(quota)) = (self.gate(Hold::Change)?, self.quota.as_mut()) {
            let terms = quota.terms;
            quota.rate.slow_down(&terms, now);
            quota.dirty = true;
        }
        Ok(())
    }

    /// The server said that the day's quota is used up.
    pub fn day_is_full(&mut self) -> Result<()> {
        let now = self.now;
        if let (Gate::Bound, Some(quota)) = (self.gate(Hold::Change)?, self.quota.as_mut()) {
            quota.full_until = Some(now.plus(FULL_FOR));
            quota.dirty = true;
        }
        Ok(())
    }

    /// What the account may send, and what all of its users sent, as somebody has just learned.
    pub fn account_says(&mut self, t: Terms, sent: Option<Sent>) -> Result<()> {
        let Some(name) = self.shared.account.clone() else { return Ok(()) };
        self.gate(Hold::Change)?;
        // Without an answer from the account, what was last known of others stays.
        let known = self.quota.as_ref().map_or((0, Time(0)), |quota| (quota.external, quota.asked_at));
        if sent.is_some_and(|sent| sent.ours.at < known.1 && known.1 <= self.now) {
            // It was long on its way: another one has asked and heard since.
            return Ok(());
        }
        let (external, asked_at) = sent.map_or(known, |sent| (sent.others(), sent.ours.at));
        self.tx.prepare_cached(sql::SAVE_TERMS)?.execute(params![
            name,
            t.per_second,
            t.per_day.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
            t.burst,
            t.urgent_reserve,
            i64::try_from(external).unwrap_or(i64::MAX),
            asked_at.0,
            Rate::FULL.tat.0,
        ])?;
        if sent.is_some_and(|sent| t.per_day.is_none_or(|most| sent.all < most)) {
            // The account itself says that there is room again.
            self.tx.prepare_cached(sql::DAY_HAS_ROOM)?.execute([&name])?;
        }
        (self.quota, self.day) = (None, None);
        Ok(())
    }

    /// Writes what changed.
    pub(super) fn write_quota(&mut self) -> Result<()> {
        let Some(account) = self.shared.account.clone() else { return Ok(()) };
        if self.used_shares > 0 {
            let minute = quota::minute(self.now);
            self.tx.prepare_cached(sql::USE_SHARES)?.later(params![account, minute, self.used_shares])?;
        }
        if let Some(q) = self.quota.as_ref().filter(|q| q.dirty) {
            self.tx.prepare_cached(sql::SAVE_QUOTA)?.later(params![
                account,
                q.rate.tat.0,
                q.rate.factor,
                q.rate.slowed_at.0,
                q.full_until.map(|t| t.0)
            ])?;
        }
        Ok(())
    }
}

/// A server that says that the day's quota is used up is asked again after so long (SES: "wait up to 10 minutes").
const FULL_FOR: Duration = Duration::from_secs(600);

/// The row; `None`: nobody has asked the account yet.
pub(in crate::store::rules) fn read(conn: Tx<'_>, hold: Hold, account: &str) -> Result<Option<Quota>> {
    let statement = if hold == Hold::Change { sql::QUOTA_TO_CHANGE } else { sql::QUOTA };
    // Where there is one writer, nobody else changes it.
    let held = hold == Hold::Change || !conn.is_postgres();
    conn.prepare_cached(statement)?
        .query_row([account], |row| {
            Ok(Quota {
                terms: Terms {
                    per_second: row.get(0)?,
                    per_day: row.get::<Option<i64>>(1)?.map(|n| u64::try_from(n).unwrap_or(0)),
                    burst: row.get(2)?,
                    urgent_reserve: row.get(3)?,
                },
                external: row.get::<i64>(4)?.try_into().unwrap_or(0),
                rate: Rate { tat: Time(row.get(5)?), factor: row.get(6)?, slowed_at: Time(row.get(7)?) },
                full_until: row.get::<Option<i64>>(8)?.map(Time),
                asked_at: Time(row.get(9)?),
                dirty: false,
                held,
            })
        })
        .optional()
}

/// The counts of the day. In this order: what is settled between the two looks counts twice, and not never.
fn day(conn: Tx<'_>, shared: &Shared, account: &str, quota: &Quota, now: Time) -> Result<Day> {
    let reserved =
        conn.prepare_cached(sql::RESERVED)?.query_row([shared.until_from(now)], |row| row.get::<i64>(0))?.max(0) as u64;
    Ok(Day { used: used(conn, account, now, quota.asked_at)?, reserved, external: quota.external })
}

/// The row with its counts, as it is.
pub(in crate::store::rules) fn look(
    conn: Tx<'_>,
    shared: &Shared,
    account: &str,
    now: Time,
) -> Result<Option<(Quota, Day)>> {
    let Some(quota) = read(conn, Hold::Look, account)? else { return Ok(None) };
    let day = day(conn, shared, account, &quota, now)?;
    Ok(Some((quota, day)))
}

/// Shares of the day that this store has used, beside what the account said of others then.
pub(in crate::store::rules) fn used(conn: Tx<'_>, account: &str, now: Time, asked_at: Time) -> Result<u64> {
    let n: i64 = conn
        .prepare_cached(sql::USED_SHARES)?
        .query_row(params![account, quota::counted_from(now, asked_at)], |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}
