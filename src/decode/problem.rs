//! What is wrong with an input, and the dead letter it becomes.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::decode::tree::Tree;
use crate::decode::{Decoded, json};
use crate::model::{DEAD_LETTER_BYTES, Refused, RefusedReason};

/// Why an input is refused. Its text never holds a value of the input.
#[derive(Debug)]
pub(super) struct Problem {
    pub reason: RefusedReason,
    /// Keys and indexes from the top of the JSON value to the culprit.
    path: Vec<String>,
    what: String,
    offset: Option<usize>,
}

impl Problem {
    pub fn new(reason: RefusedReason, what: impl Into<String>) -> Problem {
        Problem { reason, path: Vec::new(), what: what.into(), offset: None }
    }

    pub fn missing(path: &[&str]) -> Problem {
        Problem::new(RefusedReason::MissingAttribute, "is missing").on(path)
    }

    /// `expected`: with its article, e.g. `a string`.
    pub fn wrong_type(path: &[&str], expected: &str, found: &impl Typed) -> Problem {
        let what = format!("expected {expected}, found {}", found.type_name());
        Problem::new(RefusedReason::WrongType, what).on(path)
    }

    /// `what` says what the value is not; the value itself stays out of it.
    pub fn wrong_value(path: &[&str], what: impl Into<String>) -> Problem {
        Problem::new(RefusedReason::WrongType, what).on(path)
    }

    /// An empty step is left out.
    pub fn on(mut self, path: &[&str]) -> Problem {
        self.path = path.iter().filter(|step| !step.is_empty()).map(|step| (*step).to_owned()).collect();
        self
    }

    pub fn at(mut self, offset: usize) -> Problem {
        self.offset = Some(offset);
        self
    }

    /// An offset without a path concerns what stands under `name` (the body of binary mode is its data).
    pub fn below(mut self, name: &str) -> Problem {
        if self.path.is_empty() && self.offset.is_some() {
            self.path.push(name.to_owned());
        }
        self
    }

    /// Where in `bytes` it is, if it can be found there; `above` steps of the path lead to `bytes` itself.
    pub fn offset_in(&self, bytes: &[u8], above: usize) -> Option<usize> {
        self.offset.or_else(|| {
            let steps = self.path.get(above..).filter(|steps| !steps.is_empty())?;
            json::locate(bytes, steps)
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.path.iter().enumerate() {
            match step.bytes().all(|b| b.is_ascii_digit()) {
                true => write!(f, "[{step}]")?,
                false if index == 0 => f.write_str(step)?,
                false => write!(f, ".{step}")?,
            }
        }
        match (self.path.is_empty(), self.what.starts_with("is ")) {
            (true, _) => f.write_str(&self.what),
            (false, true) => write!(f, " {}", self.what),
            (false, false) => write!(f, ": {}", self.what),
        }
    }
}

/// A JSON value.
pub(super) trait Typed {
    /// Its type, with its article.
    fn type_name(&self) -> &'static str;
}

impl Typed for Value {
    fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }
}

impl Typed for Tree<'_> {
    fn type_name(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Number(_) => "a number",
            Tree::Text(_) => "a string",
            Tree::Array(_) => "an array",
            Tree::Object(_) => "an object",
        }
    }
}

pub(super) struct Letter<'a> {
    pub source: &'a str,
    pub position: String,
    pub reason: RefusedReason,
    pub detail: String,
    pub bytes: &'a [u8],
    pub headers: Vec<(String, String)>,
    pub broker_id: Option<String>,
}

pub(super) fn dead_letter(letter: Letter<'_>) -> Decoded {
    let kept = letter.bytes.len().min(DEAD_LETTER_BYTES);
    Decoded::Refused(Box::new(Refused {
        source: letter.source.to_owned(),
        position: letter.position,
        reason: letter.reason,
        detail: letter.detail,
        // `kept` is at most the length.
        body: letter.bytes[..kept].to_vec(),
        bytes: letter.bytes.len() as u64,
        sha256: Sha256::digest(letter.bytes).into(),
        headers: letter.headers,
        broker_id: letter.broker_id,
    }))
}
