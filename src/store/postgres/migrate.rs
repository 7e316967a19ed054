//! Migrations beside workers that go on. Each takes its tables for itself, and while it waits for one, everybody else waits
//! behind it. So it waits for a moment only, lets go of everything, and tries again.

use std::time::{Duration, Instant};

use refinery::{Migration, Target};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connect::Server;
use super::errors::{named, said};
use super::patience::{SOON, silent};
use super::schema::{self, MIGRATION_WAIT, number, without_bounds};
use crate::store::{Result, StoreError};

/// How long a table is waited for, with all others behind us: less than anybody notices.
const TABLE_WAIT: Duration = Duration::from_millis(500);

/// Between two tries, for those that were held up.
const BREATH: Duration = Duration::from_secs(1);

/// How soon it is looked who is in the way: while we wait for him.
const LOOK: Duration = Duration::from_millis(100);

/// How often that is told.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// `other`: a connection that can look meanwhile.
pub(super) async fn bring_up_to_date(server: &Server, other: &Client) -> Result<()> {
    let mut client = server.connect().await?.client;
    if !server.has_pooler() {
        // Behind one it would be set for others; there it is the role's to be patient.
        client.batch_execute(&without_bounds("SET")).await.map_err(|e| named(&server.place, &e))?;
    }
    let runner = schema::runner();
    // Makes the table of what was done, and compares it with what is known here.
    let known = runner.set_target(Target::Version(0)).run_async(&mut client).await;
    known.map_err(|e| not_known(&server.place, &e))?;
    let found = schema::version(&client).await.map_err(|e| named(&server.place, &e))?;
    let begun = Instant::now();
    for migration in schema::runner().get_migrations() {
        if u32::try_from(migration.version()).is_ok_and(|version| version > found) {
            apply(server, &client, other, migration, begun).await?;
            tracing::info!(version = migration.version(), name = migration.name(), "schema migrated");
        }
    }
    Ok(())
}

async fn apply(server: &Server, client: &Client, other: &Client, migration: &Migration, begun: Instant) -> Result<()> {
    let (mut told, mut in_the_way) = (None::<Instant>, None);
    loop {
        let e = match once(client, other, migration, &mut in_the_way).await {
            Ok(Tried::Done) => return Ok(()),
            Ok(Tried::Silent) => return Err(silent(&server.place, SOON)),
            Err(e) => e,
        };
        let held = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].iter().any(|s| e.code() == Some(s));
        if !held {
            return Err(not_migrated(&server.place, &e));
        }
        let waited = begun.elapsed();
        let why = in_the_way.as_deref().unwrap_or("a table that others have");
        if waited >= MIGRATION_WAIT {
            return Err(StoreError::Unavailable(format!(
                "{}: migration {} waited {} s for {why}; end that, and start again",
                server.place,
                migration.version(),
                waited.as_secs()
            )));
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tracing::warn!(
                version = migration.version(),
                "the migration waits for {why}; meanwhile it lets all others go on"
            );
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// What came of one try.
enum Tried {
    Done,
    /// The server does not even say who is in the way.
    Silent,
}

/// One transaction, with its line in the table of what was done.
async fn once(
    client: &Client,
    other: &Client,
    migration: &Migration,
    in_the_way: &mut Option<String>,
) -> std::result::Result<Tried, Error> {
    let (begin, wait) = (without_bounds("SET LOCAL"), TABLE_WAIT.as_millis());
    client.batch_execute(&format!("BEGIN; {begin} SET LOCAL lock_timeout = {wait}")).await?;
    let me = number(client, "SELECT pg_backend_pid()").await?.unwrap_or_default();
    let work = format!(
        "{};\nINSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ({}, '{}', '{}', '{}')",
        migration.sql().unwrap_or_default(),
        migration.version(),
        migration.name(),
        jiff::Timestamp::now(),
        migration.checksum()
    );
    let done = {
        let mut work = std::pin::pin!(client.batch_execute(&work));
        loop {
            match tokio::time::timeout(LOOK, &mut work).await {
                Ok(done) => break done,
                Err(_) => match tokio::time::timeout(SOON, who_is_in_the_way(other, me)).await {
                    Ok(found) => *in_the_way = found.or(in_the_way.take()),
                    // The server says nothing at all: what was begun there ends with the connection.
                    Err(_) => return Ok(Tried::Silent),
                },
            }
        }
    };
    match done {
        Ok(()) => client.batch_execute("COMMIT").await.map(|()| Tried::Done),
        Err(e) => {
            client.batch_execute("ROLLBACK").await?;
            Err(e)
        }
    }
}

/// As far as this role may see it.
async fn who_is_in_the_way(client: &Client, me: i64) -> Option<String> {
    let ask = format!(
        "SELECT coalesce(l.relation::regclass::text, l.locktype), (SELECT string_agg(concat_ws(' ', 'pid', b.pid, 'user', \
         s.usename, 'application', s.application_name, 'since', s.xact_start), '; ') FROM unnest(pg_blocking_pids(l.pid)) \
         AS b(pid) LEFT JOIN pg_stat_activity s ON s.pid = b.pid) FROM pg_locks l WHERE l.pid = {me} AND NOT l.granted LIMIT 1"
    );
    let answer = client.simple_query(&ask).await.ok()?;
    answer.iter().find_map(|part| match part {
        SimpleQueryMessage::Row(row) => {
            Some(format!("table {}, which {} holds", row.get(0)?, row.get(1).unwrap_or("somebody")))
        }
        _ => None,
    })
}

fn not_known(place: &str, e: &refinery::Error) -> StoreError {
    let mut source = std::error::Error::source(e);
    while let Some(why) = source {
        if let Some(of_server) = why.downcast_ref::<Error>() {
            return not_migrated(place, of_server);
        }
        source = why.source();
    }
    StoreError::Unusable(format!("{place}: cannot bring the schema up to date: {e}"))
}

fn not_migrated(place: &str, e: &Error) -> StoreError {
    if e.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return named(place, e);
    }
    StoreError::Unusable(format!(
        "{place}: cannot bring the schema up to date: {}; run `owlpost migrate` as the owner of the tables and set \
         store.migrate = false here, or let this role own the database",
        said(e)
    ))
}
