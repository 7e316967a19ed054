//! Whether the store's files are what they should be: no other program's when they are opened, and the same ones later.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::store::{Result, StoreError};

/// Device and inode of files, as they were when the store was opened.
pub(crate) struct Identity {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Identity {
    /// Files that are not there are not minded.
    pub(super) fn of(paths: &[&Path]) -> Identity {
        let files = paths.iter().filter_map(|path| Some((path.to_path_buf(), id(path).ok()?)));
        Identity { files: files.collect() }
    }

    /// Who goes on writing into a file that has no name any more acknowledges what nobody will find; who lost the lock's
    /// file may not be alone. One look a transaction costs nothing beside it.
    pub(super) fn still(&self) -> Result<()> {
        for (path, then) in &self.files {
            let gone = match id(path) {
                Ok(now) => now != *then,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
                Err(e) => return Err(StoreError::Unavailable(format!("{}: {e}", path.display()))),
            };
            if gone {
                return Err(StoreError::Unusable(format!(
                    "{}: removed or replaced under the running worker, which takes nothing more; put it back, or start \
                     the worker anew on what is there now",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn id(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Elsewhere an open file can't be removed.
#[cfg(not(unix))]
fn id(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|_| (0, 0))
}

/// A database of another program is left alone. Looked at before anything is written into it, be it a mode.
pub(super) fn refuse_foreign(path: &Path) -> Result<()> {
    // What can't be read so is told when it is opened.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(conn) = Connection::open_with_flags(path, flags) else { return Ok(()) };
    let ours = "SELECT count(*) = 0 OR count(*) FILTER (WHERE name IN ('refinery_schema_history', 'meta')) > 0 \
                FROM sqlite_schema WHERE type = 'table'";
    match conn.query_row(ours, [], |row| row.get(0)) {
        Ok(false) => Err(StoreError::Unusable(format!(
            "{}: a SQLite file of another program, no owlpost store; name another file in store.url",
            path.display()
        ))),
        _ => Ok(()),
    }
}
