//! The account's quota, as a transaction sees and changes it.

use std::time::Duration;

use crate::store::rules::tx::{Optional, Tx, params};

use super::super::sql;
use super::Books;
use crate::model::{Priority, Time};
use crate::quota::{self, Day, Rate, Terms};
use crate::store::Result;

/// The account's row. Shares that are reserved have no row: they are the digests that are leased or in a call.
#[derive(Clone, Debug)]
pub(in crate::store) struct Quota {
    pub terms: Terms,
    pub rate: Rate,
    pub day: Day,
    full_until: Option<Time>,
    dirty: bool,
}

/// What the account lets through.
pub(in crate::store) enum Gate {
    /// This store's mailer has no account with a quota.
    Open,
    /// Nobody has said yet what the account may send.
    Unknown,
    Bound,
}

impl Books<'_> {
    pub fn gate(&mut self) -> Result<Gate> {
        let Some(account) = self.shared.account.clone() else { return Ok(Gate::Open) };
        if self.quota.is_none() {
            self.quota = read(self.tx, sql::QUOTA_TO_CHANGE, &account, self.now)?;
        }
        Ok(if self.quota.is_some() { Gate::Bound } else { Gate::Unknown })
    }

    /// How many mails may leave in about a second.
    pub fn second_room(&mut self) -> Result<u64> {
        let now = self.now;
        Ok(match (self.gate()?, self.quota.as_ref()) {
            (Gate::Open, _) => u64::MAX,
            (_, Some(quota)) => {
                quota.rate.per_second(&quota.terms, now).map_or(u64::MAX, |rate| (rate.ceil() as u64).max(1))
            }
            _ => 0,
        })
    }

    /// How many more mails of this priority the day lets through.
    pub fn day_room(&mut self, priority: Priority) -> Result<u64> {
        let now = self.now;
        Ok(match (self.gate()?, self.quota.as_ref()) {
            (Gate::Open, _) => u64::MAX,
            // A clock that was set back must not stop mail for longer than the server would.
            (_, Some(q)) if q.full_until.is_some_and(|until| now < until && until.since(now) <= FULL_FOR) => 0,
            (_, Some(quota)) => quota.day.room(&quota.terms, priority),
            _ => 0,
        })
    }

    /// A claim took a share of the day; it is counted from the digests again in the next transaction.
    pub fn reserve_share(&mut self) {
        if let Some(quota) = self.quota.as_mut() {
            quota.day.reserved += 1;
        }
    }

    /// A permit for one call: from when it may start, or when one may be free. `take`: it is used up by that.
    pub fn permit(&mut self, lead: Duration, take: bool) -> Result<std::result::Result<Time, Time>> {
        let now = self.now;
        let starts = now.plus(lead);
        match self.gate()? {
            Gate::Open => return Ok(Ok(now)),
            Gate::Unknown => return Ok(Err(now.plus(Duration::from_secs(1)))),
            Gate::Bound => {}
        }
        let Some(quota) = self.quota.as_mut() else { return Ok(Ok(now)) };
        let mut rate = quota.rate;
        let taken = rate.take(&quota.terms, starts);
        if (take || taken.is_err()) && quota.rate != rate {
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
        if let (Gate::Bound, Some(quota)) = (self.gate()?, self.quota.as_mut()) {
            let terms = quota.terms;
            quota.rate.slow_down(&terms, now);
            quota.dirty = true;
        }
        Ok(())
    }

    /// The server said that the day's quota is used up.
    pub fn day_is_full(&mut self) -> Result<()> {
        let now = self.now;
        if let (Gate::Bound, Some(quota)) = (self.gate()?, self.quota.as_mut()) {
            quota.full_until = Some(now.plus(FULL_FOR));
            quota.dirty = true;
        }
        Ok(())
    }

    /// What the account may send, and what all of its users sent, as somebody has just learned.
    pub fn account_says(&mut self, t: Terms, sent_24h: Option<u64>) -> Result<()> {
        let Some(name) = self.shared.account.clone() else { return Ok(()) };
        let now = self.now;
        self.gate()?;
        let day = match self.quota.as_ref() {
            Some(quota) => quota.day,
            None => Day { used: used(self.tx, &name, now)?, ..Day::default() },
        };
        // Without an answer from the account, what was last known of others stays.
        let external = sent_24h.map_or(day.external, |sent| day.external(sent));
        self.tx.prepare_cached(sql::SAVE_TERMS)?.execute(params![
            name,
            t.per_second,
            t.per_day.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
            t.burst,
            t.urgent_reserve,
            i64::try_from(external).unwrap_or(i64::MAX),
            now.0,
            Rate::FULL.tat.0,
        ])?;
        if sent_24h.is_some_and(|sent| t.per_day.is_none_or(|most| sent < most)) {
            // The account itself says that there is room again.
            self.tx.prepare_cached(sql::DAY_HAS_ROOM)?.execute([&name])?;
        }
        self.quota = None;
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

/// The row with its counts; `None`: nobody has asked the account yet.
pub(in crate::store::rules) fn read(conn: Tx<'_>, statement: &str, account: &str, now: Time) -> Result<Option<Quota>> {
    let row = conn
        .prepare_cached(statement)?
        .query_row([account], |row| {
            Ok(Quota {
                terms: Terms {
                    per_second: row.get(0)?,
                    per_day: row.get::<Option<i64>>(1)?.map(|n| u64::try_from(n).unwrap_or(0)),
                    burst: row.get(2)?,
                    urgent_reserve: row.get(3)?,
                },
                day: Day { used: 0, reserved: 0, external: row.get::<i64>(4)?.try_into().unwrap_or(0) },
                rate: Rate { tat: Time(row.get(5)?), factor: row.get(6)?, slowed_at: Time(row.get(7)?) },
                full_until: row.get::<Option<i64>>(8)?.map(Time),
                dirty: false,
            })
        })
        .optional()?;
    let Some(mut quota) = row else { return Ok(None) };
    // In this order: what is settled between the two looks counts twice, and not never.
    quota.day.reserved = conn.prepare_cached(sql::RESERVED)?.query_row((), |row| row.get::<i64>(0))?.max(0) as u64;
    quota.day.used = used(conn, account, now)?;
    Ok(Some(quota))
}

fn used(conn: Tx<'_>, account: &str, now: Time) -> Result<u64> {
    let n: i64 = conn
        .prepare_cached(sql::USED_SHARES)?
        .query_row(params![account, quota::first_minute(now)], |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}
