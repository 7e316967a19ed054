//! From what a source hands out to events: the envelopes of CloudEvents 1.0 and the dialects of Athenz (`events.md`).
//!
//! | content type | read as |
//! | --- | --- |
//! | `application/cloudevents+json` | one structured CloudEvent |
//! | `application/cloudevents-batch+json` | a JSON array of structured CloudEvents |
//! | anything, with a header `ce-type`, `ce-specversion`, `ce_type` or `ce_specversion` | one binary CloudEvent |
//! | `application/x-ndjson` (also `ndjson`, `jsonl`) | a value of any of the JSON forms a line; blank lines are skipped |
//! | `application/json`, another `+json`, none | by its fields: a CloudEvent has `specversion`, else one of the Athenz dialects; an array is a batch of any of them |
//! | anything else | refused as `unknown_format` |
//!
//! Each item of a batch, line and row is decoded for itself: a bad one is refused with its own bytes and holds up nothing.
//! Pure: no clock and no I/O.

mod athenz;
mod cloudevent;
mod finish;
mod json;
mod kinds;
mod percent;
mod problem;

use serde_json::Value;

use crate::decode::json::{Broken, Place};
use crate::decode::problem::Problem;
use crate::model::{DEAD_LETTER_BYTES, Event, Refused, RefusedReason, Time};
use crate::source::{Message, TRUNCATED};

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
    /// A message of a broker without a body (Kafka's null value): acknowledged, skipped and counted.
    Tombstone,
    Refused(Box<Refused>),
}

/// Decodes the messages of one `[[source]]`.
#[derive(Clone, Debug)]
pub struct Decoder {
    settings: Settings,
}

/// How the bytes of a message are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Structured,
    Batch,
    Binary,
    Lines,
    Any,
}

/// One JSON value of a message.
struct Piece<'m> {
    bytes: &'m [u8],
    place: Place,
    /// Its number from 1, if the message has several: part of the id of dialects that have none.
    number: Option<usize>,
    form: Form,
}

impl Decoder {
    pub fn new(settings: Settings) -> Decoder {
        Decoder { settings }
    }

    /// Everything that is in the message, in its order. Empty only for an empty batch or nothing but blank lines.
    /// `now` only decides what is in the future.
    pub fn decode(&self, message: &Message, now: Time) -> Vec<Decoded> {
        if let Some(cut) = message.header(TRUNCATED) {
            return vec![self.refuse_cut(message, cut)];
        }
        let form = match form_of(message) {
            Ok(form) => form,
            Err(problem) => return vec![self.refuse(message, None, &problem)],
        };
        if message.body.trim_ascii().is_empty() {
            return match form {
                _ if message.broker_id.is_some() => vec![Decoded::Tombstone],
                Form::Lines => Vec::new(),
                Form::Binary => vec![self.binary(message, now)],
                _ => vec![self.refuse(message, None, &Problem::new(RefusedReason::NotJson, "the body is empty"))],
            };
        }
        if form == Form::Binary {
            return vec![self.binary(message, now)];
        }
        let pieces = match self.pieces(message, form) {
            Ok(pieces) => pieces,
            Err(problem) => return vec![self.refuse(message, None, &problem)],
        };
        let mut decoded = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            self.piece(message, piece, now, &mut decoded);
        }
        decoded
    }

    /// The JSON values of the message. An error concerns all of it: where an item ends can't be told any more.
    fn pieces<'m>(&self, message: &'m Message, form: Form) -> Result<Vec<Piece<'m>>, Problem> {
        let (mark, body) = match message.body.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => (3, rest),
            None => (0, message.body.as_slice()),
        };
        let mut pieces = Vec::new();
        if form == Form::Lines {
            for (index, line) in body.split(|b| *b == b'\n').enumerate() {
                let line = line.trim_ascii();
                if !line.is_empty() {
                    self.add(&mut pieces, line, Place::Line { number: index + 1 }, Form::Any)?;
                }
            }
        } else {
            self.add(&mut pieces, body, Place::Body { offset: mark }, form)?;
        }
        // Alone, it needs no number; an item of an array of one is still an item.
        if let [piece] = pieces.as_mut_slice()
            && !matches!(piece.place, Place::Item { .. })
        {
            piece.number = None;
        }
        Ok(pieces)
    }

    /// Adds a value, or the items of an array if a batch may stand there.
    fn add<'m>(&self, to: &mut Vec<Piece<'m>>, bytes: &'m [u8], place: Place, form: Form) -> Result<(), Problem> {
        let room = self.settings.limits.batch_events.saturating_sub(to.len());
        let is_array = bytes.trim_ascii_start().first() == Some(&b'[');
        if form == Form::Structured || !is_array {
            if form == Form::Batch {
                let what = "a batch must be a JSON array of CloudEvents";
                return Err(Problem::new(RefusedReason::WrongType, what));
            }
            if room == 0 {
                return Err(self.too_many_events());
            }
            to.push(Piece { bytes, place, number: Some(to.len() + 1), form });
            return Ok(());
        }
        let items = match json::items(bytes, room) {
            Ok(items) => items,
            // A line of its own ends where it ends, so its neighbours need not suffer: it is refused as one value.
            Err(broken) if matches!(place, Place::Line { .. }) && !matches!(broken, Broken::TooMany) => {
                to.push(Piece { bytes, place, number: Some(to.len() + 1), form: Form::Structured });
                return Ok(());
            }
            Err(Broken::TooMany) => return Err(self.too_many_events()),
            Err(Broken::Syntax { offset, depth }) => {
                let reason = match depth {
                    d if d > self.settings.limits.depth => RefusedReason::TooDeep,
                    _ => RefusedReason::NotJson,
                };
                let what = "the array is broken here, so where its items end can't be told";
                return Err(Problem::new(reason, what).at(offset));
            }
        };
        let inner = if form == Form::Batch { Form::Structured } else { Form::Any };
        for item in items {
            let number = to.len() + 1;
            let place = match place {
                Place::Body { offset } => Place::Item { number, offset: offset + item.start },
                line => line,
            };
            // `items` gives ranges inside of `bytes`.
            to.push(Piece { bytes: &bytes[item], place, number: Some(number), form: inner });
        }
        Ok(())
    }

    fn too_many_events(&self) -> Problem {
        let what =
            format!("more than {} events in one message; send fewer at a time", self.settings.limits.batch_events);
        Problem::new(RefusedReason::TooLarge, what)
    }

    fn binary(&self, message: &Message, now: Time) -> Decoded {
        match cloudevent::binary(&self.settings, message).and_then(|draft| draft.finish(&self.settings, message, now)) {
            Ok(event) => Decoded::Event(Box::new(event)),
            Err(problem) => self.refuse(message, None, &problem.below("data")),
        }
    }

    fn piece(&self, message: &Message, piece: &Piece<'_>, now: Time, decoded: &mut Vec<Decoded>) {
        if let Err(problem) = self.value(message, piece, now, decoded) {
            decoded.push(self.refuse(message, Some(piece), &problem));
        }
    }

    fn value(&self, m: &Message, piece: &Piece<'_>, now: Time, decoded: &mut Vec<Decoded>) -> Result<(), Problem> {
        let limits = &self.settings.limits;
        let map = match json::parse(piece.bytes, limits)? {
            Value::Object(map) => map,
            other => {
                let what = format!("an event must be a JSON object, found {}", problem::type_of(&other));
                return Err(Problem::new(RefusedReason::WrongType, what));
            }
        };
        if piece.form == Form::Structured || map.contains_key("specversion") {
            let event = cloudevent::structured(map)?.finish(&self.settings, m, now)?;
            decoded.push(Decoded::Event(Box::new(event)));
        } else if athenz::is_notification(&map) {
            let Some(rows) = athenz::notification(&self.settings, map, &base_id(m, piece))? else {
                decoded.push(Decoded::Twin);
                return Ok(());
            };
            for row in rows {
                decoded.push(match row.draft.and_then(|draft| draft.finish(&self.settings, m, now)) {
                    Ok(event) => Decoded::Event(Box::new(event)),
                    Err(problem) => match &row.text {
                        Some(text) => self.refuse_row(m, piece, row.number, text.as_bytes(), &problem),
                        None => self.refuse(m, Some(piece), &problem),
                    },
                });
            }
        } else if athenz::is_domain_change(&map) {
            let event = athenz::domain_change(&self.settings, map)?.finish(&self.settings, m, now)?;
            decoded.push(Decoded::Event(Box::new(event)));
        } else if map.contains_key("source") && map.contains_key("id") {
            return Err(Problem::new(RefusedReason::MissingAttribute, "is missing").on(&["specversion"]));
        } else {
            let what = "neither a CloudEvent (no specversion), nor an Athenz DomainChangeMessage (domainName, messageId), \
                        nor an Athenz Notification (type, consolidatedBy)";
            return Err(Problem::new(RefusedReason::UnknownFormat, what));
        }
        Ok(())
    }

    fn refuse(&self, message: &Message, piece: Option<&Piece<'_>>, problem: &Problem) -> Decoded {
        let bytes = piece.map_or(message.body.as_slice(), |p| p.bytes);
        let place = piece.map_or(Place::Body { offset: 0 }, |p| p.place);
        let binary = piece.is_none() && matches!(form_of(message), Ok(Form::Binary));
        let at = match binary {
            true => problem.offset_in(bytes, 1),
            false => problem.offset_in(bytes, 0),
        };
        let detail = match at {
            Some(at) => format!("{problem} ({})", place.line_and_column(&message.body, bytes, at)),
            None => problem.to_string(),
        };
        self.dead(message, piece, bytes, place.position(&message.position), problem.reason, detail)
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
        }))
    }

    fn refuse_row(&self, m: &Message, piece: &Piece<'_>, row: usize, text: &[u8], problem: &Problem) -> Decoded {
        let position = format!("{} row {row}", piece.place.position(&m.position));
        self.dead(m, Some(piece), text, position, problem.reason, problem.to_string())
    }

    fn dead(
        &self,
        message: &Message,
        piece: Option<&Piece<'_>>,
        bytes: &[u8],
        position: String,
        reason: RefusedReason,
        detail: String,
    ) -> Decoded {
        problem::dead_letter(problem::Letter {
            source: &self.settings.source,
            position,
            reason,
            detail,
            bytes,
            headers: headers(message, piece),
        })
    }
}

/// What is needed to read a refused piece again: how to read it, and the id it would have had.
fn headers(message: &Message, piece: Option<&Piece<'_>>) -> Vec<(String, String)> {
    let kept = |name: &str| name == "content-type" || name.starts_with("ce-") || name.starts_with("ce_");
    let Some(piece) = piece.filter(|p| p.number.is_some()) else {
        let mut headers: Vec<_> = message.headers.iter().filter(|(name, _)| kept(name)).cloned().collect();
        if let Some(id) = given_id(message) {
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

fn form_of(message: &Message) -> Result<Form, Problem> {
    let media = message.header("content-type").map(media_type).unwrap_or_default();
    let unknown = |what| Err(Problem::new(RefusedReason::UnknownFormat, what));
    if let Some(format) = media.strip_prefix("application/cloudevents") {
        return match format {
            "" | "+json" => Ok(Form::Structured),
            "-batch" | "-batch+json" => Ok(Form::Batch),
            _ => unknown("of the CloudEvents event formats only JSON is read; send application/cloudevents+json"),
        };
    }
    let binary = ["ce-type", "ce_type", "ce-specversion", "ce_specversion"];
    if binary.iter().any(|name| message.header(name).is_some()) {
        return Ok(Form::Binary);
    }
    match media.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/x-jsonlines" | "application/jsonl" => {
            Ok(Form::Lines)
        }
        "" => Ok(Form::Any),
        other if is_json(other) => Ok(Form::Any),
        _ => unknown("the content type is none of application/cloudevents+json, -batch+json, x-ndjson and json"),
    }
}

/// `type/subtype` without parameters, in lower case (RFC 9110, 8.3.1).
fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// As the CloudEvents JSON format, 3.1: the subtype is `json` or ends in `+json`.
fn is_json(media: &str) -> bool {
    media.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}
