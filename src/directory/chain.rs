//! Several directories as one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::people::{DEPTH_MAX, EXPANSION_MAX, STEPS_MAX};
use super::{Audience, Directory, DirectoryError, stranger};
use crate::model::{Person, is_collection};

/// Asks its directories in order. A collection has the members that the first one to know it gives; a person's address,
/// zone and language each come from the first that has one, whichever directory named the person. A collection inside of
/// another that the directory does not know is looked for in all of them. An error of any directory that is asked is the
/// answer: without it, somebody could be missed.
pub struct ChainDirectory {
    parts: Vec<Arc<dyn Directory>>,
}

impl ChainDirectory {
    pub fn new(parts: Vec<Arc<dyn Directory>>) -> ChainDirectory {
        ChainDirectory { parts }
    }

    /// The collections among `who`, and those inside of them, as the first directory to know each one tells.
    async fn collections(
        &self,
        who: &[String],
        max_age: Duration,
    ) -> Result<HashMap<String, Collection>, DirectoryError> {
        let mut found: HashMap<String, Collection> = HashMap::new();
        let mut asked = HashSet::new();
        let mut unknown: Vec<String> = who.iter().filter(|r| is_collection(r)).cloned().collect();
        // Each turn is one step deeper; one more than the deepest collection that counts.
        for _ in 0..=DEPTH_MAX {
            unknown.sort();
            unknown.dedup();
            unknown.retain(|reference| asked.len() < STEPS_MAX && asked.insert(reference.clone()));
            let mut inside = Vec::new();
            for part in &self.parts {
                if unknown.is_empty() {
                    break;
                }
                for audience in part.resolve(&unknown, max_age).await?.into_iter().filter(|a| a.known) {
                    inside.extend(audience.inside.iter().cloned());
                    let members = audience.people.into_iter().map(|p| p.principal).collect();
                    found.insert(audience.reference, Collection { members, inside: audience.inside });
                }
                unknown.retain(|reference| !found.contains_key(reference));
            }
            unknown = inside;
            if unknown.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// What the directories know of these principals, each asked only while something is missing.
    async fn people(
        &self,
        mut missing: Vec<String>,
        max_age: Duration,
    ) -> Result<HashMap<String, Person>, DirectoryError> {
        let mut people: HashMap<String, Person> = missing.iter().map(|p| (p.clone(), stranger(p))).collect();
        for part in &self.parts {
            if missing.is_empty() {
                break;
            }
            for found in part.resolve(&missing, max_age).await?.into_iter().flat_map(|a| a.people) {
                if let Some(person) = people.get_mut(&found.principal) {
                    person.address = person.address.take().or(found.address);
                    person.zone = person.zone.take().or(found.zone);
                    person.language = person.language.take().or(found.language);
                }
            }
            missing.retain(|principal| people.get(principal).is_some_and(has_gaps));
        }
        Ok(people)
    }
}

/// What one directory says of a collection.
struct Collection {
    members: Vec<String>,
    /// Collections that it knows nothing of.
    inside: Vec<String>,
}

/// Everybody in it, each once; a circle is walked once.
fn expand<'c>(collections: &'c HashMap<String, Collection>, reference: &'c str) -> Vec<&'c String> {
    let (mut people, mut named, mut seen) = (Vec::new(), HashSet::new(), HashSet::new());
    let mut open = vec![reference];
    while let Some(next) = open.pop() {
        let Some(collection) = collections.get(next).filter(|_| seen.insert(next)) else { continue };
        for member in &collection.members {
            if people.len() < EXPANSION_MAX && named.insert(member) {
                people.push(member);
            }
        }
        open.extend(collection.inside.iter().rev().map(String::as_str));
    }
    people
}

fn has_gaps(person: &Person) -> bool {
    person.address.is_none() || person.zone.is_none() || person.language.is_none()
}

#[async_trait]
impl Directory for ChainDirectory {
    async fn resolve(&self, who: &[String], max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        let collections = self.collections(who, max_age).await?;
        let mut principals: Vec<String> = who.iter().filter(|r| !is_collection(r)).cloned().collect();
        principals.extend(collections.values().flat_map(|c| c.members.iter().cloned()));
        principals.sort();
        principals.dedup();
        let people = self.people(principals, max_age).await?;

        let person = |principal: &String| people.get(principal).cloned().unwrap_or_else(|| stranger(principal));
        let audience = |reference: &String| match (is_collection(reference), collections.contains_key(reference)) {
            (false, _) => (true, vec![person(reference)]),
            (true, true) => (true, expand(&collections, reference).into_iter().map(person).collect()),
            (true, false) => (false, Vec::new()),
        };
        Ok(who
            .iter()
            .map(|reference| {
                let (known, people) = audience(reference);
                Audience { reference: reference.clone(), known, people, inside: Vec::new() }
            })
            .collect())
    }
}
