//! The schema: its version, its migrations, and the name of the store.

use refinery::Runner;
use tokio_postgres::{Client, Error};

use super::connect::Server;
use super::errors::named;
use crate::store::{Result, StoreError};

mod migrations {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// Two that migrate at once wait for each other: "owlpost" in ASCII.
const MIGRATING: i64 = 0x6f_77_6c_70_6f_73_74;

fn runner() -> Runner {
    migrations::migrations::runner()
}

pub(super) fn newest() -> u32 {
    runner().get_migrations().iter().map(|m| m.version() as u32).max().unwrap_or(0)
}

/// 0: an empty database.
pub(super) async fn version(client: &Client) -> std::result::Result<u32, Error> {
    let there = client.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let found = client.query_one("SELECT coalesce(max(version), 0)::int8 FROM refinery_schema_history", &[]).await?;
    Ok(u32::try_from(found.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
}

/// Looks at the version, and brings it up to date if that is wanted.
pub(super) async fn prepare(server: &Server, migrate: bool) -> Result<()> {
    let place = &server.place;
    let client = server.connect().await?.client;
    let encoding = client.query_one("SELECT current_setting('server_encoding')", &[]).await;
    let encoding: String = encoding.and_then(|row| row.try_get(0)).map_err(|e| named(place, &e))?;
    if encoding != "UTF8" {
        return Err(StoreError::Unusable(format!(
            "{place}: its encoding is {encoding}, which can't hold every name; make a database with ENCODING 'UTF8'"
        )));
    }
    let (found, newest) = (version(&client).await.map_err(|e| named(place, &e))?, newest());
    if found > newest {
        return Err(StoreError::Unusable(format!(
            "{place}: its schema is version {found}, this owlpost knows {newest}; use the owlpost that wrote it, or a later one"
        )));
    }
    if found == newest {
        return Ok(());
    }
    if !migrate {
        return Err(StoreError::Unusable(format!(
            "{place}: the schema is older than this owlpost; run `owlpost migrate`"
        )));
    }
    // The lock lives in a transaction: behind a pooler a session's lock may stand on anybody's connection.
    client.batch_execute("BEGIN").await.map_err(|e| named(place, &e))?;
    client.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATING]).await.map_err(|e| named(place, &e))?;
    let mut worker = server.connect().await?.client;
    let report = runner()
        .run_async(&mut worker)
        .await
        .map_err(|e| StoreError::Unusable(format!("{place}: cannot bring the schema up to date: {e}")))?;
    for migration in report.applied_migrations() {
        tracing::info!(version = migration.version(), name = migration.name(), "schema migrated");
    }
    client.batch_execute("COMMIT").await.map_err(|e| named(place, &e))
}

/// Looked up first: a command that only reads may have no right to write.
pub(super) async fn store_id(client: &Client) -> std::result::Result<u32, Error> {
    const KNOWN: &str = "SELECT store_id FROM meta";
    if let Some(known) = client.query_opt(KNOWN, &[]).await? {
        return Ok(u32::try_from(known.try_get::<_, i64>(0)?).unwrap_or_default());
    }
    let make = "INSERT INTO meta (one, store_id, mails_sent) \
                VALUES (1, floor(random() * 4294967296)::int8, 0) ON CONFLICT DO NOTHING";
    client.execute(make, &[]).await?;
    let known = client.query_one(KNOWN, &[]).await?;
    Ok(u32::try_from(known.try_get::<_, i64>(0)?).unwrap_or_default())
}
