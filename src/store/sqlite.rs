//! The store in one SQLite file: one writer behind a mutex, one `spawn_blocking` a call (virtual time stays right that
//! way), WAL with `synchronous=FULL`, one IMMEDIATE transaction a call.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::{
    Ask, Begun, Command, Delivery, Desk, Evidence, Gauges, Intake, Intent, Learned, Leased, Limits, Page, Policy,
    Query, Report, Result, Rows, StoreError, Tidied, Upkeep,
};
use crate::model::{Entry, Lease, Receipt, Time};

mod accept;
mod act;
mod begin;
mod books;
mod claim;
mod closure;
mod desk;
mod expire;
mod identity;
mod learn;
mod purge;
mod sql;
mod subject;

#[doc(hidden)]
pub use sql::HOT;

mod migrations {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// Who opens the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The one worker: takes the lock, and ends what a dead worker left behind.
    Worker,
    /// A command beside a running worker.
    Operator,
}

pub struct Settings {
    pub path: PathBuf,
    pub opening: Opening,
    /// Bring the schema up to date; without it, an older schema is refused.
    pub migrate: bool,
    pub limits: Limits,
    pub policy: Arc<dyn Policy>,
}

pub struct Sqlite {
    writer: Arc<Mutex<Connection>>,
    shared: Arc<Shared>,
    /// Held for as long as the worker lives.
    lock: Option<File>,
}

/// What every transaction may ask.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) identity: identity::Identity,
    pub(crate) store_id: u32,
    pub(crate) limits: Limits,
    pub(crate) policy: Arc<dyn Policy>,
    /// Where the purge goes on; a walk starts anew after a restart.
    pub(crate) purge_cursor: Mutex<purge::Cursor>,
}

/// Older SQLite can corrupt a file when a WAL is reset (sqlite.org/wal.html, fixed in 3.51.3).
const SQLITE_MIN: i32 = 3_051_003;

/// Pages of WAL before a checkpoint: fewer checkpoints write hot pages fewer times, and 128 MiB of log is bounded.
const WAL_PAGES: u32 = 32_768;

/// What `PRAGMA auto_vacuum` answers for `INCREMENTAL`.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;

/// How long an operator's command and the worker wait for each other's transaction.
const BUSY_TIMEOUT_MS: u32 = 10_000;

impl Sqlite {
    /// Opens, locks, migrates and takes over. Blocking; called once at start.
    pub fn open(settings: Settings, now: Time) -> Result<Sqlite> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(StoreError::Unusable(format!(
                "SQLite {} can corrupt its file; owlpost needs 3.51.3 or later",
                rusqlite::version()
            )));
        }
        let path = settings.path.clone();
        let lock = match settings.opening {
            Opening::Worker => {
                make_folder(&path)?;
                Some(take_lock(&path)?)
            }
            Opening::Operator if !path.exists() => {
                return Err(StoreError::Unusable(format!(
                    "{}: no such store; start `owlpost run` once, or look at store.url",
                    path.display()
                )));
            }
            Opening::Operator => None,
        };
        identity::refuse_foreign(&path)?;
        let mut conn = connect(&path)?;
        check_version(&conn, &path)?;
        if settings.migrate {
            migrate(&mut conn, &path)?;
        } else if schema_version(&conn).map_err(|e| named(&path, &e))? != newest_schema() {
            return Err(StoreError::Unusable(format!(
                "{}: the schema is older than this owlpost; run `owlpost migrate`",
                path.display()
            )));
        }
        let store_id = store_id(&conn).map_err(|e| named(&path, &e))?;
        let store = Sqlite {
            writer: Arc::new(Mutex::new(conn)),
            shared: Arc::new(Shared {
                identity: identity::Identity::of(&[&path, &lock_path(&path)]),
                path,
                store_id,
                limits: settings.limits,
                policy: settings.policy,
                purge_cursor: Mutex::default(),
            }),
            lock,
        };
        if settings.opening == Opening::Worker {
            store.write_now(now, expire::take_over)?;
        }
        Ok(store)
    }

    /// The first half of this store's digest ids.
    pub fn store_id(&self) -> u32 {
        self.shared.store_id
    }

    /// One IMMEDIATE transaction: everything that `work` did becomes durable, or nothing.
    fn write_now<T>(&self, now: Time, work: impl FnOnce(&mut books::Books<'_>) -> Result<T>) -> Result<T> {
        let mut conn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        transact(&mut conn, &self.shared, now, work)
    }

    async fn write<T: Send + 'static>(
        &self,
        now: Time,
        work: impl FnOnce(&mut books::Books<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        blocking(move || {
            let mut conn = writer.lock().unwrap_or_else(PoisonError::into_inner);
            transact(&mut conn, &shared, now, work)
        })
        .await
    }

    /// A consistent look at the store on a connection of its own: readers hold up nobody.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(move || {
            let conn = connect(&shared.path)?;
            conn.execute_batch("PRAGMA query_only = true; BEGIN").map_err(|e| named(&shared.path, &e))?;
            work(&conn, &shared)
        })
        .await
    }

    /// The same on the writer's connection, for short look-ups of the loops.
    async fn peek<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        blocking(move || work(&writer.lock().unwrap_or_else(PoisonError::into_inner), &shared)).await
    }
}

impl Drop for Sqlite {
    /// Moves the log into the file, so that what is left is one plain file. A crash skips this and loses nothing. An
    /// operator's command leaves that to the worker, which it would hold up.
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let conn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_cancelled() => Err(StoreError::Unavailable("the process is stopping".into())),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

fn transact<T>(
    conn: &mut Connection,
    shared: &Shared,
    now: Time,
    work: impl FnOnce(&mut books::Books<'_>) -> Result<T>,
) -> Result<T> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| named(&shared.path, &e))?;
    let result = {
        let mut books = books::Books::open(&tx, shared, now)?;
        let result = work(&mut books)?;
        books.close()?;
        result
    };
    shared.identity.still()?;
    tx.commit().map_err(|e| named(&shared.path, &e))?;
    Ok(result)
}

fn make_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .map_err(|e| StoreError::Unusable(format!("{}: cannot make the store's folder: {e}", folder.display()))),
        None => Ok(()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    beside.into()
}

/// A lock beside the file, not on it: SQLite's own locks come and go with transactions.
fn take_lock(path: &Path) -> Result<File> {
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

fn connect(path: &Path) -> Result<Connection> {
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
         {vacuum}
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = {WAL_PAGES};
         PRAGMA journal_size_limit = 167772160;
         PRAGMA cache_size = -24576;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;"
    ))
    .map_err(|e| named(path, &e))?;
    Ok(conn)
}

fn newest_schema() -> u32 {
    migrations::migrations::runner().get_migrations().iter().map(|m| m.version() as u32).max().unwrap_or(0)
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

fn check_version(conn: &Connection, path: &Path) -> Result<()> {
    let (found, newest) = (schema_version(conn).map_err(|e| named(path, &e))?, newest_schema());
    if found > newest {
        return Err(StoreError::Unusable(format!(
            "{}: its schema is version {found}, this owlpost knows {newest}; use the owlpost that wrote it, or a later one",
            path.display()
        )));
    }
    Ok(())
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<()> {
    if schema_version(conn).map_err(|e| named(path, &e))? == newest_schema() {
        return Ok(());
    }
    let report = migrations::migrations::runner()
        .run(conn)
        .map_err(|e| StoreError::Unusable(format!("{}: cannot bring the schema up to date: {e}", path.display())))?;
    for migration in report.applied_migrations() {
        tracing::info!(version = migration.version(), name = migration.name(), "schema migrated");
    }
    Ok(())
}

fn store_id(conn: &Connection) -> rusqlite::Result<u32> {
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
fn named(path: &Path, e: &rusqlite::Error) -> StoreError {
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
        _ => StoreError::Unavailable(said),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> StoreError {
        named(Path::new("store"), &e)
    }
}

#[async_trait]
impl Intake for Sqlite {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        self.write(now, move |books| accept::accept(books, &entries)).await
    }
}

#[async_trait]
impl Delivery for Sqlite {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        let ask = *ask;
        self.write(now, move |books| claim::claim(books, &ask)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        self.write(now, move |books| mails.iter().map(|mail| begin::begin(books, mail)).collect()).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        self.write(now, move |books| evidence.iter().map(|e| learn::learn(books, e)).collect()).await
    }

    async fn release(&self, now: Time, leases: Arc<Vec<Lease>>) -> Result<()> {
        self.write(now, move |books| leases.iter().try_for_each(|lease| claim::release(books, *lease))).await
    }

    async fn next_due(&self, ask: &Ask) -> Result<Option<Time>> {
        let ask = *ask;
        self.peek(move |conn, _| claim::next_due(conn, &ask)).await
    }
}

#[async_trait]
impl Upkeep for Sqlite {
    async fn expire(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        self.write(now, move |books| expire::expire(books, doubts_now)).await
    }

    async fn replan(&self, now: Time, cursor: i64, limit: u32) -> Result<Option<i64>> {
        self.write(now, move |books| claim::replan(books, cursor, limit)).await
    }

    async fn purge(&self, now: Time) -> Result<Tidied> {
        self.write(now, purge::purge).await
    }

    async fn compact(&self, now: Time) -> Result<()> {
        self.write(now, purge::roll_up).await?;
        self.peek(|conn, _| purge::give_back(conn)).await
    }

    async fn next_upkeep(&self) -> Result<Option<Time>> {
        self.peek(|conn, _| expire::next_upkeep(conn)).await
    }

    async fn gauges(&self, now: Time) -> Result<Gauges> {
        self.peek(move |conn, _| desk::gauges(conn, now)).await
    }
}

#[async_trait]
impl Desk for Sqlite {
    async fn read(&self, query: &Query, page: Page) -> Result<Rows> {
        let query = query.clone();
        self.look(move |conn, shared| desk::read(conn, shared, &query, page)).await
    }

    async fn act(&self, now: Time, command: &Command) -> Result<Report> {
        let command = command.clone();
        self.write(now, move |books| act::act(books, &command)).await
    }
}
