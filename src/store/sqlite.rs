//! The store in one SQLite file: one writer, who serves the loops in the order they came (or intake, which comes again at
//! once, would keep mails from leaving), one `spawn_blocking` a call (virtual time stays right that way), WAL that is synced
//! before any answer, one IMMEDIATE transaction a call.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Mutex;

use super::rules::tx::Tx;
use super::rules::{Books, Engine, Kept, Shared, take_over};
use super::{Limits, Policy, Result, StoreError, blocking};
use crate::model::Time;
use file::{connect, named, schema_version};
use link::Link;
use log::{Log, Syncs};

mod dump;
mod file;
mod identity;
mod link;
mod log;
pub mod outcomes;
mod sql;

pub use super::rules::YOUNG_EVENTS;
#[doc(hidden)]
pub use super::rules::{HOT, LITE_HOT};
pub use dump::Dump;

mod migrations {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

pub use super::Opening;

pub struct Settings {
    pub path: PathBuf,
    pub opening: Opening,
    /// Bring the schema up to date; without it, an older schema is refused.
    pub migrate: bool,
    pub limits: Limits,
    pub policy: Arc<dyn Policy>,
    /// Whose quota counts, for example `ses/eu-west-1`; `None`: the mailer has none.
    pub account: Option<String>,
    /// After so many events a part of what is young moves on; [`YOUNG_EVENTS`], or fewer for a test.
    pub young_events: usize,
}

pub struct Sqlite {
    writer: Arc<Mutex<Writer>>,
    place: Arc<Place>,
    /// Held for as long as the worker lives.
    lock: Option<File>,
}

struct Writer {
    conn: Connection,
    /// What the last batch of intake has left of use to the next.
    kept: Kept,
    log: Log,
    /// As its connection was told last; `None`: nobody knows.
    syncs: Option<Syncs>,
}

impl Writer {
    fn syncs(&mut self, syncs: Syncs) -> Result<()> {
        self.log.still()?;
        if self.syncs != Some(syncs) {
            self.syncs = None;
            self.log.let_sync(&self.conn, syncs)?;
            self.syncs = Some(syncs);
        }
        Ok(())
    }
}

/// What every transaction may ask, and where it is.
struct Place {
    path: PathBuf,
    identity: identity::Identity,
    shared: Shared,
}

/// Older SQLite can corrupt a file when a WAL is reset (sqlite.org/wal.html, fixed in 3.51.3).
const SQLITE_MIN: i32 = 3_051_003;

impl Sqlite {
    /// Opens, locks, migrates and takes over. Blocking; called once at start.
    pub fn open(settings: Settings, now: Time) -> Result<Sqlite> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(StoreError::Unusable(format!(
                "SQLite {} can corrupt its file; owlpost needs 3.51.3 or later",
                rusqlite::version()
            )));
        }
        let mut path = settings.path.clone();
        let lock = match settings.opening {
            Opening::Worker => {
                file::make_folder(&path)?;
                path = file::real_path(&path)?;
                Some(file::take_lock(&path)?)
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
        file::check_version(&conn, &path)?;
        if settings.migrate {
            file::migrate(&mut conn, &path)?;
        } else if schema_version(&conn).map_err(|e| named(&path, &e))? != file::newest_schema() {
            return Err(StoreError::Unusable(format!(
                "{}: the schema is older than this owlpost; run `owlpost migrate`",
                path.display()
            )));
        }
        let store_id = file::store_id(&conn).map_err(|e| named(&path, &e))?;
        let place = Place {
            identity: identity::Identity::of(&[&path, &file::lock_path(&path)]),
            path,
            shared: Shared::new(store_id, settings.limits, settings.policy, settings.account)
                .aging(settings.young_events),
        };
        if settings.opening == Opening::Worker {
            log::move_rest(&conn);
            transact(&mut conn, &place, now, None, take_over)?;
        }
        let writer = Writer { conn, kept: Kept::default(), log: Log::open(&place.path)?, syncs: None };
        Ok(Sqlite { writer: Arc::new(Mutex::new(writer)), place: Arc::new(place), lock })
    }

    /// Removes a store, for one that is to begin anew. Blocking; called once at start.
    ///
    /// # Errors
    /// A worker has it, or a file can't be removed.
    pub fn remove(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let path = file::real_path(path)?;
        let _lock = file::take_lock(&path)?;
        for end in ["", "-wal", "-shm"] {
            let mut part = path.as_os_str().to_owned();
            part.push(end);
            match std::fs::remove_file(&part) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let part = PathBuf::from(part);
                    return Err(StoreError::Unusable(format!("{}: cannot be removed: {e}", part.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The first half of this store's digest ids.
    pub fn store_id(&self) -> u32 {
        self.place.shared.store_id
    }
}

#[async_trait]
impl Engine for Sqlite {
    /// One writer.
    fn works_side_by_side(&self) -> bool {
        false
    }

    fn shared(&self) -> &Shared {
        &self.place.shared
    }

    async fn write<T, W>(&self, now: Time, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let (mut writer, place) = (self.writer.clone().lock_owned().await, self.place.clone());
        blocking(move || {
            writer.syncs(Syncs::Itself)?;
            let done = transact(&mut writer.conn, &place, now, None, &work)?;
            writer.log.after_syncs()?;
            Ok(done)
        })
        .await
    }

    /// The next writer does not wait until the disk has it.
    async fn take_in<T, W, C>(&self, now: Time, work: W, committed: C) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
        C: FnOnce() + Send + 'static,
    {
        let (mut writer, place) = (self.writer.clone().lock_owned().await, self.place.clone());
        blocking(move || {
            writer.syncs(Syncs::Later)?;
            let Writer { conn, kept, log, .. } = &mut *writer;
            let done = transact(conn, &place, now, Some(kept), &work)?;
            let log = log.clone();
            drop(writer);
            committed();
            log.sync()?;
            Ok(done)
        })
        .await
    }

    /// On a connection of its own: readers hold up nobody.
    async fn look<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static,
    {
        let place = self.place.clone();
        blocking(move || {
            let conn = connect(&place.path)?;
            conn.execute_batch("PRAGMA query_only = true; BEGIN").map_err(|e| named(&place.path, &e))?;
            work(Tx(&Link { conn: &conn, path: &place.path }), &place.shared)
        })
        .await
    }

    /// On the writer's connection.
    async fn peek<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static,
    {
        let (writer, place) = (self.writer.clone().lock_owned().await, self.place.clone());
        blocking(move || work(Tx(&Link { conn: &writer.conn, path: &place.path }), &place.shared)).await
    }

    async fn give_back(&self) -> Result<()> {
        let mut writer = self.writer.clone().lock_owned().await;
        blocking(move || {
            writer.syncs(Syncs::Itself)?;
            file::give_back(&writer.conn)
        })
        .await
    }
}

impl Drop for Sqlite {
    /// Moves the log into the file, so that what is left is one plain file. A crash skips this and loses nothing. An
    /// operator's command leaves that to the worker, which it would hold up.
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // Whoever still has it was given up with the process's last call.
        if let Ok(writer) = self.writer.try_lock() {
            writer.log.close(&writer.conn);
        }
    }
}

/// One IMMEDIATE transaction.
fn transact<T>(
    conn: &mut Connection,
    place: &Place,
    now: Time,
    mut kept: Option<&mut Kept>,
    work: impl Fn(&mut Books<'_>) -> Result<T>,
) -> Result<T> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| named(&place.path, &e))?;
    let (result, known) = {
        let link = Link { conn: &tx, path: &place.path };
        let known = kept.as_deref_mut().map(|kept| Ok::<_, StoreError>(kept.take(link.as_of()?))).transpose()?;
        let mut books = Books::open(Tx(&link), &place.shared, now, known.unwrap_or_default())?;
        let result = work(&mut books)?;
        let known = books.close()?;
        (result, kept.is_some().then(|| Ok::<_, StoreError>(known.at(link.as_of()?))).transpose()?)
    };
    place.identity.still()?;
    tx.commit().map_err(|e| named(&place.path, &e))?;
    if let (Some(kept), Some(known)) = (kept, known) {
        *kept = known;
    }
    Ok(result)
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> StoreError {
        named(Path::new("store"), &e)
    }
}
