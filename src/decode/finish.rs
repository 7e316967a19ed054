//! What every event has to keep, whatever it came in.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::decode::problem::Problem;
use crate::decode::tree::{Object, Tree};
use crate::decode::{Settings, kinds};
use crate::model::{Data, Event, KEY_BYTES, RefusedReason, Time};
use crate::source::Message;

/// How far ahead of the store's clock an event's `time` may be: clocks differ, but an event of next year would close its
/// subject until then (`lifecycle.md`, rule `no_future`).
const AHEAD: Duration = Duration::from_secs(86_400);

/// An event whose envelope or dialect is read, and whose content is still to be checked.
#[derive(Debug)]
pub(super) struct Draft<'t> {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub time: Option<Time>,
    pub expiry: Option<Time>,
    pub data: Content<'t>,
    pub id_counts_for: Option<Duration>,
}

/// An event's data, and its text where it came as one and was not changed.
#[derive(Debug, Default)]
pub(super) struct Content<'t> {
    pub members: Object<'t>,
    pub text: Option<&'t str>,
}

impl Content<'_> {
    /// As it came, unless that has line breaks: what is meant for a person's eyes may be half blanks.
    fn into_data(self) -> Data {
        match self.text.filter(|text| !text.contains('\n')) {
            Some(text) => Data::of_text(text),
            None => Data::of_text(self.members.to_text()),
        }
    }
}

impl From<Map<String, Value>> for Content<'static> {
    fn from(map: Map<String, Value>) -> Content<'static> {
        Content { members: map.into(), text: None }
    }
}

impl Draft<'_> {
    pub fn finish(mut self, settings: &Settings, message: &Message, now: Time) -> Result<Event, Problem> {
        for (name, text) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            check_key(name, text)?;
        }
        if self.time.is_some_and(|time| time > now.plus(AHEAD)) {
            let what = "more than a day in the future by this machine's clock";
            return Err(Problem::new(RefusedReason::InTheFuture, what).on(&["time"]));
        }
        let recipients = recipients(&self.data.members, settings.limits.recipients_per_event)?;
        // A broker's clock, or a file's date, that is ahead is no better than none.
        let time = self.time.or(message.time.filter(|time| *time <= now.plus(AHEAD)));
        let meaning = kinds::read(&self.kind, &mut self.data, &settings.realm, time.unwrap_or(now))?;
        Ok(Event {
            source: self.source,
            id: self.id,
            id_counts_for: self.id_counts_for,
            kind: self.kind,
            time,
            expiry: self.expiry,
            deadline: meaning.deadline,
            recipients,
            effect: meaning.effect,
            subject_key: meaning.subject_key,
            asker: meaning.asker,
            domain: self.data.members.get("domain").and_then(Tree::as_text).map(str::to_owned),
            data: self.data.into_data(),
        })
    }
}

/// `id`, `source` and `type` are keys of the store; Athenz's are under 200 bytes. CloudEvents 1.0, "Type system", String: no control characters and no noncharacters of Unicode.
fn check_key(name: &'static str, text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::new(RefusedReason::MissingAttribute, "is empty").on(&[name]));
    }
    if text.len() > KEY_BYTES {
        return Err(Problem::new(RefusedReason::TooLarge, format!("longer than {KEY_BYTES} bytes")).on(&[name]));
    }
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    match plain || !text.chars().any(forbidden) {
        true => Ok(()),
        false => Err(Problem::wrong_value(&[name], "has a control character, or one that is none in Unicode")),
    }
}

/// `data.recipients`. An empty list names nobody, which is not the same as no list.
fn recipients(data: &Object<'_>, most: usize) -> Result<Option<Vec<String>>, Problem> {
    let list = match data.get("recipients") {
        None | Some(Tree::Null) => return Ok(None),
        Some(Tree::Array(list)) => list,
        Some(other) => return Err(Problem::wrong_type(&["data", "recipients"], "an array of strings", other)),
    };
    if list.len() > most {
        let what = format!("{} recipients; an event may name {most}, a role or group counts as one", list.len());
        return Err(Problem::new(RefusedReason::TooManyRecipients, what).on(&["data", "recipients"]));
    }
    let name = |(index, value): (usize, &Tree<'_>)| match value {
        Tree::Text(name) if name.len() > KEY_BYTES => {
            let what = format!("longer than {KEY_BYTES} bytes");
            Err(Problem::new(RefusedReason::TooLarge, what).on(&["data", "recipients", &index.to_string()]))
        }
        // A mailbox's name; a store may hold no NUL, and two names must not become one there.
        Tree::Text(name) if name.chars().any(char::is_control) => {
            let path = ["data", "recipients", &index.to_string()];
            Err(Problem::wrong_value(&path, "has a control character"))
        }
        Tree::Text(name) if !name.is_empty() => Ok(name.clone().into_owned()),
        Tree::Text(_) => Err(Problem::wrong_value(&["data", "recipients", &index.to_string()], "is empty")),
        other => Err(Problem::wrong_type(&["data", "recipients", &index.to_string()], "a string", other)),
    };
    list.iter().enumerate().map(name).collect::<Result<_, _>>().map(Some)
}
