//! "Already handled": who was, or may have been, told of what is closed now hears so, once (`notice_if_told`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::books::{Books, NewItem, lane, urgency};
use super::sql;
use super::subject::Subject;
use crate::model::{ItemState, Reason, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, Row, params};

/// The route of the notices.
pub(super) const HANDLED: &str = "handled";

/// What its notices depend on of a closing event.
pub(in crate::store) struct Closing {
    ver: i64,
    /// Of its domain.
    lane: i64,
    /// Who decided needs no mail about it.
    actor: Option<String>,
}

impl Closing {
    /// `data`: that of the event.
    pub fn of(ver: i64, data: &str) -> Closing {
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let text = |key: &str| data.get(key).and_then(|value| value.as_str());
        Closing { ver, lane: lane(text("domain")), actor: text("actor").map(str::to_owned) }
    }
}

/// Notices that a transaction owes: they are made at its end, all together.
#[derive(Default)]
pub(in crate::store) struct Owed {
    /// Whom to tell, by the closing event.
    to: BTreeMap<i64, BTreeSet<String>>,
    /// What is known of those events without a question.
    closings: HashMap<i64, Closing>,
}

/// Closing events whose data is held at once.
const AT_ONCE: usize = 16;

impl Books<'_> {
    /// Who was told of what this closer closes.
    pub fn told_before(&self, topic: &Topic, subject: &Subject) -> Result<Vec<String>> {
        let Some((ver, _)) = subject.closer else { return Ok(vec![]) };
        if let Some(known) = self.fetched.told.borrow().get(topic) {
            return Ok(known.iter().filter(|(_, told)| *told < ver).map(|(recipient, _)| recipient.clone()).collect());
        }
        let of = params![&topic.0[..], ver];
        self.tx.prepare_cached(sql::TOLD)?.query_map(of, |row| row.get(0))
    }

    pub fn owe(&mut self, closer: i64, recipients: impl IntoIterator<Item = String>) {
        self.owed.to.entry(closer).or_default().extend(recipients);
    }

    pub fn know_closing(&mut self, closer: i64, closing: Closing) {
        self.owed.closings.insert(closer, closing);
    }

    /// Each notice is there once, by its key: the closing event and the mailbox.
    pub fn tell_owed(&mut self) -> Result<()> {
        let Owed { mut to, mut closings } = std::mem::take(&mut self.owed);
        to.retain(|_, recipients| !recipients.is_empty());
        if to.is_empty() {
            return Ok(());
        }
        // What was settled is not open any more for those who count.
        self.write_digests()?;
        let mut there = None::<HashSet<(i64, i64)>>;
        if self.tx.is_postgres() {
            let people: BTreeSet<&str> = to.values().flatten().map(String::as_str).collect();
            self.make_mailboxes_to_tell(&people)?;
            let key = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
            let of = Column::ints(to.keys().copied());
            there = Some(self.tx.prepare_cached(sql::PG_ITEMS_OF_EVENTS)?.query_map([of], key)?.into_iter().collect());
        }
        let unknown: Vec<i64> = to.keys().copied().filter(|no| !closings.contains_key(no)).collect();
        for some in unknown.chunks(AT_ONCE) {
            closings.extend(self.closings(some)?);
        }
        let mut items = Vec::new();
        for (closer, recipients) in &to {
            // A purge has taken it: there is nothing left to tell of.
            let Some(Closing { ver, lane, actor }) = closings.get(closer) else { continue };
            for recipient in recipients {
                let mailbox = self.mailbox_to_tell(recipient)?;
                let is_there = match &there {
                    Some(there) => there.contains(&(*closer, mailbox)),
                    None => self.has_item(*closer, mailbox)?,
                };
                if is_there {
                    continue;
                }
                let own = actor.as_deref() == Some(recipient);
                let born = own.then_some((ItemState::Withdrawn, Reason::Decided));
                let urgency = urgency(None, ver >> 1);
                items.push(NewItem { event_no: *closer, mailbox, urgency, lane: *lane, born });
            }
        }
        self.add_items(items)
    }

    fn closings(&self, numbers: &[i64]) -> Result<Vec<(i64, Closing)>> {
        let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, Closing::of(row.get(1)?, &row.get::<String>(2)?)));
        if self.tx.is_postgres() {
            return self.tx.prepare_cached(sql::PG_CLOSINGS)?.query_map([Column::ints(numbers.iter().copied())], read);
        }
        let mut all = Vec::with_capacity(numbers.len());
        for no in numbers {
            all.extend(self.tx.prepare_cached(sql::CLOSING)?.query_map([*no], read)?);
        }
        Ok(all)
    }
}
