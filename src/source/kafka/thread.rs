//! The thread that owns the consumer: polls, keeps what was read, follows assignments, commits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;

use super::condition::Meaning;
use super::events::{Event, Events, Failure, Told};
use super::kept::Key;
use super::offsets::Progress;
use super::shared::{Shared, Wait};
use super::stats::Statistics;
use super::{LOG, Quiet, Settings};
use crate::kafka::iam::Tokens;
use crate::metrics;

/// A poll that finds nothing: what else is due waits no longer.
const POLL: Duration = Duration::from_millis(100);
/// A batch that nobody takes for so long: the partitions are paused. Pausing throws away what librdkafka has fetched, so
/// it must not come at every short wait for the store.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Topics that are not there are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Calls that wait for a broker, one partition or topic each.
const ASK_WITHIN: Duration = Duration::from_secs(5);
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Leaving the group is waited for so long; the loop waits no longer anyway.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Poller {
    settings: Settings,
    shared: Arc<Shared>,
    /// What we paused, and nothing else: librdkafka keeps the mark over assignments.
    paused: BTreeSet<Key>,
    is_paused: bool,
    next_commit: Instant,
    next_look: Instant,
    tokens: Option<Tokens>,
    /// librdkafka waits for a token.
    wants_token: bool,
}

mod commit;

type Queue<'c> = Events<'c, Quiet>;
type Client = BaseConsumer<Quiet>;

/// Tells, also after a panic, that the thread is gone.
struct Gone(Arc<Shared>, Option<oneshot::Sender<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.news.notify_one();
        if let Some(tell) = self.1.take() {
            // Nobody may be waiting.
            let _ = tell.send(());
        }
    }
}

impl Poller {
    pub fn new(settings: Settings, tokens: Option<Tokens>, shared: Arc<Shared>) -> Poller {
        let now = Instant::now();
        Poller {
            settings,
            shared,
            paused: BTreeSet::new(),
            is_paused: false,
            next_commit: now,
            next_look: now,
            tokens,
            wants_token: false,
        }
    }

    pub fn run(mut self, consumer: Client, tell: oneshot::Sender<()>) {
        let _gone = Gone(Arc::clone(&self.shared), Some(tell));
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        if let Err(e) = consumer.subscribe(&topics) {
            self.fatal(format!("source.topics can't be subscribed to: {}", in_words(&e)));
            return;
        }
        let Some(events) = Events::of(&consumer) else {
            self.fatal("librdkafka gave no queue".to_owned());
            return;
        };
        while !self.shared.is_stopping() && self.shared.state().fatal.is_none() {
            self.turn(&consumer, &events);
        }
        self.leave(&consumer, &events);
        drop(events);
        // Its drop closes what is left of it, and waits for librdkafka's threads.
        drop(consumer);
    }

    fn turn(&mut self, consumer: &Client, events: &Queue<'_>) {
        // Many messages a turn, so that what is due by the clock costs each of them nothing.
        for n in 0..1_000 {
            let Some(event) = events.next(if n == 0 { POLL } else { Duration::ZERO }) else { break };
            let full = self.take(consumer, events, &event);
            if full && !self.is_paused {
                drop(event);
                self.wait_or_pause(consumer);
                break;
            }
        }
        if self.is_paused && !self.shared.state().is_full() {
            self.resume(consumer);
        }
        if self.wants_token {
            self.give_token(events);
        }
        self.due(consumer);
    }

    /// As soon as there is one: librdkafka would ask again only in ten seconds.
    fn give_token(&mut self, events: &Queue<'_>) {
        let Some(tokens) = &self.tokens else { return };
        let given = tokens.latest().and_then(|token| events.set_token(&token.text, "owlpost", token.expires_ms));
        self.wants_token = given.is_err();
        let is_news = self.shared.state().condition.signed_in(given.clone().err());
        if let (Err(why), true) = (given, is_news) {
            tracing::warn!(source = self.settings.name, error = why, "no token to sign in with");
        }
    }

    /// What comes by the clock.
    fn due(&mut self, consumer: &Client) {
        let now = Instant::now();
        if now >= self.next_commit {
            self.next_commit = now + COMMIT_EVERY;
            self.commit(consumer);
            if self.settings.until_idle {
                // Perhaps it has been without partitions for long enough.
                self.shared.news.notify_one();
            }
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look_for_topics(consumer);
        }
    }

    /// The batch is full: a short wait is the store's, a longer one is an outage.
    fn wait_or_pause(&mut self, consumer: &Client) {
        let by = Instant::now() + PAUSE_AFTER;
        loop {
            match self.shared.wait_for_room(POLL) {
                Wait::Room | Wait::Stopping => return,
                Wait::Full if Instant::now() >= by => break,
                Wait::Full => self.due(consumer),
            }
        }
        let keys: Vec<Key> = self.shared.state().partitions.keys().copied().collect();
        self.pause(consumer, keys);
        self.is_paused = true;
        tracing::info!(source = self.settings.name, "nobody takes its messages; its partitions are paused");
    }

    fn pause(&mut self, consumer: &Client, keys: Vec<Key>) {
        let list = self.list(keys.iter().copied());
        match consumer.pause(&list) {
            Ok(()) => self.paused.extend(keys),
            Err(e) => tracing::debug!(source = self.settings.name, error = %in_words(&e), "partitions can't be paused"),
        }
    }

    fn resume(&mut self, consumer: &Client) {
        self.is_paused = false;
        let keys = std::mem::take(&mut self.paused);
        let list = self.list(keys.into_iter());
        if let Err(e) = consumer.resume(&list) {
            tracing::warn!(source = self.settings.name, error = %in_words(&e), "partitions can't be resumed");
        }
        tracing::info!(source = self.settings.name, "its messages are taken again; its partitions go on");
    }

    fn list(&self, keys: impl Iterator<Item = Key>) -> TopicPartitionList {
        let state = self.shared.state();
        let mut list = TopicPartitionList::new();
        for key in keys {
            list.add_partition(state.name(key), key.1);
        }
        list
    }

    /// Takes what an event says. `true`: there is no room for another message.
    fn take(&mut self, consumer: &Client, events: &Queue<'_>, event: &Event<'_>) -> bool {
        match event.told() {
            Told::Message(record) => return self.shared.push(&record, self.settings.event_bytes),
            Told::End { topic, partition, offset } => {
                let mut state = self.shared.state();
                let key = (state.topic(&topic), partition);
                state.reached(key, offset);
                drop(state);
                self.shared.news.notify_one();
            }
            Told::Failed(failure) => self.failed(consumer, &failure),
            Told::Assigned(list) => self.assigned(consumer, events, event, &list),
            Told::Revoked(list) => self.revoked(consumer, events, event, &list),
            Told::Committed(Ok(())) => {}
            Told::Committed(Err(code)) => self.commit_failed(code),
            Told::Statistics(json) => self.count(json),
            Told::Line(level, facility, line) => {
                if facility == "OFFSET" && level <= 4 {
                    metrics::kafka_reset(&self.settings.name);
                }
                log_line(level, &facility, &line);
            }
            Told::TokenWanted => self.wants_token = true,
            Told::Nothing => {}
        }
        false
    }

    fn assigned(&mut self, consumer: &Client, events: &Queue<'_>, event: &Event<'_>, list: &TopicPartitionList) {
        metrics::kafka_rebalance(&self.settings.name);
        let mut keys = Vec::new();
        {
            let mut state = self.shared.state();
            state.epoch += 1;
            let epoch = state.epoch;
            for element in list.elements() {
                let key = (state.topic(element.topic()), element.partition());
                state.partitions.insert(key, Progress::new(epoch));
                state.condition.found(element.topic());
                keys.push(key);
            }
            state.condition.joined();
            // The group's coordinator is a broker.
            state.condition.connected();
            state.note_empty();
            metrics::kafka_partitions(&self.settings.name, state.partitions.len());
        }
        if let Err(why) = events.apply(event) {
            tracing::warn!(source = self.settings.name, error = why, "partitions can't be taken");
        }
        tracing::info!(source = self.settings.name, partitions = keys.len(), "partitions assigned");
        if self.settings.until_idle {
            self.set_goals(consumer, &keys);
        }
        if self.is_paused && !keys.is_empty() {
            self.pause(consumer, keys);
        }
        self.shared.state().joined = true;
        self.shared.news.notify_one();
    }

    /// Where a run to the end ends: what is produced after it has begun is for the next one. An end that can't be looked
    /// up is found by reaching it.
    fn set_goals(&self, consumer: &Client, keys: &[Key]) {
        for key in keys {
            let topic = self.shared.state().name(*key).to_owned();
            match consumer.fetch_watermarks(&topic, key.1, ASK_WITHIN) {
                Ok((_, high)) => {
                    if let Some(progress) = self.shared.state().partitions.get_mut(key) {
                        progress.set_goal(high);
                    }
                }
                Err(e) => tracing::debug!(topic, partition = key.1, error = %in_words(&e), "the end is not known"),
            }
        }
    }

    fn revoked(&mut self, consumer: &Client, events: &Queue<'_>, event: &Event<'_>, list: &TopicPartitionList) {
        metrics::kafka_rebalance(&self.settings.name);
        let keys: Vec<Key> = {
            let mut state = self.shared.state();
            list.elements().iter().map(|e| (state.topic(e.topic()), e.partition())).collect()
        };
        let lost = consumer.assignment_lost();
        if !lost {
            // The next owner begins there; after the partitions are given back it would be refused.
            let commits = self.commits(|key| keys.contains(&key));
            if commits.count() > 0
                && let Err(e) = consumer.commit(&commits, CommitMode::Sync)
            {
                self.not_committed(&e);
            }
        }
        {
            let mut state = self.shared.state();
            for key in &keys {
                state.partitions.remove(key);
                self.paused.remove(key);
            }
            state.forget_lost();
            state.note_empty();
            metrics::kafka_partitions(&self.settings.name, state.partitions.len());
        }
        if let Err(why) = events.apply(event) {
            tracing::warn!(source = self.settings.name, error = why, "partitions can't be given back");
        }
        match lost {
            true => tracing::warn!(
                source = self.settings.name,
                partitions = keys.len(),
                "partitions lost: the group did not hear of this member in time; what was not committed is read again"
            ),
            false => tracing::info!(source = self.settings.name, partitions = keys.len(), "partitions given back"),
        }
        self.shared.news.notify_one();
    }

    fn failed(&mut self, consumer: &Client, failure: &Failure) {
        let name = &self.settings.name;
        if failure.fatal || failure.code == RDKafkaErrorCode::Fatal {
            let (code, text) = consumer.client().fatal_error().unwrap_or((failure.code, failure.text.clone()));
            self.fatal(match code {
                RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId => format!(
                    "another process is in source.group {:?} with the same source.instance_id: give each one its own, or \
                     leave it out",
                    self.settings.group
                ),
                _ => text,
            });
            return;
        }
        metrics::kafka_error(name);
        let (is_news, meaning, words) = {
            let mut state = self.shared.state();
            let before = state.condition.words();
            let meaning = state.condition.failed(failure, &self.settings.group);
            let after = state.condition.words();
            (before != after, meaning, after.unwrap_or_default())
        };
        match (meaning, failure.code) {
            (Meaning::Down, _) if is_news => tracing::warn!(source = name, "{words}"),
            (Meaning::Down, _) => {}
            (Meaning::Passing, RDKafkaErrorCode::PollExceeded) => tracing::warn!(
                source = name,
                "this process was held up for longer than max.poll.interval.ms; it leaves the group and joins again"
            ),
            (Meaning::Passing, _) => {
                tracing::info!(source = name, error = failure.text, "trouble with a broker; it is tried on")
            }
        }
        // The loop waits in `next`; it tells the health when it turns.
        self.shared.news.notify_one();
    }

    fn fatal(&self, why: String) {
        self.shared.state().fatal = Some(why);
        self.shared.news.notify_one();
    }

    fn count(&self, json: &[u8]) {
        let Some(statistics) = Statistics::of(json) else { return };
        let mut state = self.shared.state();
        if statistics.is_connected() && state.condition.connected() {
            tracing::info!(source = self.settings.name, "the brokers are back");
        }
        let of = |(key, progress): (&Key, &Progress)| statistics.lag(state.name(*key), key.1, progress.settled());
        let lag = state.partitions.iter().filter_map(of).sum();
        state.lag = Some(lag);
        metrics::kafka_lag(&self.settings.name, lag);
    }

    /// librdkafka tells once that a topic is not there, and not that it has come if another member gets it.
    fn look_for_topics(&self, consumer: &Client) {
        let troubled = self.shared.state().condition.troubled_topics();
        for topic in troubled {
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic), LOOK_WITHIN) else { return };
            let there = metadata.topics().iter().any(|t| t.name() == topic && t.error().is_none());
            if there && self.shared.state().condition.found(&topic) {
                tracing::info!(source = self.settings.name, topic, "the topic is there");
                self.shared.news.notify_one();
            }
        }
    }

    /// Says what is settled, and good-bye. A consumer that is only dropped would do the second, and make the others wait
    /// for its session to end if it could not.
    fn leave(&mut self, consumer: &Client, events: &Queue<'_>) {
        let list = self.commits(|_| true);
        if list.count() > 0
            && let Err(e) = consumer.commit(&list, CommitMode::Sync)
        {
            self.not_committed(&e);
        }
        consumer.unsubscribe();
        let by = Instant::now() + LEAVE_WITHIN;
        while !self.shared.state().partitions.is_empty() && Instant::now() < by {
            let Some(event) = events.next(POLL) else { continue };
            // Messages on their way are read again by the next owner.
            if !matches!(event.told(), Told::Message(_) | Told::End { .. }) {
                self.take(consumer, events, &event);
            }
        }
        metrics::kafka_partitions(&self.settings.name, 0);
        metrics::kafka_lag(&self.settings.name, 0);
    }
}

/// A line of librdkafka's log; syslog levels.
pub(super) fn log_line(level: i32, facility: &str, line: &str) {
    match level {
        ..=2 => tracing::error!(target: LOG, facility, "{line}"),
        // Its errors are those of one connection; it goes on.
        3 | 4 => tracing::warn!(target: LOG, facility, "{line}"),
        5 | 6 => tracing::info!(target: LOG, facility, "{line}"),
        _ => tracing::debug!(target: LOG, facility, "{line}"),
    }
}

/// An error of the client, without the value of a setting.
pub(super) fn in_words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, what, name, _) => format!("source.properties {name:?}: {what}"),
        KafkaError::ClientCreation(what) => format!("librdkafka does not take source.properties: {what}"),
        other => other.to_string(),
    }
}
