//! Several directories as one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Audience, Directory, DirectoryError, stranger};
use crate::model::{Person, is_collection};

/// Asks its directories in order. A collection has the members that the first one to know it gives; a person's address,
/// zone and language each come from the first that has one, whichever directory named the person. An error of any
/// directory that is asked is the answer: without it, somebody could be missed.
pub struct ChainDirectory {
    parts: Vec<Arc<dyn Directory>>,
}

impl ChainDirectory {
    pub fn new(parts: Vec<Arc<dyn Directory>>) -> ChainDirectory {
        ChainDirectory { parts }
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

fn has_gaps(person: &Person) -> bool {
    person.address.is_none() || person.zone.is_none() || person.language.is_none()
}

#[async_trait]
impl Directory for ChainDirectory {
    async fn resolve(&self, who: &[String], max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        let mut collections: HashMap<String, Vec<String>> = HashMap::new();
        let mut unknown: Vec<String> = who.iter().filter(|r| is_collection(r)).cloned().collect();
        unknown.sort();
        unknown.dedup();
        for part in &self.parts {
            if unknown.is_empty() {
                break;
            }
            for found in part.resolve(&unknown, max_age).await?.into_iter().filter(|a| a.known) {
                let members = found.people.into_iter().map(|p| p.principal).collect();
                collections.insert(found.reference, members);
            }
            unknown.retain(|reference| !collections.contains_key(reference));
        }

        let mut principals: Vec<String> = who.iter().filter(|r| !is_collection(r)).cloned().collect();
        principals.extend(collections.values().flatten().cloned());
        principals.sort();
        principals.dedup();
        let people = self.people(principals, max_age).await?;

        let person = |principal: &String| people.get(principal).cloned().unwrap_or_else(|| stranger(principal));
        let audience = |reference: &String| match (is_collection(reference), collections.get(reference)) {
            (false, _) => (true, vec![person(reference)]),
            (true, Some(members)) => (true, members.iter().map(person).collect()),
            (true, None) => (false, Vec::new()),
        };
        Ok(who
            .iter()
            .map(|reference| {
                let (known, people) = audience(reference);
                Audience { reference: reference.clone(), known, people }
            })
            .collect())
    }
}
