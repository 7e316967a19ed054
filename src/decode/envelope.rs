//! Envelopes that AWS puts around an event on its way to a queue: SNS (a topic without raw message delivery) and
//! EventBridge. They are taken off first; one may stand in the other.

use serde_json::{Map, Value};

use crate::decode::finish::{Content, Draft};
use crate::decode::json;
use crate::decode::pieces::Piece;
use crate::decode::problem::{Problem, Typed};
use crate::decode::{athenz, kinds};
use crate::model::Time;
use crate::source::{Message, OWN};

/// EventBridge in SNS is what AWS makes; more is no event.
pub(super) const DEPTH_MAX: usize = 2;

/// What is in an envelope.
pub(super) enum Inside {
    /// To be decoded as if it had come alone.
    Message(Box<Message>),
    /// Of EventBridge: the event is the envelope's own, its `detail` is no event of ours.
    Event(Box<Draft<'static>>),
}

/// `outer`: the message that `piece` is of; `id`: what a dialect without one would get. `None`: no envelope.
pub(super) fn open(
    outer: &Message,
    piece: &Piece<'_>,
    map: &Map<String, Value>,
    id: Option<String>,
) -> Option<Result<Inside, Problem>> {
    let is = |name: &str| map.get(name).is_some_and(Value::is_string);
    if map.get("Type").and_then(Value::as_str) == Some("Notification") && map.contains_key("Message") {
        Some(sns(outer, piece, map, id))
    } else if is("detail-type") && is("source") && is("id") && map.contains_key("detail") {
        Some(event_bridge(outer, piece, map))
    } else {
        None
    }
}

fn sns(outer: &Message, piece: &Piece<'_>, map: &Map<String, Value>, id: Option<String>) -> Result<Inside, Problem> {
    let body = match map.get("Message") {
        Some(Value::String(text)) => text.clone().into_bytes(),
        other => return Err(Problem::wrong_type(&["Message"], "a string", other.unwrap_or(&Value::Null))),
    };
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    Ok(Inside::Message(Box::new(Message {
        position: format!("{} in SNS message", piece.place.position(&outer.position)),
        broker_id: text("MessageId").map(str::to_owned).or(id),
        headers: attributes(map),
        body,
        time: text("Timestamp").and_then(kinds::time).or(outer.time),
    })))
}

/// `MessageAttributes` of the types String and Number, by lower-case name; our own headers nobody else sets.
fn attributes(map: &Map<String, Value>) -> Vec<(String, String)> {
    let all = map.get("MessageAttributes").and_then(Value::as_object).into_iter().flatten();
    let plain = all.filter(|(_, value)| value["Type"] != "Binary");
    let named =
        plain.filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value["Value"].as_str()?.to_owned())));
    named.filter(|(name, _)| !name.starts_with(OWN)).collect()
}

fn event_bridge(outer: &Message, piece: &Piece<'_>, map: &Map<String, Value>) -> Result<Inside, Problem> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let time: Option<Time> = match map.get("time") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            Some(kinds::time(text).ok_or_else(|| Problem::wrong_value(&["time"], kinds::NOT_A_TIME))?)
        }
        Some(other) => return Err(Problem::wrong_type(&["time"], "a string", other)),
    };
    let detail = match map.get("detail") {
        Some(Value::Object(detail)) => detail,
        other => {
            let found = other.unwrap_or(&Value::Null).type_name();
            return Err(Problem::wrong_value(&["detail"], format!("expected an object, found {found}")));
        }
    };
    let is_ours =
        detail.contains_key("specversion") || athenz::is_notification(detail) || athenz::is_domain_change(detail);
    // The bytes as they came, so that what is refused is what was sent.
    let bytes = json::member(piece.bytes, "detail");
    if let (true, Some(bytes)) = (is_ours, bytes) {
        return Ok(Inside::Message(Box::new(Message {
            position: format!("{} in EventBridge event", piece.place.position(&outer.position)),
            broker_id: Some(text("id")).filter(|id| !id.is_empty()),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: bytes.to_vec(),
            time: time.or(outer.time),
        })));
    }
    Ok(Inside::Event(Box::new(Draft {
        id: text("id"),
        source: text("source"),
        kind: text("detail-type"),
        time,
        expiry: None,
        data: Content::from(detail.clone()),
        id_counts_for: None,
    })))
}
