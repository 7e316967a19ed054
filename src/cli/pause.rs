//! The kill switch: `pause` stops sending, `resume` lets it go on. State is kept, intake goes on.

use std::path::PathBuf;

use super::digests::reported;
use super::open::Office;
use super::output::note;
use super::{Failure, Outcome};
use crate::store::Command;

/// The kill switch: no mail leaves until `resume`; state is kept, intake goes on
#[derive(clap::Args)]
pub struct Pause {
    /// Only this route. Default: everything.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Ends a `pause`: what is due leaves
#[derive(clap::Args)]
pub struct Resume {
    /// Only this route. Default: the pause of everything; routes that were paused by name stay so.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub fn pause(args: Pause, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    known(&office, args.route.as_deref())?;
    let report = office.act(&Command::Pause { route: args.route })?;
    if report.changed == 0 {
        note("paused already");
    }
    reported(&report, "pause", "set; mails in a call right now still leave", args.json)
}

pub fn resume(args: Resume, config: &[PathBuf]) -> Outcome {
    let office = Office::open(config)?;
    let report = office.act(&Command::Resume { route: args.route })?;
    if report.changed == 0 {
        note("not paused; `owlpost status` shows what is");
    }
    reported(&report, "pause", "ended", args.json)
}

/// A typing mistake must not look like a stop.
fn known(office: &Office, route: Option<&str>) -> Result<(), Failure> {
    match route {
        Some(name) if !office.routes().contains(&name) => {
            Err(Failure::usage(format!("there is no route {name:?}; there are {}", office.routes().join(", "))))
        }
        _ => Ok(()),
    }
}
