//! The known event types (`events.md`): what `data` must have, what the event is about, and what it does to its subject.
//!
//! | `io.athenz.…` | required in `data` | topic (after the realm) | effect |
//! | --- | --- | --- | --- |
//! | `membership.requested.v1` | the membership, `change` | request: membership, `change` | opens |
//! | `membership.decided.v1` | the membership, `change`, `decision` | the same | closes |
//! | `membership.withdrawn.v1` | the membership, `change` | the same | closes |
//! | `membership.expiring.v1` | the membership, `expires_at` | expiring: membership | opens; its date is its deadline |
//! | `membership.review_due.v1` | the membership, `review_by` (or `review_at`) | review: membership | opens; its date is its deadline |
//! | `membership.renewed.v1`, `.removed.v1` | the membership | expiring and review | closes both |
//! | `membership.added.v1` | the membership | | informs |
//! | `membership.reminder.v1` | nothing | | informs |
//! | `domain.changed.v1` | `domain`, `object.kind`, `object.name` | | informs |
//! | `certificate.unrefreshed.v1` | `service`, `instance` | certificate: both | opens; `expires_at` is its deadline unless past |
//! | `zts.unhealthy.v1` | `server`, `role` | zts: both | opens; `expires_at` likewise |
//!
//! The membership is `domain`, `collection.kind` (`role` or `group`), `collection.name`, `member`. `change` is `add` or
//! `delete`, `decision` is `approve` or `reject`. What is required must not be empty. Optional and checked for its type: text
//! in `requester`, `reason`, `actor`, `notes`, `api`, `provider`, `host`, `url`, `message`; a time in `expires_at` and
//! `updated_at`. Null is absent. Everything else in `data` is the producer's own. Any other type informs; its route may
//! give it an effect.

use crate::decode::finish::Content;
use crate::decode::problem::Problem;
use crate::decode::tree::{Object, Tree};
use crate::model::{Effect, RefusedReason, Time, Topic};

pub(super) const REQUESTED: &str = "io.athenz.membership.requested.v1";
pub(super) const DECIDED: &str = "io.athenz.membership.decided.v1";
pub(super) const WITHDRAWN: &str = "io.athenz.membership.withdrawn.v1";
pub(super) const EXPIRING: &str = "io.athenz.membership.expiring.v1";
pub(super) const REVIEW_DUE: &str = "io.athenz.membership.review_due.v1";
pub(super) const RENEWED: &str = "io.athenz.membership.renewed.v1";
pub(super) const REMOVED: &str = "io.athenz.membership.removed.v1";
pub(super) const ADDED: &str = "io.athenz.membership.added.v1";
pub(super) const REMINDER: &str = "io.athenz.membership.reminder.v1";
pub(super) const DOMAIN_CHANGED: &str = "io.athenz.domain.changed.v1";
pub(super) const CERTIFICATE_UNREFRESHED: &str = "io.athenz.certificate.unrefreshed.v1";
pub(super) const ZTS_UNHEALTHY: &str = "io.athenz.zts.unhealthy.v1";

pub(super) const NOT_A_TIME: &str = "is not a time of RFC 3339, e.g. 2026-11-21T10:00:00Z";

/// What an event's type and data say.
#[derive(Debug, PartialEq)]
pub(super) struct Meaning {
    pub effect: Effect,
    pub deadline: Option<Time>,
    pub subject_key: Option<String>,
    pub asker: Option<String>,
}

const NOTHING: Meaning = Meaning { effect: Effect::Informs, deadline: None, subject_key: None, asker: None };

/// Checks `data` of a known type. `review_at` is written as `review_by` too; nothing else is changed. `at` is when it
/// happened.
pub(super) fn read(kind: &str, data: &mut Content<'_>, realm: &str, at: Time) -> Result<Meaning, Problem> {
    if !kind.starts_with("io.athenz.") {
        return Ok(NOTHING);
    }
    if kind == REVIEW_DUE
        && data.members.get("review_by").is_none_or(Tree::is_null)
        && let Some(at) = data.members.get("review_at").cloned()
    {
        data.members.set("review_by", at);
        data.text = None;
    }
    let fields = Fields { data: &data.members, realm };
    let meaning = match kind {
        REQUESTED => {
            let meaning = fields.request(|topic| Effect::Opens { topic, date: None })?;
            Meaning { asker: Some(fields.asker()?), ..meaning }
        }
        DECIDED => {
            fields.one_of(&["decision"], &["approve", "reject"])?;
            fields.request(|topic| Effect::Closes { topics: vec![topic] })?
        }
        WITHDRAWN => fields.request(|topic| Effect::Closes { topics: vec![topic] })?,
        EXPIRING => fields.dated("expiring", "expires_at")?,
        REVIEW_DUE => fields.dated("review", "review_by")?,
        RENEWED | REMOVED => {
            let membership = fields.membership()?;
            let topics = ["expiring", "review"].map(|name| fields.topic(name, &membership)).to_vec();
            Meaning { effect: Effect::Closes { topics }, ..fields.about("membership", &membership) }
        }
        ADDED => fields.about("membership", &fields.membership()?),
        REMINDER => NOTHING,
        DOMAIN_CHANGED => {
            let object =
                [fields.text(&["domain"])?, fields.text(&["object", "kind"])?, fields.text(&["object", "name"])?];
            fields.about("domain", &object)
        }
        CERTIFICATE_UNREFRESHED => {
            let parts = [fields.text(&["service"])?, fields.text(&["instance"])?];
            let effect = Effect::Opens { topic: fields.topic("certificate", &parts), date: None };
            Meaning { effect, deadline: fields.end_after(at)?, ..fields.about("certificate", &parts) }
        }
        ZTS_UNHEALTHY => {
            let parts = [fields.text(&["server"])?, fields.text(&["role"])?];
            let effect = Effect::Opens { topic: fields.topic("zts", &parts), date: None };
            Meaning { effect, deadline: fields.end_after(at)?, ..fields.about("zts", &parts) }
        }
        _ => return Ok(NOTHING),
    };
    fields.check_optional()?;
    Ok(meaning)
}

/// RFC 3339. The last hours of the year 9999 (what "never" looks like in some systems) are beyond [`Time::MAX`] and are
/// read as it.
pub(super) fn time(text: &str) -> Option<Time> {
    Time::parse(text).or_else(|| {
        // Not every moment of 9999 is one of `jiff`'s, but 9998 has the same days, so it tells a time from none.
        let same_day = format!("9998{}", text.strip_prefix("9999")?);
        Time::parse(&same_day).map(|_| Time::MAX)
    })
}

struct Fields<'a> {
    data: &'a Object<'a>,
    realm: &'a str,
}

impl<'a> Fields<'a> {
    fn request(&self, effect: impl Fn(Topic) -> Effect) -> Result<Meaning, Problem> {
        let [domain, kind, name, member] = self.membership()?;
        let parts = [domain, kind, name, member, self.one_of(&["change"], &["add", "delete"])?];
        Ok(Meaning { effect: effect(self.topic("request", &parts)), ..self.about("membership", &parts) })
    }

    fn dated(&self, name: &str, field: &str) -> Result<Meaning, Problem> {
        let membership = self.membership()?;
        let date = self.time(field)?.ok_or_else(|| Problem::missing(&["data", field]))?;
        let effect = Effect::Opens { topic: self.topic(name, &membership), date: Some(date) };
        Ok(Meaning { effect, deadline: Some(date), ..self.about(name, &membership) })
    }

    /// `expires_at` of what is reported as failing, as a deadline. One that had passed before the report is none: it would
    /// make each report due at once, whatever gap its route keeps.
    fn end_after(&self, at: Time) -> Result<Option<Time>, Problem> {
        Ok(self.time("expires_at")?.filter(|end| *end > at))
    }

    /// Domain, `role` or `group`, its name, and the member.
    fn membership(&self) -> Result<[&'a str; 4], Problem> {
        Ok([
            self.text(&["domain"])?,
            self.one_of(&["collection", "kind"], &["role", "group"])?,
            self.text(&["collection", "name"])?,
            self.text(&["member"])?,
        ])
    }

    /// `requester`, or the member if it names nobody.
    fn asker(&self) -> Result<String, Problem> {
        match self.data.get("requester") {
            Some(Tree::Text(name)) if !name.is_empty() => Ok(name.clone().into_owned()),
            _ => self.text(&["member"]).map(str::to_owned),
        }
    }

    fn topic(&self, name: &str, parts: &[&str]) -> Topic {
        // The longest key has five parts.
        let mut all = [""; 7];
        all[0] = self.realm;
        all[1] = name;
        let all = &mut all[..2 + parts.len().min(5)];
        all[2..].copy_from_slice(&parts[..parts.len().min(5)]);
        Topic::of(all)
    }

    /// `<name>/<part>/…`, readable and without doubt: a slash inside a part is written `%2F`. In a realm: `<realm>:<name>/…`.
    fn about(&self, name: &str, parts: &[&str]) -> Meaning {
        let mut key = String::with_capacity(96);
        if !self.realm.is_empty() {
            key.push_str(self.realm);
            key.push(':');
        }
        key.push_str(name);
        for part in parts {
            key.push('/');
            if part.bytes().all(|b| b > 0x1f && b != 0x7f && b != b'/' && b != b'%') {
                key.push_str(part);
                continue;
            }
            for c in part.chars() {
                match c {
                    '/' | '%' | '\0'..='\x1f' | '\x7f' => key.push_str(&format!("%{:02X}", u32::from(c))),
                    c => key.push(c),
                }
            }
        }
        Meaning { subject_key: Some(key), ..NOTHING }
    }

    fn find(&self, path: &[&str]) -> Result<Option<&'a Tree<'a>>, Problem> {
        let mut map = self.data;
        let Some((last, above)) = path.split_last() else { return Ok(None) };
        for (depth, step) in above.iter().enumerate() {
            map = match map.get(step) {
                None | Some(Tree::Null) => return Ok(None),
                Some(Tree::Object(inner)) => inner,
                Some(other) => return Err(Problem::wrong_type(&in_data(&path[..=depth]), "an object", other)),
            };
        }
        Ok(map.get(last).filter(|value| !value.is_null()))
    }

    /// Required, and not empty.
    fn text(&self, path: &[&str]) -> Result<&'a str, Problem> {
        match self.find(path)? {
            Some(Tree::Text(text)) if text.is_empty() => {
                Err(Problem::new(RefusedReason::MissingAttribute, "is empty").on(&in_data(path)))
            }
            Some(Tree::Text(text)) => Ok(text),
            Some(other) => Err(Problem::wrong_type(&in_data(path), "a string", other)),
            None => Err(Problem::missing(&in_data(path))),
        }
    }

    fn one_of(&self, path: &[&str], allowed: &[&str; 2]) -> Result<&'a str, Problem> {
        let text = self.text(path)?;
        if allowed.contains(&text) {
            return Ok(text);
        }
        let what = format!("expected {:?} or {:?}, found another text", allowed[0], allowed[1]);
        Err(Problem::wrong_value(&in_data(path), what))
    }

    fn time(&self, field: &str) -> Result<Option<Time>, Problem> {
        match self.data.get(field) {
            None | Some(Tree::Null) => Ok(None),
            Some(Tree::Text(text)) => {
                time(text).map(Some).ok_or_else(|| Problem::wrong_value(&["data", field], NOT_A_TIME))
            }
            Some(other) => Err(Problem::wrong_type(&["data", field], "a time as a string", other)),
        }
    }

    fn check_optional(&self) -> Result<(), Problem> {
        for (name, value) in self.data.iter() {
            match name {
                "requester" | "reason" | "actor" | "notes" | "api" | "provider" | "host" | "url" | "message"
                    if !matches!(value, Tree::Null | Tree::Text(_)) =>
                {
                    return Err(Problem::wrong_type(&["data", name], "a string", value));
                }
                "expires_at" | "updated_at" => {
                    self.time(name)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn in_data<'p>(path: &[&'p str]) -> Vec<&'p str> {
    let mut whole = vec!["data"];
    whole.extend_from_slice(path);
    whole
}
