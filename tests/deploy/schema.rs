//! Each limit that the chart's own part of the schema sets on a value refuses what is beyond it, at the value's own place.
//! (The program's part is its own: `tests/config`.)

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::tools::{helm, text};

/// A value that is to be refused: where it stands, and where that is told.
struct Bad {
    at: Vec<String>,
    value: Value,
    told: String,
}

struct Schema(Value);

impl Schema {
    fn resolved<'s>(&'s self, of: &'s Value) -> &'s Value {
        of["$ref"].as_str().map_or(of, |name| self.0.pointer(name.trim_start_matches('#')).unwrap())
    }

    /// All that this part refuses.
    fn refuses(&self, part: &Value, at: &[String], found: &mut Vec<Bad>) {
        let part = self.resolved(part);
        let place = format!("at '/{}': ", at.join("/"));
        let mut bad = |value: Value| found.push(Bad { at: at.to_vec(), value, told: place.clone() });
        let kinds: Vec<&str> = match &part["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        if kinds.is_empty() && part["enum"].is_null() {
            panic!("{place} takes anything");
        }
        let other = [json!([]), json!("not this!"), json!(7)];
        let other = other.into_iter().find(|value| match value {
            Value::Array(_) => !kinds.contains(&"array"),
            Value::String(_) => !kinds.contains(&"string"),
            _ => true,
        });
        bad(other.unwrap());
        if !part["enum"].is_null() || !part["pattern"].is_null() {
            bad(json!("not this!"));
        }
        if part["minLength"] == 1 {
            bad(json!(""));
        }
        if let Some(most) = part["maxLength"].as_u64() {
            bad(json!("a".repeat(usize::try_from(most).unwrap() + 1)));
        }
        for (limit, by) in [("minimum", -1), ("maximum", 1)] {
            if let Some(limit) = part[limit].as_i64() {
                bad(json!(limit + by));
            }
        }
        if part["minItems"] == 1 {
            bad(json!([]));
        }
        if !part["required"].is_null() {
            bad(json!({}));
        }
        if part["additionalProperties"] == false {
            bad(json!({ "unheardOf": 1 }));
        }
        if !part["propertyNames"].is_null() {
            let value = json!({ "not this!": { "name": "a", "key": "b" } });
            // Helm says the right name at a wrong place.
            found.push(Bad { at: at.to_vec(), value, told: "invalid propertyName 'not this!'".to_owned() });
        }
        let below = |key: &str| at.iter().cloned().chain([key.to_owned()]).collect::<Vec<_>>();
        for (key, part) in part["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "config") {
            self.refuses(part, &below(key), found);
        }
        if part["additionalProperties"].is_object() {
            self.refuses(&part["additionalProperties"], &below("ANY"), found);
        }
        if part["items"].is_object() {
            self.refuses(&part["items"], &below("0"), found);
        }
    }
}

/// `value` at that place, with objects and lists around it.
fn put(into: &mut Value, at: &[String], value: &Value) {
    let Some((key, rest)) = at.split_first() else {
        *into = value.clone();
        return;
    };
    if key == "0" {
        *into = json!([null]);
        put(&mut into[0], rest, value);
        return;
    }
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    put(&mut into[key.as_str()], rest, value);
}

/// As many at once as are not inside of each other.
fn rounds(mut all: Vec<Bad>) -> Vec<Vec<Bad>> {
    let mut rounds = Vec::new();
    while !all.is_empty() {
        let mut taken: Vec<Bad> = Vec::new();
        let mut left = Vec::new();
        for bad in all {
            let clash = taken.iter().any(|one| one.at.iter().zip(&bad.at).all(|(a, b)| a == b));
            if clash { left.push(bad) } else { taken.push(bad) }
        }
        rounds.push(taken);
        all = left;
    }
    rounds
}

#[test]
fn every_limit_of_the_values_refuses_what_is_beyond_it() {
    let schema = Schema(serde_json::from_str(include_str!("../../deploy/helm/chart.schema.json")).unwrap());
    let mut all = Vec::new();
    for (key, part) in schema.0["properties"].as_object().unwrap().iter().filter(|(key, _)| *key != "config") {
        schema.refuses(part, std::slice::from_ref(key), &mut all);
    }
    assert!(all.len() > 200, "{}", all.len());
    let mut missed = BTreeSet::new();
    for round in rounds(all) {
        let mut values = json!({});
        round.iter().for_each(|bad| put(&mut values, &bad.at, &bad.value));
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), values.to_string()).unwrap();
        let mut helm = helm(&["template", "owlpost"], "laptop", &[]);
        let said = text(&helm.arg("--values").arg(file.path()).output().unwrap().stderr);
        assert!(said.contains("values don't meet the specifications of the schema"), "{values}: {said}");
        for bad in round {
            if !said.contains(&bad.told) {
                missed.insert(format!("{}: {}", bad.told, bad.value));
            }
        }
    }
    assert!(missed.is_empty(), "taken without a word:\n  {}", missed.into_iter().collect::<Vec<_>>().join("\n  "));
}
