//! What `deploy/` promises to those who run clusters, with the tools that they use: `tests/run deploy` sets them up.

#[path = "../support/emulator.rs"]
mod emulator;
#[allow(dead_code, reason = "each test file uses its part")]
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/sink.rs"]
mod sink;

mod chart;
mod cluster;
mod configuration;
mod dashboards;
mod generated;
mod guide;
mod identity;
mod image;
mod kind;
mod night;
mod numbers;
mod pods;
mod prometheus;
mod readme;
mod refusals;
mod replicas;
mod rules;
mod runbook;
mod schema;
mod sts;
mod terraform;
mod tools;
mod triggers;
mod zms;
