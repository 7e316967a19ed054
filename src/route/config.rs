//! `[[route]]`: what a route says in the configuration.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::model::Priority;
use crate::schedule::Cadence;
use crate::span::Span;

/// Which events a route takes, whom it asks, and how the mail looks and leaves.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Names it in the ledger, metrics, commands and environment variables. `handled` is reserved.
    pub name: String,
    /// CloudEvents types; `*` stands for any run of characters.
    #[serde(default)]
    pub types: Vec<String>,
    /// Only events whose fields have one of these values; all keys must hold.
    #[serde(default, rename = "where")]
    pub conditions: BTreeMap<String, OneOf>,
    /// Whom to ask if the event names nobody: principals, roles and groups, with `{{data.domain}}` and the like.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Of types that are not Athenz's own: what the event is about; the next event of that subject replaces it.
    pub subject_key: Option<String>,
    /// Of the same types: what the event does to its subject. Default: `opens`.
    pub effect: Option<RouteEffect>,
    /// The mail's template.
    #[serde(default = "default_template")]
    pub template: String,
    #[serde(default)]
    pub priority: Priority,
    /// When the mail leaves. Default: at once.
    #[serde(default)]
    pub cadence: Cadence,
    /// Gather until an operator releases the mails.
    #[serde(default)]
    pub hold: bool,
    /// Who gets its mails may stop them: they carry `List-Unsubscribe`, as `templates.unsubscribe` says.
    #[serde(default)]
    pub optional: bool,
    /// What ends a send whose outcome nobody can know.
    #[serde(default)]
    pub on_in_doubt: OnInDoubt,
    /// Instead of `delivery.attempts_max`.
    pub attempts_max: Option<u32>,
    /// Instead of `delivery.give_up_after`.
    pub give_up_after: Option<Span>,
}

fn default_template() -> String {
    "digest".into()
}

impl RouteConfig {
    /// A route with defaults.
    pub fn named(name: &str) -> RouteConfig {
        RouteConfig {
            name: name.into(),
            types: Vec::new(),
            conditions: BTreeMap::new(),
            audience: Vec::new(),
            subject_key: None,
            effect: None,
            template: default_template(),
            priority: Priority::default(),
            cadence: Cadence::default(),
            hold: false,
            optional: false,
            on_in_doubt: OnInDoubt::default(),
            attempts_max: None,
            give_up_after: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteEffect {
    Opens,
    Closes,
    Informs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnInDoubt {
    /// Send once more: perhaps twice, never not at all.
    #[default]
    Resend,
    /// Let it be: perhaps not at all, never twice.
    Bury,
}

/// The values that a condition allows, as text: `"sports"`, `true`, `3`, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOf(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOf {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<OneOf, D::Error> {
        d.deserialize_any(Reader { list: true })
    }
}

struct Reader {
    list: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = OneOf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false")?;
        if self.list { f.write_str(", or a list of them") } else { Ok(()) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOf, E> {
        Ok(OneOf(vec![text.to_owned()]))
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<OneOf, E> {
        Ok(OneOf(vec![yes.to_string()]))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOf, E> {
        Ok(OneOf(vec![number.to_string()]))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOf, E> {
        Ok(OneOf(vec![number.to_string()]))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<OneOf, E> {
        // As JSON writes it, since that is what it is compared with.
        Ok(OneOf(vec![serde_json::Value::from(number).to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOf, A::Error> {
        if !self.list {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        let mut all = Vec::new();
        while let Some(OneOf(one)) = seq.next_element_seed(Element)? {
            all.extend(one);
        }
        Ok(OneOf(all))
    }
}

struct Element;

impl<'de> de::DeserializeSeed<'de> for Element {
    type Value = OneOf;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<OneOf, D::Error> {
        d.deserialize_any(Reader { list: false })
    }
}

impl JsonSchema for OneOf {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOf".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = ["string", "number", "boolean"];
        schemars::json_schema!({"anyOf": [{"type": one}, {"type": "array", "items": {"type": one}, "minItems": 1}]})
    }
}
