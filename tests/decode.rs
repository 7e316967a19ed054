//! What comes in and what it becomes: the forms, the dialects, the refusals.

#[path = "decode/athenz.rs"]
mod athenz;
#[path = "decode/bad_input.rs"]
mod bad_input;
#[path = "decode/envelopes.rs"]
mod envelopes;
#[path = "decode/forms.rs"]
mod forms;
#[path = "decode/kinds.rs"]
mod kinds;
#[path = "decode/random.rs"]
mod random;
#[path = "decode/samples.rs"]
mod samples;

use owlpost::decode::{Decoded, Decoder, Limits, Settings};
use owlpost::model::{Event, Position, Refused, RefusedReason, Time};
use owlpost::source::{Message, UNREADABLE};
use serde_json::{Value, json};

fn now() -> Time {
    Time::parse("2026-11-21T12:00:00Z").unwrap()
}

fn settings() -> Settings {
    Settings { source: "events".into(), origin: "zms/prod".into(), realm: String::new(), limits: Limits::default() }
}

/// As HTTP gives it: no id and no time of a broker.
fn post(content_type: &str, body: impl Into<Vec<u8>>) -> Message {
    let headers = match content_type {
        "" => Vec::new(),
        media => vec![("content-type".into(), media.into())],
    };
    Message { position: "POST /v1/events".into(), broker_id: None, headers, body: body.into(), time: None }
}

fn with(mut message: Message, headers: &[(&str, &str)]) -> Message {
    message.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    message
}

fn decode(message: &Message) -> Vec<Decoded> {
    Decoder::new(settings()).decode(message, now())
}

fn event(message: &Message) -> Event {
    match decode(message).as_slice() {
        [Decoded::Event(event)] => (**event).clone(),
        other => panic!("expected one event, got {other:?}"),
    }
}

fn refusal(message: &Message) -> Refused {
    match decode(message).as_slice() {
        [Decoded::Refused(refused)] => (**refused).clone(),
        other => panic!("expected one refusal, got {other:?}"),
    }
}

/// The reason and the detail.
fn refused(message: &Message) -> (RefusedReason, String) {
    let refused = refusal(message);
    (refused.reason, refused.detail)
}

fn event_of(value: &Value) -> Event {
    event(&post("application/cloudevents+json", value.to_string()))
}

fn refused_of(value: &Value) -> (RefusedReason, String) {
    refused(&post("application/cloudevents+json", value.to_string()))
}

/// A valid request, to be changed by a test.
fn request() -> Value {
    json!({
        "specversion": "1.0", "id": "7f1c", "source": "zms/prod", "type": "io.athenz.membership.requested.v1",
        "subject": "sports:role.writers/user.joe", "time": "2026-11-21T10:00:00Z", "datacontenttype": "application/json",
        "data": {
            "domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "user.joe",
            "change": "add", "requester": "user.joe", "reason": "on call this week",
            "expires_at": "2026-12-21T10:00:00Z", "recipients": ["sports:role.admin", "user.alice"]
        }
    })
}

fn changed(path: &str, value: Value) -> Value {
    let mut event = request();
    let (parent, key) = path.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[key] = value;
    event
}

fn without(path: &str) -> Value {
    let mut event = request();
    let (parent, key) = path.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    event
}
