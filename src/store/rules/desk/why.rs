//! `why`: the whole history of one event, recipient, digest or message, told from the rows that it left.

use std::collections::BTreeSet;

use crate::store::rules::tx::{Optional, Params, Tx, params};

use super::rows::{self, Attempt, ItemRow, digest_id, digest_number, text};
use super::{digests, sql};
use crate::model::{DigestState, ItemState, Priority, Reason, Time};
use crate::store::Result;
use crate::store::desk::{DigestRow, History, Match, Step};
use crate::store::rules::accept::{DROPPED, OPENS, dedupe_key};
use crate::store::rules::books::look_at_quota;
use crate::store::rules::closure::{FAILED, REFUSED, UNKNOWN};
use crate::store::rules::{Shared, sql as worker};

/// A recipient's history tells of so many items, the latest.
const RECENT: u32 = 1_000;

/// Of anything else, so many: an event reaches some 500 people a route, and a digest holds 10,000 open items.
const MOST: u32 = 10_000;

/// Of so many digests it is told when they are due.
const DUE_MAX: usize = 100;

/// Sources that use one id; attempts that share one message id.
const SHARED: u32 = 100;

/// What happens at one moment is told in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Arrives,
    Opens,
    Joins,
    Begins,
    Answered,
    Over,
    Settles,
    Ends,
}

struct Telling<'c> {
    conn: Tx<'c>,
    shared: &'c Shared,
    now: Time,
    steps: Vec<(i64, Rank, Step)>,
    matches: Vec<Match>,
    /// Digests and attempts that are told already: they belong to many items.
    told: BTreeSet<(i64, i64)>,
    /// Digests with items that are open, and those of which it is told when they are due.
    open: BTreeSet<i64>,
    told_due: BTreeSet<i64>,
    is_cut: bool,
}

pub(super) fn why(conn: Tx<'_>, shared: &Shared, id: &str, now: Time) -> Result<Option<History>> {
    let mut telling = Telling {
        conn,
        shared,
        now,
        steps: vec![],
        matches: vec![],
        told: BTreeSet::new(),
        open: BTreeSet::new(),
        told_due: BTreeSet::new(),
        is_cut: false,
    };
    let kind = if telling.events(id)? {
        "event"
    } else if telling.recipient(id)? {
        "recipient"
    } else if telling.digest(id)? {
        "digest"
    } else if telling.message(id)? {
        "message"
    } else {
        return Ok(None);
    };
    for no in std::mem::take(&mut telling.open) {
        // Its attempts tell where the others are.
        if !matches!(telling.digest_state(no)?.0, DigestState::Sending | DigestState::InDoubt) {
            telling.due(no)?;
        }
    }
    let mut steps = telling.steps;
    steps.sort_by_key(|(at, rank, _)| (*at, *rank));
    Ok(Some(History {
        id: id.into(),
        kind: kind.into(),
        matches: telling.matches,
        is_cut: telling.is_cut,
        history: steps.into_iter().map(|(_, _, step)| step).collect(),
    }))
}

impl Telling<'_> {
    fn tell(&mut self, at: i64, rank: Rank, what: &str, step: Step) {
        self.steps.push((at, rank, Step { at: text(at), what: what.into(), ..step }));
    }

    // ---- what the id names

    fn events(&mut self, id: &str) -> Result<bool> {
        let key = dedupe_key("", id);
        let (mut low, mut high) = (key, key);
        low[8..].fill(0);
        high[8..].fill(0xff);
        let by_id = if self.conn.is_postgres() { sql::PG_EVENTS_BY_ID } else { sql::LITE_EVENTS_BY_ID };
        let mut found = self.conn.prepare_cached(by_id)?;
        let mut any = false;
        found.each(params![&low[..], &high[..], id, SHARED], |row| {
            any = true;
            let (no, received_at, effect): (i64, i64, i64) = (row.get(0)?, row.get(5)?, row.get(7)?);
            let kind: String = row.get(3)?;
            let said = Step { reason: Some(kind.clone()), ..Step::default() };
            self.tell(received_at, Rank::Arrives, "received", said);
            let items = self.items(sql::ITEMS_OF_EVENT, params![no, MOST])?;
            self.is_cut |= items.len() >= MOST as usize;
            let state = if effect == DROPPED { "dropped" } else { state_of_all(&items) };
            self.matches.push(Match {
                source: Some(row.get(1)?),
                id: row.get(2)?,
                kind: Some(kind),
                subject_key: row.get(4)?,
                state: Some(state.into()),
            });
            if effect == DROPPED {
                let said = Step { reason: Some(Reason::Expired.as_str().into()), ..Step::default() };
                self.tell(received_at, Rank::Over, "dropped", said);
            }
            for item in &items {
                self.item(item)?;
            }
            if let (OPENS, Some(topic)) = (effect, row.get::<Option<Vec<u8>>>(8)?) {
                self.over(no, row.get(6)?, row.get(9)?, &topic)?;
            }
            Ok(true)
        })?;
        Ok(any)
    }

    fn recipient(&mut self, id: &str) -> Result<bool> {
        if !self.conn.prepare_cached(sql::IS_RECIPIENT)?.exists([id])? {
            return Ok(false);
        }
        let mut items = self.items(sql::ITEMS_OF_RECIPIENT, params![id, RECENT + 1])?;
        self.is_cut |= items.len() > RECENT as usize;
        items.truncate(RECENT as usize);
        items.reverse();
        self.list(&items)?;
        Ok(true)
    }

    fn digest(&mut self, id: &str) -> Result<bool> {
        let Some(no) = digest_number(self.shared, id) else { return Ok(false) };
        if !self.conn.prepare_cached(worker::DIGEST)?.exists([no])? {
            return Ok(false);
        }
        let items = self.items(rows::items_of_digest(self.conn), params![no, i64::MIN, MOST])?;
        self.is_cut |= items.len() >= MOST as usize;
        self.digest_itself(no)?;
        self.list(&items)?;
        Ok(true)
    }

    fn message(&mut self, id: &str) -> Result<bool> {
        let attempts: Vec<Attempt> = {
            let mut found = self.conn.prepare_cached(sql::ATTEMPTS_OF_MESSAGE)?;
            found.query_map(params![id, SHARED], Attempt::read)?
        };
        for attempt in &attempts {
            let items = self.items(sql::ITEMS_OF_ATTEMPT, params![attempt.digest_no, attempt.n, MOST])?;
            self.is_cut |= items.len() >= MOST as usize;
            self.digest_itself(attempt.digest_no)?;
            self.list(&items)?;
        }
        Ok(!attempts.is_empty())
    }

    // ---- what is told

    fn items(&self, statement: &str, of: impl Params) -> Result<Vec<ItemRow>> {
        let mut found = self.conn.prepare_cached(statement)?;
        found.query_map(of, ItemRow::read)
    }

    fn list(&mut self, items: &[ItemRow]) -> Result<()> {
        for item in items {
            self.matches.push(Match {
                source: Some(item.source.clone()),
                id: item.id.clone(),
                kind: Some(item.kind.clone()),
                subject_key: item.subject_key.clone(),
                state: Some(item.state.as_str().into()),
            });
            self.item(item)?;
        }
        Ok(())
    }

    /// An item's way: into a digest, on the list of attempts, to its end.
    fn item(&mut self, item: &ItemRow) -> Result<()> {
        let place = |digest: Option<i64>, shared: &Shared| Step {
            route: Some(item.route.clone()),
            recipient: Some(item.recipient.clone()),
            digest: digest.map(|no| digest_id(shared, no)),
            ..Step::default()
        };
        let before: Vec<i64> = {
            let mut found = self.conn.prepare_cached(sql::RELISTED_OF_ITEM)?;
            found.query_map(params![item.event_no, item.mailbox_no], |row| row.get(0))?
        };
        let attempts = item.attempts(self.conn)?;
        if !item.state.is_final() && self.open.len() < DUE_MAX {
            self.open.extend(item.digest_no);
        }
        // Replayed items were in other digests first, and died there.
        let homes: Vec<i64> =
            before.into_iter().filter(|no| Some(*no) != item.digest_no).chain(item.digest_no).collect();
        let mut died_at = None;
        for (i, no) in homes.iter().enumerate() {
            // When exactly it came there stands nowhere, but not before it was received, or died where it was before, and
            // not before the digest was there.
            let from = died_at.unwrap_or(item.received_at).max(self.opened_at(*no)?.unwrap_or(item.received_at));
            let step = place(Some(*no), self.shared);
            self.tell(from, Rank::Joins, if i == 0 { "digested" } else { "relisted" }, step.clone());
            // What ended it there is the last attempt that listed it; late evidence may tell otherwise by now.
            let last = attempts.iter().filter(|a| a.digest_no == *no).max_by_key(|a| a.n);
            died_at = last.filter(|a| matches!(a.outcome, REFUSED | FAILED)).and_then(|a| a.settled_at);
            if let (true, Some(at)) = (Some(*no) != item.digest_no, died_at) {
                self.tell(at, Rank::Settles, ItemState::Dead.as_str(), step);
            }
        }
        for attempt in attempts.iter().rev() {
            self.attempt(attempt, &item.recipient, &item.route)?;
        }
        if let (true, Some(at)) = (item.state.is_final(), item.settled_at) {
            let by = item.settled_by(self.conn)?;
            let digest = by.as_ref().map(|a| a.digest_no).or(item.digest_no);
            let step = Step {
                reason: item.reason.map(|r| r.as_str().into()),
                attempt: by.as_ref().map(Attempt::number),
                message_id: by.and_then(|a| a.message_id),
                ..place(digest, self.shared)
            };
            self.tell(at, Rank::Settles, item.state.as_str(), step);
        }
        Ok(())
    }

    fn opened_at(&self, digest: i64) -> Result<Option<i64>> {
        self.conn.prepare_cached(worker::DIGEST)?.query_row([digest], |row| row.get(14)).optional()
    }

    fn attempt(&mut self, attempt: &Attempt, recipient: &str, route: &str) -> Result<()> {
        if !self.told.insert((attempt.digest_no, attempt.n)) {
            return Ok(());
        }
        let step = Step {
            route: Some(route.into()),
            recipient: Some(recipient.into()),
            digest: Some(digest_id(self.shared, attempt.digest_no)),
            attempt: Some(attempt.number()),
            ..Step::default()
        };
        self.tell(attempt.begun_at, Rank::Begins, "attempt_begun", step.clone());
        if attempt.outcome == UNKNOWN {
            let (state, last) = self.digest_state(attempt.digest_no)?;
            let calling = state == DigestState::Sending && last == attempt.n;
            if !calling {
                // Nobody knows when, only since when.
                let step = Step { reason: attempt.detail.clone(), ..step };
                self.tell(attempt.begun_at, Rank::Answered, "attempt_in_doubt", step);
            }
            return Ok(());
        }
        let what = format!("attempt_{}", attempt.outcome_name());
        let step = Step { reason: attempt.detail.clone(), message_id: attempt.message_id.clone(), ..step };
        self.tell(attempt.settled_at.unwrap_or(attempt.begun_at), Rank::Answered, &what, step);
        Ok(())
    }

    /// (state, number of its last attempt)
    fn digest_state(&self, no: i64) -> Result<(DigestState, i64)> {
        let mut one = self.conn.prepare_cached(worker::DIGEST)?;
        let found = one.query_row([no], |row| Ok((DigestState::from_number(row.get(2)?), row.get(11)?))).optional()?;
        Ok(found.map_or((DigestState::Closed, 0), |(state, n)| (state.unwrap_or(DigestState::Closed), n)))
    }

    fn digest_itself(&mut self, no: i64) -> Result<()> {
        let Some((row, _)) = rows::digest(self.conn, self.shared, no, Time::MAX)? else { return Ok(()) };
        let step = Step {
            route: Some(row.route.clone()),
            recipient: Some(row.recipient.clone()),
            digest: Some(row.id),
            ..Step::default()
        };
        let (opened_at, closed_at): (i64, Option<i64>) =
            self.conn.prepare_cached(worker::DIGEST)?.query_row([no], |row| Ok((row.get(14)?, row.get(15)?)))?;
        self.tell(opened_at, Rank::Opens, "opened", step.clone());
        for attempt in digests::attempts(self.conn, no)? {
            self.attempt(&attempt, &row.recipient, &row.route)?;
        }
        match closed_at {
            Some(at) => self.tell(at, Rank::Ends, "closed", step),
            None => self.due(no)?,
        }
        Ok(())
    }

    /// Of an open digest: when it is, or was, to go out, and what keeps it; a held one waits for its release.
    fn due(&mut self, no: i64) -> Result<()> {
        if !self.told_due.insert(no) {
            return Ok(());
        }
        let Some((row, _)) = rows::digest(self.conn, self.shared, no, self.now)? else { return Ok(()) };
        let (opened_at, due_at, priority): (i64, i64, u8) = self
            .conn
            .prepare_cached(worker::DIGEST)?
            .query_row([no], |row| Ok((row.get(14)?, row.get(4)?, row.get(3)?)))?;
        let priority = Priority::ALL.get(usize::from(priority)).copied().unwrap_or_default();
        let (at, rank, what) = match row.state == DigestState::Held.as_str() {
            true => (opened_at, Rank::Ends, DigestState::Held.as_str()),
            false => (due_at, Rank::Begins, "due"),
        };
        let reason = self.keeps(&row, priority)?;
        let step = Step {
            route: Some(row.route),
            recipient: Some(row.recipient),
            digest: Some(row.id),
            reason,
            ..Step::default()
        };
        self.tell(at, rank, what, step);
        Ok(())
    }

    /// Why this open digest has not left, beside its time.
    fn keeps(&self, row: &DigestRow, priority: Priority) -> Result<Option<String>> {
        let waits = [DigestState::Gathering, DigestState::Waiting, DigestState::Leased].map(DigestState::as_str);
        if !waits.contains(&row.state.as_str()) {
            return Ok(None);
        }
        let paused = self.conn.prepare_cached(worker::PAUSED)?.query_map((), |row| row.get::<String>(0))?;
        if paused.iter().any(|route| route == "*") {
            return Ok(Some("all mail is paused".into()));
        }
        if paused.contains(&row.route) {
            return Ok(Some("its route is paused".into()));
        }
        let account = self.shared.account.as_deref();
        let quota = account.map(|account| look_at_quota(self.conn, self.shared, account, self.now)).transpose()?;
        Ok(match quota.map(|known| known.map(|(quota, day)| day.room(&quota.terms, priority))) {
            Some(None) => Some("the account has not said yet what it may send".into()),
            Some(Some(0)) if row.due => Some("the quota of 24 hours is used up, or kept for urgent mail".into()),
            _ => None,
        })
    }

    /// Which event ended what this one opened, by the marks of its subject.
    fn over(&mut self, no: i64, ver: i64, date: Option<i64>, topic: &[u8]) -> Result<()> {
        type Marks = (i64, i64, Option<i64>, Option<i64>, Option<i64>);
        let marks: Option<Marks> = self
            .conn
            .prepare_cached(sql::SUBJECT_MARKS)?
            .query_row([topic], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
            .optional()?;
        let Some((latest_ver, latest_no, latest_date, closer_ver, closer_no)) = marks else { return Ok(()) };
        let (what, by) = match closer_ver.zip(closer_no).filter(|(closer, _)| *closer > ver) {
            Some((_, closer)) => ("closed_by", closer),
            None if latest_no != no && latest_ver >= ver && (date.is_none() || latest_date != date) => {
                ("replaced_by", latest_no)
            }
            None => return Ok(()),
        };
        let mut one = self.conn.prepare_cached(sql::EVENT_NAME)?;
        let name = one.query_row([by], |row| {
            let (source, id, kind): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((format!("{kind} {id} from {source}"), row.get(3)?))
        });
        if let Some((name, at)) = name.optional()? {
            self.tell(at, Rank::Over, what, Step { reason: Some(name), ..Step::default() });
        }
        Ok(())
    }
}

/// One word for an event: what all its items are, or `mixed`.
fn state_of_all(items: &[ItemRow]) -> &'static str {
    match items.first().map(|i| i.state) {
        None => "asks_nobody",
        Some(state) if items.iter().all(|i| i.state == state) => state.as_str(),
        Some(_) => "mixed",
    }
}
