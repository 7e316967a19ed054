//! From a message of the SDK to one of ours.

use std::fmt::Write as _;

use aws_sdk_sqs::types::{Message as Received, MessageSystemAttributeName as Attribute};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::taken::Taken;
use crate::model::{DEAD_LETTER_BYTES, Time};
use crate::source::{Message, OWN, TRUNCATED};

/// The system attributes that are asked for.
pub const ATTRIBUTES: [Attribute; 3] =
    [Attribute::ApproximateReceiveCount, Attribute::SentTimestamp, Attribute::MessageGroupId];

/// `None`: without a receipt handle nothing can be done with it; SQS gives none without.
pub fn taken(queue: &str, is_fifo: bool, event_bytes: usize, received: Received) -> Option<Taken> {
    let attribute = |name: &Attribute| received.attributes().and_then(|all| all.get(name)).map(String::as_str);
    let count = attribute(&Attribute::ApproximateReceiveCount).and_then(|n| n.parse().ok()).unwrap_or(1);
    let time = attribute(&Attribute::SentTimestamp).and_then(|ms| ms.parse().ok()).and_then(Time::from_ms);
    // A standard queue takes a group too (fair queues), and promises no order in it.
    let group = attribute(&Attribute::MessageGroupId).filter(|_| is_fifo).map(str::to_owned);
    let mut headers = headers(&received);
    let (id, receipt) = (received.message_id.unwrap_or_default(), received.receipt_handle?);
    let mut body = received.body.unwrap_or_default().into_bytes();
    if let Some(at) = headers.iter().position(|(name, value)| name == "content-encoding" && value == "base64")
        && let Ok(plain) = STANDARD.decode(&body)
    {
        // What our own outlet does with bytes that SQS takes not as they are.
        headers.remove(at);
        body = plain;
    }
    if body.len() > event_bytes {
        let mut value = format!("{};", body.len());
        for byte in Sha256::digest(&body) {
            // Writing to a String can't fail.
            let _ = write!(value, "{byte:02x}");
        }
        headers.push((TRUNCATED.to_owned(), value));
        body.truncate(DEAD_LETTER_BYTES);
        body.shrink_to_fit();
    }
    let position = format!("queue {queue} message {id}");
    let broker_id = (!id.is_empty()).then_some(id);
    Some(Taken { message: Message { position, broker_id, headers, body, time }, receipt, group, count })
}

/// Message attributes of the types String and Number, by lower-case name.
fn headers(received: &Received) -> Vec<(String, String)> {
    let attributes = received.message_attributes().into_iter().flatten();
    let mut headers: Vec<(String, String)> = attributes
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.string_value()?.to_owned())))
        .filter(|(name, _)| !name.starts_with(OWN))
        .collect();
    headers.sort();
    headers
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::MessageAttributeValue;

    use super::*;

    fn text(value: &str) -> MessageAttributeValue {
        MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
    }

    fn received(body: &str) -> aws_sdk_sqs::types::builders::MessageBuilder {
        Received::builder().message_id("m-1").receipt_handle("r-1").body(body)
    }

    #[test]
    fn attributes_are_headers_and_the_broker_tells_id_and_time() {
        let message = received("{}")
            .message_attributes("Content-Type", text("application/cloudevents+json"))
            .message_attributes("ce_id", text("7"))
            .message_attributes("X-Owlpost-Truncated", text("1;00"))
            .attributes(Attribute::SentTimestamp, "1764000000123")
            .attributes(Attribute::ApproximateReceiveCount, "3")
            .attributes(Attribute::MessageGroupId, "g")
            .build();
        let fifo = taken("events.fifo", true, 100, message.clone()).unwrap();
        assert_eq!(fifo.message.position, "queue events.fifo message m-1");
        assert_eq!(fifo.message.broker_id.as_deref(), Some("m-1"));
        assert_eq!(fifo.message.time, Time::from_ms(1_764_000_000_123));
        assert_eq!(fifo.message.header("content-type"), Some("application/cloudevents+json"));
        assert_eq!(fifo.message.header("ce_id"), Some("7"));
        assert_eq!(fifo.message.header(TRUNCATED), None, "nobody else says that");
        assert_eq!((fifo.count, fifo.group.as_deref(), fifo.receipt.as_str()), (3, Some("g"), "r-1"));
        assert_eq!(taken("events", false, 100, message).unwrap().group, None);
    }

    #[test]
    fn a_body_over_the_limit_is_cut_and_says_what_it_was() {
        let long = "y".repeat(200_000);
        let cut = taken("q", false, 100_000, received(&long).build()).unwrap().message;
        assert_eq!(cut.body.len(), DEAD_LETTER_BYTES);
        let hex: String = Sha256::digest(&long).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(cut.header(TRUNCATED), Some(&*format!("200000;{hex}")));
        assert_eq!(taken("q", false, 200_000, received(&long).build()).unwrap().message.body.len(), 200_000);
    }

    #[test]
    fn bytes_that_went_as_base64_come_back_as_they_were() {
        let coded = received("/wA=").message_attributes("content-encoding", text("base64")).build();
        let message = taken("q", false, 100, coded).unwrap().message;
        assert_eq!((message.body.as_slice(), message.headers.len()), (&[0xff, 0][..], 0));
        let plain = received("not base64").message_attributes("content-encoding", text("base64")).build();
        assert_eq!(taken("q", false, 100, plain).unwrap().message.body, b"not base64");
    }
}
