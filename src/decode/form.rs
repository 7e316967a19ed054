//! How a message is to be read, by its content type and headers.

use crate::decode::problem::Problem;
use crate::model::RefusedReason;
use crate::source::Message;

/// How the bytes of a message are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Structured,
    Batch,
    Binary,
    Lines,
    Any,
}

pub(super) fn form_of(message: &Message) -> Result<Form, Problem> {
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
pub(super) fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether data of this content type is JSON.
pub fn is_json_media(content_type: &str) -> bool {
    is_json(&media_type(content_type))
}

/// As the CloudEvents JSON format, 3.1: the subtype is `json` or ends in `+json`.
pub(super) fn is_json(media: &str) -> bool {
    media.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}
