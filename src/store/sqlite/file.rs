//! The store's file: its one name, its lock, how it is opened, its schema, and what its errors mean.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::store::{Result, StoreError};

/// Of a new file. A batch of intake touches most pages of the large indexes: half as many, twice as large, take half the
/// calls to read and write, and less time. (A file keeps the size it was made with.)
const PAGE_BYTES: u32 = 8_192;

/// Pages of WAL before a checkpoint: fewer checkpoints write hot pages fewer times, and 128 MiB of log is bounded.
const WAL_PAGES: u32 = 16_384;

/// What a connection may keep of the file. Pages that a batch changes and that do not fit are written, and read again,
/// before its end. A batch of intake touches the young tables, what moves on, and the ends of the others: some 8 MB. What does
/// not fit is lost to all of it, page after page, as the oldest goes first.
const CACHE_KIB: u32 = 16 * 1024;

/// What `PRAGMA auto_vacuum` answers for `INCREMENTAL`.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;

/// How long an operator's command and the worker wait for each other's transaction.
const BUSY_TIMEOUT_MS: u32 = 10_000;

pub(super) fn make_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .map_err(|e| StoreError::Unusable(format!("{}: cannot make the store's folder: {e}", folder.display()))),
        None => Ok(()),
    }
}

/// One name for a store, whatever path leads to it: the lock stands beside the file, so two names would be two locks. A
/// new file is made at once, since a link to nothing has no other name yet.
pub(super) fn real_path(path: &Path) -> Result<PathBuf> {
    let unusable = |what: &str| StoreError::Unusable(format!("{}: cannot open the store: {what}", path.display()));
    if !path.exists() {
        let made = OpenOptions::new().create(true).append(true).open(path);
        made.map_err(|e| unusable(&format!("{e}; its folder must be writable")))?;
    }
    path.canonicalize().map_err(|e| unusable(&e.to_string()))
}

pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    beside.into()
}

/// A lock beside the file, not on it: SQLite's own locks come and go with transactions.
pub(super) fn take_lock(path: &Path) -> Result<File> {
    let beside = lock_path(path);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&beside).map_err(|e| {
        StoreError::Unusable(format!("{}: cannot lock the store: {e}; its folder must be writable", beside.display()))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "{}: another worker has this store; stop it first (SQLite takes one worker, PostgreSQL many)",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(e)) => {
            Err(StoreError::Unusable(format!("{}: cannot lock the store: {e}", beside.display())))
        }
    }
}

pub(super) fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| named(path, &e))?;
    conn.set_prepared_statement_cache_capacity(128);
    // Plans never depend on bound values; without this, statements near a partial index are compiled anew at each call.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|e| named(path, &e))?;
    // Saying it again of a file that has it takes the writer's lock: only a new file is told.
    let vacuum: i64 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).map_err(|e| named(path, &e))?;
    let vacuum = if vacuum == AUTO_VACUUM_INCREMENTAL { "" } else { "PRAGMA auto_vacuum = INCREMENTAL;" };
    conn.execute_batch(&format!(
        "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};
         PRAGMA page_size = {PAGE_BYTES};
         {vacuum}
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = {WAL_PAGES};
         PRAGMA journal_size_limit = 167772160;
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;"
    ))
    .map_err(|e| named(path, &e))?;
    Ok(conn)
}

pub(super) fn newest_schema() -> u32 {
    super::migrations::migrations::runner().get_migrations().iter().map(|m| m.version() as u32).max().unwrap_or(0)
}

/// 0: an empty file.
pub(crate) fn schema_version(conn: &Connection) -> rusqlite::Result<u32> {
    let known: bool =
        conn.query_row("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'refinery_schema_history'", [], |row| {
            row.get(0)
        })?;
    if !known {
        return Ok(0);
    }
    conn.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

pub(super) fn check_version(conn: &Connection, path: &Path) -> Result<()> {
    let (found, newest) = (schema_version(conn).map_err(|e| named(path, &e))?, newest_schema());
    if found > newest {
        return Err(StoreError::Unusable(format!(
            "{}: its schema is version {found}, this owlpost knows {newest}; use the owlpost that wrote it, or a later one",
            path.display()
        )));
    }
    Ok(())
}

pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<()> {
    let version = schema_version(conn).map_err(|e| named(path, &e))?;
    if version == newest_schema() {
        return Ok(());
    }
    if version > 0 {
        let megabytes = std::fs::metadata(path).map_or(0, |file| file.len() >> 20);
        tracing::info!(
            version,
            newest = newest_schema(),
            megabytes,
            "bringing the schema up to date; a large file takes a while"
        );
    }
    // One transaction for all, with the lines that say what was done: else a kill between the two would leave a file that says
    // less than was done to it, and can never be opened again.
    let runner = super::migrations::migrations::runner().set_grouped(true);
    let report = runner.run(conn).map_err(|e| not_migrated(path, &e))?;
    for migration in report.applied_migrations() {
        tracing::info!(version = migration.version(), name = migration.name(), "schema migrated");
    }
    Ok(())
}

fn not_migrated(path: &Path, e: &refinery::Error) -> StoreError {
    let mut why = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(at) = source {
        match at.downcast_ref::<rusqlite::Error>() {
            Some(full) if full.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                why = format!("{full}; it is as it was: free twice the room that it takes, and start again");
            }
            // It tells the whole migration otherwise.
            Some(rusqlite::Error::SqlInputError { msg, .. }) => why.clone_from(msg),
            Some(other) => why = other.to_string(),
            None => {}
        }
        source = at.source();
    }
    StoreError::Unusable(format!("{}: cannot bring the schema up to date: {why}", path.display()))
}

pub(super) fn store_id(conn: &Connection) -> rusqlite::Result<u32> {
    // Looked up first: a command that only reads must not wait for the writer's lock.
    let known = conn.query_row("SELECT store_id FROM meta", [], |row| row.get(0)).optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    conn.execute(
        "INSERT INTO meta (one, store_id, next_event, next_digest, next_letter, mails_sent) \
         VALUES (1, abs(random()) % 4294967296, 1, 1, 1, 0) ON CONFLICT DO NOTHING",
        [],
    )?;
    conn.query_row("SELECT store_id FROM meta", [], |row| row.get(0))
}

/// Names the file, and says whether trying again can help.
pub(super) fn named(path: &Path, e: &rusqlite::Error) -> StoreError {
    let said = format!("{}: {e}", path.display());
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Unusable(format!(
            "{said}; the file is damaged or no owlpost store: restore it from a backup, or move it away to start anew"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            StoreError::Unusable(format!("{said}; the file and its folder must be readable and writable"))
        }
        Some(ErrorCode::DiskFull) => {
            StoreError::Unavailable(format!("{said}; free some space, the worker goes on by itself"))
        }
        // What a statement or a row says will be the same next time.
        None
        | Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange
            | ErrorCode::Unknown,
        ) => StoreError::Broken(said),
        _ => StoreError::Unavailable(said),
    }
}

/// Free pages a turn: 16 MiB of a file with pages of 8 KiB.
const PAGES: u32 = 2_048;

/// Gives free pages back to the file system, a bounded number a call.
pub(super) fn give_back(conn: &Connection) -> Result<()> {
    let mut vacuum = conn.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use refinery::Target;

    use super::*;
    use crate::store::sqlite::migrations::migrations;

    /// Schema 7 moves keys and subjects into tables of their own.
    #[test]
    fn a_file_of_schema_6_keeps_its_events_keys_and_subjects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owlpost.db");
        let mut conn = connect(&path).unwrap();
        migrations::runner().set_target(Target::Version(6)).run(&mut conn).unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 500)
             INSERT INTO event (no, key, source, id, kind, ver, effect, topic, prev, deadline, received_at, data)
             SELECT n, randomblob(24), 'zms', 'e' || n, 'k', 2 * n, 1, randomblob(16), n - 1, n, n, '{}' FROM n;
             INSERT INTO subject (topic, head, swept, latest_ver, latest_no, closer_ver, closer_no, lone)
             SELECT topic, no, 0, ver, no, ver, no, no FROM event;
             CREATE TABLE events_before AS SELECT * FROM event;
             CREATE TABLE subjects_before AS SELECT * FROM subject;",
        )
        .unwrap();
        migrate(&mut conn, &path).unwrap();
        let differences = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        for (now, before) in [
            ("SELECT * FROM event", "SELECT * FROM events_before"),
            ("SELECT key, no FROM event_key", "SELECT key, no FROM events_before"),
            ("SELECT * FROM subject", "SELECT * FROM subjects_before"),
        ] {
            for (a, b) in [(now, before), (before, now)] {
                assert_eq!(differences(&format!("SELECT count(*) FROM ({a} EXCEPT {b})")), 0, "{a} without {b}");
            }
        }
        assert_eq!(differences("SELECT count(*) FROM event_key"), 500);
        let whole: String = conn.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }

    /// Between a migration and the line that says so there is no moment for a kill.
    #[test]
    fn a_migration_is_done_and_written_down_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owlpost.db");
        let mut conn = connect(&path).unwrap();
        migrations::runner().set_target(Target::Version(6)).run(&mut conn).unwrap();
        conn.execute_batch(
            "CREATE TRIGGER kill BEFORE INSERT ON refinery_schema_history BEGIN SELECT raise(ABORT, 'killed'); END",
        )
        .unwrap();
        let tables = |conn: &Connection| -> String {
            let all = "SELECT group_concat(sql) FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
            conn.query_row(all, [], |row| row.get(0)).unwrap()
        };
        let before = tables(&conn);
        let why = migrate(&mut conn, &path).unwrap_err().to_string();
        assert!(why.contains("killed"), "{why}");
        assert_eq!((schema_version(&conn).unwrap(), tables(&conn)), (6, before));
        conn.execute_batch("DROP TRIGGER kill").unwrap();
        migrate(&mut conn, &path).unwrap();
        assert_eq!(schema_version(&conn).unwrap(), newest_schema());
    }
}
