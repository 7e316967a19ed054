//! An event as a message of Kafka, as the CloudEvents binding for Kafka 1.0.2 has it: structured mode, the event as it was
//! read, or binary mode, attributes in headers and the data as body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::input::Item;
use crate::decode;
use crate::outlet::Outgoing;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Structured,
    Binary,
}

type Headers = Vec<(String, String)>;

/// Section 3.3.1 of the binding.
const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";
const JSON: &str = "application/json";

/// `id`: given to a message that has none of its own.
pub(super) fn message(item: &Item, mode: Mode, id: String) -> Outgoing {
    let Ok(Value::Object(event)) = serde_json::from_slice(&item.body) else { return other(item, id) };
    if !event.contains_key("specversion") {
        return other(item, id);
    }
    let key = event.get("partitionkey").and_then(Value::as_str).map(str::to_owned);
    let binary = if mode == Mode::Binary { binary(&event, &item.body) } else { None };
    let (headers, body) =
        binary.unwrap_or_else(|| (vec![("content-type".to_owned(), STRUCTURED.to_owned())], item.body.clone()));
    Outgoing { key, headers, body }
}

/// Athenz's own messages, which the worker knows by their fields. Some have no id: with one of this run, what is sent
/// again after a broken connection counts once, and what is published again is a message of its own.
fn other(item: &Item, id: String) -> Outgoing {
    let headers = vec![("content-type".to_owned(), JSON.to_owned()), ("message-id".to_owned(), id)];
    Outgoing { key: None, headers, body: item.body.clone() }
}

/// `None`: it can only go in structured mode. Without data its value would be empty, a tombstone for most readers; and a
/// header has no place for what is no attribute.
fn binary(event: &Map<String, Value>, text: &[u8]) -> Option<(Headers, Vec<u8>)> {
    let mut headers = Vec::with_capacity(event.len());
    for (name, value) in event {
        if matches!(name.as_str(), "data" | "data_base64" | "datacontenttype") {
            continue;
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return None;
        }
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return None,
        };
        headers.push((format!("ce_{name}"), value));
    }
    let media = match event.get("datacontenttype") {
        None | Some(Value::Null) => None,
        Some(Value::String(media)) => Some(media.as_str()),
        Some(_) => return None,
    };
    let data = event.get("data").filter(|data| !data.is_null());
    let encoded = event.get("data_base64").filter(|data| !data.is_null());
    let body = match (data, encoded) {
        (Some(Value::String(text)), None) if media.is_some_and(|media| !decode::is_json_media(media)) => {
            text.clone().into_bytes()
        }
        // As it was written: a number of many digits stays what it is.
        (Some(_), None) => decode::member(text, "data")?.to_vec(),
        (None, Some(Value::String(encoded))) => STANDARD.decode(encoded).ok()?,
        _ => return None,
    };
    if body.trim_ascii().is_empty() {
        return None;
    }
    headers.push(("content-type".to_owned(), media.unwrap_or(JSON).to_owned()));
    Some((headers, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(event: &str, mode: Mode) -> Outgoing {
        let item = Item { file: "f".into(), line: 3, index: 2, body: event.as_bytes().to_vec(), events: None };
        message(&item, mode, "id-of-this-run".to_owned())
    }

    fn headers(message: &Outgoing) -> Vec<String> {
        message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn structured_mode_is_the_event_as_it_was_read() {
        let event = r#"{"specversion":"1.0", "id":"1","source":"s","type":"t","partitionkey":"sports"}"#;
        let message = encoded(event, Mode::Structured);
        assert_eq!(message.key.as_deref(), Some("sports"));
        assert_eq!(headers(&message), ["content-type: application/cloudevents+json; charset=UTF-8"]);
        assert_eq!(message.body, event.as_bytes());
    }

    #[test]
    fn binary_mode_has_the_attributes_as_headers_and_the_data_as_it_was_written() {
        let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","n":7,"b":true,"no":null,
            "data": {"n":12345678901234567890123, "x":1.10}}"#;
        let message = encoded(event, Mode::Binary);
        let mut all = headers(&message);
        all.sort();
        let expected = [
            "ce_b: true",
            "ce_id: 1",
            "ce_n: 7",
            "ce_source: s",
            "ce_specversion: 1.0",
            "ce_type: t",
            "content-type: application/json",
        ];
        assert_eq!(all, expected);
        assert_eq!(String::from_utf8(message.body).unwrap(), r#"{"n":12345678901234567890123, "x":1.10}"#);
    }

    #[test]
    fn data_that_is_no_json_is_its_own_text_or_bytes() {
        let begin = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#;
        for (rest, body, media) in [
            (r#","datacontenttype":"text/plain","data":"a\nb"}"#, &b"a\nb"[..], "text/plain"),
            (r#","datacontenttype":"image/png","data_base64":"/wA="}"#, b"\xff\0", "image/png"),
            (r#","data":"text"}"#, b"\"text\"", "application/json"),
        ] {
            let message = encoded(&format!("{begin}{rest}"), Mode::Binary);
            assert_eq!(message.body, body);
            assert!(headers(&message).contains(&format!("content-type: {media}")));
        }
    }

    #[test]
    fn what_binary_mode_cannot_carry_goes_structured() {
        let begin = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#;
        for rest in ["}", r#","data":null}"#, r#","data":"","datacontenttype":"text/plain"}"#, r#","A":1,"data":1}"#] {
            let event = format!("{begin}{rest}");
            let message = encoded(&event, Mode::Binary);
            assert_eq!((message.headers[0].1.as_str(), message.body), (STRUCTURED, event.into_bytes()));
        }
    }

    #[test]
    fn a_message_of_athenz_gets_an_id() {
        let message = encoded(r#"{"type":"ROLE_MEMBER_EXPIRY"}"#, Mode::Binary);
        assert_eq!(headers(&message), ["content-type: application/json", "message-id: id-of-this-run"]);
    }
}
