//! Begin: the last gate before a call. Everything that may forbid the mail is checked here; the intent is written.

use std::collections::BTreeSet;

use crate::store::rules::tx::{Column, Optional, Row, params};

use super::accept::nobody;
use super::books::{Books, Hold, urgency};
use super::closure::UNKNOWN;
use super::permits::{Permit, Permitted};
use super::sql;
use crate::model::{AttemptId, Contents, Data, DigestState, ItemState, Listed, Person, Reason, Time};
use crate::store::{Begun, Intent, Result};

/// Subjects first, then mailboxes, both in order: the order of locks of every transaction.
pub(super) fn lock(books: &mut Books<'_>, mails: &[Permitted]) -> Result<()> {
    if books.tx.is_postgres() {
        let store_id = books.shared.store_id;
        let mails = mails.iter().filter(|one| !matches!(one.permit, Permit::Later(_))).map(|one| &one.mail);
        let mails: Vec<&Intent> = mails.collect();
        let mine = mails.iter().copied().filter(|mail| mail.lease.digest.store == store_id);
        let number = |mail: &&Intent| mail.lease.digest.number;
        // Under its first lease no digest was called yet; an audience that changed makes items of its subject's events.
        let (first, again): (Vec<&Intent>, Vec<&Intent>) =
            mine.partition(|mail| mail.lease.token == 1 && mail.audiences.is_empty());
        let numbers = |of: &[&Intent]| of.iter().map(number).collect::<Vec<_>>();
        let if_free: BTreeSet<i64> = {
            let strangers = books.shared.strangers();
            first.iter().filter(|mail| !mail.waits).map(number).filter(|no| !strangers.have(*no)).collect()
        };
        books.hold_to_begin(&numbers(&first), &numbers(&again), if_free, listed)?;
        books.read_audiences(&mails.iter().flat_map(|mail| mail.audiences.iter().map(|(no, _)| *no)).collect())?;
        let addresses: Vec<Option<String>> =
            mails.iter().map(|mail| mail.recipient.address.as_ref().map(|a| a.to_lowercase())).collect();
        let addresses = Column::Texts(addresses.iter().map(Option::as_deref).collect());
        let found = books.tx.prepare_cached(sql::PG_SUPPRESSED)?.query_map([addresses], |row| row.get::<String>(0))?;
        books.held.suppressed = Some(found.into_iter().collect());
    }
    // Under the locks: a stop that came while they were waited for still counts.
    books.held.paused = books.tx.prepare_cached(sql::PAUSED)?.query_map((), |row| row.get(0))?;
    Ok(())
}

pub(super) fn begin(books: &mut Books<'_>, one: &Permitted) -> Result<Begun> {
    if let Permit::Later(later) = one.permit {
        // Nothing was read of it.
        return Ok(Begun::NoRate(later));
    }
    let mail = &one.mail;
    let no = mail.lease.digest.number;
    if books.held.busy.contains(&no) {
        return Ok(Begun::Busy);
    }
    let (now, last_call) = (books.now, books.now.plus(mail.send_within));
    let Some(digest) = books.held_under(mail.lease)? else { return Ok(Begun::Lost) };
    let mailbox = digest.mailbox;
    if digest.until.is_none_or(|until| until < last_call) {
        // The lease ends before the call has: its end would be taken for a doubt, and the mail sent again.
        books.wait(no, now)?;
        books.tidy(no)?;
        return Ok(Begun::Lost);
    }
    let route = books.mailbox(mailbox)?.route.clone();
    if books.held.paused.iter().any(|paused| *paused == "*" || *paused == route) {
        books.wait(no, now)?;
        books.tidy(no)?;
        return Ok(Begun::Paused);
    }
    // Only looked at: a mail that turns out to be empty uses no permit (what was drawn for it the next one gets).
    let free = permit(books, one, Hold::Look)?;
    if let (Err(later), false) = (free, matches!(one.permit, Permit::Look(_))) {
        return Ok(Begun::NoRate(later));
    }
    expire(books, no)?;
    follow_audience(books, no, mailbox, &route, mail)?;
    last_gates(books, no, mail)?;
    if books.digest(no)?.open == 0 {
        books.set_state(no, DigestState::Closed)?;
        // Nothing was sent: the window behind keeps no gap to it.
        if let Some(window) = books.window(mailbox)? {
            books.replan(window)?;
        }
        return Ok(Begun::Empty);
    }
    let items = match books.held_contents(no) {
        Some(items) => items,
        None => books.tx.prepare_cached(sql::CONTENTS)?.query_map([no], listed)?,
    };
    let open_total = items.len() as u64 + u64::try_from(books.comes_after(no, mailbox)?).unwrap_or(0);
    let call_at = match permit(books, one, Hold::Change)? {
        Ok(at) => at,
        Err(later) => return Ok(Begun::NoRate(later)),
    };
    books.set_state(no, DigestState::Sending)?;
    let digest = books.digest_mut(no)?;
    digest.attempts += 1;
    digest.address = mail.recipient.address.clone();
    let number = digest.attempts;
    books.shared.own().begun(no, u32::try_from(number).unwrap_or(u32::MAX));
    books.tx.prepare_cached(sql::ADD_ATTEMPT)?.later(params![no, number, books.now.0])?;
    books.follow_attempt(no, number, UNKNOWN);
    books.takes_off(no);
    books.sent_now(mailbox)?;
    Ok(Begun::Send(Box::new(Contents {
        attempt: AttemptId { digest: mail.lease.digest, number: u32::try_from(number).unwrap_or(u32::MAX) },
        route,
        recipient: mail.recipient.clone(),
        items,
        open_total,
        at: books.now,
        call_at,
    })))
}

/// From when the call may start, or when it may be asked again.
fn permit(books: &mut Books<'_>, one: &Permitted, hold: Hold) -> Result<std::result::Result<Time, Time>> {
    match one.permit {
        Permit::InBegin => books.permit(one.mail.lead, hold),
        Permit::From(from) => Ok(Ok(from)),
        Permit::Later(later) | Permit::Look(later) => Ok(Err(later)),
    }
}

/// Items beyond their `expirytime`: nobody needs to hear.
fn expire(books: &mut Books<'_>, no: i64) -> Result<()> {
    let over = books.expired_in(no)?;
    over.iter().try_for_each(|item| books.settle(item, ItemState::Withdrawn, Some(Reason::Expired)))
}

/// The audience is the one at the flush: leavers are suppressed, or dead if nobody is left; who joined gets items in
/// digests of their own, in this transaction.
fn follow_audience(books: &mut Books<'_>, no: i64, mailbox: i64, route: &str, mail: &Intent) -> Result<()> {
    if mail.audiences.is_empty() {
        return Ok(());
    }
    let recipient = books.mailbox(mailbox)?.recipient.clone();
    let open = books.open_in(no)?;
    for (event_no, people) in &mail.audiences {
        let Some(item) = open.iter().find(|item| item.event_no == *event_no && item.state == ItemState::Pending) else {
            continue;
        };
        if books.item(item.event_no, item.mailbox)?.is_none_or(|now| now.state != ItemState::Pending) {
            continue;
        }
        let nobody = is_nobody(books, *event_no, route, &recipient)?;
        join(books, *event_no, route, people, nobody)?;
        if people.is_empty() {
            books.settle(item, ItemState::Dead, Some(Reason::Unreachable))?;
        } else if !people.iter().any(|p| p.principal == recipient) {
            books.settle(item, ItemState::Suppressed, Some(Reason::LeftAudience))?;
        }
    }
    Ok(())
}

/// Whether this recipient stands for an audience that was nobody when the event came.
fn is_nobody(books: &Books<'_>, event_no: i64, route: &str, recipient: &str) -> Result<bool> {
    if let Some(names) = books.held.asked(event_no, route) {
        return Ok(nobody(&names) == recipient);
    }
    let mut asked = books.tx.prepare_cached(sql::ASKED)?;
    let names: Option<String> = asked.query_row(params![event_no, route], |row| row.get(0)).optional()?;
    let names: Vec<String> = names.map(|n| serde_json::from_str(&n).unwrap_or_default()).unwrap_or_default();
    Ok(nobody(&names) == recipient)
}

/// Only what waits for somebody is passed on to those who joined later; news are not, unless there was nobody to hear
/// them.
fn join(books: &mut Books<'_>, event_no: i64, route: &str, people: &[Person], nobody: bool) -> Result<()> {
    let (mark, opens, topics) = books.event_mark(event_no)?;
    let topic = topics[0].filter(|_| opens);
    if topic.is_none() && !nobody {
        return Ok(());
    }
    let (ver, deadline) = books.event_times(event_no)?;
    for person in people {
        let known = books.held.is_there(event_no, &person.principal, route);
        if known == Some(true) {
            continue;
        }
        let mailbox = books.mailbox_of(&person.principal, route, person.zone.as_deref())?;
        if known.is_none() && books.has_item(event_no, mailbox)? {
            continue;
        }
        books.held.comes(event_no, &person.principal, route);
        let (mut over, mut older) = (None, None);
        if let Some(topic) = topic {
            let subject = books.subject(&topic)?;
            if let Some(subject) = &subject {
                over = books.over(subject, &topic, mark, &person.principal)?;
            }
            if subject.is_none_or(|s| s.lone != Some(event_no)) {
                older = books.stand(&topic, &person.principal, mark)?;
            }
        }
        let born = books.born(mailbox, over.map(|reason| (ItemState::Withdrawn, reason)))?;
        books.add_item(event_no, mailbox, urgency(deadline, ver >> 1), None, born)?;
        // Of twins, the last one that asks a person replaces their older item: so does one that asks them only now.
        if let (Some(topic), Some(older)) = (topic, older)
            && let Some(subject) = books.subject(&topic)?
        {
            books.replace_own(&topic, &subject, older, &person.principal)?;
        }
    }
    Ok(())
}

/// Suppression and allowed domains come last (`suppression_last`), on the address as it is now.
fn last_gates(books: &mut Books<'_>, no: i64, mail: &Intent) -> Result<()> {
    let end = match &mail.recipient.address {
        None => Some((ItemState::Dead, Reason::NoAddress)),
        Some(_) if !mail.domain_allowed => Some((ItemState::Suppressed, Reason::DomainNotAllowed)),
        Some(address) if books.is_suppressed(address)? => Some((ItemState::Suppressed, Reason::Suppressed)),
        Some(_) => None,
    };
    let Some((state, reason)) = end else { return Ok(()) };
    for item in books.open_in(no)? {
        books.settle(&item, state, Some(reason))?;
    }
    Ok(())
}

impl Books<'_> {
    fn is_suppressed(&self, address: &str) -> Result<bool> {
        let address = address.to_lowercase();
        match &self.held.suppressed {
            Some(known) => Ok(known.contains(&address)),
            None => self.tx.prepare_cached(sql::IS_SUPPRESSED)?.exists([address]),
        }
    }
}

/// The mail lists exactly what is pending in the digest now, most urgent first. (PostgreSQL gives large data apart.)
fn listed(row: &Row<'_>) -> Result<Listed> {
    let data = row.get::<Option<String>>(7)?.map(|text| Data::shown(&text)).unwrap_or_default();
    Ok(Listed {
        event_number: row.get(0)?,
        source: row.get(1)?,
        id: row.get(2)?,
        kind: row.get(3)?,
        time: Time(row.get::<i64>(4)? >> 1),
        deadline: row.get::<Option<i64>>(5)?.map(Time),
        subject_key: row.get(6)?,
        data: data.members,
        data_cut: data.cut,
    })
}
