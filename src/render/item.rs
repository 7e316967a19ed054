//! An event in words: what is asked or told, of whom, by when (`events.md` has the types and their data).

use serde_json::{Map, Value};

use super::data::{self, Bounds};
use super::kind::{self, Kind};
use super::text;
use super::view::{Fact, Item};
use super::when::{self, Zone};
use crate::model::{Listed, Time};

/// What the words of one mail depend on.
pub struct Reader<'a> {
    /// Whom the mail goes to: a principal.
    pub principal: &'a str,
    pub zone: &'a Zone,
    pub now: Time,
    /// Without a slash at its end.
    pub ui_url: Option<&'a str>,
    /// The mail tells what somebody else settled.
    pub handled: bool,
    /// Items carry their event's data: a template asks for it.
    pub with_data: bool,
    pub bounds: Bounds,
}

/// One event about one membership, with the names cleaned; the raw ones are for links.
struct Membership {
    member: String,
    requester: Option<String>,
    actor: Option<String>,
    /// `sports:role.writers`
    place: String,
    removes: bool,
    own: bool,
}

impl Reader<'_> {
    /// The item in words; `times` is how many events of the mail it stands for.
    pub fn tell(&self, listed: &Listed, times: u64) -> Item {
        let kind = Kind::of(&listed.kind);
        let (label, tone) = kind.label_and_tone();
        let mut item = Item {
            kind: text::name(&listed.kind, self.bounds.name_bytes),
            label: label.into(),
            tone: tone.into(),
            asks: yes(kind.asks() && !self.handled),
            data: if self.with_data { data::cleaned(&listed.data, self.bounds) } else { Value::Object(Map::new()) },
            ..Item::default()
        };
        if let Some(deadline) = listed.deadline {
            item.due = self.zone.day(deadline, self.now);
            item.due_in = when::distance(deadline, self.now);
            item.due_full = self.dated(deadline);
        }
        match kind {
            Kind::Requested => self.requested(listed, &mut item),
            Kind::Decided => self.decided(listed, &mut item),
            Kind::Withdrawn | Kind::Renewed | Kind::Removed | Kind::Added => self.settled(kind, listed, &mut item),
            Kind::Expiring | Kind::ReviewDue => self.ending(kind, listed, &mut item),
            Kind::Reminder => self.reminder(listed, &mut item),
            Kind::DomainChanged => self.changed(listed, &mut item),
            Kind::Certificate => self.certificate(listed, &mut item),
            Kind::Zts => self.zts(listed, &mut item),
            Kind::Other => self.other(listed, &mut item),
        }
        if self.handled {
            item.label = "Handled".into();
            item.tone = "info".into();
            // What is settled is not due any more.
            item.due.clear();
            item.due_in.clear();
            item.due_full.clear();
        }
        item.ink = kind::ink(&item.tone).into();
        if times > 1 {
            item.headline = format!("{} ({times} times; this is the last one)", item.headline);
        }
        item
    }

    fn requested(&self, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let who = m.requester.clone().unwrap_or_else(|| m.member.clone());
        item.headline = match (m.removes, m.own) {
            (false, true) => format!("{} asks to join {}", m.member, m.place),
            (false, false) => format!("{who} asks to add {} to {}", m.member, m.place),
            (true, true) => format!("{} asks to leave {}", m.member, m.place),
            (true, false) => format!("{who} asks to remove {} from {}", m.member, m.place),
        };
        fact(item, "Asked", &self.dated(listed.time));
        if !m.removes {
            match self.when(listed, "expires_at") {
                Some(end) => {
                    item.note = "Athenz forgets the requested end date when you approve: to keep it, enter it again \
                                 with your approval."
                        .into();
                    fact(item, "Requested end", &end);
                }
                None => fact(item, "Requested end", "none asked for"),
            }
        }
        self.quote(listed, &who, item);
        self.link(item, "Decide in Athenz", listed, |domain| {
            Some(format!("/workflow/domain?domain={}", text::url_part(domain)))
        });
    }

    fn decided(&self, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let approved = match self.field(listed, "decision").as_deref() {
            Some("approve" | "approved") => Some(true),
            Some("reject" | "rejected") => Some(false),
            _ => None,
        };
        let word = match approved {
            Some(true) => "approved",
            Some(false) => "rejected",
            None => "decided",
        };
        let what = match (approved, m.removes) {
            (Some(true), false) => format!("{} is now in {}", m.member, m.place),
            (Some(true), true) => format!("{} is no longer in {}", m.member, m.place),
            (Some(false), false) => format!("{} does not join {}", m.member, m.place),
            (Some(false), true) => format!("{} stays in {}", m.member, m.place),
            (None, false) => format!("the request of {} for {}", m.member, m.place),
            (None, true) => format!("the request to remove {} from {}", m.member, m.place),
        };
        let by = m.actor.as_ref().map(|a| format!(" by {a}")).unwrap_or_default();
        item.headline =
            if self.handled { format!("Already {word}{by}: {what}") } else { format!("{}{by}: {what}", capital(word)) };
        item.label = capital(word);
        item.tone = if approved == Some(false) { "bad" } else { "good" }.into();
        fact_if(item, "Asked by", m.requester.as_deref().filter(|_| !m.own));
        fact(item, "Decided", &self.dated(listed.time));
        if approved == Some(true) && !m.removes {
            fact_if(item, "Ends", self.when(listed, "expires_at").as_deref());
        }
        self.quote(listed, m.actor.as_deref().unwrap_or(""), item);
        self.link_to_collection(item, listed);
    }

    /// Withdrawn, renewed, removed, added: something that is so now.
    fn settled(&self, kind: Kind, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let by = m.actor.as_ref().map(|a| format!(" by {a}")).unwrap_or_default();
        let end = data::time(&listed.data, "expires_at").or_else(|| data::time(&listed.data, "review_by"));
        let until = end.map(|t| format!(", now until {}", self.zone.day(t, self.now))).unwrap_or_default();
        let lapsed = self.field(listed, "outcome").is_some_and(|o| o == "lapsed");
        let (word, what) = match kind {
            Kind::Withdrawn if lapsed => ("lapsed", self.request_words(&m)),
            Kind::Withdrawn => ("withdrawn", self.request_words(&m)),
            Kind::Renewed => ("renewed", format!("{} stays in {}{until}", m.member, m.place)),
            Kind::Removed => ("removed", format!("{} is no longer in {}", m.member, m.place)),
            _ => ("added", format!("{} is now in {}{until}", m.member, m.place)),
        };
        item.headline =
            if self.handled { format!("Already {word}{by}: {what}") } else { format!("{}{by}: {what}", capital(word)) };
        fact_if(item, "Asked by", m.requester.as_deref().filter(|_| kind == Kind::Withdrawn && !m.own));
        fact(item, &capital(word), &self.dated(listed.time));
        if let Some(end) = end {
            fact(item, "Ends", &self.zone.moment(end));
        }
        self.quote(listed, m.actor.as_deref().or(m.requester.as_deref()).unwrap_or(""), item);
        self.link_to_collection(item, listed);
    }

    fn request_words(&self, m: &Membership) -> String {
        if m.removes {
            format!("the request to remove {} from {}", m.member, m.place)
        } else {
            format!("the request for {} to join {}", m.member, m.place)
        }
    }

    fn ending(&self, kind: Kind, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let review = kind == Kind::ReviewDue;
        let when = if review {
            data::time(&listed.data, "review_by").or_else(|| data::time(&listed.data, "review_at"))
        } else {
            data::time(&listed.data, "expires_at")
        }
        .or(listed.deadline);
        let past = when.is_some_and(|t| t < self.now);
        let day = when.map(|t| self.zone.day(t, self.now)).unwrap_or_default();
        let is_reader = data::raw(&listed.data, "member").as_deref() == Some(self.principal);
        let access = if is_reader {
            format!("Your access to {}", m.place)
        } else {
            format!("{}: access to {}", m.member, m.place)
        };
        let whose = if is_reader { "Your membership".to_owned() } else { m.member.clone() };
        item.headline = match (review, past, day.is_empty()) {
            (true, _, true) => format!("{whose} in {} needs a review", m.place),
            (true, false, _) => format!("{whose} in {} needs a review by {day}", m.place),
            (true, true, _) => format!("{whose} in {}: the review was due on {day}", m.place),
            (false, _, true) => format!("{access} ends soon"),
            (false, false, _) => format!("{access} ends on {day}"),
            (false, true, _) => format!("{access} ended on {day}"),
        };
        if is_reader {
            fact(item, "Member", &format!("{} (you)", m.member));
        }
        if let Some(when) = when {
            fact(item, if review { "Review by" } else { "Ends" }, &self.dated(when));
            // The headline and the fact say it already.
            item.due.clear();
            item.due_in = when::distance(when, self.now);
            item.due_full.clear();
        }
        item.note = match (review, is_reader) {
            (true, true) => "Ask an administrator of the domain to review it, or say that you no longer need it.",
            (true, false) => "Confirm that the member still needs it, or remove them.",
            (false, true) => "Still needed? Ask an administrator of the domain to extend it in time.",
            (false, false) => "Still needed? Extend it in time; without that, the access ends by itself.",
        }
        .into();
        for key in ["notes", "details"] {
            let notes = data::raw(&listed.data, key).map(|n| text::prose(&n, self.bounds.prose_bytes));
            fact_if(item, "Notes", notes.as_deref());
        }
        self.link_to_collection(item, listed);
    }

    fn reminder(&self, listed: &Listed, item: &mut Item) {
        let what = match self.field(listed, "collection.kind").or_else(|| self.field(listed, "kind")).as_deref() {
            Some("group") => "Requests to join groups wait for your decision",
            Some("role") => "Requests to join roles wait for your decision",
            _ => "Requests wait for your decision",
        };
        item.headline = what.into();
        item.note = "Athenz does not say which ones in its reminder; its inbox lists them.".into();
        fact(item, "Reminded", &self.dated(listed.time));
        if let Some(ui) = self.ui_url {
            item.action = "Open the inbox in Athenz".into();
            item.url = format!("{ui}/workflow/admin");
        }
    }

    fn changed(&self, listed: &Listed, item: &mut Item) {
        let domain = self.or_unknown(listed, &["domain"], "domain");
        let kind = self.field(listed, "object.kind").or_else(|| self.field(listed, "kind"));
        let name = self.field(listed, "object.name").or_else(|| self.field(listed, "name"));
        let kind = kind.map(|k| k.to_lowercase());
        item.headline = match (kind, name) {
            (Some(kind), Some(name)) if kind != "domain" => format!("{domain}: {kind} {name} was changed"),
            _ => format!("Domain {domain} was changed"),
        };
        fact_if(item, "Operation", self.field(listed, "api").as_deref());
        fact_if(item, "By", self.field(listed, "actor").as_deref());
        fact(item, "Last change", &self.dated(listed.time));
        self.link(item, "Open the domain in Athenz", listed, |domain| {
            Some(format!("/domain/{}/role", text::url_part(domain)))
        });
    }

    fn certificate(&self, listed: &Listed, item: &mut Item) {
        let service = self.or_unknown(listed, &["service"], "service");
        let full = match self.field(listed, "domain") {
            Some(domain) if !service.contains('.') => format!("{domain}.{service}"),
            _ => service,
        };
        let on = self.field(listed, "instance").map(|i| format!(" on {i}")).unwrap_or_default();
        item.headline = format!("The certificate of {full}{on} was not refreshed");
        fact_if(item, "Provider", self.field(listed, "provider").as_deref());
        fact_if(item, "Host", self.field(listed, "host").or_else(|| self.field(listed, "hostname")).as_deref());
        for (name, keys) in [("Last refreshed", ["updated_at", "update_time"]), ("Ends", ["expires_at", "expiry_time"])]
        {
            let when = keys.iter().find_map(|k| self.when(listed, k));
            fact_if(item, name, when.as_deref());
        }
        // "Ends" says it.
        if data::time(&listed.data, "expires_at").or_else(|| data::time(&listed.data, "expiry_time")).is_some() {
            item.due_full.clear();
        }
        item.note =
            "Check that the agent that refreshes it still runs there; remove the instance if it is gone.".into();
        self.link(item, "Open its services in Athenz", listed, |domain| {
            Some(format!("/domain/{}/service", text::url_part(domain)))
        });
    }

    fn zts(&self, listed: &Listed, item: &mut Item) {
        let server = self.or_unknown(listed, &["server", "zts"], "server");
        let role = match (self.field(listed, "domain"), self.field(listed, "role")) {
            (Some(domain), Some(role)) if !role.contains(':') => format!("{domain}:role.{role}"),
            (_, Some(role)) => role,
            (Some(domain), None) => domain,
            (None, None) => "a role".into(),
        };
        item.headline = format!("ZTS {server} could not get credentials for {role}");
        fact(item, "Reported", &self.dated(listed.time));
        let end = self.when(listed, "expires_at");
        fact_if(item, "Credentials end", end.as_deref());
        if let Some(message) = data::raw(&listed.data, "message") {
            item.quote = text::prose(&message, self.bounds.prose_bytes);
            item.quote_by = server;
        }
        item.note =
            "What works with these credentials stops when they end. Check that this ZTS reaches their issuer.".into();
    }

    /// A type nobody described: its name, what it is about, and its data as pairs.
    fn other(&self, listed: &Listed, item: &mut Item) {
        let title = ["title", "summary"].iter().find_map(|k| data::raw(&listed.data, k));
        item.headline = match (title, &listed.subject_key) {
            (Some(title), _) => text::prose(&title, self.bounds.name_bytes),
            (None, Some(key)) => format!("{}: {}", readable(&item.kind), text::name(key, self.bounds.name_bytes)),
            (None, None) => readable(&item.kind),
        };
        fact(item, "Type", &item.kind.clone());
        fact(item, "When", &self.dated(listed.time));
        for (name, value) in data::pairs(&listed.data, self.bounds) {
            item.facts.push(Fact { name, value });
        }
    }

    fn membership(&self, listed: &Listed) -> Membership {
        let raw_member = data::raw(&listed.data, "member");
        let raw_requester = data::raw(&listed.data, "requester");
        let domain = self.or_unknown(listed, &["domain"], "domain");
        let kind = self.field(listed, "collection.kind").unwrap_or_else(|| "role".into());
        let place = match self.field(listed, "collection.name") {
            Some(name) => format!("{domain}:{kind}.{name}"),
            None => domain,
        };
        Membership {
            own: raw_requester.is_none() || raw_requester == raw_member,
            member: self.or_unknown(listed, &["member"], "member"),
            requester: self.field(listed, "requester"),
            actor: self.field(listed, "actor"),
            place,
            removes: self.field(listed, "change").is_some_and(|c| c == "delete"),
        }
    }

    fn field(&self, listed: &Listed, path: &str) -> Option<String> {
        data::raw(&listed.data, path).map(|v| text::name(&v, self.bounds.name_bytes))
    }

    /// A time in the reader's zone; one that no calendar here can say (`9999-12-31T23:59:59Z`) as it was written.
    fn when(&self, listed: &Listed, path: &str) -> Option<String> {
        match data::time(&listed.data, path) {
            Some(t) => Some(self.dated(t)),
            None => data::raw(&listed.data, path).map(|t| text::name(&t, self.bounds.name_bytes.min(60))),
        }
    }

    fn or_unknown(&self, listed: &Listed, paths: &[&str], what: &str) -> String {
        paths.iter().find_map(|p| self.field(listed, p)).unwrap_or_else(|| format!("(no {what} given)"))
    }

    fn quote(&self, listed: &Listed, by: &str, item: &mut Item) {
        if let Some(reason) = data::raw(&listed.data, "reason") {
            item.quote = text::prose(&reason, self.bounds.prose_bytes);
            item.quote_by = by.to_owned();
        }
    }

    pub fn dated(&self, t: Time) -> String {
        match when::distance(t, self.now) {
            far if far.is_empty() => self.zone.moment(t),
            near => format!("{} ({near})", self.zone.moment(t)),
        }
    }

    /// Athenz UI: `<ui>/domain/<d>/role/<r>/members` (NotificationConverterCommon), and its page `review`.
    fn link_to_collection(&self, item: &mut Item, listed: &Listed) {
        let label = match Kind::of(&listed.kind) {
            Kind::ReviewDue => "Review in Athenz",
            Kind::Expiring if data::raw(&listed.data, "member").as_deref() != Some(self.principal) => {
                "Extend in Athenz"
            }
            _ => "Open in Athenz",
        };
        self.link(item, label, listed, |domain| {
            let kind = data::raw(&listed.data, "collection.kind").filter(|k| k == "role" || k == "group")?;
            let name = data::raw(&listed.data, "collection.name").filter(|n| n.len() <= self.bounds.name_bytes)?;
            let page = if Kind::of(&listed.kind) == Kind::ReviewDue { "review" } else { "members" };
            Some(format!("/domain/{}/{kind}/{}/{page}", text::url_part(domain), text::url_part(&name)))
        });
    }

    /// Only names that are shown whole are linked: a cut one would lead to something else.
    fn link(&self, item: &mut Item, label: &str, listed: &Listed, path: impl Fn(&str) -> Option<String>) {
        let domain = data::raw(&listed.data, "domain").filter(|d| d.len() <= self.bounds.name_bytes);
        if let Some(ui) = self.ui_url
            && let Some(path) = domain.and_then(|d| path(&d))
        {
            item.action = label.into();
            item.url = format!("{ui}{path}");
        }
    }
}

fn fact(item: &mut Item, name: &str, value: &str) {
    item.facts.push(Fact { name: name.into(), value: value.into() });
}

fn fact_if(item: &mut Item, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        fact(item, name, value);
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "" }.into()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `com.example.backup.failed.v1` reads as `Backup failed`.
fn readable(event_type: &str) -> String {
    let mut parts: Vec<&str> = event_type.split('.').filter(|p| !p.is_empty()).collect();
    if parts.last().is_some_and(|p| p.starts_with('v') && p[1..].bytes().all(|b| b.is_ascii_digit()) && p.len() > 1) {
        parts.pop();
    }
    let tail = &parts[parts.len().saturating_sub(2)..];
    let words = tail.join(" ").replace(['_', '-'], " ");
    if words.is_empty() { "Event".into() } else { capital(&words) }
}
