//! The store's intake for every [`Engine`]: batches alone, and batches in a line.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::calls::Engine;
use super::accept;
use crate::model::{Entry, Receipt, Time};
use crate::store::{BATCH_MESSAGES, Intake, Place, Result};

#[async_trait]
impl<E: Engine> Intake for E {
    async fn accept(&self, now: Time, entries: Arc<Vec<Entry>>) -> Result<Vec<Receipt>> {
        self.take_in(now, move |books| accept(books, &entries, &Place::alone()), || {}).await
    }

    async fn accept_in_line(&self, now: Time, entries: Arc<Vec<Entry>>, place: Place) -> Result<Vec<Receipt>> {
        let place = Arc::new(place);
        let taken = take_in_turn(self, now, entries, &place).await;
        place.ends(taken.is_ok());
        taken
    }

    /// Where there is one writer, one batch is made durable while the next is written.
    fn works_ahead(&self) -> bool {
        true
    }

    /// A server's answer costs more than a page, and each mailbox of a batch is asked for and written once: twice as many
    /// events cost it a fifth less each. What SQLite's cache takes, this worker has for them.
    fn batch_messages(&self) -> usize {
        if self.works_side_by_side() { 2 * BATCH_MESSAGES } else { BATCH_MESSAGES }
    }
}

async fn take_in_turn<E: Engine>(
    engine: &E,
    now: Time,
    entries: Arc<Vec<Entry>>,
    place: &Arc<Place>,
) -> Result<Vec<Receipt>> {
    let ahead = if engine.works_side_by_side() && !place.has_its_turn() { engine.shared().ahead() } else { None };
    match ahead {
        Some(_) => place.may_enter().await?,
        None => place.turn().await?,
    }
    let take = || {
        let (entries, of, committed) = (entries.clone(), place.clone(), place.clone());
        engine.take_in(now, move |books| accept(books, &entries, &of), move || committed.commits())
    };
    let taken = take().await;
    if taken.is_ok() || !place.has_let_go() {
        return taken;
    }
    place.turn().await?;
    take().await
}
