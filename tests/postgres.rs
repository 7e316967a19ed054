//! PostgreSQL as it is in real life: restarted, killed, full of other people's doings. What was acknowledged is there once,
//! nothing else is lost, and each error says what to do.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/moving.rs"]
mod moving;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "postgres/rights.rs"]
mod rights;
#[path = "postgres/store.rs"]
mod store;
