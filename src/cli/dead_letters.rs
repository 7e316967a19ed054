//! Refused inputs and dead items: list, show, replay, discard.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use clap::Subcommand;
use serde::Serialize;

use super::digests::reported;
use super::open::Office;
use super::output::{Out, Written, clean, note, or_dash, seconds, seconds_or_dash, written};
use super::since::Since;
use super::table::{Column, Table, number, text};
use super::{Failure, Outcome};
use crate::config::did_you_mean;
use crate::model::{Reason, RefusedReason};
use crate::store::desk::{DeadLetter, DeadLetterRow, LedgerRow, LetterKind};
use crate::store::{Command, Page, Query, Report, Rows};
use replay::replay;

mod replay;

/// Refused inputs and dead items: list, show, replay, discard
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Dead letters, one a line: refused inputs (in-5), then dead items (it-17-4)
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also inputs that were discarded or replayed.
        #[arg(long)]
        all: bool,
        /// One JSON object a line (NDJSON).
        #[arg(long)]
        json: bool,
    },
    /// One dead letter, with the bytes that were refused
    Show {
        #[arg(value_name = "ID")]
        id: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Takes inputs in once more, and puts dead items into a new digest
    Replay(Chosen),
    /// Hides refused inputs; they stay until the retention ends
    Discard(Chosen),
}

#[derive(clap::Args)]
struct Filter {
    /// For example too_large (an input's) or no_address (an item's).
    #[arg(long, value_name = "REASON", value_parser = known_reason)]
    reason: Option<String>,
    /// Name of the source of an input, or the CloudEvents source of an item's event.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// What came, or died, since then: a time (RFC 3339), or how long ago ("24h").
    #[arg(long, value_name = "T")]
    since: Option<Since>,
    /// Refused inputs only, or dead items only.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
}

/// A reason that nothing has would quietly choose nothing.
fn known_reason(text: &str) -> Result<String, String> {
    let known = || RefusedReason::ALL.iter().map(|r| r.as_str()).chain(Reason::ALL.iter().map(|r| r.as_str()));
    if known().any(|reason| reason == text) {
        return Ok(text.to_owned());
    }
    match did_you_mean(text, known()) {
        near if near.is_empty() => Err(format!("no such reason; there are {}", known().collect::<Vec<_>>().join(", "))),
        near => Err(format!("no such reason{near}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Input,
    Item,
}

/// Some by id, or all that the filters leave.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "reason", "source", "since", "kind", "all"]))]
struct Chosen {
    /// Of refused inputs (in-5) and dead items (it-17-4).
    #[arg(value_name = "ID", conflicts_with_all = ["reason", "source", "since", "kind", "all"])]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them, or all that the other filters leave.
    #[arg(long)]
    all: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

static COLUMNS: [Column; 9] = [
    text("ID"),
    text("KIND"),
    text("REASON"),
    text("SOURCE"),
    text("FIRST_AT"),
    number("COUNT"),
    number("BYTES"),
    text("POSITION"),
    text("DETAIL"),
];

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    match args.what {
        What::List { filter, all, json } => list(&office, &query(filter, all, &office), json),
        What::Show { id, json } => show(&office, &id, json),
        What::Replay(chosen) => {
            let json = chosen.json;
            reported(&each(&office, chosen, replay)?, "dead letter", "replayed", json)
        }
        What::Discard(mut chosen) => {
            let json = chosen.json;
            if chosen.filter.kind == Some(Kind::Item) {
                return Err(Failure::usage("dead items can't be discarded: they are part of the ledger"));
            }
            chosen.filter.kind = Some(Kind::Input);
            reported(&each(&office, chosen, discard)?, "dead letter", "discarded", json)
        }
    }
}

fn query(filter: Filter, discarded: bool, office: &Office) -> Query {
    Query::DeadLetters {
        kind: filter.kind.map(|kind| match kind {
            Kind::Input => LetterKind::Input,
            Kind::Item => LetterKind::Item,
        }),
        reason: filter.reason,
        source: filter.source,
        since: filter.since.map(|since| since.at(office.now())),
        discarded,
    }
}

/// The page after a cursor.
fn page(office: &Office, query: &Query, page: Page) -> Result<(Vec<DeadLetterRow>, Option<i64>), Failure> {
    match office.read(query, page)? {
        Rows::DeadLetters { rows, next } => Ok((rows, next)),
        _ => Err(Failure::unexpected()),
    }
}

fn list(office: &Office, query: &Query, json: bool) -> Outcome {
    written(|out| {
        let (mut at, mut table, mut any) = (Page::FIRST, Table::new(&COLUMNS), false);
        let mut held: Vec<Vec<String>> = Vec::new();
        loop {
            let (rows, next) = page(office, query, at)?;
            any |= !rows.is_empty();
            if json {
                rows.iter().try_for_each(|row| out.json(row))?;
            } else {
                held.extend(rows.iter().map(cells));
            }
            // Inputs and items come in pages of their own, and stand under one head: columns are as wide as a full page
            // needs them, be it of both.
            if next.is_none() || held.len() >= at.limit as usize {
                table.rows(out, &std::mem::take(&mut held))?;
            }
            let Some(after) = next else { break };
            at.after = after;
        }
        if !any {
            note("no dead letters");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn kind_name(kind: LetterKind) -> &'static str {
    match kind {
        LetterKind::Input => "input",
        LetterKind::Item => "item",
    }
}

fn cells(row: &DeadLetterRow) -> Vec<String> {
    vec![
        clean(&row.id),
        kind_name(row.kind).into(),
        clean(&row.reason),
        clean(&row.source),
        seconds(&row.first_at),
        row.count.to_string(),
        row.bytes.to_string(),
        clean(&row.position),
        or_dash(Some(&row.detail)),
    ]
}

// ---- one

#[derive(Serialize)]
struct Shown<'l> {
    #[serde(flatten)]
    row: &'l DeadLetterRow,
    last_at: &'l str,
    discarded_at: Option<&'l str>,
    sha256: Option<&'l str>,
    headers: &'l [(String, String)],
    /// The refused bytes, if they are UTF-8 ...
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'l str>,
    /// ... and if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'l LedgerRow>,
}

fn show(office: &Office, id: &str, json: bool) -> Outcome {
    let Some(letter) = letter(office, id)? else {
        return Err(Failure::failed(format!(
            "{}: no such dead letter; `owlpost dead-letters list` shows them",
            clean(id)
        )));
    };
    written(|out| {
        if json {
            let is_input = letter.row.kind == LetterKind::Input;
            let body = std::str::from_utf8(&letter.body).ok().filter(|_| is_input);
            let encoded = || base64::engine::general_purpose::STANDARD.encode(&letter.body);
            out.json(&Shown {
                row: &letter.row,
                last_at: &letter.last_at,
                discarded_at: letter.discarded_at.as_deref(),
                sha256: letter.sha256.as_deref(),
                headers: &letter.headers,
                body,
                body_base64: (is_input && body.is_none()).then(encoded),
                item: letter.item.as_ref(),
            })?;
        } else {
            tell(out, &letter)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn letter(office: &Office, id: &str) -> Result<Option<Box<DeadLetter>>, Failure> {
    match office.read(&Query::DeadLetter { id: id.into() }, Page::FIRST)? {
        Rows::DeadLetter(found) => Ok(found),
        _ => Err(Failure::unexpected()),
    }
}

fn tell(out: &mut Out, letter: &DeadLetter) -> Written {
    let row = &letter.row;
    out.heading(&format!("{} {}", kind_name(row.kind), clean(&row.id)))?;
    let cut = if row.truncated { format!(", the first {} are kept", letter.body.len()) } else { String::new() };
    let item = letter.item.as_ref();
    let facts = [
        ("reason", clean(&row.reason)),
        ("detail", or_dash(Some(&row.detail))),
        ("source", clean(&row.source)),
        ("position", clean(&row.position)),
        ("first", seconds(&row.first_at)),
        ("last", seconds(&letter.last_at)),
        ("count", row.count.to_string()),
        ("bytes", format!("{}{cut}", row.bytes)),
        ("sha256", or_dash(letter.sha256.as_deref())),
        ("discarded", seconds_or_dash(letter.discarded_at.as_deref())),
        ("forwarded", seconds_or_dash(row.forwarded_at.as_deref())),
        ("not sent", or_dash(row.forward_error.as_deref())),
        ("type", or_dash(item.map(|i| i.kind.as_str()))),
        ("subject", or_dash(item.and_then(|i| i.subject_key.as_deref()))),
        ("digest", or_dash(item.and_then(|i| i.digest.as_deref()))),
    ];
    for (name, fact) in facts.into_iter().filter(|(_, fact)| fact != "-") {
        out.line(&format!("  {name:<10}{fact}"))?;
    }
    for (name, value) in &letter.headers {
        out.line(&format!("  {}: {}", clean(name), clean(value)))?;
    }
    if !letter.body.is_empty() {
        out.line("")?;
        for line in String::from_utf8_lossy(&letter.body).lines() {
            out.line(&clean(line))?;
        }
    }
    Ok(())
}

// ---- many

/// Letters that one step takes: a transaction's worth.
const BATCH: usize = 500;

/// Does it to those that were named, or to page after page of those that the filters leave. A page is read before it
/// is worked on and the cursor only goes forward, so that nothing is done twice.
fn each(
    office: &Office,
    chosen: Chosen,
    work: fn(&Office, &[String], &mut Report) -> Result<(), Failure>,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    if !chosen.ids.is_empty() {
        for ids in chosen.ids.chunks(BATCH) {
            work(office, ids, &mut report)?;
        }
        return Ok(report);
    }
    let query = query(chosen.filter, false, office);
    let mut at = Page { limit: BATCH as u32, ..Page::FIRST };
    loop {
        let (rows, next) = page(office, &query, at)?;
        let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
        for ids in ids.chunks(BATCH) {
            work(office, ids, &mut report)?;
        }
        let Some(after) = next else { return Ok(report) };
        at.after = after;
    }
}

fn discard(office: &Office, ids: &[String], report: &mut Report) -> Result<(), Failure> {
    let done = office.act(&Command::Discard { ids: ids.to_vec() })?;
    let missing = (ids.len() as u64).saturating_sub(done.changed + done.refused.len() as u64);
    if missing > 0 {
        let which = if let [id] = ids { id.clone() } else { format!("{missing} of them") };
        report.refused.push(format!("{which}: no such refused input, or discarded already"));
    }
    add(report, done);
    Ok(())
}

fn add(report: &mut Report, more: Report) {
    report.changed += more.changed;
    report.refused.extend(more.refused);
}
