//! The schema: its version, its migrations, and the name of the store.

use std::time::{Duration, Instant};

use refinery::Runner;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connect::Server;
use super::errors::named;
use super::migrate::bring_up_to_date;
use super::patience::soon;
use crate::store::{Result, StoreError};

mod migrations {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// Two that migrate at once wait for each other: "owlpost" in ASCII.
const MIGRATING: i64 = 0x6f_77_6c_70_6f_73_74;

/// Longer than any migration of a large store takes.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(1_800);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) fn runner() -> Runner {
    migrations::migrations::runner()
}

pub(super) fn newest() -> u32 {
    runner().get_migrations().iter().map(|m| m.version() as u32).max().unwrap_or(0)
}

/// The answer's one number, asked in one message: a question that is prepared first may find another connection of a
/// pooler's. `None`: no row.
pub(super) async fn number(client: &Client, sql: &str) -> std::result::Result<Option<i64>, Error> {
    Ok(numbers(client, sql).await?.map(|[number]| number))
}

/// The same of a row of several.
pub(super) async fn numbers<const N: usize>(
    client: &Client,
    sql: &str,
) -> std::result::Result<Option<[i64; N]>, Error> {
    let answer = client.simple_query(sql).await?;
    Ok(answer.iter().find_map(|part| match part {
        SimpleQueryMessage::Row(row) if row.len() == N => {
            let mut all = [0; N];
            for (column, number) in all.iter_mut().enumerate() {
                *number = row.get(column)?.parse().ok()?;
            }
            Some(all)
        }
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
pub(super) fn without_bounds(set: &str) -> String {
    ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
        .map(|bound| format!("{set} {bound} = 0;"))
        .join(" ")
}

/// Looks at the version, and brings it up to date if that is wanted. Gives the connection that was used.
pub(super) async fn prepare(server: &Server, migrate: bool) -> Result<Client> {
    let place = &server.place;
    let told = |e: &Error| named(place, e);
    let client = server.connect().await?.client;
    const FOREIGN: &str = "SELECT 1 WHERE current_setting('server_encoding') <> 'UTF8'";
    if soon(place, number(&client, FOREIGN), told).await?.is_some() {
        return Err(StoreError::Unusable(format!(
            "{place}: its encoding can't hold every name; make a database with ENCODING 'UTF8'"
        )));
    }
    let newest = newest();
    let begun = Instant::now();
    loop {
        let found = soon(place, version(&client), told).await?;
        // Other programs keep their versions in a table of this name too.
        const NOT_OURS: &str = "SELECT 1 FROM refinery_schema_history WHERE version = 1 AND name <> 'store'";
        if found > 0 && soon(place, number(&client, NOT_OURS), told).await?.is_some() {
            return Err(StoreError::Unusable(format!(
                "{place}: its schema is another program's; give the store a database, or a schema, of its own"
            )));
        }
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
        let begin = format!("BEGIN; {}", without_bounds("SET LOCAL"));
        soon(place, client.batch_execute(&begin), told).await?;
        let try_lock = format!("SELECT 1 WHERE pg_try_advisory_xact_lock({MIGRATING})");
        if soon(place, number(&client, &try_lock), told).await?.is_some() {
            bring_up_to_date(server, &client).await?;
            soon(place, client.batch_execute("COMMIT"), told).await?;
            return Ok(client);
        }
        // Who waits keeps no transaction: a pooler may have few connections, and who migrates needs two.
        soon(place, client.batch_execute("ROLLBACK"), told).await?;
        if begun.elapsed() > MIGRATION_WAIT {
            return Err(StoreError::Unavailable(format!(
                "{place}: another process migrates the schema for {} s now; look for it in pg_stat_activity",
                MIGRATION_WAIT.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
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
