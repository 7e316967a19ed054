//! The store that `store.url` names.

use std::path::PathBuf;
use std::sync::Arc;

use super::{AppError, Parts, parts};
use crate::aws::Identity;
use crate::aws::rds::Signer;
use crate::config::{Config, StoreAuth};
use crate::store::postgres::{self, Access, Password, Postgres};
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
            access: access(config).await?,
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
            young_events: sqlite::YOUNG_EVENTS,
        };
        Ok(Sqlite::open(settings, self.clock.now())?)
    }
}

/// How the configured PostgreSQL database is reached.
///
/// # Errors
/// An AWS identity is asked for, and there is no region.
pub(super) async fn access(config: &Config) -> Result<Access, AppError> {
    let s = &config.store;
    let password = match (s.auth, &s.password) {
        (StoreAuth::Iam, _) => {
            let identity = Identity { region: s.region.clone(), ..Identity::default() };
            Password::Iam(Signer::load(&identity).await.map_err(AppError::Config)?)
        }
        (StoreAuth::Password, Some(secret)) => Password::Fixed(secret.0.clone()),
        (StoreAuth::Password, None) => Password::None,
    };
    Ok(Access {
        url: s.url.clone(),
        password,
        ca_file: s.ca_file.as_ref().map(PathBuf::from),
        transaction_pooler: s.transaction_pooler,
    })
}

fn limits(config: &Config) -> Limits {
    Limits { open_items_per_recipient: config.limits.open_items_per_recipient, retention: config.store.retention.0 }
}
