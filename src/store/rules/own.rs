//! What this process knows of the digests in its hands, beside what is written: which leases are its own, which answers are
//! not stored yet, and which begins it heard nothing of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tx::{Column, Row, Tx, params};
use super::{Books, Shared, learn, sql};
use crate::model::{AttemptId, DigestId, DigestState, Lease, Time};
use crate::store::{Answer, Evidence, Result};

/// Leases that are remembered at most; they are forgotten one by one when they are settled. What was forgotten is taken for
/// another worker's, which no run to the end waits for.
const MOST: u32 = 65_536;

#[derive(Clone, Copy, Debug)]
struct Leased {
    token: i64,
    /// The attempt that was begun under it; 0: none yet.
    attempt: u32,
}

#[derive(Debug, Default)]
pub(in crate::store) struct Own {
    /// Digests that were leased here and are not settled.
    leases: HashMap<i64, Leased>,
    /// Attempts whose answer is known here and not stored yet, by digest. Bounded by the calls that a worker has under way.
    answers: BTreeMap<i64, Vec<u32>>,
    /// Begins that may be written or not, by digest: nothing was called. Looked up with the next word about their lease.
    unheard: BTreeMap<i64, i64>,
}

impl Own {
    /// (Said before the commit: if it does not come, the token says that this is not what is written.)
    pub fn leased(&mut self, digest: i64, token: i64) {
        if self.leases.len() >= MOST as usize {
            self.leases.clear();
        }
        self.leases.insert(digest, Leased { token, attempt: 0 });
    }

    pub fn begun(&mut self, digest: i64, attempt: u32) {
        if let Some(leased) = self.leases.get_mut(&digest) {
            leased.attempt = attempt;
        }
    }

    /// It came to its end under this lease without a call.
    pub fn given_back(&mut self, lease: Lease) {
        if self.leases.get(&lease.digest.number).is_some_and(|known| known.token == lease.token) {
            self.leases.remove(&lease.digest.number);
        }
    }

    /// What becomes of it is another worker's to decide.
    pub fn leaves(&mut self, digest: i64) {
        self.leases.remove(&digest);
    }

    fn settled(&mut self, attempt: AttemptId) {
        if self.leases.get(&attempt.digest.number).is_some_and(|known| known.attempt == attempt.number) {
            self.leases.remove(&attempt.digest.number);
        }
    }

    pub fn knows(&mut self, attempt: AttemptId) {
        let of = self.answers.entry(attempt.digest.number).or_default();
        if !of.contains(&attempt.number) {
            of.push(attempt.number);
        }
    }

    /// The store has it. `ends`: nothing of the call is open any more.
    pub fn told(&mut self, attempt: AttemptId, ends: bool) {
        if ends {
            self.settled(attempt);
        }
        if let Some(of) = self.answers.get_mut(&attempt.digest.number) {
            of.retain(|n| *n != attempt.number);
            if of.is_empty() {
                self.answers.remove(&attempt.digest.number);
            }
        }
    }

    /// An answer is on its way to the store: until it is there, nothing else is to become of this digest here.
    pub fn has_answer(&self, digest: i64) -> bool {
        self.answers.contains_key(&digest)
    }

    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// No answer came to this begin.
    pub fn heard_nothing(&mut self, lease: Lease) {
        if self.unheard.len() >= MOST as usize {
            // Only what somebody else held for ever is left of old ones.
            self.unheard.clear();
        }
        self.unheard.insert(lease.digest.number, lease.token);
    }

    pub fn is_unheard(&self, lease: Lease) -> bool {
        self.unheard.get(&lease.digest.number) == Some(&lease.token)
    }

    pub fn heard(&mut self, digest: i64) {
        self.unheard.remove(&digest);
    }
}

impl Shared {
    /// These leases, as far as they belong to this store.
    pub(super) fn unheard(&self, leases: impl Iterator<Item = Lease>) -> Vec<Lease> {
        let own = self.own();
        leases.filter(|lease| lease.digest.store == self.store_id && own.is_unheard(*lease)).collect()
    }
}

/// Subjects first, then mailboxes, as for any answer.
pub(super) fn lock(books: &mut Books<'_>, leases: &[Lease]) -> Result<()> {
    books.hold(leases.iter().map(|lease| lease.digest))
}

/// A begin whose commit got no answer: if it is written, its attempt was not called.
pub(super) fn look_up(books: &mut Books<'_>, lease: &Lease) -> Result<()> {
    let Lease { digest: DigestId { number, .. }, token } = *lease;
    let Some(digest) = books.digest_if_there(number)? else { return Ok(()) };
    let mine = digest.token == token && matches!(digest.state, DigestState::Sending | DigestState::InDoubt);
    let Some(attempt) = u32::try_from(digest.attempts).ok().filter(|_| mine) else { return Ok(()) };
    let answer = Answer::NotCalled { unrenderable: vec![], detail: "the store gave no answer to its begin".into() };
    let attempt = AttemptId { digest: lease.digest, number: attempt };
    learn::learn(books, &Evidence { attempt, answer }).map(drop)
}

/// Those of [`under_way`], and what ended and is anybody's to end; but for what somebody else holds, which may take for ever.
pub(super) fn to_see_through(tx: Tx<'_>, shared: &Shared, now: Time) -> Result<u64> {
    let mut all: BTreeSet<i64> = under_way(tx, shared)?.into_iter().map(|(no, _)| no).collect();
    let ended: Vec<i64> =
        tx.prepare_cached(sql::ENDED)?.query_map(params![now.0, MOST, shared.until_from(now)], |row| row.get(0))?;
    let strangers = shared.strangers();
    all.extend(ended.into_iter().filter(|no| !strangers.have(*no)));
    Ok(all.len() as u64)
}

/// Of the digests that were leased here: those still under that lease, in a call of it, or in doubt about it. (SQLite has one
/// worker: all that there is.)
pub(super) fn under_way(tx: Tx<'_>, shared: &Shared) -> Result<Vec<(i64, DigestState)>> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, DigestState::from_number(row.get(1)?).unwrap_or(DigestState::Closed)));
    if !tx.is_postgres() {
        return tx.prepare_cached(sql::BUSY)?.query_map([MOST], read);
    }
    let of = {
        let own = shared.own();
        let (numbers, tokens): (Vec<i64>, Vec<i64>) = own.leases.iter().map(|(no, of)| (*no, of.token)).unzip();
        [Column::ints(numbers), Column::ints(tokens)]
    };
    tx.prepare_cached(sql::PG_UNDER_WAY)?.query_map(of, read)
}
