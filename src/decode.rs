//! From what a source hands out to events: the envelopes of CloudEvents 1.0 and the dialects of Athenz (`events.md`).
//!
//! | content type | read as |
//! | --- | --- |
//! | `application/cloudevents+json` | one structured CloudEvent |
//! | `application/cloudevents-batch+json` | a JSON array of structured CloudEvents |
//! | anything, with a header `ce-type`, `ce-specversion`, `ce_type` or `ce_specversion` | one binary CloudEvent |
//! | `application/x-ndjson` (also `ndjson`, `jsonl`) | a value of any of the JSON forms a line; blank lines are skipped |
//! | `application/json`, another `+json`, none | by its fields: a CloudEvent has `specversion`, else one of the Athenz dialects, or an envelope of SNS or EventBridge around any of these; an array is a batch of any of them |
//! | anything else | refused as `unknown_format` |
//!
//! Each item of a batch, line and row is decoded for itself: a bad one is refused with its own bytes and holds up nothing.
//! Pure: no clock and no I/O.

mod athenz;
mod budget;
mod cloudevent;
mod envelope;
mod finish;
mod form;
mod json;
mod kinds;
mod percent;
mod pieces;
mod problem;
mod ruler;
mod tree;

use std::cell::OnceCell;

pub use crate::decode::form::is_json_media;

use crate::decode::budget::Budget;
use crate::decode::envelope::Inside;
use crate::decode::form::{Form, form_of};
use crate::decode::json::Place;
use crate::decode::pieces::{Piece, pieces};
use crate::decode::problem::{Problem, Typed};
use crate::decode::ruler::Ruler;
use crate::decode::tree::Tree;
use crate::model::{DEAD_LETTER_BYTES, Event, KEY_BYTES, Position, Refused, RefusedReason, Time};
use crate::source::{Message, ROW, TRUNCATED, UNREADABLE};

/// JSON Schema (2020-12) of an event: the envelope, and `data` of each known type (`schema event`).
pub const EVENT_SCHEMA: &str = include_str!("decode/event.schema.json");

/// What may come in, so that no input takes more than its share of memory or time (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One event, row or item of a batch, in its JSON form or as the body of binary mode.
    pub event_bytes: usize,
    /// Events in one message; a message with more is refused as a whole, so that its sender can split it.
    pub batch_events: usize,
    pub recipients_per_event: usize,
    /// Objects and arrays inside each other. The JSON parser itself stops at 127.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { event_bytes: 1_048_576, batch_events: 10_000, recipients_per_event: 500, depth: 64 }
    }
}

/// What a [`Decoder`] needs to know of its `[[source]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the `[[source]]`, for dead letters.
    pub source: String,
    /// CloudEvents `source` of the dialects that have none.
    pub origin: String,
    /// Keeps the subjects of several Athenz installations apart.
    pub realm: String,
    pub limits: Limits,
}

/// What one event, row or item of a message is.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    Event(Box<Event>),
    /// The DOMAIN twin of an Athenz notification: acknowledged and counted as a duplicate.
    Twin,
    /// A message of a broker without a body (Kafka's null value, which the source gives without headers): acknowledged,
    /// skipped and counted.
    Tombstone,
    Refused(Box<Refused>),
}

/// Decodes the messages of one `[[source]]`.
#[derive(Clone, Debug)]
pub struct Decoder {
    settings: Settings,
}

/// Kafka's null value, which its source gives without headers. Blanks are a body, and no other broker takes an empty one.
fn is_tombstone(message: &Message) -> bool {
    message.broker_id.is_some() && message.body.is_empty() && message.headers.is_empty()
}

/// A message that is being decoded.
struct Sheet<'m> {
    message: &'m Message,
    /// Made for the first refusal that has a place.
    ruler: OnceCell<Ruler<'m>>,
    /// Envelopes around it.
    depth: usize,
}

impl Decoder {
    pub fn new(settings: Settings) -> Decoder {
        Decoder { settings }
    }

    /// Everything that is in the message, in its order. Empty only for an empty batch or nothing but blank lines.
    /// `now` only decides what is in the future.
    pub fn decode(&self, message: &Message, now: Time) -> Vec<Decoded> {
        self.decode_with_positions(message, now).0
    }

    /// The same, and where each of them stood.
    pub fn decode_with_positions(&self, message: &Message, now: Time) -> (Vec<Decoded>, Vec<Position>) {
        let mut positions = Vec::with_capacity(1);
        let mut budget = Budget::new(&self.settings.limits);
        let decoded = self.decode_into(message, now, &mut positions, &mut budget, 0);
        // A refusal of the whole message is its first item's.
        positions.resize(decoded.len(), Position::default());
        (decoded, positions)
    }

    /// `depth`: how many envelopes are off already.
    fn decode_into(
        &self,
        message: &Message,
        now: Time,
        positions: &mut Vec<Position>,
        budget: &mut Budget,
        depth: usize,
    ) -> Vec<Decoded> {
        let sheet = &Sheet { message, ruler: OnceCell::new(), depth };
        if let Some(cut) = message.header(TRUNCATED) {
            return vec![self.refuse_cut(message, cut)];
        }
        if let Some(fault) = message.header(UNREADABLE) {
            let (reason, what) = fault.split_once(';').unwrap_or(("", fault));
            let known = RefusedReason::ALL.into_iter().find(|known| known.as_str() == reason);
            let problem = Problem::new(known.unwrap_or(RefusedReason::UnknownFormat), what);
            return vec![self.refuse(sheet, None, &problem)];
        }
        let form = match form_of(message) {
            Ok(form) => form,
            Err(problem) => return vec![self.refuse(sheet, None, &problem)],
        };
        if given_id(message).is_some_and(|id| id.len() > KEY_BYTES) {
            // Refused once: each of thousands of items would repeat it.
            let what = format!("the message's id is longer than {KEY_BYTES} bytes");
            return vec![self.refuse(sheet, None, &Problem::new(RefusedReason::TooLarge, what))];
        }
        if message.body.trim_ascii().is_empty() {
            return match form {
                // An event without data: its attributes are all it has.
                Form::Binary => vec![self.binary(sheet, now)],
                _ if is_tombstone(message) && depth == 0 => vec![Decoded::Tombstone],
                Form::Lines => Vec::new(),
                _ => vec![self.refuse(sheet, None, &Problem::new(RefusedReason::NotJson, "the body is empty"))],
            };
        }
        if form == Form::Binary {
            return vec![self.binary(sheet, now)];
        }
        let pieces = match pieces(&self.settings.limits, message, form) {
            Ok(pieces) => pieces,
            Err(problem) => return vec![self.refuse(sheet, None, &problem)],
        };
        let mut decoded = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let from = decoded.len();
            let has_rows = match self.value(sheet, piece, now, budget, &mut decoded) {
                Ok(has_rows) => has_rows,
                Err(problem) => {
                    decoded.push(self.refuse(sheet, Some(piece), &problem));
                    false
                }
            };
            let rows = 1..=decoded.len() - from;
            positions.extend(rows.map(|row| Position { index: piece.index, row: has_rows.then_some(row) }));
        }
        decoded
    }

    fn binary(&self, sheet: &Sheet<'_>, now: Time) -> Decoded {
        let message = sheet.message;
        match cloudevent::binary(&self.settings, message).and_then(|draft| draft.finish(&self.settings, message, now)) {
            Ok(event) => Decoded::Event(Box::new(event)),
            Err(problem) => self.refuse(sheet, None, &problem.below("data")),
        }
    }

    /// Whether what it became are rows, all of them in their order.
    fn value(
        &self,
        sheet: &Sheet<'_>,
        piece: &Piece<'_>,
        now: Time,
        budget: &mut Budget,
        decoded: &mut Vec<Decoded>,
    ) -> Result<bool, Problem> {
        let m = sheet.message;
        let limits = &self.settings.limits;
        let object = match json::parse(piece.bytes, limits)? {
            Tree::Object(object) => object,
            other => {
                let what = format!("an event must be a JSON object, found {}", other.type_name());
                return Err(Problem::new(RefusedReason::WrongType, what));
            }
        };
        if piece.form == Form::Structured || object.has("specversion") {
            budget.take_event()?;
            let event = cloudevent::structured(object, Some(piece.bytes), limits)?.finish(&self.settings, m, now)?;
            decoded.push(Decoded::Event(Box::new(event)));
            return Ok(false);
        }
        let map = object.into_map();
        if sheet.depth < envelope::DEPTH_MAX
            && let Some(inside) = envelope::open(m, piece, &map, base_id(m, piece))
        {
            return self.inside(sheet, inside?, now, budget, decoded);
        } else if athenz::is_notification(&map) {
            let Some(rows) =
                athenz::notification(&self.settings, &map, &base_id(m, piece), m.header(ROW).is_some(), budget)?
            else {
                decoded.push(Decoded::Twin);
                return Ok(false);
            };
            let has_rows = rows.iter().any(|row| row.text.is_some());
            for athenz::Row { draft, number, text } in rows {
                decoded.push(match draft.and_then(|draft| draft.finish(&self.settings, m, now)) {
                    Ok(event) => Decoded::Event(Box::new(event)),
                    Err(problem) => match text {
                        Some(row) => self.refuse_row(m, piece, number, &athenz::alone(&map, &row), &problem),
                        None => self.refuse(sheet, Some(piece), &problem),
                    },
                });
            }
            return Ok(has_rows);
        } else if athenz::is_domain_change(&map) {
            budget.take_event()?;
            let event = athenz::domain_change(&self.settings, map)?.finish(&self.settings, m, now)?;
            decoded.push(Decoded::Event(Box::new(event)));
        } else if map.contains_key("source") && map.contains_key("id") {
            return Err(Problem::new(RefusedReason::MissingAttribute, "is missing").on(&["specversion"]));
        } else {
            let what = "neither a CloudEvent (no specversion), nor an Athenz DomainChangeMessage (domainName, messageId), \
                        nor an Athenz Notification (type, consolidatedBy)";
            return Err(Problem::new(RefusedReason::UnknownFormat, what));
        }
        Ok(false)
    }

    /// Whether it became more than one event.
    fn inside(
        &self,
        sheet: &Sheet<'_>,
        inside: Inside,
        now: Time,
        budget: &mut Budget,
        decoded: &mut Vec<Decoded>,
    ) -> Result<bool, Problem> {
        match inside {
            Inside::Message(message) => {
                let of_it = self.decode_into(&message, now, &mut Vec::new(), budget, sheet.depth + 1);
                let has_rows = of_it.len() > 1;
                decoded.extend(of_it);
                Ok(has_rows)
            }
            Inside::Event(draft) => {
                budget.take_event()?;
                let event = draft.finish(&self.settings, sheet.message, now)?;
                decoded.push(Decoded::Event(Box::new(event)));
                Ok(false)
            }
        }
    }

    fn refuse(&self, sheet: &Sheet<'_>, piece: Option<&Piece<'_>>, problem: &Problem) -> Decoded {
        let message = sheet.message;
        let bytes = piece.map_or(message.body.as_slice(), |p| p.bytes);
        let place = piece.map_or(Place::Body { offset: 0 }, |p| p.place);
        let binary = piece.is_none() && matches!(form_of(message), Ok(Form::Binary));
        let detail = match problem.offset_in(bytes, usize::from(binary)) {
            Some(at) => {
                // Counted in the whole body, or in the piece if its line is known already.
                let there = match place {
                    Place::Body { offset } | Place::Item { offset, .. } => {
                        let ruler = sheet.ruler.get_or_init(|| Ruler::new(&message.body));
                        ruler.line_and_column(offset.saturating_add(at))
                    }
                    Place::Line { .. } => Ruler::new(bytes).line_and_column(at),
                };
                format!("{problem} ({there})")
            }
            None => problem.to_string(),
        };
        let position = place.position(&message.position);
        self.dead(message, bytes, position, problem, detail, headers(message, piece))
    }

    /// Only the beginning of the message is here; its length and hash came along.
    fn refuse_cut(&self, message: &Message, cut: &str) -> Decoded {
        let (bytes, sha256) = cut.split_once(';').unwrap_or((cut, ""));
        let bytes = bytes.parse().unwrap_or(message.body.len() as u64);
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(sha256.as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()).unwrap_or(0);
        }
        Decoded::Refused(Box::new(Refused {
            source: self.settings.source.clone(),
            position: message.position.clone(),
            reason: RefusedReason::TooLarge,
            detail: format!("{bytes} bytes; limits.event_bytes is {}", self.settings.limits.event_bytes),
            body: message.body[..message.body.len().min(DEAD_LETTER_BYTES)].to_vec(),
            bytes,
            sha256: hash,
            headers: Vec::new(),
            broker_id: message.broker_id.clone(),
        }))
    }

    /// `alone`: a notification of this row only, so that it can be replayed without its neighbours.
    fn refuse_row(&self, m: &Message, piece: &Piece<'_>, row: usize, alone: &[u8], problem: &Problem) -> Decoded {
        let position = format!("{} row {row}", piece.place.position(&m.position));
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        // One that is a row's already keeps its number when it is refused again.
        let own = m.header(ROW).is_some();
        if let Some(id) = base_id(m, piece) {
            headers.push(("message-id".to_owned(), if own { id } else { format!("{id}#{row}") }));
            headers.push((ROW.to_owned(), m.header(ROW).map_or_else(|| row.to_string(), str::to_owned)));
        }
        self.dead(m, alone, position, problem, problem.to_string(), headers)
    }

    fn dead(
        &self,
        message: &Message,
        bytes: &[u8],
        position: String,
        problem: &Problem,
        detail: String,
        headers: Vec<(String, String)>,
    ) -> Decoded {
        problem::dead_letter(problem::Letter {
            source: &self.settings.source,
            position,
            reason: problem.reason,
            detail,
            bytes,
            headers,
            broker_id: message.broker_id.clone().filter(|id| id.len() <= KEY_BYTES),
        })
    }
}

/// What is needed to read a refused piece again: how to read it, and the id it would have had.
fn headers(message: &Message, piece: Option<&Piece<'_>>) -> Vec<(String, String)> {
    let kept = |name: &str| name == "content-type" || name.starts_with("ce-") || name.starts_with("ce_");
    let Some(piece) = piece.filter(|p| p.number.is_some()) else {
        let mut headers: Vec<_> = message.headers.iter().filter(|(name, _)| kept(name)).cloned().collect();
        if let Some(id) = given_id(message).filter(|id| id.len() <= KEY_BYTES) {
            headers.push(("message-id".to_owned(), id.to_owned()));
        }
        return headers;
    };
    let media = if piece.form == Form::Structured { "application/cloudevents+json" } else { "application/json" };
    let mut headers = vec![("content-type".to_owned(), media.to_owned())];
    if let Some(id) = base_id(message, piece) {
        headers.push(("message-id".to_owned(), id));
    }
    headers
}

/// The id that the producer gave the message beside its body, else the broker's.
fn given_id(message: &Message) -> Option<&str> {
    ["ce_id", "ce-id", "message-id", "idempotency-key"]
        .iter()
        .find_map(|name| message.header(name).filter(|id| !id.is_empty()))
        .or(message.broker_id.as_deref())
}

/// The id of a dialect that has none; with the piece's number, if the message has several.
fn base_id(message: &Message, piece: &Piece<'_>) -> Option<String> {
    let id = given_id(message)?;
    Some(match piece.number {
        Some(number) => format!("{id}#{number}"),
        None => id.to_owned(),
    })
}

/// The value of a member of a JSON object, as it was written. `text` is valid JSON.
pub fn member<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    json::member(text, name)
}
