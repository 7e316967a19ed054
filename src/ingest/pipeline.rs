//! What one source's messages become: decode -> route -> resolve -> entries for the store.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::suspects::{self, Suspect, Suspects};
use super::{Bounds, IngestError, refuse};
use crate::clock::Clock;
use crate::decode::{Decoded, Decoder};
use crate::directory::{Directory, audience};
use crate::model::{Arrival, Asked, Effect, Entry, Person, Position, Receipt, Refused, Time};
use crate::route::{Asking, Router};
use crate::source::{Ack, Batch, Message, SourceError, TIME};
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

/// A batch, decoded, routed and looked up. Its entries for the store are made piece by piece: an event is small, but may
/// ask hundreds of people, so what is ready and not yet committed is bounded in items.
pub(super) struct Prepared {
    pub ack: Ack,
    /// Of twins and tombstones, which the store is not asked about.
    pub known: Vec<Receipt>,
    /// One list a message; what a piece is still to bring stands there as a duplicate.
    receipts: Vec<Vec<Receipt>>,
    /// Of each message, and where each event stood in it.
    positions: Vec<Places>,
    /// What has no piece yet, with its place in `receipts`.
    rest: VecDeque<(Place, Draft)>,
    people: People,
    /// Made ahead, while the store was busy with an earlier batch.
    ready: Option<Piece>,
}

/// Who is behind each reference that a batch names.
type People = HashMap<String, Vec<Arc<Person>>>;

/// A message's position, and where each event stood in it.
type Places = (String, Vec<Position>);

/// Message, and event in it.
type Place = (usize, usize);

/// What one transaction takes.
pub(super) struct Piece {
    pub entries: Arc<Vec<Entry>>,
    places: Vec<Place>,
    /// What they cost the store.
    pub items: usize,
    /// It is one event that is suspected ...
    pub alone: Option<Suspect>,
    /// ... and the store could not take it: it gets what says so.
    pub is_refused: bool,
}

impl Prepared {
    /// What is to be committed next. `None`: all of it is.
    pub fn next_piece(&mut self, pipeline: &Pipeline, items_max: usize, suspects: &Suspects) -> Option<Piece> {
        self.ready.take().or_else(|| self.make_piece(pipeline, items_max, suspects))
    }

    /// Whether that is an event that is suspected.
    pub fn next_is_suspected(&self, suspects: &Suspects) -> bool {
        match &self.ready {
            Some(ready) => ready.alone.is_some(),
            None => self.rest.front().is_some_and(|(_, draft)| draft.suspect(suspects).is_some()),
        }
    }

    /// An event without items costs the store as much as one with one.
    fn make_piece(&mut self, pipeline: &Pipeline, items_max: usize, suspects: &Suspects) -> Option<Piece> {
        let (mut entries, mut places, mut items, mut alone) = (Vec::new(), Vec::new(), 0usize, None);
        while let Some((_, draft)) = self.rest.front().filter(|_| alone.is_none()) {
            let with = items.saturating_add(items_of(draft, &self.people, pipeline.recipients_max));
            let suspect = draft.suspect(suspects);
            if (with > items_max || suspect.is_some()) && !entries.is_empty() {
                break;
            }
            alone = suspect;
            let Some((place, draft)) = self.rest.pop_front() else { break };
            items = with;
            let entry = finish(pipeline, draft, &self.people, || self.position(place));
            entries.push(entry);
            places.push(place);
        }
        (!entries.is_empty()).then(|| Piece { entries: Arc::new(entries), places, items, alone, is_refused: false })
    }

    /// The store can never take the one entry of this piece: it gets another one, which says so.
    pub fn refuse(&self, pipeline: &Pipeline, piece: &mut Piece, why: &str) -> bool {
        let ([entry], [place]) = (&piece.entries[..], &piece.places[..]) else { return false };
        let position = self.position(*place);
        let Some(refused) = refuse::unstorable(pipeline, entry, position.clone()) else { return false };
        tracing::error!(
            source = pipeline.source,
            position,
            error = why,
            "the store can never take this; it is kept as a dead letter, the others go on"
        );
        // A dead letter that can't be stored as it is is the same suspect.
        piece.alone = piece.alone.or(Some(suspects::entry(entry)));
        piece.entries = Arc::new(vec![Entry::Refused(Box::new(refused))]);
        piece.is_refused = true;
        true
    }

    fn position(&self, (message, event): Place) -> String {
        let Some((message, places)) = self.positions.get(message) else { return String::new() };
        refuse::at(message, places.get(event).filter(|_| places.len() > 1))
    }

    /// The store has committed `piece`.
    pub fn committed(&mut self, piece: &Piece, receipts: &[Receipt]) {
        for ((message, event), receipt) in piece.places.iter().zip(receipts) {
            if let Some(place) = self.receipts.get_mut(*message).and_then(|of_message| of_message.get_mut(*event)) {
                *place = receipt.clone();
                if let Receipt::Refused { at, .. } = place {
                    *at = self.positions.get(*message).and_then(|(_, of_message)| of_message.get(*event)).copied();
                }
            }
        }
    }

    /// Whether every event has its receipt.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty() && self.ready.is_none()
    }

    /// One list a message.
    pub fn receipts(&self) -> &[Vec<Receipt>] {
        &self.receipts
    }
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
}

impl Draft {
    /// `None`: it is not suspected.
    fn suspect(&self, suspects: &Suspects) -> Option<Suspect> {
        if suspects.are_none() {
            return None;
        }
        let suspect = match self {
            Draft::Event { arrival, .. } => suspects::event(arrival),
            Draft::Refused(refused) => suspects::refused(refused),
        };
        Some(suspect).filter(|suspect| suspects.have(suspect))
    }
}

/// One of a message's events: to be decided by the store, or known already.
type Drafted = Result<Draft, Receipt>;

pub(super) async fn prepare(
    pipeline: &Arc<Pipeline>,
    batch: Batch,
    stamps: &mut Stamps,
    bounds: &Bounds,
    items: usize,
    suspects: &Suspects,
) -> Result<Prepared, (Ack, String)> {
    let (ack, now, began) = (batch.ack, pipeline.clock.now(), Instant::now());
    let mine = std::mem::take(stamps);
    let worker = pipeline.clone();
    // Decoding is all CPU: it must not hold up the runtime's other tasks.
    let drafted = tokio::task::spawn_blocking(move || {
        let mut stamps = mine;
        let drafts = draft(&worker, batch.messages, now, &mut stamps);
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
    let mut prepared = Prepared {
        ack,
        known: Vec::new(),
        receipts: Vec::with_capacity(drafts.len()),
        positions: Vec::with_capacity(drafts.len()),
        rest: VecDeque::with_capacity(drafts.len()),
        people: People::new(),
        ready: None,
    };
    for (message, (of_message, position)) in drafts.into_iter().enumerate() {
        prepared.positions.push(position);
        let mut receipts = vec![Receipt::Duplicate; of_message.len()];
        for (event, draft) in of_message.into_iter().enumerate() {
            match draft {
                Ok(draft) => prepared.rest.push_back(((message, event), draft)),
                Err(receipt) => {
                    receipts[event] = receipt.clone();
                    prepared.known.push(receipt);
                }
            }
        }
        prepared.receipts.push(receipts);
    }
    let drafts = prepared.rest.iter().map(|(_, draft)| draft);
    prepared.people = look_up(pipeline, drafts, bounds.directory_age).await.map_err(|why| (ack, why))?;
    prepared.ready = prepared.make_piece(pipeline, items, suspects);
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::debug!(source = pipeline.source, events = prepared.receipts.len(), took_ms, "batch decoded");
    Ok(prepared)
}

fn draft(pipeline: &Pipeline, messages: Vec<Message>, now: Time, stamps: &mut Stamps) -> Vec<(Vec<Drafted>, Places)> {
    let horizon = now.minus(pipeline.retention);
    let mut all = Vec::with_capacity(messages.len());
    // Each message leaves as soon as it is decoded: a batch stands in memory once, and not as text and events.
    for message in messages {
        let (decoded, positions) = pipeline.decoder.decode_with_positions(&message, now);
        let alone = decoded.len() == 1;
        let mut drafts = Vec::with_capacity(decoded.len());
        for (place, one) in decoded.into_iter().enumerate() {
            drafts.push(match one {
                Decoded::Event(event) => {
                    let routed = pipeline.router.route(*event);
                    let event = routed.event;
                    let time = event.time.unwrap_or_else(|| stamps.next(now));
                    let position = || refuse::at(&message.position, positions.get(place).filter(|_| !alone));
                    let too_old = || refuse::too_old(pipeline, &message, alone, (&event, time), position());
                    let stale = (time < horizon).then(|| Box::new(too_old()));
                    let arrival = Box::new(Arrival { stale, ..Arrival::new(event, time) });
                    Ok(Draft::Event { arrival, asking: routed.asked })
                }
                Decoded::Refused(mut refused) => {
                    if !refused.headers.iter().any(|(name, _)| name == TIME) {
                        let time = message.time.unwrap_or_else(|| stamps.next(now));
                        refused.headers.push((TIME.to_owned(), time.to_string()));
                    }
                    Ok(Draft::Refused(refused))
                }
                Decoded::Twin => Err(Receipt::Duplicate),
                Decoded::Tombstone => Err(Receipt::Dropped),
            });
        }
        all.push((drafts, (message.position, positions)));
    }
    all
}

/// Everybody whom the batch names, each looked up once.
async fn look_up(
    pipeline: &Pipeline,
    drafts: impl Iterator<Item = &Draft>,
    max_age: Duration,
) -> Result<People, String> {
    let mut names = BTreeSet::new();
    for draft in drafts {
        if let Draft::Event { asking, .. } = draft {
            let readable = asking.iter().filter(|a| !a.unreadable);
            names.extend(readable.flat_map(|a| a.references.iter().map(String::as_str)));
        }
    }
    if names.is_empty() {
        return Ok(People::new());
    }
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let found = pipeline.directory.resolve(&names, max_age).await.map_err(|e| e.to_string())?;
    let shared = |people: Vec<Person>| people.into_iter().map(Arc::new).collect();
    Ok(found.into_iter().map(|audience| (audience.reference, shared(audience.people))).collect())
}

/// What the event will cost the store; people who are in several of its roles count for each.
fn items_of(draft: &Draft, people: &People, recipients_max: usize) -> usize {
    let Draft::Event { asking, .. } = draft else { return 1 };
    let of_route = |asking: &Asking| {
        let named = asking.references.iter().filter_map(|reference| people.get(reference));
        named.map(Vec::len).sum::<usize>().min(recipients_max)
    };
    asking.iter().map(of_route).sum::<usize>().max(1)
}

fn finish(pipeline: &Pipeline, draft: Draft, people: &People, position: impl FnOnce() -> String) -> Entry {
    match draft {
        Draft::Refused(refused) => Entry::Refused(refused),
        Draft::Event { mut arrival, asking } => {
            arrival.asked = asking.into_iter().map(|asking| gather(asking, people)).collect();
            limit(pipeline, &mut arrival, position);
            Entry::Event(arrival)
        }
    }
}

/// An event for more people than `limits.recipients_per_event` is refused, unless its key is known: then it is a copy of
/// one that was taken. One that closes something is taken all the same, since its mark must stand; the audience that is
/// too large becomes one item `dead(unreachable)`, which names it.
fn limit(pipeline: &Pipeline, arrival: &mut Arrival, position: impl FnOnce() -> String) {
    let Some(n) = arrival.asked.iter().map(|a| a.people.len()).max().filter(|n| *n > pipeline.recipients_max) else {
        return;
    };
    if matches!(arrival.event.effect, Effect::Closes { .. }) {
        let large = arrival.asked.iter_mut().filter(|a| a.people.len() > pipeline.recipients_max);
        large.for_each(|asked| asked.people = Vec::new());
        tracing::warn!(
            source = pipeline.source,
            people = n,
            most = pipeline.recipients_max,
            "an event closes its subject, and its audience is too large: nobody of it gets mail"
        );
        return;
    }
    if arrival.stale.is_none() {
        arrival.stale = Some(Box::new(refuse::too_many(pipeline, arrival, n, position())));
    }
    // Refused or a copy: neither asks anybody.
    arrival.asked = Vec::new();
}

/// One person in five roles gets one item, not five; nobody approves their own request.
fn gather(asking: Asking, people: &People) -> Asked {
    // An expression is looked up under its own text by nobody, but another event may name that very text.
    let named = asking.references.iter().filter(|_| !asking.unreadable).filter_map(|reference| people.get(reference));
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
    let bounds = Bounds { directory_age: Duration::ZERO, ..Bounds::default() };
    let suspects = Suspects::default();
    let mut prepared = prepare(pipeline, batch, &mut Stamps::default(), &bounds, bounds.items, &suspects)
        .await
        .map_err(|(_, why)| IngestError::Source(SourceError::Unavailable(why)))?;
    while let Some(piece) = prepared.next_piece(pipeline, bounds.items, &suspects) {
        let receipts = store.accept(pipeline.clock.now(), piece.entries.clone()).await?;
        prepared.committed(&piece, &receipts);
    }
    Ok(prepared.receipts.into_iter().flatten().collect())
}
