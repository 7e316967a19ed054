//! CloudEvents 1.0: the JSON format (structured) and the headers of the HTTP and Kafka bindings (binary).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::decode::finish::{Content, Draft};
use crate::decode::form::{is_json, media_type};
use crate::decode::problem::Problem;
use crate::decode::tree::{Object, Tree};
use crate::decode::{Limits, Settings, json, kinds, percent};
use crate::model::{RefusedReason, Time};
use crate::source::Message;

/// The attributes that mean something here, as they came; null is unset.
#[derive(Default)]
struct Attributes<'t> {
    specversion: Option<Tree<'t>>,
    id: Option<Tree<'t>>,
    source: Option<Tree<'t>>,
    kind: Option<Tree<'t>>,
    time: Option<Tree<'t>>,
    expirytime: Option<Tree<'t>>,
    subject: Option<Tree<'t>>,
    dataschema: Option<Tree<'t>>,
    datacontenttype: Option<Tree<'t>>,
    data: Option<Tree<'t>>,
    data_base64: Option<Tree<'t>>,
}

impl<'t> Attributes<'t> {
    /// Every other member is an extension, which is checked and dropped.
    fn of(object: Object<'t>) -> Result<Attributes<'t>, Problem> {
        let mut found = Attributes::default();
        for (name, value) in object {
            let place = match name.as_ref() {
                "specversion" => &mut found.specversion,
                "id" => &mut found.id,
                "source" => &mut found.source,
                "type" => &mut found.kind,
                "time" => &mut found.time,
                "expirytime" => &mut found.expirytime,
                "subject" => &mut found.subject,
                "dataschema" => &mut found.dataschema,
                "datacontenttype" => &mut found.datacontenttype,
                "data" => &mut found.data,
                "data_base64" => &mut found.data_base64,
                extension => {
                    check_extension(extension, &value)?;
                    continue;
                }
            };
            *place = Some(value).filter(|value| !value.is_null());
        }
        Ok(found)
    }
}

/// Structured mode. `bytes`: the text of `object`.
pub(super) fn structured<'t>(
    object: Object<'t>,
    bytes: Option<&'t [u8]>,
    limits: &Limits,
) -> Result<Draft<'t>, Problem> {
    let found = Attributes::of(object)?;
    check_specversion(text("specversion", found.specversion)?.as_deref())?;
    let id = required("id", found.id)?;
    let source = required("source", found.source)?;
    let kind = required("type", found.kind)?;
    let time = time("time", found.time)?;
    let expiry = self::time("expirytime", found.expirytime)?;
    text("subject", found.subject)?;
    text("dataschema", found.dataschema)?;
    let media = text("datacontenttype", found.datacontenttype)?.map(|text| media_type(&text));
    let is_json = media.as_deref().is_none_or(is_json);
    let encoded = text("data_base64", found.data_base64)?;
    let data = found.data;
    let data = match (data, encoded) {
        (Some(_), Some(_)) => {
            return Err(Problem::wrong_value(&["data_base64"], "stands beside data; an event has one of them"));
        }
        (Some(Tree::Object(members)), None) => {
            let text = bytes.and_then(|bytes| json::member(bytes, "data"));
            Content { members, text: text.and_then(|text| std::str::from_utf8(text).ok()) }
        }
        (Some(data), None) => as_object(data),
        (None, Some(encoded)) => {
            let bytes = STANDARD
                .decode(encoded.as_bytes())
                .map_err(|_| Problem::wrong_value(&["data_base64"], "is not base64 (RFC 4648, section 4)"))?;
            if is_json {
                // A place in the decoded bytes is none in the event.
                let value = json::parse(&bytes, limits).map_err(|problem| {
                    let what = match problem.reason {
                        RefusedReason::TooDeep => "is nested too deeply, once decoded",
                        _ => "is not JSON, once decoded",
                    };
                    Problem::new(problem.reason, what).on(&["data_base64"])
                })?;
                // The bytes are not the event's.
                as_object(Tree::from(serde_json::Value::from(value)))
            } else {
                as_value(bytes)
            }
        }
        (None, None) => Content::default(),
    };
    Ok(Draft { id, source, kind, time, expiry, data, id_counts_for: None })
}

/// Binary mode: attributes in `ce-*` (HTTP, percent-encoded) or `ce_*` (Kafka, UTF-8) headers, the body is the data.
pub(super) fn binary<'m>(settings: &Settings, message: &'m Message) -> Result<Draft<'m>, Problem> {
    let mut members = Vec::new();
    for (header, value) in &message.headers {
        let (name, value) = if let Some(name) = header.strip_prefix("ce-") {
            let plain = percent::header_value(value).ok_or_else(|| {
                Problem::new(RefusedReason::NotUtf8, "the header is not UTF-8, once percent-decoded").on(&[known(name)])
            })?;
            (name, plain)
        } else if let Some(name) = header.strip_prefix("ce_") {
            (name, Cow::Borrowed(value.as_str()))
        } else {
            continue;
        };
        // In binary mode these are the body and its content type; a header of that name says nothing.
        if !matches!(name, "data" | "data_base64" | "datacontenttype") {
            members.push((Cow::Borrowed(name), Tree::Text(value)));
        }
    }
    let mut draft = structured(members.into_iter().collect(), None, &settings.limits)?;
    if message.body.trim_ascii().is_empty() {
        return Ok(draft);
    }
    let media = message.header("content-type").map(media_type);
    if message.body.len() > settings.limits.event_bytes || media.as_deref().is_none_or(is_json) {
        draft.data = match json::parse(&message.body, &settings.limits)? {
            Tree::Object(members) => Content { members, text: std::str::from_utf8(message.body.trim_ascii()).ok() },
            other => as_object(other),
        };
    } else {
        draft.data = as_value(message.body.clone());
    }
    Ok(draft)
}

/// Data that is no object stands under `"value"`; JSON null is no data.
fn as_object(data: Tree<'_>) -> Content<'_> {
    let members = match data {
        Tree::Object(members) => members,
        Tree::Null => Object::default(),
        other => Object::from_iter([(Cow::Borrowed("value"), other)]),
    };
    Content { members, text: None }
}

/// Data that is no JSON stands under `"value"`: as text if it is UTF-8, else as base64.
fn as_value(bytes: Vec<u8>) -> Content<'static> {
    let text = String::from_utf8(bytes).unwrap_or_else(|e| STANDARD.encode(e.as_bytes()));
    as_object(Tree::Text(Cow::Owned(text)))
}

fn check_specversion(version: Option<&str>) -> Result<(), Problem> {
    match version {
        Some("1.0") => Ok(()),
        Some(_) => {
            let what = "this version of CloudEvents is not known; only \"1.0\" is";
            Err(Problem::new(RefusedReason::UnknownSpecversion, what).on(&["specversion"]))
        }
        None => Err(Problem::missing(&["specversion"])),
    }
}

/// An attribute of a string type.
fn text<'t>(name: &str, value: Option<Tree<'t>>) -> Result<Option<Cow<'t, str>>, Problem> {
    match value {
        None => Ok(None),
        Some(Tree::Text(text)) => Ok(Some(text)),
        Some(other) => Err(Problem::wrong_type(&[name], "a string", &other)),
    }
}

fn required(name: &str, value: Option<Tree<'_>>) -> Result<String, Problem> {
    text(name, value)?.map(Cow::into_owned).ok_or_else(|| Problem::missing(&[name]))
}

fn time(name: &str, value: Option<Tree<'_>>) -> Result<Option<Time>, Problem> {
    let Some(text) = text(name, value)? else { return Ok(None) };
    kinds::time(&text).map(Some).ok_or_else(|| Problem::wrong_value(&[name], kinds::NOT_A_TIME))
}

/// Names: lower-case letters and digits. Values: Boolean, Integer (32 bits) or String (CloudEvents 1.0, "Type system").
fn check_extension(name: &str, value: &Tree<'_>) -> Result<(), Problem> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        let what = "the name of an attribute may only have lower-case letters (a to z) and digits";
        return Err(Problem::wrong_value(&[known(name)], what));
    }
    match value {
        Tree::Null | Tree::Bool(_) | Tree::Text(_) => Ok(()),
        Tree::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Tree::Number(_) => {
            Err(Problem::wrong_value(&[known(name)], "expected an integer of 32 bits, found another number"))
        }
        other => Err(Problem::wrong_type(&[known(name)], "a boolean, an integer or a string", other)),
    }
}

/// Names come from outside too: one is only repeated if it is short and plain.
fn known(name: &str) -> &str {
    if name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) { name } else { "" }
}
