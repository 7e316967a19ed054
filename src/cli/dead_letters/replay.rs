//! Dead letters once more: refused inputs by the front door, dead items in a digest of their own.

use super::super::Failure;
use super::super::open::Office;
use super::{add, letter};
use crate::model::{Receipt, Time};
use crate::source::{Message, TIME};
use crate::store::desk::DeadLetter;
use crate::store::{Command, Report};

pub(super) fn replay(office: &Office, ids: &[String], report: &mut Report) -> Result<(), Failure> {
    let (inputs, items): (Vec<String>, Vec<String>) = ids.iter().cloned().partition(|id| id.starts_with("in-"));
    for id in inputs {
        match replay_input(office, &id)? {
            Ok(()) => add(report, office.act(&Command::Replayed { ids: vec![id] })?),
            Err(why) => report.refused.push(format!("{id}: {why}")),
        }
    }
    if !items.is_empty() {
        add(report, office.act(&Command::ReplayItems { ids: items })?);
    }
    Ok(())
}

/// `Err`: why it stays a dead letter.
fn replay_input(office: &Office, id: &str) -> Result<Result<(), String>, Failure> {
    let Some(letter) = letter(office, id)? else { return Ok(Err("no such refused input".into())) };
    if letter.row.truncated {
        return Ok(Err(format!(
            "only the first {} of its {} bytes were kept; send it again at its source",
            letter.body.len(),
            letter.row.bytes
        )));
    }
    if letter.discarded_at.is_some() {
        return Ok(Err("discarded or replayed already".into()));
    }
    for receipt in front_door(office, &letter)? {
        if let Receipt::Refused { reason, detail, .. } = receipt {
            return Ok(Err(format!("refused again: {}: {detail}", reason.as_str())));
        }
    }
    Ok(Ok(()))
}

/// For what has no time of its own: stamped when it is replayed, a request would outrank its decision.
fn came_at(letter: &DeadLetter) -> Option<Time> {
    let told = letter.headers.iter().find(|(name, _)| name == TIME).map(|(_, time)| time.as_str());
    // Older versions did not keep it.
    Time::parse(told.unwrap_or(&letter.row.first_at))
}

/// The bytes go through decode, route and accept once more, as their source would bring them. The receipts are those of
/// the entries that they became.
fn front_door(office: &Office, letter: &DeadLetter) -> Result<Vec<Receipt>, Failure> {
    let message = Message {
        position: letter.row.position.clone(),
        broker_id: None,
        headers: letter.headers.clone(),
        body: letter.body.clone(),
        time: came_at(letter),
    };
    office.enter(&letter.row.source, message)
}
