//! The store, as the operator's commands open it: beside a running worker, and without changing anything by that.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::Failure;
use crate::app::Parts;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::ingest;
use crate::model::{Entry, Receipt, Time};
use crate::source::Message;
use crate::store::{Command, Intake, Opening, Page, Query, Report, Rows, Store, StoreError};

/// A store and what the configuration makes of it, for commands that do one thing after the other.
pub struct Office {
    config: Config,
    parts: Parts,
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Runtime,
}

impl Office {
    /// Opens the configured store for reading and for operator's changes. Never creates or migrates it.
    ///
    /// # Errors
    /// The configuration or the store can't be used.
    pub fn open(files: &[PathBuf]) -> Result<Office, Failure> {
        let mut config = super::load(files)?;
        config.store.migrate = false;
        Office::open_as(config, Opening::Operator)
    }

    /// Brings the schema up to date, and creates the store if there is none.
    ///
    /// # Errors
    /// As `open`, or a worker runs on a store with an older schema.
    pub fn migrate(files: &[PathBuf]) -> Result<Office, Failure> {
        // Up to date already, which a running worker does not mind; else nobody else may be there.
        Office::open(files).or_else(|_| {
            let mut config = super::load(files)?;
            config.store.migrate = true;
            Office::open_as(config, Opening::Worker)
        })
    }

    fn open_as(config: Config, opening: Opening) -> Result<Office, Failure> {
        // Without the directories: a people file that is broken right now must lock nobody out of the store.
        let nobody = Config { directories: vec![], ..config.clone() };
        let parts = Parts::new(&nobody, Arc::new(SystemClock::new()), false)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::failed(format!("cannot start: {e}")))?;
        let store = runtime.block_on(parts.open_store(&config, opening))?.store;
        Ok(Office { config, parts, store, runtime })
    }

    /// The names of the configured routes.
    pub fn routes(&self) -> Vec<&str> {
        self.config.routes.iter().map(|r| r.name.as_str()).collect()
    }

    pub fn now(&self) -> Time {
        self.parts.clock.now()
    }

    /// # Errors
    /// The store can't be read.
    pub fn read(&self, query: &Query, page: Page) -> Result<Rows, Failure> {
        Ok(self.runtime.block_on(self.store.read(query, page))?)
    }

    /// # Errors
    /// The store can't be written; nothing was changed.
    pub fn act(&self, command: &Command) -> Result<Report, Failure> {
        Ok(self.runtime.block_on(self.store.act(self.now(), command))?)
    }

    /// The front door for one input, as its source would bring it; what is refused again stays as it is.
    ///
    /// # Errors
    /// The source is in the configuration no more, the directory can't be used, or the store is away.
    pub fn enter(&self, source: &str, message: Message) -> Result<Vec<Receipt>, Failure> {
        let origin = self.config.sources.iter().find(|s| s.name == source).map(|s| s.origin().to_owned());
        let Some(origin) = origin else {
            return Err(Failure::failed(format!(
                "source {source}: not in the configuration; name it there again to replay what it brought"
            )));
        };
        // Only here is anybody looked up.
        let whole = Parts::new(&self.config, self.parts.clock.clone(), false)?;
        let pipeline = Arc::new(whole.pipeline(&self.config, source, &origin));
        self.runtime
            .block_on(ingest::replay_input(&pipeline, &Sieve(&*self.store), message))
            .map_err(|e| Failure::failed(e.to_string()))
    }
}

/// Lets through to the store what is an event by now. What is refused again is a dead letter already: to the store it
/// would be the same input that came once more, and count.
struct Sieve<'s>(&'s dyn Store);

#[async_trait]
impl Intake for Sieve<'_> {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>, StoreError> {
        let again = |entry: &Entry| {
            let refused = match entry {
                Entry::Refused(refused) => refused,
                Entry::Event(arrival) => arrival.stale.as_ref()?,
            };
            Some(Receipt::Refused { reason: refused.reason, detail: refused.detail.clone(), at: None })
        };
        let good: Vec<Entry> = entries.iter().filter(|entry| again(entry).is_none()).cloned().collect();
        let mut taken = Vec::new().into_iter();
        if !good.is_empty() {
            taken = self.0.accept(now, Arc::new(good)).await?.into_iter();
        }
        let receipt = |entry| again(entry).unwrap_or_else(|| taken.next().unwrap_or(Receipt::Duplicate));
        Ok(entries.iter().map(receipt).collect())
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        Failure::failed(e.to_string())
    }
}
