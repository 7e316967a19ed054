//! Two brokers by their contracts, and nothing more generous: a Kafka topic with a consumer group, and an SQS queue.
//!
//! Kafka: order within a partition alone; a commit is an offset, and covers everything before it; a rebalance may come at
//! any moment, the new owner reads again from what was committed, and what the old owner acknowledges afterwards is not
//! heard. SQS: no order; a message that was handed out comes again when its visibility ends, whoever holds it; each
//! delete may fail for itself; an old receipt handle may work or not. Both: producers that send twice, operators who
//! rewind the topic or redrive the queue.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use owlpost::model::Receipt;
use owlpost::source::{Ack, Batch, Health, Message, Room, Source, SourceError};
use tokio::time::{Instant, sleep};

use crate::events::{Dice, Fact};
use crate::faults::{INTAKE, slot};
use crate::world::{Shared, World, lock};

/// How long a received message stays hidden: shorter than a slow store takes.
const VISIBILITY_MS: u64 = 30_000;

/// How often a consumer without messages looks again: somebody else may have lost some.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub enum Broker {
    Kafka(Topic),
    Sqs(Queue),
}

/// A message as it was produced: when, and what.
#[derive(Clone, Copy)]
struct Record {
    at_ms: u64,
    fact: usize,
}

#[derive(Clone)]
pub struct Topic {
    logs: Vec<Vec<Record>>,
    committed: Vec<usize>,
    /// The consumer of each partition.
    owner: Vec<usize>,
    /// Rises with every rebalance.
    generation: u64,
    members: usize,
    /// Partitions that stay with their consumer over a rebalance keep their positions.
    cooperative: bool,
}

#[derive(Clone)]
pub struct Queue {
    messages: Vec<Hidden>,
}

#[derive(Clone)]
struct Hidden {
    fact: usize,
    /// It can be received from then on.
    visible_ms: u64,
    /// Of the last receipt; older handles are expired.
    handle: u64,
    deleted: bool,
}

impl Broker {
    pub fn new(seed: u64, facts: &[Fact]) -> Broker {
        let mut dice = Dice::new(seed, "broker");
        let mut records = Vec::new();
        for (fact, f) in facts.iter().enumerate() {
            let mut at_ms = f.arrives_ms;
            for _ in 0..f.copies {
                records.push(Record { at_ms, fact });
                at_ms += dice.below(1_200_000);
            }
        }
        records.sort_by_key(|r| (r.at_ms, r.fact));
        if dice.chance(40) {
            let message = |r: Record| Hidden { fact: r.fact, visible_ms: r.at_ms, handle: 0, deleted: false };
            return Broker::Sqs(Queue { messages: records.into_iter().map(message).collect() });
        }
        let partitions = 1 + dice.below(4) as usize;
        let mut logs = vec![Vec::new(); partitions];
        // Without a key: two copies may well stand in two partitions.
        records.into_iter().for_each(|r| logs[dice.below(partitions as u64) as usize].push(r));
        Broker::Kafka(Topic {
            committed: vec![0; partitions],
            owner: vec![0; partitions],
            logs,
            generation: 0,
            members: 1,
            cooperative: dice.chance(50),
        })
    }

    /// A new worker with so many consumers; nobody else is there.
    pub fn join(&mut self, members: usize, dice: &mut Dice) {
        if let Broker::Kafka(topic) = self {
            topic.members = members;
            topic.rebalance(dice);
        }
    }

    /// An operator wants everything once more, or a part of it.
    pub fn rewind(&mut self, now_ms: u64, dice: &mut Dice) {
        match self {
            Broker::Kafka(topic) => {
                for committed in &mut topic.committed {
                    *committed = dice.below(*committed as u64 + 1) as usize;
                }
                topic.rebalance(dice);
                // Positions are forgotten also where partitions stay.
                topic.generation += 1;
            }
            Broker::Sqs(queue) => {
                for message in queue.messages.iter_mut().filter(|m| m.deleted) {
                    if dice.chance(50) {
                        (message.deleted, message.visible_ms) = (false, now_ms);
                    }
                }
            }
        }
    }

    /// What is produced, sooner or later, and not acknowledged.
    pub fn lag(&self) -> usize {
        match self {
            Broker::Kafka(topic) => topic.logs.iter().zip(&topic.committed).map(|(log, done)| log.len() - done).sum(),
            Broker::Sqs(queue) => queue.messages.iter().filter(|m| !m.deleted).count(),
        }
    }
}

impl Topic {
    fn rebalance(&mut self, dice: &mut Dice) {
        self.generation += 1;
        for owner in &mut self.owner {
            *owner = dice.below(self.members as u64) as usize;
        }
    }
}

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
        if world.fault("rebalance", 3) {
            let mut dice = world.dice("rebalance").clone();
            if let Broker::Kafka(topic) = &mut world.broker {
                topic.rebalance(&mut dice);
            }
            *world.dice("rebalance") = dice;
            world.note("the group is rebalanced");
        }
        let found = match world.broker {
            Broker::Kafka(_) => self.poll(&mut world, room),
            Broker::Sqs(_) => self.receive(&mut world, room),
        };
        if found.is_empty() {
            let done = self.ends && self.out.is_empty() && world.broker.lag() == 0;
            return if done { Found::End } else { Found::Nothing };
        }
        let (places, facts): (Vec<Place>, Vec<usize>) = found.into_iter().unzip();
        let messages = facts.iter().map(|fact| message(&world.facts[*fact].json)).collect();
        let ids: Vec<String> = facts.iter().map(|fact| world.facts[*fact].id.clone()).collect();
        world.note(format!("consumer {}: {}", self.me, ids.join(" ")));
        self.next_batch += 1;
        let generation = self.generation;
        self.out.push(Out { batch: self.next_batch, generation, places });
        Found::Batch(Batch { messages, ack: Ack { batch: self.next_batch, epoch: generation } })
    }

    /// Commits what may be committed, and reads on: each partition in its order, between them any.
    fn poll(&mut self, world: &mut World, room: Room) -> Vec<(Place, usize)> {
        let now_ms = world.elapsed().as_millis() as u64;
        // A commit that the broker never saw is made again with the next one, unless the partition is lost before.
        let heard = !world.fault("source", 10);
        let mut dice = world.dice("source").clone();
        let Broker::Kafka(topic) = &mut world.broker else { return vec![] };
        if self.generation != topic.generation {
            self.rejoin(topic);
        }
        for (partition, mine) in self.assigned.iter().filter(|_| heard) {
            topic.committed[*partition] = topic.committed[*partition].max(mine.acked);
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
            found.push(((partition, mine.position as u64), topic.logs[partition][mine.position].fact));
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

    fn receive(&mut self, world: &mut World, room: Room) -> Vec<(Place, usize)> {
        let now_ms = world.elapsed().as_millis() as u64;
        let mut dice = world.dice("source").clone();
        let faults = world.faults;
        let Broker::Sqs(queue) = &mut world.broker else { return vec![] };
        let most = (1 + dice.below(10) as usize).min(room.messages);
        let visible = |m: &Hidden| !m.deleted && m.visible_ms <= now_ms;
        let mut ready: Vec<usize> = (0..queue.messages.len()).filter(|i| visible(&queue.messages[*i])).collect();
        let mut found = Vec::new();
        while !ready.is_empty() && found.len() < most {
            let i = ready.remove(dice.below(ready.len() as u64) as usize);
            let message = &mut queue.messages[i];
            message.handle += 1;
            // At least once: now and then a server forgets that it has handed a message out.
            if !(faults && dice.chance(3)) {
                message.visible_ms = now_ms + VISIBILITY_MS;
            }
            found.push(((i, message.handle), message.fact));
        }
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
        let is_topic = matches!(world.broker, Broker::Kafka(_));
        for (at, number) in out.places {
            if is_topic {
                if let Some(mine) = self.holds(at, out.generation) {
                    // A commit covers everything before it: what was refused must not be passed over.
                    let passed = number as usize > mine.acked;
                    assert!(!passed, "partition {at}: {number} is acknowledged, {} before it is not", mine.acked);
                    mine.acked = mine.acked.max(number as usize + 1);
                }
                continue;
            }
            // One delete of the batch fails for itself.
            let fails = world.fault("source", 5);
            let late_works = world.dice("source").chance(50);
            if let Broker::Sqs(queue) = &mut world.broker {
                let message = &mut queue.messages[at];
                message.deleted |= !fails && (message.handle == number || late_works);
            }
        }
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        let out = self.take(ack);
        let shared = self.world.clone();
        let mut world = lock(&shared);
        let again_ms = (world.elapsed() + retry_in).as_millis() as u64;
        let is_topic = matches!(world.broker, Broker::Kafka(_));
        for (at, number) in out.places {
            if is_topic {
                if let Some(mine) = self.holds(at, out.generation) {
                    mine.position = mine.position.min(number as usize);
                    mine.not_before_ms = again_ms;
                }
            } else if let Broker::Sqs(queue) = &mut world.broker {
                let message = &mut queue.messages[at];
                if message.handle == number {
                    message.visible_ms = again_ms;
                }
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

fn message(json: &str) -> Message {
    Message {
        position: "simulated".into(),
        broker_id: None,
        headers: vec![("content-type".into(), "application/cloudevents+json".into())],
        body: json.as_bytes().to_vec(),
        time: None,
    }
}
