//! What PostgreSQL's errors mean to a caller.

use tokio_postgres::error::{Error, SqlState};

use crate::store::StoreError;

/// Says what happened and what to do. `place` is the server without its secrets.
pub(super) fn named(place: &str, e: &Error) -> StoreError {
    let said = format!("{place}: {}", said(e));
    let Some(code) = e.code() else { return StoreError::Unavailable(of_the_connection(&said, e)) };
    match code.code() {
        // Two rows where one may be, bad text, a broken constraint, more than fits: the same will be said next time.
        code if ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)) => StoreError::Broken(said),
        "42501" => {
            StoreError::Unusable(format!("{said}; the role needs rights on the tables and sequences of the store"))
        }
        // A name is taken that nobody took here, or what was prepared is not there: on another connection than was thought.
        "26000" | "42P05" => StoreError::Unusable(format!(
            "{said}; behind a pooler in transaction mode set store.transaction_pooler = true, or max_prepared_statements \
             of PgBouncer (1.21 or later)"
        )),
        "42P07" | "42710" => StoreError::Unusable(format!(
            "{said}; that is not owlpost's: give the store a database, or a schema, of its own"
        )),
        code if code.starts_with("42") => {
            StoreError::Unusable(format!("{said}; the schema is not this owlpost's: run `owlpost migrate`"))
        }
        code if code.starts_with("28") => {
            StoreError::Unavailable(format!("{said}; look at the user of store.url, and at store.password"))
        }
        "3D000" => StoreError::Unusable(format!("{said}; create the database that store.url names")),
        "25006" => StoreError::Unavailable(standby(&said)),
        "3F000" => StoreError::Unusable(format!(
            "{said}; the role's search_path must begin with the schema that holds the store's tables"
        )),
        "53300" => StoreError::Unavailable(format!(
            "{said}; lower store.connections, or raise max_connections of the server: each worker may have so many"
        )),
        "55P03" => StoreError::Unavailable(format!(
            "{said}; somebody's transaction holds a row of the store: pg_locks and pg_stat_activity say whose"
        )),
        "53100" => StoreError::Unavailable(format!("{said}; free some space, the worker goes on by itself")),
        _ => StoreError::Unavailable(said),
    }
}

/// No answer of the server: the way to it, or what we have to show.
fn of_the_connection(said: &str, e: &Error) -> String {
    if is_about_the_certificate(e) {
        return format!(
            "{said}; the server's certificate must name the host of store.url, and be signed by one of store.ca_file or, \
             without it, of this system"
        );
    }
    if said.ends_with("password missing") {
        return format!("{said}: the server asks for one; set store.password");
    }
    if said.contains(NO_WRITES) {
        return standby(said);
    }
    if said.contains(NOT_THERE) {
        return format!("{said}; is the server up, and does store.url name its host and port?");
    }
    said.to_owned()
}

/// What tokio-postgres says when nothing answers ...
const NOT_THERE: &str = "error connecting to server";
/// ... and when a standby does, where a primary is looked for.
const NO_WRITES: &str = "database does not allow writes";

fn standby(said: &str) -> String {
    format!(
        "{said}; if this is a standby, store.url must name the primary, or all of them, as in host1,host2; else \
         default_transaction_read_only is set for the server, the database or the role"
    )
}

/// What the server or the connection says, without advice.
pub(super) fn said(e: &Error) -> String {
    e.as_db_error().map_or_else(|| chain(e), |db| format!("{} ({})", db.message(), db.code().code()))
}

/// The server does not believe that we are who we say.
pub(super) fn is_refused(e: &Error) -> bool {
    e.code().is_some_and(|code| code.code().starts_with("28"))
}

/// That it is another server's, or signed by nobody we know.
fn is_about_the_certificate(e: &Error) -> bool {
    let io = std::error::Error::source(e).and_then(|source| source.downcast_ref::<std::io::Error>());
    let tls = io.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// The other one of two transactions won; the same again may do.
#[derive(Debug, PartialEq)]
pub(super) enum Conflict {
    /// They waited for each other, or one of them saw what the other has changed since.
    Order,
    /// Somebody else has a row for longer than was waited for.
    Held,
    /// A row with this key is there. Once somebody else was quicker; twice, it is no race.
    Key { constraint: Option<String>, key: Option<String> },
}

impl Conflict {
    pub fn of(e: &Error) -> Option<Conflict> {
        let db = e.as_db_error()?;
        match *db.code() {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Some(Conflict::Order),
            SqlState::LOCK_NOT_AVAILABLE => Some(Conflict::Held),
            SqlState::UNIQUE_VIOLATION => Some(Conflict::Key {
                constraint: db.constraint().map(str::to_owned),
                key: db.detail().map(str::to_owned),
            }),
            _ => None,
        }
    }

    /// The same again may do: it is no row that somebody keeps, and another turn did not end in the very same way.
    pub fn may_pass(&self, before: Option<&Conflict>) -> bool {
        match self {
            Conflict::Order => true,
            Conflict::Held => false,
            Conflict::Key { .. } => before != Some(self),
        }
    }
}

/// A standby, or a primary that has become one.
pub(super) fn is_read_only(e: &Error) -> bool {
    e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// tokio-postgres keeps the reason in the source.
fn chain(e: &Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
