//! The ledger, digests by state, lateness.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::open::Office;
use super::output::{self, Out, Written, clean, seconds, written};
use super::{Failure, Outcome};
use crate::model::Time;
use crate::store::desk::{PartRow, Quota, Status, Verified};
use crate::store::{Page, Query, Rows};

/// The ledger, digests by state, lateness
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Count the ledger again and check the rows against each other; exit 1 on a difference.
    #[arg(long)]
    verify: bool,
}

/// `status --json`: the contract's fields at the top.
#[derive(Serialize)]
struct Told<'s> {
    #[serde(flatten)]
    status: &'s Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<&'s Verified>,
}

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    let now = office.now();
    let Rows::Status(status) = office.read(&Query::Status { now }, Page::FIRST)? else {
        return Err(Failure::unexpected());
    };
    let verified = match args.verify {
        true => match office.read(&Query::Verify, Page::FIRST)? {
            Rows::Verified(verified) => Some(verified),
            _ => return Err(Failure::unexpected()),
        },
        false => None,
    };
    let differs = verified.as_ref().is_some_and(|v| !v.differences.is_empty());
    written(|out| {
        if args.json {
            out.json(&Told { status: &status, verified: verified.as_deref() })?;
        } else {
            tell(out, &status, now)?;
            if let Some(verified) = &verified {
                verdict(out, verified)?;
            }
        }
        Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// Names of figures and facts fill so many columns.
const NAME: usize = 16;

fn tell(out: &mut Out, status: &Status, now: Time) -> Written {
    let (l, d) = (&status.ledger, &status.digests);
    let ledger = [
        ("items", l.items),
        ("pending", l.pending),
        ("in doubt", l.in_doubt),
        ("delivered", l.delivered),
        ("withdrawn", l.withdrawn),
        ("suppressed", l.suppressed),
        ("dead", l.dead),
    ];
    let digests = [
        ("gathering", d.gathering),
        ("held", d.held),
        ("leased", d.leased),
        ("sending", d.sending),
        ("waiting", d.waiting),
        ("in doubt", d.in_doubt),
        ("due now", d.due),
    ];
    let mails = [("sent", status.mails.sent), ("in 24 hours", status.quota.used_24h)];
    let mut inputs = vec![("dead letters", status.dead_letters)];
    if status.forwarding.is_some() {
        inputs.push(("to be forwarded", status.unforwarded));
    }
    let p = &status.purged;
    let purged = [
        ("items", p.items),
        ("delivered", p.delivered),
        ("withdrawn", p.withdrawn),
        ("suppressed", p.suppressed),
        ("dead", p.dead),
    ];
    let mut sections: Vec<(&str, &[(&str, u64)])> =
        vec![("Ledger", &ledger), ("Digests", &digests), ("Mails", &mails), ("Refused inputs", &inputs)];
    if p.items > 0 {
        sections.insert(1, ("Purged", &purged));
    }
    let figures = sections.iter().flat_map(|(_, figures)| figures.iter());
    let width = figures.map(|(_, n)| n.to_string().len()).max().unwrap_or(0);
    for (name, figures) in sections {
        out.heading(name)?;
        for (what, n) in figures {
            out.line(&format!("  {what:<NAME$}{n:>width$}"))?;
        }
    }
    parts(out, "Mailer", &status.mailers, now)?;
    quota(out, &status.quota)?;
    parts(out, "Sources", &status.sources, now)?;
    parts(out, "Dead letters to", status.forwarding.as_slice(), now)?;
    out.heading("Store")?;
    let mib = status.size_bytes as f64 / 1_048_576.0;
    out.line(&format!("  {:<NAME$}{}, schema {}, {mib:.1} MiB", "id", status.store_id, status.schema_version))?;
    if let Some(oldest) = status.oldest_due_at.as_deref() {
        let late_s = Time::parse(oldest).map_or(0, |at| now.since(at).as_secs());
        out.line(&format!("  {:<NAME$}{} ({late_s} s ago)", "oldest due", seconds(oldest)))?;
    }
    for route in &status.paused {
        let what = if route == "*" { "everything".into() } else { format!("route {}", clean(route)) };
        out.line(&format!("  {:<NAME$}{what}", "paused"))?;
    }
    Ok(())
}

/// A worker says how its parts are every 30 seconds; three of those without a word, and none is running.
const SILENT_AFTER: Duration = Duration::from_secs(90);

/// The parts of the worker as it last said; nothing where it has none.
fn parts(out: &mut Out, heading: &str, parts: &[PartRow], now: Time) -> Written {
    let Some(first) = parts.first() else { return Ok(()) };
    match Time::parse(&first.at).filter(|at| now.since(*at) > SILENT_AFTER) {
        Some(_) => out.heading(&format!("{heading}, when a worker was last seen, at {}", seconds(&first.at)))?,
        None => out.heading(heading)?,
    }
    let width = parts.iter().map(|p| p.name.chars().count()).max().unwrap_or(0).max(NAME - 2);
    for part in parts {
        let lag = part.lag.map_or_else(String::new, |n| format!(", {n} waiting"));
        let why = part.detail.as_deref().map_or_else(String::new, |why| format!(": {}", clean(why)));
        let since = if part.state == "down" { format!(" since {}", seconds(&part.since)) } else { String::new() };
        out.line(&format!("  {:<width$}  {}{since}{lag}{why}", clean(&part.name), part.state))?;
    }
    Ok(())
}

/// What the sending account may send; nothing where the mailer has none.
fn quota(out: &mut Out, quota: &Quota) -> Written {
    if quota.per_second.is_none() && quota.per_day.is_none() {
        return Ok(());
    }
    out.heading("Quota")?;
    let bound = |n: Option<String>| n.unwrap_or_else(|| "without a bound".into());
    let slowed =
        if quota.slowed_to < 1.0 { format!(", slowed to {:.0} %", quota.slowed_to * 100.0) } else { String::new() };
    out.line(&format!("  {:<NAME$}{}{slowed}", "per second", bound(quota.per_second.map(|n| n.to_string()))))?;
    out.line(&format!("  {:<NAME$}{}", "per 24 hours", bound(quota.per_day.map(|n| n.to_string()))))?;
    out.line(&format!(
        "  {:<NAME$}{} here, {} by others, {} reserved",
        "used", quota.used_24h, quota.external_24h, quota.reserved
    ))
}

fn verdict(out: &mut Out, verified: &Verified) -> Written {
    if verified.differences.is_empty() {
        let n = output::counted(verified.recounted.items, "item");
        return out.line(&format!("  {:<NAME$}{n} counted again, no difference", "verified"));
    }
    out.heading(&output::counted(verified.differences.len() as u64, "difference"))?;
    verified.differences.iter().try_for_each(|difference| out.line(&format!("  {difference}")))
}
