//! What routes say about an event: the field that a dotted path names, and texts with `{{path}}` in them.

use std::borrow::Cow;

use serde_json::Value;

use crate::model::Event;

/// A value longer than this names nobody and nothing.
pub const VALUE_MAX_BYTES: usize = 256;

/// A field of an event: `type`, `source`, `id`, `subject_key`, or `data.` and a dotted path into objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Type,
    Source,
    Id,
    SubjectKey,
    Data(Box<[Box<str>]>),
}

impl Field {
    /// # Errors
    /// In words, if the path names no field.
    pub fn parse(path: &str) -> Result<Field, String> {
        match path {
            "type" => return Ok(Field::Type),
            "source" => return Ok(Field::Source),
            "id" => return Ok(Field::Id),
            "subject_key" => return Ok(Field::SubjectKey),
            _ => {}
        }
        let steps: Box<[Box<str>]> = match path.strip_prefix("data.") {
            Some(rest) => rest.split('.').map(Box::from).collect(),
            None => {
                return Err(format!(
                    "{path:?} is no field of an event: expected data.NAME (as in data.domain), type, source, id or subject_key"
                ));
            }
        };
        if steps.iter().any(|step| step.is_empty() || step.chars().any(|c| c.is_whitespace() || c.is_control())) {
            return Err(format!(
                "{path:?} is no path: expected names with single dots between them, as in data.collection.kind"
            ));
        }
        Ok(Field::Data(steps))
    }

    /// The text of what stands there; numbers and booleans as JSON writes them.
    fn text<'e>(&self, event: &'e Event) -> Found<'e> {
        let known = |text: &'e str| Found::Text(Cow::Borrowed(text));
        match self {
            Field::Type => known(&event.kind),
            Field::Source => known(&event.source),
            Field::Id => known(&event.id),
            Field::SubjectKey => event.subject_key.as_deref().map_or(Found::Nothing, known),
            Field::Data(steps) => match find(steps, event) {
                None | Some(Value::Null) => Found::Nothing,
                Some(value) => text(value).map_or(Found::Unusable, Found::Text),
            },
        }
    }

    /// Whether any text there passes; of a list, each of its values is tried.
    pub fn any(&self, event: &Event, passes: impl Fn(&str) -> bool) -> bool {
        match self {
            Field::Data(steps) => match find(steps, event) {
                Some(Value::Array(values)) => values.into_iter().filter_map(text).any(|t| passes(&t)),
                Some(value) => text(value).is_some_and(|t| passes(&t)),
                None => false,
            },
            _ => matches!(self.text(event), Found::Text(t) if passes(&t)),
        }
    }
}

/// What stands at a field.
enum Found<'e> {
    Text(Cow<'e, str>),
    /// Missing or `null`.
    Nothing,
    /// A list or an object.
    Unusable,
}

fn find(steps: &[Box<str>], event: &Event) -> Option<Value> {
    event.data.find(steps.iter().map(|step| &**step))
}

fn text(value: Value) -> Option<Cow<'static, str>> {
    match value {
        Value::String(text) => Some(Cow::Owned(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(yes) => Some(Cow::Borrowed(if yes { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text such as `{{data.domain}}:role.admin`. Everything outside of the braces stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    written: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Field(Field),
}

impl Expression {
    /// # Errors
    /// In words, if braces are open or hold no field.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let written = text.into();
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once("{{") {
            let (path, after) =
                after.split_once("}}").ok_or_else(|| "a {{ without its }}: expected {{data.NAME}}".to_owned())?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            pieces.push(Piece::Field(Field::parse(path.trim())?));
            rest = after;
        }
        if rest.contains("}}") {
            return Err("a }} without its {{: expected {{data.NAME}}".to_owned());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.into()));
        }
        if pieces.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Expression { written, pieces: pieces.into() })
    }

    /// Whether every character outside of the braces is `fit`.
    pub fn literals_are(&self, fit: impl Fn(char) -> bool) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Literal(literal) => literal.chars().all(&fit),
            Piece::Field(_) => true,
        })
    }

    /// The text with its values put in as they are.
    pub fn expand(&self, event: &Event, fit: impl Fn(char) -> bool) -> Expansion {
        let mut out = String::new();
        let mut unusable = false;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Field(field) => match field.text(event) {
                    Found::Text(value) if value.is_empty() => return Expansion::Missing,
                    Found::Text(value) => {
                        unusable |= value.len() > VALUE_MAX_BYTES || !value.chars().all(|c| !c.is_control() && fit(c));
                        out.push_str(&value);
                    }
                    Found::Nothing => return Expansion::Missing,
                    Found::Unusable => unusable = true,
                },
            }
        }
        if unusable { Expansion::Unusable } else { Expansion::Text(out) }
    }

    /// As it stands in the configuration.
    pub fn as_written(&self) -> &str {
        &self.written
    }
}

/// What an expression says of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Expansion {
    Text(String),
    /// A value is missing, `null` or empty: the expression does not concern this event.
    Missing,
    /// A value is there, and is a list or an object, longer than [`VALUE_MAX_BYTES`], has control characters, or is not
    /// fit: whom it means can't be told.
    Unusable,
}

impl Expansion {
    pub fn text(self) -> Option<String> {
        match self {
            Expansion::Text(text) => Some(text),
            Expansion::Missing | Expansion::Unusable => None,
        }
    }
}
