//! What stands in `deploy/`, checked by the tools that its users have.

#[allow(dead_code, reason = "each test file uses its part")]
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/process.rs"]
mod process;

mod dashboards;
mod guide;
mod night;
mod prometheus;
mod rules;
mod runbook;
mod terraform;
mod zms;
