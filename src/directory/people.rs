//! People and collections, as a file names them.

use std::collections::{HashMap, HashSet};

use super::address::is_plausible_address;
use super::{Audience, stranger};
use crate::model::{Person, is_collection};
use crate::zone;

/// A principal or collection has at most so many bytes; Athenz's longest, `domain:role.name`, is well below.
pub const NAME_BYTES_MAX: usize = 512;

/// One collection yields at most so many people; an event for that many is refused long before
/// (`limits.recipients_per_event`).
pub const EXPANSION_MAX: usize = 10_000;

/// Collections inside of collections, and the members looked at for one answer.
pub(super) const DEPTH_MAX: usize = 32;
pub(super) const STEPS_MAX: usize = 100_000;

/// How many findings are kept in words; the others are counted.
const FINDINGS_MAX: usize = 50;

#[derive(Debug, Default)]
pub struct People {
    persons: HashMap<String, Person>,
    collections: HashMap<String, Vec<String>>,
    findings: Vec<String>,
    findings_more: usize,
}

/// A person as written, before anything is checked.
#[derive(Debug, Default)]
pub struct Row {
    pub principal: String,
    pub address: Option<String>,
    pub zone: Option<String>,
    pub language: Option<String>,
}

impl People {
    /// Values that were left out because they cannot be what they should be. No value stands in them but names, cut.
    pub fn findings(&self) -> Vec<String> {
        let mut all = self.findings.clone();
        if self.findings_more > 0 {
            all.push(format!("and {} more", self.findings_more));
        }
        all
    }

    pub fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX { self.findings.push(what) } else { self.findings_more += 1 }
    }

    /// `place` says where it stands: `people[3]`, `line 4`.
    pub fn add_person(&mut self, place: &str, row: Row) {
        let name = shown(&row.principal);
        if !is_name(&row.principal) {
            return self.find(format!("{place}: {name} is not a principal; the entry is left out"));
        }
        if is_collection(&row.principal) {
            return self.find(format!("{place}: {name} is a role or group and gets no mail; name its members instead"));
        }
        if self.persons.contains_key(&row.principal) {
            return self.find(format!("{place}: {name} stands there twice; the first entry counts"));
        }
        let mut keep = |value: Option<String>, fits: fn(&str) -> bool, what: &str| {
            let value = value.filter(|v| !v.is_empty())?;
            if fits(&value) {
                return Some(value);
            }
            self.find(format!("{place}: {name} has {what}; it is left out"));
            None
        };
        let person = Person {
            address: keep(
                row.address,
                is_plausible_address,
                "an address that is none, expected one like name@example.com",
            ),
            zone: keep(
                row.zone,
                |name| zone::find(name).is_some(),
                "an unknown time zone, expected one like Europe/Berlin",
            ),
            language: keep(row.language, is_language, "a language that is none, expected one like en or pt-BR"),
            principal: row.principal,
        };
        self.persons.insert(person.principal.clone(), person);
    }

    /// A collection that is named several times has the members of all.
    pub fn add_members(&mut self, place: &str, collection: String, members: Vec<String>) {
        if !is_name(&collection) || !is_collection(&collection) {
            let name = shown(&collection);
            return self
                .find(format!("{place}: {name} is not a collection like sports:role.admin or sports:group.leads"));
        }
        for member in members.iter().filter(|m| !is_name(m)) {
            self.find(format!("{place}: {} in {} is not a name; it is left out", shown(member), shown(&collection)));
        }
        self.collections.entry(collection).or_default().extend(members.into_iter().filter(|m| is_name(m)));
    }

    pub fn audience(&self, reference: &str) -> Audience {
        if !is_collection(reference) {
            return Audience {
                reference: reference.into(),
                known: true,
                people: vec![self.person(reference)],
                inside: Vec::new(),
            };
        }
        let known = self.collections.contains_key(reference);
        let (people, inside) = self.expand(reference);
        Audience { reference: reference.into(), known, people, inside }
    }

    fn person(&self, principal: &str) -> Person {
        self.persons.get(principal).cloned().unwrap_or_else(|| stranger(principal))
    }

    /// Everybody in the collection and in those inside of it, in the order they are named, each once. A collection that
    /// holds itself is walked once. Then the collections inside that are not known here.
    fn expand(&self, collection: &str) -> (Vec<Person>, Vec<String>) {
        let (mut people, mut elsewhere) = (Vec::new(), Vec::new());
        let (Some((name, members)), mut seen) = (self.collections.get_key_value(collection), HashSet::new()) else {
            return (people, elsewhere);
        };
        seen.insert(name.as_str());
        let mut open = vec![members.iter()];
        for _ in 0..STEPS_MAX {
            let Some(member) = open.last_mut().map(Iterator::next) else { break };
            match member {
                None => _ = open.pop(),
                Some(member) if !seen.insert(member.as_str()) => {}
                Some(member) if is_collection(member) => match self.collections.get(member) {
                    Some(inner) if open.len() < DEPTH_MAX => open.push(inner.iter()),
                    Some(_) => {}
                    None => elsewhere.push(member.clone()),
                },
                Some(member) => people.push(self.person(member)),
            }
            if people.len() == EXPANSION_MAX {
                break;
            }
        }
        (people, elsewhere)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// BCP 47 in shape: letters and digits in groups of at most 8 (RFC 5646, 2.1).
fn is_language(text: &str) -> bool {
    text.len() <= 35
        && text.split('-').all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A name as a message shows it: escaped and cut. What holds an `@` may be an address, and is not shown.
pub fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    if name.contains('@') {
        return "a name with @".into();
    }
    let cut: String = name.chars().take(SHOWN_CHARS).collect();
    if cut.len() < name.len() { format!("{cut:?}... ({} bytes)", name.len()) } else { format!("{cut:?}") }
}
