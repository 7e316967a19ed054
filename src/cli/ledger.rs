//! The proof of notification: a line an item.

use std::path::PathBuf;
use std::process::ExitCode;

use super::open::Office;
use super::output::{clean, note, or_dash, seconds, seconds_or_dash, written};
use super::since::Since;
use super::table::{Column, Table, text};
use super::{Failure, Outcome};
use crate::store::desk::LedgerRow;
use crate::store::{Page, Query, Rows};

/// The proof of notification: a line an item
#[derive(clap::Args)]
pub struct Args {
    /// What was accepted or settled since then: a time (RFC 3339), or how long ago ("24h").
    #[arg(long, value_name = "T")]
    since: Option<Since>,
    /// Only items for this principal.
    #[arg(long, value_name = "PRINCIPAL")]
    recipient: Option<String>,
    /// One JSON object a line (NDJSON).
    #[arg(long)]
    json: bool,
}

pub static COLUMNS: [Column; 13] = [
    text("SOURCE"),
    text("ID"),
    text("TYPE"),
    text("SUBJECT_KEY"),
    text("RECIPIENT"),
    text("ADDRESS"),
    text("ROUTE"),
    text("STATE"),
    text("REASON"),
    text("DIGEST"),
    text("MESSAGE_ID"),
    text("ACCEPTED_AT"),
    text("SETTLED_AT"),
];

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    let since = args.since.map(|since| since.at(office.now()));
    let query = Query::Ledger { since, recipient: args.recipient };
    written(|out| {
        let (mut page, mut table, mut any) = (Page::FIRST, Table::new(&COLUMNS), false);
        loop {
            let Rows::Ledger { rows, next } = office.read(&query, page)? else {
                return Err(Failure::unexpected().into());
            };
            any |= !rows.is_empty();
            if args.json {
                rows.iter().try_for_each(|row| out.json(row))?;
            } else {
                table.rows(out, &rows.iter().map(cells).collect::<Vec<_>>())?;
            }
            let Some(after) = next else { break };
            page.after = after;
        }
        if !any {
            note("no items");
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn cells(row: &LedgerRow) -> Vec<String> {
    vec![
        clean(&row.source),
        clean(&row.id),
        clean(&row.kind),
        or_dash(row.subject_key.as_deref()),
        clean(&row.recipient),
        or_dash(row.address.as_deref()),
        clean(&row.route),
        clean(&row.state),
        or_dash(row.reason.as_deref()),
        or_dash(row.digest.as_deref()),
        or_dash(row.message_id.as_deref()),
        seconds(&row.accepted_at),
        seconds_or_dash(row.settled_at.as_deref()),
    ]
}
