//! `status --verify`: counts the ledger again, and looks for rows that contradict each other (lifecycle.md,
//! "Invariants"). Differences name items and digests by id, never people.

use crate::store::rules::tx::{Row, Tx};

use super::rows::{count, digest_id, item_id};
use super::{counts, sql, status};
use crate::model::{DigestState, ItemState};
use crate::store::Result;
use crate::store::desk::Verified;
use crate::store::rules::Shared;

/// Differences of one kind that are named; more are only said to be there.
const NAMED: usize = 20;

type Say<'s> = &'s dyn Fn(&Row<'_>) -> Result<String>;

pub(super) fn verify(conn: Tx<'_>, shared: &Shared) -> Result<Verified> {
    let (counted, found) = (counts(conn)?, recount(conn)?);
    let mut differences = Vec::new();
    for state in ItemState::ALL {
        let (said, is) = (counted[state as usize], found[state as usize]);
        // Signed: a count below zero is a difference even if there are no items.
        if said != is {
            differences.push(format!("{}: the ledger says {said}, there are {is} items", state.as_str()));
        }
    }
    let digest = |no: i64| digest_id(shared, no);
    look(conn, sql::HOMELESS_ITEMS, &mut differences, &|row| {
        let (item, is) = (item_id(row.get(0)?, row.get(1)?), item_state(row, 2)?);
        Ok(match (row.get::<Option<i64>>(3)?, row.get::<Option<i64>>(4)?) {
            (Some(no), Some(_)) => format!("item {item} is {is}, but its digest {} is closed", digest(no)),
            (Some(no), None) => format!("item {item} is {is}, but its digest {} is not there", digest(no)),
            (None, _) => format!("item {item} is {is}, but in no digest"),
        })
    })?;
    let wrong_open = if conn.is_postgres() { sql::PG_WRONG_OPEN } else { sql::LITE_WRONG_OPEN };
    look(conn, wrong_open, &mut differences, &|row| {
        let (said, is): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(format!("digest {} says {said} open items, there are {is}", digest(row.get(0)?)))
    })?;
    look(conn, sql::TWO_WINDOWS, &mut differences, &|row| {
        let (mailbox, n): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(format!("mailbox {mailbox} has {n} digests that gather; it may have one"))
    })?;
    look(conn, sql::DOUBTS_ELSEWHERE, &mut differences, &|row| {
        let item = item_id(row.get(0)?, row.get(1)?);
        Ok(format!("item {item} is in doubt, but its digest {} is {}", digest(row.get(2)?), digest_state(row, 3)?))
    })?;
    look(conn, sql::DELIVERED_BY_NOTHING, &mut differences, &|row| {
        Ok(format!("item {} is delivered, but no accepted attempt listed it", item_id(row.get(0)?, row.get(1)?)))
    })?;
    look(conn, sql::EMPTY_DIGESTS, &mut differences, &|row| {
        Ok(format!("digest {} is {}, but has no open items", digest(row.get(0)?), digest_state(row, 1)?))
    })?;
    Ok(Verified {
        counted: status::ledger(&counted.map(count)),
        recounted: status::ledger(&found.map(count)),
        differences,
    })
}

fn recount(conn: Tx<'_>) -> Result<[i64; ItemState::ALL.len()]> {
    let read = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]);
    Ok(conn.query_row(sql::RECOUNT, (), read)?)
}

fn look(conn: Tx<'_>, statement: &str, differences: &mut Vec<String>, say: Say<'_>) -> Result<()> {
    let mut found = conn.prepare_cached(statement)?;
    let mut named = 0;
    found.each([NAMED as i64 + 1], |row| {
        named += 1;
        if named > NAMED {
            differences.push("… and more of this kind".into());
            return Ok(false);
        }
        differences.push(say(row)?);
        Ok(true)
    })
}

fn item_state(row: &Row<'_>, column: usize) -> Result<&'static str> {
    Ok(ItemState::from_number(row.get(column)?).map_or("in an unknown state", ItemState::as_str))
}

fn digest_state(row: &Row<'_>, column: usize) -> Result<&'static str> {
    Ok(DigestState::from_number(row.get(column)?).map_or("in an unknown state", DigestState::as_str))
}
