//! Several workers on one store at once: what one transaction at a time keeps by itself, they must keep by their locks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use owlpost::model::{Entry, Receipt, Time};
use owlpost::quota::Terms;
use owlpost::store::{
    Answer, Ask, Begun, Command, Condition, Evidence, Intent, Leased, Page, Planning, Query, Result, Rows, Store,
};
use tokio::task::JoinSet;

use crate::bench::{Bench, DAY, LEASE, OnPostgres, Said, Setup};
use crate::events::{Ev, at, decision, expiring, news, person, renewed, request};
use crate::on_postgres::runtime;
use crate::walk::Dice;

const WORKERS: usize = 4;

/// One store, several workers that each opened it.
struct Replicas {
    stores: Vec<Arc<dyn Store>>,
    bench: OnPostgres,
}

impl Replicas {
    fn new(setup: Setup) -> Replicas {
        let mut bench = OnPostgres::new();
        let limits = setup.limits;
        let policy = Arc::new(Said(Mutex::new(setup)));
        let stores = (0..WORKERS).map(|_| bench.open(policy.clone(), limits, at(0)).unwrap()).collect();
        let all = Replicas { stores, bench };
        all.account(Terms::default());
        all
    }

    fn account(&self, terms: Terms) {
        runtime().block_on(self.stores[0].account(at(0), terms, None)).unwrap();
    }

    /// The same task for every worker at the same time; gives what they came to.
    fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        task: impl Fn(usize, Arc<dyn Store>) -> F,
    ) -> Vec<T> {
        runtime().block_on(async {
            let mut set = JoinSet::new();
            for (i, store) in self.stores.iter().enumerate() {
                let task = task(i, store.clone());
                set.spawn(async move { (i, task.await) });
            }
            let mut done = set.join_all().await;
            done.sort_by_key(|(i, _)| *i);
            done.into_iter().map(|(_, t)| t).collect()
        })
    }

    fn accept(&self, events: Vec<Ev>) {
        let entries: Vec<Entry> = events.iter().map(|e| e.entry(&BTreeSet::new())).collect();
        runtime().block_on(self.stores[0].accept(at(10), Arc::new(entries))).unwrap();
    }

    /// Nothing contradicts anything; gives (state, how many items) as they are counted.
    fn verify(&self) -> owlpost::store::desk::Ledger {
        match runtime().block_on(self.stores[0].read(&Query::Verify, Page::FIRST)).unwrap() {
            Rows::Verified(found) => {
                assert_eq!(found.differences, [] as [&str; 0]);
                assert_eq!(found.counted, found.recounted);
                found.counted
            }
            other => panic!("not verified: {other:?}"),
        }
    }

    fn count(&self, sql: &str) -> i64 {
        self.bench.rows(sql)[0][0].int()
    }
}

fn people(n: usize) -> Vec<Ev> {
    (0..n).map(|i| news(&format!("n{i}")).to([format!("p{i}").as_str()])).collect()
}

fn ask(limit: u32) -> Ask {
    Ask { limit, lease: LEASE, everything: false }
}

fn intent(leased: &Leased) -> Intent {
    Intent {
        lease: leased.lease,
        recipient: person(&leased.recipient),
        domain_allowed: true,
        audiences: vec![],
        send_within: std::time::Duration::from_secs(15),
        lead: std::time::Duration::ZERO,
        waits: true,
    }
}

#[test]
fn no_digest_is_leased_to_two_workers() {
    let all = Replicas::new(Setup::default());
    all.accept(people(300));
    let taken = all.each(|_, store| async move {
        let mut mine = Vec::new();
        loop {
            let some = store.claim(at(20), &ask(7)).await.unwrap();
            if some.is_empty() && store.next_due(&ask(7)).await.unwrap().is_none() {
                return mine;
            }
            mine.extend(some.into_iter().map(|l| l.lease.digest.number));
        }
    });
    let leased: Vec<i64> = taken.concat();
    assert_eq!(leased.len(), 300);
    assert_eq!(leased.iter().collect::<BTreeSet<_>>().len(), 300);
    all.verify();
}

/// A broker that hands a batch to a second worker while the first one still writes it.
#[test]
fn copies_that_come_to_all_workers_at_once_are_one_event() {
    let all = Replicas::new(Setup::default());
    for turn in 0..10 {
        let events: Vec<Ev> = (0..60)
            .flat_map(|i| {
                let id = format!("{turn}-{i}");
                [request(&format!("r{id}")).about([id.as_str()]).to(["ann"]), decision(&format!("d{id}")).about([&id])]
            })
            .collect();
        let entries: Vec<Entry> = events.iter().map(|e| e.entry(&BTreeSet::new())).collect();
        let receipts = all.each(|i, store| {
            let mut mine = entries.clone();
            // Each in another order.
            mine.rotate_left(i * 17);
            if i % 2 == 1 {
                mine.reverse();
            }
            async move { store.accept(at(10), Arc::new(mine)).await.unwrap() }
        });
        let accepted = receipts.concat().iter().filter(|r| **r == Receipt::Accepted).count();
        assert_eq!(accepted, events.len());
    }
    let ledger = all.verify();
    assert_eq!((ledger.items, ledger.withdrawn), (600, 600), "every request was decided");
}

/// `lock_subject`: neither may read the marks before the other has written them.
#[test]
fn a_request_and_its_decision_at_once_leave_nothing_open() {
    let all = Replicas::new(Setup::default());
    for turn in 0..40 {
        let topics: Vec<String> = (0..20).map(|i| format!("{turn}-{i}")).collect();
        all.each(|i, store| {
            let event = |topic: &String| match i {
                0 => request(&format!("r{topic}")).about([topic.as_str()]).to(["ann", "bob"]),
                1 => decision(&format!("d{topic}")).about([topic.as_str()]),
                2 => request(&format!("s{topic}")).about([topic.as_str()]).to(["bob"]),
                _ => news(&format!("n{topic}")).to(["ann"]),
            };
            let mine: Vec<Entry> = topics.iter().map(|t| event(t).entry(&BTreeSet::new())).collect();
            async move { store.accept(at(10), Arc::new(mine)).await.unwrap() }
        });
    }
    let ledger = all.verify();
    assert_eq!((ledger.items, ledger.withdrawn, ledger.pending), (3_200, 2_400, 800));
}

/// `one_window`: everybody's events of one person, at once, come into one digest.
#[test]
fn one_person_has_one_window_whoever_fills_it() {
    let all = Replicas::new(Setup { window: crate::bench::DAY, ..Setup::default() });
    all.each(|i, store| async move {
        for n in 0..30 {
            let entries = vec![news(&format!("{i}-{n}")).to(["ann", "bob"]).entry(&BTreeSet::new())];
            store.accept(at(10), Arc::new(entries)).await.unwrap();
        }
    });
    assert_eq!(all.count("SELECT count(*) FROM digest"), 2);
    assert_eq!(all.count("SELECT min(open) FROM digest"), 120);
    all.verify();
}

/// `rate_permit_perishes`, `permit_once`: what all of them may send is what one of them may send.
#[test]
fn all_workers_share_one_quota() {
    let all = Replicas::new(Setup::default());
    all.account(Terms { per_day: Some(50), per_second: Some(5.0), burst: 5, ..Terms::default() });
    all.accept(people(200));
    let begun = all.each(|_, store| async move {
        let (mut begun, mut claimed) = (0, 0);
        for _ in 0..10 {
            let leased = store.claim(at(20), &ask(5)).await.unwrap();
            claimed += leased.len();
            let intents = leased.iter().map(intent).collect();
            let answers = store.begin(at(20), Arc::new(intents)).await.unwrap();
            begun += answers.iter().filter(|b| matches!(b, Begun::Send(_))).count();
        }
        (claimed, begun)
    });
    let claimed: usize = begun.iter().map(|b| b.0).sum();
    let sent: usize = begun.iter().map(|b| b.1).sum();
    assert!(claimed <= 50, "{claimed} shares of a day of 50");
    assert!((5..=6).contains(&sent), "{sent} permits at one moment of a burst of 5");
    all.verify();
}

/// Each looks at all windows when it starts; of those that plan alike and start together, or soon after, one does.
#[test]
fn one_of_the_workers_that_plan_alike_plans_the_windows() {
    let mut all = Replicas::new(Setup::default());
    let otherwise = Setup { window: DAY, ..Setup::default() };
    let limits = otherwise.limits;
    let other: Arc<dyn Store> = all.bench.open(Arc::new(Said(Mutex::new(otherwise))), limits, at(0)).unwrap();
    let of = |store: &Arc<dyn Store>, seconds, started| {
        runtime().block_on(store.take_planning(at(seconds), at(started))).unwrap()
    };
    let take = |n: usize, seconds, started| of(&all.stores[n], seconds, started);
    let keep = |n: usize, seconds, since, done| {
        runtime().block_on(all.stores[n].keep_planning(at(seconds), at(since), done)).unwrap();
    };
    let mine = |seconds| Planning::Mine(at(seconds));
    // Their clocks differ by a moment.
    let takes = all.each(|n, store| async move { store.take_planning(at(10 + n as i64 % 2), at(9)).await.unwrap() });
    let planner = takes.iter().position(|one| *one != Planning::Theirs).unwrap();
    assert_eq!(takes.iter().filter(|one| **one == Planning::Theirs).count(), takes.len() - 1, "{takes:?}");
    let Planning::Mine(since) = takes[planner] else { panic!("{takes:?}") };
    // It goes on, and says so.
    runtime().block_on(all.stores[planner].keep_planning(at(35), since, false)).unwrap();
    assert_eq!(take(1, 60, 9), Planning::Theirs);
    // It said nothing for too long; what it says afterwards is not believed.
    assert_eq!(take(1, 66, 9), mine(66));
    runtime().block_on(all.stores[planner].keep_planning(at(67), since, true)).unwrap();
    assert_eq!(take(2, 70, 9), Planning::Theirs);
    keep(1, 80, 66, true);
    assert_eq!(take(2, 100, 66), Planning::Done);
    // Who started later may have old neighbours that plan otherwise; it waits until nobody else does it for all.
    assert_eq!(take(2, 100, 67), Planning::Theirs);
    assert_eq!(take(2, 201, 67), mine(201));
    keep(2, 400, 201, true);
    assert_eq!(take(0, 210, 9), mine(210), "it was done in a time that is still to come: the clock was set back");
    keep(0, 215, 210, true);
    // Somebody with another cadence has planned since, or has begun to.
    assert_eq!(of(&other, 220, 9), mine(220));
    assert_eq!(take(1, 230, 9), mine(230));
    assert_eq!(take(2, 231, 9), Planning::Theirs);
    assert_eq!(of(&other, 232, 9), mine(232), "and so has this one");
}

/// A worker that takes events in knows nothing of what another one forwards: an autoscaler and `status` need both.
#[test]
fn what_one_worker_tells_of_its_parts_stays_when_another_tells_of_its_own() {
    let all = Replicas::new(Setup::default());
    for (store, part) in all.stores.iter().zip(["forwarding", "source"]) {
        let one =
            Condition { part, name: "one".into(), state: "ready", detail: String::new(), lag: None, since: at(0) };
        runtime().block_on(store.report(at(10), Arc::new(vec![one]))).unwrap();
    }
    let told = all.bench.rows("SELECT part FROM condition ORDER BY part");
    assert_eq!(told.iter().map(|row| row[0].text()).collect::<Vec<_>>(), ["forwarding", "source"]);
}

/// `evidence_stops_retry`, `permit_once`: the same answer to two workers counts once.
#[test]
fn an_answer_that_two_workers_bring_counts_once() {
    let all = Replicas::new(Setup::default());
    all.accept(people(40));
    let leased = runtime().block_on(all.stores[0].claim(at(20), &ask(40))).unwrap();
    let begun = runtime().block_on(all.stores[0].begin(at(20), Arc::new(leased.iter().map(intent).collect()))).unwrap();
    let evidence: Vec<Evidence> = begun
        .iter()
        .map(|b| match b {
            Begun::Send(c) => Evidence {
                attempt: c.attempt,
                answer: Answer::Accepted { message_id: Some(format!("m-{}", c.attempt)) },
            },
            other => panic!("it may leave, not {other:?}"),
        })
        .collect();
    all.each(|i, store| {
        let mut mine = evidence.clone();
        mine.rotate_left(i * 11);
        async move { store.learn(at(21), Arc::new(mine)).await.unwrap() }
    });
    assert_eq!(all.verify().delivered, 40);
    assert_eq!(all.count("SELECT count(*) FROM attempt WHERE outcome = 2"), 40);
    let Rows::Status(status) =
        runtime().block_on(all.stores[0].read(&Query::Status { now: at(22) }, Page::FIRST)).unwrap()
    else {
        panic!("no status")
    };
    assert_eq!(status.mails.sent, 40);
}

/// Everything that workers and operators do, at once and without an order: nothing contradicts anything, every digest
/// comes to its end, and no item was in two accepted mails.
#[test]
fn workers_that_do_everything_at_once_keep_the_ledger() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OWLPOST_SEED") {
        Some(seed) => everything_at_once(seed),
        None => (0..number("OWLPOST_SEEDS").map_or(4, |seeds| seeds.div_ceil(100))).for_each(everything_at_once),
    }
}

#[derive(Default)]
struct Seen {
    /// Accepted mails by item.
    accepted: Mutex<BTreeMap<String, u32>>,
    events: AtomicUsize,
}

fn everything_at_once(seed: u64) {
    // A doubt is buried: so no item may be in two mails.
    let all = Replicas::new(Setup { resend: false, max_listed: 3, attempts_max: 4, ..Setup::default() });
    let seen = Arc::new(Seen::default());
    all.each(|i, store| {
        let seen = seen.clone();
        async move {
            let mut dice = Dice::new(seed * 100 + i as u64);
            for turn in 0..60 {
                // Time goes on for all alike.
                let now = at(100 + turn * 30);
                if let Err(why) = step(&*store, now, &mut dice, &seen).await {
                    panic!("seed {seed}, worker {i}, turn {turn}: {why}");
                }
            }
        }
    });
    all.verify();
    let mut dice = Dice::new(seed);
    for hour in 0..60 {
        // Every lease, doubt and wait is over each time.
        let (store, now) = (&all.stores[0], at(1_000_000 + hour * 3_600));
        runtime().block_on(async {
            while store.expire(now, true).await.unwrap().more {}
            store.act(now, &Command::Release { digest: None, route: None }).await.unwrap();
            send(&**store, now, &mut dice, &seen).await.unwrap();
        });
    }
    let ledger = all.verify();
    assert_eq!((ledger.pending, ledger.in_doubt), (0, 0), "seed {seed}");
    let accepted = seen.accepted.lock().unwrap();
    let twice: Vec<_> = accepted.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "in two mails: {twice:?}");
    assert_eq!(accepted.len() as u64, ledger.delivered);
}

async fn step(store: &dyn Store, now: Time, dice: &mut Dice, seen: &Seen) -> Result<()> {
    match dice.below(10) {
        0..=4 => {
            let entries = (0..1 + dice.below(6)).map(|_| event(dice, seen).entry(&BTreeSet::new())).collect();
            store.accept(now, Arc::new(entries)).await.map(drop)
        }
        5..=7 => send(store, now, dice, seen).await,
        8 => {
            store.expire(now, dice.one_in(3)).await?;
            store.purge(now).await?;
            store.compact(now).await
        }
        _ => {
            store.replan(now, 0, 50).await?;
            let waiting = store.read(&Query::Digests { state: None, route: None, now }, Page::FIRST).await?;
            let Rows::Digests { rows, .. } = waiting else { return Ok(()) };
            if let Some(row) = dice.pick(&rows) {
                store.act(now, &Command::SendNow { digest: row.id.clone() }).await?;
            }
            store.act(now, &Command::Release { digest: None, route: None }).await.map(drop)
        }
    }
}

/// Few people, topics and ids, so that workers meet.
fn event(dice: &mut Dice, seen: &Seen) -> Ev {
    let n = seen.events.fetch_add(1, Ordering::Relaxed);
    let id = format!("e{}", if dice.one_in(5) { n / 2 } else { n });
    let topic = ["x", "y", "m/expiring"][dice.below(3)];
    let who = ["ann", "bob", "kim", "lea", "max"][dice.below(5)];
    let time = dice.below(50) as i64;
    match dice.below(6) {
        0 | 1 => request(&id).about([topic]).to([who, "ann"]),
        2 => decision(&id).about([topic]),
        3 => expiring(&id, ["A", "B"][dice.below(2)]).to([who]),
        4 => renewed(&id),
        _ => news(&id).to([who, "bob"]),
    }
    .at(time)
}

async fn send(store: &dyn Store, now: Time, dice: &mut Dice, seen: &Seen) -> Result<()> {
    let leased = store.claim(now, &ask(5)).await?;
    for one in &leased {
        let begun = store.begin(now, Arc::new(vec![intent(one)])).await?.remove(0);
        let Begun::Send(contents) = begun else { continue };
        let answer = match dice.below(8) {
            0 => Answer::Retryable { detail: "busy".into() },
            1 => Answer::Ambiguous { detail: "reset".into() },
            2 => Answer::NotCalled { unrenderable: vec![], detail: "late".into() },
            _ => Answer::Accepted { message_id: Some(format!("m-{}", contents.attempt)) },
        };
        if matches!(answer, Answer::Accepted { .. }) {
            let mut accepted = seen.accepted.lock().unwrap();
            for item in &contents.items {
                *accepted
                    .entry(format!("{} {} {}", item.id, contents.recipient.principal, contents.route))
                    .or_default() += 1;
            }
        }
        let evidence = Evidence { attempt: contents.attempt, answer };
        store.learn(now, Arc::new(vec![evidence])).await?;
    }
    Ok(())
}

/// The statements that run for every event and every mail find their rows by an index, whatever the planner believes of
/// tables that were empty when it looked.
#[test]
fn hot_statements_use_their_indexes_on_postgresql() {
    let bench = OnPostgres::unused();
    bench.run("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off");
    for statement in owlpost::store::sqlite::HOT {
        let text = said_to_postgres(statement);
        let plan = plan(&bench, &text);
        let scans = |step: &&String| step.contains("Seq Scan");
        let scans: Vec<&String> = plan.iter().filter(scans).collect();
        assert!(scans.is_empty(), "{text}\n{plan:#?}");
        // A sort reads all rows before the first: no bound on the answer would be a bound on the work.
        let sorts = statement.contains("LIMIT") && plan.iter().any(|s| s.contains("Sort"));
        assert!(!sorts, "{text}\n{plan:#?}");
    }
}

/// The same of those for many rows: an index that is gone through from its one end to the other is no better than its table.
#[test]
fn statements_for_many_rows_find_each_by_a_value_of_an_index_on_postgresql() {
    let bench = OnPostgres::unused();
    bench.run("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off");
    for statement in owlpost::store::hot_of_many() {
        let text = said_to_postgres(statement);
        let plan = plan(&bench, &text);
        assert!(plan.iter().all(|step| !step.contains("Seq Scan")), "{text}\n{plan:#?}");
        let is_scan = |step: &String| step.contains(" Scan using ") || step.contains("Bitmap Index Scan");
        for (n, step) in plan.iter().enumerate().filter(|(_, step)| is_scan(step)) {
            let details = plan[n + 1..].iter().take_while(|line| !line.contains("->"));
            assert!(details.into_iter().any(|line| line.contains("Index Cond")), "{text}\n{step}\n{plan:#?}");
        }
    }
}

fn plan(bench: &OnPostgres, text: &str) -> Vec<String> {
    bench.run(&format!("PREPARE hot AS {text}"));
    let types = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'hot'";
    let n = bench.rows(types)[0][0].int();
    let nulls = vec!["NULL"; n as usize].join(", ");
    let of = if n == 0 { String::new() } else { format!("({nulls})") };
    let plan = bench.rows(&format!("EXPLAIN (COSTS OFF) EXECUTE hot{of}")).iter().map(|row| row[0].text()).collect();
    bench.run("DEALLOCATE hot");
    plan
}

fn said_to_postgres(statement: &str) -> String {
    let mut text = statement.replace("/*pg:", "").replace("*/", "").replace("CROSS JOIN", "JOIN");
    for n in (1..=17).rev() {
        text = text.replace(&format!("?{n}"), &format!("${n}"));
    }
    text
}
