//! Addresses that must not be mailed: list, add, remove.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::digests::reported;
use super::open::Office;
use super::output::{clean, note, seconds, written};
use super::table::{Column, Table, text};
use super::{Failure, Outcome};
use crate::store::{Command, Page, Query, Rows};

/// Addresses that must not be mailed: list, add, remove
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// All of them, one a line
    List {
        /// One JSON object a line (NDJSON).
        #[arg(long)]
        json: bool,
    },
    /// No mail to these addresses; their open items end as suppressed when their mail would leave
    Add {
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<String>,
        /// Why, for those who come after you.
        #[arg(long, value_name = "TEXT", default_value = "by hand")]
        reason: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// These addresses may be mailed again
    Remove {
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<String>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

static COLUMNS: [Column; 3] = [text("ADDRESS"), text("SINCE"), text("REASON")];

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    match args.what {
        What::List { json } => list(&office, json),
        What::Add { addresses, reason, json } => {
            let report = office.act(&Command::Suppress { addresses, reason })?;
            reported(&report, "suppression", "added", json)
        }
        What::Remove { addresses, json } => {
            let report = office.act(&Command::Unsuppress { addresses })?;
            if report.changed == 0 {
                note("none of them was suppressed");
            }
            reported(&report, "suppression", "removed", json)
        }
    }
}

fn list(office: &Office, json: bool) -> Outcome {
    written(|out| {
        let (mut page, mut table, mut any) = (Page { after: 0, ..Page::FIRST }, Table::new(&COLUMNS), false);
        loop {
            let Rows::Suppressions { rows, next } = office.read(&Query::Suppressions, page)? else {
                return Err(Failure::unexpected().into());
            };
            any |= !rows.is_empty();
            if json {
                rows.iter().try_for_each(|row| out.json(row))?;
            } else {
                let cells = |row: &crate::store::desk::Suppression| {
                    vec![clean(&row.address), seconds(&row.since), clean(&row.reason)]
                };
                table.rows(out, &rows.iter().map(cells).collect::<Vec<_>>())?;
            }
            let Some(after) = next else { break };
            page.after = after;
        }
        if !any {
            note("no address is suppressed");
        }
        Ok(ExitCode::SUCCESS)
    })
}
