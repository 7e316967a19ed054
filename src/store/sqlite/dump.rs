//! Everything in a store's file, for another database. The worker's lock is held meanwhile: nobody adds to what is copied.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};

use super::file::{self, connect, named};
use super::{identity, sql};
use crate::store::moving::{Cells, Numbers, Page, Table};
use crate::store::{Result, StoreError};

/// Rows of a page, and bytes in them: an event may have a megabyte.
const ROWS: u64 = 2_000;
const BYTES: usize = 4 << 20;

pub struct Dump {
    conn: Connection,
    path: PathBuf,
    _lock: File,
}

impl Dump {
    /// Brings the file's schema up to date first, so that both databases have the same tables. Blocking.
    ///
    /// # Errors
    /// There is no store, a worker has it, or it can't be read.
    pub fn open(path: &Path) -> Result<Dump> {
        if !path.exists() {
            return Err(StoreError::Unusable(format!("{}: no such store", path.display())));
        }
        let path = file::real_path(path)?;
        let lock = file::take_lock(&path)?;
        identity::refuse_foreign(&path)?;
        let mut conn = connect(&path)?;
        file::check_version(&conn, &path)?;
        file::migrate(&mut conn, &path)?;
        // One picture for all tables: an operator's command may still write.
        conn.execute_batch("BEGIN").map_err(|e| named(&path, &e))?;
        Ok(Dump { conn, path, _lock: lock })
    }

    /// # Errors
    /// The file can't be read.
    pub fn numbers(&self) -> Result<Numbers> {
        let read = |row: &Row<'_>| {
            Ok(Numbers {
                store_id: row.get(0)?,
                next_event: row.get(1)?,
                next_digest: row.get(2)?,
                next_letter: row.get(3)?,
                mails_sent: row.get(4)?,
            })
        };
        self.conn.query_row(sql::NUMBERS, [], read).map_err(|e| named(&self.path, &e))
    }

    /// Table after table, page after page.
    ///
    /// # Errors
    /// The file can't be read, or `take` has failed.
    pub fn pages(&self, tables: &[Table], take: &mut dyn FnMut(Page) -> Result<()>) -> Result<()> {
        for (table, of) in tables.iter().enumerate() {
            let names: Vec<&str> = of.columns.iter().map(|(name, _)| name.as_str()).collect();
            // What stands in a tail names no digest (V8__tail.sql).
            let from = if of.name == "item" { "placed_item" } else { of.name };
            let all = format!("SELECT {} FROM {from}", names.join(", "));
            let mut found = self.conn.prepare(&all).map_err(|e| named(&self.path, &e))?;
            let mut rows = found.query([]).map_err(|e| named(&self.path, &e))?;
            let empty =
                || Page { table, rows: 0, columns: of.columns.iter().map(|(_, kind)| Cells::of(*kind)).collect() };
            let (mut page, mut bytes) = (empty(), 0);
            while let Some(row) = rows.next().map_err(|e| named(&self.path, &e))? {
                for (i, column) in page.columns.iter_mut().enumerate() {
                    bytes += add(column, row, i).map_err(|e| named(&self.path, &e))?;
                }
                page.rows += 1;
                if page.rows >= ROWS || bytes >= BYTES {
                    take(std::mem::replace(&mut page, empty()))?;
                    bytes = 0;
                }
            }
            if page.rows > 0 {
                take(page)?;
            }
        }
        Ok(())
    }
}

/// Gives how many bytes it added.
fn add(column: &mut Cells, row: &Row<'_>, i: usize) -> rusqlite::Result<usize> {
    match column {
        Cells::Ints(all) => all.push(row.get(i)?),
        Cells::Reals(all) => all.push(row.get(i)?),
        Cells::Texts(all) => {
            let text: Option<String> = row.get(i)?;
            let bytes = text.as_ref().map_or(0, String::len);
            all.push(text);
            return Ok(bytes);
        }
        Cells::Blobs(all) => {
            let blob: Option<Vec<u8>> = row.get(i)?;
            let bytes = blob.as_ref().map_or(0, Vec::len);
            all.push(blob);
            return Ok(bytes);
        }
    }
    Ok(size_of::<i64>())
}
