//! PostgreSQL as it is in real life: restarted, killed, full of other people's doings. What was acknowledged is there once,
//! nothing else is lost, and each error says what to do.

#[path = "postgres/account.rs"]
mod account;
#[path = "postgres/backlog.rs"]
mod backlog;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "postgres/clocks.rs"]
mod clocks;
#[path = "postgres/cuts.rs"]
mod cuts;
#[path = "postgres/disk.rs"]
mod disk;
#[path = "postgres/failover.rs"]
mod failover;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/idle.rs"]
mod idle;
#[path = "postgres/line.rs"]
mod line;
#[path = "postgres/locks.rs"]
mod locks;
#[path = "postgres/moving.rs"]
mod moving;
#[path = "postgres/odd.rs"]
mod odd;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "postgres/rights.rs"]
mod rights;
#[path = "postgres/store.rs"]
mod store;
#[path = "postgres/strangers.rs"]
mod strangers;
#[path = "postgres/traffic.rs"]
mod traffic;
#[path = "postgres/turns.rs"]
mod turns;
#[path = "postgres/unheard.rs"]
mod unheard;
#[path = "postgres/versions.rs"]
mod versions;
#[path = "support/wire.rs"]
mod wire;
