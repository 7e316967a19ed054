//! How long the server is waited for. A server that takes connections and says nothing, a pooler that hangs, a machine that
//! froze: each wait ends here, the connection is given up, and the loops ask anew with longer and longer pauses.
//!
//! What one call waits for at most (a place in the pool, a connection, a question) stays about [`crate::vitals`]'s time
//! after which a loop counts as hung, so that a frozen database ends no worker that holds answers.

use std::time::Duration;

use crate::store::{Result, StoreError};

/// TCP, TLS and login together, of one host. A login costs some milliseconds of both sides, or a second on a loaded machine.
pub const CONNECT: Duration = Duration::from_secs(10);

/// TCP of one address: a name that stands for several is left the time for the next of them.
pub const ADDRESS: Duration = Duration::from_secs(3);

/// For a connection of the pool.
pub const POOL: Duration = Duration::from_secs(20);

/// What the server has at hand: the beginning of a transaction, its clock, who it is. Nobody's lock is in the way.
pub const SOON: Duration = Duration::from_secs(10);

/// A change; the server's own bound is `statement_timeout`.
pub const WRITE: Duration = Duration::from_secs(30);
/// A look at many rows.
pub const LOOK: Duration = Duration::from_secs(60);
/// A short look-up of the loops.
pub const PEEK: Duration = Duration::from_secs(10);

/// The server says by itself that its time is over. Who hears nothing for so long after that has no server.
const BEYOND: Duration = Duration::from_secs(3);

/// How long rows may be somebody else's before a change of them is given up.
pub const LOCK: Duration = Duration::from_secs(20);

/// Our bound above the server's.
pub const fn above(of_server: Duration) -> Duration {
    of_server.saturating_add(BEYOND)
}

/// An answer that has to come [`SOON`].
pub async fn soon<T, E>(
    place: &str,
    answer: impl Future<Output = std::result::Result<T, E>>,
    told: impl Fn(&E) -> StoreError,
) -> Result<T> {
    match tokio::time::timeout(SOON, answer).await {
        Ok(answer) => answer.map_err(|e| told(&e)),
        Err(_) => Err(silent(place, SOON)),
    }
}

/// It took the question, and no answer came.
pub fn silent(place: &str, waited: Duration) -> StoreError {
    StoreError::Unavailable(format!("{place}: no answer in {} s; the connection is given up", waited.as_secs()))
}

/// It took no connection.
pub fn closed(place: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "{place}: no connection in {} s: the server, or what is before it, hangs",
        CONNECT.as_secs()
    ))
}
