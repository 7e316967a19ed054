//! A store on a test's database, and the little that these tests ask of it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use owlpost::clock::Clock;
use owlpost::model::{Arrival, Asked, AttemptId, Data, Effect, Entry, Event, Person, Priority, Receipt, Time};
use owlpost::quota::Terms;
use owlpost::store::postgres::{Access, Password, Postgres, Settings};
use owlpost::store::{
    Ask, Delivery as _, Desk as _, Intake as _, Limits, Opening, Page, Policy, Query, Result, Rows, Rules, Window,
};
use tokio::runtime::Runtime;

use crate::postgres::PASSWORD;

pub const NOW: Time = Time(1_767_571_200_000_000);

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    RUNTIME.get_or_init(build)
}

struct Always;

impl Clock for Always {
    fn now(&self) -> Time {
        NOW
    }
}

pub struct AtOnce;

impl Policy for AtOnce {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn rules(&self, _route: &str) -> Rules {
        Rules {
            priority: Priority::Normal,
            hold: false,
            max_listed: 100,
            attempts_max: 3,
            give_up_after: Duration::from_secs(86_400),
            resend_in_doubt: false,
            doubt_grace: Duration::from_secs(60),
        }
    }

    fn due(&self, _route: &str, _zone: Option<&str>, window: &Window) -> Time {
        window.first_at
    }

    fn plans(&self) -> String {
        String::new()
    }

    fn backoff(&self, _route: &str, _attempt: AttemptId, burned: u32) -> Duration {
        Duration::from_secs(10) * burned
    }
}

pub fn settings(url: String, opening: Opening) -> Settings {
    Settings {
        access: Access { url, password: Password::Fixed(PASSWORD.into()), ca_file: None, transaction_pooler: false },
        pool: 3,
        opening,
        migrate: true,
        limits: Limits { open_items_per_recipient: 100_000, retention: Duration::from_secs(90 * 86_400) },
        policy: Arc::new(AtOnce),
        account: Some("test/one".into()),
    }
}

pub fn try_open(settings: Settings) -> Result<Arc<Postgres>> {
    let store = runtime().block_on(Postgres::open(settings, Arc::new(Always)))?;
    Ok(Arc::new(store))
}

/// As a worker, with an account that lets everything through.
pub fn open(url: String) -> Arc<Postgres> {
    let store = try_open(settings(url, Opening::Worker)).unwrap();
    runtime().block_on(store.account(NOW, Terms::default(), None)).unwrap();
    store
}

pub fn person(who: &str) -> Person {
    Person { principal: who.into(), address: Some(format!("{who}@example.com")), zone: None, language: None }
}

/// News for one person.
pub fn news(id: impl std::fmt::Display, who: &str) -> Entry {
    let event = Event {
        source: "test".into(),
        id: id.to_string(),
        id_counts_for: None,
        kind: "test".into(),
        time: Some(NOW),
        expiry: None,
        deadline: None,
        recipients: None,
        effect: Effect::Informs,
        subject_key: None,
        asker: None,
        domain: None,
        data: Data::default(),
    };
    let asked =
        Asked { route: "tell".into(), references: vec![who.into()], people: vec![Arc::new(person(who))], except: None };
    Entry::Event(Box::new(Arrival { asked: vec![asked], ..Arrival::new(event, NOW) }))
}

pub fn accept(store: &Postgres, entries: Vec<Entry>) -> Result<Vec<Receipt>> {
    runtime().block_on(store.accept(NOW, Arc::new(entries)))
}

pub fn ask() -> Ask {
    Ask { limit: 100, lease: Duration::from_secs(90), everything: false }
}

/// The ledger balances; gives how many items there are by state.
pub fn verified(store: &Postgres) -> BTreeMap<&'static str, u64> {
    match runtime().block_on(store.read(&Query::Verify, Page::FIRST)).unwrap() {
        Rows::Verified(found) => {
            assert_eq!(found.differences, [] as [&str; 0]);
            let l = found.counted;
            BTreeMap::from([("items", l.items), ("pending", l.pending), ("delivered", l.delivered)])
        }
        other => panic!("not verified: {other:?}"),
    }
}
