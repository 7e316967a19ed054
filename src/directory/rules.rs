//! Addresses made of names: `user.{name}` gets mail at `{name}@example.com`.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::address::is_plausible_address;
use super::people::NAME_BYTES_MAX;
use super::{Audience, Directory, DirectoryError, stranger};
use crate::model::{Person, is_collection};

/// One rule of `[[directory]] kind = "rules"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the whole principal must look like, e.g. `"user.{name}"`. A placeholder stands for one character or more, but
    /// never for a `:`; where several ways fit, the first placeholder takes as little as it can.
    pub principal: String,
    /// The address of those it fits, e.g. `"{name}@example.com"`.
    pub address: String,
}

/// Knows an address for every principal that a rule fits, and no collections. The first rule that fits decides: if what
/// it makes is no plausible address, the principal has none.
#[derive(Debug)]
pub struct RulesDirectory {
    rules: Vec<(Vec<Piece>, Vec<Piece>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

/// Bounds on what a rule can cost; real ones have one or two placeholders.
const PLACEHOLDERS_MAX: usize = 8;

impl RulesDirectory {
    /// Every problem of every rule, a sentence each that begins with `rules[0].principal: `.
    pub fn new(rules: &[Rule]) -> Result<RulesDirectory, Vec<String>> {
        let (mut compiled, mut problems) = (Vec::new(), Vec::new());
        for (n, rule) in rules.iter().enumerate() {
            match compile(rule) {
                Ok(pair) => compiled.push(pair),
                Err((field, problem)) => problems.push(format!("rules[{n}].{field}: {problem}")),
            }
        }
        if problems.is_empty() { Ok(RulesDirectory { rules: compiled }) } else { Err(problems) }
    }

    /// The address that the rules make for this principal.
    pub fn address(&self, principal: &str) -> Option<String> {
        if principal.len() > NAME_BYTES_MAX {
            return None;
        }
        let (found, address) =
            self.rules.iter().find_map(|(pattern, address)| Some((fit(pattern, principal)?, address)))?;
        let mut made = String::new();
        for piece in address {
            match piece {
                Piece::Text(text) => made.push_str(text),
                Piece::Placeholder(name) => {
                    let (_, value) = found.iter().find(|(n, _)| n == name)?;
                    // `a%other.org@example.com` and `other.org!a@example.com` are routes to some relays.
                    if value.contains(['%', '!']) {
                        return None;
                    }
                    made.push_str(value);
                }
            }
        }
        is_plausible_address(&made).then_some(made)
    }
}

#[async_trait]
impl Directory for RulesDirectory {
    async fn resolve(&self, who: &[String], _max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        let audience = |reference: &String| match is_collection(reference) {
            true => Audience { reference: reference.clone(), known: false, people: Vec::new(), inside: Vec::new() },
            false => Audience {
                reference: reference.clone(),
                known: true,
                people: vec![Person { address: self.address(reference), ..stranger(reference) }],
                inside: Vec::new(),
            },
        };
        Ok(who.iter().map(audience).collect())
    }
}

type Problem = (&'static str, String);

fn compile(rule: &Rule) -> Result<(Vec<Piece>, Vec<Piece>), Problem> {
    let pattern = pieces(&rule.principal).map_err(|p| ("principal", p))?;
    let address = pieces(&rule.address).map_err(|p| ("address", p))?;
    let mut names: Vec<&str> = Vec::new();
    let mut after_placeholder = false;
    for piece in &pattern {
        if let Piece::Placeholder(name) = piece {
            if after_placeholder {
                return Err(("principal", format!("{{{name}}} follows another placeholder; put a text between them")));
            }
            if names.contains(&name.as_str()) {
                return Err(("principal", format!("{{{name}}} stands there twice; give each its own name")));
            }
            names.push(name);
        }
        after_placeholder = matches!(piece, Piece::Placeholder(_));
    }
    if pattern.is_empty() {
        return Err(("principal", "is empty; expected e.g. \"user.{name}\"".into()));
    }
    if names.len() > PLACEHOLDERS_MAX {
        return Err(("principal", format!("{} placeholders; at most {PLACEHOLDERS_MAX}", names.len())));
    }
    let mut sample = String::new();
    for piece in &address {
        match piece {
            Piece::Text(text) => sample.push_str(text),
            Piece::Placeholder(name) if names.contains(&name.as_str()) => sample.push('x'),
            Piece::Placeholder(name) => {
                return Err(("address", format!("{{{name}}} does not stand in the principal {:?}", rule.principal)));
            }
        }
    }
    if !is_plausible_address(&sample) {
        return Err(("address", "can never become an address; expected e.g. \"{name}@example.com\"".into()));
    }
    Ok((pattern, address))
}

/// Splits at `{name}`. A brace stands for nothing else.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let brace = rest.find(['{', '}']).unwrap_or(rest.len());
        let (before, from) = rest.split_at(brace);
        if !before.is_empty() {
            found.push(Piece::Text(before.into()));
        }
        rest = from;
        if rest.is_empty() {
            break;
        }
        let (name, after) = (rest.strip_prefix('{').and_then(|r| r.split_once('}')))
            .ok_or("a brace that is not part of a placeholder such as {name}")?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("the name in a placeholder is made of letters, digits and _, e.g. {name}".into());
        }
        found.push(Piece::Placeholder(name.into()));
        rest = after;
    }
    Ok(found)
}

/// What the placeholders stand for, if the pattern fits the whole text.
///
/// A text before the last piece is taken where it comes first. That loses nothing except around `:`, which no
/// placeholder may swallow, so dead ends are remembered and other places are tried: at most pieces x length steps back.
fn fit<'a>(pattern: &'a [Piece], text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut dead = vec![false; (pattern.len() + 1) * (text.len() + 1)];
    let mut found = Vec::new();
    fit_from(pattern, text, 0, 0, &mut dead, &mut found).then_some(found)
}

/// Recursion is as deep as the pattern is long: 17 pieces.
fn fit_from<'a>(
    pattern: &'a [Piece],
    text: &'a str,
    piece: usize,
    at: usize,
    dead: &mut [bool],
    found: &mut Vec<(&'a str, &'a str)>,
) -> bool {
    let state = piece * (text.len() + 1) + at;
    // `at` never passes the end of the text and lies between characters, `piece` never passes the end of the pattern.
    let (Some(rest), Some(false)) = (text.get(at..), dead.get(state)) else { return false };
    let fits = match pattern.get(piece) {
        None => rest.is_empty(),
        Some(Piece::Text(t)) => {
            rest.starts_with(t.as_str()) && fit_from(pattern, text, piece + 1, at + t.len(), dead, found)
        }
        Some(Piece::Placeholder(name)) => {
            let mut ends = rest.char_indices().take_while(|(_, c)| *c != ':').map(|(i, c)| i + c.len_utf8());
            ends.any(|end| {
                found.push((name, rest.get(..end).unwrap_or_default()));
                let fits = fit_from(pattern, text, piece + 1, at + end, dead, found);
                if !fits {
                    found.pop();
                }
                fits
            })
        }
    };
    if !fits && let Some(state) = dead.get_mut(state) {
        *state = true;
    }
    fits
}
