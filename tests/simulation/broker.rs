//! What stands at the broker: a Kafka topic with a consumer group, or an SQS queue, by their contracts and nothing more
//! generous. Who reads it: [`crate::consumer`], which is a source by the contract alone, or the sources of owlpost
//! themselves ([`crate::member`], [`crate::sqs`]). Both brokers have producers that send twice and send nonsense, and
//! operators who rewind the topic or redrive the queue.

use std::collections::BTreeSet;

use crate::events::{Dice, Fact};

#[derive(Clone)]
pub enum Broker {
    Kafka(Topic),
    Sqs(Queue),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Fact(usize),
    /// No event: a dead letter.
    Poison(usize),
    Tombstone,
    /// The end of a transaction takes an offset and is no message.
    Marker,
}

impl What {
    /// Whether something is to be kept of it.
    pub fn is_owed(self) -> bool {
        matches!(self, What::Fact(_) | What::Poison(_))
    }
}

/// A message as it was produced: when, and what.
#[derive(Clone, Copy)]
pub struct Record {
    pub at_ms: u64,
    pub what: What,
}

/// Kafka: order within a partition alone; a commit is an offset, and covers everything before it; a rebalance may come at
/// any moment, the new owner reads again from what was committed, and what the old one says afterwards is not heard.
#[derive(Clone)]
pub struct Topic {
    pub logs: Vec<Vec<Record>>,
    pub committed: Vec<usize>,
    /// The consumer of each partition.
    pub owner: Vec<usize>,
    /// Rises with every rebalance.
    pub generation: u64,
    /// The generation under which its owner began: commits of older members are refused.
    pub taken: Vec<u64>,
    members: usize,
    /// Partitions that stay with their consumer over a rebalance keep their positions.
    pub cooperative: bool,
}

/// SQS: a message that was handed out comes again when its visibility ends, whoever holds it. Of a FIFO queue the order
/// within a group, of which nothing is handed out while something of it is in flight; else none.
#[derive(Clone)]
pub struct Queue {
    pub messages: Vec<Hidden>,
    pub is_fifo: bool,
    /// What was received so often goes to the dead-letter queue instead. 0: nothing does.
    max_receives: u64,
}

#[derive(Clone)]
pub struct Hidden {
    pub what: What,
    pub at_ms: u64,
    pub group: usize,
    /// It can be received from then on.
    visible_ms: u64,
    /// Of the last receipt; older handles are over.
    handle: u64,
    pub receives: u64,
    deleted: bool,
    /// In the dead-letter queue.
    buried: bool,
    /// Was there once: its group's order is the operator's by now.
    was_buried: bool,
}

/// What a server says to a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Done,
    Over,
}

impl Broker {
    pub fn new(seed: u64, facts: &[Fact], poison: usize) -> Broker {
        let mut dice = Dice::new(seed, "broker");
        let mut records = Vec::new();
        for (fact, f) in facts.iter().enumerate() {
            let mut at_ms = f.arrives_ms;
            for _ in 0..f.copies {
                records.push(Record { at_ms, what: What::Fact(fact) });
                at_ms += dice.below(1_200_000);
            }
        }
        let span_ms = facts.iter().map(|f| f.arrives_ms).max().unwrap_or(1);
        for n in 0..poison {
            for _ in 0..1 + dice.below(3) {
                records.push(Record { at_ms: dice.below(span_ms), what: What::Poison(n) });
            }
        }
        let is_queue = dice.chance(45);
        for _ in 0..if is_queue { 0 } else { dice.below(4) } {
            records.push(Record { at_ms: dice.below(span_ms), what: What::Tombstone });
        }
        if dice.chance(50) {
            // All in a minute: several batches are under way.
            records.iter_mut().for_each(|r| r.at_ms /= 100);
        }
        records.sort_by_key(|r| (r.at_ms, r.what));
        if is_queue {
            return Broker::Sqs(Queue::new(records, &mut dice));
        }
        Broker::Kafka(Topic::new(records, &mut dice))
    }

    /// In the trace.
    pub fn kind(&self) -> &'static str {
        match self {
            Broker::Kafka(topic) if topic.cooperative => "a topic, shared out cooperatively",
            Broker::Kafka(_) => "a topic",
            Broker::Sqs(queue) if queue.is_fifo => "a queue with groups",
            Broker::Sqs(_) => "a queue",
        }
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
                // Positions are forgotten also where partitions stay, and nobody's commit from before counts.
                topic.generation += 1;
                topic.taken = vec![topic.generation; topic.logs.len()];
            }
            Broker::Sqs(queue) => {
                for message in queue.messages.iter_mut().filter(|m| m.deleted) {
                    if dice.chance(50) {
                        (message.deleted, message.visible_ms) = (false, now_ms);
                    }
                }
                queue.redrive(now_ms);
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

    /// Whether everything that had to come before it is kept, wherever it is one of the copies of: a partition and a group
    /// come in their order.
    pub fn is_in_order(&self, what: What, is_kept: impl Fn(What) -> bool) -> bool {
        match self {
            Broker::Kafka(topic) => topic.logs.iter().any(|log| {
                let mut kept = log.iter().take_while(|r| r.what == what || !r.what.is_owed() || is_kept(r.what));
                kept.any(|r| r.what == what)
            }),
            Broker::Sqs(queue) if queue.is_fifo => {
                let copies = queue.messages.iter().enumerate().filter(|(_, m)| m.what == what);
                copies.into_iter().any(|(at, copy)| {
                    let before = queue.messages[..at].iter().filter(|m| m.group == copy.group && m.what.is_owed());
                    copy.was_buried || before.into_iter().all(|m| m.was_buried || is_kept(m.what))
                })
            }
            Broker::Sqs(_) => true,
        }
    }
}

impl Topic {
    fn new(records: Vec<Record>, dice: &mut Dice) -> Topic {
        let partitions = 1 + dice.below(4) as usize;
        let transactions = dice.chance(50);
        let mut logs = vec![Vec::new(); partitions];
        for record in records {
            // Without a key: two copies may well stand in two partitions.
            let log = &mut logs[dice.below(partitions as u64) as usize];
            log.push(record);
            if transactions && dice.chance(30) {
                log.push(Record { what: What::Marker, ..record });
            }
        }
        Topic {
            committed: vec![0; partitions],
            owner: vec![0; partitions],
            taken: vec![0; partitions],
            logs,
            generation: 0,
            members: 1,
            cooperative: dice.chance(50),
        }
    }

    pub fn rebalance(&mut self, dice: &mut Dice) {
        self.generation += 1;
        for owner in &mut self.owner {
            *owner = dice.below(self.members as u64) as usize;
        }
    }

    /// A member of that generation says so. Refused once somebody newer has begun with the partition.
    pub fn commit(&mut self, partition: usize, offset: usize, generation: u64) -> bool {
        let counts = self.taken[partition] <= generation;
        if counts {
            self.committed[partition] = offset;
        }
        counts
    }
}

impl Queue {
    fn new(records: Vec<Record>, dice: &mut Dice) -> Queue {
        let (is_fifo, max_receives) = (dice.chance(40), if dice.chance(50) { 3 + dice.below(5) } else { 0 });
        let hidden = |r: Record| Hidden {
            what: r.what,
            at_ms: r.at_ms,
            group: dice.below(3) as usize,
            visible_ms: r.at_ms,
            handle: 0,
            receives: 0,
            deleted: false,
            buried: false,
            was_buried: false,
        };
        Queue { messages: records.into_iter().map(hidden).collect(), is_fifo, max_receives }
    }

    /// Everything of the dead-letter queue comes again.
    pub fn redrive(&mut self, now_ms: u64) {
        for message in self.messages.iter_mut().filter(|m| m.buried) {
            (message.buried, message.receives, message.visible_ms) = (false, 0, now_ms);
        }
    }

    /// An operator takes the dead-letter queue away.
    pub fn never_bury(&mut self) {
        self.max_receives = 0;
    }

    /// `most` messages at most, hidden for so long: places and handles.
    pub fn receive(
        &mut self,
        now_ms: u64,
        most: usize,
        hide_ms: u64,
        dice: &mut Dice,
        faults: bool,
    ) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        let in_flight = |m: &Hidden| m.at_ms <= now_ms && m.visible_ms > now_ms && !m.deleted && !m.buried;
        let busy: BTreeSet<usize> = self.messages.iter().filter(|m| in_flight(m)).map(|m| m.group).collect();
        let mut ready: Vec<usize> = (0..self.messages.len())
            .filter(|at| {
                let m = &self.messages[*at];
                let is_visible = !m.deleted && !m.buried && m.at_ms <= now_ms && m.visible_ms <= now_ms;
                is_visible && !(self.is_fifo && busy.contains(&m.group))
            })
            .collect();
        while !ready.is_empty() && found.len() < most {
            let mut at = ready[dice.below(ready.len() as u64) as usize];
            if self.is_fifo {
                // The first of its group.
                at = *ready.iter().find(|other| self.messages[**other].group == self.messages[at].group).unwrap();
            }
            ready.retain(|other| *other != at);
            let message = &mut self.messages[at];
            if faults && self.max_receives > 0 && message.receives >= self.max_receives {
                (message.buried, message.was_buried) = (true, true);
                continue;
            }
            message.handle += 1;
            message.receives += 1;
            // At least once: now and then a server forgets that it has handed a message out.
            if self.is_fifo || !(faults && dice.chance(3)) {
                message.visible_ms = now_ms + hide_ms;
            }
            found.push((at, message.handle));
        }
        found
    }

    /// A handle that is over may work or not, and of a standard queue nobody says so.
    pub fn delete(&mut self, at: usize, handle: u64, now_ms: u64, dice: &mut Dice) -> Said {
        let is_fifo = self.is_fifo;
        let message = &mut self.messages[at];
        let is_mine = message.handle == handle && (!is_fifo || message.visible_ms > now_ms);
        if is_mine || (!is_fifo && dice.chance(50)) {
            message.deleted = true;
        }
        if is_mine || !is_fifo { Said::Done } else { Said::Over }
    }

    pub fn hide(&mut self, at: usize, handle: u64, now_ms: u64, until_ms: u64) -> Said {
        let message = &mut self.messages[at];
        if message.deleted || message.handle != handle || message.visible_ms <= now_ms {
            return Said::Over;
        }
        message.visible_ms = until_ms;
        Said::Done
    }
}
