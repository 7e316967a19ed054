//! The write-ahead log as a file of its own: what is committed is made durable beside the writer, who goes on.
//!
//! With `synchronous=NORMAL` a commit writes its pages behind those of all before it and syncs nothing; what a crash leaves
//! is the log up to some commit (sqlite.org/pragma.html#pragma_synchronous). So whoever syncs the log has made durable all
//! that was committed until then. SQLite itself syncs the log before a checkpoint, and its head when it begins anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::file::named;
use crate::store::{Result, StoreError};

#[derive(Clone)]
pub(super) struct Log {
    path: Arc<PathBuf>,
    /// SQLite has no locks on this file, which closing it would take away. `None`: a file system that takes no such log has
    /// none; there each commit is durable when it is done.
    file: Option<Arc<File>>,
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
        let file = match File::open(&path) {
            Ok(file) => Some(Arc::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                let path = path.display();
                return Err(StoreError::Unusable(format!("{path}: cannot open the store's log: {e}")));
            }
        };
        Ok(Log { path: Arc::new(path), file })
    }

    /// What `work` commits is durable after a [`Log::sync`], or when something is that was committed later.
    pub fn without_sync<T>(&self, conn: &mut Connection, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        if self.file.is_none() {
            return work(conn);
        }
        // Each time anew: this pragma does its work when it is prepared.
        let set =
            |conn: &Connection, how| conn.pragma_update(None, "synchronous", how).map_err(|e| named(&self.path, &e));
        set(conn, "NORMAL")?;
        let done = work(conn);
        set(conn, "FULL")?;
        done
    }

    /// Everything that is committed is durable now, also what a worker before this one has committed.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: what the disk did not take the system may have forgotten, and does not say so again.
    pub fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|e| {
            let path = self.path.display();
            StoreError::Unusable(format!(
                "{path}: the disk did not take it: {e}; look at the disk, then start the worker anew"
            ))
        })
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
        let (path, mut conn) = made(folder.path());
        let log = Log::open(&path).unwrap();
        const NORMAL: i64 = 1;
        const FULL: i64 = 2;
        for _ in 0..3 {
            assert_eq!(level(&conn), FULL);
            assert_eq!(log.without_sync(&mut conn, |conn| Ok(level(conn))).unwrap(), NORMAL);
            let failed = log.without_sync(&mut conn, |_| Err::<(), _>(StoreError::Unavailable("away".into())));
            assert!(failed.is_err() && level(&conn) == FULL);
        }
        log.sync().unwrap();
    }

    #[test]
    fn a_disk_that_did_not_take_it_ends_the_worker() {
        // A device that has nothing to sync refuses to.
        let file = Some(Arc::new(File::open("/dev/null").unwrap()));
        let log = Log { path: Arc::new("owlpost.db-wal".into()), file };
        assert!(matches!(log.sync(), Err(StoreError::Unusable(why)) if why.contains("owlpost.db-wal")));
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
