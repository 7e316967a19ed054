//! What is true whatever owlpost believes: the mail server's record, who is in the role, what was handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use owlpost::model::{AttemptId, Time};
use tokio::time::Instant;

use crate::broker::{Broker, What};
use crate::events::{BASE_S, Dice, Fact, PEOPLE, poison, traffic};

/// Source, id, recipient, route.
pub type ItemKey = (String, String, String, String);

/// What the mail server knows of an attempt.
#[derive(Clone, Debug)]
pub struct Call {
    /// Virtual time over all lives.
    pub at: Duration,
    pub attempt: AttemptId,
    pub sent: bool,
    pub bounced: bool,
}

/// What the account may send, in recipients a second.
pub const RATE: f64 = 2.0;

pub struct World {
    pub seed: u64,
    /// What it may send in 24 hours, and what another application sends of that.
    pub per_day: u64,
    pub external: u64,
    /// How often the worker's clock has stepped: each step may admit a call early.
    pub steps: u64,
    pub facts: Vec<Fact>,
    pub poison: Vec<String>,
    pub broker: Broker,
    /// Owlpost's own sources read it, and not one by the contract alone.
    pub by_our_sources: bool,
    /// How many of a hundred batches the store does not take.
    pub refusals: u64,
    /// SQS is not reached before.
    pub sqs_away_until_ms: u64,
    /// The right to hide messages for longer is missing.
    pub may_not_hide: bool,
    pub calls: Vec<Call>,
    /// What each attempt lists, as begin gave it.
    pub begun: BTreeMap<(i64, u32), (Vec<ItemKey>, String)>,
    /// People in the role now.
    pub role: BTreeSet<&'static str>,
    pub suppressed: BTreeSet<String>,
    pub paused: BTreeSet<String>,
    /// Items that were accepted for somebody.
    pub owed: BTreeSet<ItemKey>,
    /// How often an operator sent an item again.
    pub replays: BTreeMap<ItemKey, u64>,
    /// Items of a replay that nobody has heard the end of: a crash may have cut off the answer, not the effect.
    pub replaying: BTreeSet<ItemKey>,
    /// States at the last look, to see every move.
    pub states: BTreeMap<ItemKey, i64>,
    /// Attempts whose answer the store has taken as accepted.
    pub known_sent: BTreeSet<(i64, u32)>,
    /// Attempts of the batch of answers that was just taken.
    pub just_learned: BTreeSet<(i64, u32)>,
    /// How far the worker's clock is off, in microseconds.
    pub off_us: Arc<AtomicI64>,
    pub faults: bool,
    pub trace: Vec<String>,
    pub verbose: bool,
    dice: BTreeMap<&'static str, Dice>,
    /// Virtual time that earlier lives took.
    pub lived: Duration,
    began: Option<Instant>,
}

pub type Shared = Arc<Mutex<World>>;

pub fn new(seed: u64, verbose: bool) -> Shared {
    let facts = traffic(seed);
    let poison = poison(seed);
    let broker = Broker::new(seed, &facts, poison.len());
    Arc::new(Mutex::new(World {
        seed,
        // Seldom so small that it runs out: then the worker looks once a second for hours.
        per_day: if Dice::new(seed, "per day").chance(10) { 4 + seed % 16 } else { 500 },
        external: Dice::new(seed, "external").below(8),
        steps: 0,
        facts,
        poison,
        broker,
        refusals: if Dice::new(seed, "refusals").chance(50) { 30 } else { 4 },
        sqs_away_until_ms: 0,
        may_not_hide: Dice::new(seed, "rights").chance(25),
        by_our_sources: Dice::new(seed, "sources").chance(60),
        calls: Vec::new(),
        begun: BTreeMap::new(),
        role: PEOPLE[..2].iter().copied().collect(),
        suppressed: BTreeSet::new(),
        paused: BTreeSet::new(),
        owed: BTreeSet::new(),
        replays: BTreeMap::new(),
        replaying: BTreeSet::new(),
        states: BTreeMap::new(),
        known_sent: BTreeSet::new(),
        just_learned: BTreeSet::new(),
        off_us: Arc::default(),
        faults: true,
        trace: Vec::new(),
        verbose,
        dice: BTreeMap::new(),
        lived: Duration::ZERO,
        began: None,
    }))
}

/// The lock, also after a check has failed elsewhere: the first failure is the one to see.
pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    /// Each stream of chances has dice of its own: what one part draws moves no other.
    pub fn dice(&mut self, stream: &'static str) -> &mut Dice {
        let seed = self.seed;
        self.dice.entry(stream).or_insert_with(|| Dice::new(seed, stream))
    }

    /// A fault of this kind happens now.
    pub fn fault(&mut self, stream: &'static str, percent: u64) -> bool {
        self.faults && self.dice(stream).chance(percent)
    }

    pub fn start_life(&mut self) {
        self.began = Some(Instant::now());
    }

    pub fn end_life(&mut self) {
        self.lived += self.began.take().map_or(Duration::ZERO, |b| b.elapsed());
    }

    /// Everything is well again, and nothing is left in a dead-letter queue.
    pub fn last_life(&mut self) {
        self.faults = false;
        let now_ms = self.elapsed().as_millis() as u64;
        if let Broker::Sqs(queue) = &mut self.broker {
            queue.never_bury();
            queue.redrive(now_ms);
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.lived + self.began.map_or(Duration::ZERO, |b| b.elapsed())
    }

    pub fn start_time() -> Time {
        Time((BASE_S + 600) * 1_000_000)
    }

    /// The worker's clock steps, forward or back, by up to two hours; never so far that events seem to come from afar.
    pub fn clock_steps(&mut self) {
        const HOUR_S: i64 = 3_600;
        let step_s = self.dice("clock").below(4 * HOUR_S as u64) as i64 - 2 * HOUR_S;
        let off_s = (self.off_us.load(Ordering::Relaxed) / 1_000_000 + step_s).clamp(-6 * HOUR_S, 24 * HOUR_S);
        self.off_us.store(off_s * 1_000_000, Ordering::Relaxed);
        self.steps += 1;
        self.note(format!("the clock steps by {step_s} s and is off by {off_s} s"));
    }

    /// What all who use the account sent in the last 24 hours.
    pub fn sent_24h(&self) -> u64 {
        let since = self.elapsed().saturating_sub(Duration::from_secs(86_400));
        self.external + self.calls.iter().filter(|c| c.sent && c.at >= since).count() as u64
    }

    /// The quota is the account's: no window of any length sees more calls than it admits, no day more mails.
    pub fn quota_holds(&self) {
        let now = self.elapsed();
        for length in [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(60)] {
            let calls = self.calls.iter().rev().take_while(|c| c.at + length >= now).count() as f64;
            let admitted = 1.0 + RATE * (length + owlpost::quota::SLOT).as_secs_f64() + self.steps as f64;
            assert!(calls <= admitted, "{calls} calls in {length:?}, at most {admitted}");
        }
        if self.faults && self.steps == 0 {
            let sent = self.sent_24h();
            assert!(sent <= self.per_day, "{sent} mails in 24 hours, at most {}", self.per_day);
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        let line = format!("{:>10.3} {}", self.elapsed().as_secs_f64(), what.into());
        if self.verbose {
            println!("{line}");
        }
        self.trace.push(line);
    }

    /// The group is shared out anew, now and then.
    pub fn perhaps_rebalance(&mut self, percent: u64) {
        if !self.fault("rebalance", percent) {
            return;
        }
        let mut dice = self.dice("rebalance").clone();
        if let Broker::Kafka(topic) = &mut self.broker {
            topic.rebalance(&mut dice);
        }
        *self.dice("rebalance") = dice;
        self.note("the group is rebalanced");
    }

    /// In the trace.
    pub fn name(&self, what: What) -> String {
        match what {
            What::Fact(fact) => self.facts[fact].id.clone(),
            What::Poison(n) => format!("poison{n}"),
            other => format!("{other:?}"),
        }
    }

    /// Headers and body as a broker gives them; no body: null.
    pub fn on_wire(&self, what: What) -> (&'static [(&'static str, &'static str)], Option<&[u8]>) {
        const JSON: &[(&str, &str)] = &[("content-type", "application/cloudevents+json")];
        match what {
            What::Fact(fact) => (JSON, Some(self.facts[fact].json.as_bytes())),
            What::Poison(n) => (JSON, Some(self.poison[n].as_bytes())),
            What::Tombstone | What::Marker => (&[], None),
        }
    }

    pub fn fact(&self, source: &str, id: &str) -> Option<&Fact> {
        self.facts.iter().find(|f| f.source == source && f.id == id)
    }
}
