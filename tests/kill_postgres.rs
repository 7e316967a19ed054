//! Three workers of the real binary on one PostgreSQL store, killed with SIGKILL in turn while events come in and mails go
//! out; now and then it is the server that is killed. What was acknowledged is compared with what was told: everybody once,
//! or honestly in doubt.
//!
//! `OWLPOST_ROUNDS` (default 5) kills; `OWLPOST_SEED` replays the traffic and the draws, though not the machine's timing.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use owlpost::cli::demo::endpoint::{Account, Endpoint};
use postgres::{Database, PASSWORD, Server, Value};
use process::{Random, Worker, get, post, until};
use traffic::{compare_rows, config_on, mails, number, plan, random_moment};

const REQUESTS_A_ROUND: u64 = 120;
const WORKERS: usize = 3;
/// Nothing moves for so long: there is nothing left to be done, but what a dead worker has.
const STILL: Duration = Duration::from_secs(2);

/// Leases are short, so that a dead worker's digests go on soon.
const TIMES: &str = "[delivery]\nlease = \"5s\"\nsend_within = \"1s\"\ncall_timeout = \"1s\"\nclock_error = \"1s\"\n";

/// A worker's folder beside the others', with their mails in one.
fn configure(folder: &Path, source: &str, database: &Database) {
    fs::create_dir_all(folder).unwrap();
    let store = format!("url = {:?}\npassword = {PASSWORD:?}\nconnections = 4", database.url());
    config_on(folder, "owlpost.toml", &format!("{TIMES}{source}"), &store, "../outbox");
}

#[test]
fn workers_killed_in_turn_and_a_killed_server_lose_nothing_and_tell_nobody_twice() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed ^ 0x9057);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server: &'static Server = Box::leak(Box::new(Server::start(&[("fsync", "on")])));
    let database = server.database(None);
    let home = |i: usize| folder.join(format!("worker-{i}"));
    for i in 0..WORKERS {
        configure(&home(i), "[[source]]\nname = \"kill\"\nkind = \"http\"", &database);
    }
    let idle = folder.join("idle");
    configure(&idle, "[[source]]\nname = \"kill\"\nkind = \"file\"\npath = \"nothing.ndjson\"", &database);
    fs::write(idle.join("nothing.ndjson"), "").unwrap();
    let plan = plan(&mut random, rounds * REQUESTS_A_ROUND);

    let start = |i: usize| {
        let mut worker = Worker::start(&home(i), &["-c", "owlpost.toml"]);
        let address = worker.address();
        (worker, address)
    };
    let (mut workers, addresses): (Vec<Option<Worker>>, Vec<String>) =
        (0..WORKERS).map(start).map(|(worker, address)| (Some(worker), address)).unzip();
    let addresses = Arc::new(Mutex::new(addresses));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let producer = {
        let (addresses, acknowledged) = (addresses.clone(), acknowledged.clone());
        let (events, mut random) = (plan.events.clone(), Random(seed ^ 0xF00D));
        std::thread::spawn(move || {
            let mut rest = &events[..];
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(rest.len().min(1 + random.below(4) as usize));
                // To any of the workers, until one has acknowledged it: copies of one event meet in the store.
                until("an acknowledgement", || {
                    let to = addresses.lock().unwrap()[random.below(WORKERS as u64) as usize].clone();
                    post(&to, batch).then_some(())
                });
                acknowledged.fetch_add(batch.len(), Ordering::SeqCst);
                rest = after;
            }
        })
    };
    for round in 0..rounds {
        let sends = random.below(2) == 0;
        random_moment(&mut random, STILL, || if sends { mails(folder) } else { acknowledged.load(Ordering::SeqCst) });
        if random.below(4) == 0 {
            server.kill();
            server.restart();
            println!("round {round}: the server was killed");
        } else {
            let victim = round as usize % WORKERS;
            workers[victim].take().expect("it was started").kill();
            let (worker, address) = start(victim);
            workers[victim] = Some(worker);
            addresses.lock().unwrap()[victim] = address;
            println!("round {round}: worker {victim} was killed at {} mails", mails(folder));
        }
    }
    producer.join().unwrap();
    assert_eq!(acknowledged.load(Ordering::SeqCst), plan.events.len());
    let look = database.admin();
    let none = |which: &str| {
        let found = look.rows(&format!("SELECT count(*) FROM digest WHERE {which}"));
        (found == [[Value::Int(0)]]).then_some(())
    };
    // After a start, whoever may have their answers comes first: most of a minute.
    until("the end of what dead workers left", || none("state IN (2, 3)"));
    until("the end of all digests", || none("state <> 6"));
    for worker in workers.iter_mut().flatten() {
        worker.signal("TERM");
        assert!(worker.wait().success(), "{}", worker.log());
    }
    // Nothing is left for one who comes later.
    let before = mails(folder);
    Worker::start(&idle, &["--until-idle", "-c", "owlpost.toml"]).ends_with(0);
    assert_eq!(mails(folder), before);
    let text = |value| match value {
        Value::Null => None,
        Value::Int(n) => Some(n.to_string()),
        Value::Text(text) => Some(text),
    };
    let rows = |sql: &str| look.rows(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect();
    compare_rows(&rows, folder, &plan);
}

/// In a second, over all workers; and at once.
const RATE: f64 = 40.0;
const BURST: f64 = 5.0;
/// A permit is for a slot of this length; and a call may be on its way to the server for so long.
const SLOT_AND_WAY: f64 = 0.2 + 0.3;

/// The quota is the account's, whoever calls, dies and begins anew: judged by when the receiving server was called.
#[test]
fn workers_that_are_killed_stay_under_the_rate_of_the_account_together() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let database = Server::shared().database(None);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let account = Account { per_second: 10_000.0, per_day: -1.0, enforced: false, ..Account::default() };
    let endpoint = runtime.block_on(Endpoint::start(account)).unwrap();
    let text = format!(
        "{TIMES}[store]\nurl = {:?}\npassword = {PASSWORD:?}\nconnections = 4\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nname = \"kill\"\nkind = \"http\"\n[mailer]\nkind = \"ses\"\nregion = \"eu-west-1\"\n\
         endpoint_url = \"{}\"\n[quota]\nper_second = {RATE}\nper_day = 100000\nburst = {BURST}\n[recipients]\n\
         allowed_domains = [\"example.com\"]\n[[directory]]\nkind = \"rules\"\n\
         rules = [{{ principal = \"user.{{name}}\", address = \"{{name}}@example.com\" }}]\n\
         [[route]]\nname = \"news\"\ntypes = [\"com.example.news\"]\naudience = [\"{{{{data.to}}}}\"]\n[log]\nformat = \"json\"\n",
        database.url(),
        endpoint.url()
    );
    let start = |i: usize| {
        let home = folder.join(format!("worker-{i}"));
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("owlpost.toml"), &text).unwrap();
        let mut command = process::owlpost(&home);
        command.args(["run", "-c", "owlpost.toml"]);
        command.envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        let mut worker = Worker::spawn(&home, command);
        let address = worker.address();
        (worker, address)
    };
    let mut workers: Vec<(Worker, String)> = (0..WORKERS).map(start).collect();
    let event = |n: usize| {
        format!(
            r#"{{"specversion":"1.0","id":"e{n}","source":"kill","type":"com.example.news","data":{{"to":"user.p{n}"}}}}"#
        )
    };
    let events: Vec<String> = (0..700).map(event).collect();
    events.chunks(100).for_each(|batch| until("an acknowledgement", || post(&workers[0].1, batch).then_some(())));
    for round in 0..8 {
        let before = endpoint.calls().len();
        until("some more calls", || (endpoint.calls().len() > before + 40).then_some(()));
        let victim = round % WORKERS;
        workers.remove(victim).0.kill();
        workers.insert(victim, start(victim));
    }
    let before = endpoint.calls().len();
    until("some more calls", || (endpoint.calls().len() > before + 40).then_some(()));
    let calls = endpoint.calls();
    for (i, first) in calls.iter().enumerate() {
        for (j, last) in calls.iter().enumerate().skip(i) {
            let (n, length) = ((j - i + 1) as f64, (*last - *first).as_secs_f64());
            assert!(n <= BURST + RATE * (length + SLOT_AND_WAY), "{n} calls in {length} s");
        }
    }
    let took = (calls[calls.len() - 1] - calls[0]).as_secs_f64();
    println!("{} calls in {took:.1} s at a rate of {RATE}/s", calls.len());
    workers.into_iter().for_each(|(worker, _)| worker.kill());
}

/// A machine that froze for longer than leases run. Each wait for it ends, everybody is told so, and when it goes on, what was
/// on its way is settled by those who know what became of it: nothing is a doubt.
#[test]
fn a_server_that_froze_is_told_as_away_and_nothing_is_lost_or_sent_twice() {
    let mut random = Random(number("OWLPOST_SEED", 1) ^ 0xF4EE);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server: &'static Server = Box::leak(Box::new(Server::start(&[("fsync", "on")])));
    let database = server.database(None);
    let plan = plan(&mut random, 400);
    let start = |i: usize| {
        let home = folder.join(format!("worker-{i}"));
        configure(&home, "[[source]]\nname = \"kill\"\nkind = \"http\"", &database);
        let mut worker = Worker::start(&home, &["-c", "owlpost.toml"]);
        let address = worker.address();
        (worker, address)
    };
    let (mut workers, addresses): (Vec<Worker>, Vec<String>) = (0..2).map(start).unzip();
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (n, batch) in plan.events.chunks(3).enumerate() {
                while !post(&addresses[n % addresses.len()], batch) {
                    std::thread::yield_now();
                }
                acknowledged.fetch_add(batch.len(), Ordering::SeqCst);
            }
        });
        random_moment(&mut random, STILL, || mails(folder));
        let frozen = server.freeze();
        for address in &addresses {
            let said = until("a worker that says why it takes nothing", || match get(address, "/readyz") {
                Ok((503, said)) => Some(said),
                _ => None,
            });
            assert!(said.contains("no answer in") || said.contains("no connection"), "{said}");
            assert_eq!(get(address, "/livez").unwrap().0, 200);
        }
        let before = mails(folder);
        drop(frozen);
        until("mails that leave again", || (mails(folder) > before).then_some(()));
    });
    assert_eq!(acknowledged.load(Ordering::SeqCst), plan.events.len());
    let look = database.admin();
    let count = |what: &str| match look.rows(&format!("SELECT count(*) FROM {what}"))[0][0] {
        Value::Int(n) => n as usize,
        ref other => panic!("no count: {other:?}"),
    };
    until("the end of all digests", || (count("digest WHERE state <> 6") == 0).then_some(()));
    for worker in &mut workers {
        worker.signal("TERM");
        assert!(worker.wait().success(), "{}", worker.log());
    }
    assert_eq!(count("attempt WHERE outcome = 0"), 0, "nobody died, so everything is known");
    assert_eq!(count("attempt WHERE outcome = 2"), mails(folder), "no mail but those that are known");
    let text = |value| match value {
        Value::Null => None,
        Value::Int(n) => Some(n.to_string()),
        Value::Text(text) => Some(text),
    };
    let rows = |sql: &str| look.rows(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect();
    compare_rows(&rows, folder, &plan);
}

/// `run --role intake` and `--role deliver`, in any mix: what one of them takes in, another one sends, whether they run
/// at the same time or not.
#[test]
fn halves_that_run_apart_are_one_worker() {
    let mut random = Random(number("OWLPOST_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let database = Server::shared().database(None);
    let plan = plan(&mut random, 120);
    let look = database.admin();
    let start = |name: &str, role: &str| {
        let home = folder.join(name);
        configure(&home, "[[source]]\nname = \"kill\"\nkind = \"http\"", &database);
        let mut worker = Worker::start(&home, &["-c", "owlpost.toml", "--role", role]);
        let address = worker.address();
        until("a worker that is ready", || matches!(get(&address, "/readyz"), Ok((200, _))).then_some(()));
        (worker, address)
    };
    let end = |worker: Worker| {
        worker.signal("TERM");
        worker.ends_with(0);
    };
    let sent = || {
        let none = |which: &str| {
            let found = look.rows(&format!("SELECT count(*) FROM digest WHERE {which}"));
            (found == [[Value::Int(0)]]).then_some(())
        };
        until("the end of what a dead worker left", || none("state IN (2, 3)"));
        until("the end of all digests", || none("state <> 6"))
    };
    let (first, second) = plan.events.split_at(plan.events.len() / 2);

    // Intake alone: everything is taken, nothing leaves, and an autoscaler is told.
    let (intake, address) = start("intake", "intake");
    first.chunks(5).for_each(|batch| assert!(post(&address, batch)));
    let due = "SELECT due = (SELECT count(*) FROM digest WHERE state = 0) AND due > 0 FROM owlpost_keda_backlog";
    until("what is due", || (look.rows(due) == [[Value::Int(1)]]).then_some(()));
    end(intake);
    assert_eq!(mails(folder), 0);
    assert_eq!(look.rows("SELECT count(*) FROM attempt"), [[Value::Int(0)]]);

    // Delivery alone, and nobody can bring it anything.
    let (one, address) = start("one", "deliver");
    let (two, _) = start("two", "deliver");
    assert!(!post(&address, &second[..1]), "it takes nothing in");
    sent();
    assert!(mails(folder) > 0);

    // All of them, one of which is killed.
    let (intake, address) = start("intake", "intake");
    for (n, batch) in second.chunks(5).enumerate() {
        assert!(post(&address, batch));
        if n == 3 {
            two.signal("KILL");
        }
    }
    sent();
    assert_eq!(look.rows("SELECT due FROM owlpost_keda_backlog"), [[Value::Int(0)]]);
    [intake, one].into_iter().for_each(end);
    drop(two);
    let text = |value| match value {
        Value::Null => None,
        Value::Int(n) => Some(n.to_string()),
        Value::Text(text) => Some(text),
    };
    let rows = |sql: &str| look.rows(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect();
    compare_rows(&rows, folder, &plan);
}
