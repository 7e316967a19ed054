//! Open, due, held and in-doubt digests: list, show, release, send-now.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::open::Office;
use super::output::{self, Out, Written, clean, note, or_dash, seconds, seconds_or_dash, written};
use super::table::{Column, Table, number, text};
use super::{Failure, Outcome, ledger};
use crate::config::did_you_mean;
use crate::store::desk::{AttemptRow, DigestPage, DigestRow, LedgerRow};
use crate::store::{Command, Page, Query, Report, Rows};

/// Open, due, held and in-doubt digests: list, show, release, send-now
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Open digests, one a line
    List {
        /// Only these; "due" ones are gathering or waiting, and their time has come. Default: all but closed.
        #[arg(long, value_name = "STATE", value_parser = STATES)]
        state: Option<String>,
        /// Only those of this route.
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
        /// One JSON object a line (NDJSON).
        #[arg(long)]
        json: bool,
    },
    /// One digest with its attempts and items
    Show {
        #[arg(value_name = "DIGEST")]
        id: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Lets held digests go: they are due now
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Release {
        #[arg(value_name = "DIGEST", group = "which")]
        id: Option<String>,
        /// All that are held on this route.
        #[arg(long, value_name = "NAME", group = "which")]
        route: Option<String>,
        /// All that are held.
        #[arg(long, group = "which")]
        all: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Makes a gathering or waiting digest due now
    SendNow {
        #[arg(value_name = "DIGEST")]
        id: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What `--state` takes.
const STATES: [&str; 8] = ["gathering", "due", "held", "leased", "sending", "waiting", "in_doubt", "closed"];

static COLUMNS: [Column; 9] = [
    text("DIGEST"),
    text("STATE"),
    text("ROUTE"),
    text("RECIPIENT"),
    number("OPEN"),
    number("ITEMS"),
    number("ATTEMPTS"),
    text("OPENED_AT"),
    text("DUE_AT"),
];
static ATTEMPTS: [Column; 6] =
    [number("ATTEMPT"), text("OUTCOME"), text("BEGUN_AT"), text("SETTLED_AT"), text("MESSAGE_ID"), text("DETAIL")];

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    match args.what {
        What::List { state, route, json } => list(&office, state, route, json),
        What::Show { id, json } => show(&office, &id, json),
        What::Release { id, route, json, .. } => release(&office, id, route, json),
        What::SendNow { id, json } => {
            let report = office.act(&Command::SendNow { digest: id })?;
            reported(&report, "digest", "made due", json)
        }
    }
}

fn list(office: &Office, state: Option<String>, route: Option<String>, json: bool) -> Outcome {
    let unknown = unknown_route(office, route.as_deref());
    let query = Query::Digests { state, route, now: office.now() };
    written(|out| {
        let (mut page, mut table, mut any) = (Page::FIRST, Table::new(&COLUMNS), false);
        loop {
            let Rows::Digests { rows, next } = office.read(&query, page)? else {
                return Err(Failure::unexpected().into());
            };
            any |= !rows.is_empty();
            if json {
                rows.iter().try_for_each(|row| out.json(row))?;
            } else {
                table.rows(out, &rows.iter().map(cells).collect::<Vec<_>>())?;
            }
            let Some(after) = next else { break };
            page.after = after;
        }
        if !any {
            note("no such digests");
            unknown.iter().for_each(|why| note(why));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Digests of a route that was taken out of the configuration are still there, so an unknown name is no error.
fn unknown_route(office: &Office, route: Option<&str>) -> Option<String> {
    let (name, known) = (route?, office.routes());
    let near = || did_you_mean(name, known.iter().copied());
    (!known.contains(&name)).then(|| format!("route {}: not in the configuration{}", clean(name), near()))
}

fn cells(row: &DigestRow) -> Vec<String> {
    let state = if row.due { format!("{}, due", row.state) } else { row.state.clone() };
    vec![
        clean(&row.id),
        state,
        clean(&row.route),
        clean(&row.recipient),
        row.open.to_string(),
        row.items.to_string(),
        row.attempts.to_string(),
        seconds(&row.opened_at),
        seconds_or_dash(row.due_at.as_deref()),
    ]
}

#[derive(Serialize)]
struct Shown<'d> {
    #[serde(flatten)]
    digest: &'d DigestRow,
    address: Option<&'d str>,
    attempted: &'d [AttemptRow],
    listed: &'d [LedgerRow],
}

fn show(office: &Office, id: &str, json: bool) -> Outcome {
    let digest = whole(office, id)?;
    written(|out| {
        if json {
            out.json(&Shown {
                digest: &digest.row,
                address: digest.address.as_deref(),
                attempted: &digest.attempts,
                listed: &digest.items,
            })?;
        } else {
            tell(out, &digest)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// All pages of a digest: `limits.open_items_per_recipient` bounds what one can hold.
fn whole(office: &Office, id: &str) -> Result<DigestPage, Failure> {
    let query = Query::Digest { id: id.into(), now: office.now() };
    let mut page = Page::FIRST;
    let mut whole: Option<DigestPage> = None;
    loop {
        let Rows::Digest(found) = office.read(&query, page)? else { return Err(Failure::unexpected()) };
        let Some(mut found) = found else {
            return Err(Failure::failed(format!("{}: no such digest; `owlpost digests list` shows them", clean(id))));
        };
        let next = found.next;
        whole = Some(match whole.take() {
            None => *found,
            Some(mut before) => {
                before.items.append(&mut found.items);
                before
            }
        });
        match (next, whole.take()) {
            (Some(after), before) => (page.after, whole) = (after, before),
            (None, Some(all)) => return Ok(all),
            (None, None) => return Err(Failure::unexpected()),
        }
    }
}

fn tell(out: &mut Out, digest: &DigestPage) -> Written {
    let row = &digest.row;
    out.heading(&format!("digest {}", clean(&row.id)))?;
    let due = if row.due { " (now)" } else { "" };
    let facts = [
        ("state", clean(&row.state)),
        ("recipient", clean(&row.recipient)),
        ("address", or_dash(digest.address.as_deref())),
        ("route", clean(&row.route)),
        ("priority", clean(&row.priority)),
        ("items", format!("{}, {} open", row.items, row.open)),
        ("opened", seconds(&row.opened_at)),
        ("due", format!("{}{due}", seconds_or_dash(row.due_at.as_deref()))),
        ("until", seconds_or_dash(row.until.as_deref())),
        ("closed", seconds_or_dash(row.closed_at.as_deref())),
    ];
    for (name, fact) in facts.into_iter().filter(|(_, fact)| fact != "-") {
        out.line(&format!("  {name:<10}{fact}"))?;
    }
    let attempts = |a: &AttemptRow| {
        vec![
            a.attempt.to_string(),
            clean(&a.outcome),
            seconds(&a.begun_at),
            seconds_or_dash(a.settled_at.as_deref()),
            or_dash(a.message_id.as_deref()),
            or_dash(a.detail.as_deref()),
        ]
    };
    if !digest.attempts.is_empty() {
        out.line("")?;
        Table::new(&ATTEMPTS).rows(out, &digest.attempts.iter().map(attempts).collect::<Vec<_>>())?;
    }
    if !digest.items.is_empty() {
        out.line("")?;
        Table::new(&ledger::COLUMNS).rows(out, &digest.items.iter().map(ledger::cells).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn release(office: &Office, id: Option<String>, route: Option<String>, json: bool) -> Outcome {
    let unknown = unknown_route(office, route.as_deref());
    let command = Command::Release { digest: id, route };
    let mut total = Report::default();
    // The store releases a bounded number a transaction; each turn leaves fewer that are held.
    loop {
        let report = office.act(&command)?;
        let done = report.changed == 0 || matches!(&command, Command::Release { digest: Some(_), .. });
        total.changed += report.changed;
        // What was refused in one turn is again in the next.
        total.refused = report.refused;
        if done {
            break;
        }
    }
    if total.changed == 0 {
        unknown.iter().for_each(|why| note(why));
    }
    reported(&total, "digest", "released", json)
}

/// Says what a command changed; what it refused goes to stderr, and the exit code is 1.
pub fn reported(report: &Report, noun: &str, done: &str, json: bool) -> Outcome {
    written(|out| {
        if json {
            out.json(report)?;
        } else {
            out.line(&format!("{} {done}", output::counted(report.changed, noun)))?;
        }
        out.flush()?;
        report.refused.iter().for_each(|why| note(&clean(why)));
        Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DigestState;

    #[test]
    fn every_state_can_be_asked_for() {
        assert!(DigestState::ALL.into_iter().all(|state| STATES.contains(&state.as_str())));
        assert_eq!(STATES.len(), DigestState::ALL.len() + 1, "and due");
    }
}
