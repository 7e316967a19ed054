//! The store as a whole: into another database.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::open::Office;
use super::output::{note, written};
use super::{Failure, Outcome};
use crate::app::moving;
use crate::store::{Page, Query, Rows};

/// The store as a whole
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Copies a SQLite store into the configured PostgreSQL store, which must be empty; no worker may run on either
    Copy {
        /// The SQLite store's file; it stays as it is.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Copied<'s> {
    store_id: &'s str,
    rows: u64,
    items: u64,
}

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    match args.what {
        What::Copy { from, json } => copy(&from, config, json),
    }
}

fn copy(from: &std::path::Path, files: &[PathBuf], json: bool) -> Outcome {
    let config = super::load(files)?;
    let runtime = super::runtime()?;
    let rows = runtime.block_on(moving::copy(from, &config, |_| {}))?;
    // Looked at with the eyes of every other command.
    let office = Office::open(files)?;
    let Rows::Verified(found) = office.read(&Query::Verify, Page::FIRST)? else { return Err(Failure::unexpected()) };
    let Rows::Status(status) = office.read(&Query::Status { now: office.now() }, Page::FIRST)? else {
        return Err(Failure::unexpected());
    };
    for difference in &found.differences {
        note(difference);
    }
    if !found.differences.is_empty() {
        return Err(Failure::failed(
            "the copy contradicts itself, as told above; `owlpost status --verify` on the file says whether it did before",
        ));
    }
    let items = found.recounted.items;
    written(|out| {
        if json {
            out.json(&Copied { store_id: &status.store_id, rows, items })?;
        } else {
            out.line(&format!("store {}: {rows} rows copied, {items} items, the ledger balances", status.store_id))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
