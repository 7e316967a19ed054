//! Dead letters on their way out, by the partial indexes that hold only what waits.

use crate::store::rules::tx::{Row, Tx, params};
use sha2::{Digest as _, Sha256};

use super::act;
use super::books::Books;
use super::sql;
use crate::model::{Reason, Time};
use crate::store::desk::LetterKind;
use crate::store::letters::{Fate, Letter, Portion};
use crate::store::{Result, StoreError};

pub(super) fn unforwarded(conn: Tx<'_>, portion: Portion) -> Result<Vec<Letter>> {
    let mut letters = read(conn, sql::UNFORWARDED_INPUTS, portion, input)?;
    letters.extend(read(conn, sql::UNFORWARDED_ITEMS, portion, item)?);
    Ok(letters)
}

/// So many are asked for at first: a database may send all that was asked for, whether it is read or not, and each may have a
/// megabyte.
const FIRST: u32 = 4;

/// Row after row, until there is enough: more are asked for as long as they are small.
fn read(
    conn: Tx<'_>,
    statement: &str,
    portion: Portion,
    letter: fn(&Row<'_>) -> Result<Letter>,
) -> Result<Vec<Letter>> {
    let mut ask = FIRST.min(portion.letters);
    loop {
        let (mut letters, mut bytes) = (Vec::new(), 0usize);
        conn.prepare_cached(statement)?.each([ask], |row| {
            let letter = letter(row)?;
            let headers = letter.headers.iter().map(|(name, value)| name.len() + value.len());
            bytes = bytes.saturating_add(letter.body.len() + headers.sum::<usize>());
            letters.push(letter);
            Ok(bytes < portion.bytes)
        })?;
        if bytes >= portion.bytes || letters.len() < ask as usize || ask >= portion.letters {
            return Ok(letters);
        }
        // As many more as fit if they are like these, but not many more at once.
        let fit = u32::try_from(portion.bytes / (bytes / letters.len()).max(1)).unwrap_or(u32::MAX);
        ask = fit.clamp(ask.saturating_mul(2), ask.saturating_mul(5)).min(portion.letters);
    }
}

fn input(row: &Row<'_>) -> Result<Letter> {
    let headers: String = row.get(10)?;
    Ok(Letter {
        id: format!("in-{}", row.get::<i64>(0)?),
        kind: LetterKind::Input,
        source: row.get(1)?,
        position: row.get(2)?,
        reason: row.get(3)?,
        detail: row.get(4)?,
        at: Time(row.get(5)?),
        count: count(row.get(6)?),
        bytes: count(row.get(7)?),
        broker_id: row.get(8)?,
        sha256: row.get(9)?,
        headers: serde_json::from_str(&headers).unwrap_or_default(),
        body: row.get(11)?,
        asked: None,
    })
}

/// The event as a CloudEvent in its JSON form. Its time is that of its rank: the event's own, else that of its receipt.
fn item(row: &Row<'_>) -> Result<Letter> {
    let reason = row.get::<Option<i64>>(2)?.and_then(Reason::from_number).map_or("", Reason::as_str);
    let (source, id, kind): (String, String, String) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let (data, recipient, route): (String, String, String) = (row.get(10)?, row.get(11)?, row.get(12)?);
    let mut event = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": kind,
        "time": Time(row.get::<i64>(7)? >> 1).to_string(),
        // Written by `Arrival::new`, so it is JSON.
        "data": serde_json::from_str::<serde_json::Value>(&data).unwrap_or_default(),
    });
    if let Some(subject) = row.get::<Option<String>>(9)? {
        event["subject"] = subject.into();
    }
    let body = event.to_string().into_bytes();
    Ok(Letter {
        id: format!("it-{}-{}", row.get::<i64>(0)?, row.get::<i64>(1)?),
        kind: LetterKind::Item,
        reason: reason.into(),
        detail: row.get::<Option<String>>(13)?.unwrap_or_default(),
        position: format!("event {id} for {recipient} by route {route}"),
        broker_id: None,
        at: Time(row.get::<Option<i64>>(3)?.map_or_else(|| row.get(8), Ok)?),
        count: 1,
        bytes: body.len() as u64,
        sha256: Sha256::digest(&body).into(),
        headers: vec![("content-type".to_owned(), "application/cloudevents+json".to_owned())],
        body,
        source,
        asked: Some((recipient, route)),
    })
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn forwarded(books: &mut Books<'_>, fates: &[(String, Fate)]) -> Result<()> {
    for (id, fate) in fates {
        let (at, why) = match fate {
            Fate::Forwarded => (Some(books.now.0), None),
            Fate::Refused(why) => (None, Some(why)),
        };
        if let Some(no) = act::letter_number(id) {
            books.tx.prepare_cached(sql::FORWARDED_INPUT)?.execute(params![no, at, why])?;
        } else if let Some((event_no, mailbox_no)) = act::item_key(id) {
            books.tx.prepare_cached(sql::FORWARDED_ITEM)?.execute(params![event_no, mailbox_no, at, why])?;
        } else {
            return Err(StoreError::Broken(format!("{id}: no id of a dead letter")));
        }
    }
    Ok(())
}
