//! The PostgreSQL store under test: a database of its own on a server that the tests share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use owlpost::clock::Clock;
use owlpost::model::Time;
use owlpost::store::postgres::{Access, Password, Postgres, Settings};
use owlpost::store::{Limits, Opening, Result, Store};
use tokio::runtime::Runtime;

use crate::bench::{Bench, Cell, Said, Setup};
use crate::postgres::{Admin, Database, PASSWORD, Server, Value};
use crate::process::until;

/// Connections of one store: a test calls it one after another, more are for the calls that need two.
const POOL: usize = 3;

/// The tests' time is no server's.
struct At(Time);

impl Clock for At {
    fn now(&self) -> Time {
        self.0
    }
}

/// The store's connections live here; calls come from the tests' own runtimes.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    RUNTIME.get_or_init(build)
}

/// A database with the schema, made once: a test's own is a copy of it.
fn template() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let database = Server::shared().database(None);
        let policy = Arc::new(Said(Mutex::new(Setup::default())));
        let settings = settings(&database, policy, Setup::default().limits, Opening::Operator);
        drop(runtime().block_on(Postgres::open(settings, Arc::new(At(Time(0))))).unwrap());
        let name = database.name.clone();
        // It stays until the server ends.
        std::mem::forget(database);
        let admin = Server::shared().admin("postgres");
        let others = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
        until("nobody in the template", || (admin.rows(&others) == [[Value::Int(0)]]).then_some(()));
        name
    })
}

fn settings(database: &Database, policy: Arc<Said>, limits: Limits, opening: Opening) -> Settings {
    Settings {
        access: Access {
            url: database.url(),
            password: Password::Fixed(PASSWORD.into()),
            ca_file: None,
            transaction_pooler: false,
        },
        pool: POOL,
        opening,
        migrate: true,
        limits,
        policy,
        account: Some("test/one".into()),
    }
}

/// Makes a database as good as new in a few milliseconds; making one takes a hundred times as long.
const RESET: &str = "DO $$
DECLARE t regclass;
BEGIN
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
        AND relname NOT IN ('meta', 'refinery_schema_history')
    LOOP
        IF pg_relation_size(t) > 400000 THEN EXECUTE format('TRUNCATE %s', t);
        ELSIF pg_relation_size(t) > 0 THEN EXECUTE format('DELETE FROM %s', t);
        END IF;
    END LOOP;
    UPDATE meta SET mails_sent = 0;
    PERFORM setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
END $$";

/// Databases that a test is done with.
static CLEAN: Mutex<Vec<(Admin, Database)>> = Mutex::new(Vec::new());

pub struct OnPostgres {
    /// Until it is dropped.
    own: Option<(Admin, Database)>,
}

impl OnPostgres {
    pub fn new() -> OnPostgres {
        let clean = CLEAN.lock().unwrap_or_else(PoisonError::into_inner).pop();
        clean.map_or_else(OnPostgres::unused, |own| OnPostgres { own: Some(own) })
    }

    /// One that no test used before: what the planner believes of its tables is what the migrations left.
    pub fn unused() -> OnPostgres {
        let database = Server::shared().database(Some(template()));
        OnPostgres { own: Some((database.admin(), database)) }
    }

    fn own(&self) -> &(Admin, Database) {
        self.own.as_ref().expect("it is there until it is dropped")
    }

    pub fn settings(&self, policy: Arc<Said>, limits: Limits, opening: Opening) -> Settings {
        settings(&self.own().1, policy, limits, opening)
    }
}

impl Bench for OnPostgres {
    fn open(&mut self, policy: Arc<Said>, limits: Limits, now: Time) -> Result<Arc<dyn Store>> {
        let settings = self.settings(policy, limits, Opening::Worker);
        Ok(Arc::new(runtime().block_on(Postgres::open(settings, Arc::new(At(now))))?))
    }

    fn is_alone(&self) -> bool {
        false
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Cell>> {
        let cell = |value| match value {
            Value::Null => Cell::Null,
            Value::Int(n) => Cell::Int(n),
            Value::Text(text) => Cell::Text(text),
        };
        // Its items name their digest themselves.
        let sql = sql.replace("placed_item", "item");
        self.own().0.rows(&sql).into_iter().map(|row| row.into_iter().map(cell).collect()).collect()
    }

    fn run(&self, sql: &str) {
        self.own().0.run(sql);
    }

    fn rest(&self) {
        self.own().0.run("VACUUM");
    }
}

impl Drop for OnPostgres {
    fn drop(&mut self) {
        if let Some((looks, database)) = self.own.take()
            && looks.try_run(RESET).is_ok()
        {
            CLEAN.lock().unwrap_or_else(PoisonError::into_inner).push((looks, database));
        }
    }
}
