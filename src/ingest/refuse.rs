//! Dead letters of events that were read well and still can't be taken.

use sha2::{Digest as _, Sha256};

use super::Pipeline;
use crate::directory::EXPANSION_MAX;
use crate::model::{Arrival, DEAD_LETTER_BYTES, Entry, Event, Position, Refused, RefusedReason, Time};
use crate::source::{Message, TIME};
use crate::span::Span;

pub(super) fn too_old(
    pipeline: &Pipeline,
    message: &Message,
    alone: bool,
    (event, time): (&Event, Time),
    position: String,
) -> Refused {
    let detail = format!("time: older than the retention of {}", Span(pipeline.retention));
    if alone {
        let mut headers = message.headers.clone();
        headers.push((TIME.to_owned(), time.to_string()));
        let refused = kept(pipeline, position, RefusedReason::TooOld, detail, &message.body, headers);
        return Refused { broker_id: message.broker_id.clone(), ..refused };
    }
    let (body, headers) = as_cloudevent(event, time);
    let refused = kept(pipeline, position, RefusedReason::TooOld, detail, &body, headers);
    Refused { broker_id: message.broker_id.clone(), ..refused }
}

pub(super) fn too_many(pipeline: &Pipeline, arrival: &Arrival, n: usize, position: String) -> Refused {
    // A directory counts no further.
    let or_more = if n >= EXPANSION_MAX { " or more" } else { "" };
    let most = pipeline.recipients_max;
    let detail = format!("recipients: the audience is {n} people{or_more}, limits.recipients_per_event is {most}");
    let (body, headers) = as_cloudevent(&arrival.event, arrival.time);
    kept(pipeline, position, RefusedReason::TooManyRecipients, detail, &body, headers)
}

/// The store can never take it, and said so when it was given it alone. `None`: nothing is left to be spared. (Whoever sent it is
/// told that, too: the store's own words, which name it, stand in the log.)
pub(super) fn unstorable(pipeline: &Pipeline, entry: &Entry, position: String) -> Option<Refused> {
    let detail = "the store can't hold it; the worker's log says why".to_owned();
    match entry {
        Entry::Event(arrival) => {
            let (body, headers) = as_cloudevent(&arrival.event, arrival.time);
            Some(kept(pipeline, position, RefusedReason::WrongType, detail, &body, headers))
        }
        // As little as there can be of a dead letter.
        Entry::Refused(refused) if !refused.headers.is_empty() || refused.broker_id.is_some() => {
            Some(Refused { headers: vec![], broker_id: None, detail, ..(**refused).clone() })
        }
        Entry::Refused(_) => None,
    }
}

/// Where an event stood. (No name of its own: the log tells it.)
pub(super) fn at(message: &str, place: Option<&Position>) -> String {
    let Some(Position { index, row }) = place else { return message.to_owned() };
    let row = row.map_or(String::new(), |row| format!(" row {row}"));
    format!("{message} event {}{row}", index + 1)
}

fn kept(
    pipeline: &Pipeline,
    position: String,
    reason: RefusedReason,
    detail: String,
    body: &[u8],
    headers: Vec<(String, String)>,
) -> Refused {
    Refused {
        source: pipeline.source.clone(),
        position,
        reason,
        detail,
        body: body[..body.len().min(DEAD_LETTER_BYTES)].to_vec(),
        bytes: body.len() as u64,
        sha256: Sha256::digest(body).into(),
        headers,
        broker_id: None,
    }
}

/// An event in the form in which the front door takes it again, whenever that is: as of its own time, or else of when it came, which
/// is no part of it.
fn as_cloudevent(event: &Event, time: Time) -> (Vec<u8>, Vec<(String, String)>) {
    let mut json = serde_json::json!({
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.kind,
        "data": event.data.map(),
    });
    if let Some(time) = event.time {
        json["time"] = time.to_string().into();
    }
    if let Some(expiry) = event.expiry {
        json["expirytime"] = expiry.to_string().into();
    }
    let headers = vec![
        ("content-type".to_owned(), "application/cloudevents+json".to_owned()),
        (TIME.to_owned(), time.to_string()),
    ];
    (json.to_string().into_bytes(), headers)
}
