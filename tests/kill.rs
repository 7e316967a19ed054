//! The real binary, killed with SIGKILL at random moments while events come in and mails go out, started again, and
//! compared with what must be true of every event that was acknowledged.
//!
//! `OWLPOST_ROUNDS` (default 5) kills; `OWLPOST_SEED` replays the traffic and the draws. When exactly a kill hits is the
//! machine's doing: a seed makes a failure likely again, not certain.

#[path = "support/process.rs"]
mod process;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use process::{Random, Worker, post, until};
use traffic::{compare, config, mails, number, plan, random_moment};

/// Requests that a run makes for each round; about one in three is decided.
const REQUESTS_A_ROUND: u64 = 120;
/// Nothing moves for so long: there is nothing left to be done.
const STILL: Duration = Duration::from_secs(2);

#[test]
fn killed_at_random_moments_every_acknowledged_event_is_told_once_or_honestly_in_doubt() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, "http.toml", "[[source]]\nname = \"kill\"\nkind = \"http\"");
    fs::write(folder.join("nothing.ndjson"), "").unwrap();
    config(folder, "idle.toml", "[[source]]\nname = \"kill\"\nkind = \"file\"\npath = \"nothing.ndjson\"");
    let plan = plan(&mut random, rounds * REQUESTS_A_ROUND);

    let address = Arc::new(Mutex::new(String::new()));
    let (acknowledged, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let producer = {
        let (address, acknowledged, done) = (address.clone(), acknowledged.clone(), done.clone());
        let (events, mut random) = (plan.events.clone(), Random(seed ^ 0xF00D));
        std::thread::spawn(move || {
            let mut rest = &events[..];
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(rest.len().min(1 + random.below(4) as usize));
                // What was not acknowledged is sent again, for as long as it takes: the same ids, so nothing doubles.
                until("an acknowledgement", || {
                    let to = address.lock().unwrap().clone();
                    (!to.is_empty() && post(&to, batch)).then_some(())
                });
                if random.below(15) == 0 {
                    let to = address.lock().unwrap().clone();
                    post(&to, batch);
                }
                acknowledged.fetch_add(batch.len(), Ordering::SeqCst);
                rest = after;
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    for round in 0..rounds {
        let mut worker = Worker::start(folder, &["-c", "http.toml"]);
        *address.lock().unwrap() = worker.address();
        let sends = random.below(2) == 0;
        random_moment(&mut random, STILL, || if sends { mails(folder) } else { acknowledged.load(Ordering::SeqCst) });
        worker.kill();
        println!(
            "round {round}: killed at {} acknowledged, {} mails",
            acknowledged.load(Ordering::SeqCst),
            mails(folder)
        );
    }
    let mut worker = Worker::start(folder, &["-c", "http.toml"]);
    *address.lock().unwrap() = worker.address();
    producer.join().unwrap();
    assert!(done.load(Ordering::SeqCst) && acknowledged.load(Ordering::SeqCst) == plan.events.len());
    worker.signal("TERM");
    worker.ends_with(0);
    Worker::start(folder, &["--until-idle", "-c", "idle.toml"]).ends_with(0);
    compare(folder, &plan);
}

#[test]
fn a_file_that_is_read_again_after_each_kill_tells_everybody_once() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    let mut random = Random(seed ^ 0xF11E);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, "file.toml", "[[source]]\nname = \"kill\"\nkind = \"file\"\npath = \"events.ndjson\"");
    let plan = plan(&mut random, rounds * REQUESTS_A_ROUND);
    fs::write(folder.join("events.ndjson"), plan.events.join("\n")).unwrap();
    for _ in 0..rounds {
        let mut worker = Worker::start(folder, &["-c", "file.toml"]);
        worker.address();
        random_moment(&mut random, STILL, || mails(folder));
        worker.kill();
    }
    Worker::start(folder, &["--until-idle", "-c", "file.toml"]).ends_with(0);
    compare(folder, &plan);
}
