//! Learn: answers and evidence settle attempts. Evidence is a join: unknown < refused; unknown < accepted < failed.

use std::time::Duration;

use crate::store::rules::tx::params;

use super::books::Books;
use super::closure::{ACCEPTED, FAILED, REFUSED, UNKNOWN};
use super::sql;
use crate::model::{AttemptId, DigestState, ItemState, Reason, Share};
use crate::store::{Answer, Evidence, Learned, Result};

/// Longest text of an answer that is kept.
const DETAIL_CHARS: usize = 500;

/// Subjects first, then mailboxes, both in order; what was known of an attempt is read under these locks.
pub(super) fn lock(books: &mut Books<'_>, evidence: &[Evidence]) -> Result<()> {
    books.hold(evidence.iter().map(|one| one.attempt.digest))
}

pub(super) fn learn(books: &mut Books<'_>, evidence: &Evidence) -> Result<Learned> {
    let AttemptId { digest, number } = evidence.attempt;
    let (no, k) = (digest.number, i64::from(number));
    let known = if digest.store == books.shared.store_id { books.attempt(no, k)? } else { None };
    let Some(outcome) = known else { return Ok(Learned::Unknown) };
    let (out, free, message_id, detail) = match &evidence.answer {
        Answer::Ambiguous { detail } => return doubt_of(books, no, k, detail),
        Answer::Accepted { message_id } => (ACCEPTED, false, message_id.as_deref(), ""),
        Answer::Failed { detail } => (FAILED, false, None, detail.as_str()),
        Answer::Retryable { detail } | Answer::Permanent { detail } => (REFUSED, false, None, detail.as_str()),
        Answer::Throttled { detail, .. } | Answer::NotCalled { detail, .. } => (REFUSED, true, None, detail.as_str()),
    };
    // What is known stays, unless something that outranks it comes (`bounce_wins`).
    if outcome == out || matches!(outcome, REFUSED | FAILED) || outcome == ACCEPTED && out == REFUSED {
        return Ok(Learned::Known);
    }
    books.tx.prepare_cached(sql::SETTLE_ATTEMPT)?.later(params![
        no,
        k,
        out,
        free,
        books.now.0,
        message_id,
        cut(detail)
    ])?;
    books.follow_attempt(no, k, out);
    if let Answer::Throttled { share: Some(share), .. } = &evidence.answer {
        match share {
            Share::Second => books.too_fast()?,
            Share::Day => books.day_is_full()?,
        }
    }
    let state = books.digest(no)?.state;
    let mine = matches!(state, DigestState::Sending | DigestState::InDoubt) && books.digest(no)?.attempts == k;
    if outcome == UNKNOWN && out != REFUSED {
        books.count_mail();
    }
    if out != REFUSED {
        sent(books, no, k, out == FAILED, mine)?;
    } else if mine {
        refused(books, no, &evidence.answer)?;
    }
    if out != ACCEPTED {
        // It was certainly not sent, or did not arrive: whom only it may have told is not told.
        for item in books.listed(no, k)? {
            if item.state.is_final() {
                books.untell(&item)?;
            }
        }
    }
    Ok(Learned::Settled)
}

fn doubt_of(books: &mut Books<'_>, no: i64, k: i64, detail: &str) -> Result<Learned> {
    let digest = books.digest(no)?;
    if digest.state != DigestState::Sending || digest.attempts != k {
        return Ok(Learned::Known);
    }
    books.tx.prepare_cached(sql::NOTE_ATTEMPT)?.later(params![no, k, cut(detail)])?;
    books.doubt(no)?;
    Ok(Learned::Settled)
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS).collect()
}

/// Accepted, or failed afterwards: settles what the attempt listed, wherever those items are now.
fn sent(books: &mut Books<'_>, no: i64, k: i64, failed: bool, mine: bool) -> Result<()> {
    for item in books.listed(no, k)? {
        // What was accepted just now is one of the attempts that listed it.
        let good = !failed || books.outcomes(&item)?.iter().any(|(_, _, outcome)| *outcome == ACCEPTED);
        let home = item.digest;
        let calling = match home {
            Some(home) if item.state == ItemState::Pending && !(home == no && mine) => {
                books.digest(home)?.state == DigestState::Sending
            }
            _ => false,
        };
        if good {
            books.put(&item, ItemState::Delivered, None)?;
            books.enter_told(&item)?;
        } else if failed && !matches!(item.state, ItemState::Withdrawn | ItemState::Suppressed) && !calling {
            books.settle(&item, ItemState::Dead, Some(Reason::Bounced))?;
        }
        if let Some(home) = home.filter(|home| *home != no) {
            books.tidy(home)?;
        }
    }
    if mine {
        if books.digest(no)?.state == DigestState::Sending {
            // A doubt has used it already.
            books.use_share();
        }
        let now = books.now;
        books.wait(no, now)?;
    }
    let digest = books.digest(no)?;
    if digest.open == 0 && digest.state == DigestState::Leased {
        // Nothing is left to retry: its lease is void (`evidence_stops_retry`).
        books.set_state(no, DigestState::Closed)?;
    }
    books.tidy(no)
}

/// Certainly not sent: wait, or give up. What was closed meanwhile is withdrawn (`closure_after_refusal`).
fn refused(books: &mut Books<'_>, no: i64, answer: &Answer) -> Result<()> {
    let (wait, end) = match answer {
        Answer::Permanent { .. } => (Duration::ZERO, Some(Reason::Permanent)),
        Answer::Throttled { retry_in, .. } => (*retry_in, None),
        Answer::NotCalled { .. } => (Duration::ZERO, None),
        _ => books.backs_off(no)?,
    };
    let unrenderable: &[i64] = match answer {
        Answer::NotCalled { unrenderable, .. } => unrenderable,
        _ => &[],
    };
    for item in books.open_in(no)? {
        if let Some(reason) = books.is_over(&item)? {
            books.settle(&item, ItemState::Withdrawn, Some(reason))?;
        } else if unrenderable.contains(&item.event_no) {
            books.settle(&item, ItemState::Dead, Some(Reason::Rendering))?;
        } else if let Some(reason) = end {
            books.settle(&item, ItemState::Dead, Some(reason))?;
        } else {
            books.settle(&item, ItemState::Pending, None)?;
        }
    }
    let due_at = books.now.plus(wait);
    books.wait(no, due_at)?;
    books.tidy(no)
}

impl Books<'_> {
    /// After an attempt that burned: how long the next one waits, and why there is none, if the digest's patience is at its end.
    pub fn backs_off(&mut self, no: i64) -> Result<(Duration, Option<Reason>)> {
        let mailbox = self.digest(no)?.mailbox;
        let route = self.mailbox(mailbox)?.route.clone();
        let (rules, burned) = (self.shared.policy.rules(&route), self.burned(no)?);
        let number = u32::try_from(self.digest(no)?.attempts).unwrap_or(u32::MAX);
        let attempt = AttemptId { digest: self.digest_id(no), number };
        let wait = self.shared.policy.backoff(&route, attempt, burned);
        let digest = self.digest_mut(no)?;
        // Adds up waits, does not read the clock: a pause or a halt kills no mail (`patience`).
        digest.waited_us = digest.waited_us.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        let patience = i64::try_from(rules.give_up_after.as_micros()).unwrap_or(i64::MAX);
        let end = if burned >= rules.attempts_max {
            Some(Reason::Attempts)
        } else {
            (digest.waited_us > patience).then_some(Reason::GaveUp)
        };
        Ok((wait, end))
    }

    /// Counted attempts: all but those known to be throttled or never called. Not a counter, so that a late "throttled"
    /// gives its attempt back (`late_throttle_refunds`).
    pub fn burned(&self, no: i64) -> Result<u32> {
        Ok(self.tx.prepare_cached(sql::BURNED)?.query_row([no], |row| row.get(0))?)
    }

    /// Nobody knows whether it was sent: its items wait for evidence, or for the end of the doubt.
    pub fn doubt(&mut self, no: i64) -> Result<()> {
        for item in self.open_in(no)? {
            self.put(&item, ItemState::InDoubt, None)?;
        }
        let mailbox = self.digest(no)?.mailbox;
        let route = self.mailbox(mailbox)?.route.clone();
        let until = self.now.plus(self.shared.policy.rules(&route).doubt_grace);
        self.use_share();
        self.set_state(no, DigestState::InDoubt)?;
        self.digest_mut(no)?.until = Some(until);
        self.tidy(no)
    }
}
