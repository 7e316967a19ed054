//! Digests: their states, their windows, and when they are due.

use crate::store::rules::tx::{Miss, Optional, Row};

use super::super::sql;
use super::Books;
use super::items::NO_DEADLINE;
use crate::model::{DigestState, Priority, Time, hash16};
use crate::store::{Result, StoreError};

mod write;

/// A digest's row, as far as a transaction has changed it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Digest {
    pub no: i64,
    pub mailbox: i64,
    pub state: DigestState,
    pub priority: Priority,
    pub due_at: Time,
    pub open: i64,
    pub first_at: Time,
    pub last_at: Time,
    pub deadline: Option<i64>,
    pub token: i64,
    pub until: Option<Time>,
    pub attempts: i64,
    pub waited_us: i64,
    pub address: Option<String>,
    pub opened_at: Time,
    pub closed_at: Option<Time>,
    /// The domain of its first item ([`lane`]); 0: from before there were lanes.
    pub lane: i64,
    /// The event of the item that joined last, of those that its index of items does not have yet (`tail.rs`; SQLite).
    pub(super) tail: Option<i64>,
    /// How many those are.
    pub(super) tail_items: i64,
    /// Not in the file yet.
    fresh: bool,
    dirty: bool,
    /// Its window changed: the due time is computed when the books close.
    pub(super) replan: bool,
    /// An item left the window: the earliest deadline is looked up again.
    pub(super) recount: bool,
    /// The due time is computed anew even if it has come.
    anew: bool,
    /// What the file holds of that which indexes hold.
    saved: Indexed,
    /// What it holds of what only a window changes, and a failure.
    saved_window: OfWindow,
}

/// State, priority, due time, end of the lease or doubt.
type Indexed = (DigestState, Priority, Time, Option<Time>);

/// Priority, first and last item, deadline, waits.
type OfWindow = (Priority, Time, Time, Option<i64>, i64);

impl Digest {
    pub fn read(row: &Row<'_>) -> Result<Digest> {
        let mut digest = Digest {
            no: row.get(0)?,
            mailbox: row.get(1)?,
            state: DigestState::from_number(row.get(2)?).unwrap_or(DigestState::Closed),
            priority: Priority::ALL.get(row.get::<u8>(3)? as usize).copied().unwrap_or_default(),
            due_at: Time(row.get(4)?),
            open: row.get(5)?,
            first_at: Time(row.get(6)?),
            last_at: Time(row.get(7)?),
            deadline: row.get(8)?,
            token: row.get(9)?,
            until: row.get::<Option<i64>>(10)?.map(Time),
            attempts: row.get(11)?,
            waited_us: row.get(12)?,
            address: row.get(13)?,
            opened_at: Time(row.get(14)?),
            closed_at: row.get::<Option<i64>>(15)?.map(Time),
            lane: row.get(16)?,
            tail: None,
            tail_items: 0,
            fresh: false,
            dirty: false,
            replan: false,
            recount: false,
            anew: false,
            saved: (DigestState::Closed, Priority::Normal, Time::MIN, None),
            saved_window: (Priority::Normal, Time::MIN, Time::MIN, None, 0),
        };
        digest.is_saved();
        Ok(digest)
    }

    /// The database has it as it is here.
    fn is_saved(&mut self) {
        (self.fresh, self.dirty, self.replan, self.recount, self.anew) = (false, false, false, false, false);
        (self.saved, self.saved_window) = (self.indexed(), self.of_window());
    }

    fn of_window(&self) -> OfWindow {
        (self.priority, self.first_at, self.last_at, self.deadline, self.waited_us)
    }

    fn indexed(&self) -> Indexed {
        (self.state, self.priority, self.due_at, self.until)
    }

    pub fn is_unfrozen(&self) -> bool {
        matches!(self.state, DigestState::Gathering | DigestState::Held)
    }

    /// Its items leave by themselves, and no call has listed them.
    pub fn is_to_come(&self) -> bool {
        match self.state {
            DigestState::Gathering => true,
            DigestState::Leased | DigestState::Waiting => self.attempts == 0,
            _ => false,
        }
    }

    /// A window that changed, or what the claim of a part left of a digest: its due time is computed.
    fn is_to_plan(&self) -> bool {
        self.replan && (self.is_unfrozen() || self.state == DigestState::Waiting && self.recount && self.anew)
    }
}

impl Books<'_> {
    pub fn digest(&mut self, no: i64) -> Result<&Digest> {
        Ok(self.load(no)?)
    }

    pub fn digest_mut(&mut self, no: i64) -> Result<&mut Digest> {
        let digest = self.load(no)?;
        digest.dirty = true;
        Ok(digest)
    }

    /// `None`: a purge has taken it.
    pub fn digest_if_there(&mut self, no: i64) -> Result<Option<&Digest>> {
        if !self.kept.digests.contains_key(&no) {
            let read =
                |row: &Row<'_>| Ok(Digest { tail: row.get(17)?, tail_items: row.get(18)?, ..Digest::read(row)? });
            let found = self.tx.query_row(sql::DIGEST_TO_CHANGE, [no], read).optional()?;
            let Some(digest) = found else { return Ok(None) };
            if digest.is_unfrozen() {
                self.kept.windows.insert(digest.mailbox, Some(no));
            }
            self.kept.digests.insert(no, digest);
        }
        Ok(self.kept.digests.get(&no))
    }

    fn load(&mut self, no: i64) -> Result<&mut Digest> {
        if self.digest_if_there(no)?.is_none() {
            return Err(Miss::NoRow.into());
        }
        self.kept.digests.get_mut(&no).ok_or_else(|| StoreError::Unavailable(format!("digest {no} vanished")))
    }

    /// The one digest of the mailbox that takes items.
    pub fn window(&mut self, mailbox: i64) -> Result<Option<i64>> {
        if let Some(known) = self.kept.windows.get(&mailbox) {
            return Ok(*known);
        }
        let no = self.tx.prepare_cached(sql::WINDOW)?.query_row([mailbox], |row| row.get(0)).optional()?;
        self.kept.windows.insert(mailbox, no);
        Ok(no)
    }

    /// The same, made if there is none.
    pub fn gather(&mut self, mailbox: i64) -> Result<i64> {
        if let Some(no) = self.window(mailbox)? {
            return Ok(no);
        }
        let route = self.mailbox(mailbox)?.route.clone();
        let rules = self.shared.policy.rules(&route);
        let state = if rules.hold { DigestState::Held } else { DigestState::Gathering };
        let no = self.new_digest(mailbox, state, rules.priority)?;
        self.kept.windows.insert(mailbox, Some(no));
        Ok(no)
    }

    /// The window has just been made for this event: it stands in its domain's lane.
    pub fn enter_lane(&mut self, no: i64, event_no: i64, known: Option<i64>) -> Result<()> {
        if !self.kept.digests.get(&no).is_some_and(|d| d.fresh && d.open == 0) {
            return Ok(());
        }
        let lane = match known {
            Some(lane) => lane,
            None => {
                let data: String = self.tx.prepare_cached(sql::EVENT_DATA)?.query_row([event_no], |row| row.get(0))?;
                let data: serde_json::Value = serde_json::from_str(&data).unwrap_or_default();
                lane(data.get("domain").and_then(|domain| domain.as_str()))
            }
        };
        self.digest_mut(no)?.lane = lane;
        Ok(())
    }

    pub fn new_digest(&mut self, mailbox: i64, state: DigestState, priority: Priority) -> Result<i64> {
        let no = self.next_digest()?;
        let now = self.now;
        self.kept.digests.insert(
            no,
            Digest {
                no,
                mailbox,
                state,
                priority,
                due_at: now,
                open: 0,
                first_at: now,
                last_at: now,
                deadline: None,
                token: 0,
                until: None,
                attempts: 0,
                waited_us: 0,
                address: None,
                opened_at: now,
                closed_at: None,
                lane: lane(None),
                tail: None,
                tail_items: 0,
                fresh: true,
                dirty: true,
                replan: true,
                recount: false,
                anew: true,
                saved: (state, priority, now, None),
                saved_window: (priority, now, now, None, 0),
            },
        );
        Ok(no)
    }

    /// Moves a digest to another state; the window it may have been takes nothing more.
    pub fn set_state(&mut self, no: i64, state: DigestState) -> Result<()> {
        let now = self.now;
        let digest = self.digest_mut(no)?;
        let (mailbox, was_unfrozen) = (digest.mailbox, digest.is_unfrozen());
        digest.state = state;
        if state == DigestState::Closed {
            digest.closed_at = Some(now);
        }
        if !matches!(state, DigestState::Leased | DigestState::Sending | DigestState::InDoubt) {
            digest.until = None;
        }
        if was_unfrozen && !digest.is_unfrozen() {
            self.kept.windows.insert(mailbox, None);
            self.place_tail(no)?;
        }
        Ok(())
    }

    /// Waits for a retry: the lease is over, the day's share is back, nothing is burned by that alone.
    pub fn wait(&mut self, no: i64, due_at: Time) -> Result<()> {
        self.set_state(no, DigestState::Waiting)?;
        self.digest_mut(no)?.due_at = due_at;
        Ok(())
    }

    /// Items left the digest by the side: its deadline and due time are computed anew.
    pub fn recount(&mut self, no: i64) -> Result<()> {
        let digest = self.digest_mut(no)?;
        (digest.replan, digest.recount, digest.anew) = (true, true, true);
        Ok(())
    }

    /// What the window's due time depends on has changed, but nothing in it.
    pub fn plan_anew(&mut self, no: i64) -> Result<()> {
        let digest = self.digest_mut(no)?;
        (digest.replan, digest.anew) = (true, true);
        Ok(())
    }

    pub fn replan(&mut self, no: i64) -> Result<()> {
        self.load(no)?.replan = true;
        Ok(())
    }

    /// Closes a digest that has nothing left to send; a running lease notices in begin, a call at its settlement.
    pub fn tidy(&mut self, no: i64) -> Result<()> {
        let digest = self.digest(no)?;
        let here = matches!(
            digest.state,
            DigestState::Gathering | DigestState::Held | DigestState::Waiting | DigestState::InDoubt
        );
        if digest.open == 0 && here {
            self.set_state(no, DigestState::Closed)?;
        }
        Ok(())
    }
}

/// A domain as a digest's row holds it; events that name none share one.
pub(in crate::store::rules) fn lane(domain: Option<&str>) -> i64 {
    let hash = hash16(b"lane", &[domain.unwrap_or_default()]);
    match hash.first_chunk().map_or(0, |first| i64::from_le_bytes(*first)) {
        0 => 1,
        lane => lane,
    }
}

pub(super) fn join(digest: &mut Digest, urgency: i64, now: Time) {
    digest.open += 1;
    digest.last_at = digest.last_at.max(now);
    if urgency < NO_DEADLINE / 2 {
        digest.deadline = Some(digest.deadline.map_or(urgency, |d| d.min(urgency)));
    }
    digest.replan = true;
}

#[cfg(test)]
mod tests {
    use super::lane;

    #[test]
    fn each_domain_has_a_lane_of_its_own() {
        let lanes: std::collections::HashSet<i64> = (0..1_000).map(|n| lane(Some(&format!("d{n}")))).collect();
        assert!(lanes.len() == 1_000 && !lanes.contains(&0));
    }
}
