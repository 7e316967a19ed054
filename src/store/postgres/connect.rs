//! Connections to the server, and the pool that bounds them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::runtime::Handle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::errors::named;
use super::tls::{self, Tls};
use crate::store::{Result, StoreError};

/// A server that does not answer for so long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) type Pool = managed::Pool<Server>;

/// How to reach the server. What `store.url` says of TLS is read here: `sslmode=disable` or `verify-full`.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    /// `None`: in clear.
    tls: Option<Tls>,
    /// Connections live in this runtime, whoever asks for them.
    handle: Handle,
    /// For messages: host, port and database.
    pub place: String,
}

impl Server {
    pub fn new(url: &str, password: Option<&str>, ca_file: Option<&Path>) -> Result<Server> {
        let (url, mode) = split_mode(url);
        let mut config: Config = url.parse().map_err(|e| {
            StoreError::Unusable(format!("store.url is no address of a PostgreSQL database: {}", parse(&e)))
        })?;
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("owlpost");
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(TCP_USER_TIMEOUT).keepalives_idle(KEEPALIVE);
        let verified = match mode.as_deref() {
            Some("disable") => false,
            Some("verify-full") => true,
            Some(other) => {
                return Err(StoreError::Unusable(format!(
                    "store.url: sslmode={other}: only disable and verify-full are possible"
                )));
            }
            None => !is_local(&config),
        };
        config.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        let tls = verified.then(|| tls::config(ca_file)).transpose()?.map(Tls);
        Ok(Server { place: place(&config), config, tls, handle: Handle::current() })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub async fn connect(&self) -> Result<Connection> {
        let (server, handle) = (self.clone(), self.handle.clone());
        let connected = self.handle.spawn(async move {
            match server.tls {
                None => server.config.connect(NoTls).await.map(|(client, link)| {
                    handle.spawn(link);
                    client
                }),
                Some(tls) => server.config.connect(tls).await.map(|(client, link)| {
                    handle.spawn(link);
                    client
                }),
            }
        });
        let client = connected
            .await
            .map_err(|_| StoreError::Unavailable(format!("{}: the process is stopping", self.place)))?
            .map_err(|e| named(&self.place, &e))?;
        Ok(Connection { client, statements: Mutex::default(), spoiled: AtomicBool::new(false) })
    }
}

/// A connection with the statements that it has prepared.
pub(super) struct Connection {
    pub client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// In a transaction that nobody has ended, or without an answer: never used again.
    spoiled: AtomicBool,
}

impl Connection {
    pub fn known(&self, sql: &str) -> Option<Statement> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
    }

    pub fn keep(&self, sql: &str, statement: &Statement) {
        let mut all = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(sql.to_owned(), statement.clone());
    }

    pub fn spoil(&self, spoiled: bool) {
        self.spoiled.store(spoiled, Ordering::Relaxed);
    }
}

impl managed::Manager for Server {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection> {
        self.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.client.is_closed() || connection.spoiled.load(Ordering::Relaxed) {
            return Err(RecycleError::message("the connection is of no more use"));
        }
        Ok(())
    }
}

/// The parser of the client knows neither `verify-full` nor that it should be the default.
fn split_mode(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (mut mode, mut rest) = (None, Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (url, mode)
}

/// On this machine: nobody is between the two. Where addresses are given, they are what is connected to.
fn is_local(config: &Config) -> bool {
    config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
        && config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Host::Unix(_) => true,
        })
}

fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(i, host)| {
        let port = config.get_ports().get(i).or(config.get_ports().first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        }
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("PostgreSQL {hosts}/{}", config.get_dbname().unwrap_or_default())
}

/// Says what is wrong, not what was written: a password may stand in it.
fn parse(e: &tokio_postgres::Error) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string)
}
