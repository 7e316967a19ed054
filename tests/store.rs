//! The suite for every store: each rule of the life cycle, as a promise that is broken without it.
//!
//! A test is named after its promise and quotes the rule; it follows the shortest trace that breaks the promise in a store
//! without that rule. `tests/mutants` drops the rules one by one and shows that a test fails for each.

#[path = "store/answers.rs"]
mod answers;
#[path = "store/bench.rs"]
mod bench;
#[path = "store/burning.rs"]
mod burning;
#[path = "store/events.rs"]
mod events;
#[path = "store/gates.rs"]
mod gates;
#[path = "store/healing.rs"]
mod healing;
#[path = "store/keeping.rs"]
mod keeping;
#[path = "store/lanes.rs"]
mod lanes;
#[path = "store/letters.rs"]
mod letters;
#[path = "store/notices.rs"]
mod notices;
#[path = "store/on_postgres.rs"]
mod on_postgres;
#[path = "store/on_sqlite.rs"]
mod on_sqlite;
#[path = "store/operators.rs"]
mod operators;
#[path = "store/oracle.rs"]
mod oracle;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "store/property.rs"]
mod property;
#[path = "store/quota.rs"]
mod quota;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/sending.rs"]
mod sending;
#[path = "store/subjects.rs"]
mod subjects;
#[path = "store/tails.rs"]
mod tails;
#[path = "store/walk.rs"]
mod walk;
#[path = "store/world.rs"]
mod world;
