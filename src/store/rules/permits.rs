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
use crate::quota::SLOT;
use crate::store::{Begun, Intent, Result};

/// Drawn, and not used by a call: the moments that they name. Bounded by what one begin asks for.
pub(in crate::store) type Spare = Vec<Time>;

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
    // A call needs some of its slot to start in.
    let mut ready = std::mem::take(&mut *shared.spare_permits());
    ready.retain(|from| from.plus(SLOT / 2) >= now);
    let usual = held.iter().filter(|held| !**held).count();
    let mut later = now;
    if let Some(first) = mails.first().filter(|_| usual > ready.len()) {
        let (lead, wanted) = (first.lead, usual - ready.len());
        let drawn = engine.write(now, move |books| draw(books, wanted, lead)).await?;
        ready.extend(drawn.0);
        later = drawn.1.unwrap_or(later);
    }
    ready.sort_unstable();
    let mut ready = ready.into_iter();
    let permit = |held| match held {
        true => Permit::InBegin,
        false => ready.next().map_or(Permit::Later(later), Permit::From),
    };
    let permits: Vec<Permit> = held.into_iter().map(permit).collect();
    shared.spare_permits().extend(ready);
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
    engine.shared().spare_permits().extend(unused);
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
