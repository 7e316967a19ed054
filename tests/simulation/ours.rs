//! Owlpost's own sources, each with a moment of its own: batches that are decoded in threads must not race.

use std::time::Duration;

use async_trait::async_trait;
use owlpost::model::Receipt;
use owlpost::source::{Ack, Batch, Health, Room, Source, SourceError};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::faults::{INTAKE, slot};
use crate::world::{Shared, lock};
use crate::{member, sqs};

pub struct Ours {
    inner: Box<dyn Source>,
    world: Shared,
    me: usize,
    /// Read, and not handed on: a call that waits may be dropped.
    read: Option<Batch>,
    /// Handed on and not settled.
    out: Vec<Ack>,
}

pub fn open(world: &Shared, me: usize) -> Ours {
    let is_topic = matches!(lock(world).broker, Broker::Kafka(_));
    let inner: Box<dyn Source> = if is_topic { Box::new(member::open(world, me)) } else { Box::new(sqs::open(world)) };
    Ours { inner, world: world.clone(), me, read: None, out: Vec::new() }
}

impl Ours {
    fn settled(&mut self, ack: Ack) {
        assert_eq!(self.out.first(), Some(&ack), "batches are settled in their order");
        self.out.remove(0);
    }
}

#[async_trait]
impl Source for Ours {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        if self.read.is_none() {
            self.read = self.inner.next(room).await?;
        }
        slot(&self.world, INTAKE + self.me as u64).await;
        let batch = self.read.take();
        self.out.extend(batch.as_ref().map(|b| b.ack));
        Ok(batch)
    }

    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]) {
        self.settled(ack);
        self.inner.ack(ack, receipts).await;
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        self.settled(ack);
        self.inner.refuse(ack, retry_in).await;
        // Nobody has seen it: it must not come before what goes back.
        if let Some(read) = self.read.take() {
            self.inner.refuse(read.ack, retry_in).await;
        }
    }

    async fn stop(&mut self, by: Instant) {
        self.inner.stop(by).await;
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn lag(&self) -> Option<u64> {
        self.inner.lag()
    }
}
