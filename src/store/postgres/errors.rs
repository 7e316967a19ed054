//! What PostgreSQL's errors mean to a caller.

use tokio_postgres::error::{Error, SqlState};

use crate::store::StoreError;

/// Says what happened and what to do. `place` is the server without its secrets.
pub(super) fn named(place: &str, e: &Error) -> StoreError {
    let Some(db) = e.as_db_error() else {
        return StoreError::Unavailable(format!("{place}: {}", chain(e)));
    };
    let said = format!("{place}: {} ({})", db.message(), db.code().code());
    match db.code().code() {
        // Bad text, a broken constraint: the same will be said next time.
        code if code.starts_with("22") || code.starts_with("23") => StoreError::Broken(said),
        "42501" => {
            StoreError::Unusable(format!("{said}; the role needs rights on the tables and sequences of the store"))
        }
        code if code.starts_with("42") => {
            StoreError::Unusable(format!("{said}; the schema is not this owlpost's: run `owlpost migrate`"))
        }
        code if code.starts_with("28") => {
            StoreError::Unavailable(format!("{said}; look at the user and the password of store.url"))
        }
        "3D000" => StoreError::Unusable(format!("{said}; create the database that store.url names")),
        "25006" => {
            StoreError::Unavailable(format!("{said}; this is a read-only standby: store.url must name the primary"))
        }
        "53100" => StoreError::Unavailable(format!("{said}; free some space, the worker goes on by itself")),
        _ => StoreError::Unavailable(said),
    }
}

/// The other one of two transactions won; the same again may do.
pub(super) fn is_conflict(e: &Error) -> bool {
    const RACES: [SqlState; 3] =
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];
    e.code().is_some_and(|code| RACES.contains(code))
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
