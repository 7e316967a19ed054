//! A store's way from a SQLite file into a PostgreSQL database.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::AppError;
use crate::config::Config;
use crate::store::StoreError;
use crate::store::postgres::Loader;
use crate::store::sqlite::Dump;

/// Pages that wait to be written: the reader may be one ahead.
const AHEAD: usize = 1;

/// Copies everything into the configured store, which must be empty. `said` hears after each page how many rows there are.
///
/// # Errors
/// A worker has the file, the store is not empty, or one of the two can't be reached; then nothing was copied.
pub async fn copy(from: &Path, config: &Config, mut said: impl FnMut(u64)) -> Result<u64, AppError> {
    let s = &config.store;
    if !s.is_postgres() {
        return Err(AppError::Config(format!(
            "store.url: {} is no postgres:// URL; a store can only be copied into PostgreSQL",
            s.shown()
        )));
    }
    let path = from.to_owned();
    let dump = blocking(move || Dump::open(&path)).await?;
    let loader = Loader::begin(&super::stores::access(config).await?).await?;
    let tables = Arc::new(loader.tables().await?);
    let (pages, mut received) = mpsc::channel(AHEAD);
    let of = tables.clone();
    let reading = tokio::spawn(blocking(move || {
        // Nobody receives any more: the other side has failed, and says why.
        let ended = |_| StoreError::Unavailable("the copy was given up".into());
        dump.pages(&of, &mut |page| pages.blocking_send(page).map_err(ended))?;
        dump.numbers()
    }));
    let mut rows = 0;
    while let Some(page) = received.recv().await {
        rows += page.rows;
        if let Some(table) = tables.get(page.table) {
            loader.add(table, page).await?;
        }
        said(rows);
    }
    let numbers = reading.await.map_err(|e| StoreError::Unavailable(format!("the copy was given up: {e}")))??;
    loader.finish(numbers).await?;
    Ok(rows)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::Unavailable(format!("the copy was given up: {e}"))),
    }
}
