//! The store in one SQLite file: one writer behind a mutex, one `spawn_blocking` a call (virtual time stays right that
//! way), WAL with `synchronous=FULL`, one IMMEDIATE transaction a call.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};

use super::{
    Ask, Begun, Command, Condition, Delivery, Desk, Evidence, Fate, Gauges, Intake, Intent, Learned, Leased, Letter,
    Letters, Limits, Page, Policy, Portion, Query, Report, Result, Rows, StoreError, Tidied, Upkeep,
};
use crate::model::{Entry, Lease, Receipt, Time};
use crate::quota::Terms;
pub(crate) use file::schema_version;
use file::{connect, named};

mod accept;
mod act;
mod begin;
mod books;
mod claim;
mod closure;
mod condition;
mod desk;
mod expire;
mod file;
mod forward;
mod identity;
mod learn;
pub mod outcomes;
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
    /// Whose quota counts, for example `ses/eu-west-1`; `None`: the mailer has none.
    pub account: Option<String>,
}

pub struct Sqlite {
    writer: Arc<Mutex<Writer>>,
    shared: Arc<Shared>,
    /// Held for as long as the worker lives.
    lock: Option<File>,
}

struct Writer {
    conn: Connection,
    /// What the last batch of intake has left of use to the next.
    kept: books::Kept,
}

/// What every transaction may ask.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) identity: identity::Identity,
    pub(crate) store_id: u32,
    pub(crate) limits: Limits,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) account: Option<String>,
    /// Where the purge goes on; a walk starts anew after a restart.
    pub(crate) purge_cursor: Mutex<purge::Cursor>,
    /// Where claims go on while much is paused.
    pub(crate) steps: Mutex<claim::Steps>,
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
        let store = Sqlite {
            writer: Arc::new(Mutex::new(Writer { conn, kept: books::Kept::default() })),
            shared: Arc::new(Shared {
                identity: identity::Identity::of(&[&path, &file::lock_path(&path)]),
                path,
                store_id,
                limits: settings.limits,
                policy: settings.policy,
                account: settings.account,
                purge_cursor: Mutex::default(),
                steps: Mutex::default(),
            }),
            lock,
        };
        if settings.opening == Opening::Worker {
            store.write_now(now, expire::take_over)?;
        }
        Ok(store)
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
        self.shared.store_id
    }

    /// One IMMEDIATE transaction: everything that `work` did becomes durable, or nothing.
    fn write_now<T>(&self, now: Time, work: impl FnOnce(&mut books::Books<'_>) -> Result<T>) -> Result<T> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        transact(&mut writer.conn, &self.shared, now, None, work)
    }

    async fn write<T: Send + 'static>(
        &self,
        now: Time,
        work: impl FnOnce(&mut books::Books<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            transact(&mut writer.conn, &shared, now, None, work)
        })
        .await
    }

    /// The same for a list: one transaction for all. If one of them can't be done, now or ever, each gets a transaction of
    /// its own and only that one is given up, so that it holds up no other. Once the first is done, what was done counts:
    /// an error of the whole call would hide it.
    async fn write_each<T: Send + Sync + 'static, U: Send + 'static>(
        &self,
        now: Time,
        list: Arc<Vec<T>>,
        work: fn(&mut books::Books<'_>, &T) -> Result<U>,
        give_up: fn(&T, &StoreError) -> U,
    ) -> Result<Vec<U>> {
        let all = list.clone();
        match self.write(now, move |books| all.iter().map(|one| work(books, one)).collect()).await {
            Err(StoreError::Broken(_)) => {}
            result => return result,
        }
        let mut done = Vec::with_capacity(list.len());
        for i in 0..list.len() {
            let all = list.clone();
            done.push(match self.write(now, move |books| work(books, &all[i])).await {
                Ok(one) => one,
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) if done.is_empty() && !matches!(why, StoreError::Broken(_)) => return Err(why),
                Err(why) => give_up(&list[i], &why),
            });
        }
        Ok(done)
    }

    /// Each in a transaction of its own: what can't be ended is put off, and holds up no other.
    async fn expire_each(&self, now: Time, doubts_now: bool) -> Result<Tidied> {
        let mut all = Tidied::default();
        for no in self.write(now, move |books| expire::ended(books, doubts_now)).await? {
            match self.write(now, move |books| expire::expire(books, &[no])).await {
                Ok(tidied) => {
                    all.leases_ended += tidied.leases_ended;
                    all.doubts_ended += tidied.doubts_ended;
                }
                Err(StoreError::Broken(why)) => {
                    tracing::error!(digest = no, error = %why, "a digest could not be ended; it is put off, the others go on");
                    self.write(now, move |books| expire::put_off(books, no)).await?;
                }
                Err(why) => return Err(why),
            }
        }
        Ok(all)
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
        blocking(move || work(&writer.lock().unwrap_or_else(PoisonError::into_inner).conn, &shared)).await
    }
}

impl Drop for Sqlite {
    /// Moves the log into the file, so that what is left is one plain file. A crash skips this and loses nothing. An
    /// operator's command leaves that to the worker, which it would hold up.
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
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
    mut kept: Option<&mut books::Kept>,
    work: impl FnOnce(&mut books::Books<'_>) -> Result<T>,
) -> Result<T> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| named(&shared.path, &e))?;
    let known = kept.as_deref_mut().map(|kept| kept.take(&tx)).transpose()?.unwrap_or_default();
    let mut books = books::Books::open(&tx, shared, now, known)?;
    let result = work(&mut books)?;
    let known = books.close()?;
    let known = if kept.is_some() { known.as_of(&tx)? } else { known };
    shared.identity.still()?;
    tx.commit().map_err(|e| named(&shared.path, &e))?;
    if let Some(kept) = kept {
        *kept = known;
    }
    Ok(result)
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> StoreError {
        named(Path::new("store"), &e)
    }
}

#[async_trait]
impl Intake for Sqlite {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Writer { conn, kept } = &mut *writer;
            transact(conn, &shared, now, Some(kept), |books| accept::accept(books, &entries))
        })
        .await
    }
}

#[async_trait]
impl Delivery for Sqlite {
    async fn claim(&self, now: Time, ask: &Ask) -> Result<Vec<Leased>> {
        let ask = *ask;
        self.write(now, move |books| claim::claim(books, &ask)).await
    }

    async fn begin(&self, now: Time, mails: Arc<Vec<Intent>>) -> Result<Vec<Begun>> {
        self.write_each(now, mails, begin::begin, |mail, why| {
            // Its lease ends by itself; then it is tried again.
            tracing::error!(digest = %mail.lease.digest, error = %why, "a mail could not begin; the others go on");
            Begun::Lost
        })
        .await
    }

    async fn account(&self, now: Time, terms: Terms, sent_24h: Option<u64>) -> Result<()> {
        self.write(now, move |books| books.account_says(terms, sent_24h)).await
    }

    async fn learn(&self, now: Time, evidence: Arc<Vec<Evidence>>) -> Result<Vec<Learned>> {
        self.write_each(now, evidence, learn::learn, |one, why| {
            // Its lease ends by itself, in a doubt.
            tracing::error!(attempt = %one.attempt, error = %why, "an answer could not be taken; the others go on");
            Learned::Unknown
        })
        .await
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
        let once = move |books: &mut books::Books<'_>| {
            let ended = expire::ended(books, doubts_now)?;
            expire::expire(books, &ended)
        };
        match self.write(now, once).await {
            Err(StoreError::Broken(_)) => self.expire_each(now, doubts_now).await,
            result => result,
        }
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
        self.peek(move |conn, shared| desk::gauges(conn, shared, now)).await
    }

    async fn report(&self, now: Time, conditions: Arc<Vec<Condition>>) -> Result<()> {
        self.write(now, move |books| condition::report(books, &conditions)).await
    }
}

#[async_trait]
impl Letters for Sqlite {
    async fn unforwarded(&self, portion: Portion) -> Result<Vec<Letter>> {
        self.peek(move |conn, _| forward::unforwarded(conn, portion)).await
    }

    async fn forwarded(&self, now: Time, fates: Arc<Vec<(String, Fate)>>) -> Result<()> {
        self.write(now, move |books| forward::forwarded(books, &fates)).await
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
