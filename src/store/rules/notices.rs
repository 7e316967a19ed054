//! "Already handled": who was, or may have been, told of what is closed now hears so, once (`notice_if_told`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::books::{Books, NewItem, lane, urgency};
use super::sql;
use super::subject::Subject;
use crate::model::{ItemState, Reason, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, Row, params};

/// The route of the notices.
pub(super) const HANDLED: &str = "handled";

/// What its notices say and depend on of a closing event.
pub(super) struct Closing {
    pub ver: i64,
    /// Of its domain.
    pub lane: i64,
    /// Who decided needs no mail about it.
    pub actor: Option<String>,
}

impl Closing {
    /// `data`: that of the event.
    pub fn of(ver: i64, data: &str) -> Closing {
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let text = |key: &str| data.get(key).and_then(|value| value.as_str());
        Closing { ver, lane: lane(text("domain")), actor: text("actor").map(str::to_owned) }
    }
}

/// Whom to tell, by the closing event.
#[derive(Default)]
pub(super) struct Notices(BTreeMap<i64, BTreeSet<String>>);

impl Notices {
    pub fn add(&mut self, closer: i64, told: Vec<String>) {
        if !told.is_empty() {
            self.0.entry(closer).or_default().extend(told);
        }
    }
}

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

    /// The notice of one who is known to have been told only now.
    pub fn notify(&mut self, closer: i64, recipient: &str) -> Result<()> {
        let (ver, _) = self.event_times(closer)?;
        let data: String = self.tx.prepare_cached(sql::EVENT_DATA)?.query_row([closer], |row| row.get(0))?;
        let mut notices = Notices::default();
        notices.add(closer, vec![recipient.to_owned()]);
        self.notify_all(&notices, |_| Some(Closing::of(ver, &data)))
    }

    /// Each notice is there once, by its key: the closing event and the mailbox.
    pub(super) fn notify_all(&mut self, notices: &Notices, closing: impl Fn(i64) -> Option<Closing>) -> Result<()> {
        if notices.0.is_empty() {
            return Ok(());
        }
        let people: BTreeSet<&str> = notices.0.values().flatten().map(String::as_str).collect();
        let there = if self.tx.is_postgres() {
            self.make_mailboxes_to_tell(&people)?;
            let of = Column::ints(notices.0.keys().copied());
            let key = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
            Some(self.tx.prepare_cached(sql::PG_ITEMS_OF_EVENTS)?.query_map([of], key)?.into_iter().collect())
        } else {
            None::<HashSet<(i64, i64)>>
        };
        let mut items = Vec::new();
        for (closer, recipients) in &notices.0 {
            let Some(Closing { ver, lane, actor }) = closing(*closer) else { continue };
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
                items.push(NewItem { event_no: *closer, mailbox, urgency: urgency(None, ver >> 1), lane, born });
            }
        }
        self.add_items(items)
    }
}
