//! The operator's desk on a real file: every query and filter, and the commands that show them.

mod commands;
mod listings;
mod status;
mod why;
mod world;
