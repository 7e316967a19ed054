//! What the store has been given and has not answered yet: pieces of batches, in their order.
//!
//! One piece is under way, or two: a store that works ahead writes the events of the second while it does the rest of the
//! first, or makes the first durable while it writes the second, and takes the second only if it took the first
//! (`store::line`). So what fails goes back with all that came after it, and events without a time keep the order in which
//! they were stamped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pipeline::{Piece, Pipeline, Prepared};
use super::receipts::{self, Told};
use super::suspects::{self, Suspect, Suspects};
use crate::metrics;
use crate::model::Receipt;
use crate::source::{Ack, Source};
use crate::store::{Intake, Line, StoreError};

/// Of smaller batches each waits for the one before it: where little comes in there is nothing to be won, and what comes
/// while it waits makes the next batch larger, which is cheaper.
const WORTH_IT: usize = 500;

/// Batches in memory at most, decoded: two that the store works at, or one, and one behind it.
const BATCHES: usize = 2;

/// Pieces under way at most: a third would wait for the second before it may write a thing.
const AT_ONCE: usize = 2;

/// What the store gave, and when: the loop may be busy decoding when it comes.
pub(super) type Taken = (Result<Vec<Receipt>, StoreError>, Instant);

struct UnderWay {
    piece: Piece,
    handle: JoinHandle<Taken>,
    began: Instant,
}

/// A batch that is not settled.
struct Open {
    batch: Prepared,
    told: Told,
    /// Its pieces that the store has ...
    out: usize,
    /// ... and whether it was ever asked.
    asked: bool,
    /// Events of it that the store could not take. They are suspected until it is acknowledged: it may still come again.
    refused: Vec<Suspect>,
}

impl Open {
    fn is_done(&self) -> bool {
        self.out == 0 && self.batch.is_done()
    }
}

/// A batch that the store was not given yet.
pub(super) enum Next {
    Ready(Box<Prepared>),
    /// The directory gave no answer: it goes back, in its turn.
    Back(Ack),
}

impl Next {
    fn ack(&self) -> Ack {
        match self {
            Next::Ready(batch) => batch.ack,
            Next::Back(ack) => *ack,
        }
    }
}

pub(super) struct Flight {
    store: Arc<dyn Intake>,
    line: Line,
    /// One of these the store can never take.
    suspects: Suspects,
    pieces: VecDeque<UnderWay>,
    batches: VecDeque<Open>,
    /// Behind them.
    next: Option<Next>,
    /// The last answer came then.
    answered: Instant,
}

impl Flight {
    pub fn new(store: Arc<dyn Intake>) -> Flight {
        let (pieces, batches) = (VecDeque::new(), VecDeque::new());
        Flight {
            store,
            line: Line::default(),
            suspects: Suspects::default(),
            pieces,
            batches,
            next: None,
            answered: Instant::now(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.next.is_none()
    }

    /// Whether the store is to answer.
    pub fn is_under_way(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Whether there is a place for one more batch.
    pub fn has_place(&self) -> bool {
        self.next.is_none() && self.batches.len() < BATCHES
    }

    pub fn add(&mut self, next: Next) {
        self.next = Some(next);
    }

    /// Gives the store what it may have now, acknowledges what is durable, and gives back what is to go back in its turn,
    /// for `wait`. Whether a batch of which the store was asked was acknowledged.
    pub async fn advance(
        &mut self,
        source: &mut dyn Source,
        pipeline: &Pipeline,
        items: usize,
        wait: Duration,
    ) -> bool {
        self.fill(pipeline, items).await;
        let asked = self.settle(source, pipeline).await;
        if self.batches.is_empty()
            && let Some(Next::Back(ack)) = self.next.take_if(|next| matches!(next, Next::Back(_)))
        {
            source.refuse(ack, wait).await;
        }
        asked
    }

    fn has_room(&self, messages: usize, items: usize) -> bool {
        match self.pieces.len() {
            0 => true,
            n => n < AT_ONCE && messages.min(items) >= WORTH_IT && self.store.works_ahead(),
        }
    }

    /// Gives the store what there is room for: of the last batch, then of the next.
    pub async fn fill(&mut self, pipeline: &Pipeline, items: usize) {
        let before = self.pieces.len();
        self.give_all(pipeline, items);
        let given = self.pieces.iter().skip(before).map(|one| one.piece.entries.len()).sum::<usize>();
        if given >= WORTH_IT {
            // A task that was just spawned waits for this one to pause: nobody else takes it, and what comes next, a batch
            // to be read or thrown away, takes some ten milliseconds in which the store would do nothing.
            tokio::task::yield_now().await;
        }
    }

    fn give_all(&mut self, pipeline: &Pipeline, items: usize) {
        loop {
            let rest = self.batches.back().map(|last| &last.batch).filter(|batch| !batch.is_done());
            let batch = match (rest, &self.next) {
                (Some(batch), _) => batch,
                (None, Some(Next::Ready(batch))) => batch,
                (None, _) => return,
            };
            if !self.has_room(batch.receipts().len(), items) {
                return;
            }
            let alone = self.pieces.iter().any(|one| one.piece.alone.is_some());
            if alone || (!self.pieces.is_empty() && batch.next_is_suspected(&self.suspects)) {
                return;
            }
            if rest.is_none()
                && let Some(Next::Ready(batch)) = self.next.take()
            {
                self.batches.push_back(Open {
                    batch: *batch,
                    told: Told::default(),
                    out: 0,
                    asked: false,
                    refused: vec![],
                });
            }
            if let Some(last) = self.batches.back_mut()
                && let Some(piece) = last.batch.next_piece(pipeline, items, &self.suspects)
            {
                (last.out, last.asked) = (last.out + 1, true);
                self.give(piece, pipeline);
            }
        }
    }

    fn give(&mut self, piece: Piece, pipeline: &Pipeline) {
        let (store, entries, now) = (self.store.clone(), piece.entries.clone(), pipeline.clock.now());
        let place = self.line.place();
        let handle = tokio::spawn(async move {
            let taken = store.accept_in_line(now, entries, place).await;
            (taken, Instant::now())
        });
        self.pieces.push_back(UnderWay { piece, handle, began: Instant::now() });
    }

    /// The answer about the first piece. Cancel-safe; nothing is under way: never.
    pub async fn answer(&mut self) -> Taken {
        match self.pieces.front_mut() {
            Some(first) => match (&mut first.handle).await {
                Ok(taken) => taken,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => (Err(StoreError::Unavailable("the process is stopping".into())), Instant::now()),
            },
            None => std::future::pending().await,
        }
    }

    /// The first piece is durable, and no longer under way. Gives it with how long it held up the store: since it began, or
    /// since the one before it was done.
    pub fn landed(&mut self, at: Instant) -> Option<(Piece, Duration)> {
        let UnderWay { piece, began, .. } = self.pieces.pop_front()?;
        let took = at.duration_since(began.max(self.answered));
        self.answered = at;
        Some((piece, took))
    }

    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// The store could not take the first piece, and never can: if that is one event alone, it is refused, and given to the store
    /// as that. `false`: the piece is larger and goes back, and each of its events comes alone the next time.
    pub fn refuses_first(&mut self, pipeline: &Pipeline, why: &str) -> bool {
        let Some(UnderWay { mut piece, .. }) = self.pieces.pop_front() else { return false };
        let of = self.batches.iter().find(|open| open.out > 0);
        let refused = self.pieces.is_empty() && of.is_some_and(|open| open.batch.refuse(pipeline, &mut piece, why));
        if refused {
            self.suspects.add(piece.alone.into_iter());
            self.line = Line::default();
            self.give(piece, pipeline);
        } else {
            self.suspects.add(piece.entries.iter().map(suspects::entry));
        }
        refused
    }

    /// What it brought is told and counted.
    pub fn keep(&mut self, pipeline: &Pipeline, piece: &Piece, receipts: &[Receipt], took: Duration) {
        metrics::accepted_batch(took);
        let took_ms = took.as_millis() as u64;
        tracing::debug!(source = pipeline.source, entries = receipts.len(), took_ms, "batch committed");
        receipts::lag(pipeline, &piece.entries, receipts);
        receipts::count(&pipeline.source, receipts.iter());
        // Pieces come in the order of their batches.
        let Some(open) = self.batches.iter_mut().find(|open| open.out > 0) else { return };
        match &piece.alone {
            Some(suspect) if piece.is_refused => open.refused.push(*suspect),
            Some(suspect) => self.suspects.clear(suspect),
            None => {}
        }
        open.told.note(piece, receipts);
        open.batch.committed(piece, receipts);
        open.out -= 1;
    }

    /// Acknowledges what is durable. Whether it was a batch of which the store was asked.
    pub async fn settle(&mut self, source: &mut dyn Source, pipeline: &Pipeline) -> bool {
        let mut asked = false;
        while let Some(done) = self.batches.pop_front_if(|first| first.is_done()) {
            receipts::count(&pipeline.source, done.batch.known.iter());
            done.told.log(&pipeline.source);
            done.refused.iter().for_each(|suspect| self.suspects.clear(suspect));
            source.ack(done.batch.ack, done.batch.receipts()).await;
            asked |= done.asked;
        }
        asked
    }

    /// What is not durable, in its order: it goes back. What the store still has of it fails with the first.
    pub fn back(&mut self) -> Vec<Ack> {
        self.pieces.clear();
        self.line = Line::default();
        self.batches.drain(..).map(|open| open.batch.ack).chain(self.next.take().map(|next| next.ack())).collect()
    }
}
