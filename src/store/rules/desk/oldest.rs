//! Since when what may leave has been waiting: the oldest digest that is due and not behind a pause.

use crate::model::{Priority, Time};
use crate::store::rules::tx::Tx;
use crate::store::rules::{Shared, sql as worker};
use crate::store::{Gauges, Result};

/// Digests of a priority that are looked at from either end while routes are paused: some milliseconds, however many wait
/// behind the pauses.
const LOOKED_AT: i64 = Gauges::CAP as i64;

/// `None`: nothing is due that may leave.
pub(super) fn leaving(conn: Tx<'_>, shared: &Shared, now: Time, paused: &[String]) -> Result<Option<Time>> {
    if paused.iter().any(|route| route == "*") {
        return Ok(None);
    }
    let mut oldest: Option<Time> = None;
    for priority in Priority::ALL {
        let from = shared.due_from(priority, now);
        let look = if paused.is_empty() { due } else { unpaused };
        let found = look(conn, priority, now, from)?;
        oldest = oldest.into_iter().chain(found).min();
    }
    Ok(oldest)
}

fn due(conn: Tx<'_>, priority: Priority, now: Time, from: i64) -> Result<Option<Time>> {
    let oldest: Option<i64> =
        conn.prepare_cached(worker::OLDEST_DUE)?.query_row((priority as i64, now.0, from), |row| row.get(0))?;
    Ok(oldest.map(Time))
}

/// From the oldest on. If so many are paused that a look ends before it finds one that is not: the oldest of what became
/// due last. What may leave does so soon, so it is there; if nothing leaves any more it grows old there.
fn unpaused(conn: Tx<'_>, priority: Priority, now: Time, from: i64) -> Result<Option<Time>> {
    let (mut seen, mut oldest) = (0, None);
    let bounds = (priority as i64, now.0, LOOKED_AT, from);
    conn.prepare_cached(worker::OLDEST_OR_PAUSED)?.each(bounds, |row| {
        let paused: bool = row.get(1)?;
        seen += 1;
        if !paused {
            oldest = Some(Time(row.get(0)?));
        }
        Ok(paused)
    })?;
    if oldest.is_none() && seen == LOOKED_AT {
        conn.prepare_cached(worker::NEWEST_OR_PAUSED)?.each(bounds, |row| {
            let paused: bool = row.get(1)?;
            if !paused {
                oldest = Some(Time(row.get(0)?));
            }
            Ok(true)
        })?;
    }
    Ok(oldest)
}
