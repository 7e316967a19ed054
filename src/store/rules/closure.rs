//! Closures: items that are over leave; those who were told hear that it is handled.

use crate::store::rules::tx::{Optional, params};

use super::books::{Books, Item, Link};
use super::sql;
use super::subject::{Mark, Subject};
use crate::model::{DigestState, ItemState, Reason, Topic};
use crate::store::Result;

/// Outcomes of an attempt.
pub(super) const UNKNOWN: i64 = 0;
pub(super) const REFUSED: i64 = 1;
pub(super) const ACCEPTED: i64 = 2;
pub(super) const FAILED: i64 = 3;

impl Books<'_> {
    /// Walks a topic's events from the one that arrived last and withdraws the pending items that are over. What is in a
    /// call or in doubt is left to its settlement (`closure_waits_for_call`). The walk ends where everything further
    /// back is final, so that a topic of any length costs what is open in it.
    pub fn sweep(&mut self, topic: &Topic, subject: Subject) -> Result<()> {
        let mut trail: Vec<(i64, bool)> = Vec::new();
        let mut at = subject.head;
        while at != 0 && at != subject.swept {
            let Some(link) = self.link(at, topic)? else { break };
            let mut settled = true;
            if link.opens {
                for item in self.open_of_event(at)? {
                    settled &= self.withdraw_if_over(&item, topic, &subject, link.mark)?;
                }
            }
            trail.push((at, settled));
            at = link.prev;
        }
        let done = trail.iter().rev().take_while(|(_, settled)| *settled).last();
        if let Some((no, _)) = done {
            self.save_subject(topic, &Subject { swept: *no, ..subject })?;
        }
        Ok(())
    }

    /// An item of this event is open again: the next sweep must come by, also if a purge left a gap before it.
    pub fn unsweep(&mut self, topic: &Topic, no: i64) -> Result<()> {
        let Some(subject) = self.subject(topic)? else { return Ok(()) };
        let mut at = subject.head;
        while at != no {
            match self.link(at, topic)? {
                Some(link) => at = link.prev,
                None => break,
            }
        }
        let head = if at == no { subject.head } else { no };
        if head == no && subject.head != no {
            self.tx.prepare_cached(sql::LINK_EVENT)?.later(params![no, subject.head, None::<i64>])?;
        }
        self.save_subject(topic, &Subject { head, swept: 0, ..subject })
    }

    fn link(&self, no: i64, topic_wanted: &Topic) -> Result<Option<Link>> {
        if let Some(known) = self.fetched.links.get(&(no, *topic_wanted)) {
            return Ok(Some(*known));
        }
        self.tx.prepare_cached(sql::EVENT_CHAIN)?.query_row([no], |row| Link::read(row, no, topic_wanted)).optional()
    }

    /// `true`: the item is final now.
    fn withdraw_if_over(&mut self, item: &Item, topic: &Topic, subject: &Subject, mark: Mark) -> Result<bool> {
        if item.state != ItemState::Pending {
            return Ok(false);
        }
        let recipient = self.mailbox(item.mailbox)?.recipient.clone();
        let Some(reason) = self.over(subject, topic, mark, &recipient)? else { return Ok(false) };
        if let Some(digest) = self.home(item)? {
            if self.digest(digest)?.state == DigestState::Sending {
                return Ok(false);
            }
            self.settle(item, ItemState::Withdrawn, Some(reason))?;
            self.tidy(digest)?;
        }
        Ok(true)
    }

    /// A twin replaced what this person had of an earlier one: those items leave without a walk, so that any number of
    /// twins costs each of them its own recipients only.
    pub fn replace_own(&mut self, topic: &Topic, subject: &Subject, older: i64, recipient: &str) -> Result<()> {
        let Some(link) = self.link(older, topic)? else { return Ok(()) };
        for item in self.open_of_person(older, recipient)? {
            self.withdraw_if_over(&item, topic, subject, link.mark)?;
        }
        Ok(())
    }

    /// Whether an item is over now, from its subject's marks: asked when a call or a doubt has ended.
    pub fn is_over(&mut self, item: &Item) -> Result<Option<Reason>> {
        let (mark, opens, topics) = self.event_mark(item.event_no)?;
        let (true, Some(topic)) = (opens, topics[0]) else { return Ok(None) };
        let recipient = self.mailbox(item.mailbox)?.recipient.clone();
        match self.subject(&topic)? {
            Some(subject) => self.over(&subject, &topic, mark, &recipient),
            None => Ok(None),
        }
    }

    /// Ends an item, and remembers if its recipient was, or may have been, told (`notice_on_settlement`).
    pub fn settle(&mut self, item: &Item, state: ItemState, reason: Option<Reason>) -> Result<()> {
        self.put(item, state, reason)?;
        if state.is_final() { self.told(item) } else { Ok(()) }
    }

    /// Enters the person as told if an attempt that listed this final item was accepted or is unknown; if the topic was
    /// closed at a higher rank already, they are owed the notice now.
    pub fn told(&mut self, item: &Item) -> Result<()> {
        let Some(digest) = item.digest else { return Ok(()) };
        if self.digest(digest)?.attempts == 0 || !self.may_have_told(item)? { Ok(()) } else { self.enter_told(item) }
    }

    /// The same, where it is known that the person was told.
    pub fn enter_told(&mut self, item: &Item) -> Result<()> {
        let (mark, opens, topics) = self.event_mark(item.event_no)?;
        let (true, Some(topic)) = (opens, topics[0]) else { return Ok(()) };
        let recipient = self.mailbox(item.mailbox)?.recipient.clone();
        self.fetched.told.borrow_mut().remove(&topic);
        self.tx.prepare_cached(sql::SAVE_TOLD)?.later(params![&topic.0[..], recipient, mark.ver])?;
        if let Some(subject) = self.subject(&topic)?
            && let Some((ver, closer)) = subject.closer
            && mark.ver < ver
        {
            self.owe(closer, [recipient]);
        }
        Ok(())
    }

    fn may_have_told(&self, item: &Item) -> Result<bool> {
        Ok(self.outcomes(item)?.iter().any(|(_, _, outcome)| matches!(*outcome, UNKNOWN | ACCEPTED)))
    }

    /// (digest, attempt, outcome) of every attempt that listed the item.
    pub fn outcomes(&self, item: &Item) -> Result<Vec<(i64, i64, i64)>> {
        if let Some(known) = self.held_outcomes(item) {
            return Ok(known);
        }
        // Read again: the row's own place in its digest's lists may just have been written.
        let Some(now) = self.item(item.event_no, item.mailbox)? else { return Ok(vec![]) };
        let mut tries = self.tx.prepare_cached(sql::TRIES_OF_ITEM)?;
        let rows = tries.query_map(params![item.event_no, item.mailbox, now.digest, now.left_before], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        Ok(rows)
    }

    /// (ver, deadline) of an event.
    pub fn event_times(&self, no: i64) -> Result<(i64, Option<i64>)> {
        if let Some(held) = self.held.event(no) {
            return Ok((held.mark.ver, held.deadline));
        }
        Ok(self.tx.prepare_cached(sql::EVENT_TIMES)?.query_row([no], |row| Ok((row.get(1)?, row.get(0)?)))?)
    }

    /// A late answer says that a listed mail was certainly not sent: who was told by nothing else is not told. Looks at
    /// the whole topic, but only if this item is the lowest that its person was told of: else nothing changes.
    pub fn untell(&mut self, item: &Item) -> Result<()> {
        let (mark, opens, topics) = self.event_mark(item.event_no)?;
        let (true, Some(topic)) = (opens, topics[0]) else { return Ok(()) };
        let Some(subject) = self.subject(&topic)? else { return Ok(()) };
        let recipient = self.mailbox(item.mailbox)?.recipient.clone();
        let mut standing = self.tx.prepare_cached(sql::STANDING)?;
        let told: Option<Option<i64>> =
            standing.query_row(params![&topic.0[..], recipient], |row| row.get(2)).optional()?;
        if told.flatten() != Some(mark.ver) {
            return Ok(());
        }
        let (mut lowest, mut at) = (None::<i64>, subject.head);
        while at != 0 {
            let Some(link) = self.link(at, &topic)? else { break };
            let theirs = params![at, recipient];
            for other in if link.opens { self.items(sql::ITEMS_OF_PERSON, theirs)? } else { vec![] } {
                if other.state.is_final() && self.may_have_told(&other)? {
                    lowest = Some(lowest.map_or(link.mark.ver, |l| l.min(link.mark.ver)));
                }
            }
            at = link.prev;
        }
        self.fetched.told.borrow_mut().remove(&topic);
        self.tx.prepare_cached(sql::SET_TOLD)?.later(params![&topic.0[..], recipient, lowest])?;
        Ok(())
    }
}
