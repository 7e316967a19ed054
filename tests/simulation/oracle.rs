//! What must be true, whatever happens. Reads the store's rows, but decides by the events' own facts and by what the
//! mail server saw; it knows nothing of marks, windows, leases or chains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use owlpost::model::{Entry, Receipt};
use owlpost::store::{Answer, Begun, Command, Evidence, Intent, Learned, Leased, Report};
use rusqlite::{Connection, OptionalExtension};

use crate::broker::What;
use crate::events::{Does, Fact};
use crate::world::{ItemKey, Shared, World, lock};

pub const ATTEMPTS_MAX: i64 = 4;
pub const MAX_LISTED: usize = 3;

const PENDING: i64 = 0;
const IN_DOUBT: i64 = 1;
const DELIVERED: i64 = 2;
const WITHDRAWN: i64 = 3;
const SUPPRESSED: i64 = 4;
const DEAD: i64 = 5;

const ACCEPTED: i64 = 2;

pub struct Oracle {
    world: Shared,
    conn: Connection,
}

pub struct Row {
    pub key: ItemKey,
    pub state: i64,
    pub reason: Option<i64>,
    pub digest: Option<i64>,
}

impl Oracle {
    pub fn new(world: Shared, path: &Path) -> Oracle {
        let conn = Connection::open(path).unwrap();
        conn.set_prepared_statement_cache_capacity(64);
        Oracle { world, conn }
    }

    pub fn rows(&self) -> Vec<Row> {
        let mut all = self
            .conn
            .prepare_cached(
                "SELECT e.source, e.id, m.recipient, m.route, i.state, i.reason, i.digest_no FROM placed_item i \
                 JOIN event e ON e.no = i.event_no JOIN mailbox m ON m.no = i.mailbox_no ORDER BY 1, 2, 3, 4",
            )
            .unwrap();
        all.query_map([], |r| {
            Ok(Row {
                key: (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?),
                state: r.get(4)?,
                reason: r.get(5)?,
                digest: r.get(6)?,
            })
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
    }

    fn durable(&self) -> BTreeSet<(String, String)> {
        let mut all = self.conn.prepare_cached("SELECT source, id FROM event").unwrap();
        all.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    /// Bodies of what was refused.
    fn letters(&self) -> Vec<String> {
        let mut all = self.conn.prepare_cached("SELECT body FROM dead_letter ORDER BY 1").unwrap();
        let body = |r: &rusqlite::Row<'_>| Ok(String::from_utf8_lossy(&r.get::<_, Vec<u8>>(0)?).into_owned());
        all.query_map([], body).unwrap().map(Result::unwrap).collect()
    }

    fn number(&self, sql: &str) -> i64 {
        self.conn.prepare_cached(sql).unwrap().query_row([], |r| r.get(0)).unwrap()
    }

    // ---- after each kind of call

    pub fn accepted(&mut self, entries: &[Entry], receipts: &[Receipt]) {
        let (durable, letters) = (self.durable(), self.letters());
        let mut world = lock(&self.world);
        for (entry, receipt) in entries.iter().zip(receipts) {
            let arrival = match entry {
                Entry::Event(arrival) => arrival,
                Entry::Refused(refused) => {
                    let body = String::from_utf8_lossy(&refused.body).into_owned();
                    world.note(format!("refused: {receipt:?}"));
                    assert!(matches!(receipt, Receipt::Refused { .. }), "{receipt:?}");
                    assert!(letters.contains(&body), "ack after durable: {body}");
                    let n = world.poison.iter().position(|p| *p == body).expect("only what is no event is refused");
                    in_order(&world, What::Poison(n), &durable, &letters);
                    continue;
                }
            };
            let event = &arrival.event;
            world.note(format!("accept {} {}: {receipt:?}", event.source, event.id));
            assert!(matches!(receipt, Receipt::Accepted | Receipt::Duplicate), "{receipt:?}");
            assert!(durable.contains(&(event.source.clone(), event.id.clone())), "ack after durable");
            if *receipt == Receipt::Accepted {
                let of = |f: &Fact| f.source == event.source && f.id == event.id;
                let fact = world.facts.iter().position(of).expect("only what was produced is accepted");
                in_order(&world, What::Fact(fact), &durable, &letters);
            }
            // A copy owes nothing new: it may have been accepted under another audience.
            for asked in arrival.asked.iter().filter(|_| *receipt == Receipt::Accepted) {
                for person in &asked.people {
                    world.owed.insert((
                        event.source.clone(),
                        event.id.clone(),
                        person.principal.clone(),
                        asked.route.to_string(),
                    ));
                }
            }
        }
    }

    pub fn claimed(&mut self, leased: &[Leased]) {
        let mut world = lock(&self.world);
        for one in leased {
            world.note(format!("claim {} token {} for {}", one.lease.digest.number, one.lease.token, one.recipient));
            assert!(!world.paused.contains("*") && !world.paused.contains(&one.route), "a pause stops sending");
        }
    }

    pub fn begun(&mut self, intents: &[Intent], begun: &[Begun]) {
        let (durable, rows) = (self.durable(), self.rows());
        for (intent, outcome) in intents.iter().zip(begun) {
            let mut world = lock(&self.world);
            let Begun::Send(contents) = outcome else {
                world.note(format!("begin {}: {outcome:?}", intent.lease.digest.number));
                continue;
            };
            let (digest, n) = (contents.attempt.digest.number, contents.attempt.number);
            let route = contents.route.clone();
            let who = contents.recipient.principal.clone();
            let items: Vec<ItemKey> =
                contents.items.iter().map(|i| (i.source.clone(), i.id.clone(), who.clone(), route.clone())).collect();
            let ids: Vec<&str> = items.iter().map(|i| i.1.as_str()).collect();
            world.note(format!("begin {digest}.{n} to {who} by {route}: {}", ids.join(" ")));
            assert!(!items.is_empty(), "no empty mail");
            assert!(items.len() <= MAX_LISTED, "no mail lists more than max_listed");
            assert!(!world.paused.contains("*") && !world.paused.contains(&route), "a pause stops sending");
            let address = contents.recipient.address.clone().unwrap_or_default();
            assert!(!world.suppressed.contains(&address), "nobody is mailed who should not be");
            assert!(address.ends_with("@example.com"), "only allowed domains get mail");
            assert!(contents.open_total >= items.len() as u64, "the total counts what is listed");
            for item in &items {
                assert!(!truly_over(&world, &durable, &rows, item), "no decided request in a mail: {item:?}");
                self.may_list(&world, item, digest, n);
            }
            for (event_no, people) in &intent.audiences {
                let listed = contents.items.iter().find(|i| i.event_number == *event_no);
                let Some(listed) = listed else { continue };
                assert!(people.iter().any(|p| p.principal == who), "leavers get no mail");
                for person in people {
                    let key = (listed.source.clone(), listed.id.clone(), person.principal.clone(), route.clone());
                    if world.fact(&listed.source, &listed.id).is_some_and(|f| f.does == Does::Opens) {
                        assert!(rows.iter().any(|r| r.key == key), "joiners get an item: {key:?}");
                        world.owed.insert(key);
                    }
                }
            }
            if n > 1
                && let Some((before, _)) = world.begun.get(&(digest, n - 1))
            {
                assert!(items.iter().all(|i| before.contains(i)), "a retry lists nothing new");
            }
            assert!(world.begun.insert((digest, n), (items, who)).is_none(), "an attempt begins once");
        }
    }

    /// No item twice, but after an honest doubt on a route that sends again, or a replay.
    fn may_list(&self, world: &World, item: &ItemKey, digest: i64, n: u32) {
        let mut extra = 0;
        for ((d, k), (items, _)) in &world.begun {
            if !items.contains(item) || (*d, *k) == (digest, n) {
                continue;
            }
            let replayed = replays(world, item);
            assert!(*d == digest || replayed > 0, "a digest keeps its id: {item:?}");
            let outcome = self.outcome(*d, *k);
            assert!(outcome != Some(ACCEPTED), "no mail lists what is known to be delivered: {item:?}");
            let sent = world.calls.iter().any(|c| (c.attempt.digest.number, c.attempt.number) == (*d, *k) && c.sent);
            if sent {
                assert!(!world.known_sent.contains(&(*d, *k)) || replayed > 0, "known delivery is recorded: {item:?}");
                assert!(item.3 != "expiries" || replayed > 0, "a route that buries sends nothing twice: {item:?}");
                extra += 1;
            }
            if outcome == Some(0) {
                assert!(item.3 != "expiries" || replayed > 0, "bury never sends again: {item:?}");
            }
        }
        let bound = ATTEMPTS_MAX + replays(world, item) as i64 * ATTEMPTS_MAX;
        assert!(extra <= bound, "doubts are bounded by the attempts: {item:?}");
    }

    fn outcome(&self, digest: i64, n: u32) -> Option<i64> {
        let mut one = self.conn.prepare_cached("SELECT outcome FROM attempt WHERE digest_no = ?1 AND n = ?2").unwrap();
        one.query_row((digest, n), |r| r.get(0)).optional().unwrap()
    }

    /// Attempts that were accepted and did not fail afterwards.
    fn accepted_attempts(&self) -> BTreeSet<(i64, u32)> {
        let mut all = self.conn.prepare_cached("SELECT digest_no, n FROM attempt WHERE outcome = 2").unwrap();
        all.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    pub fn learned(&mut self, evidence: &[Evidence], learned: &[Learned]) {
        let mut world = lock(&self.world);
        for (one, how) in evidence.iter().zip(learned) {
            let key = (one.attempt.digest.number, one.attempt.number);
            // Without the message id: it holds the store's random id.
            let answer = format!("{:?}", one.answer);
            let answer = answer.split([' ', '{']).next().unwrap_or_default();
            world.note(format!("learn {}.{} {answer}: {how:?}", key.0, key.1));
            assert!(*how != Learned::Unknown, "no answer is thrown away");
            if evidence.len() > 1 {
                world.just_learned.insert(key);
            }
            match one.answer {
                Answer::Accepted { .. } => {
                    world.known_sent.insert(key);
                    let outcome = self.outcome(key.0, key.1);
                    assert!(
                        outcome == Some(ACCEPTED) || outcome == Some(3),
                        "evidence of acceptance counts: {outcome:?}"
                    );
                }
                Answer::Failed { .. } => assert_eq!(self.outcome(key.0, key.1), Some(3), "a bounce wins in any order"),
                _ => {}
            }
        }
    }

    /// An operator sends these again; a crash before the answer leaves open whether it took effect.
    /// Gives those of which that was not known before.
    pub fn replaying(&mut self, ids: &[String]) -> Vec<ItemKey> {
        let mut keys: Vec<ItemKey> = ids.iter().map(|id| self.key_of(id)).collect();
        let mut world = lock(&self.world);
        keys.retain(|key| world.replaying.insert(key.clone()));
        keys
    }

    pub fn acted(&mut self, command: &Command, report: &Report) {
        let rows = self.rows();
        let mut world = lock(&self.world);
        world.note(format!("{command:?}: {report:?}"));
        match command {
            Command::Pause { route } => {
                world.paused.insert(route.clone().unwrap_or_else(|| "*".into()));
            }
            Command::Resume { route } => {
                world.paused.remove(&route.clone().unwrap_or_else(|| "*".into()));
            }
            Command::ReplayItems { ids } if report.refused.is_empty() => {
                for id in ids {
                    let key = self.key_of(id);
                    let state = rows.iter().find(|r| r.key == key).map(|r| r.state);
                    assert!(matches!(state, Some(PENDING | WITHDRAWN)), "replay has an effect: {key:?} {state:?}");
                    *world.replays.entry(key).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    fn key_of(&self, id: &str) -> ItemKey {
        let (event, mailbox) = id.trim_start_matches("it-").split_once('-').unwrap();
        self.conn
            .query_row(
                "SELECT e.source, e.id, m.recipient, m.route FROM event e, mailbox m WHERE e.no = ?1 AND m.no = ?2",
                (event, mailbox),
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
            )
            .unwrap()
    }

    // ---- after every call

    pub fn check(&mut self, kind: &str) {
        let (rows, accepted) = (self.rows(), self.accepted_attempts());
        let mut world = lock(&self.world);
        self.ledger_balances(&rows, kind);
        let mut delivered = BTreeSet::new();
        for ((digest, n), (items, _)) in world.begun.iter().filter(|(key, _)| accepted.contains(key)) {
            let of = |c: &crate::world::Call| (c.attempt.digest.number, c.attempt.number) == (*digest, *n);
            assert!(world.calls.iter().any(|c| of(c) && c.sent), "{kind}: delivered is true: {digest}.{n}");
            delivered.extend(items.iter().cloned());
        }
        let mut seen = BTreeMap::new();
        for row in &rows {
            if let Some(old) = world.states.get(&row.key).copied()
                && old != row.state
            {
                assert!(may_move(old, row.state), "{kind}: final is final: {:?} {old} -> {}", row.key, row.state);
                world.trace.push(format!("  {:?} {old} -> {}", row.key, row.state));
            }
            seen.insert(row.key.clone(), row.state);
            let told = delivered.contains(&row.key);
            assert_eq!(row.state == DELIVERED, told, "{kind}: delivered iff an attempt was accepted: {:?}", row.key);
        }
        self.new_notices_go_to_the_told(&world, &rows, kind);
        world.just_learned.clear();
        for key in &world.owed {
            assert!(seen.contains_key(key), "{kind}: what was accepted for somebody has an item: {key:?}");
        }
        world.states = seen;
    }

    /// A notice is owed when it is made: later a late "not sent" may come, or a bounce. What one batch of answers says can't
    /// be told apart here, nor what a crash hid.
    fn new_notices_go_to_the_told(&self, world: &World, rows: &[Row], kind: &str) {
        let new = |r: &&Row| r.key.3 == "handled" && !world.states.contains_key(&r.key);
        for notice in rows.iter().filter(new).filter(|_| kind != "open") {
            let closer = world.fact(&notice.key.0, &notice.key.1).unwrap();
            let told = |key: &ItemKey| {
                let mut mine = world.begun.iter().filter(|(_, (items, _))| items.contains(key));
                mine.any(|((d, n), _)| {
                    matches!(self.outcome(*d, *n), Some(0 | ACCEPTED)) || world.just_learned.contains(&(*d, *n))
                })
            };
            let owed = rows.iter().any(|r| r.key.2 == notice.key.2 && ends(world, closer, &r.key) && told(&r.key));
            assert!(owed, "{kind}: notices only to the told: {:?}", notice.key);
        }
    }

    fn ledger_balances(&self, rows: &[Row], kind: &str) {
        let mut counted = [0i64; 6];
        let mut counts = self
            .conn
            .prepare_cached(
                "SELECT state, sum(n) FROM (SELECT state, n FROM ledger_total UNION ALL SELECT state, n FROM \
                 ledger_delta) GROUP BY state",
            )
            .unwrap();
        for pair in counts.query_map([], |r| Ok((r.get::<_, usize_of>(0)?, r.get::<_, i64>(1)?))).unwrap() {
            let (state, n) = pair.unwrap();
            counted[state.0] = n;
        }
        let mut recounted = [0i64; 6];
        for row in rows {
            recounted[row.state as usize] += 1;
        }
        assert_eq!(counted, recounted, "{kind}: the counts are what a recount finds");
        let broken = [
            (
                "one unfrozen digest a recipient and route",
                "SELECT count(*) FROM (SELECT 1 FROM digest WHERE state IN (0, 1) GROUP BY mailbox_no HAVING count(*) > 1)",
            ),
            (
                "unsettled items sit in open digests",
                "SELECT count(*) FROM placed_item i LEFT JOIN digest d ON d.no = i.digest_no WHERE i.state < 2 AND \
                 (d.no IS NULL OR d.state = 6)",
            ),
            (
                "a digest's open items are counted",
                "SELECT count(*) FROM digest d WHERE d.open <> (SELECT count(*) FROM item WHERE digest_no = d.no AND state < 2) \
                 + (SELECT count(*) FROM item WHERE behind IS NOT NULL AND digest_no IS NULL AND mailbox_no = d.mailbox_no \
                 AND d.state IN (0, 1))",
            ),
            (
                "a window's tail has each of its items once, from the last to the first",
                "SELECT (SELECT count(*) FROM item WHERE behind IS NOT NULL) - (WITH RECURSIVE tail (event_no, mailbox_no) AS \
                 (SELECT tail, mailbox_no FROM digest WHERE tail IS NOT NULL AND state IN (0, 1) UNION ALL SELECT i.behind, \
                 i.mailbox_no FROM tail t JOIN item i ON i.event_no = t.event_no AND i.mailbox_no = t.mailbox_no \
                 WHERE i.behind <> 0) SELECT count(*) FROM tail t JOIN item i ON i.event_no = t.event_no \
                 AND i.mailbox_no = t.mailbox_no)",
            ),
            (
                "a tail is as long as its window says",
                "SELECT count(*) FROM digest d WHERE d.tail_items <> (SELECT count(*) FROM item WHERE behind IS NOT NULL \
                 AND mailbox_no = d.mailbox_no AND d.state IN (0, 1))",
            ),
            ("only windows have a tail", "SELECT count(*) FROM digest WHERE tail IS NOT NULL AND state NOT IN (0, 1)"),
            (
                "whoever is open and names no digest stands in a tail",
                "SELECT count(*) FROM item WHERE digest_no IS NULL AND state < 2 AND behind IS NULL",
            ),
            (
                "in doubt are only items of digests in doubt",
                "SELECT count(*) FROM placed_item i JOIN digest d ON d.no = i.digest_no WHERE (i.state = 1) <> (d.state = 5) AND i.state < 2",
            ),
            (
                "no digest waits with nothing in it",
                "SELECT count(*) FROM digest WHERE open = 0 AND state IN (0, 1, 4, 5)",
            ),
        ];
        for (promise, sql) in broken {
            assert_eq!(self.number(sql), 0, "{kind}: {promise}");
        }
    }

    // ---- at the end

    pub fn everything_came_to_an_end(&mut self) {
        let (rows, durable) = (self.rows(), self.durable());
        let world = lock(&self.world);
        assert_eq!(world.broker.lag(), 0, "the lag falls to 0");
        for fact in &world.facts {
            let here = durable.contains(&(fact.source.clone(), fact.id.clone()));
            assert!(here, "acked is durable: {} {}", fact.source, fact.id);
        }
        assert_eq!(durable.len(), world.facts.len(), "accepted is what was produced");
        let mut poison = world.poison.clone();
        poison.sort();
        assert_eq!(self.letters(), poison, "each input that is no event is one dead letter");
        for row in &rows {
            assert!(row.state > IN_DOUBT, "everything comes to an end: {:?} {}", row.key, row.state);
            let over = truly_over(&world, &durable, &rows, &row.key);
            if row.state == WITHDRAWN && row.key.3 != "handled" {
                assert!(over, "withdrawn only if over: {:?}", row.key);
            }
            if row.state == SUPPRESSED && row.reason == Some(4) {
                let address = crate::faults::person(&row.key.2).address.unwrap_or_default();
                assert!(world.suppressed.contains(&address), "suppressed only if suppressed");
            }
            if row.state == DEAD && row.reason == Some(7) {
                self.attempts_were_made(row);
            }
        }
        assert_eq!(self.number("SELECT count(*) FROM digest WHERE state <> 6"), 0, "all digests are closed");
        self.notices_went_to_the_told(&world, &rows, &durable);
    }

    /// Throttling kills no mail: as many attempts as allowed have really failed, or nobody knows.
    fn attempts_were_made(&self, row: &Row) {
        let digest = row.digest.unwrap();
        let burned = self.number(&format!("SELECT count(*) FROM attempt WHERE digest_no = {digest} AND free = 0"));
        assert!(burned >= ATTEMPTS_MAX, "throttling kills no mail: {:?} after {burned}", row.key);
    }

    fn notices_went_to_the_told(&self, world: &World, rows: &[Row], durable: &BTreeSet<(String, String)>) {
        let outcomes = |key: &ItemKey| -> Vec<i64> {
            let mine = world.begun.iter().filter(|(_, (items, _))| items.contains(key));
            mine.filter_map(|((d, n), _)| self.outcome(*d, *n)).collect()
        };
        let closers: Vec<&Fact> = world
            .facts
            .iter()
            .filter(|f| f.does == Does::Closes && durable.contains(&(f.source.clone(), f.id.clone())))
            .collect();
        for row in rows {
            let told = outcomes(&row.key).iter().any(|o| matches!(*o, 0 | ACCEPTED));
            if !told || !closers.iter().any(|c| ends(world, c, &row.key)) {
                continue;
            }
            let heard = rows.iter().any(|n| {
                n.key.3 == "handled"
                    && n.key.2 == row.key.2
                    && world.fact(&n.key.0, &n.key.1).is_some_and(|c| ends(world, c, &row.key))
            });
            assert!(heard, "whoever was told hears that it is handled: {:?}", row.key);
        }
    }
}

/// What comes of a partition or a group is kept in its order.
fn in_order(world: &World, what: What, durable: &BTreeSet<(String, String)>, letters: &[String]) {
    let is_kept = |other: What| match other {
        What::Fact(n) => durable.contains(&(world.facts[n].source.clone(), world.facts[n].id.clone())),
        What::Poison(n) => letters.contains(&world.poison[n]),
        What::Tombstone | What::Marker => true,
    };
    assert!(world.broker.is_in_order(what, is_kept), "{} is kept, and something before it is not", world.name(what));
}

/// What was asked by this item ends with that event.
fn ends(world: &World, closer: &Fact, item: &ItemKey) -> bool {
    world
        .fact(&item.0, &item.1)
        .is_some_and(|f| f.does == Does::Opens && f.shares_topic(closer) && f.rank() < closer.rank())
}

/// State numbers as they come from SQL.
#[allow(non_camel_case_types)]
struct usize_of(usize);

impl rusqlite::types::FromSql for usize_of {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<usize_of> {
        value.as_i64().map(|n| usize_of(n as usize))
    }
}

fn may_move(from: i64, to: i64) -> bool {
    match from {
        PENDING => true,
        IN_DOUBT => true,
        DELIVERED => to == DEAD,
        WITHDRAWN | SUPPRESSED => to == DELIVERED,
        DEAD => matches!(to, DELIVERED | PENDING | WITHDRAWN),
        _ => false,
    }
}

/// Over, from the whole history, without marks: closed, or replaced by another date, or by a later event that names the
/// same person.
pub fn truly_over(world: &World, durable: &BTreeSet<(String, String)>, rows: &[Row], item: &ItemKey) -> bool {
    let Some(mine) = world.fact(&item.0, &item.1) else { return false };
    if mine.does != Does::Opens {
        return false;
    }
    let here = |f: &&Fact| durable.contains(&(f.source.clone(), f.id.clone()));
    world
        .facts
        .iter()
        .filter(here)
        .filter(|f| f.does != Does::Informs && f.rank() > mine.rank() && f.shares_topic(mine))
        .any(|f| {
            f.does == Does::Closes
                || f.date.is_none()
                || f.date != mine.date
                || rows
                    .iter()
                    .any(|r| r.key.0 == f.source && r.key.1 == f.id && r.key.2 == item.2 && r.key.3 != "handled")
        })
}

/// How often an operator sent it again, as far as anybody can know.
fn replays(world: &World, item: &ItemKey) -> u64 {
    world.replays.get(item).copied().unwrap_or(0) + u64::from(world.replaying.contains(item))
}
