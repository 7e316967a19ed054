//! Sample events: one or more of each type. `preview` shows them, and the start tries every template with them.

use serde_json::{Map, Value};

use super::data;
use crate::model::{AttemptId, Contents, DigestId, Listed, Person, Time};

/// CloudEvents, one a line; also a model for producers.
pub const NDJSON: &str = include_str!("../../templates/samples.ndjson");

/// When the sample mails are written: 2026-11-22T08:00:00Z.
const AT: Time = Time(1_795_334_400_000_000);

/// All samples, those with a deadline first, as a mail lists them.
pub fn all() -> Vec<Listed> {
    let parsed = NDJSON.lines().enumerate().filter_map(|(n, line)| {
        let object = serde_json::from_str::<Map<String, Value>>(line).ok()?;
        listed(n as i64 + 1, &object).ok()
    });
    in_order(parsed.collect())
}

/// The samples that show what a template is for: its own types, and for `digest` or a name of one's own, all.
pub fn for_template(template: &str) -> Vec<Listed> {
    let types: &[&str] = match template {
        "approvals" => &["membership.requested", "membership.reminder"],
        "decisions" => &["membership.decided", "membership.withdrawn", "membership.added"],
        "expiries" => &["membership.expiring", "membership.renewed", "membership.removed"],
        "reviews" => &["membership.review_due"],
        "changes" => &["domain.changed"],
        "certificates" => &["certificate.unrefreshed"],
        "health" => &["zts.unhealthy"],
        _ => return all(),
    };
    let wanted = |item: &Listed| types.iter().any(|t| item.kind == format!("io.athenz.{t}.v1"));
    all().into_iter().filter(wanted).collect()
}

/// Most urgent first: by deadline, those without one last, then by time.
pub fn in_order(mut items: Vec<Listed>) -> Vec<Listed> {
    items.sort_by_key(|i| (i.deadline.is_none(), i.deadline, i.time, i.event_number));
    items
}

/// A mail to a sample person.
pub fn contents(items: Vec<Listed>, route: &str) -> Contents {
    Contents {
        attempt: AttemptId { digest: DigestId { store: 0x5a4d_701e, number: 1 }, number: 1 },
        route: route.to_owned(),
        recipient: Person {
            principal: "user.alice".into(),
            address: Some("alice@example.com".into()),
            zone: Some("Europe/Berlin".into()),
            language: None,
        },
        open_total: items.len() as u64,
        items,
        at: AT,
        call_at: AT,
    }
}

/// A CloudEvent in its JSON format, as a mail lists it. Only what a preview needs; intake decodes with all rules.
///
/// # Errors
/// Names the attribute that is missing or of the wrong type.
pub fn listed(event_number: i64, event: &Map<String, Value>) -> Result<Listed, String> {
    let text = |key: &str| match event.get(key) {
        Some(Value::String(s)) if !s.is_empty() => Ok(s.clone()),
        Some(_) => Err(format!("{key}: expected a text")),
        None => Err(format!("{key}: missing")),
    };
    let time = text("time")?;
    let time = Time::parse(&time).ok_or("time: expected RFC 3339, e.g. 2026-11-21T10:00:00Z")?;
    let data = match event.get("data") {
        Some(Value::Object(map)) => map.clone(),
        Some(Value::Null) | None => Map::new(),
        Some(other) => Map::from_iter([("value".to_owned(), other.clone())]),
    };
    let kind = text("type")?;
    let deadline = match kind.as_str() {
        "io.athenz.membership.expiring.v1" => data::time(&data, "expires_at"),
        "io.athenz.certificate.unrefreshed.v1" | "io.athenz.zts.unhealthy.v1" => {
            data::time(&data, "expires_at").filter(|end| *end > time)
        }
        "io.athenz.membership.review_due.v1" => data::time(&data, "review_by"),
        _ => None,
    };
    Ok(Listed {
        event_number,
        source: text("source")?,
        id: text("id")?,
        kind,
        time,
        deadline,
        subject_key: text("subject").ok(),
        data,
        data_cut: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_readable_and_every_template_has_some() {
        assert_eq!(all().len(), NDJSON.lines().count());
        assert!(super::super::NAMES.iter().all(|name| !for_template(name).is_empty()));
    }
}
