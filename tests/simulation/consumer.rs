//! A source by the contract of `Source` alone, over either broker: it knows nothing of how owlpost's own sources keep it,
//! and does everything that the contract lets it do.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use owlpost::model::Receipt;
use owlpost::source::{Ack, Batch, Health, Message, Room, Source, SourceError};
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Topic, What};
use crate::faults::{INTAKE, slot};
use crate::world::{Shared, World, lock};

/// How long a received message stays hidden: shorter than a slow store takes.
pub const VISIBILITY_MS: u64 = 30_000;

/// How often a consumer without messages looks again: somebody else may have lost some.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A consumer's share of a partition.
struct Assigned {
    /// The generation that gave it.
    since: u64,
    position: usize,
    /// Everything before it is acknowledged here, and perhaps not yet committed.
    acked: usize,
    not_before_ms: u64,
}

/// Where a message of a batch came from: partition and offset, or message and handle.
type Place = (usize, u64);

struct Out {
    batch: u64,
    generation: u64,
    places: Vec<Place>,
}

/// A source of either kind.
pub struct Consumer {
    world: Shared,
    me: usize,
    assigned: BTreeMap<usize, Assigned>,
    generation: u64,
    out: Vec<Out>,
    next_batch: u64,
    /// At its end when nothing is left; else it waits for more for ever.
    ends: bool,
}

enum Found {
    Batch(Batch),
    Fault,
    End,
    Nothing,
}

impl Consumer {
    pub fn new(world: Shared, me: usize, ends: bool) -> Consumer {
        Consumer { world, me, assigned: BTreeMap::new(), generation: 0, out: Vec::new(), next_batch: 0, ends }
    }

    fn look(&mut self, room: Room) -> Found {
        let shared = self.world.clone();
        let mut world = lock(&shared);
        if world.fault("source", 3) {
            return Found::Fault;
        }
        world.perhaps_rebalance(3);
        let found = match world.broker {
            Broker::Kafka(_) => self.poll(&mut world, room),
            Broker::Sqs(_) => self.receive(&mut world, room),
        };
        if found.is_empty() {
            let done = self.ends && self.out.is_empty() && world.broker.lag() == 0;
            return if done { Found::End } else { Found::Nothing };
        }
        let (places, whats): (Vec<Place>, Vec<What>) = found.into_iter().unzip();
        let messages = whats.iter().map(|what| message(&world, *what)).collect();
        let names: Vec<String> = whats.iter().map(|what| world.name(*what)).collect();
        world.note(format!("consumer {}: {}", self.me, names.join(" ")));
        self.next_batch += 1;
        let generation = self.generation;
        self.out.push(Out { batch: self.next_batch, generation, places });
        Found::Batch(Batch { messages, ack: Ack { batch: self.next_batch, epoch: generation } })
    }

    /// Commits what may be committed, and reads on: each partition in its order, between them any.
    fn poll(&mut self, world: &mut World, room: Room) -> Vec<(Place, What)> {
        let now_ms = world.elapsed().as_millis() as u64;
        // A commit that the broker never saw is made again with the next one, unless the partition is lost before.
        let heard = !world.fault("source", 10);
        let mut dice = world.dice("source").clone();
        let Broker::Kafka(topic) = &mut world.broker else { return vec![] };
        if self.generation != topic.generation {
            self.rejoin(topic);
        }
        for (partition, mine) in &mut self.assigned {
            mine.pass_markers(topic, *partition, now_ms);
            if heard {
                topic.committed[*partition] = topic.committed[*partition].max(mine.acked);
            }
        }
        let most = (1 + dice.below(6) as usize).min(room.messages);
        let mut found = Vec::new();
        while found.len() < most {
            let ready: Vec<usize> = self
                .assigned
                .iter()
                .filter(|(partition, mine)| {
                    let next = topic.logs[**partition].get(mine.position);
                    mine.not_before_ms <= now_ms && next.is_some_and(|r| r.at_ms <= now_ms)
                })
                .map(|(partition, _)| *partition)
                .collect();
            if ready.is_empty() {
                break;
            }
            let partition = *dice.pick(&ready);
            let mine = self.assigned.get_mut(&partition).unwrap();
            let what = topic.logs[partition][mine.position].what;
            if what != What::Marker {
                found.push(((partition, mine.position as u64), what));
            }
            mine.position += 1;
        }
        *world.dice("source") = dice;
        found
    }

    fn rejoin(&mut self, topic: &Topic) {
        let stays = topic.cooperative && topic.generation == self.generation + 1;
        let me = self.me;
        self.assigned.retain(|partition, _| stays && topic.owner[*partition] == me);
        for partition in (0..topic.logs.len()).filter(|p| topic.owner[*p] == me) {
            let (position, since) = (topic.committed[partition], topic.generation);
            self.assigned.entry(partition).or_insert(Assigned { since, position, acked: position, not_before_ms: 0 });
        }
        self.generation = topic.generation;
    }

    fn receive(&mut self, world: &mut World, room: Room) -> Vec<(Place, What)> {
        let now_ms = world.elapsed().as_millis() as u64;
        let mut dice = world.dice("source").clone();
        let faults = world.faults;
        let Broker::Sqs(queue) = &mut world.broker else { return vec![] };
        let most = (1 + dice.below(10) as usize).min(room.messages);
        let found = queue.receive(now_ms, most, VISIBILITY_MS, &mut dice, faults);
        let found = found.into_iter().map(|(at, handle)| ((at, handle), queue.messages[at].what)).collect();
        *world.dice("source") = dice;
        found
    }

    fn take(&mut self, ack: Ack) -> Out {
        let at = self.out.iter().position(|out| out.batch == ack.batch).expect("settled once, and what was given");
        assert_eq!(at, 0, "batches are settled in their order");
        self.out.remove(at)
    }

    /// Whether what was read of a partition under that generation still counts: it was never lost since.
    fn holds(&mut self, partition: usize, generation: u64) -> Option<&mut Assigned> {
        self.assigned.get_mut(&partition).filter(|mine| mine.since <= generation)
    }
}

impl Assigned {
    /// Behind what is acknowledged, markers wait for nobody.
    fn pass_markers(&mut self, topic: &Topic, partition: usize, now_ms: u64) {
        let is_marker = |at: usize| {
            let next = topic.logs[partition].get(at);
            next.is_some_and(|r| r.what == What::Marker && r.at_ms <= now_ms)
        };
        while is_marker(self.acked) {
            self.acked += 1;
            self.position = self.position.max(self.acked);
        }
    }
}

#[async_trait]
impl Source for Consumer {
    fn name(&self) -> &str {
        "zms"
    }

    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        loop {
            // Each consumer has a moment of its own, so that decoding in threads decides nothing.
            slot(&self.world, INTAKE + self.me as u64).await;
            match self.look(room) {
                Found::Batch(batch) => return Ok(Some(batch)),
                Found::Fault => return Err(SourceError::Unavailable("fault".into())),
                Found::End => return Ok(None),
                Found::Nothing => sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn ack(&mut self, ack: Ack, receipts: &[Vec<Receipt>]) {
        let out = self.take(ack);
        assert_eq!(out.places.len(), receipts.len(), "a receipt list a message");
        assert!(receipts.iter().all(|of_message| of_message.len() == 1), "each message is one event");
        let shared = self.world.clone();
        let mut world = lock(&shared);
        let now_ms = world.elapsed().as_millis() as u64;
        for (at, number) in out.places {
            if let Broker::Kafka(topic) = &world.broker {
                if let Some(mine) = self.holds(at, out.generation) {
                    mine.pass_markers(topic, at, now_ms);
                    // A commit covers everything before it: what was refused must not be passed over.
                    let passed = number as usize > mine.acked;
                    assert!(!passed, "partition {at}: {number} is acknowledged, {} before it is not", mine.acked);
                    mine.acked = mine.acked.max(number as usize + 1);
                }
                continue;
            }
            // One delete of the batch fails for itself.
            let fails = world.fault("source", 5);
            let mut dice = world.dice("source").clone();
            if let Broker::Sqs(queue) = &mut world.broker
                && !fails
            {
                queue.delete(at, number, now_ms, &mut dice);
            }
            *world.dice("source") = dice;
        }
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        let out = self.take(ack);
        let shared = self.world.clone();
        let mut world = lock(&shared);
        let now_ms = world.elapsed().as_millis() as u64;
        let again_ms = now_ms + retry_in.as_millis() as u64;
        let is_topic = matches!(world.broker, Broker::Kafka(_));
        for (at, number) in out.places {
            if is_topic {
                if let Some(mine) = self.holds(at, out.generation) {
                    mine.position = mine.position.min(number as usize);
                    mine.not_before_ms = again_ms;
                }
            } else if let Broker::Sqs(queue) = &mut world.broker {
                queue.hide(at, number, now_ms, again_ms);
            }
        }
    }

    async fn stop(&mut self, _by: Instant) {}

    fn health(&self) -> Health {
        Health::Ready
    }

    fn lag(&self) -> Option<u64> {
        Some(lock(&self.world).broker.lag() as u64)
    }
}

fn message(world: &World, what: What) -> Message {
    let (headers, body) = world.on_wire(what);
    Message {
        position: "simulated".into(),
        broker_id: Some(format!("{what:?}")),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: body.unwrap_or_default().to_vec(),
        time: None,
    }
}
