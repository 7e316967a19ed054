//! A tree becomes a [`super::Config`]. Serde stops at the first thing it dislikes; here the disliked value is reported
//! with its place and taken out, and reading starts over, so that all of them show at once.

use std::fmt::Display;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::nearest::did_you_mean;
use super::tree::{Node, Value};
use super::{PROBLEMS_MAX, Problem};

/// Reads everything that can be read. `None` if nothing is left to build on. What was wrong is gone from the tree
/// afterwards, so that positions in lists mean the same in both.
pub fn read<T: DeserializeOwned>(root: &mut Node, problems: &mut Vec<Problem>) -> Option<T> {
    // Each turn takes something out or ends.
    for _ in 0..=PROBLEMS_MAX {
        let mut fault = match T::deserialize(Place(root)) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        fault.path.reverse();
        let wrong = fault.path.iter().try_fold(&*root, |node, step| node.child(step)).unwrap_or(root);
        // A key that is missing because it was taken out has been reported.
        if !(fault.missing && wrong.damaged) {
            problems.push(Problem::error(if fault.key { &wrong.key_at } else { &wrong.at }, fault.message));
        }
        if fault.path.is_empty() {
            return None;
        }
        root.remove(&fault.path);
    }
    None
}

/// Why a value can't be read, and the path to it, innermost step first.
#[derive(Debug)]
pub struct Fault {
    message: String,
    path: Vec<String>,
    /// The key is wrong, not its value.
    key: bool,
    missing: bool,
}

impl Fault {
    fn new(message: String) -> Fault {
        Fault { message, path: Vec::new(), key: false, missing: false }
    }
}

impl std::error::Error for Fault {}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// What serde calls a thing, in the words of a person who writes TOML. Never the value: it may be a secret.
fn found(what: &Unexpected<'_>) -> &'static str {
    match what {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) | Unexpected::Char(_) => "a text in quotes",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a string" | "path string" => "a text in quotes".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, like [\"a\", \"b\"]".into(),
        "a map" => "a table".into(),
        "f64" => "a number".into(),
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number, not negative".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ => text,
    }
}

fn one_of(known: &[&str]) -> String {
    known.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(", ")
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Fault {
        Fault::new(message.to_string())
    }

    fn invalid_type(what: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        if what == Unexpected::Map && expected.to_string() == "a sequence" {
            return Fault::new("expected a list of tables: write it in double brackets, [[like_this]]".into());
        }
        Fault::new(format!("expected {}, found {}", wanted(expected), found(&what)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(format!("expected {}", wanted(expected)))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(format!("expected one of {}{}", one_of(known), did_you_mean(word, known.iter().copied())))
    }

    fn unknown_field(word: &str, known: &'static [&'static str]) -> Fault {
        let near = did_you_mean(word, known.iter().copied());
        let near = if near.is_empty() { format!("; known here: {}", known.join(", ")) } else { near };
        Fault { key: true, ..Fault::new(format!("unknown key {word:?}{near}")) }
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault { missing: true, ..Fault::new(format!("the key {field:?} is missing")) }
    }
}

/// A node, read by serde. Paths are built on the way out, from the fault inwards.
#[derive(Clone, Copy)]
struct Place<'a>(&'a Node);

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(yes) => visitor.visit_bool(*yes),
            Value::List(nodes) => visitor.visit_seq(Elements(nodes.iter().enumerate())),
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.raw {
            Some(raw) => visitor.visit_str(raw),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(text) => {
                let word: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            _ => Err(Fault::new(format!("expected one of {}", one_of(variants)))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// Notes which step leads to the fault.
fn step<T>(result: Result<T, Fault>, step: impl Display) -> Result<T, Fault> {
    result.map_err(|mut fault| {
        fault.path.push(step.to_string());
        fault
    })
}

struct Elements<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        match self.0.next() {
            Some((index, node)) => step(seed.deserialize(Place(node)).map(Some), index),
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Node>,
    value: Option<(&'a String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let word: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        step(seed.deserialize(word).map(Some), key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.value.take() {
            Some((key, node)) => step(seed.deserialize(Place(node)), key),
            None => Err(Fault::new("a value was asked for before its key".into())),
        }
    }
}
