//! Brings the store's schema up to date.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::open::Office;
use super::output::written;
use super::{Failure, Outcome};
use crate::store::{Page, Query, Rows};

/// Brings the store's schema up to date; creates the store if there is none
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Migrated<'s> {
    store_id: &'s str,
    schema_version: u32,
}

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::migrate(config)?;
    let Rows::Status(status) = office.read(&Query::Status { now: office.now() }, Page::FIRST)? else {
        return Err(Failure::unexpected());
    };
    written(|out| {
        if args.json {
            out.json(&Migrated { store_id: &status.store_id, schema_version: status.schema_version })?;
        } else {
            out.line(&format!("store {}: schema {}, up to date", status.store_id, status.schema_version))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
