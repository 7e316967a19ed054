//! What of an event's data a mail can use. Dozens of mails are made at once, each of dozens of events, and an event may
//! have a megabyte of data, whose values take sixteen times as much: all of it would be gigabytes for what no mail shows.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Name;

/// A text is cut here: twice what a mail ever shows of one (`render/budget.rs`).
const TEXT_BYTES: usize = 1_024;
/// Names and texts of an event together. What comes behind is left out, as is what is deeper inside than [`DEPTH`].
const BYTES: usize = 16 * 1_024;
const VALUES: usize = 256;
/// Of one member: a list does not use up the place of what stands behind it.
const BYTES_OF_MEMBER: usize = 4 * 1_024;
const VALUES_OF_MEMBER: usize = 64;
const DEPTH: usize = 8;

/// What of an event's data is for its mail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub members: Map<String, Value>,
    /// There are more members, here or inside, than are shown; but for the recipients, who are nobody else's business.
    pub cut: bool,
}

/// The members of the JSON object `text`, within the bounds above. Any other text has none.
pub(super) fn shown(text: &str) -> Shown {
    let mut room = Room { bytes: BYTES, values: VALUES, cut: false };
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Bounded { room: &mut room, depth: 0 }.deserialize(&mut json).ok().flatten();
    match found {
        Some(Value::Object(members)) if json.end().is_ok() => Shown { members, cut: room.cut },
        _ => Shown::default(),
    }
}

struct Room {
    bytes: usize,
    values: usize,
    cut: bool,
}

/// A value, as far as there is room for it. `None`: there is none.
struct Bounded<'r> {
    room: &'r mut Room,
    depth: usize,
}

impl Bounded<'_> {
    fn value<E>(self, value: Value) -> Result<Option<Value>, E> {
        Ok(match self.room.values.checked_sub(1) {
            Some(left) => {
                self.room.values = left;
                Some(value)
            }
            None => None,
        })
    }

    /// Runs `fill` with the room that a value inside may use.
    fn inside<T>(&mut self, tells: bool, fill: impl FnOnce(Bounded<'_>) -> T) -> T {
        if self.depth > 0 {
            return fill(Bounded { room: self.room, depth: self.depth + 1 });
        }
        let (bytes, values) = (self.room.bytes.min(BYTES_OF_MEMBER), self.room.values.min(VALUES_OF_MEMBER));
        let mut of_member = Room { bytes, values, cut: false };
        let filled = fill(Bounded { room: &mut of_member, depth: 1 });
        self.room.bytes -= bytes - of_member.bytes;
        self.room.values -= values - of_member.values;
        self.room.cut |= tells && of_member.cut;
        filled
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<Value>, D::Error> {
        if self.room.values == 0 || self.depth > DEPTH {
            return json.deserialize_ignored_any(IgnoredAny).map(|_| None);
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        self.value(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        self.value(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        self.value(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        self.value(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        self.value(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Value>, E> {
        let most = self.room.bytes.min(TEXT_BYTES);
        if text.len() > most && most < TEXT_BYTES {
            return Ok(None);
        }
        let cut = &text[..text.floor_char_boundary(most)];
        self.room.bytes -= cut.len();
        self.value(Value::String(cut.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut all: A) -> Result<Option<Value>, A::Error> {
        // There is room for it, as `deserialize` looked; what is in it takes the rest.
        self.room.values -= 1;
        let mut found = Vec::new();
        while let Some(one) = self.inside(true, |inside| all.next_element_seed(inside))? {
            found.extend(one);
        }
        Ok(Some(Value::Array(found)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut all: A) -> Result<Option<Value>, A::Error> {
        self.room.values -= 1;
        let mut found = Map::new();
        while let Some(Name(name)) = all.next_key::<Name<'de>>()? {
            let tells = self.depth > 0 || name != "recipients";
            let value = if name.len() > self.room.bytes {
                all.next_value::<IgnoredAny>()?;
                None
            } else {
                self.inside(tells, |inside| all.next_value_seed(inside))?
            };
            match value {
                Some(value) => {
                    self.room.bytes = self.room.bytes.saturating_sub(name.len());
                    found.insert(name.into_owned(), value);
                }
                None => self.room.cut |= tells,
            }
        }
        Ok(Some(Value::Object(found)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(text: &str) -> Map<String, Value> {
        shown(text).members
    }

    fn values(value: &Value) -> usize {
        match value {
            Value::Array(all) => 1 + all.iter().map(values).sum::<usize>(),
            Value::Object(all) => 1 + all.values().map(values).sum::<usize>(),
            _ => 1,
        }
    }

    #[test]
    fn an_event_of_ordinary_size_is_as_it_is() {
        let all = json!({
            "domain": "sports", "n": -1, "x": 1.5, "big": u64::MAX, "yes": true, "none": null, "empty": {}, "list": [1, [2], {"a": "b"}],
            "collection": {"kind": "role", "name": "writers"}, "\u{e9}\u{1f98a}": "\u{e9}\u{1f98a}",
        });
        assert_eq!(shown(&all.to_string()), Shown { members: all.as_object().unwrap().clone(), cut: false });
        assert_eq!(members(r#"{"a":1,"a":2}"#)["a"], 2, "of two with one name the last");
        for other in ["", "[1]", "\"text\"", "{\"a\":", "{} {}", "1"] {
            assert_eq!(members(other), Map::new(), "{other:?}");
        }
    }

    #[test]
    fn what_no_mail_shows_takes_no_memory_and_no_place_of_what_stands_behind_it() {
        let ones = vec![1; 400_000];
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let deep: Value = serde_json::from_str(&deep).unwrap();
        let many: Map<String, Value> = (0..5_000).map(|n| (format!("m{n}"), json!([n]))).collect();
        let text = "\u{1f98a}".repeat(100_000);
        for pad in [
            json!(ones),
            json!(vec![json!({"a": ones}); 3]),
            deep,
            json!(many),
            json!(text),
            json!(vec![text.clone(); 300]),
        ] {
            let found = members(&json!({"a pad": pad, "member": "user.joe", "number": 7}).to_string());
            assert_eq!((found["member"].as_str(), found["number"].as_i64()), (Some("user.joe"), Some(7)));
            let pad = &found["a pad"];
            assert!(pad.as_str().map_or(values(pad) - 1, str::len) > 3, "its beginning is there: {pad}");
            let found = Value::Object(found);
            assert!(values(&found) <= VALUES && found.to_string().len() <= 2 * BYTES, "{}", found.to_string().len());
        }
        // Many members, many long texts: the first ones.
        let texts: Map<String, Value> = (0..300).map(|n| (format!("m{n:03}"), json!("x".repeat(500)))).collect();
        let found = members(&json!(texts).to_string());
        assert!(found.len() >= 20 && found.contains_key("m000") && found.len() <= VALUES, "{}", found.len());
        assert!(Value::Object(found).to_string().len() <= 2 * BYTES);
        let found = members(&json!(many).to_string());
        assert!(found.len() > 100 && values(&Value::Object(found)) <= VALUES);
        // Lists of a few KB, and many of them.
        let roles = vec!["sports:role.writers"; 100];
        let found = members(&json!({"a": roles, "b": roles, "c": roles, "d": roles, "domain": "sports"}).to_string());
        assert!(found["a"].as_array().is_some_and(|all| all.len() > 50) && found.len() >= 4, "{found:?}");
        let flat: Map<String, Value> = (0..1_000).map(|n| (format!("m{n:04}"), json!(n))).collect();
        assert_eq!(members(&json!(flat).to_string()).len(), VALUES - 1, "and the object itself");
        // A list ends as lists do, members are missed, and nobody is told of recipients.
        for (data, cut) in [
            (json!({"list": vec![1; 100]}), false),
            (json!({"recipients": vec!["user.joe"; 500], "a": 1}), false),
            (json!({"recipients": {"all": flat}}), false),
            (json!({"inside": flat}), true),
            (json!(flat), true),
            (json!({"a": {"recipients": flat}}), true),
        ] {
            assert_eq!(shown(&data.to_string()).cut, cut);
        }
    }
}
