//! The file as TOML or JSON.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use toml::de::{DeTable, DeValue};

use super::super::people::{People, Row};
use super::place;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    people: Vec<Table<PersonTable>>,
    #[serde(default)]
    members: Members,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonTable {
    principal: String,
    address: Option<String>,
    #[serde(alias = "time_zone")]
    zone: Option<String>,
    language: Option<String>,
}

/// A struct with names. What serde derives would also take a list of values in the order of the fields.
struct Table<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Table<T>, D::Error> {
        struct Named<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table (a JSON object)")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        d.deserialize_map(Named(PhantomData))
    }
}

/// A map that keeps what JSON may name twice.
#[derive(Default)]
struct Members(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Members, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of collections, e.g. \"sports:role.admin\" with a list of members")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Members(pairs))
            }
        }

        d.deserialize_map(Pairs)
    }
}

pub(super) fn from_toml(text: &str) -> Result<People, String> {
    let read = |places: &Places| match toml::from_str::<Table<Document>>(text) {
        Ok(table) => Ok(people(table.0, places)),
        Err(error) => {
            let at = error.span().map_or_else(|| "line 1, column 1".into(), |span| place(text, span.start));
            Err(format!("{at}: {}", without_values(error.message())))
        }
    };
    let found = read(&Places::default())?;
    // Read once more for the places of what was left out: a good file, however large, is read once.
    if found.findings().is_empty() { Ok(found) } else { read(&places(text)) }
}

/// Where entries stand: `line 3, column 1`. Empty: nobody knows.
#[derive(Default)]
struct Places {
    people: Vec<String>,
    members: HashMap<String, String>,
}

fn places(text: &str) -> Places {
    let mut places = Places::default();
    let Ok(table) = DeTable::parse(text) else { return places };
    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("people", DeValue::Array(list)) => {
                places.people = list.iter().map(|entry| place(text, entry.span().start)).collect();
            }
            ("members", DeValue::Table(table)) => {
                let of = |key: &toml::Spanned<toml::de::DeString<'_>>| place(text, key.span().start);
                places.members = table.iter().map(|(key, _)| (key.get_ref().to_string(), of(key))).collect();
            }
            _ => {}
        }
    }
    places
}

pub(super) fn from_json(text: &str) -> Result<People, String> {
    serde_json::from_str::<Table<Document>>(text).map(|table| people(table.0, &Places::default())).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
        format!("line {line}, column {column}: {}", without_values(message))
    })
}

fn people(document: Document, places: &Places) -> People {
    let mut people = People::default();
    let with = |at: Option<&String>, what: String| at.map_or(what.clone(), |at| format!("{at}: {what}"));
    for (n, Table(row)) in document.people.into_iter().enumerate() {
        let PersonTable { principal, address, zone, language } = row;
        let at = with(places.people.get(n), format!("people[{n}]"));
        people.add_person(&at, Row { principal, address, zone, language });
    }
    for (collection, members) in document.members.0 {
        let at = with(places.members.get(&collection), "members".into());
        people.add_members(&at, collection, members);
    }
    people
}

/// serde quotes the value it stumbled on, which may be an address, and a file's unknown keys, which may be anything.
fn without_values(message: &str) -> String {
    for (start, found) in
        [("invalid type: ", "found a value of another type"), ("invalid value: ", "found another value")]
    {
        if let (Some(_), Some((_, expected))) = (message.strip_prefix(start), message.rsplit_once(", expected ")) {
            return format!("{found}, expected {expected}");
        }
    }
    if let Some((key, expected)) = message.strip_prefix("unknown field `").and_then(|m| m.split_once("`, ")) {
        let plain = key.len() <= 40 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain { key } else { "..." };
        let expected = expected.rsplit_once("expected ").map_or(expected, |(_, expected)| expected);
        return format!("unknown key `{key}`, expected {expected}");
    }
    message.lines().next().unwrap_or_default().to_string()
}
