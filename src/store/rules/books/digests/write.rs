//! What changed of digests is written, and windows that changed are planned, once, at the end of a transaction.

use std::collections::HashMap;

use super::Digest;
use crate::model::{Priority, Time};
use crate::store::rules::Shared;
use crate::store::rules::books::Books;
use crate::store::rules::books::items::NO_DEADLINE;
use crate::store::rules::books::mailboxes::Mailbox;
use crate::store::rules::sql;
use crate::store::rules::tx::{Column, Row, params};
use crate::store::{Result, Window};

impl Books<'_> {
    pub fn write_digests(&mut self) -> Result<()> {
        let mut changed: Vec<i64> = self.kept.digests.values().filter(|d| d.dirty || d.replan).map(|d| d.no).collect();
        // Unfrozen ones last: what left the window makes room first. Within that by number, for the pages' sake.
        changed.sort_unstable_by_key(|no| (self.kept.digests.get(no).is_some_and(Digest::is_unfrozen), *no));
        if self.tx.is_postgres() {
            return self.write_at_once(&changed);
        }
        for no in changed {
            self.plan(no, None)?;
            let Some(d) = self.kept.digests.get_mut(&no) else { continue };
            if d.fresh {
                self.tx.prepare_cached(sql::LITE_SAVE_DIGEST)?.later(params![
                    d.no,
                    d.mailbox,
                    d.state as i64,
                    d.priority as i64,
                    d.due_at.0,
                    d.open,
                    d.first_at.0,
                    d.last_at.0,
                    d.deadline,
                    d.token,
                    d.until.map(|t| t.0),
                    d.attempts,
                    d.waited_us,
                    d.address,
                    d.opened_at.0,
                    d.closed_at.map(|t| t.0),
                    d.lane,
                    d.tail,
                    d.tail_items,
                ])?;
            } else if !d.dirty {
                // Planned anew, and due when it was.
            } else if d.indexed() == d.saved {
                self.tx.prepare_cached(sql::LITE_UPDATE_WINDOW)?.later(params![
                    d.no,
                    d.open,
                    d.first_at.0,
                    d.last_at.0,
                    d.deadline,
                    d.attempts,
                    d.waited_us,
                    d.address,
                    d.token,
                    d.closed_at.map(|t| t.0),
                    d.tail,
                    d.tail_items,
                ])?;
            } else {
                self.tx.prepare_cached(sql::LITE_UPDATE_DIGEST)?.later(params![
                    d.no,
                    d.state as i64,
                    d.priority as i64,
                    d.due_at.0,
                    d.open,
                    d.first_at.0,
                    d.last_at.0,
                    d.deadline,
                    d.token,
                    d.until.map(|t| t.0),
                    d.attempts,
                    d.waited_us,
                    d.address,
                    d.closed_at.map(|t| t.0),
                    d.tail,
                    d.tail_items,
                ])?;
            }
            d.is_saved();
        }
        Ok(())
    }

    /// The same in a few statements, whatever their number; what left the window comes before what is new.
    fn write_at_once(&mut self, changed: &[i64]) -> Result<()> {
        let loses_deadline = |d: &Digest| d.recount && d.deadline.is_some() && d.is_to_plan();
        let recounted = changed.iter().filter(|no| self.kept.digests.get(no).is_some_and(loses_deadline));
        let recounted = Column::ints(recounted.copied());
        let mut urgencies = HashMap::new();
        if recounted.len() > 0 {
            let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<Option<i64>>(1)?));
            let found = self.tx.prepare_cached(sql::PG_FIRST_URGENCIES)?.query_map([recounted], read)?;
            urgencies.extend(found.into_iter().filter_map(|(no, first)| Some((no, first?))));
        }
        for no in changed {
            self.plan(*no, Some(&urgencies))?;
        }
        let rows = changed.iter().filter_map(|no| self.kept.digests.get(no)).filter(|d| d.dirty);
        let (fresh, known): (Vec<&Digest>, Vec<&Digest>) = rows.partition(|d| d.fresh);
        let (moved, planned): (Vec<&Digest>, Vec<&Digest>) =
            known.into_iter().partition(|d| d.of_window() == d.saved_window);
        let (windows, planned): (Vec<&Digest>, Vec<&Digest>) =
            planned.into_iter().partition(|d| d.is_unfrozen() && d.saved.0 == d.state);
        if !windows.is_empty() {
            let ints = |of: fn(&Digest) -> i64| Column::ints(windows.iter().map(|d| of(d)));
            self.tx.prepare_cached(sql::PG_UPDATE_WINDOWS)?.later(params![
                ints(|d| d.no),
                ints(|d| d.priority as i64),
                ints(|d| d.due_at.0),
                ints(|d| d.open),
                ints(|d| d.first_at.0),
                ints(|d| d.last_at.0),
                Column::Ints(windows.iter().map(|d| d.deadline).collect()),
            ])?;
        }
        if !moved.is_empty() {
            let ints = |of: fn(&Digest) -> i64| Column::ints(moved.iter().map(|d| of(d)));
            let maybe = |of: fn(&Digest) -> Option<i64>| Column::Ints(moved.iter().map(|d| of(d)).collect());
            self.tx.prepare_cached(sql::PG_MOVE_DIGESTS)?.later(params![
                ints(|d| d.no),
                ints(|d| d.state as i64),
                ints(|d| d.due_at.0),
                ints(|d| d.open),
                ints(|d| d.token),
                maybe(|d| d.until.map(|t| t.0)),
                ints(|d| d.attempts),
                Column::Texts(moved.iter().map(|d| d.address.as_deref()).collect()),
                maybe(|d| d.closed_at.map(|t| t.0)),
            ])?;
        }
        for (statement, rows) in [(sql::PG_UPDATE_DIGESTS, planned), (sql::PG_SAVE_DIGESTS, fresh)] {
            if rows.is_empty() {
                continue;
            }
            let ints = |of: fn(&Digest) -> i64| Column::ints(rows.iter().map(|d| of(d)));
            let maybe = |of: fn(&Digest) -> Option<i64>| Column::Ints(rows.iter().map(|d| of(d)).collect());
            self.tx.prepare_cached(statement)?.later(params![
                ints(|d| d.no),
                ints(|d| d.mailbox),
                ints(|d| d.state as i64),
                ints(|d| d.priority as i64),
                ints(|d| d.due_at.0),
                ints(|d| d.open),
                ints(|d| d.first_at.0),
                ints(|d| d.last_at.0),
                maybe(|d| d.deadline),
                ints(|d| d.token),
                maybe(|d| d.until.map(|t| t.0)),
                ints(|d| d.attempts),
                ints(|d| d.waited_us),
                Column::Texts(rows.iter().map(|d| d.address.as_deref()).collect()),
                ints(|d| d.opened_at.0),
                maybe(|d| d.closed_at.map(|t| t.0)),
                ints(|d| d.lane),
            ])?;
        }
        self.shared.heads(|heads| {
            for d in changed.iter().filter_map(|no| self.kept.digests.get(no)) {
                heads.sees(d.state, d.priority, d.lane, d.due_at, d.until);
            }
        });
        for no in changed {
            if let Some(d) = self.kept.digests.get_mut(no) {
                d.is_saved();
            }
        }
        Ok(())
    }

    /// The due time of a window that changed, from what is still in it.
    fn plan(&mut self, no: i64, urgencies: Option<&HashMap<i64, i64>>) -> Result<()> {
        let Some(d) = self.kept.digests.get(&no).filter(|d| d.is_to_plan()) else { return Ok(()) };
        let mailbox = d.mailbox;
        let deadline = if d.recount && d.deadline.is_some() {
            let first: Option<i64> = match urgencies {
                Some(known) => known.get(&no).copied(),
                None => {
                    self.place_tail(no)?;
                    self.tx.query_row(sql::FIRST_URGENCY, [no], |row| row.get(0))?
                }
            };
            first.filter(|u| *u < NO_DEADLINE / 2)
        } else {
            d.deadline
        };
        self.mailbox(mailbox)?;
        let (shared, now) = (self.shared, self.now);
        if let (Some(digest), Some(mailbox)) = (self.kept.digests.get_mut(&no), self.kept.mailboxes.get(&mailbox)) {
            let before = digest.planned();
            let plan = digest.plan(mailbox, deadline, shared, now);
            (digest.first_at, digest.last_at, digest.deadline, digest.due_at, digest.priority) = plan;
            digest.dirty |= plan != before;
        }
        Ok(())
    }
}

/// First and last item, deadline, due time, priority.
type Plan = (Time, Time, Option<i64>, Time, Priority);

impl Digest {
    fn planned(&self) -> Plan {
        (self.first_at, self.last_at, self.deadline, self.due_at, self.priority)
    }

    /// How this worker would plan the window.
    fn plan(&self, mailbox: &Mailbox, deadline: Option<i64>, shared: &Shared, now: Time) -> Plan {
        // Nothing came in the future: a clock that was ahead for a moment must not hold a mailbox until it is caught up.
        let (first_at, last_at) = (self.first_at.min(now), self.last_at.min(now));
        let (policy, route) = (&shared.policy, &mailbox.route);
        let window = Window {
            first_at,
            last_at,
            items: u32::try_from(self.open).unwrap_or(u32::MAX),
            deadline: deadline.map(Time),
            previous_at: mailbox.previous_at.map(|at| at.min(now)),
        };
        // What is due already stays due: an item that joins or leaves does not move it to the next slot, nor does it undo
        // what an operator released or hurried. And a worker that does not have the route keeps what one that has it has
        // planned.
        let knows = policy.knows(route);
        let due_at = match self.fresh || (knows && (self.anew || self.due_at > now)) {
            true => policy.due(route, mailbox.zone.as_deref(), &window),
            false => self.due_at,
        };
        let priority = if self.fresh || knows { policy.rules(route).priority } else { self.priority };
        (first_at, last_at, deadline, due_at, priority)
    }

    /// Whether this worker would keep the window's plan as it is.
    pub fn is_planned(&self, mailbox: &Mailbox, shared: &Shared, now: Time) -> bool {
        self.plan(mailbox, self.deadline, shared, now) == self.planned()
    }
}
