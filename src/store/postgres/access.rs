//! How a database is reached, as the operator says it: `store.url` and what stands beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::patience;
use super::tls::{self, Tls};
use crate::aws::rds::{Endpoint, Signer, Tokens};
use crate::store::{Result, StoreError};

const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Access {
    /// `postgres://user@host:5432/database`, with `?sslmode=disable` or `verify-full` (the default off loopback). Of several
    /// hosts, `one:5432,other:5432`, the one that takes writes.
    pub url: String,
    pub password: Password,
    /// Authorities of the server's certificate, in PEM form; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Each transaction may be on another connection of the server: nothing is left prepared at its end.
    pub transaction_pooler: bool,
}

/// What a new connection proves itself with.
#[derive(Clone)]
pub enum Password {
    None,
    Fixed(String),
    /// A token for RDS, made by an AWS identity.
    Iam(Signer),
}

/// What a connection is made with.
#[derive(Clone)]
pub(super) struct Way {
    pub config: Config,
    /// `None`: in clear.
    pub tls: Option<Tls>,
    /// Passwords that change.
    pub tokens: Option<Arc<Tokens>>,
    /// For messages: host, port and database.
    pub place: String,
}

impl Way {
    pub fn of(access: &Access) -> Result<Way> {
        let (url, mode) = split_mode(&access.url);
        let mut config: Config = url.parse().map_err(|e| {
            StoreError::Unusable(format!("store.url is no address of a PostgreSQL database: {}", parse(&e)))
        })?;
        if config.get_application_name().is_none() {
            config.application_name("owlpost");
        }
        if config.get_hosts().len() > 1 && !access.url.contains("target_session_attrs=") {
            // They are one database: whichever of them is the primary now.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.connect_timeout(patience::ADDRESS).tcp_user_timeout(TCP_USER_TIMEOUT).keepalives_idle(KEEPALIVE);
        let iam = matches!(access.password, Password::Iam(_));
        let verified = match mode.as_deref() {
            Some("disable") if iam => {
                return Err(StoreError::Unusable(
                    "store.url: sslmode=disable: store.auth = \"iam\" sends its token to a verified server only".into(),
                ));
            }
            Some("disable") => false,
            Some("verify-full") => true,
            Some(other) => {
                return Err(StoreError::Unusable(format!(
                    "store.url: sslmode={other}: only disable and verify-full are possible"
                )));
            }
            None => iam || !is_local(&config),
        };
        config.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        let tls = verified.then(|| tls::config(access.ca_file.as_deref())).transpose()?.map(Tls);
        let tokens = match &access.password {
            Password::None => None,
            Password::Fixed(password) => {
                config.password(password);
                None
            }
            Password::Iam(signer) => Some(Arc::new(Tokens::new(signer.clone(), endpoint(&config)?))),
        };
        Ok(Way { place: place(&config), config, tls, tokens })
    }
}

/// A token is for one user of one server.
fn endpoint(config: &Config) -> Result<Endpoint> {
    let wrong = |what: &str| StoreError::Unusable(format!("store.auth = \"iam\" needs {what} in store.url"));
    let [Host::Tcp(host)] = config.get_hosts() else { return Err(wrong("one host by its name")) };
    let user = config.get_user().ok_or_else(|| wrong("a user"))?;
    Ok(Endpoint { host: host.clone(), port: port(config, 0), user: user.to_owned() })
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

/// On this machine: nobody is between the two.
fn is_local(config: &Config) -> bool {
    // Where addresses are given, they are what is connected to.
    let addresses = config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    addresses
        && config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Host::Unix(_) => true,
        })
}

fn port(config: &Config, host: usize) -> u16 {
    config.get_ports().get(host).or(config.get_ports().first()).copied().unwrap_or(5432)
}

fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(i, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(config, i)),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("PostgreSQL {hosts}/{}", config.get_dbname().unwrap_or_default())
}

/// Says what is wrong, not what was written: a password may stand in it.
fn parse(e: &tokio_postgres::Error) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string)
}
