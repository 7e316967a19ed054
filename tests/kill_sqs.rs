//! The real binary with an SQS source, killed with SIGKILL at random moments and started again: every message is in the
//! store once, and the queue is empty at the end.
//!
//! `OWLPOST_ROUNDS` (default 5) kills; `OWLPOST_SEED` replays the draws.

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::process::Command;

use aws_sdk_sqs::types::QueueAttributeName;
use elasticmq::{Depth, ENVIRONMENT, ElasticMq};
use process::{Random, Worker, owlpost, until};
use rusqlite::Connection;

const MESSAGES_A_ROUND: u64 = 300;
const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}")))
}

fn config(folder: &Path, endpoint: &str, url: &str) {
    let text = format!(
        r#"
[[source]]
name = "kill"
kind = "sqs"
queue_url = "{url}"
endpoint_url = "{endpoint}"
[store]
url = "sqlite:owlpost.db"
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "outbox"
dir = "outbox"
[limits]
batch_events = 25
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "news"
types = ["com.example.news"]
template = "digest"
cadence = {{ first_after = "1h" }}
[log]
format = "json"
"#
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = owlpost(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(ENVIRONMENT).arg("run").args(args).args(["-c", "owlpost.toml"]);
    command
}

fn event(id: u64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"k{id}","source":"kill","type":"com.example.news","data":{{"recipients":["user.a{}"]}}}}"#,
        id % 7
    )
}

fn count(folder: &Path, what: &str) -> u64 {
    let Ok(conn) = Connection::open(folder.join("owlpost.db")) else { return 0 };
    // Before its first start there is no table.
    let counted = conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0));
    counted.map_or(0, |n| u64::try_from(n).unwrap())
}

#[test]
fn killed_at_random_moments_every_message_is_kept_once() {
    let (rounds, seed) = (number("OWLPOST_ROUNDS", 5), number("OWLPOST_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed ^ 0x5C5);
    let server = ElasticMq::shared();
    for is_fifo in [false, true] {
        let visibility = [(QueueAttributeName::VisibilityTimeout, "3")];
        let url = if is_fifo { server.fifo(&visibility) } else { server.queue(&visibility) };
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        config(folder, server.endpoint(), &url);
        for round in 0..rounds {
            let from = round * MESSAGES_A_ROUND;
            let bodies: Vec<String> = (from..from + MESSAGES_A_ROUND).map(event).collect();
            let groups = ["a", "b", "c"];
            let group = |n: usize| is_fifo.then_some(groups[n % groups.len()]);
            let messages: Vec<_> = bodies.iter().enumerate().map(|(n, body)| (group(n), body.as_str())).collect();
            server.send_to_groups(&url, &messages);
            let mut worker = Worker::spawn(folder, command(folder, &[]));
            worker.address();
            let target = count(folder, "event") + 1 + random.below(MESSAGES_A_ROUND / 2);
            until("a moment to kill", || (count(folder, "event") >= target).then_some(()));
            worker.kill();
            println!("fifo {is_fifo} round {round}: killed at {} events", count(folder, "event"));
        }
        // What the killed worker held comes back by itself.
        until("its messages", || (server.depth(&url).in_flight == 0).then_some(()));
        Worker::spawn(folder, command(folder, &["--until-idle"])).ends_with(0);
        let all = rounds * MESSAGES_A_ROUND;
        assert_eq!((count(folder, "event"), count(folder, "item")), (all, all), "each event once");
        assert_eq!(count(folder, "dead_letter"), 0, "nothing was refused");
        assert_eq!(server.depth(&url), EMPTY);
    }
}
