//! The forward loop: dead letters go to a broker, for those who look after them there.
//!
//! The rows come first: a letter is marked as forwarded only after the broker has confirmed it, so a crash between the two
//! sends it again (at least once), and none is lost. What a broker refuses for ever is marked with its reason and holds up
//! no other. Nothing here holds up intake or delivery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::{self, LetterOutcome};
use crate::outlet::{Outgoing, Outlet, OutletError};
use crate::source::{Health, OWN};
use crate::store::desk::LetterKind;
use crate::store::{Fate, Letter, Portion, Store, StoreError};
use crate::vitals::{Pulse, Vitals};

/// What is sent at once: ten batches of SQS, one of Kafka; with 1 MiB of bodies and headers a kind, a few MiB of memory.
const PORTION: Portion = Portion { letters: 100, bytes: 1024 * 1024 };

/// How often it is looked for new letters: nobody waits for one, and a look costs two reads of an index.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// First and longest wait while the broker, or the store, is away.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Above what an outlet takes for retries of its own (librdkafka's `message.timeout.ms` is 5 minutes unless an outlet
/// says less); one that hangs for longer counts as away.
const SEND_WITHIN: Duration = Duration::from_secs(330);

/// At a stop, what is with the broker may still be confirmed for so long; else it is sent again by the next worker.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// At the end of `run --until-idle`: failures in a row after which the broker counts as away.
const LAST_TRIES: u32 = 3;

/// How often a wait shows that the loop lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Characters of a refusal's reason that are kept.
const WHY_CHARS: usize = 300;

const LOOP: &str = "forwarding";

pub struct Forward {
    pub store: Arc<dyn Store>,
    pub outlet: Arc<dyn Outlet>,
    pub clock: Arc<dyn Clock>,
    /// Sources whose broker ids are `topic/partition/offset`.
    pub kafka: BTreeSet<String>,
}

/// What a turn came to.
enum Turn {
    /// Nothing waits.
    Idle,
    /// All of a portion is settled.
    Settled,
    Away(Away),
}

/// Not all was confirmed.
struct Away {
    why: String,
    /// Somebody must act first.
    fatal: bool,
    /// Others of the same portion were settled.
    progress: bool,
}

impl Forward {
    /// Runs until `stop`; after `finish`, until nothing waits or the broker has not answered for a while.
    ///
    /// # Errors
    /// The store can't be used any more.
    pub async fn run(
        self,
        vitals: Vitals,
        finish: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let pulse = vitals.pulse(LOOP);
        let place = self.outlet.place();
        vitals.set_forwarding(&place, Health::Ready);
        // Confirmed, and not marked yet: they come before the next letter, or it would be sent twice for nothing.
        let mut fates: Vec<(String, Fate)> = Vec::new();
        let (mut wait, mut failures) = (RETRY.0, 0);
        // Whether the trouble that was told last is one that somebody must end.
        let mut told: Option<bool> = None;
        while !stop.is_cancelled() {
            pulse.beat();
            let turn = self.turn(&mut fates, &pulse, &stop).await;
            vitals.set_store(LOOP, turn.as_ref().map(|_| ()).map_err(ToString::to_string));
            let pause = match turn {
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) => {
                    metrics::store_error();
                    // The other loops say it louder.
                    tracing::debug!(error = %why, "dead letters wait for the store");
                    failures += 1;
                    longer(&mut wait)
                }
                Ok(Turn::Away(Away { why, fatal, progress })) => {
                    if told != Some(fatal) {
                        let advice =
                            if fatal { "somebody must act; tried each minute" } else { "tried until it works" };
                        tracing::warn!(
                            to = place,
                            error = why,
                            advice,
                            "dead letters can't be forwarded; they are kept"
                        );
                    }
                    told = Some(fatal);
                    vitals.set_forwarding(&place, Health::Down(why));
                    if progress {
                        (wait, failures) = (RETRY.0, 0);
                    }
                    failures += 1;
                    if fatal {
                        wait = RETRY.1;
                    }
                    longer(&mut wait)
                }
                Ok(turn) => {
                    if told.take().is_some() {
                        tracing::info!(to = place, "dead letters are forwarded again");
                    }
                    vitals.set_forwarding(&place, Health::Ready);
                    (wait, failures) = (RETRY.0, 0);
                    match turn {
                        Turn::Idle if finish.is_cancelled() => break,
                        Turn::Idle => LOOK_EVERY,
                        _ => Duration::ZERO,
                    }
                }
            };
            let (ending, last) = (finish.is_cancelled(), told == Some(true));
            if ending && (failures >= LAST_TRIES || last) {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = finish.cancelled(), if !ending => {}
                () = beating(&pulse, Instant::now() + pause) => {}
            }
        }
        pulse.finish();
        Ok(())
    }

    /// Marks what is settled, reads what waits, sends it, and marks again.
    async fn turn(
        &self,
        fates: &mut Vec<(String, Fate)>,
        pulse: &Pulse,
        stop: &CancellationToken,
    ) -> Result<Turn, StoreError> {
        self.mark(fates).await?;
        let letters = self.store.unforwarded(PORTION).await?;
        if letters.is_empty() {
            return Ok(Turn::Idle);
        }
        let messages: Vec<Outgoing> = letters.iter().map(|letter| message(letter, &self.kafka)).collect();
        let answers = tokio::select! {
            answers = tokio::time::timeout(SEND_WITHIN, self.outlet.send(&messages)) => answers.unwrap_or_default(),
            () = beating(pulse, Instant::now() + SEND_WITHIN * 2) => Vec::new(),
            () = async { stop.cancelled().await; tokio::time::sleep(LAST_MOMENTS).await } => Vec::new(),
        };
        let (mut trouble, mut none) = (None, false);
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (letter, answer) in letters.into_iter().zip(answers) {
            let outcome = match answer {
                Some(Ok(())) => {
                    fates.push((letter.id, Fate::Forwarded));
                    LetterOutcome::Forwarded
                }
                Some(Err(OutletError::Refused(why))) => {
                    let why: String = why.chars().filter(|c| !c.is_control()).take(WHY_CHARS).collect();
                    tracing::warn!(id = letter.id, error = why, "a dead letter will never be taken; it stays here");
                    fates.push((letter.id, Fate::Refused(why)));
                    LetterOutcome::Refused
                }
                Some(Err(OutletError::Fatal(why))) => {
                    trouble = Some((why, true));
                    LetterOutcome::Failed
                }
                Some(Err(OutletError::Unavailable(why))) => {
                    trouble.get_or_insert((why, false));
                    LetterOutcome::Failed
                }
                None => {
                    none = true;
                    LetterOutcome::Failed
                }
            };
            metrics::letter_forwarded(outcome);
        }
        if none {
            trouble.get_or_insert_with(|| ("not every message got an answer in time".to_owned(), false));
        }
        let progress = !fates.is_empty();
        self.mark(fates).await?;
        Ok(trouble.map_or(Turn::Settled, |(why, fatal)| Turn::Away(Away { why, fatal, progress })))
    }

    /// Empties `fates` into the store; after an error they are still there.
    async fn mark(&self, fates: &mut Vec<(String, Fate)>) -> Result<(), StoreError> {
        if fates.is_empty() {
            return Ok(());
        }
        let all = Arc::new(std::mem::take(fates));
        match self.store.forwarded(self.clock.now(), all.clone()).await {
            // Rows that contradict themselves will do so again: sent twice is better than never again.
            Err(why) if !matches!(why, StoreError::Broken(_)) => {
                *fates = all.to_vec();
                Err(why)
            }
            result => result,
        }
    }
}

/// The wait that is due now; the next one is twice as long.
fn longer(wait: &mut Duration) -> Duration {
    let now = *wait;
    *wait = (now * 2).min(RETRY.1);
    now
}

/// Sleeps, and shows all the while that the loop lives.
async fn beating(pulse: &Pulse, until: Instant) {
    while Instant::now() < until {
        tokio::time::sleep_until(until.min(Instant::now() + HEARTBEAT)).await;
        pulse.beat();
    }
}

/// The kept bytes as they came, with the headers that say how to read them, and ours. Letters of one source keep their
/// order, as far as the outlet does.
fn message(letter: &Letter, kafka: &BTreeSet<String>) -> Outgoing {
    let facts = facts(letter, kafka);
    let mut all = serde_json::Map::new();
    for (name, value) in &facts {
        all.insert((*name).to_owned(), value.as_str().into());
    }
    all.insert("headers".to_owned(), serde_json::json!(letter.headers));
    // First what says most: SQS takes ten of them.
    let mut headers = vec![(format!("{PREFIX}letter"), serde_json::Value::from(all).to_string())];
    let (first, rest) = facts.split_at(FIRST);
    let ours = |(name, value): &(&str, String)| (format!("{PREFIX}{name}"), value.clone());
    headers.extend(first.iter().map(ours));
    // What is said to this program alone stands in the facts.
    headers.extend(letter.headers.iter().filter(|(name, _)| !name.starts_with(OWN)).cloned());
    headers.extend(rest.iter().map(ours));
    // An SQS attribute has at least one character.
    headers.retain(|(_, value)| !value.is_empty());
    Outgoing { key: Some(letter.source.clone()), headers, body: letter.body.clone() }
}

const PREFIX: &str = "owlpost-";

/// Facts that stand in front of the message's own headers.
const FIRST: usize = 2;

/// By the names of our headers.
fn facts(letter: &Letter, kafka: &BTreeSet<String>) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("id", letter.id.clone()),
        ("reason", letter.reason.clone()),
        ("kind", if letter.kind == LetterKind::Input { "input" } else { "item" }.to_owned()),
        ("detail", letter.detail.clone()),
        ("source", letter.source.clone()),
        ("position", letter.position.clone()),
    ];
    let of_kafka = letter.broker_id.as_deref().filter(|_| kafka.contains(&letter.source));
    // A topic's name has no slash.
    if let Some((rest, offset)) = of_kafka.and_then(|id| id.rsplit_once('/'))
        && let Some((topic, partition)) = rest.rsplit_once('/')
    {
        facts.push(("topic", topic.to_owned()));
        facts.push(("partition", partition.to_owned()));
        facts.push(("offset", offset.to_owned()));
    }
    if let Some((recipient, route)) = &letter.asked {
        facts.push(("recipient", recipient.clone()));
        facts.push(("route", route.clone()));
    }
    facts.push(("time", letter.at.to_string()));
    facts.push(("count", letter.count.to_string()));
    facts.push(("bytes", letter.bytes.to_string()));
    facts.push(("truncated", (letter.bytes > letter.body.len() as u64).to_string()));
    facts.push(("sha256", letter.sha256.iter().map(|b| format!("{b:02x}")).collect()));
    facts
}
