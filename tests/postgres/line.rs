//! Two batches of one loop in the store at once: the second writes its events ahead, and is taken after the first, or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use owlpost::model::{Effect, Entry, Receipt, Time, Topic};
use owlpost::store::postgres::Postgres;
use owlpost::store::{Delivery as _, Intake as _, Line, Opening, StoreError};
use tokio::task::JoinHandle;

use crate::cuts::with_cuts;
use crate::postgres::{Admin, Database, Server, Value};
use crate::process::until;
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};

type Taken = Result<Vec<Receipt>, StoreError>;

/// A store that knows bob and ann, and whoever holds bob's mailbox: a batch that brings him something waits at its second
/// half.
struct World {
    store: Arc<Postgres>,
    database: Database,
    other: Admin,
    look: Admin,
    line: Line,
}

impl World {
    fn new() -> World {
        let database = Server::shared().database(None);
        let store = open(database.url());
        accept(&store, vec![news("known-ann", "ann"), news("known-bob", "bob")]).unwrap();
        let (other, look) = (database.admin(), database.admin());
        other.run("BEGIN; SELECT 1 FROM mailbox WHERE recipient = 'bob' FOR UPDATE");
        World { store, database, other, look, line: Line::default() }
    }

    fn give(&mut self, entries: Vec<Entry>) -> JoinHandle<Taken> {
        let (store, place) = (self.store.clone(), self.line.place());
        runtime().spawn(async move { store.accept_in_line(NOW, Arc::new(entries), place).await })
    }

    fn count(&self, what: &str) -> i64 {
        match self.look.rows(&format!("SELECT count(*) FROM {what}"))[0][0] {
            Value::Int(n) => n,
            ref other => panic!("no count: {other:?}"),
        }
    }

    fn sessions(&self, which: &str) -> i64 {
        self.count(&format!("pg_stat_activity WHERE datname = '{}' AND {which}", self.database.name))
    }

    /// Both are in the store: the first waits for bob's mailbox, the second has written what it may.
    fn until_ahead(&self) {
        let which = "state = 'idle in transaction' AND query LIKE 'INSERT INTO %'";
        until("a batch that waits", || (self.sessions(WAITS) == 1).then_some(()));
        until("a batch ahead", || (self.sessions(which) == 1).then_some(()));
    }
}

const WAITS: &str = "wait_event_type = 'Lock' AND query LIKE '%mailbox%'";

fn ends(task: JoinHandle<Taken>) -> Taken {
    runtime().block_on(task).unwrap()
}

fn speaks(id: &str, who: &str, effect: Effect, seconds: i64) -> Entry {
    let mut entry = news(id, who);
    if let Entry::Event(arrival) = &mut entry {
        (arrival.event.effect, arrival.time) = (effect, Time(NOW.0 + seconds * 1_000_000));
    }
    entry
}

fn opens(id: &str, who: &str, about: &str) -> Entry {
    speaks(id, who, Effect::Opens { topic: Topic::of(&["test", about]), date: None }, 0)
}

fn closes(id: &str, who: &str, about: &str) -> Entry {
    speaks(id, who, Effect::Closes { topics: vec![Topic::of(&["test", about])] }, 1)
}

fn first() -> Vec<Entry> {
    vec![opens("r1", "bob", "one"), news("n1", "bob")]
}

/// A copy, a decision about the first's request, and what has nothing to do with it.
fn second() -> Vec<Entry> {
    vec![news("n1", "bob"), closes("d1", "ann", "one"), news("n2", "kim"), opens("r2", "kim", "two")]
}

#[test]
fn a_batch_writes_its_events_ahead_and_copies_and_decisions_meet_the_batch_before() {
    use Receipt::{Accepted, Duplicate};
    let mut w = World::new();
    let one = w.give(first());
    let two = w.give(second());
    w.until_ahead();
    assert!(!one.is_finished() && !two.is_finished());
    assert_eq!(w.count("event"), 2, "nothing is there before it is durable");
    w.other.run("ROLLBACK");
    assert_eq!(ends(one).unwrap(), [Accepted, Accepted]);
    assert_eq!(ends(two).unwrap(), [Duplicate, Accepted, Accepted, Accepted]);
    let withdrawn = "item i JOIN event e ON e.no = i.event_no WHERE e.id = 'r1' AND i.state = 3";
    assert_eq!(w.count(withdrawn), 1, "it was decided");
    assert_eq!(w.count("subject"), 2);
    assert_eq!(verified(&w.store)["items"], 7);
}

/// Its own requests and decisions too: where all of a topic is new with a batch, its marks are entered ahead.
#[test]
fn what_a_batch_asks_and_decides_itself_is_ended_in_it_also_ahead() {
    use Receipt::Accepted;
    let mut w = World::new();
    let second = vec![
        // Decided here; decided here, but asked by the batch before; and a request to which the batch before has a decision.
        closes("d5", "ann", "five"),
        opens("r5", "kim", "five"),
        closes("d1", "ann", "one"),
        opens("r6", "kim", "six"),
        opens("r7", "kim", "seven"),
    ];
    let one = w.give([first(), vec![closes("d6", "ann", "six")]].concat());
    let two = w.give(second);
    w.until_ahead();
    w.other.run("ROLLBACK");
    assert_eq!(ends(one).unwrap(), vec![Accepted; 3]);
    assert_eq!(ends(two).unwrap(), vec![Accepted; 5]);
    for (opened, state) in [("r1", 3), ("r5", 3), ("r6", 3), ("r7", 0)] {
        let what = format!("item i JOIN event e ON e.no = i.event_no WHERE e.id = '{opened}' AND i.state = {state}");
        assert_eq!(w.count(&what), 1, "{opened}");
    }
    // Who asks again finds what was decided: each chain is whole.
    let again = vec![closes("d5-2", "ann", "five"), closes("d7", "ann", "seven")];
    assert_eq!(accept(&w.store, again).unwrap(), vec![Accepted; 2]);
    assert_eq!(w.count("item i JOIN event e ON e.no = i.event_no WHERE e.id = 'r7' AND i.state = 3"), 1);
    assert_eq!(verified(&w.store)["items"], 12);
}

#[test]
fn what_came_later_is_not_taken_if_the_batch_before_fails() {
    let mut w = World::new();
    // Nothing of it needs what is held: only the batch before is in its way.
    let second = || second().split_off(1);
    let one = w.give(first());
    let two = w.give(second());
    w.until_ahead();
    w.look.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND {WAITS}",
        w.database.name
    ));
    for task in [one, two] {
        assert!(matches!(ends(task), Err(StoreError::Unavailable(_))));
    }
    w.other.run("ROLLBACK");
    assert_eq!((w.count("event"), w.count("subject")), (2, 0), "nothing of either");
    // As the source gives them again.
    w.line = Line::default();
    let (one, two) = (w.give(first()), w.give(second()));
    assert_eq!(ends(one).unwrap(), vec![Receipt::Accepted; 2]);
    assert_eq!(ends(two).unwrap(), vec![Receipt::Accepted; 3]);
    assert_eq!(verified(&w.store)["items"], 7);
}

/// It lost a race when the next had written its events: they are not in its way.
#[test]
fn a_batch_that_is_begun_anew_is_taken_before_the_one_that_is_ahead() {
    let mut w = World::new();
    w.other.run("SET deadlock_timeout = '60s'");
    let both = || [first(), vec![news("a1", "ann")]].concat();
    let one = w.give(both());
    let two = w.give(second());
    w.until_ahead();
    // Ann's mailbox, which the first has: now each waits for the other, and the first sees it.
    w.other.run("SELECT 1 FROM mailbox WHERE recipient = 'ann' FOR UPDATE; ROLLBACK");
    assert_eq!(ends(one).unwrap(), vec![Receipt::Accepted; 3]);
    assert_eq!(ends(two).unwrap()[1..], vec![Receipt::Accepted; 3]);
    assert_eq!(verified(&w.store)["items"], 8);
}

#[test]
fn who_waits_long_for_the_batch_before_lets_go_of_its_events_and_comes_in_its_turn() {
    let mut w = World::new();
    let one = w.give(first());
    let two = w.give(second());
    w.until_ahead();
    // Another worker's copy of what the second has written.
    let elsewhere = try_open(settings(w.database.url(), Opening::Worker)).unwrap();
    assert_eq!(accept(&elsewhere, vec![news("n2", "kim")]).unwrap(), [Receipt::Accepted]);
    assert!(!one.is_finished() && !two.is_finished());
    w.other.run("ROLLBACK");
    assert_eq!(ends(one).unwrap(), vec![Receipt::Accepted; 2]);
    use Receipt::{Accepted, Duplicate};
    assert_eq!(ends(two).unwrap(), [Duplicate, Accepted, Duplicate, Accepted]);
    assert_eq!(verified(&w.store)["items"], 7);
}

/// Wherever the two are just then.
#[test]
fn cut_connections_lose_nothing_of_two_batches_and_repeat_nothing() {
    const BATCHES: usize = 40;
    let database = Server::shared().database(None);
    let store = open(database.url());
    // Every batch has copies of the one before it, and decides what that one asks.
    let batch = |n: usize| {
        let mut entries: Vec<Entry> = (0..20).map(|i| news(format!("{n}-{i}"), &format!("p{}", i % 7))).collect();
        entries.push(opens(&format!("ask-{n}"), "bob", &n.to_string()));
        if n > 0 {
            entries
                .extend([news(format!("{}-3", n - 1), "p3"), closes(&format!("say-{n}"), "ann", &(n - 1).to_string())]);
        }
        entries
    };
    with_cuts(&database, |taken| {
        while taken.load(Ordering::Relaxed) < BATCHES {
            let (from, mut line) = (taken.load(Ordering::Relaxed), Line::default());
            let pair: Vec<_> = (from..(from + 2).min(BATCHES))
                .map(|n| {
                    let (store, place, entries) = (store.clone(), line.place(), Arc::new(batch(n)));
                    runtime().spawn(async move { store.accept_in_line(NOW, entries, place).await })
                })
                .collect();
            let ended: Vec<bool> = pair.into_iter().map(|task| ends(task).is_ok()).collect();
            assert!(ended.is_sorted_by(|a, b| a >= b), "none after one that failed: {ended:?}");
            taken.fetch_add(ended.into_iter().filter(|ok| *ok).count(), Ordering::Relaxed);
        }
    });
    until("a look that is not cut", || runtime().block_on(store.next_due(&ask())).ok());
    assert_eq!(verified(&store)["items"], (BATCHES * 21 + BATCHES - 1) as u64);
    let withdrawn = "SELECT count(*) FROM item WHERE state = 3";
    assert_eq!(database.admin().rows(withdrawn), [[Value::Int(BATCHES as i64 - 1)]]);
}

/// Few topics, dated twins, decisions about two of them, copies and equal times: whatever was written ahead, and whatever was
/// guessed of a chain, the store is what it is when one batch follows another.
#[test]
fn batches_that_go_ahead_leave_the_store_that_one_after_the_other_leaves() {
    const BATCHES: u64 = 12;
    let (database, alone) = (Server::shared().database(None), Server::shared().database(None));
    let (store, single) = (open(database.url()), open(alone.url()));
    for first in (0..BATCHES).step_by(3) {
        let mut line = Line::default();
        let tasks: Vec<_> = (first..first + 3)
            .map(|n| {
                let (store, place, entries) = (store.clone(), line.place(), Arc::new(mixed(n)));
                runtime().spawn(async move { store.accept_in_line(NOW, entries, place).await })
            })
            .collect();
        for (n, task) in (first..).zip(tasks) {
            assert_eq!(ends(task).unwrap(), accept(&single, mixed(n)).unwrap(), "batch {n}");
        }
    }
    assert_eq!(verified(&store)["items"], verified(&single)["items"]);
    let (ahead, after) = (database.admin(), alone.admin());
    for what in [ITEMS, SUBJECTS, STANDINGS, CHAINS] {
        let (ahead, after) = (ahead.rows(what), after.rows(what));
        assert!(ahead.len() > 50, "{what}: {ahead:?}");
        assert_eq!(format!("{ahead:?}"), format!("{after:?}"), "{what}");
    }
    // Each chain has each of its topic's events once.
    for look in [database.admin(), alone.admin()] {
        assert!(look.rows(BROKEN).is_empty(), "{:?}", look.rows(BROKEN));
    }
}

const ITEMS: &str = "SELECT e.id, m.recipient, i.state, i.reason FROM item i JOIN event e ON e.no = i.event_no \
     JOIN mailbox m ON m.no = i.mailbox_no ORDER BY e.id, m.recipient, m.route";
const SUBJECTS: &str = "SELECT encode(s.topic, 'hex'), l.id, b.id, c.id, o.id FROM subject s JOIN event l ON l.no = s.latest_no \
     LEFT JOIN event b ON b.no = s.before_no LEFT JOIN event c ON c.no = s.closer_no LEFT JOIN event o ON o.no = s.lone \
     ORDER BY s.topic";
const STANDINGS: &str =
    "SELECT encode(topic, 'hex'), recipient, own_ver, told_ver FROM standing ORDER BY topic, recipient";
const CHAINS: &str = "SELECT encode(topic, 'hex'), count(*), string_agg(id, ' ' ORDER BY id) FROM event WHERE topic IS NOT NULL \
     GROUP BY topic ORDER BY topic";
/// Topics whose chain from the head is not all of their events, or has one twice.
const BROKEN: &str = "WITH RECURSIVE chain(topic, no, n) AS (SELECT topic, head, 1 FROM subject UNION ALL SELECT c.topic, \
     CASE WHEN e.topic = c.topic THEN e.prev ELSE e.prev2 END, n + 1 FROM chain c JOIN event e ON e.no = c.no WHERE n < 10000) \
     SELECT encode(s.topic, 'hex') FROM subject s WHERE (SELECT array_agg(e.no ORDER BY e.no) FROM event e WHERE \
     e.topic = s.topic OR e.topic2 = s.topic) IS DISTINCT FROM (SELECT array_agg(c.no ORDER BY c.no) FROM chain c WHERE \
     c.topic = s.topic AND c.no IS NOT NULL)";

/// Two hundred events of the batch of this number; some are of the one before.
fn mixed(n: u64) -> Vec<Entry> {
    let one = |i: u64| {
        // splitmix64: a number that looks random, of these three.
        let dice = |salt: u64, sides: u64| {
            let x = (n << 32 | i << 16 | salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            (x ^ x >> 31) % sides
        };
        // A third of the topics are of this batch alone.
        let topic = |salt: u64| match dice(salt, 3) {
            0 => Topic::of(&["mine", &n.to_string(), &dice(salt + 1, 20).to_string()]),
            _ => Topic::of(&["all", &dice(salt + 1, 60).to_string()]),
        };
        let who = ["ann", "bob", "kim", "lee", "pat"][dice(3, 5) as usize];
        // One in ten has the id of an event of the batch before, or of this one.
        let id = match dice(4, 10) {
            0 => format!("{}-{}", n.saturating_sub(1), dice(5, 200)),
            _ => format!("{n}-{i}"),
        };
        let date = (dice(6, 3) > 0).then(|| Time(NOW.0 + dice(7, 2) as i64 * 86_400_000_000));
        let effect = match dice(8, 10) {
            0 => Effect::Informs,
            1 => Effect::Closes { topics: vec![topic(9)] },
            2 => {
                let mut topics = vec![topic(9), topic(12)];
                topics.sort_unstable();
                topics.dedup();
                Effect::Closes { topics }
            }
            _ => Effect::Opens { topic: topic(9), date },
        };
        speaks(&id, who, effect, dice(15, 40) as i64)
    };
    (0..200).map(one).collect()
}
