//! What intakes lock, and in which order: they work side by side, and beside those who send.

use std::sync::Arc;
use std::time::Duration;

use owlpost::model::{Effect, Entry, Time};
use owlpost::store::Intake as _;

use crate::postgres::{Server, Value};
use crate::process::until;
use crate::store::{NOW, accept, open, runtime, verified};
use crate::turns::{about, closes, opens, people, send_all, speaks};

/// Only what is open is in the way: nobody waits for a mailbox that nothing of leaves, or comes to.
#[test]
fn a_decision_and_a_twin_lock_the_mailboxes_of_what_is_open_only() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    let (ann, both) = (people(1), people(2));
    let dated = |id: &str, at: i64, who: &[String]| {
        speaks(id.into(), at, Effect::Opens { topic: about(2), date: Some(Time(NOW.0 + 9)) }, who)
    };
    accept(&store, vec![opens(1, &both)]).unwrap();
    send_all(&store);
    accept(&store, vec![dated("e1", 0, &both)]).unwrap();
    let other = database.admin();
    other.run("BEGIN; SELECT 1 FROM mailbox WHERE recipient = 'user.a1' AND route = 'tell' FOR UPDATE");
    // A twin for the first alone, and a decision about what both have been told.
    let within = Duration::from_secs(20);
    let given = store.accept(NOW, Arc::new(vec![dated("e2", 1, &ann), closes(1)]));
    runtime().block_on(async { tokio::time::timeout(within, given).await }).expect("it waits for nobody").unwrap();
    other.run("ROLLBACK");
    assert_eq!(verified(&store)["pending"], 4, "two of the twins, two notices");
}

const SUBJECTS: usize = 1_000;
const PEOPLE: usize = 60;

/// Events about so many subjects that intakes do not wait for those, and so few people that they meet, but not all of them.
struct Traffic {
    dice: u64,
    people: Vec<String>,
}

impl Traffic {
    fn below(&mut self, n: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % n
    }

    fn entry(&mut self) -> Entry {
        let (id, at, topic) = (format!("e{}", self.below(1 << 30)), self.below(1_000) as i64, self.below(SUBJECTS));
        let asked = [(); 3].map(|()| self.below(PEOPLE)).map(|who| self.people[who].clone());
        match self.below(4) {
            0 => speaks(id, at, Effect::Closes { topics: vec![about(topic)] }, &asked[..1]),
            1 => speaks(id, at, Effect::Opens { topic: about(topic), date: None }, &asked),
            _ => {
                let date = Some(Time(NOW.0 + self.below(2) as i64));
                speaks(id, at, Effect::Opens { topic: about(SUBJECTS + topic), date }, &asked)
            }
        }
    }
}

/// Each deadlock costs a second in which the mailboxes of many are locked.
#[test]
fn intakes_side_by_side_lock_in_one_order() {
    let database = Server::shared().database(None);
    let stores: Vec<_> = (0..3).map(|_| open(database.url())).collect();
    let all = people(PEOPLE);
    let two = |n: usize| [n * 7 % PEOPLE, (n * 13 + 1) % PEOPLE].map(|who| all[who].clone());
    accept(&stores[0], (0..SUBJECTS).map(|n| opens(n, &two(n))).collect()).unwrap();
    send_all(&stores[0]);
    std::thread::scope(|threads| {
        for (n, store) in stores.iter().enumerate() {
            threads.spawn(move || {
                let mut traffic = Traffic { dice: n as u64, people: people(PEOPLE) };
                for _ in 0..100 {
                    accept(store, (0..8).map(|_| traffic.entry()).collect()).unwrap();
                    if n == 0 {
                        send_all(store);
                    }
                }
            });
        }
    });
    verified(&stores[0]);
    drop(stores);
    let look = database.admin();
    // What a connection has seen counts when it is gone.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("the connections to go", || matches!(look.rows(others)[0][0], Value::Int(0)).then_some(()));
    let found = look.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert!(matches!(found[0][0], Value::Int(0)), "{found:?}");
}
