//! A member of the consumer group in virtual time: in the place of librdkafka and of the thread that polls it, it feeds
//! owlpost's own Kafka source from a simulated topic, and commits what that source says.
//!
//! Rebalances come between any two messages: partitions are given back with a last commit, or are lost. Commits are not
//! heard, or heard and not answered, or heard after a later one, or refused since somebody newer has the partition.

use std::collections::BTreeMap;
use std::time::Duration;

use owlpost::source::kafka::KafkaSource;
use owlpost::source::kafka::feed::{Fed, Feed, Partition};

use crate::broker::{Broker, Topic, What};
use crate::faults::{INTAKE, slot};
use crate::world::{Shared, World, lock};

const TOPIC: &str = "events";
const COMMIT_EVERY_MS: u64 = 1_000;
/// Long enough for a later commit to be heard before.
const LATE_MS: u64 = 4_000;
const LOOK_EVERY: Duration = Duration::from_millis(500);

type Offsets = BTreeMap<Partition, i64>;

pub struct Member {
    world: Shared,
    feed: Feed,
    me: usize,
    generation: u64,
    /// Of each partition that is assigned: where it reads on, and the end that it has told.
    positions: BTreeMap<usize, (usize, Option<usize>)>,
    next_commit_ms: u64,
    /// On their way: when they arrive, and under which generation they were said.
    late: Vec<(u64, u64, Offsets)>,
}

/// A source and, as a task, what feeds it.
pub fn open(world: &Shared, me: usize) -> KafkaSource {
    let (source, feed) = KafkaSource::fed("zms", "owlpost", 1024 * 1024);
    let member = Member {
        world: world.clone(),
        feed,
        me,
        generation: 0,
        positions: BTreeMap::new(),
        next_commit_ms: 0,
        late: Vec::new(),
    };
    tokio::spawn(member.run());
    source
}

fn partition(number: usize) -> Partition {
    (TOPIC.to_owned(), number as i32)
}

impl Member {
    async fn run(mut self) {
        while !self.feed.is_stopping() {
            slot(&self.world, INTAKE + self.me as u64).await;
            self.turn();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn turn(&mut self) {
        let shared = self.world.clone();
        let mut world = lock(&shared);
        world.perhaps_rebalance(1);
        let mut topic = match &world.broker {
            Broker::Kafka(topic) => topic.clone(),
            Broker::Sqs(_) => unreachable!("a member of a topic's group"),
        };
        if self.generation != topic.generation {
            self.rejoin(&mut world, &mut topic);
        }
        self.commit(&mut world, &mut topic);
        self.fetch(&mut world, &topic);
        world.broker = Broker::Kafka(topic);
    }

    fn rejoin(&mut self, world: &mut World, topic: &mut Topic) {
        let stays = topic.cooperative && topic.generation == self.generation + 1;
        let goes = |at: &usize| !(stays && topic.owner[*at] == self.me);
        let gone: Vec<usize> = self.positions.keys().copied().filter(goes).collect();
        let named: Vec<Partition> = gone.iter().map(|at| partition(*at)).collect();
        if !gone.is_empty() {
            // The group has gone on without this member: it commits nothing more.
            let lost = world.fault("member", 30);
            let last = if lost { Offsets::new() } else { self.feed.last_commit(&named) };
            self.say(world, topic, self.generation, &last);
            self.feed.revoked(&named);
            self.positions.retain(|at, _| !gone.contains(at));
            world.note(format!("member {}: {gone:?} {}", self.me, if lost { "lost" } else { "given back" }));
        }
        self.generation = topic.generation;
        let mine = |at: &usize| topic.owner[*at] == self.me && !self.positions.contains_key(at);
        let new: Vec<usize> = (0..topic.logs.len()).filter(mine).collect();
        for at in &new {
            topic.taken[*at] = topic.generation;
            self.positions.insert(*at, (topic.committed[*at], None));
        }
        let from: Vec<(usize, usize)> = new.iter().map(|at| (*at, topic.committed[*at])).collect();
        world.note(format!("member {}: assigned {from:?}", self.me));
        self.feed.assigned(&new.iter().map(|at| partition(*at)).collect::<Vec<_>>());
    }

    /// The broker's answer is the source's to hear.
    fn say(&self, world: &mut World, topic: &mut Topic, generation: u64, offsets: &Offsets) {
        for (partition, offset) in offsets {
            let (at, offset) = (partition.1 as usize, *offset as usize);
            assert!(offset <= topic.logs[at].len(), "an offset of the log");
            let heard = topic.commit(at, offset, generation);
            world.note(format!("member {}: commit {at} to {offset}{}", self.me, if heard { "" } else { ", refused" }));
            let one = Offsets::from([(partition.clone(), offset as i64)]);
            if heard { self.feed.committed(&one) } else { self.feed.not_committed(&one) }
        }
    }

    fn commit(&mut self, world: &mut World, topic: &mut Topic) {
        let now_ms = world.elapsed().as_millis() as u64;
        let (due, rest) = std::mem::take(&mut self.late).into_iter().partition(|(at_ms, ..)| *at_ms <= now_ms);
        self.late = rest;
        let due: Vec<(u64, u64, Offsets)> = due;
        for (_, generation, offsets) in due {
            self.say(world, topic, generation, &offsets);
        }
        if now_ms < self.next_commit_ms {
            return;
        }
        self.next_commit_ms = now_ms + COMMIT_EVERY_MS;
        let offsets = self.feed.to_commit();
        if offsets.is_empty() {
            return;
        }
        if world.fault("member", 8) {
            world.note(format!("member {}: a commit is not heard", self.me));
            self.feed.not_committed(&offsets);
        } else if world.fault("member", 8) {
            for (partition, offset) in &offsets {
                topic.commit(partition.1 as usize, *offset as usize, self.generation);
            }
            world.note(format!("member {}: the answer to a commit is lost: {offsets:?}", self.me));
            self.feed.not_committed(&offsets);
        } else if world.fault("member", 8) {
            self.late.push((now_ms + LATE_MS, self.generation, offsets));
        } else {
            self.say(world, topic, self.generation, &offsets);
        }
    }

    fn fetch(&mut self, world: &mut World, topic: &Topic) {
        let now_ms = world.elapsed().as_millis() as u64;
        let mut dice = world.dice("member").clone();
        for _ in 0..1 + dice.below(6) {
            let there = |at: usize, from: usize| topic.logs[at].get(from).filter(|r| r.at_ms <= now_ms);
            let ready: Vec<usize> = self
                .positions
                .iter()
                .filter(|(at, (from, _))| there(**at, *from).is_some())
                .map(|(at, _)| *at)
                .collect();
            if ready.is_empty() || !self.feed.has_room() {
                break;
            }
            let at = *dice.pick(&ready);
            let Some((from, _)) = self.positions.get_mut(&at) else { continue };
            let what = topic.logs[at][*from].what;
            if what != What::Marker {
                let (headers, value) = world.on_wire(what);
                let (time_ms, of) = (1_795_000_600_000 + now_ms as i64, partition(at));
                self.feed.message(&Fed { partition: &of, offset: *from as i64, time_ms, headers, value });
                let name = world.name(what);
                world.note(format!("member {}: {at}/{from} {name}", self.me));
            }
            *from += 1;
        }
        for (at, (from, told)) in &mut self.positions {
            let is_end = topic.logs[*at].get(*from).is_none_or(|r| r.at_ms > now_ms);
            if is_end && *told != Some(*from) && dice.chance(50) {
                self.feed.end(&partition(*at), *from as i64);
                *told = Some(*from);
            }
        }
        *world.dice("member") = dice;
    }
}
