//! The write-ahead log as a file of its own: what is committed is made durable beside the writer, who goes on.
//!
//! With `synchronous=NORMAL` a commit writes its pages behind those of all before it and syncs nothing; what a crash leaves
//! is the log up to some commit (sqlite.org/pragma.html#pragma_synchronous). So whoever syncs the log has made durable all
//! that was committed until then. SQLite itself syncs the log before a checkpoint, and its head when it begins anew.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::file::named;
use crate::store::{Result, StoreError};

#[derive(Clone)]
pub(super) struct Log {
    path: Arc<PathBuf>,
    /// SQLite has no locks on this file, which closing it would take away. `None`: a file system that takes no such log has
    /// none; there each commit is durable when it is done.
    file: Option<Arc<File>>,
    /// The disk did not take something: whatever is committed later stands behind a hole.
    broken: Arc<AtomicBool>,
    /// The system says so once, to one who asks: so each waits for the answer of the one before.
    asks: Arc<Mutex<()>>,
}

/// When a commit is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncs {
    /// When it is done.
    Itself,
    /// After a [`Log::sync`], or when something is that was committed later.
    Later,
}

impl Log {
    /// Of a store that is open: its log is there, and stays as long as it is.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(store: &Path) -> Result<Log> {
        let mut path = store.as_os_str().to_owned();
        path.push("-wal");
        let path = PathBuf::from(path);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Some(Arc::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                let path = path.display();
                return Err(StoreError::Unusable(format!("{path}: cannot open the store's log: {e}")));
            }
        };
        Ok(Log { path: Arc::new(path), file, broken: Arc::default(), asks: Arc::default() })
    }

    /// The next commits of this connection. (Never by a prepared statement: this pragma does its work when it is prepared.)
    pub fn let_sync(&self, conn: &Connection, syncs: Syncs) -> Result<()> {
        let level = if syncs == Syncs::Later && self.file.is_some() { "NORMAL" } else { "FULL" };
        conn.pragma_update(None, "synchronous", level).map_err(|e| named(&self.path, &e))
    }

    /// Everything that is committed is durable now, also what a worker before this one has committed.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: what the disk did not take the system may have forgotten, and does not say so again.
    pub fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let _asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        self.still()?;
        file.sync_data().map_err(|e| {
            tracing::error!(error = %e, "the disk did not take what was written to the store's log");
            self.broken.store(true, Ordering::SeqCst);
            self.unusable()
        })
    }

    /// Nothing may be committed once the disk did not take something. Waits for no sync: the next batch is written during it.
    pub fn still(&self) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) { Err(self.unusable()) } else { Ok(()) }
    }

    /// Nor may anybody be answered whose commit stands behind one that is being synced, before that is over.
    pub fn after_syncs(&self) -> Result<()> {
        let _asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        self.still()
    }

    fn unusable(&self) -> StoreError {
        let path = self.path.display();
        StoreError::Unusable(format!(
            "{path}: the disk did not take what was written; look at it, then start the worker anew"
        ))
    }

    /// At the end of a worker: what the log holds moves into the file, unless the disk has not all of it. Then the next start
    /// reads the log anew, by its checksums, up to what is missing.
    pub fn close(&self, conn: &Connection) {
        if self.still().is_ok() {
            let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        } else {
            let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// Moves what a worker before this one has left into the file, which is synced: what the disk did not take of the log, and
/// the system has in memory still, must not count as durable. As far as somebody reads it, or the disk is full, it stays.
pub(super) fn move_rest(conn: &Connection) {
    if let Err(why) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(error = %why, "what stands in the store's log was not moved into its file; it is moved later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::file::connect;

    fn made(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("owlpost.db");
        let conn = connect(&path).unwrap();
        conn.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
        (path, conn)
    }

    fn level(conn: &Connection) -> i64 {
        conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap()
    }

    #[test]
    fn only_what_asks_for_it_is_committed_without_a_sync_and_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conn) = made(folder.path());
        let log = Log::open(&path).unwrap();
        for _ in 0..3 {
            for (syncs, is) in [(Syncs::Later, 1), (Syncs::Itself, 2)] {
                log.let_sync(&conn, syncs).unwrap();
                assert_eq!(level(&conn), is, "{syncs:?}");
            }
        }
        log.sync().unwrap();
    }

    #[test]
    fn a_disk_that_did_not_take_it_ends_the_worker_and_nobody_is_told_otherwise_later() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conn) = made(folder.path());
        // A device that has nothing to sync refuses to.
        let file = Some(Arc::new(File::open("/dev/null").unwrap()));
        let log = Log { file, path: Arc::new("owlpost.db-wal".into()), ..Log::open(&path).unwrap() };
        let other = log.clone();
        log.still().unwrap();
        assert!(matches!(log.sync(), Err(StoreError::Unusable(why)) if why.contains("owlpost.db-wal")));
        assert!(other.still().is_err() && other.after_syncs().is_err() && other.sync().is_err());
        // What the log holds stays there for the next start, which reads it by its checksums.
        let bytes = || std::fs::metadata(folder.path().join("owlpost.db-wal")).map(|file| file.len()).unwrap_or(0);
        let before = bytes();
        other.close(&conn);
        drop(conn);
        assert!(before > 0 && bytes() == before, "{before} {}", bytes());
        assert!(path.exists());
    }

    #[test]
    fn the_next_batch_is_written_while_the_disk_takes_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(&made(folder.path()).0).unwrap();
        let _syncing = log.asks.lock().unwrap();
        log.still().unwrap();
    }

    #[test]
    fn what_was_left_in_the_log_is_in_the_file_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (path, conn) = made(folder.path());
        conn.execute_batch("INSERT INTO t VALUES (7)").unwrap();
        let alone = folder.path().join("alone.db");
        let in_the_file = || {
            std::fs::copy(&path, &alone).unwrap();
            let found =
                Connection::open(&alone).and_then(|conn| conn.query_row("SELECT n FROM t", [], |row| row.get(0)));
            found.unwrap_or(0)
        };
        assert_eq!(in_the_file(), 0);
        move_rest(&conn);
        assert_eq!(in_the_file(), 7);
    }
}
