//! An event in words: what is asked or told, of whom, by when (`events.md` has the types and their data).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::data::{self, Bounds};
use super::kind::{self, Kind};
use super::text;
use super::view::{Fact, Item};
use super::when::{self, Zone};
use crate::model::{Listed, Time};

mod membership;
mod service;

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

impl Reader<'_> {
    /// The item in words; `times` is how many events of the mail it stands for.
    pub fn tell(&self, listed: &Listed, times: u64) -> Item {
        let kind = Kind::of(&listed.kind);
        let (label, tone) = kind.label_and_tone();
        let mut item = Item {
            kind: text::name(&listed.kind, self.bounds.name_bytes),
            label,
            tone,
            asks: yes(kind.asks() && !self.handled),
            heading: "h2",
            data: if self.with_data { data::cleaned(&listed.data, self.bounds) } else { Value::Object(Map::new()) },
            ..Item::default()
        };
        if let Some(deadline) = listed.deadline {
            item.due = self.zone.day(deadline, self.now);
            item.due_in = when::distance(deadline, self.now);
            item.due_full = self.dated(deadline);
            item.overdue = deadline < self.now;
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
        if item.overdue && kind.asks() {
            item.tone = "bad";
        }
        if self.handled {
            item.label = "Handled";
            item.tone = "info";
            // What is settled is not due any more.
            item.due.clear();
            item.due_in.clear();
            item.due_full.clear();
        }
        item.ink = kind::ink(item.tone);
        if times > 1 {
            item.headline = format!("{} ({times} times; this is the last one)", item.headline);
        }
        item
    }

    fn field(&self, listed: &Listed, path: &str) -> Option<String> {
        data::raw(&listed.data, path).map(|v| text::name(&v, self.bounds.name_bytes))
    }

    /// A time in the reader's zone; one that no calendar here can say (`9999-12-31T23:59:59Z`) as it was written.
    fn when(&self, listed: &Listed, path: &str) -> Option<String> {
        let written = data::raw(&listed.data, path)?;
        match Time::parse(&written) {
            Some(t) => Some(self.dated(t)),
            None => Some(text::name(&written, self.bounds.name_bytes.min(60))),
        }
    }

    fn or_unknown(&self, listed: &Listed, paths: &[&str], what: &str) -> String {
        paths.iter().find_map(|p| self.field(listed, p)).unwrap_or_else(|| format!("(no {what} given)"))
    }

    fn quote(&self, listed: &Listed, by: String, item: &mut Item) {
        if let Some(reason) = data::raw(&listed.data, "reason") {
            item.quote = text::prose(&reason, self.bounds.prose_bytes);
            item.quote_by = by;
        }
    }

    /// `Tue 24 Nov, 11:00 CET (in 2 days)`
    pub fn dated(&self, t: Time) -> String {
        let mut out = self.zone.moment(t, self.now);
        let near = when::distance(t, self.now);
        if !near.is_empty() {
            out.push_str(" (");
            out.push_str(&near);
            out.push(')');
        }
        out
    }

    /// `ends in 2 days`, `ended 2 days ago`: the word for what is to come, and the one for what is past.
    fn until(&self, [coming, past]: [&str; 2], t: Time) -> String {
        match when::distance(t, self.now) {
            far if far.is_empty() => far,
            near => format!("{} {near}", if t < self.now { past } else { coming }),
        }
    }

    /// Only names that are shown whole are linked: a cut one would lead to something else.
    fn link(&self, item: &mut Item, label: &'static str, listed: &Listed, path: impl Fn(&str) -> Option<String>) {
        let Some(ui) = self.ui_url else { return };
        let domain = data::raw(&listed.data, "domain").filter(|d| d.len() <= self.bounds.name_bytes);
        if let Some(path) = domain.and_then(|d| path(&d)) {
            item.action = label;
            item.url = format!("{ui}{path}");
        }
    }
}

fn fact(item: &mut Item, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
    item.facts.push(Fact { name: name.into(), value: value.into() });
}

fn fact_if(item: &mut Item, name: &'static str, value: Option<String>) {
    if let Some(value) = value {
        fact(item, name, value);
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "" }
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
