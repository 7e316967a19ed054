//! Traffic whose outcome is known, and what must be true of a worker's store and outbox after it: the oracle of the tests
//! that kill.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::process::{Random, until};

const APPROVERS: u64 = 7;

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}")))
}

/// One request, and whether somebody decided it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub approvers: BTreeSet<String>,
    pub decided: bool,
    /// The decision was sent, and acknowledged, before the request.
    pub decided_first: bool,
}

/// What was published: the oracle's whole knowledge. Request n has the id `q<n>` and is about role `kill-<n>-`, its
/// decision the id `d<n>`.
pub struct Plan {
    pub asked: Vec<Asked>,
    /// In the order of sending.
    pub events: Vec<String>,
}

pub fn plan(random: &mut Random, requests: u64) -> Plan {
    let mut plan = Plan { asked: vec![], events: vec![] };
    let mut late: Vec<(u64, String)> = vec![];
    for n in 0..requests {
        let mut approvers = BTreeSet::new();
        for _ in 0..=random.below(3) {
            approvers.insert(format!("user.a{}", random.below(APPROVERS)));
        }
        let decided = random.below(3) == 0;
        let decided_first = decided && random.below(4) == 0;
        let about = format!(
            r#""domain":"sports","collection":{{"kind":"role","name":"kill-{n}-"}},"member":"user.m{n}","change":"add","requester":"user.m{n}""#
        );
        let named: Vec<String> = approvers.iter().map(|a| format!("\"{a}\"")).collect();
        let request = event("requested", &format!("q{n}"), 0, &format!("{about},\"recipients\":[{}]", named.join(",")));
        let decision = event(
            "decided",
            &format!("d{n}"),
            1,
            &format!(r#"{about},"decision":"approve","actor":"user.chief","recipients":["user.m{n}"]"#),
        );
        if decided_first {
            plan.events.push(decision);
            plan.events.push(request);
        } else {
            if random.below(10) == 0 {
                plan.events.push(request.clone());
            }
            plan.events.push(request);
            if decided {
                late.push((n + random.below(40), decision));
            }
        }
        plan.asked.push(Asked { approvers, decided, decided_first });
        let due = |(at, _): &(u64, String)| *at <= n;
        plan.events.extend(late.iter().filter(|d| due(d)).map(|(_, e)| e.clone()));
        late.retain(|d| !due(d));
    }
    plan.events.extend(late.into_iter().map(|(_, e)| e));
    plan
}

/// All requests happened at one second, all decisions at a later one: only that order counts.
fn event(kind: &str, id: &str, second: u8, data: &str) -> String {
    let day = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let day = day.strftime("%Y-%m-%d");
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"zms/kill","type":"io.athenz.membership.{kind}.v1","time":"{day}T10:00:0{second}Z","data":{{{data}}}}}"#
    )
}

/// On a SQLite file in that folder.
pub fn config(folder: &Path, name: &str, source: &str) {
    config_on(folder, name, source, "url = \"sqlite:owlpost.db\"", "outbox");
}

/// `store`: the keys of `[store]`; `outbox`: the folder of the mails. A kill in the middle of a call burns an attempt, and of fifty
/// kills more than the usual eight may come in the middle of one mail's.
pub fn config_on(folder: &Path, name: &str, source: &str, store: &str, outbox: &str) {
    let text = format!(
        r#"
{source}
[store]
{store}
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "outbox"
dir = "{outbox}"
from = "Athenz <access@example.com>"
[limits]
batch_events = 25
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
attempts_max = 1000
priority = "urgent"
cadence = {{ first_after = "20ms" }}
[[route]]
name = "decisions"
types = ["io.athenz.membership.decided.v1"]
template = "decisions"
attempts_max = 1000
[[route]]
name = "handled"
types = []
template = "decisions"
attempts_max = 1000
cadence = {{ first_after = "50ms" }}
[log]
format = "json"
"#
    );
    fs::write(folder.join(name), text).unwrap();
}

pub fn mails(folder: &Path) -> usize {
    let Ok(listing) = fs::read_dir(folder.join("outbox")) else { return 0 };
    listing.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "eml")).count()
}

/// Waits until so many mails or acknowledgements more are there, or nothing moves any more, then a random moment longer.
pub fn random_moment(random: &mut Random, still: Duration, progress: impl Fn() -> usize) {
    let target = progress() + 1 + random.below(25) as usize;
    let (mut last, mut since) = (progress(), Instant::now());
    until("a moment to kill", || {
        let now = progress();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now >= target || since.elapsed() > still).then_some(())
    });
    let spin = Instant::now() + Duration::from_micros(random.below(20_000));
    while Instant::now() < spin {
        std::hint::spin_loop();
    }
}

/// An item as the store tells it. States are the numbers of `model.rs`.
#[derive(Debug)]
struct Item {
    event: String,
    recipient: String,
    route: String,
    state: i64,
    reason: Option<i64>,
    /// (digest, attempt, outcome) of each attempt that listed it; 0 unknown, 1 refused, 2 accepted.
    tries: Vec<(i64, i64, i64)>,
}

const DELIVERED: i64 = 2;
const WITHDRAWN: i64 = 3;

/// Rows of the store's database, past its own code; each cell as text.
pub type Rows<'r> = &'r dyn Fn(&str) -> Vec<Vec<Option<String>>>;

fn int(cell: &Option<String>) -> Option<i64> {
    cell.as_ref().map(|text| text.parse().unwrap())
}

fn items(rows: Rows<'_>) -> Vec<Item> {
    let mut attempts: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for row in rows("SELECT digest_no, n, outcome FROM attempt ORDER BY digest_no, n") {
        attempts.entry(int(&row[0]).unwrap()).or_default().push((int(&row[1]).unwrap(), int(&row[2]).unwrap()));
    }
    let found = rows(
        "SELECT e.id, m.recipient, m.route, i.state, i.reason, i.digest_no, i.left_before FROM item i \
         JOIN event e ON e.no = i.event_no JOIN mailbox m ON m.no = i.mailbox_no",
    );
    let item = |row: Vec<Option<String>>| {
        let (digest, left) = (int(&row[5]), int(&row[6]).unwrap_or(i64::MAX));
        let of_digest = digest.and_then(|no| attempts.get(&no)).into_iter().flatten();
        let tries = of_digest.filter(|(n, _)| *n < left).map(|(n, outcome)| (digest.unwrap_or(0), *n, *outcome));
        Item {
            event: row[0].clone().unwrap(),
            recipient: row[1].clone().unwrap(),
            route: row[2].clone().unwrap(),
            state: int(&row[3]).unwrap(),
            reason: int(&row[4]),
            tries: tries.collect(),
        }
    };
    found.into_iter().map(item).collect()
}

/// The roles that each mail in the folder names, by (digest, attempt).
fn told(folder: &Path) -> BTreeMap<(i64, i64), BTreeSet<u64>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder.join("outbox")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|x| x != "eml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (digest, attempt) = name.rsplit_once('.').unwrap();
        let number = i64::from_str_radix(digest.split_once('-').unwrap().1, 36).unwrap();
        let html = fs::read_to_string(path.with_extension("html")).unwrap();
        let roles = html.split("kill-").skip(1).filter_map(|rest| rest.split_once('-')?.0.parse().ok());
        assert!(all.insert((number, attempt.parse().unwrap()), roles.collect()).is_none(), "{name} is there twice");
    }
    all
}

/// The SQLite file in that folder.
pub fn compare(folder: &Path, plan: &Plan) {
    let conn = Connection::open(folder.join("owlpost.db")).unwrap();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let rows = |sql: &str| -> Vec<Vec<Option<String>>> {
        let mut found = conn.prepare(sql).unwrap();
        let columns = found.column_count();
        let text = |value| match value {
            Value::Null => None,
            Value::Integer(n) => Some(n.to_string()),
            Value::Text(text) => Some(text),
            other => panic!("neither a number nor a text: {other:?}"),
        };
        let cells = |row: &rusqlite::Row<'_>| (0..columns).map(|i| row.get(i).map(text)).collect();
        found.query_map([], cells).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    };
    compare_rows(&rows, folder, plan);
}

pub fn compare_rows(look: Rows<'_>, folder: &Path, plan: &Plan) {
    let one = |q: &str| -> i64 { int(&look(q)[0][0]).unwrap() };
    let decisions = plan.asked.iter().filter(|a| a.decided).count();
    assert_eq!(one("SELECT count(*) FROM event") as usize, plan.asked.len() + decisions, "each event once");
    assert_eq!(one("SELECT count(*) FROM digest WHERE state <> 6"), 0, "every digest is closed");
    let ledger = look(
        "SELECT state, CAST(sum(n) AS bigint) FROM (SELECT state, n FROM ledger_total UNION ALL \
         SELECT state, n FROM ledger_delta) AS counted GROUP BY state HAVING sum(n) <> 0",
    );
    let ledger: BTreeMap<i64, i64> = ledger.iter().map(|row| (int(&row[0]).unwrap(), int(&row[1]).unwrap())).collect();

    let items = items(look);
    let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
    for item in &items {
        *rows.entry(item.state).or_default() += 1;
        assert!(item.state == DELIVERED || item.state == WITHDRAWN, "{item:?}");
    }
    assert_eq!(ledger, rows, "the ledger balances");

    let find = |event: &str, recipient: &str, route: &str| {
        items.iter().find(|i| i.event == event && i.recipient == recipient && i.route == route)
    };
    let mut expected = 0;
    for (n, asked) in plan.asked.iter().enumerate() {
        for approver in &asked.approvers {
            let item = find(&format!("q{n}"), approver, "approvals").unwrap_or_else(|| panic!("q{n} asks {approver}"));
            expected += 1;
            assert!(asked.decided || item.state == DELIVERED, "nobody decided: {item:?}");
            assert!(item.state == DELIVERED || item.reason.is_some(), "{item:?}");
            assert!(
                !asked.decided_first || (item.state == WITHDRAWN && item.tries.is_empty()),
                "decided before: {item:?}"
            );
            let may_know = item.tries.iter().any(|(_, _, outcome)| *outcome != 1);
            let notice = find(&format!("d{n}"), approver, "handled");
            expected += usize::from(notice.is_some());
            assert_eq!(notice.is_some(), asked.decided && may_know, "whoever was asked hears of the end: {item:?}");
        }
        if asked.decided {
            let member = find(&format!("d{n}"), &format!("user.m{n}"), "decisions");
            assert!(member.is_some_and(|i| i.state == DELIVERED), "d{n} tells its member: {member:?}");
            expected += 1;
        }
    }
    assert_eq!(items.len(), expected, "no item that nobody asked for");

    let mut mails = told(folder);
    let in_doubt_resent = mails.keys().filter(|(_, attempt)| *attempt > 1).count();
    println!(
        "{} events, {} items, {} mails, {in_doubt_resent} of them resent",
        plan.asked.len() + decisions,
        items.len(),
        mails.len()
    );
    for item in &items {
        let n: u64 = item.event[1..].parse().unwrap();
        let accepted = item.tries.iter().filter(|(_, _, outcome)| *outcome == 2).count();
        assert_eq!(accepted, usize::from(item.state == DELIVERED), "told once, or in an honest doubt: {item:?}");
        for (digest, attempt, outcome) in &item.tries {
            let mail = mails.get(&(*digest, *attempt));
            assert!(*outcome != 2 || mail.is_some(), "an accepted attempt has its mail: {item:?}");
            assert!(mail.is_none_or(|roles| roles.contains(&n)), "the mail names its item: {item:?}");
        }
    }
    // No mail says what no attempt of the store says.
    for item in &items {
        for (digest, attempt, _) in &item.tries {
            let n: u64 = item.event[1..].parse().unwrap();
            if let Some(roles) = mails.get_mut(&(*digest, *attempt)) {
                roles.remove(&n);
            }
        }
    }
    let unknown: Vec<_> = mails.iter().filter(|(_, roles)| !roles.is_empty()).collect();
    assert!(unknown.is_empty(), "mails with items of no attempt: {unknown:?}");
}
