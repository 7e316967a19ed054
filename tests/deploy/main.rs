//! What `deploy/` promises to those who run clusters, with the tools that they use: `tests/run deploy` installs them.

#[path = "../support/emulator.rs"]
mod emulator;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/sink.rs"]
mod sink;

mod chart;
mod configuration;

mod generated;
mod identity;
mod image;
mod kind;
mod numbers;
mod pods;
mod readme;
mod refusals;
mod sts;
mod tools;
mod triggers;
