//! Dead letters of events that were read well and still can't be taken.

use sha2::{Digest as _, Sha256};

use super::Pipeline;
use crate::model::{Arrival, DEAD_LETTER_BYTES, Event, Refused, RefusedReason};
use crate::source::Message;
use crate::span::Span;

pub(super) fn too_old(pipeline: &Pipeline, message: &Message, alone: bool, event: &Event) -> Refused {
    let detail = format!("time: older than the retention of {}", Span(pipeline.retention));
    if alone {
        let headers = message.headers.clone();
        let refused = kept(pipeline, message.position.clone(), RefusedReason::TooOld, detail, &message.body, headers);
        return Refused { broker_id: message.broker_id.clone(), ..refused };
    }
    let (body, headers) = as_cloudevent(event);
    // One of many in its message: its id tells which.
    let position = format!("{} event {}", message.position, event.id);
    let refused = kept(pipeline, position, RefusedReason::TooOld, detail, &body, headers);
    Refused { broker_id: message.broker_id.clone(), ..refused }
}

pub(super) fn too_many(pipeline: &Pipeline, arrival: &Arrival, n: usize) -> Refused {
    let event = &arrival.event;
    let detail =
        format!("recipients: the audience is {n} people, limits.recipients_per_event is {}", pipeline.recipients_max);
    let (body, headers) = as_cloudevent(event);
    kept(pipeline, format!("{} {}", event.source, event.id), RefusedReason::TooManyRecipients, detail, &body, headers)
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

/// An event in the form in which the front door takes it again.
fn as_cloudevent(event: &Event) -> (Vec<u8>, Vec<(String, String)>) {
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
    let headers = vec![("content-type".to_owned(), "application/cloudevents+json".to_owned())];
    (json.to_string().into_bytes(), headers)
}
