//! Addresses that must not be mailed: list, add, remove.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::digests::reported;
use super::open::Office;
use super::output::{clean, note, seconds, written};
use super::table::{Column, Table, text};
use super::{Failure, Outcome};
use crate::directory::is_plausible_address;
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
            let (addresses, refused) = as_mailed(addresses);
            let mut report = office.act(&Command::Suppress { addresses, reason })?;
            report.refused.extend(refused);
            reported(&report, "suppression", "added", json)
        }
        What::Remove { addresses, json } => {
            // As given as well: older versions kept it so.
            let (as_mailed, _) = as_mailed(addresses.clone());
            let more = as_mailed.into_iter().filter(|one| !addresses.iter().any(|given| given.to_lowercase() == *one));
            let addresses = addresses.iter().cloned().chain(more).collect();
            let report = office.act(&Command::Unsuppress { addresses })?;
            if report.changed == 0 {
                note("none of them was suppressed");
            }
            reported(&report, "suppression", "removed", json)
        }
    }
}

/// As mails are addressed, since only the same address is held back: small letters, the domain as `xn--` where it has others.
/// And what no mail could be addressed to, with what is wrong.
fn as_mailed(addresses: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for given in addresses {
        let mailed = given.trim().rsplit_once('@').and_then(|(local, domain)| {
            let domain = idna::domain_to_ascii(domain).ok()?;
            Some(format!("{}@{domain}", local.to_lowercase())).filter(|address| is_plausible_address(address))
        });
        match mailed {
            Some(address) => good.push(address),
            None => refused.push(format!("{given}: not a mail address; give it bare, like name@example.com")),
        }
    }
    (good, refused)
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
