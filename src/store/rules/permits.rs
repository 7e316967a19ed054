//! Permits of the account's rate in this worker's hands (PostgreSQL).
//!
//! All who send from an account draw from one row. Were it held by a begin until that is durable, one worker's begin would
//! wait for the other's; so permits are drawn just before it, in a transaction that is not waited for until it is durable: a
//! log is written in order, and what makes a begin durable has made the draw durable. What a begin did not use is used by the
//! next one, or perishes.

use std::time::Duration;

use super::books::{Books, Hold};
use super::calls::Engine;
use super::sql;
use crate::model::Time;
use crate::quota::{AHEAD, SLOT};
use crate::store::{Begun, Intent, Result};

/// How often those without a permit are looked at all the same: a pause, a lease that ends, mails that turned out to be empty.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one begin leaves to the next.
#[derive(Debug)]
pub(in crate::store) struct Spare {
    /// Permits that were drawn, and not used by a call: the moments that they name. Bounded by what one begin asks for.
    ready: Vec<Time>,
    looked_at: Time,
}

impl Default for Spare {
    fn default() -> Spare {
        Spare { ready: vec![], looked_at: Time::MIN }
    }
}

impl Spare {
    /// Permits that a begin can use whose calls start `lead` from now at the earliest: a call needs some of its slot to start
    /// in, and what names a moment far ahead is from before a clock was set back.
    fn take(&mut self, now: Time, lead: Duration) -> Vec<Time> {
        let starts = now.plus(lead);
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|from| from.plus(SLOT / 2) >= starts && *from <= starts.plus(AHEAD));
        ready
    }

    /// Whether it is time to look at those without a permit.
    fn looks(&mut self, now: Time) -> bool {
        let looks = self.looked_at > now || now.since(self.looked_at) >= LOOK_EVERY;
        if looks {
            self.looked_at = now;
        }
        looks
    }
}

/// A mail that is to begin, with its permit.
#[derive(Clone, Debug)]
pub(super) struct Permitted {
    pub mail: Intent,
    pub permit: Permit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// The begin takes it itself.
    InBegin,
    /// The call may start from then on.
    From(Time),
    /// There is none before then.
    Later(Time),
    /// The same, and what keeps it from beginning anyway is looked at.
    Look(Time),
}

/// Gives each mail its permit, as far as there are some. (None is drawn for what somebody else was seen to hold: it
/// would use up a slow account's rate each time that it is tried.)
pub(super) async fn give<E: Engine>(engine: &E, now: Time, mails: Vec<Intent>) -> Result<Vec<Permitted>> {
    let shared = engine.shared();
    if shared.account.is_none() || !engine.works_side_by_side() {
        return Ok(mails.into_iter().map(|mail| Permitted { mail, permit: Permit::InBegin }).collect());
    }
    let held: Vec<bool> = {
        let strangers = shared.strangers();
        mails.iter().map(|mail| strangers.have(mail.lease.digest.number)).collect()
    };
    let lead = mails.first().map_or(Duration::ZERO, |mail| mail.lead);
    let mut ready = shared.spare_permits().take(now, lead);
    let usual = held.iter().filter(|held| !**held).count();
    let mut later = now;
    if usual > ready.len() {
        let wanted = usual - ready.len();
        let drawn = engine.write(now, move |books| draw(books, wanted, lead)).await?;
        ready.extend(drawn.0);
        later = drawn.1.unwrap_or(later);
    }
    ready.sort_unstable();
    let none = match ready.is_empty() && shared.spare_permits().looks(now) {
        true => Permit::Look(later),
        false => Permit::Later(later),
    };
    let mut ready = ready.into_iter();
    let permit = |held| match held {
        true => Permit::InBegin,
        false => ready.next().map_or(none, Permit::From),
    };
    let permits: Vec<Permit> = held.into_iter().map(permit).collect();
    shared.spare_permits().ready.extend(ready);
    Ok(mails.into_iter().zip(permits).map(|(mail, permit)| Permitted { mail, permit }).collect())
}

/// What came of them, if none has a permit.
pub(super) fn none(given: &[Permitted]) -> Option<Vec<Begun>> {
    let later = |one: &Permitted| match one.permit {
        Permit::Later(at) => Some(Begun::NoRate(at)),
        _ => None,
    };
    given.iter().map(later).collect()
}

/// What was given, and not used by a call. (What failed with the server is lost, perhaps, with what it had not made durable.)
pub(super) fn spare<E: Engine>(engine: &E, given: &[Permitted], begun: &[Begun]) {
    let unused = given.iter().zip(begun).filter(|(_, begun)| !matches!(begun, Begun::Send(_) | Begun::Later));
    let unused = unused.filter_map(|(one, _)| match one.permit {
        Permit::From(from) => Some(from),
        _ => None,
    });
    engine.shared().spare_permits().ready.extend(unused);
}

/// Takes so many permits, or as many as there are, and then when there are more. `lead`: how long after this their calls can
/// start at the earliest.
fn draw(books: &mut Books<'_>, wanted: usize, lead: Duration) -> Result<(Vec<Time>, Option<Time>)> {
    books.tx.prepare_cached(sql::PG_DURABLE_LATER)?.later(())?;
    let mut drawn = Vec::with_capacity(wanted);
    while drawn.len() < wanted {
        match books.permit(lead, Hold::Change)? {
            Ok(from) => drawn.push(from),
            Err(at) => return Ok((drawn, Some(at))),
        }
    }
    Ok((drawn, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_800_000_000_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_spare_permit_is_used_in_its_slot_and_not_kept_over_a_clock_that_is_set_back() {
        let ready = vec![NOW.minus(ms(101)), NOW.minus(ms(99)), NOW, NOW.plus(ms(250)), NOW.plus(ms(251))];
        let mut spare = Spare { ready: ready.clone(), ..Spare::default() };
        assert_eq!(spare.take(NOW, Duration::ZERO), ready[1..4]);
        assert_eq!(spare.take(NOW, Duration::ZERO), [], "each once");
        spare.ready.clone_from(&ready);
        assert_eq!(spare.take(NOW, ms(50)), ready[2..], "the begin takes some of the slot, too");
        spare.ready.clone_from(&ready);
        assert_eq!(spare.take(NOW.minus(Duration::from_secs(1_800)), Duration::ZERO), [], "half an hour back");
    }

    #[test]
    fn those_without_a_permit_are_looked_at_each_second() {
        let mut spare = Spare::default();
        let looks: Vec<bool> = [0, 999, 1_000, 1_500].map(|n| spare.looks(NOW.plus(ms(n)))).into();
        assert_eq!(looks, [true, false, true, false]);
        assert!(spare.looks(NOW), "the clock was set back");
    }
}
