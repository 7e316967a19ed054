//! The stores under test. A rule holds in every store, so each test runs on all of them: another store is another factory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::model::{AttemptId, Priority, Time};
use owlpost::store::{Limits, Policy, Result, Rules, Store, Window};

pub use crate::on_postgres::OnPostgres;
pub use crate::on_sqlite::OnSqlite;

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
    /// Whether the worker's configuration has the routes at all.
    pub known: bool,
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
            known: true,
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
    fn knows(&self, _route: &str) -> bool {
        self.setup().known
    }

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
        let ends = window.first_at.plus(self.setup().window);
        window.deadline.map_or(ends, |deadline| ends.min(deadline))
    }

    fn plans(&self) -> String {
        format!("{:?}", self.setup())
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
    /// A worker that has opened it knows that there is no other.
    fn is_alone(&self) -> bool;
    fn rows(&self, sql: &str) -> Vec<Vec<Cell>>;
    fn run(&self, sql: &str);
    /// What the database does by itself when it has time.
    fn rest(&self);
}

/// A fresh database of every kind; with `OWLPOST_STORES=sqlite` of that one.
pub fn benches() -> Vec<Box<dyn Bench>> {
    let only = std::env::var("OWLPOST_STORES").unwrap_or_default();
    let mut all: Vec<Box<dyn Bench>> = vec![Box::new(OnSqlite::new())];
    if only != "sqlite" {
        all.push(Box::new(OnPostgres::new()));
    }
    all
}
