//! What operators do to digests, items and dead letters.

use crate::store::rules::tx::{Optional, Tx, params};

use super::books::{Books, Item, purged, urgency};
use super::{Shared, sql};
use crate::model::{DigestId, DigestState, ItemState};
use crate::store::{Command, Report, Result};

/// Digests that one `release` touches in its transaction; called again while there are more.
const TURN: u32 = 1_000;

pub(super) fn act(books: &mut Books<'_>, command: &Command) -> Result<Report> {
    let mut report = Report::default();
    match command {
        Command::Release { digest, route } => release(books, digest.as_deref(), route.as_deref(), &mut report)?,
        Command::SendNow { digest } => send_now(books, digest, &mut report)?,
        Command::ReplayItems { ids } => {
            for id in ids {
                match replay(books, id)? {
                    Ok(()) => report.changed += 1,
                    Err(why) => report.refused.push(format!("{id}: {why}")),
                }
            }
        }
        Command::Replayed { ids } | Command::Discard { ids } => {
            for id in ids {
                match letter_number(id) {
                    Some(no) => {
                        report.changed +=
                            books.tx.prepare_cached(sql::DISCARD_LETTER)?.execute(params![no, books.now.0])?;
                    }
                    None => report.refused.push(format!("{id}: only refused inputs can be discarded (ids like in-5)")),
                }
            }
        }
        Command::Suppress { addresses, reason } => {
            for address in addresses {
                if !address.contains('@') || address.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    report.refused.push(format!("{address}: not a mail address"));
                    continue;
                }
                report.changed += books.tx.prepare_cached(sql::SUPPRESS)?.execute(params![
                    address.to_lowercase(),
                    reason,
                    books.now.0
                ])?;
            }
        }
        Command::Unsuppress { addresses } => {
            for address in addresses {
                report.changed += books.tx.prepare_cached(sql::UNSUPPRESS)?.execute([address.to_lowercase()])?;
            }
        }
        Command::Pause { route } => {
            let route = route.as_deref().unwrap_or("*");
            report.changed = books.tx.prepare_cached(sql::PAUSE)?.execute(params![route, books.now.0])?;
        }
        Command::Resume { route } => {
            let route = route.as_deref().unwrap_or("*");
            report.changed = books.tx.prepare_cached(sql::RESUME)?.execute([route])?;
        }
    }
    Ok(report)
}

/// The same one by one, each with the id that it is about. `None`: it is one thing.
pub(super) fn parts(tx: Tx<'_>, shared: &Shared, command: &Command) -> Result<Option<Vec<(String, Command)>>> {
    Ok(match command {
        Command::ReplayItems { ids } if ids.len() > 1 => {
            Some(ids.iter().map(|id| (id.clone(), Command::ReplayItems { ids: vec![id.clone()] })).collect())
        }
        Command::Release { digest: None, route } => {
            let held = tx.prepare_cached(sql::HELD)?.query_map(params![route, TURN], |row| row.get::<i64>(0))?;
            let id = |no: i64| DigestId { store: shared.store_id, number: no }.to_string();
            let one = |id: String| (id.clone(), Command::Release { digest: Some(id), route: None });
            Some(held.into_iter().map(|no| one(id(no))).collect())
        }
        _ => None,
    })
}

/// `in-5`: the dead letter of a refused input.
pub(super) fn letter_number(id: &str) -> Option<i64> {
    id.strip_prefix("in-")?.parse().ok()
}

/// `it-17-4`: the item of event 17 in mailbox 4.
pub(super) fn item_key(id: &str) -> Option<(i64, i64)> {
    let (event, mailbox) = id.strip_prefix("it-")?.split_once('-')?;
    Some((event.parse().ok()?, mailbox.parse().ok()?))
}

fn number(books: &Books<'_>, id: &str) -> std::result::Result<i64, String> {
    let id: DigestId = id.parse().map_err(|e| format!("{id}: {e}"))?;
    if id.store == books.shared.store_id { Ok(id.number) } else { Err(format!("{id}: a digest of another store")) }
}

fn release(books: &mut Books<'_>, digest: Option<&str>, route: Option<&str>, report: &mut Report) -> Result<()> {
    let held: Vec<i64> = match digest.map(|id| number(books, id)) {
        Some(Ok(no)) => {
            let held = books.tx.prepare_cached(sql::IS_HELD)?.exists([no])?;
            if !held {
                report.refused.push(format!("{}: not a held digest", digest.unwrap_or_default()));
            }
            if held { vec![no] } else { vec![] }
        }
        Some(Err(why)) => {
            report.refused.push(why);
            vec![]
        }
        None => {
            let mut held = books.tx.prepare_cached(sql::HELD)?;
            held.query_map(params![route, TURN], |row| row.get(0))?
        }
    };
    for no in held {
        // Another replica may have let it go since it was looked for.
        if books.digest(no)?.state != DigestState::Held {
            continue;
        }
        // The others are released in the next turn.
        if books.has_placed_much() {
            break;
        }
        // Closed to what comes from now on: that was not released.
        books.wait(no, books.now)?;
        report.changed += 1;
    }
    Ok(())
}

fn send_now(books: &mut Books<'_>, id: &str, report: &mut Report) -> Result<()> {
    let no = match number(books, id) {
        Ok(no) if books.tx.prepare_cached(sql::DIGEST)?.exists([no])? => no,
        Ok(_) => return refuse(report, format!("{id}: no such digest")),
        Err(why) => return refuse(report, why),
    };
    let (state, mailbox, now) = (books.digest(no)?.state, books.digest(no)?.mailbox, books.now);
    match state {
        // Due now, whatever the cadence says; the gap to the previous digest does not count either.
        DigestState::Gathering | DigestState::Waiting => {
            books.digest_mut(no)?.due_at = now;
            if state == DigestState::Gathering && has_frozen(books, mailbox)? {
                // If one of those begins first, a window would be planned anew, with its gap.
                books.wait(no, now)?;
            }
            report.changed += 1;
            Ok(())
        }
        DigestState::Held => refuse(report, format!("{id}: held; `digests release` lets it go")),
        state => refuse(report, format!("{id}: {}; only gathering and waiting digests can be hurried", state.as_str())),
    }
}

/// Whether digests of this mailbox are under way, wait for a retry or are in doubt.
fn has_frozen(books: &Books<'_>, mailbox: i64) -> Result<bool> {
    let windows = books.tx.prepare_cached(sql::OPEN_OF_MAILBOX)?.query_map([mailbox], |row| row.get::<bool>(2))?;
    Ok(windows.contains(&false))
}

fn refuse(report: &mut Report, why: String) -> Result<()> {
    report.refused.push(why);
    Ok(())
}

/// Re-opens a dead item: the same row, in a new digest; withdrawn if it is over by now. Refused while an attempt that
/// lists it is in a call or in doubt (`replay_minds_call`).
fn replay(books: &mut Books<'_>, id: &str) -> Result<std::result::Result<(), String>> {
    let Some((event_no, mailbox)) = item_key(id) else {
        return Ok(Err("not the id of a dead item (like it-17-4)".into()));
    };
    if !books.has_item(event_no, mailbox)? {
        return Ok(Err("no such item".into()));
    }
    // Locks in the order of everybody: the subject, the mailbox. What is read under them stays.
    let (_, opens, topics) = books.event_mark(event_no)?;
    let topic = topics[0].filter(|_| opens);
    if let Some(topic) = topic {
        books.subject(&topic)?;
    }
    books.mailbox(mailbox)?;
    let item = books.tx.prepare_cached(sql::ITEM)?.query_row(params![event_no, mailbox], Item::read).optional()?;
    let Some(item) = item else { return Ok(Err("no such item".into())) };
    if item.state != ItemState::Dead {
        return Ok(Err(format!("{}, not dead", item.state.as_str())));
    }
    for (digest, attempt, _) in books.outcomes(&item)? {
        let home = books.digest(digest)?;
        if matches!(home.state, DigestState::Sending | DigestState::InDoubt) && home.attempts == attempt {
            return Ok(Err("a mail that lists it is on its way or in doubt; try again when that is settled".into()));
        }
    }
    if let Some(reason) = books.is_over(&item)? {
        books.settle(&item, ItemState::Withdrawn, Some(reason))?;
        return Ok(Ok(()));
    }
    if books.has_too_many(mailbox)? {
        let most = books.shared.limits.open_items_per_recipient;
        return Ok(Err(format!(
            "its recipient has {most} open items already (limits.open_items_per_recipient); try again when some have left"
        )));
    }
    if let Some(old) = item.digest {
        books.tx.prepare_cached(sql::ADD_RELISTED)?.execute(params![old, event_no, mailbox, item.left_before])?;
    }
    if let Some(topic) = topic {
        books.unsweep(&topic, event_no)?;
    }
    let home = books.gather(mailbox)?;
    books.enter_lane(home, event_no, None)?;
    if books.tx.prepare_cached(sql::REOPEN_ITEM)?.execute(params![event_no, mailbox, home])? == 0 {
        return Err(purged(event_no, mailbox));
    }
    books.reopened(mailbox, ItemState::Dead);
    let (ver, deadline) = books.event_times(event_no)?;
    books.joins(home, urgency(deadline, ver >> 1))?;
    Ok(Ok(()))
}
