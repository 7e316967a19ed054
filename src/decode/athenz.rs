//! The JSON of Athenz's own messages: `DomainChangeMessage` (com.yahoo.athenz.common.messaging) and `Notification`
//! (com.yahoo.athenz.common.server.notification), read from Athenz 1.12.46.
//!
//! | `Notification.Type` | becomes | rows in `details` |
//! | --- | --- | --- |
//! | `ROLE_MEMBER_APPROVAL`, `GROUP_MEMBER_APPROVAL` | `membership.requested`, change `add` | |
//! | `ROLE_MEMBER_DECISION`, `GROUP_MEMBER_DECISION` | `membership.decided` | |
//! | `PENDING_ROLE_APPROVAL`, `PENDING_GROUP_APPROVAL` | `membership.reminder` | |
//! | `ROLE_MEMBER_EXPIRY`, `GROUP_MEMBER_EXPIRY` | `membership.expiring` | `rolesList`, `membersList`: `domain;name;member;expiration;urlencode(notes)` |
//! | `ROLE_MEMBER_REVIEW` | `membership.review_due` | the same, with the review date |
//! | `CERT_FAILED_REFRESH` | `certificate.unrefreshed` | `unrefreshedCerts`: `service;provider;instance;updated;expires;host` |
//! | `AWS_ZTS_HEALTH` | `zts.unhealthy` | `awsZtsHealth`: `url;domain;role;expiration;message`, one row |
//!
//! Rows are parted by `|`; each is an event of its own, `<id>#<n>`. `service` and `role` become full names
//! (`sports.api`, `sports:role.readers`), since the short ones of two domains may be the same.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::decode::budget::Budget;
use crate::decode::finish::{Content, Draft};
use crate::decode::problem::Problem;
use crate::decode::{Settings, kinds, percent};
use crate::model::{RefusedReason, Time, hash16};

/// An id made of the content counts for so long: a double click is one request, the next day's is another.
const CONTENT_ID_COUNTS_FOR: Duration = Duration::from_secs(600);

/// One event of a notification, or why there is none.
pub(super) struct Row {
    pub draft: Result<Draft<'static>, Problem>,
    /// From 1.
    pub number: usize,
    /// The row as it stands in `details`; `None`: the notification as a whole.
    pub text: Option<String>,
}

#[derive(Clone, Copy)]
enum Type {
    Approval(&'static str),
    Decision(&'static str),
    Reminder(&'static str),
    Ending { kind: &'static str, collection: &'static str, date: &'static str },
    Certificates,
    Health,
}

fn type_named(name: &str) -> Option<Type> {
    let ending = |kind, collection, date| Type::Ending { kind, collection, date };
    Some(match name {
        "ROLE_MEMBER_APPROVAL" => Type::Approval("role"),
        "GROUP_MEMBER_APPROVAL" => Type::Approval("group"),
        "ROLE_MEMBER_DECISION" => Type::Decision("role"),
        "GROUP_MEMBER_DECISION" => Type::Decision("group"),
        "PENDING_ROLE_APPROVAL" => Type::Reminder("role"),
        "PENDING_GROUP_APPROVAL" => Type::Reminder("group"),
        "ROLE_MEMBER_EXPIRY" => ending(kinds::EXPIRING, "role", "expires_at"),
        "GROUP_MEMBER_EXPIRY" => ending(kinds::EXPIRING, "group", "expires_at"),
        "ROLE_MEMBER_REVIEW" => ending(kinds::REVIEW_DUE, "role", "review_by"),
        "CERT_FAILED_REFRESH" => Type::Certificates,
        "AWS_ZTS_HEALTH" => Type::Health,
        _ => return None,
    })
}

pub(super) fn is_domain_change(map: &Map<String, Value>) -> bool {
    map.contains_key("domainName") && (map.contains_key("messageId") || map.contains_key("objectType"))
}

pub(super) fn is_notification(map: &Map<String, Value>) -> bool {
    let named = || map.get("type").and_then(Value::as_str).and_then(type_named).is_some();
    map.contains_key("consolidatedBy") || named()
}

/// It names neither a member nor an actor, and a pending request looks like an addition: all it says is what changed.
pub(super) fn domain_change(settings: &Settings, map: Map<String, Value>) -> Result<Draft<'static>, Problem> {
    let domain = required(&map, &["domainName"])?;
    let kind = required(&map, &["objectType"])?.to_ascii_lowercase();
    let name = match text(&map, &["objectName"])? {
        Some(name) if !name.is_empty() => name,
        _ if kind == "domain" => domain,
        _ => return Err(Problem::missing(&["objectName"])),
    };
    // Jackson writes 0 for an unset `long`.
    let time = match map.get("published") {
        None | Some(Value::Null) => None,
        Some(Value::Number(number)) if number.as_i64() == Some(0) => None,
        Some(Value::Number(number)) => Some(number.as_i64().and_then(Time::from_ms).ok_or_else(|| {
            Problem::wrong_value(&["published"], "is no time in milliseconds since 1970 up to the year 9999")
        })?),
        Some(other) => return Err(Problem::wrong_type(&["published"], "a number of milliseconds", other)),
    };
    let mut data = object(json!({"domain": domain, "object": {"kind": kind, "name": name}}));
    if let Some(api) = text(&map, &["apiName"])? {
        data.insert("api".to_owned(), api.into());
    }
    Ok(Draft {
        id: required(&map, &["messageId"])?.to_owned(),
        source: settings.origin.clone(),
        kind: kinds::DOMAIN_CHANGED.to_owned(),
        time,
        expiry: None,
        data: Content::from(data),
        id_counts_for: None,
    })
}

/// `id`: what the producer or the broker gave; `of_row`: it is that of the one row, which was refused before.
/// `None`: the DOMAIN twin of a notification. Athenz before 1.12 has no
/// `consolidatedBy` and sends each once: absent, it counts as PRINCIPAL.
pub(super) fn notification(
    settings: &Settings,
    map: &Map<String, Value>,
    id: &Option<String>,
    of_row: bool,
    budget: &mut Budget,
) -> Result<Option<Vec<Row>>, Problem> {
    let name = required(map, &["type"])?;
    let known = type_named(name).ok_or_else(|| {
        Problem::new(RefusedReason::UnknownFormat, "is none of the 11 types of Athenz 1.12").on(&["type"])
    })?;
    match text(map, &["consolidatedBy"])? {
        None | Some("PRINCIPAL") => {}
        Some("DOMAIN") => return Ok(None),
        Some(_) => {
            return Err(Problem::wrong_value(&["consolidatedBy"], "expected PRINCIPAL or DOMAIN, found another text"));
        }
    }
    let recipients = recipients(map, settings.limits.recipients_per_event)?;
    let (id, id_counts_for) = match id {
        Some(id) => (id.clone(), None),
        None => (content_id(map, name), Some(CONTENT_ID_COUNTS_FOR)),
    };
    let draft = |id: String, kind: &str, mut data: Map<String, Value>| {
        if let Some(recipients) = recipients {
            data.insert("recipients".to_owned(), Value::Array(recipients.clone()));
        }
        let (source, kind) = (settings.origin.clone(), kind.to_owned());
        Draft { id, source, kind, time: None, expiry: None, data: Content::from(data), id_counts_for }
    };
    if !matches!(known, Type::Ending { .. } | Type::Certificates) {
        budget.take_event()?;
    }
    let row_id = |n: usize| if of_row { id.clone() } else { format!("{id}#{n}") };
    let whole = |kind, data| Ok(Some(vec![Row { draft: Ok(draft(id.clone(), kind, data)), number: 1, text: None }]));
    match known {
        Type::Approval(collection) => {
            let mut data = membership(map, collection)?;
            data.insert("change".to_owned(), "add".into());
            whole(kinds::REQUESTED, data)
        }
        Type::Decision(collection) => {
            let mut data = membership(map, collection)?;
            data.insert("change".to_owned(), one_of(map, "pendingState", [("ADD", "add"), ("DELETE", "delete")])?);
            let decisions = [("approve", "approve"), ("reject", "reject")];
            data.insert("decision".to_owned(), one_of(map, "membershipDecision", decisions)?);
            optional(map, "actionPrincipal", "actor", &mut data)?;
            whole(kinds::DECIDED, data)
        }
        Type::Reminder(collection) => whole(kinds::REMINDER, object(json!({"collection": {"kind": collection}}))),
        Type::Ending { kind, collection, date } => {
            let rows = rows(map, &["rolesList", "membersList"], recipients, "", budget)?;
            let read = |row: &str| ending(row, collection, date);
            Ok(Some(each(rows, read, |n, data| draft(row_id(n), kind, data))))
        }
        Type::Certificates => {
            let domain = required(map, &["details", "domain"])?;
            let rows = rows(map, &["unrefreshedCerts"], recipients, domain, budget)?;
            let read = |row: &str| certificate(row, domain);
            Ok(Some(each(rows, read, |n, data| draft(row_id(n), kinds::CERTIFICATE_UNREFRESHED, data))))
        }
        Type::Health => {
            // One row by construction, and its message is free text that is not encoded: it is not split by `|`.
            let row = required(map, &["details", "awsZtsHealth"])?;
            let server = text(map, &["details", "affectedZts"])?;
            let read = |row: &str| health(row, server);
            Ok(Some(each(vec![row], read, |n, data| draft(row_id(n), kinds::ZTS_UNHEALTHY, data))))
        }
    }
}

fn each(
    rows: Vec<&str>,
    read: impl Fn(&str) -> Result<Map<String, Value>, Problem>,
    draft: impl Fn(usize, Map<String, Value>) -> Draft<'static>,
) -> Vec<Row> {
    let row = |(index, text): (usize, &str)| Row {
        draft: read(text).map(|data| draft(index + 1, data)),
        number: index + 1,
        text: Some(text.to_owned()),
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// The rows under the given keys, of which Athenz sets one. `common` is what each row's event repeats twice.
fn rows<'m>(
    map: &'m Map<String, Value>,
    keys: &[&'static str],
    recipients: Option<&Vec<Value>>,
    common: &str,
    budget: &mut Budget,
) -> Result<Vec<&'m str>, Problem> {
    let mut rows = Vec::new();
    let named = recipients.map_or(0, Vec::len);
    let names = recipients.into_iter().flatten().filter_map(Value::as_str);
    let bytes = names.map(str::len).sum::<usize>().saturating_add(common.len().saturating_mul(2));
    let most = budget.rows(named, bytes);
    for key in keys {
        let list = text(map, &["details", key])?.unwrap_or_default();
        rows.extend(list.split('|').filter(|row| !row.is_empty()).take(most.saturating_add(1)));
        if rows.len() > most {
            let what = format!("more than {most} rows, which is what the message has room for with such recipients");
            return Err(Problem::new(RefusedReason::TooLarge, what).on(&["details", key]));
        }
    }
    if rows.is_empty() {
        let mut there = keys.iter().filter(|key| text(map, &["details", key]).is_ok_and(|list| list.is_some()));
        let key = there.next().or(keys.last()).copied().unwrap_or_default();
        return Err(Problem::new(RefusedReason::MissingAttribute, "is missing or has no row").on(&["details", key]));
    }
    budget.take_rows(rows.len(), named, bytes);
    Ok(rows)
}

/// A notification of this row alone, with what is read of its details; no more, or the letters of many bad rows would
/// repeat all of it.
pub(super) fn alone(map: &Map<String, Value>, row: &str) -> Vec<u8> {
    let mut details = Map::new();
    let (key, common) = match map.get("type").and_then(Value::as_str).and_then(type_named) {
        Some(Type::Certificates) => ("unrefreshedCerts", Some("domain")),
        Some(Type::Health) => ("awsZtsHealth", Some("affectedZts")),
        _ => ("membersList", None),
    };
    if let Some(name) = common
        && let Ok(Some(value)) = text(map, &["details", name])
    {
        details.insert(name.to_owned(), value.into());
    }
    details.insert(key.to_owned(), row.into());
    let alone = json!({"type": map.get("type"), "consolidatedBy": "PRINCIPAL", "recipients": map.get("recipients"),
        "details": details});
    alone.to_string().into_bytes()
}

fn columns<const N: usize>(row: &str, meaning: &str) -> Result<[String; N], Problem> {
    let found: Vec<String> = row.split(';').map(str::to_owned).collect();
    let count = found.len();
    found
        .try_into()
        .map_err(|_| Problem::new(RefusedReason::WrongType, format!("{count} columns; expected {N}: {meaning}")))
}

fn ending(row: &str, collection: &str, date: &str) -> Result<Map<String, Value>, Problem> {
    let [domain, name, member, end, notes] = columns(row, "domain;name;member;date;notes")?;
    let mut data =
        object(json!({"domain": domain, "collection": {"kind": collection, "name": name}, "member": member}));
    data.insert(date.to_owned(), end.into());
    if !notes.is_empty() {
        data.insert("notes".to_owned(), percent::form_value(&notes).into());
    }
    Ok(data)
}

fn certificate(row: &str, domain: &str) -> Result<Map<String, Value>, Problem> {
    let meaning = "service;provider;instance;updated;expires;host";
    let [service, provider, instance, updated, expires, host] = columns(row, meaning)?;
    let service = match service.as_str() {
        "" => service,
        short => format!("{domain}.{short}"),
    };
    let mut data = object(json!({"domain": domain, "service": service, "instance": instance}));
    for (name, value) in [("provider", provider), ("host", host)] {
        if !value.is_empty() {
            data.insert(name.to_owned(), value.into());
        }
    }
    // Athenz writes an empty column for a time that it does not know; none of them must cost the alarm.
    for (name, value) in [("updated_at", updated), ("expires_at", expires)] {
        if kinds::time(&value).is_some() {
            data.insert(name.to_owned(), value.into());
        }
    }
    Ok(data)
}

fn health(row: &str, server: Option<&str>) -> Result<Map<String, Value>, Problem> {
    let columns: Vec<&str> = row.splitn(5, ';').collect();
    let [url, domain, role, expires, message] = columns[..] else {
        let what = format!("{} columns; expected 5: url;domain;role;expiration;message", columns.len());
        return Err(Problem::new(RefusedReason::WrongType, what));
    };
    let server = server.filter(|server| !server.is_empty()).unwrap_or(url);
    let role = if role.is_empty() { String::new() } else { format!("{domain}:role.{role}") };
    let mut data = object(json!({"server": server, "url": url, "domain": domain, "role": role, "message": message}));
    // One that is not RFC 3339 must not cost the alarm: it is left out.
    if kinds::time(expires).is_some() {
        data.insert("expires_at".to_owned(), expires.into());
    }
    Ok(data)
}

/// What approvals and decisions share.
fn membership(map: &Map<String, Value>, collection: &str) -> Result<Map<String, Value>, Problem> {
    let mut data = object(json!({
        "domain": required(map, &["details", "domain"])?,
        "collection": {"kind": collection, "name": required(map, &["details", collection])?},
        "member": required(map, &["details", "member"])?,
    }));
    optional(map, "requester", "requester", &mut data)?;
    optional(map, "reason", "reason", &mut data)?;
    Ok(data)
}

fn optional(map: &Map<String, Value>, key: &str, to: &str, data: &mut Map<String, Value>) -> Result<(), Problem> {
    if let Some(value) = text(map, &["details", key])? {
        data.insert(to.to_owned(), value.into());
    }
    Ok(())
}

fn one_of(map: &Map<String, Value>, key: &str, known: [(&str, &str); 2]) -> Result<Value, Problem> {
    let found = required(map, &["details", key])?;
    match known.iter().find(|(athenz, _)| *athenz == found) {
        Some((_, ours)) => Ok((*ours).into()),
        None => {
            let what = format!("expected {} or {}, found another text", known[0].0, known[1].0);
            Err(Problem::wrong_value(&["details", key], what))
        }
    }
}

fn recipients(map: &Map<String, Value>, most: usize) -> Result<Option<&Vec<Value>>, Problem> {
    let list = match map.get("recipients") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Problem::wrong_type(&["recipients"], "an array of strings", other)),
    };
    if list.len() > most {
        let what = format!("{} recipients; an event may name {most}", list.len());
        return Err(Problem::new(RefusedReason::TooManyRecipients, what).on(&["recipients"]));
    }
    match list.iter().enumerate().find(|(_, name)| !name.is_string()) {
        Some((index, other)) => Err(Problem::wrong_type(&["recipients", &index.to_string()], "a string", other)),
        None => Ok(Some(list)),
    }
}

/// 32 hexadecimal digits of what makes a notification: the same for any order of keys and of the (set of) recipients.
fn content_id(map: &Map<String, Value>, name: &str) -> String {
    let mut recipients: Vec<&str> =
        map.get("recipients").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let details = map.get("details").map(Value::to_string).unwrap_or_default();
    let mut parts = vec![name, details.as_str()];
    parts.extend(recipients);
    hash16(b"athenz notification", &parts).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Null is absent, also on the way.
fn text<'m>(map: &'m Map<String, Value>, path: &[&str]) -> Result<Option<&'m str>, Problem> {
    let Some((last, above)) = path.split_last() else { return Ok(None) };
    let mut map = map;
    for (depth, step) in above.iter().enumerate() {
        map = match map.get(*step) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(inner)) => inner,
            Some(other) => return Err(Problem::wrong_type(&path[..=depth], "an object", other)),
        };
    }
    match map.get(*last) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Problem::wrong_type(path, "a string", other)),
    }
}

fn required<'m>(map: &'m Map<String, Value>, path: &[&str]) -> Result<&'m str, Problem> {
    match text(map, path)? {
        Some("") => Err(Problem::new(RefusedReason::MissingAttribute, "is empty").on(path)),
        Some(text) => Ok(text),
        None => Err(Problem::missing(path)),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        // Only called with objects; an empty one is refused by the checks of its type.
        _ => Map::new(),
    }
}
