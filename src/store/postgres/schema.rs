//! The schema: its version, its migrations, and the name of the store.

use std::time::{Duration, Instant};

use refinery::Runner;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connect::Server;
use super::errors::{named, said};
use crate::store::{Result, StoreError};

mod migrations {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// Two that migrate at once wait for each other: "owlpost" in ASCII.
const MIGRATING: i64 = 0x6f_77_6c_70_6f_73_74;

/// Longer than any migration of a large store takes.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(1_800);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn runner() -> Runner {
    migrations::migrations::runner()
}

pub(super) fn newest() -> u32 {
    runner().get_migrations().iter().map(|m| m.version() as u32).max().unwrap_or(0)
}

/// The answer's one number, asked in one message: a question that is prepared first may find another connection of a
/// pooler's. `None`: no row.
pub(super) async fn number(client: &Client, sql: &str) -> std::result::Result<Option<i64>, Error> {
    let answer = client.simple_query(sql).await?;
    Ok(answer.iter().find_map(|part| match part {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }))
}

/// 0: an empty database.
pub(super) async fn version(client: &Client) -> std::result::Result<u32, Error> {
    const THERE: &str = "SELECT 1 WHERE to_regclass('refinery_schema_history') IS NOT NULL";
    if number(client, THERE).await?.is_none() {
        return Ok(0);
    }
    let found = number(client, "SELECT coalesce(max(version), 0) FROM refinery_schema_history").await?;
    Ok(u32::try_from(found.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// What takes long may take long, whatever the database says of those that say nothing.
pub(super) fn patience(set: &str) -> String {
    ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
        .map(|bound| format!("{set} {bound} = 0;"))
        .join(" ")
}

/// Looks at the version, and brings it up to date if that is wanted. Gives the connection that was used.
pub(super) async fn prepare(server: &Server, migrate: bool) -> Result<Client> {
    let place = &server.place;
    let told = |e: Error| named(place, &e);
    let client = server.connect().await?.client;
    const FOREIGN: &str = "SELECT 1 WHERE current_setting('server_encoding') <> 'UTF8'";
    if number(&client, FOREIGN).await.map_err(told)?.is_some() {
        return Err(StoreError::Unusable(format!(
            "{place}: its encoding can't hold every name; make a database with ENCODING 'UTF8'"
        )));
    }
    let newest = newest();
    let begun = Instant::now();
    loop {
        let found = version(&client).await.map_err(told)?;
        if found > newest {
            return Err(StoreError::Unusable(format!(
                "{place}: its schema is version {found}, this owlpost knows {newest}; use the owlpost that wrote it, or a later one"
            )));
        }
        if found == newest {
            return Ok(client);
        }
        if !migrate {
            let what =
                if found == 0 { "there is no schema of owlpost yet" } else { "the schema is older than this owlpost" };
            return Err(StoreError::Unusable(format!(
                "{place}: {what}; run `owlpost migrate`, as the owner of its tables"
            )));
        }
        // The lock lives in a transaction: behind a pooler a session's lock may stand on anybody's connection.
        client.batch_execute(&format!("BEGIN; {}", patience("SET LOCAL"))).await.map_err(told)?;
        if number(&client, &format!("SELECT 1 WHERE pg_try_advisory_xact_lock({MIGRATING})"))
            .await
            .map_err(told)?
            .is_some()
        {
            bring_up_to_date(server).await?;
            client.batch_execute("COMMIT").await.map_err(told)?;
            return Ok(client);
        }
        // Who waits keeps no transaction: a pooler may have few connections, and who migrates needs two.
        client.batch_execute("ROLLBACK").await.map_err(told)?;
        if begun.elapsed() > MIGRATION_WAIT {
            return Err(StoreError::Unavailable(format!(
                "{place}: another process migrates the schema for {} s now; look for it in pg_stat_activity",
                MIGRATION_WAIT.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn bring_up_to_date(server: &Server) -> Result<()> {
    let mut worker = server.connect().await?.client;
    if !server.has_pooler() {
        // Behind one it would be set for others; there it is the role's to be patient.
        worker.batch_execute(&patience("SET")).await.map_err(|e| named(&server.place, &e))?;
    }
    let report = runner().run_async(&mut worker).await.map_err(|e| not_migrated(&server.place, &e))?;
    for migration in report.applied_migrations() {
        tracing::info!(version = migration.version(), name = migration.name(), "schema migrated");
    }
    Ok(())
}

fn not_migrated(place: &str, e: &refinery::Error) -> StoreError {
    let mut source = std::error::Error::source(e);
    while let Some(why) = source {
        if let Some(of_server) = why.downcast_ref::<Error>() {
            if of_server.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                return StoreError::Unusable(format!(
                    "{place}: cannot bring the schema up to date: {}; run `owlpost migrate` as the owner of the tables and set \
                     store.migrate = false here, or let this role own the database",
                    said(of_server)
                ));
            }
            return named(place, of_server);
        }
        source = why.source();
    }
    StoreError::Unusable(format!("{place}: cannot bring the schema up to date: {e}"))
}

/// Looked up first: a command that only reads may have no right to write.
pub(super) async fn store_id(client: &Client) -> std::result::Result<u32, Error> {
    const KNOWN: &str = "SELECT store_id FROM meta";
    let mut known = number(client, KNOWN).await?;
    if known.is_none() {
        let make = "INSERT INTO meta (one, store_id, mails_sent) \
                    VALUES (1, floor(random() * 4294967296)::int8, 0) ON CONFLICT DO NOTHING";
        client.batch_execute(make).await?;
        known = number(client, KNOWN).await?;
    }
    Ok(known.and_then(|id| u32::try_from(id).ok()).unwrap_or_default())
}
