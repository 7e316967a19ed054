//! The store at a glance, from counts that are kept along the way and from partial indexes: exact, and quick at any size.

use std::time::Duration;

use crate::store::rules::tx::Tx;

use super::rows::count;
use super::{by_state, figures, sql};
use crate::model::{DigestState, ItemState, Time};
use crate::store::desk::{DigestCounts, Ledger, Mails, Quota, Status};
use crate::store::rules::{Shared, condition, sql as worker};
use crate::store::{Gauges, Result};

/// No limit.
const ALL: i64 = i64::MAX;
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn status(conn: Tx<'_>, shared: &Shared, now: Time) -> Result<Status> {
    let all = figures(conn, shared, now, ALL)?;
    let used: i64 = conn.query_row(sql::USED_SINCE, [now.minus(DAY).0], |row| row.get(0))?;
    let sent: i64 =
        conn.query_row(if conn.is_postgres() { worker::PG_META } else { worker::META }, (), |row| row.get(4))?;
    let mut stopped = conn.prepare_cached(worker::PAUSED)?;
    let paused = stopped.query_map((), |row| row.get(0))?;
    Ok(Status {
        store_id: format!("{:08x}", shared.store_id),
        schema_version: conn.schema_version()?,
        size_bytes: all.size_bytes,
        ledger: ledger(&all.items),
        purged: ledger(&by_state(conn, worker::PURGED)?.map(count)),
        digests: digests(&all),
        mails: Mails { sent: count(sent) },
        dead_letters: all.dead_letters,
        unforwarded: all.unforwarded,
        sources: condition::parts(conn, "source")?,
        forwarding: condition::parts(conn, "forwarding")?.pop(),
        mailers: condition::parts(conn, "mailer")?,
        quota: all.quota.map_or(Quota { used_24h: count(used), ..Quota::default() }, |q| Quota {
            per_second: q.terms.per_second,
            per_day: q.terms.per_day,
            used_24h: q.day.used,
            reserved: q.day.reserved,
            external_24h: q.day.external,
            slowed_to: q.factor,
        }),
        oldest_due_at: all.oldest_due_at.map(|t| t.to_string()),
        paused,
    })
}

/// Counts by state, as the ledger's names have them.
pub(super) fn ledger(items: &[u64; ItemState::ALL.len()]) -> Ledger {
    let n = |state: ItemState| items[state as usize];
    Ledger {
        items: items.iter().sum(),
        pending: n(ItemState::Pending),
        in_doubt: n(ItemState::InDoubt),
        delivered: n(ItemState::Delivered),
        withdrawn: n(ItemState::Withdrawn),
        suppressed: n(ItemState::Suppressed),
        dead: n(ItemState::Dead),
    }
}

fn digests(all: &Gauges) -> DigestCounts {
    DigestCounts {
        gathering: all.digest(DigestState::Gathering),
        due: all.due,
        held: all.digest(DigestState::Held),
        leased: all.digest(DigestState::Leased),
        sending: all.digest(DigestState::Sending),
        waiting: all.digest(DigestState::Waiting),
        in_doubt: all.digest(DigestState::InDoubt),
    }
}
