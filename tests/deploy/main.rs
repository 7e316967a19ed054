//! What `deploy/` promises to those who run clusters, with the tools that they use: `tests/run deploy` installs them.

mod chart;
mod configuration;

mod generated;
mod identity;
mod image;
mod numbers;
mod pods;
mod readme;
mod refusals;
mod tools;
mod triggers;
