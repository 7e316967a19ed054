//! Rows as the desk shows them: numbers become names, times become text.

use crate::store::rules::tx::{Optional, Row, Tx, params};

use super::sql;
use crate::model::{DigestId, DigestState, ItemState, Priority, Reason, Time};
use crate::store::desk::{AttemptRow, DigestRow, LedgerRow};
use crate::store::rules::Shared;
use crate::store::rules::closure::{ACCEPTED, FAILED, REFUSED};
use crate::store::{Page, Result};

/// Most rows of one page, so that a page is bounded whoever asks.
const PAGE_MAX: u32 = 10_000;

pub(super) fn limit(page: Page) -> u32 {
    page.limit.clamp(1, PAGE_MAX)
}

pub(super) fn text(us: i64) -> String {
    Time(us).to_string()
}

pub(super) fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn digest_id(shared: &Shared, no: i64) -> String {
    DigestId { store: shared.store_id, number: no }.to_string()
}

/// The statement that lists a digest's items.
pub(super) fn items_of_digest(conn: Tx<'_>) -> &'static str {
    if conn.is_postgres() { sql::PG_ITEMS_OF_DIGEST } else { sql::LITE_ITEMS_OF_DIGEST }
}

/// The number of a digest of this store.
pub(super) fn digest_number(shared: &Shared, id: &str) -> Option<i64> {
    id.parse::<DigestId>().ok().filter(|d| d.store == shared.store_id).map(|d| d.number)
}

pub(super) fn item_id(event_no: i64, mailbox_no: i64) -> String {
    format!("it-{event_no}-{mailbox_no}")
}

/// An item with what it is about, whom it is for and where it is.
pub(super) struct ItemRow {
    pub event_no: i64,
    pub mailbox_no: i64,
    pub digest_no: Option<i64>,
    pub state: ItemState,
    pub reason: Option<Reason>,
    pub left_before: Option<i64>,
    pub settled_at: Option<i64>,
    pub source: String,
    pub id: String,
    pub kind: String,
    pub subject_key: Option<String>,
    pub received_at: i64,
    pub recipient: String,
    pub route: String,
    pub address: Option<String>,
    pub data_bytes: i64,
}

impl ItemRow {
    pub fn read(row: &Row<'_>) -> Result<ItemRow> {
        Ok(ItemRow {
            event_no: row.get(0)?,
            mailbox_no: row.get(1)?,
            digest_no: row.get(2)?,
            state: ItemState::from_number(row.get(3)?).unwrap_or(ItemState::Dead),
            reason: row.get::<Option<i64>>(4)?.and_then(Reason::from_number),
            left_before: row.get(5)?,
            settled_at: row.get(6)?,
            source: row.get(7)?,
            id: row.get(8)?,
            kind: row.get(9)?,
            subject_key: row.get(10)?,
            received_at: row.get(11)?,
            recipient: row.get(12)?,
            route: row.get(13)?,
            address: row.get(14)?,
            data_bytes: row.get(15)?,
        })
    }

    /// The attempts that listed it, newest first.
    pub fn attempts(&self, conn: Tx<'_>) -> Result<Vec<Attempt>> {
        let mut found = conn.prepare_cached(sql::ATTEMPTS_OF_ITEM)?;
        let of = params![self.event_no, self.mailbox_no, self.digest_no, self.left_before, AttemptRow::MAX];
        found.query_map(of, Attempt::read)
    }

    /// The attempt that settled it, if one did: accepted for a delivered item, failed for a bounced one.
    pub fn settled_by(&self, conn: Tx<'_>) -> Result<Option<Attempt>> {
        let wanted = match (self.state, self.reason) {
            (ItemState::Delivered, _) => ACCEPTED,
            (ItemState::Dead, Some(Reason::Bounced)) => FAILED,
            _ => return Ok(None),
        };
        let here = params![self.digest_no, self.left_before, wanted];
        let found = conn.prepare_cached(sql::SETTLED_BY)?.query_row(here, Attempt::read).optional()?;
        if found.is_some() {
            return Ok(found);
        }
        let before = params![self.event_no, self.mailbox_no, wanted];
        conn.prepare_cached(sql::SETTLED_BEFORE)?.query_row(before, Attempt::read).optional()
    }

    /// Its line in the ledger: of a delivered item with the digest and the message that told its recipient.
    pub fn ledger(self, conn: Tx<'_>, shared: &Shared) -> Result<LedgerRow> {
        let by = self.settled_by(conn)?;
        let elsewhere = by.as_ref().map(|a| a.digest_no).filter(|no| Some(*no) != self.digest_no);
        let address = match elsewhere {
            Some(no) => digest(conn, shared, no, Time::MAX)?.and_then(|(_, address)| address),
            None => self.address,
        };
        Ok(LedgerRow {
            source: self.source,
            id: self.id,
            kind: self.kind,
            subject_key: self.subject_key,
            recipient: self.recipient,
            address,
            route: self.route,
            state: self.state.as_str().into(),
            reason: self.reason.map(|r| r.as_str().into()),
            digest: elsewhere.or(self.digest_no).map(|no| digest_id(shared, no)),
            message_id: by.and_then(|a| a.message_id),
            accepted_at: text(self.received_at),
            settled_at: self.settled_at.map(text),
        })
    }
}

pub(super) struct Attempt {
    pub digest_no: i64,
    pub n: i64,
    pub begun_at: i64,
    pub outcome: i64,
    pub settled_at: Option<i64>,
    pub message_id: Option<String>,
    pub detail: Option<String>,
}

impl Attempt {
    pub fn read(row: &Row<'_>) -> Result<Attempt> {
        Ok(Attempt {
            digest_no: row.get(0)?,
            n: row.get(1)?,
            begun_at: row.get(2)?,
            outcome: row.get(3)?,
            settled_at: row.get(4)?,
            message_id: row.get(5)?,
            detail: row.get::<Option<String>>(6)?.filter(|d| !d.is_empty()),
        })
    }

    pub fn number(&self) -> u32 {
        u32::try_from(self.n).unwrap_or(u32::MAX)
    }

    pub fn outcome_name(&self) -> &'static str {
        match self.outcome {
            REFUSED => "refused",
            ACCEPTED => "accepted",
            FAILED => "failed",
            _ => "unknown",
        }
    }

    pub fn row(self) -> AttemptRow {
        AttemptRow {
            attempt: self.number(),
            begun_at: text(self.begun_at),
            outcome: self.outcome_name().into(),
            settled_at: self.settled_at.map(text),
            message_id: self.message_id,
            detail: self.detail,
        }
    }
}

/// A digest and where its last attempt went.
pub(super) fn digest(conn: Tx<'_>, shared: &Shared, no: i64, now: Time) -> Result<Option<(DigestRow, Option<String>)>> {
    let mut one = conn.prepare_cached(sql::DIGEST)?;
    one.query_row([no], |row| Ok((digest_row(row, shared, now)?, row.get(12)?))).optional()
}

pub(super) fn digest_row(row: &Row<'_>, shared: &Shared, now: Time) -> Result<DigestRow> {
    let state = DigestState::from_number(row.get(1)?).unwrap_or(DigestState::Closed);
    let planned = matches!(state, DigestState::Gathering | DigestState::Waiting);
    let due_at: i64 = row.get(7)?;
    let priority = Priority::ALL.get(row.get::<u8>(4)? as usize).copied().unwrap_or_default();
    Ok(DigestRow {
        id: digest_id(shared, row.get(0)?),
        state: state.as_str().into(),
        route: row.get(2)?,
        recipient: row.get(3)?,
        priority: match priority {
            Priority::Urgent => "urgent".into(),
            Priority::Normal => "normal".into(),
            Priority::Bulk => "bulk".into(),
        },
        due: planned && due_at <= now.0,
        items: count(row.get(5)?),
        open: count(row.get(6)?),
        due_at: planned.then(|| text(due_at)),
        until: row.get::<Option<i64>>(8)?.map(text),
        attempts: row.get(9)?,
        opened_at: text(row.get(10)?),
        closed_at: row.get::<Option<i64>>(11)?.map(text),
    })
}
