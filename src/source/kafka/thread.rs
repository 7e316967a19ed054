//! The thread that owns the consumer: polls, keeps what was read, follows assignments, commits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;

use super::events::{Event, Events, Told};
use super::kept::Key;
use super::shared::{Shared, empty_for};
use super::{LOG, Protocol, Quiet, Settings};
use crate::kafka::iam::Tokens;
use crate::kafka::is_secret;
use crate::metrics::kafka as metrics;

/// A poll that finds nothing: what else is due waits no longer.
const POLL: Duration = Duration::from_millis(100);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Topics that are not there are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Joining takes seconds, and as long as the other members' longest poll where they must give something back; brokers that
/// start take a minute. After that somebody should know why nothing comes.
const JOINS_WITHIN: Duration = Duration::from_secs(60);
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
    ids: ids::Ids,
    tokens: Option<Tokens>,
    /// librdkafka waits for a token.
    wants_token: bool,
    /// Why the last commit failed, if it did.
    commit_trouble: Option<RDKafkaErrorCode>,
    /// By then the group should have been joined. `None`: it was.
    join_by: Option<Instant>,
}

mod commit;
mod goals;
mod ids;
mod pauses;
mod sought;
mod troubles;

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
            ids: ids::Ids::default(),
            tokens,
            wants_token: false,
            commit_trouble: None,
            join_by: Some(now + JOINS_WITHIN),
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
                self.wait_or_pause(consumer, events);
                break;
            }
        }
        if self.is_paused && !self.shared.state().is_full() {
            self.resume(consumer);
        }
        if self.wants_token {
            self.give_token(events);
        }
        self.due(consumer, events);
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
    fn due(&mut self, consumer: &Client, events: &Queue<'_>) {
        let now = Instant::now();
        // A run at its end waits for nothing else.
        let waits = self.settings.until_idle && self.shared.state().is_at_end();
        if now >= self.next_commit || (waits && self.commit_trouble.is_none()) {
            self.next_commit = now + COMMIT_EVERY;
            self.commit(events);
            if self.settings.until_idle {
                // Perhaps it has been without partitions for long enough.
                self.shared.news.notify_one();
            }
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look_for_topics(consumer);
        }
        self.begin_again(consumer);
        self.look_at_sought();
        self.ask_ids(events);
        if self.join_by.is_some_and(|by| now >= by) {
            self.join_by = None;
            self.not_joined();
        }
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
                state.condition.read(key);
                drop(state);
                self.shared.news.notify_one();
            }
            Told::Failed(failure) => self.failed(consumer, &failure),
            Told::Assigned(list) => self.assigned(consumer, events, event, &list),
            Told::Revoked(list) => self.revoked(consumer, events, event, &list),
            Told::Committed(list) => self.committed(&list),
            Told::NotCommitted(code, list) => self.commit_failed(code, &list),
            Told::Statistics(json) => self.count(consumer, json),
            Told::Line(level, facility, line) => {
                if facility == "OFFSET" && level <= 4 {
                    metrics::reset(&self.settings.name);
                }
                log_line(level, &facility, &line);
            }
            Told::Ids(found) => self.learn_ids(consumer, found),
            Told::Notes(found) => self.learn_notes(consumer, found),
            Told::TokenWanted => self.wants_token = true,
            Told::Nothing => {}
        }
        false
    }

    fn assigned(&mut self, consumer: &Client, events: &Queue<'_>, event: &Event<'_>, list: &TopicPartitionList) {
        metrics::rebalance(&self.settings.name);
        let keys = {
            let mut state = self.shared.state();
            let keys = state.assign(list.elements().iter().map(|e| (e.topic(), e.partition())));
            state.note_empty(empty_for(self.settings.protocol));
            metrics::partitions(&self.settings.name, state.partitions.len());
            keys
        };
        self.join_by = None;
        self.ids.begin(&keys);
        for key in &keys {
            if self.ids.remade.contains(self.shared.state().name(*key)) {
                self.ids.sought.waits(*key, Instant::now());
            }
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

    fn revoked(&mut self, consumer: &Client, events: &Queue<'_>, event: &Event<'_>, list: &TopicPartitionList) {
        metrics::rebalance(&self.settings.name);
        let keys: Vec<Key> = {
            let mut state = self.shared.state();
            list.elements().iter().map(|e| (state.topic(e.topic()), e.partition())).collect()
        };
        let lost = consumer.assignment_lost();
        if !lost {
            // The next owner begins there; after the partitions are given back it would be refused.
            self.commit_last(consumer, |key| keys.contains(&key));
        }
        self.unpause(consumer, &keys);
        {
            let mut state = self.shared.state();
            state.let_go(&keys);
            // Where everything is given back before it is shared out anew, having nothing says nothing: the assignment
            // that follows does.
            if events.is_incremental() || !state.partitions.is_empty() {
                state.note_empty(empty_for(self.settings.protocol));
            } else {
                state.wait_for_assignment();
            }
            metrics::partitions(&self.settings.name, state.partitions.len());
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

    fn fatal(&self, why: String) {
        self.shared.state().fatal = Some(why);
        self.shared.news.notify_one();
    }

    /// Says what is settled, and good-bye. A consumer that is only dropped would do the second, and make the others wait
    /// for its session to end if it could not.
    fn leave(&mut self, consumer: &Client, events: &Queue<'_>) {
        self.wait_for_answers(consumer, events);
        self.commit_last(consumer, |_| true);
        metrics::partitions(&self.settings.name, 0);
        metrics::lag(&self.settings.name, 0);
        if self.settings.protocol == Protocol::Classic && self.settings.instance_id.is_some() {
            // A static member keeps its place over a restart (KIP-345), and unsubscribing would give it up: closing, which
            // is all that is left, does not.
            return;
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
        // What librdkafka says of a value may repeat it.
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => {
            format!("source.properties {name:?} has a value that librdkafka does not take")
        }
        KafkaError::ClientConfig(_, what, name, _) => format!("source.properties {name:?}: {what}"),
        KafkaError::ClientCreation(what) => format!("librdkafka does not take source.properties: {what}"),
        other => other.to_string(),
    }
}
