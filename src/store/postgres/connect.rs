//! Connections to the server, and the pool that bounds them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, LoadBalanceHosts};
use tokio_postgres::{Client, Config, Error, NoTls, Statement};

use super::access::{Access, Way};
use super::errors::{is_refused, named, said};
use super::patience;
use super::tls::Tls;
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
        let (client, wire) = connected
            .await
            .map_err(|_| StoreError::Unavailable(format!("{}: the process is stopping", self.place)))??;
        let statements = Mutex::default();
        let forgets = self.transaction_pooler;
        let (spoiled, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Connection { client, wire, statements, forgets, spoiled, retired })
    }
}

/// What is asked, and what carries it.
type Wired = (Client, AbortHandle);

/// One host after another, each with its own bound: of several, one that hangs is not in the way of the next.
async fn connect(way: Way, handle: Handle) -> Result<Wired> {
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
    let mut last = None;
    for one in each_host(&config) {
        match tokio::time::timeout(patience::CONNECT, wire(&one, way.tls.clone(), &handle)).await {
            Ok(Ok(wired)) => return Ok(wired),
            Ok(Err(e)) => last = Some(e),
            Err(_) => tracing::debug!(hosts = ?one.get_ports(), "a host of the store takes no connection in time"),
        }
    }
    let Some(e) = last else { return Err(patience::closed(&way.place)) };
    let Some((tokens, token)) = token.filter(|_| is_refused(&e)) else { return Err(named(&way.place, &e)) };
    tokens.refused(&token).await;
    Err(StoreError::Unavailable(format!(
        "{}: {}; the role needs GRANT rds_iam, and the AWS identity rds-db:connect on it, in the region of the database",
        way.place,
        said(&e)
    )))
}

async fn wire(config: &Config, tls: Option<Tls>, handle: &Handle) -> std::result::Result<Wired, Error> {
    match tls {
        None => config.connect(NoTls).await.map(|(client, link)| (client, handle.spawn(link).abort_handle())),
        Some(tls) => config.connect(tls).await.map(|(client, link)| (client, handle.spawn(link).abort_handle())),
    }
}

/// The same for each host alone, in their order.
fn each_host(config: &Config) -> Vec<Config> {
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    if count < 2 {
        return vec![config.clone()];
    }
    let alone = |i: usize| {
        let mut one = Config::new();
        if let Some(host) = config.get_hosts().get(i) {
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(path) => one.host_path(path),
            };
        }
        config.get_hostaddrs().get(i).map(|address| one.hostaddr(*address));
        config.get_ports().get(i).or(config.get_ports().first()).map(|port| one.port(*port));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_application_name().map(|name| one.application_name(name));
        config.get_connect_timeout().map(|bound| one.connect_timeout(*bound));
        config.get_tcp_user_timeout().map(|bound| one.tcp_user_timeout(*bound));
        config.get_keepalives_interval().map(|every| one.keepalives_interval(every));
        config.get_keepalives_retries().map(|most| one.keepalives_retries(most));
        one.keepalives(config.get_keepalives())
            .keepalives_idle(config.get_keepalives_idle())
            .ssl_mode(config.get_ssl_mode())
            .ssl_negotiation(config.get_ssl_negotiation())
            .channel_binding(config.get_channel_binding())
            .target_session_attrs(config.get_target_session_attrs());
        one
    };
    let mut all: Vec<Config> = (0..count).map(alone).collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        // Any start will do: each connection begins with another one.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let first = NEXT.fetch_add(1, Ordering::Relaxed) % count;
        all.rotate_left(first);
    }
    all
}

/// A connection with the statements that it has prepared.
pub(super) struct Connection {
    pub client: Client,
    wire: AbortHandle,
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

    /// No answer came: the wire is cut, so that the server sees it when it goes on, and no socket waits for it here.
    pub fn give_up(&self) {
        self.spoil(true);
        self.wire.abort();
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
