//! Mailboxes: a recipient of a route.

use crate::store::rules::tx::{Optional, params};

use super::super::notices::HANDLED;
use super::super::sql;
use super::Books;
use crate::model::Time;
use crate::store::{Result, StoreError};

#[derive(Clone, Debug)]
pub(in crate::store) struct Mailbox {
    pub recipient: String,
    pub route: String,
    pub zone: Option<String>,
    pub previous_at: Option<Time>,
}

impl Books<'_> {
    /// The mailbox of a recipient on a route, made if new. A known zone replaces what was known.
    pub fn mailbox_of(&mut self, recipient: &str, route: &str, zone: Option<&str>) -> Result<i64> {
        if let Some(no) = self.kept.numbers.get(route).and_then(|by| by.get(recipient)) {
            return Ok(*no);
        }
        let found = self
            .tx
            .prepare_cached(sql::MAILBOX_BY_NAME)?
            .query_row(params![recipient, route], |row| {
                Ok((row.get::<i64>(0)?, row.get::<Option<String>>(1)?, row.get::<Option<i64>>(2)?))
            })
            .optional()?;
        let (no, mailbox) = match found {
            Some((no, known, previous)) => {
                let zone = if zone.is_some() && zone != known.as_deref() {
                    self.tx.prepare_cached(sql::SAVE_ZONE)?.later(params![no, zone])?;
                    zone.map(str::to_owned)
                } else {
                    known
                };
                (
                    no,
                    Mailbox { recipient: recipient.into(), route: route.into(), zone, previous_at: previous.map(Time) },
                )
            }
            None => {
                let added = self.tx.query_row(sql::ADD_MAILBOX, params![recipient, route, zone], |row| {
                    let (zone, previous_at) = (row.get(1)?, row.get::<Option<i64>>(2)?.map(Time));
                    Ok((row.get(0)?, Mailbox { recipient: recipient.into(), route: route.into(), zone, previous_at }))
                })?;
                if !self.tx.is_postgres() {
                    // Nobody else can have made a window for it.
                    self.kept.windows.insert(added.0, None);
                }
                added
            }
        };
        self.kept.mailboxes.insert(no, mailbox);
        self.kept.numbers.entry(route.to_owned()).or_default().insert(recipient.to_owned(), no);
        Ok(no)
    }

    /// Where this person is told that something is handled. A new one has the zone that another route knows of them.
    pub fn mailbox_to_tell(&mut self, recipient: &str) -> Result<i64> {
        if let Some(known) = self.kept.numbers.get(HANDLED).and_then(|by| by.get(recipient)) {
            return Ok(*known);
        }
        let mut zones = self.tx.prepare_cached(sql::ZONE_OF)?;
        let zone: Option<String> = zones.query_row([recipient, HANDLED], |row| row.get(0)).optional()?;
        self.mailbox_of(recipient, HANDLED, zone.as_deref())
    }

    pub fn mailbox(&mut self, no: i64) -> Result<&Mailbox> {
        if !self.kept.mailboxes.contains_key(&no) {
            let mailbox = self.tx.prepare_cached(sql::MAILBOX)?.query_row([no], |row| {
                Ok(Mailbox {
                    recipient: row.get(0)?,
                    route: row.get(1)?,
                    zone: row.get(2)?,
                    previous_at: row.get::<Option<i64>>(3)?.map(Time),
                })
            })?;
            self.kept.mailboxes.insert(no, mailbox);
        }
        self.kept.mailboxes.get(&no).ok_or_else(|| StoreError::Unavailable(format!("mailbox {no} vanished")))
    }

    /// When the digest that is sent now began; the next window keeps its gap to it.
    pub fn sent_now(&mut self, mailbox: i64) -> Result<()> {
        self.tx.prepare_cached(sql::SAVE_PREVIOUS)?.later(params![mailbox, self.now.0])?;
        self.assume_sent(mailbox)?;
        if let Some(no) = self.window(mailbox)? {
            self.plan_anew(no)?;
        }
        Ok(())
    }

    /// Plans what follows as if a digest of this mailbox began now; `sent_now` makes it so, a new transaction forgets it.
    pub fn assume_sent(&mut self, mailbox: i64) -> Result<()> {
        let now = self.now;
        self.mailbox(mailbox)?;
        if let Some(known) = self.kept.mailboxes.get_mut(&mailbox) {
            known.previous_at = Some(now);
        }
        Ok(())
    }
}
