//! The store that `store.url` names.

use std::path::PathBuf;
use std::sync::Arc;

use super::{AppError, Parts, parts};
use crate::config::Config;
use crate::store::postgres::{self, Postgres};
use crate::store::sqlite::{self, Sqlite};
use crate::store::{Limits, Opening, Store};

/// An open store, whatever database it is in.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// The first half of its digest ids.
    pub id: u32,
}

impl Parts {
    /// Opens the configured store. The connections of a PostgreSQL store live in the runtime that this is called in.
    ///
    /// # Errors
    /// The store can't be opened: see [`StoreError`](crate::store::StoreError).
    pub async fn open_store(&self, config: &Config, opening: Opening) -> Result<Opened, AppError> {
        if !config.store.is_postgres() {
            let store = self.open_sqlite(config, opening)?;
            let id = store.store_id();
            return Ok(Opened { store: Arc::new(store), id });
        }
        let s = &config.store;
        let settings = postgres::Settings {
            url: s.url.clone(),
            password: s.password.as_ref().map(|secret| secret.0.clone()),
            ca_file: s.ca_file.as_ref().map(PathBuf::from),
            pool: s.connections as usize,
            opening,
            migrate: s.migrate,
            limits: limits(config),
            policy: self.policies.clone(),
            account: parts::account(config),
        };
        let store = Postgres::open(settings, self.clock.clone()).await?;
        let id = store.store_id();
        Ok(Opened { store: Arc::new(store), id })
    }

    /// # Errors
    /// As [`Parts::open_store`], or the store is no file.
    pub fn open_sqlite(&self, config: &Config, opening: Opening) -> Result<Sqlite, AppError> {
        let s = &config.store;
        let path = s
            .sqlite_path()
            .ok_or_else(|| AppError::Config(format!("store.url: {} is neither sqlite: nor postgres://", s.shown())))?;
        let settings = sqlite::Settings {
            path,
            opening,
            migrate: s.migrate,
            limits: limits(config),
            policy: self.policies.clone(),
            account: parts::account(config),
        };
        Ok(Sqlite::open(settings, self.clock.now())?)
    }
}

fn limits(config: &Config) -> Limits {
    Limits { open_items_per_recipient: config.limits.open_items_per_recipient, retention: config.store.retention.0 }
}
