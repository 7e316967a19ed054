//! Connections to the server, and the pool that bounds them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::runtime::Handle;
use tokio_postgres::{Client, NoTls, Statement};

use super::access::{Access, Way};
use super::errors::{is_refused, named, said};
use crate::store::{Result, StoreError};

pub(super) type Pool = managed::Pool<Server>;

/// Where connections come from.
#[derive(Clone)]
pub(super) struct Server {
    way: Way,
    /// Connections live in this runtime, whoever asks for them.
    handle: Handle,
    transaction_pooler: bool,
    /// For messages: host, port and database.
    pub place: String,
}

impl Server {
    pub fn new(access: &Access) -> Result<Server> {
        let way = Way::of(access)?;
        let (place, transaction_pooler) = (way.place.clone(), access.transaction_pooler);
        Ok(Server { place, way, handle: Handle::current(), transaction_pooler })
    }

    pub fn has_pooler(&self) -> bool {
        self.transaction_pooler
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub async fn connect(&self) -> Result<Connection> {
        let (way, handle) = (self.way.clone(), self.handle.clone());
        let connected = self.handle.spawn(async move { connect(way, handle).await });
        let client = connected
            .await
            .map_err(|_| StoreError::Unavailable(format!("{}: the process is stopping", self.place)))??;
        let statements = Mutex::default();
        let forgets = self.transaction_pooler;
        Ok(Connection { client, statements, forgets, spoiled: AtomicBool::new(false), retired: AtomicBool::new(false) })
    }
}

async fn connect(way: Way, handle: Handle) -> Result<Client> {
    let mut config = way.config;
    let token = match &way.tokens {
        Some(tokens) => {
            let away = |why| StoreError::Unavailable(format!("{}: {why}", way.place));
            let token = tokens.current().await.map_err(away)?;
            config.password(&token);
            Some((tokens, token))
        }
        None => None,
    };
    let connected = match way.tls {
        None => config.connect(NoTls).await.map(|(client, link)| {
            handle.spawn(link);
            client
        }),
        Some(tls) => config.connect(tls).await.map(|(client, link)| {
            handle.spawn(link);
            client
        }),
    };
    let e = match connected {
        Ok(client) => return Ok(client),
        Err(e) => e,
    };
    let Some((tokens, token)) = token.filter(|_| is_refused(&e)) else { return Err(named(&way.place, &e)) };
    tokens.refused(&token).await;
    Err(StoreError::Unavailable(format!(
        "{}: {}; the role needs GRANT rds_iam, and the AWS identity rds-db:connect on it, in the region of the database",
        way.place,
        said(&e)
    )))
}

/// A connection with the statements that it has prepared.
pub(super) struct Connection {
    pub client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// Statements are prepared for a transaction only.
    forgets: bool,
    /// In a transaction that nobody has ended, or without an answer: never used again.
    spoiled: AtomicBool,
    retired: AtomicBool,
}

impl Connection {
    pub fn known(&self, sql: &str) -> Option<Statement> {
        self.all().get(sql).cloned()
    }

    pub fn keep(&self, sql: &str, statement: &Statement) {
        self.all().insert(sql.to_owned(), statement.clone());
    }

    /// Before the end of a transaction: what is told to the server after it may go to another one of its connections. A
    /// statement that nobody has any more is closed there.
    pub fn end_of_transaction(&self) {
        if self.forgets {
            self.all().clear();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn spoil(&self, spoiled: bool) {
        self.spoiled.store(spoiled, Ordering::Relaxed);
    }

    /// It works, and leads to where nothing more is to be done.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_useless(&self) -> bool {
        self.client.is_closed() || [&self.spoiled, &self.retired].iter().any(|is| is.load(Ordering::Relaxed))
    }
}

impl managed::Manager for Server {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection> {
        self.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.is_useless() {
            return Err(RecycleError::message("the connection is of no more use"));
        }
        Ok(())
    }
}
