//! The whole history of one event, recipient, digest or message id.

use std::path::PathBuf;
use std::process::ExitCode;

use super::open::Office;
use super::output::{clean, note, or_dash, seconds, written};
use super::table::{Column, Table, number, text};
use super::{Failure, Outcome};
use crate::store::desk::{Match, Step};
use crate::store::{Page, Query, Rows};

/// The whole history of one event, recipient, digest or message id
#[derive(clap::Args)]
pub struct Args {
    /// Id of an event (of any source), a principal, a digest's or a message's id.
    #[arg(value_name = "ID")]
    id: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

static MATCHES: [Column; 5] = [text("STATE"), text("ID"), text("TYPE"), text("SOURCE"), text("SUBJECT")];
static STEPS: [Column; 8] = [
    text("AT"),
    text("WHAT"),
    text("RECIPIENT"),
    text("ROUTE"),
    text("DIGEST"),
    number("N"),
    text("MESSAGE"),
    text("REASON"),
];

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    let Rows::Why(found) = office.read(&Query::Why { id: args.id.clone(), now: office.now() }, Page::FIRST)? else {
        return Err(Failure::unexpected());
    };
    let Some(history) = found else {
        let id = clean(&args.id);
        return Err(Failure::failed(format!(
            "{id}: no event, recipient, digest or message of this id; purged ones are forgotten (store.retention)"
        )));
    };
    if history.is_cut {
        note(&format!("only {} items are told of; `owlpost ledger` lists all", history.matches.len()));
    }
    written(|out| {
        if args.json {
            out.json(&history)?;
            return Ok(ExitCode::SUCCESS);
        }
        out.heading(&format!("{} {}", clean(&history.kind), clean(&history.id)))?;
        Table::new(&MATCHES).rows(out, &history.matches.iter().map(match_cells).collect::<Vec<_>>())?;
        out.line("")?;
        Table::new(&STEPS).rows(out, &history.history.iter().map(step_cells).collect::<Vec<_>>())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn match_cells(m: &Match) -> Vec<String> {
    vec![
        or_dash(m.state.as_deref()),
        clean(&m.id),
        or_dash(m.kind.as_deref()),
        or_dash(m.source.as_deref()),
        or_dash(m.subject_key.as_deref()),
    ]
}

fn step_cells(s: &Step) -> Vec<String> {
    vec![
        seconds(&s.at),
        clean(&s.what.replace('_', " ")),
        or_dash(s.recipient.as_deref()),
        or_dash(s.route.as_deref()),
        or_dash(s.digest.as_deref()),
        s.attempt.map_or_else(|| "-".into(), |n| n.to_string()),
        or_dash(s.message_id.as_deref()),
        or_dash(s.reason.as_deref()),
    ]
}
