//! The line in which the batches of one intake loop stand. While one is on its way through the store, the next may write
//! its own events already, and the subjects that are new with them; it goes no further before that one is durable (or
//! committed, where commits become durable in their order), and not at all if that one is not: what is durable is what came
//! first, as if there were one after the other.
//!
//! Who waits here has nothing that the one before it could want: its events have other keys and speak of other topics
//! ([`Names`]), and there it stops. So no two of a line wait for each other, also where the one before is begun anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Result, StoreError};
use crate::model::Topic;

/// The key of an event, as the store makes it.
pub type Key = [u8; 24];

/// How long a transaction waits for the batch before it, while others may wait for its events; then it lets go of them. A
/// batch takes a second. Whoever is waited for in a ring, which the server can't see as this part of it is here, waits no
/// longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a batch writes, whether it is new or not; sorted.
#[derive(Debug, Default)]
pub struct Names {
    /// Of its events.
    pub keys: Vec<Key>,
    /// Of which they speak.
    pub topics: Vec<Topic>,
}

/// How far a batch has come.
#[derive(Clone, Debug)]
enum Step {
    Begun,
    /// All its events are written.
    Entered(Arc<Names>),
    /// It is committed, and is being made durable: what is made durable after it is durable with it.
    Committed,
    Durable,
    Failed,
}

impl Step {
    fn is_over(&self) -> bool {
        matches!(self, Step::Committed | Step::Durable)
    }
}

/// One loop's batches, as far as they are not durable.
#[derive(Debug, Default)]
pub struct Line {
    last: Option<watch::Receiver<Step>>,
}

impl Line {
    /// The place behind all that were given.
    pub fn place(&mut self) -> Place {
        let (step, last) = watch::channel(Step::Begun);
        Place { before: self.last.replace(last), step, let_go: AtomicBool::new(false) }
    }
}

/// A batch's place. Dropped before its end, the batch has failed, and those behind it fail as well.
#[derive(Debug)]
pub struct Place {
    before: Option<watch::Receiver<Step>>,
    step: watch::Sender<Step>,
    /// The one before took too long for a transaction to wait.
    let_go: AtomicBool,
}

impl Place {
    /// Nobody is before it, and nobody behind.
    pub fn alone() -> Place {
        Line::default().place()
    }

    /// Until the batch before is durable, or will be before anything that comes after it.
    ///
    /// # Errors
    /// It failed: what came later may not be taken before it.
    pub async fn turn(&self) -> Result<()> {
        self.until(Step::is_over).await
    }

    /// Whether nothing is before it for which it would have to wait.
    pub(super) fn has_its_turn(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.borrow().is_over())
    }

    /// Until the batch before has written all its events.
    ///
    /// # Errors
    /// It failed.
    pub async fn may_enter(&self) -> Result<()> {
        self.until(|step| matches!(step, Step::Entered(_)) || step.is_over()).await
    }

    async fn until(&self, has_come: impl Fn(&Step) -> bool) -> Result<()> {
        let Some(mut before) = self.before.clone() else { return Ok(()) };
        let failed = || StoreError::Unavailable("the batch before it was not taken".into());
        // Who is gone without a word has failed too, unless all was said before.
        let step =
            before.wait_for(|step| has_come(step) || matches!(step, Step::Failed)).await.map_err(|_| failed())?;
        if has_come(&step) { Ok(()) } else { Err(failed()) }
    }

    /// The same as [`Place::turn`] from a transaction, which has a thread of its own and waits for a bounded time.
    ///
    /// # Errors
    /// The batch before failed; or it takes too long ([`Place::has_let_go`]).
    pub(super) fn turn_here(&self) -> Result<()> {
        if self.has_its_turn() {
            return Ok(());
        }
        match Handle::current().block_on(async { tokio::time::timeout(PATIENCE, self.turn()).await }) {
            Ok(turn) => turn,
            Err(_) => {
                self.let_go.store(true, Ordering::Relaxed);
                Err(StoreError::Unavailable("the batch before it takes long".into()))
            }
        }
    }

    /// Whether the transaction ended because the one before it took long: after its turn, it is begun anew. Says so once.
    pub(super) fn has_let_go(&self) -> bool {
        self.let_go.swap(false, Ordering::Relaxed)
    }

    /// What the batch before writes, while it is not durable.
    pub(super) fn before(&self) -> Option<Arc<Names>> {
        match &*self.before.as_ref()?.borrow() {
            Step::Entered(names) => Some(names.clone()),
            Step::Begun | Step::Committed | Step::Durable | Step::Failed => None,
        }
    }

    /// All events are written: the next batch may write its own. (Once: a transaction that is begun anew has the same.)
    pub(super) fn entered(&self, names: impl FnOnce() -> Names) {
        if self.step.receiver_count() > 0 && matches!(&*self.step.borrow(), Step::Begun) {
            self.step.send_replace(Step::Entered(Arc::new(names())));
        }
    }

    /// It is committed: the next one's turn has come.
    pub(super) fn commits(&self) {
        self.step.send_replace(Step::Committed);
    }

    /// It is durable, or not.
    pub fn ends(&self, durable: bool) {
        self.step.send_replace(if durable { Step::Durable } else { Step::Failed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_turn_comes_with_the_commit_before_and_is_gone_when_that_is_lost() {
        let mut line = Line::default();
        let [first, second, third] = [(); 3].map(|()| line.place());
        assert!(first.has_its_turn() && !second.has_its_turn());
        first.commits();
        second.turn().await.unwrap();
        assert!(second.before().is_none() && !third.has_its_turn());
        // The disk did not take it.
        first.ends(false);
        assert!(second.turn().await.is_err());
        drop(second);
        assert!(third.turn().await.is_err());
    }
}
