//! Looks into an event's `data`, which may hold anything.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::text;
use crate::model::Time;

/// How much of a value a mail shows, in bytes. Smaller ones make a mail of many items fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A name: ZMS allows 256 and more, people see 60.
    pub name_bytes: usize,
    pub prose_bytes: usize,
    /// Pairs shown of an event whose type nobody described, and the entries kept of any list or object.
    pub pairs: usize,
    /// Each item has its link. Where there is room for names only, the names come first.
    pub links: bool,
}

/// Deeper data is shown as `…`: it would not be read, and recursion stays bounded.
const DEPTH_MAX: usize = 4;

/// A text or number at a dotted path; `None` if it is absent, `null`, empty or of another kind.
pub fn raw<'a>(data: &'a Map<String, Value>, path: &str) -> Option<Cow<'a, str>> {
    let mut keys = path.split('.');
    let mut value = data.get(keys.next()?)?;
    for key in keys {
        value = value.get(key)?;
    }
    match value {
        Value::String(s) if !s.trim_start().is_empty() => Some(Cow::Borrowed(s)),
        Value::Number(n) => Some(Cow::Owned(n.to_string())),
        _ => None,
    }
}

pub fn time(data: &Map<String, Value>, path: &str) -> Option<Time> {
    raw(data, path).and_then(|t| Time::parse(&t))
}

/// The data with every text and key cleaned and cut, for templates of custom types.
pub fn cleaned(data: &Map<String, Value>, bounds: Bounds) -> Value {
    Value::Object(object(data, bounds, 0))
}

fn object(data: &Map<String, Value>, bounds: Bounds, depth: usize) -> Map<String, Value> {
    data.iter()
        .take(bounds.pairs)
        .map(|(k, v)| (text::name(k, bounds.name_bytes), clean(v, bounds, depth + 1)))
        .collect()
}

fn clean(value: &Value, bounds: Bounds, depth: usize) -> Value {
    match value {
        Value::String(s) => Value::String(text::prose(s, bounds.prose_bytes)),
        Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => Value::String("…".into()),
        Value::Array(list) => list.iter().take(bounds.pairs).map(|v| clean(v, bounds, depth + 1)).collect(),
        Value::Object(map) => Value::Object(object(map, bounds, depth)),
        Value::Null => Value::String(String::new()),
        Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Keys and values of data nobody described, nested ones with dots; at most `bounds.pairs`, then a word on the rest. `cut`: there is more than `data`.
pub fn pairs(data: &Map<String, Value>, cut: bool, bounds: Bounds) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut left_out = 0u64;
    flatten("", data, bounds, 0, &mut out, &mut left_out);
    if cut {
        // How many nobody has counted.
        out.push(("…".into(), "more entries not shown".into()));
    } else if left_out > 0 {
        out.push(("…".into(), format!("{} not shown", text::counted(left_out, "more entry", "more entries"))));
    }
    out
}

fn flatten(
    prefix: &str,
    data: &Map<String, Value>,
    bounds: Bounds,
    depth: usize,
    out: &mut Vec<(String, String)>,
    left_out: &mut u64,
) {
    for (key, value) in data {
        // Whom the event names is the recipients' own business; nobody is told who else got it.
        if depth == 0 && key == "recipients" {
            continue;
        }
        if out.len() >= bounds.pairs {
            *left_out += 1;
            continue;
        }
        let key = text::name(&format!("{prefix}{key}"), bounds.name_bytes);
        let shown = match value {
            Value::Null => continue,
            Value::Object(map) if depth + 1 < DEPTH_MAX => {
                flatten(&format!("{key}."), map, bounds, depth + 1, out, left_out);
                continue;
            }
            Value::Object(_) => "…".to_owned(),
            Value::Array(list) => list_text(list, bounds),
            Value::String(s) => text::prose(s, bounds.prose_bytes),
            Value::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
            Value::Number(n) => n.to_string(),
        };
        out.push((key, shown));
    }
}

fn list_text(list: &[Value], bounds: Bounds) -> String {
    let mut shown = Vec::new();
    for value in list.iter().take(bounds.pairs) {
        shown.push(match value {
            Value::String(s) => text::prose(s, bounds.name_bytes),
            Value::Null => "null".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.to_string(),
            Value::Array(_) | Value::Object(_) => "…".to_owned(),
        });
    }
    if list.len() > bounds.pairs {
        shown.push("…".to_owned());
    }
    text::cut(&shown.join(", "), bounds.prose_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { name_bytes: 20, prose_bytes: 30, pairs: 3, links: true };

    fn map(json: serde_json::Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn unknown_data_is_shown_as_bounded_pairs_without_its_recipients() {
        let data =
            map(serde_json::json!({"a": {"b": 1, "c": [1, "x", {}]}, "d": true, "e": "z", "recipients": ["user.bob"]}));
        let shown = pairs(&data, false, BOUNDS);
        assert_eq!(
            shown,
            [("a.b", "1"), ("a.c", "1, x, …"), ("d", "yes"), ("…", "1 more entry not shown")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        let last = ("…".to_owned(), "more entries not shown".to_owned());
        assert_eq!(pairs(&data, true, BOUNDS).last(), Some(&last), "of what is not here nobody knows how many");
    }

    #[test]
    fn data_for_templates_is_cut_in_depth_width_and_length() {
        let mut deep = serde_json::json!("x".repeat(2_000));
        for _ in 0..100 {
            deep = serde_json::json!({ "k": deep });
        }
        let out = cleaned(&map(serde_json::json!({"a": deep, "b\u{0}": "y".repeat(2_000)})), BOUNDS).to_string();
        assert!(out.len() < 200, "{out}");
        assert!(out.contains("b\u{FFFD}"));
    }
}
