//! What a producer says of an event.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

mod bounded;

pub use bounded::Shown;

/// An event's `data`: the text of a JSON object. As text it takes a fifth of the memory of its values, and most of it is
/// only read again when its mail is written.
#[derive(Clone)]
pub struct Data(Box<str>);

impl Data {
    /// `text` is a JSON object; any other text is one without members to whoever asks for them.
    pub fn of_text(text: impl Into<Box<str>>) -> Data {
        Data(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its members; of two with one name, the last.
    pub fn map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The members of the JSON object `text`, as far as a mail can use them: long texts cut, long lists and what is deep inside
    /// left out.
    pub fn shown(text: &str) -> Shown {
        bounded::shown(text)
    }

    /// What stands at the end of this path of names; all objects on the way.
    pub fn find<'s>(&self, path: impl IntoIterator<Item = &'s str>) -> Option<Value> {
        let path: Vec<&str> = path.into_iter().collect();
        let mut text = serde_json::Deserializer::from_str(&self.0);
        Path(&path).deserialize(&mut text).ok().flatten()
    }
}

impl From<&Map<String, Value>> for Data {
    fn from(map: &Map<String, Value>) -> Data {
        // A map with text keys always has a JSON form.
        Data(serde_json::to_string(map).unwrap_or_default().into())
    }
}

impl Default for Data {
    fn default() -> Data {
        Data("{}".into())
    }
}

/// Two are the same if they say the same, however it is written.
impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        self.0 == other.0 || self.map() == other.map()
    }
}

/// What producers say is in no log.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

/// The rest of a path; everything beside it is passed over without being kept.
struct Path<'p>(&'p [&'p str]);

impl<'de> DeserializeSeed<'de> for Path<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Option<Value>, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(value).map(Some),
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Path<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if name == *first {
                found = map.next_value_seed(Path(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Option<Value>, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<Value>, E> {
        Ok(None)
    }
}

/// A member's name: borrowed, unless it was written with escapes.
struct Name<'t>(Cow<'t, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Name<'de>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        text.deserialize_str(Text).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_by_its_path_and_of_two_with_one_name_the_last() {
        let text =
            r#"{"a":{"x":1},"b":[{"x":2}],"c":"t","n":null,"a":{"y":[1,{"z":true}],"x":"\u0041"},"\u0064":-1.5}"#;
        let data = Data::of_text(text);
        let cases = [
            (&["a", "x"][..], Some(json!("A"))),
            (&["a"], Some(json!({"x": "A", "y": [1, {"z": true}]}))),
            (&["d"], Some(json!(-1.5))),
            (&["n"], Some(Value::Null)),
            (&["b", "x"], None),
            (&["c", "t"], None),
            (&["d", "x"], None),
            (&["a", "x", "y"], None),
            (&["a", "missing"], None),
            (&["missing"], None),
        ];
        for (path, expected) in cases {
            assert_eq!(data.find(path.iter().copied()), expected, "{path:?}");
            let by_values = path.iter().try_fold(Value::Object(data.map()), |value, step| value.get(step).cloned());
            assert_eq!(by_values, expected, "{path:?}");
        }
        assert_eq!(Data::default().find(["a"]), None);
    }

    #[test]
    fn two_are_the_same_if_they_say_the_same() {
        let (one, other) = (Data::of_text(r#"{"a":1,"b":2}"#), Data::of_text(r#"{ "b": 2, "a": 0, "a": 1 }"#));
        assert!(one == other && one != Data::default());
    }
}
