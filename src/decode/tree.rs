//! JSON that borrows its texts from the message: an event's members are looked at once and then kept as they were written,
//! so that owning each of them would cost more than all else that decoding does.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Number, Value};

/// A JSON value.
#[derive(Clone, Debug)]
pub(super) enum Tree<'t> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'t, str>),
    Array(Vec<Tree<'t>>),
    Object(Object<'t>),
}

/// An object's members, each name once: of two with one name the last counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Object<'t>(Vec<(Cow<'t, str>, Tree<'t>)>);

/// So many names are compared with each other quicker than they are hashed.
const FEW: usize = 16;

impl<'t> Object<'t> {
    fn of(mut members: Vec<(Cow<'t, str>, Tree<'t>)>) -> Object<'t> {
        let doubled = |members: &[(Cow<'t, str>, Tree<'t>)]| match members.len() {
            n if n <= FEW => (1..n).any(|i| members[..i].iter().any(|(name, _)| *name == members[i].0)),
            n => members.iter().map(|(name, _)| name.as_ref()).collect::<HashSet<&str>>().len() < n,
        };
        if doubled(&members) {
            let mut seen = HashSet::new();
            members.reverse();
            members.retain(|(name, _)| seen.insert(name.clone()));
            members.reverse();
        }
        Object(members)
    }

    pub fn get(&self, name: &str) -> Option<&Tree<'t>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn set(&mut self, name: &'static str, value: Tree<'t>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((Cow::Borrowed(name), value));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree<'t>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value.into())).collect()
    }

    /// As JSON text, without blanks.
    pub fn to_text(&self) -> String {
        // Text keys always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'t> IntoIterator for Object<'t> {
    type Item = (Cow<'t, str>, Tree<'t>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'t> FromIterator<(Cow<'t, str>, Tree<'t>)> for Object<'t> {
    fn from_iter<I: IntoIterator<Item = (Cow<'t, str>, Tree<'t>)>>(members: I) -> Object<'t> {
        Object::of(members.into_iter().collect())
    }
}

impl From<Map<String, Value>> for Object<'static> {
    fn from(map: Map<String, Value>) -> Object<'static> {
        Object(map.into_iter().map(|(name, value)| (Cow::Owned(name), value.into())).collect())
    }
}

impl Tree<'_> {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    /// Whether objects and arrays stand in more than so many `levels`. Recursion is bounded: `serde_json` parses no more
    /// than 127 of them.
    pub fn is_deeper(&self, levels: usize) -> bool {
        match self {
            Tree::Array(items) => levels == 0 || items.iter().any(|item| item.is_deeper(levels - 1)),
            Tree::Object(object) => levels == 0 || object.iter().any(|(_, member)| member.is_deeper(levels - 1)),
            _ => false,
        }
    }
}

impl From<Tree<'_>> for Value {
    fn from(tree: Tree<'_>) -> Value {
        match tree {
            Tree::Null => Value::Null,
            Tree::Bool(yes) => Value::Bool(yes),
            Tree::Number(number) => Value::Number(number),
            Tree::Text(text) => Value::String(text.into_owned()),
            Tree::Array(items) => Value::Array(items.into_iter().map(Value::from).collect()),
            Tree::Object(object) => Value::Object(object.into_map()),
        }
    }
}

impl From<Value> for Tree<'static> {
    fn from(value: Value) -> Tree<'static> {
        match value {
            Value::Null => Tree::Null,
            Value::Bool(yes) => Tree::Bool(yes),
            Value::Number(number) => Tree::Number(number),
            Value::String(text) => Tree::Text(Cow::Owned(text)),
            Value::Array(items) => Tree::Array(items.into_iter().map(Tree::from).collect()),
            Value::Object(map) => Tree::Object(map.into()),
        }
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => to.serialize_unit(),
            Tree::Bool(yes) => to.serialize_bool(*yes),
            Tree::Number(number) => number.serialize(to),
            Tree::Text(text) => to.serialize_str(text),
            Tree::Array(items) => items.serialize(to),
            Tree::Object(object) => object.serialize(to),
        }
    }
}

/// A text, borrowed unless it was written with escapes.
struct Text<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Text<'de>, D::Error> {
        match text.deserialize_str(Any)? {
            Tree::Text(text) => Ok(Text(text)),
            _ => Ok(Text(Cow::Borrowed(""))),
        }
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Tree<'de>, D::Error> {
        value.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree<'de>, E> {
        Ok(Number::from_f64(number).map_or(Tree::Null, Tree::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Tree<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = all.next_element()? {
            items.push(item);
        }
        Ok(Tree::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Ok(Tree::Object(Object::of(members)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(text: &str) -> Tree<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn it_says_what_the_values_of_serde_json_say() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "1.10",
            "1e3",
            r#""a\n\u0041\ud83d\ude00""#,
            r#"[1,[],{"a":[{}]}]"#,
            r#"{"b":1,"a":{"x":"y"},"b":[2],"":null,"\u0062":3}"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(Value::from(tree(text)), value, "{text}");
            assert_eq!(Value::from(Tree::from(value.clone())), value);
            assert_eq!(serde_json::from_str::<Value>(&serde_json::to_string(&tree(text)).unwrap()).unwrap(), value);
        }
        for text in [r#""\ud800""#, "1e999", "[1,]", r#"{"a":1,}"#, r#"{1:2}"#, "", "nul", &"[".repeat(200)] {
            let (ours, theirs) = (serde_json::from_str::<Tree<'_>>(text), serde_json::from_str::<Value>(text));
            assert_eq!(ours.unwrap_err().to_string(), theirs.unwrap_err().to_string(), "{text}");
        }
    }

    #[test]
    fn of_many_members_with_one_name_the_last_counts() {
        let text: String = (0..40).map(|n| format!(",\"k{}\":{n}", n % 20)).collect();
        let text = format!("{{\"first\":0{text}}}");
        let Tree::Object(object) = tree(&text) else { panic!() };
        assert_eq!(object.iter().count(), 21);
        assert_eq!(Value::Object(object.into_map()), serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(json!(0), serde_json::from_str::<Value>(&text).unwrap()["first"]);
    }

    #[test]
    fn texts_are_borrowed_where_they_can_be() {
        let Tree::Object(object) = tree(r#"{"a":"plain","b":"with \"quotes\""}"#) else { panic!() };
        assert!(matches!(object.get("a"), Some(Tree::Text(Cow::Borrowed("plain")))));
        assert!(matches!(object.get("b"), Some(Tree::Text(Cow::Owned(_)))));
    }
}
