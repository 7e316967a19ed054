//! What one source's messages become: decode -> route -> resolve -> entries for the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{IngestError, refuse};
use crate::clock::Clock;
use crate::decode::{Decoded, Decoder};
use crate::directory::{Directory, audience};
use crate::model::{Arrival, Asked, Entry, Person, Receipt, Refused, Time};
use crate::route::{Asking, Router};
use crate::source::{Ack, Batch, Message, SourceError};
use crate::store::Intake;

/// What one source's events go through.
pub struct Pipeline {
    pub source: String,
    pub decoder: Decoder,
    pub router: Arc<Router>,
    pub directory: Arc<dyn Directory>,
    pub clock: Arc<dyn Clock>,
    /// Older events are refused, unless their key is known.
    pub retention: Duration,
    pub recipients_max: usize,
}

/// What became of a message's events: an entry of the batch, or known without asking the store.
pub(super) enum Slot {
    Entry(usize),
    Known(Receipt),
}

/// A batch, ready for the store.
pub(super) struct Prepared {
    pub ack: Ack,
    pub entries: Arc<Vec<Entry>>,
    /// One list a message.
    pub slots: Vec<Vec<Slot>>,
}

/// Receipt times for events without one: strictly rising, so that their order is the order of arrival.
#[derive(Default)]
pub(super) struct Stamps {
    last: Option<Time>,
}

impl Stamps {
    fn next(&mut self, now: Time) -> Time {
        let next = match self.last {
            Some(last) if last >= now => Time(last.0 + 1),
            _ => now,
        };
        self.last = Some(next);
        next
    }
}

/// What decoding and routing made of one event, before anybody was looked up.
enum Draft {
    Event { arrival: Box<Arrival>, asking: Vec<Asking> },
    Refused(Box<Refused>),
    Known(Receipt),
}

pub(super) async fn prepare(
    pipeline: &Arc<Pipeline>,
    batch: Batch,
    stamps: &mut Stamps,
    directory_age: Duration,
) -> Result<Prepared, (Ack, String)> {
    let (ack, now, began) = (batch.ack, pipeline.clock.now(), Instant::now());
    let mine = std::mem::take(stamps);
    let worker = pipeline.clone();
    // Decoding is all CPU: it must not hold up the runtime's other tasks.
    let drafted = tokio::task::spawn_blocking(move || {
        let mut stamps = mine;
        let drafts = draft(&worker, &batch.messages, now, &mut stamps);
        (drafts, stamps)
    });
    let drafts = match drafted.await {
        Ok((drafts, mine)) => {
            *stamps = mine;
            drafts
        }
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => return Err((ack, "the process is stopping".into())),
    };
    let people = look_up(pipeline, drafts.iter().flatten(), directory_age).await.map_err(|why| (ack, why))?;
    let mut entries = Vec::with_capacity(drafts.len());
    let slots = drafts
        .into_iter()
        .map(|of_message| of_message.into_iter().map(|draft| finish(pipeline, draft, &people, &mut entries)).collect())
        .collect();
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::debug!(source = pipeline.source, entries = entries.len(), took_ms, "batch decoded");
    Ok(Prepared { ack, entries: Arc::new(entries), slots })
}

fn draft(pipeline: &Pipeline, messages: &[Message], now: Time, stamps: &mut Stamps) -> Vec<Vec<Draft>> {
    let horizon = now.minus(pipeline.retention);
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let decoded = pipeline.decoder.decode(message, now);
        let alone = decoded.len() == 1;
        let mut drafts = Vec::with_capacity(decoded.len());
        for one in decoded {
            drafts.push(match one {
                Decoded::Event(event) => {
                    let routed = pipeline.router.route(*event);
                    let event = routed.event;
                    let time = event.time.or(message.time).unwrap_or_else(|| stamps.next(now));
                    let stale = (time < horizon).then(|| Box::new(refuse::too_old(pipeline, message, alone, &event)));
                    // From here on its data is text: a batch of parsed values would take five times the memory.
                    let arrival = Box::new(Arrival { stale, ..Arrival::new(event, time) });
                    Draft::Event { arrival, asking: routed.asked }
                }
                Decoded::Refused(refused) => Draft::Refused(refused),
                Decoded::Twin => Draft::Known(Receipt::Duplicate),
                Decoded::Tombstone => Draft::Known(Receipt::Dropped),
            });
        }
        all.push(drafts);
    }
    all
}

/// Everybody whom the batch names, each looked up once.
async fn look_up(
    pipeline: &Pipeline,
    drafts: impl Iterator<Item = &Draft>,
    max_age: Duration,
) -> Result<HashMap<String, Vec<Person>>, String> {
    let mut names = BTreeSet::new();
    for draft in drafts {
        if let Draft::Event { asking, .. } = draft {
            names.extend(asking.iter().flat_map(|a| a.references.iter().map(String::as_str)));
        }
    }
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let found = pipeline.directory.resolve(&names, max_age).await.map_err(|e| e.to_string())?;
    Ok(found.into_iter().map(|audience| (audience.reference, audience.people)).collect())
}

fn finish(pipeline: &Pipeline, draft: Draft, people: &HashMap<String, Vec<Person>>, entries: &mut Vec<Entry>) -> Slot {
    let entry = match draft {
        Draft::Known(receipt) => return Slot::Known(receipt),
        Draft::Refused(refused) => Entry::Refused(refused),
        Draft::Event { mut arrival, asking } => {
            arrival.asked = asking.into_iter().map(|asking| gather(asking, people)).collect();
            match arrival.asked.iter().map(|a| a.people.len()).max().filter(|n| *n > pipeline.recipients_max) {
                Some(n) => Entry::Refused(Box::new(refuse::too_many(pipeline, &arrival, n))),
                None => Entry::Event(arrival),
            }
        }
    };
    entries.push(entry);
    Slot::Entry(entries.len() - 1)
}

/// One person in five roles gets one item, not five; nobody approves their own request.
fn gather(asking: Asking, people: &HashMap<String, Vec<Person>>) -> Asked {
    let named = asking.references.iter().filter_map(|reference| people.get(reference));
    let people = audience(named.flatten(), asking.except.as_deref());
    Asked { route: asking.route, references: asking.references, people, except: asking.except }
}

/// The front door for one input by hand (`dead-letters replay`): the receipts of its events, after the commit.
///
/// # Errors
/// The store or the directory is away; nothing was kept.
pub async fn replay_input(
    pipeline: &Arc<Pipeline>,
    store: &dyn Intake,
    message: Message,
) -> Result<Vec<Receipt>, IngestError> {
    let batch = Batch { messages: vec![message], ack: Ack { batch: 0, epoch: 0 } };
    let prepared = prepare(pipeline, batch, &mut Stamps::default(), Duration::ZERO)
        .await
        .map_err(|(_, why)| IngestError::Source(SourceError::Unavailable(why)))?;
    let receipts = if prepared.entries.is_empty() {
        vec![]
    } else {
        store.accept(pipeline.clock.now(), prepared.entries.clone()).await?
    };
    Ok(prepared
        .slots
        .into_iter()
        .flatten()
        .map(|slot| match slot {
            Slot::Entry(i) => receipts.get(i).cloned().unwrap_or(Receipt::Duplicate),
            Slot::Known(receipt) => receipt,
        })
        .collect())
}
