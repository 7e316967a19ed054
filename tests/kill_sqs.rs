//! The real binary with an SQS source: killed with SIGKILL at random moments and started again, its server killed under load,
//! its receipts run out. What was sent is compared with what was told: every event accepted once, everybody told once
//! or honestly in doubt, nothing left in the queue.
//!
//! `OWLPOST_ROUNDS` (default 5) kills; `OWLPOST_SEED` replays the traffic and the draws, though not the machine's timing.

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use elasticmq::{Depth, ENVIRONMENT, ElasticMq};
use process::{Random, Worker, get, owlpost, until};
use proxy::{Fault, Proxy};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use traffic::{Plan, compare, config, mails, number, plan, random_moment};

const REQUESTS_A_ROUND: u64 = 120;
/// Seconds that a message stays hidden: what a killed worker held comes back soon.
const VISIBILITY: [(QueueAttributeName, &str); 1] = [(QueueAttributeName::VisibilityTimeout, "3")];
/// Events that wait, at most, when a worker is killed.
const BACKLOG: usize = 1_000;
/// Nothing moves for so long: there is nothing left to be done. Longer than a dead worker's messages stay hidden.
const STILL: Duration = Duration::from_secs(5);
const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };

fn configure(folder: &Path, endpoint: &str, url: &str) {
    let source =
        format!("[[source]]\nname = \"kill\"\nkind = \"sqs\"\nqueue_url = \"{url}\"\nendpoint_url = \"{endpoint}\"");
    config(folder, "owlpost.toml", &source);
}

/// `owlpost` with the server's credentials and nothing else of AWS's.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(ENVIRONMENT).args(args).args(["-c", "owlpost.toml"]);
    command
}

fn start(folder: &Path) -> Worker {
    let mut worker = Worker::spawn(folder, command(folder, &["run"]));
    worker.address();
    worker
}

/// Events that the store has, as another process sees it.
fn accepted(folder: &Path) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let count = |conn: Connection| conn.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0));
    let found = Connection::open_with_flags(folder.join("owlpost.db"), flags).and_then(count);
    // There is no store before the first start.
    found.map_or(0, |n| usize::try_from(n).unwrap())
}

/// A plan for a queue without an order: what was sent first may come last.
fn unordered(mut plan: Plan) -> Plan {
    plan.asked.iter_mut().for_each(|asked| asked.decided_first = false);
    plan
}

/// So many different events does a plan have.
fn events(plan: &Plan) -> usize {
    plan.asked.len() + plan.asked.iter().filter(|asked| asked.decided).count()
}

/// A decision has its request's group, so a FIFO queue has them in their order.
fn group(event: &str) -> String {
    let event: Value = serde_json::from_str(event).unwrap();
    event["id"].as_str().unwrap()[1..].to_owned()
}

/// Takes what is left, and judges store, ledger, mails and queue.
fn settles(folder: &Path, server: &ElasticMq, url: &str, plan: &Plan) {
    // What a killed worker held comes back by itself. Its server goes on with the polls that it left, up to 20 s after its
    // end, and what those are handed comes back later: also after a run that found nothing more.
    until("an empty queue", || {
        until("its messages", || (server.depth(url).in_flight == 0).then_some(()));
        Worker::spawn(folder, command(folder, &["run", "--until-idle"])).ends_with(0);
        (server.depth(url) == EMPTY).then_some(())
    });
    let told = command(folder, &["status", "--json", "--verify"]).output().unwrap();
    let status: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert!(told.status.success(), "the ledger balances: {status}");
    assert_eq!(status["dead_letters"], 0, "nothing was refused: {status}");
    compare(folder, plan);
}

#[test]
fn killed_at_random_moments_every_event_is_accepted_and_told_once() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed ^ 0x5C5);
    let server = ElasticMq::shared();
    for is_fifo in [false, true] {
        let url = if is_fifo { server.fifo(&VISIBILITY) } else { server.queue(&VISIBILITY) };
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        configure(folder, server.endpoint(), &url);
        let plan = plan(&mut random, rounds * REQUESTS_A_ROUND);
        let plan = if is_fifo { plan } else { unordered(plan) };
        let mut sent = BTreeSet::new();
        for (round, share) in plan.events.chunks(plan.events.len().div_ceil(rounds as usize)).enumerate() {
            let groups: Vec<String> = share.iter().map(|event| group(event)).collect();
            let messages = share.iter().zip(&groups);
            let messages: Vec<_> = messages.map(|(e, group)| (is_fifo.then_some(&**group), e.as_str())).collect();
            server.send_to_groups(&url, &messages);
            sent.extend(share);
            let worker = start(folder);
            // Of many rounds: the last run has no more to do than that.
            until("a small backlog", || (accepted(folder) + BACKLOG >= sent.len()).then_some(()));
            let sends = random.below(2) == 0;
            random_moment(&mut random, STILL, || if sends { mails(folder) } else { accepted(folder) });
            worker.kill();
            let (events, mails) = (accepted(folder), mails(folder));
            println!("fifo {is_fifo} round {round}: killed at {events} events, {mails} mails");
        }
        settles(folder, server, &url, &plan);
    }
}

#[test]
fn a_server_that_is_killed_under_load_and_comes_back_loses_nothing_and_tells_nobody_twice() {
    let server = ElasticMq::durable();
    let url = server.queue(&VISIBILITY);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    configure(folder, server.endpoint(), &url);
    let plan = unordered(plan(&mut Random(number("OWLPOST_SEED", 1) ^ 0x2E57), 150));
    let mut worker = start(folder);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (n, ten) in plan.events.chunks(10).enumerate() {
                // No farther ahead than that, so that some are sent after each restart.
                until("the worker keeps up", || (accepted(folder) + 60 >= n * 10).then_some(()));
                // Perhaps twice, if the server goes away before it answers.
                until("the server takes them", || server.try_send(&url, ten).then_some(()));
            }
        });
        for share in [4, 2] {
            until("some are taken", || (accepted(folder) > events(&plan) / share).then_some(()));
            server.kill();
            server.restart();
        }
    });
    until("all of them", || (accepted(folder) == events(&plan)).then_some(()));
    assert!(worker.is_running(), "{}", worker.log());
    worker.signal("TERM");
    worker.ends_with(0);
    settles(folder, &server, &url, &plan);
}

#[test]
fn receipts_that_run_out_bring_duplicates_and_no_second_mail() {
    let server = ElasticMq::shared();
    let url = server.queue(&VISIBILITY);
    let proxy = Proxy::start(server.endpoint());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    configure(folder, proxy.url(), &url);
    let plan = unordered(plan(&mut Random(number("OWLPOST_SEED", 1) ^ 0x2ECE), 40));
    // Nothing is hidden for longer, and by the time it is deleted its receipt is over.
    proxy.plan("ChangeMessageVisibilityBatch", Fault::Answer { status: 500, code: "InternalFailure" }, 100_000);
    proxy.plan(
        "DeleteMessageBatch",
        Fault::FailEntries { entries: 10, code: "ReceiptHandleIsInvalid", ours: true },
        100_000,
    );
    server.send(&url, &plan.events);
    let mut worker = start(folder);
    let address = worker.address();
    let duplicates = || {
        let (_, text) = get(&address, "/metrics").ok()?;
        let name = "owlpost_events_total{source=\"kill\",outcome=\"duplicate\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    // Each of them came again, and its mail had left by then.
    until("duplicates", || duplicates().filter(|n| *n >= plan.events.len() as f64));
    proxy.heal();
    until("an empty queue", || (server.depth(&url) == EMPTY).then_some(()));
    worker.signal("TERM");
    worker.ends_with(0);
    settles(folder, server, &url, &plan);
}
