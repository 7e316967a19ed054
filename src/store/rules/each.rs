//! Lists of begins, answers and leases: one transaction for all. If one of them can't be done, now or ever, each gets a
//! transaction of its own, so that it holds up no other.

use std::sync::Arc;
use std::time::Duration;

use super::calls::Engine;
use super::strangers::{ALONE, KNOWN};
use super::{Books, Shared};
use crate::model::Time;
use crate::store::{Result, StoreError};

/// What one list waits for rows that are somebody else's, one by one; those behind are taken for held as well, and come first
/// the next time.
pub(super) const HELD_AT_MOST: Duration = Duration::from_secs(2);

/// The same for those that were seen held before. However many they are, the others go on; each call goes on behind the last
/// one that was tried, so that all get their turn.
const KNOWN_AT_MOST: Duration = Duration::from_millis(300);

/// What is done with each of a list.
pub(super) struct Each<T, U> {
    pub digest: fn(&T) -> i64,
    /// Takes the locks of some of them, in the order of everybody.
    pub lock: fn(&mut Books<'_>, &[T]) -> Result<()>,
    pub work: fn(&mut Books<'_>, &T) -> Result<U>,
    /// It will never be done.
    pub broken: fn(&T, &StoreError) -> U,
    /// Somebody else has its rows.
    pub held: fn(&T) -> U,
    /// What was done counts, and an error of the whole call would hide it: what it is for one that was not. `None`: all is
    /// asked again, and what is done is known then.
    pub failed: Option<fn(&Shared, &T) -> U>,
    /// One that was held and is not any more is as any other again.
    pub frees: bool,
    /// All of a list that had to wait are taken for held: the end of a time is no hurry, and of each of them somebody may have
    /// the answer.
    pub wary: bool,
    pub kind: Kind,
}

/// What the list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Begins,
    Answers,
    Leases,
    Unheard,
    Ends,
    EndsSoon,
}

/// Gives what became of each, in their order.
pub(super) async fn each<E, T, U>(engine: &E, now: Time, list: Arc<Vec<T>>, of: Each<T, U>) -> Result<Vec<U>>
where
    E: Engine,
    T: Clone + Send + Sync + 'static,
    U: Send + 'static,
{
    let shared = engine.shared();
    let (mut strange, usual): (Vec<usize>, Vec<usize>) = {
        let strangers = shared.strangers();
        (0..list.len()).partition(|i| strangers.have((of.digest)(&list[*i])))
    };
    let mut done: Vec<Option<U>> = list.iter().map(|_| None).collect();
    let mut alone = Vec::new();
    if !usual.is_empty() {
        let together =
            if strange.is_empty() { list.clone() } else { Arc::new(usual.iter().map(|i| list[*i].clone()).collect()) };
        let (lock, work, wait) = (of.lock, of.work, shared.strangers().wait(now));
        let work = move |books: &mut Books<'_>| {
            lock(books, &together)?;
            together.iter().map(|one| work(books, one)).collect::<Result<Vec<U>>>()
        };
        match engine.write_within(now, wait, work).await {
            Ok(Some(all)) => usual.iter().zip(all).for_each(|(i, one)| done[*i] = Some(one)),
            Ok(None) => {
                if of.wary {
                    let mut strangers = shared.strangers();
                    usual.iter().for_each(|i| strangers.hold((of.digest)(&list[*i]), now));
                }
                alone = usual;
            }
            Err(StoreError::Broken(_)) => alone = usual,
            Err(why) => return Err(why),
        }
    }
    strange.sort_by_key(|i| (of.digest)(&list[*i]));
    let last = shared.strangers().last_tried(of.kind);
    let first = strange.partition_point(|i| (of.digest)(&list[*i]) <= last);
    strange.rotate_left(first);
    let mut is_away = false;
    for (group, wait, most) in [(alone, ALONE, HELD_AT_MOST), (strange, KNOWN, KNOWN_AT_MOST)] {
        let mut waited = Duration::ZERO;
        for i in group {
            if waited >= most || is_away {
                done[i] = Some((of.held)(&list[i]));
                continue;
            }
            let (lock, work, all) = (of.lock, of.work, list.clone());
            let work = move |books: &mut Books<'_>| {
                lock(books, &all[i..=i])?;
                work(books, &all[i])
            };
            let digest = (of.digest)(&list[i]);
            if wait == KNOWN {
                shared.strangers().tries(of.kind, digest);
            }
            let one = match engine.write_within(now, wait, work).await {
                Ok(Some(one)) => {
                    if of.frees {
                        shared.strangers().free(digest);
                    }
                    one
                }
                Ok(None) => {
                    waited += wait;
                    shared.strangers().hold(digest, now);
                    (of.held)(&list[i])
                }
                Err(why @ StoreError::Broken(_)) => (of.broken)(&list[i], &why),
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) => match of.failed.filter(|_| done.iter().any(Option::is_some)) {
                    // Each of those behind would wait as long for a server that is not there.
                    Some(failed) => {
                        is_away = true;
                        failed(shared, &list[i])
                    }
                    None => return Err(why),
                },
            };
            done[i] = Some(one);
        }
    }
    Ok(done.into_iter().flatten().collect())
}
