//! The stores under test. A rule holds in every store, so each test runs on all of them: another store is another factory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::model::{AttemptId, Priority, Time};
use owlpost::store::sqlite::{Opening, Settings, Sqlite};
use owlpost::store::{Limits, Policy, Result, Rules, Store, Window};
use rusqlite::types::ValueRef;

/// What a test's store is like. Every route has the same rules.
#[derive(Clone, Debug)]
pub struct Setup {
    pub attempts_max: u32,
    pub resend: bool,
    pub max_listed: u32,
    pub hold: bool,
    pub give_up_after: Duration,
    /// How long a window gathers.
    pub window: Duration,
    /// How long a doubt waits for evidence; longer than a lease, so that both ends can be told apart.
    pub grace: Duration,
    pub limits: Limits,
}

pub const LEASE: Duration = Duration::from_secs(90);
pub const DAY: Duration = Duration::from_secs(86_400);

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            attempts_max: 2,
            resend: true,
            max_listed: 9,
            hold: false,
            give_up_after: DAY,
            window: Duration::ZERO,
            grace: Duration::from_secs(3_600),
            limits: Limits { open_items_per_recipient: 10_000, retention: 90 * DAY },
        }
    }
}

/// A policy that a test can change while the store is open.
pub struct Said(pub Mutex<Setup>);

impl Said {
    fn setup(&self) -> Setup {
        self.0.lock().unwrap().clone()
    }
}

impl Policy for Said {
    fn rules(&self, route: &str) -> Rules {
        let s = self.setup();
        Rules {
            priority: if route == "urgent" { Priority::Urgent } else { Priority::Normal },
            hold: s.hold,
            max_listed: s.max_listed,
            attempts_max: s.attempts_max,
            give_up_after: s.give_up_after,
            resend_in_doubt: s.resend,
            doubt_grace: s.grace,
        }
    }

    fn due(&self, _route: &str, _zone: Option<&str>, window: &Window) -> Time {
        window.first_at.plus(self.setup().window)
    }

    fn backoff(&self, _route: &str, _attempt: AttemptId, burned: u32) -> Duration {
        Duration::from_secs(10) * burned
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl Cell {
    pub fn int(&self) -> i64 {
        match self {
            Cell::Int(n) => *n,
            other => panic!("not a number: {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub fn maybe(&self) -> Option<i64> {
        if *self == Cell::Null { None } else { Some(self.int()) }
    }
}

/// One database, and a way to look into its rows that does not pass the store's own code.
pub trait Bench {
    /// Opens the store as its worker; what an earlier worker wrote is still there.
    fn open(&mut self, policy: Arc<Said>, limits: Limits, now: Time) -> Result<Arc<dyn Store>>;
    fn rows(&self, sql: &str) -> Vec<Vec<Cell>>;
    fn run(&self, sql: &str);
}

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
        Settings { path: self.path(), opening, migrate: true, limits, policy, account: Some("test/one".into()) }
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
}

/// A fresh database of every kind.
pub fn benches() -> Vec<Box<dyn Bench>> {
    vec![Box::new(OnSqlite::new())]
}
