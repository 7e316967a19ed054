//! The store in a PostgreSQL database, for any number of workers: a bounded pool, one READ COMMITTED transaction a call,
//! one `spawn_blocking` a transaction (the rules are written as if there were no waiting).
//!
//! Locks are taken in one order: events (their unique key), subjects by topic, mailboxes by number; a mailbox's row is the
//! lock of all its digests and items. Who meets a deadlock all the same is begun anew. No lock is held while a mail is on
//! its way. Two batches of one intake loop overlap: the second writes its events, and the subjects that are new with them,
//! while the first is at its mailboxes (`line.rs`); what is left of them comes in its turn, out of that order, so that a
//! worker that reads the same messages may meet it in a deadlock.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deadpool::managed::{Object, PoolError, Timeouts};
use tokio::runtime::Handle;

use super::rules::tx::Tx;
use super::rules::{Books, Engine, Kept, Shared, heal};
use super::{Limits, Opening, Policy, Result, StoreError};
use crate::clock::Clock;
use crate::model::Time;
use connect::{Pool, Server};
use errors::{Conflict, named};
use link::{BEGIN_LOOK, BEGIN_PEEK, Link};
use timing::Timing;

mod access;
mod connect;
mod errors;
mod link;
mod load;
mod migrate;
mod patience;
mod pooler;
mod queue;
mod schema;
mod timing;
mod tls;
mod values;

pub use access::{Access, Password};
pub use load::Loader;
pub use schema::MIGRATION_WAIT;

/// A transaction that lost a race is begun anew so often.
const TRIES: u32 = 6;

pub struct Settings {
    pub access: Access,
    /// Most connections.
    pub pool: usize,
    pub opening: Opening,
    /// Bring the schema up to date; without it, an older schema is refused.
    pub migrate: bool,
    pub limits: Limits,
    pub policy: Arc<dyn Policy>,
    /// Whose quota counts, for example `ses/eu-west-1`; `None`: the mailer has none.
    pub account: Option<String>,
}

pub struct Postgres {
    pool: Pool,
    place: Arc<Place>,
}

struct Place {
    name: String,
    handle: Handle,
    timing: Timing,
    shared: Shared,
}

impl Postgres {
    /// Connects, and migrates. The connections live in the runtime that this is called in.
    ///
    /// # Errors
    /// The server can't be reached, or the schema is not this version's.
    pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Postgres> {
        let server = Server::new(&settings.access)?;
        let first = schema::prepare(&server, settings.migrate).await?;
        let name = server.place.clone();
        let handle = server.handle().clone();
        let timeouts = Timeouts { wait: Some(patience::POOL), ..Timeouts::default() };
        let pool = Pool::builder(server)
            .max_size(settings.pool.max(1))
            .timeouts(timeouts)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|e| StoreError::Unusable(format!("{name}: no pool: {e}")))?;
        let connection = get(&pool, &name).await?;
        if !settings.access.transaction_pooler {
            pooler::look(&name, &connection.client, &first).await?;
        }
        drop(first);
        let told = |e: &_| named(&name, e);
        let store_id = patience::soon(&name, schema::store_id(&connection.client), told).await?;
        let timing = Timing::new(clock);
        patience::soon(&name, timing.measure(&connection.client), told).await?;
        let now = timing.now();
        drop(connection);
        let shared = Shared::new(store_id, settings.limits, settings.policy, settings.account);
        let store = Postgres { pool, place: Arc::new(Place { name, handle, timing, shared }) };
        if settings.opening == Opening::Worker {
            store.write(now, heal).await?;
        }
        Ok(store)
    }

    /// The first half of this store's digest ids.
    pub fn store_id(&self) -> u32 {
        self.place.shared.store_id
    }

    async fn read<T, W>(&self, begin: &'static str, of_server: Duration, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static,
    {
        let (connection, place) = (get(&self.pool, &self.place.name).await?, self.place.clone());
        super::blocking(move || {
            let link = Link::new(&connection, &place.handle, &place.name, of_server);
            in_transaction(&link, || link.short(begin), || work(Tx(&link), &place.shared))
        })
        .await
    }

    /// `wait`: for each row that somebody else has. `None`: it has it still.
    async fn transact<T, W>(&self, now: Time, wait: Duration, work: W) -> Result<Option<T>>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let (connection, place) = (get(&self.pool, &self.place.name).await?, self.place.clone());
        if place.timing.is_old() {
            let measured = place.timing.measure(&connection.client);
            if let Err(why) = patience::soon(&place.name, measured, |e| named(&place.name, e)).await {
                connection.give_up();
                return Err(why);
            }
        }
        super::blocking(move || {
            let (mut tries, mut before) = (1, None);
            let now = Cell::new(now);
            loop {
                let link = Link::new(&connection, &place.handle, &place.name, patience::WRITE);
                let begin = || {
                    let asked = Instant::now();
                    let server_us = link.begin(place.shared.store_id, wait)?;
                    now.set(place.timing.heard(server_us, asked).unwrap_or(now.get()));
                    Ok(())
                };
                let result = in_transaction(&link, begin, || {
                    let mut books = Books::open(Tx(&link), &place.shared, now.get(), Kept::default())?;
                    let result = work(&mut books)?;
                    books.close()?;
                    Ok(result)
                });
                match (result, link.conflict()) {
                    (Err(_), Some(Conflict::Held)) if wait < patience::LOCK => return Ok(None),
                    (Err(why), Some(conflict)) if tries < TRIES && conflict.may_pass(before.as_ref()) => {
                        tracing::debug!(tries, error = %why, "a transaction lost a race; it is begun anew");
                        (tries, before) = (tries + 1, Some(conflict));
                    }
                    (Err(StoreError::Broken(why)), Some(conflict)) if conflict.may_pass(before.as_ref()) => {
                        return Err(StoreError::Unavailable(why));
                    }
                    (result, _) => return result.map(Some),
                }
            }
        })
        .await
    }
}

#[async_trait]
impl Engine for Postgres {
    fn works_side_by_side(&self) -> bool {
        true
    }

    fn shared(&self) -> &Shared {
        &self.place.shared
    }

    async fn write<T, W>(&self, now: Time, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let held = || StoreError::Unavailable(format!("{}: somebody else holds its rows", self.place.name));
        self.transact(now, patience::LOCK, work).await?.ok_or_else(held)
    }

    async fn write_within<T, W>(&self, now: Time, wait: Duration, work: W) -> Result<Option<T>>
    where
        T: Send + 'static,
        W: Fn(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.transact(now, wait, work).await
    }

    async fn look<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static,
    {
        self.read(BEGIN_LOOK, patience::LOOK, work).await
    }

    async fn peek<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(Tx<'_>, &Shared) -> Result<T> + Send + 'static,
    {
        self.read(BEGIN_PEEK, patience::PEEK, work).await
    }

    /// Autovacuum does that.
    async fn give_back(&self) -> Result<()> {
        Ok(())
    }
}

/// Commits what was done, or rolls it back. A connection whose transaction has not ended is never used again.
fn in_transaction<T>(
    link: &Link<'_>,
    begin: impl FnOnce() -> Result<()>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    link.connection.spoil(true);
    let result = begin().and_then(|()| work()).and_then(|done| link.flush().map(|()| done));
    link.end_of_transaction();
    if result.is_err() || link.has_failed() {
        if !link.is_silent() && link.short("ROLLBACK").is_ok() {
            link.connection.spoil(false);
        }
        let lost = || StoreError::Unavailable(format!("{}: a statement failed", link.place));
        return result.and_then(|_| Err(lost()));
    }
    link.batch("COMMIT")?;
    link.connection.spoil(false);
    result
}

async fn get(pool: &Pool, name: &str) -> Result<Object<Server>> {
    pool.get().await.map_err(|e| match e {
        PoolError::Backend(why) => why,
        other => StoreError::Unavailable(format!("{name}: no connection of the pool: {other}")),
    })
}
