//! Directories: who a reference means, and where they get mail.
//!
//! [`RulesDirectory`] makes addresses of names, [`FileDirectory`] reads people and collections from a file, and
//! [`ChainDirectory`] asks several, one after the other. None of them logs or reports an address.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::Person;

mod address;
mod chain;
mod file;
mod people;
mod rules;

pub use address::is_plausible_address;
pub use chain::ChainDirectory;
pub use file::FileDirectory;
pub use people::EXPANSION_MAX;
pub use rules::{Rule, RulesDirectory};

/// Whom a reference means right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    pub reference: String,
    /// A collection is known if a directory has it, be it without members; a principal always is. What is known here is
    /// not asked of the next directory of a chain.
    pub known: bool,
    /// Each person once, in the order of the directory. A collection nobody knows, or with no members, is empty. A
    /// principal always means itself, with or without an address.
    pub people: Vec<Person>,
    /// Collections inside of a known one that this directory knows nothing of, each once: another may
    /// ([`ChainDirectory`]).
    pub inside: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DirectoryError(pub String);

#[async_trait]
pub trait Directory: Send + Sync {
    /// One answer a reference, in order. An answer may be up to `max_age` old.
    async fn resolve(&self, who: &[String], max_age: Duration) -> Result<Vec<Audience>, DirectoryError>;
}

/// Each person once, in order, without `except`.
pub fn audience<'p, P: Borrow<Person> + Clone + 'p>(
    named: impl Iterator<Item = &'p P>,
    except: Option<&str>,
) -> Vec<P> {
    let mut people = Vec::new();
    let mut seen = HashSet::new();
    for person in named {
        let principal = person.borrow().principal.as_str();
        if except != Some(principal) && seen.insert(principal) {
            people.push(person.clone());
        }
    }
    people
}

/// A principal that a directory knows nothing of.
fn stranger(principal: &str) -> Person {
    Person { principal: principal.into(), address: None, zone: None, language: None }
}
