//! The SQLite store under test.

use std::sync::Arc;
use std::time::Duration;

use owlpost::model::Time;
use owlpost::store::sqlite::{Opening, Settings, Sqlite};
use owlpost::store::{Limits, Result, Store};
use rusqlite::types::ValueRef;

use crate::bench::{Bench, Cell, Said};

pub struct OnSqlite {
    folder: tempfile::TempDir,
    looks: Option<rusqlite::Connection>,
}

impl OnSqlite {
    /// In memory where the system has such a folder: these tests are about rules, not about the disk.
    pub fn new() -> OnSqlite {
        let shm = std::path::Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        OnSqlite { folder: folder.expect("a folder for the store"), looks: None }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("owlpost.db")
    }

    pub fn settings(&self, policy: Arc<Said>, limits: Limits, opening: Opening) -> Settings {
        Settings {
            path: self.path(),
            opening,
            migrate: true,
            limits,
            policy,
            account: Some("test/one".into()),
            // So that after a few events some are young and some are old.
            young_events: 1,
        }
    }

    fn look(&self) -> &rusqlite::Connection {
        self.looks.as_ref().expect("the store was opened")
    }
}

impl Bench for OnSqlite {
    fn open(&mut self, policy: Arc<Said>, limits: Limits, now: Time) -> Result<Arc<dyn Store>> {
        let store = Sqlite::open(self.settings(policy, limits, Opening::Worker), now)?;
        let looks = rusqlite::Connection::open(self.path()).unwrap();
        looks.busy_timeout(Duration::from_secs(10)).unwrap();
        self.looks = Some(looks);
        Ok(Arc::new(store))
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Cell>> {
        let mut found = self.look().prepare_cached(sql).unwrap();
        let columns = found.column_count();
        let cell = |value: ValueRef<'_>| match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(n) => Cell::Int(n),
            ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
            other => panic!("neither a number nor a text: {other:?}"),
        };
        found
            .query_map([], |row| (0..columns).map(|i| Ok(cell(row.get_ref(i)?))).collect())
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    }

    fn run(&self, sql: &str) {
        self.look().execute_batch(sql).unwrap();
    }

    fn rest(&self) {}
}
