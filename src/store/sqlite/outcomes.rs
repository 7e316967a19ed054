//! What became of every event, read from any store's file in one order: two ledgers can be laid side by side, page by page.
//!
//! Reads only what every version's schema has, since a new version is compared with the one that runs.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::file::named;
use super::sql;
use crate::model::{ItemState, Reason};
use crate::store::{Result, blocking};

/// Events of one step: with their items some thousand rows.
const PAGE: u32 = 500;

/// How long a writer that moves its log may make wait.
const BUSY_TIMEOUT_MS: u32 = 10_000;

/// An event and its items, by route and recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOutcome {
    /// Of (source, id); what the order goes by.
    pub key: Vec<u8>,
    pub source: String,
    pub id: String,
    pub items: Vec<ItemOutcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemOutcome {
    pub route: String,
    pub recipient: String,
    pub state: ItemState,
    pub reason: Option<Reason>,
}

/// A store's file, opened for reading alone. Each page is a consistent look; between two of them a worker may go on.
pub struct Outcomes {
    path: PathBuf,
    after: Vec<u8>,
    ended: bool,
}

impl Outcomes {
    /// `None`: there is no such file, or no schema in it.
    ///
    /// # Errors
    /// The file is no store.
    pub async fn open(path: &Path) -> Result<Option<Outcomes>> {
        let path = path.to_owned();
        blocking(move || {
            if !path.exists() {
                return Ok(None);
            }
            let tables = connect(&path).and_then(|conn| conn.query_row(sql::OUTCOME_TABLES, [], |row| row.get(0)));
            let there: bool = tables.map_err(|e| named(&path, &e))?;
            Ok(there.then_some(Outcomes { path, after: Vec::new(), ended: false }))
        })
        .await
    }

    /// The next events in the order of their keys; empty: there are no more.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn next(&mut self) -> Result<Vec<EventOutcome>> {
        if self.ended {
            return Ok(vec![]);
        }
        let (path, after) = (self.path.clone(), std::mem::take(&mut self.after));
        let page = blocking(move || page(&path, &after).map_err(|e| named(&path, &e))).await?;
        self.ended = page.len() < PAGE as usize;
        self.after = page.last().map(|event| event.key.clone()).unwrap_or_default();
        Ok(page)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.execute_batch(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; PRAGMA query_only = true; BEGIN"))?;
    Ok(conn)
}

fn page(path: &Path, after: &[u8]) -> rusqlite::Result<Vec<EventOutcome>> {
    let conn = connect(path)?;
    let has_keys: bool = conn.query_row(sql::HAS_KEYS, [], |row| row.get(0))?;
    let mut events = conn.prepare(if has_keys { sql::EVENTS_BY_KEY } else { sql::EVENTS_BY_KEY_BEFORE })?;
    let mut items = conn.prepare(sql::OUTCOMES_OF_EVENT)?;
    let mut page = Vec::new();
    let mut rows = events.query(params![after, PAGE])?;
    while let Some(row) = rows.next()? {
        let of_event = items.query_map([row.get::<_, i64>(0)?], |row| {
            Ok(ItemOutcome {
                route: row.get(0)?,
                recipient: row.get(1)?,
                state: ItemState::from_number(row.get(2)?).unwrap_or(ItemState::Dead),
                reason: row.get::<_, Option<i64>>(3)?.and_then(Reason::from_number),
            })
        })?;
        let mut of_event = of_event.collect::<rusqlite::Result<Vec<_>>>()?;
        of_event.sort_unstable();
        page.push(EventOutcome { key: row.get(1)?, source: row.get(2)?, id: row.get(3)?, items: of_event });
    }
    Ok(page)
}

/// What an account may send, as a worker last wrote it down: recipients a second, and in 24 hours. `None`: unknown.
///
/// # Errors
/// The file can't be read.
pub async fn terms(path: &Path, account: &str) -> Result<Option<(Option<f64>, Option<u64>)>> {
    let (path, account) = (path.to_owned(), account.to_owned());
    blocking(move || {
        let read = || -> rusqlite::Result<_> {
            let conn = connect(&path)?;
            if !conn.query_row(sql::HAS_QUOTA, [], |row| row.get::<_, bool>(0))? {
                return Ok(None);
            }
            let terms = conn.query_row(sql::QUOTA, [account], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)));
            Ok(terms.optional()?.map(|(rate, day)| (rate, day.and_then(|n| u64::try_from(n).ok()))))
        };
        read().map_err(|e| named(&path, &e))
    })
    .await
}

/// Addresses that must not be mailed, after `after`, with the reasons; empty: there are no more.
///
/// # Errors
/// The file can't be read.
pub async fn suppressed(path: &Path, after: &str) -> Result<Vec<(String, String)>> {
    let (path, after) = (path.to_owned(), after.to_owned());
    blocking(move || {
        let read = || -> rusqlite::Result<Vec<_>> {
            let conn = connect(&path)?;
            let mut found = conn.prepare(sql::SUPPRESSED_AFTER)?;
            found.query_map(params![after, PAGE], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(|e| named(&path, &e))
    })
    .await
}
