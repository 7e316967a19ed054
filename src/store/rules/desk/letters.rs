//! Dead letters: refused inputs (`in-5`) and dead items (`it-17-4`) in one listing, inputs first.

use crate::store::rules::tx::{Optional, Row, Tx, params};

use super::ledger::items;
use super::rows::{ItemRow, count, item_id, limit, text};
use super::sql;
use crate::model::{DEAD_LETTER_BYTES, Reason, Time};
use crate::store::desk::{DeadLetter, DeadLetterRow, LetterKind};
use crate::store::rules::{Shared, act};
use crate::store::{Page, Result, Rows};

pub(super) struct Wanted<'q> {
    pub kind: Option<LetterKind>,
    pub reason: Option<&'q str>,
    pub source: Option<&'q str>,
    pub since: Option<Time>,
    pub discarded: bool,
}

/// Cursors of inputs lie below zero (`MIN` + number), those of items are numbers of events, so that one number tells
/// which of the two goes on.
const INPUTS: i64 = i64::MIN;
const ITEMS: i64 = 0;

pub(super) fn letters(conn: Tx<'_>, wanted: &Wanted<'_>, page: Page) -> Result<Rows> {
    if page.after < ITEMS && wanted.kind != Some(LetterKind::Item) {
        let (rows, next) = inputs(conn, wanted, page)?;
        let to_items = (wanted.kind != Some(LetterKind::Input)).then_some(ITEMS);
        return Ok(Rows::DeadLetters { rows, next: next.or(to_items) });
    }
    if wanted.kind == Some(LetterKind::Input) {
        return Ok(Rows::DeadLetters { rows: vec![], next: None });
    }
    let reason = wanted.reason.map(|name| Reason::ALL.into_iter().find(|r| r.as_str() == name));
    if reason == Some(None) {
        return Ok(Rows::DeadLetters { rows: vec![], next: None });
    }
    let (after, reason) = (page.after.max(ITEMS), reason.flatten().map(|r| r as i64));
    let of = |rows| (after, reason, wanted.source, wanted.since.map(|t| t.0), rows);
    let (items, next) = items(conn, sql::DEAD_ITEMS, of, page)?;
    let rows = items.iter().map(|item| item_letter(conn, item)).collect::<Result<_>>()?;
    Ok(Rows::DeadLetters { rows, next })
}

fn inputs(conn: Tx<'_>, wanted: &Wanted<'_>, page: Page) -> Result<(Vec<DeadLetterRow>, Option<i64>)> {
    let most = limit(page);
    let mut found = conn.prepare_cached(sql::LETTERS)?;
    let of = params![
        page.after.wrapping_sub(INPUTS),
        wanted.reason,
        wanted.source,
        wanted.since.map(|t| t.0),
        wanted.discarded,
        most
    ];
    let rows: Vec<(i64, DeadLetterRow)> = found.query_map(of, |row| Ok((row.get(0)?, input_letter(row)?)))?;
    let next = rows.last().map(|(no, _)| INPUTS + no).filter(|_| rows.len() >= most as usize);
    Ok((rows.into_iter().map(|(_, row)| row).collect(), next))
}

fn input_letter(row: &Row<'_>) -> Result<DeadLetterRow> {
    let bytes = count(row.get(7)?);
    Ok(DeadLetterRow {
        id: format!("in-{}", row.get::<i64>(0)?),
        kind: LetterKind::Input,
        source: row.get(1)?,
        position: row.get(2)?,
        reason: row.get(3)?,
        detail: row.get(4)?,
        first_at: text(row.get(5)?),
        count: count(row.get(6)?),
        bytes,
        truncated: bytes > DEAD_LETTER_BYTES as u64,
        forwarded_at: row.get::<Option<i64>>(8)?.map(text),
        forward_error: row.get(11)?,
    })
}

fn item_letter(conn: Tx<'_>, item: &ItemRow) -> Result<DeadLetterRow> {
    let (forwarded_at, forward_error): (Option<i64>, Option<String>) = conn
        .prepare_cached(sql::ITEM_FORWARDED)?
        .query_row([item.event_no, item.mailbox_no], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last_said = item.attempts(conn)?.into_iter().next().and_then(|a| a.detail);
    Ok(DeadLetterRow {
        id: item_id(item.event_no, item.mailbox_no),
        kind: LetterKind::Item,
        reason: item.reason.map_or("", Reason::as_str).into(),
        source: item.source.clone(),
        position: format!("event {} for {} by route {}", item.id, item.recipient, item.route),
        first_at: text(item.settled_at.unwrap_or(item.received_at)),
        count: 1,
        bytes: count(item.data_bytes),
        truncated: false,
        forwarded_at: forwarded_at.map(text),
        forward_error,
        detail: last_said.unwrap_or_default(),
    })
}

/// One dead letter. An item that is not dead (any more) is none.
pub(super) fn letter(conn: Tx<'_>, shared: &Shared, id: &str) -> Result<Option<Box<DeadLetter>>> {
    if let Some(no) = act::letter_number(id) {
        let mut one = conn.prepare_cached(sql::LETTER)?;
        let found = one.query_row([no], |row| {
            let headers: String = row.get(13)?;
            let sha256: Vec<u8> = row.get(12)?;
            Ok(DeadLetter {
                row: input_letter(row)?,
                sha256: Some(sha256.iter().map(|b| format!("{b:02x}")).collect()),
                body: row.get(14)?,
                headers: serde_json::from_str(&headers).unwrap_or_default(),
                last_at: text(row.get(9)?),
                discarded_at: row.get::<Option<i64>>(10)?.map(text),
                item: None,
            })
        });
        return Ok(found.optional()?.map(Box::new));
    }
    let Some((event_no, mailbox_no)) = act::item_key(id) else { return Ok(None) };
    let mut one = conn.prepare_cached(sql::ITEM_OF)?;
    let item = one.query_row(params![event_no, mailbox_no], ItemRow::read).optional()?;
    let Some(item) = item.filter(|i| i.state == crate::model::ItemState::Dead) else { return Ok(None) };
    let row = item_letter(conn, &item)?;
    Ok(Some(Box::new(DeadLetter {
        last_at: row.first_at.clone(),
        row,
        sha256: None,
        body: vec![],
        headers: vec![],
        discarded_at: None,
        item: Some(item.ledger(conn, shared)?),
    })))
}
