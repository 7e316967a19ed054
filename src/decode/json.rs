//! JSON as bytes: parsing within limits, the items of an array with their own bytes, and where a value stands. What scans
//! is iterative, so nesting costs no stack.

use std::ops::Range;

use crate::decode::Limits;
use crate::decode::problem::Problem;
use crate::decode::tree::Tree;
use crate::model::RefusedReason;

/// Where a piece stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the message; its bytes begin at `offset`.
    Body { offset: usize },
    /// The n-th item, from 1, of the array that the message is.
    Item { number: usize, offset: usize },
    /// On the n-th line, from 1.
    Line { number: usize },
}

impl Place {
    /// For a person: the message's position and the piece's place in it.
    pub fn position(self, message: &str) -> String {
        match self {
            Place::Body { .. } => message.to_owned(),
            Place::Item { number, .. } => format!("{message} item {number}"),
            Place::Line { number } => format!("{message} line {number}"),
        }
    }
}

/// Parses one value within the limits.
pub(super) fn parse<'t>(bytes: &'t [u8], limits: &Limits) -> Result<Tree<'t>, Problem> {
    if bytes.len() > limits.event_bytes {
        let what = format!("{} bytes; an event may have {}", bytes.len(), limits.event_bytes);
        return Err(Problem::new(RefusedReason::TooLarge, what));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Problem::new(RefusedReason::NotUtf8, "not UTF-8").at(e.valid_up_to()))?;
    let too_deep = || {
        let what = format!("more than {} objects and arrays inside each other", limits.depth);
        Problem::new(RefusedReason::TooDeep, what)
    };
    let value: Tree<'t> = serde_json::from_str(text).map_err(|e| {
        let offset = offset_of(bytes, e.line(), e.column());
        let said = e.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        match said.starts_with("recursion limit") {
            true => too_deep().at(offset),
            false => Problem::new(RefusedReason::NotJson, format!("not JSON: {said}")).at(offset),
        }
    })?;
    if value.is_deeper(limits.depth) { Err(too_deep()) } else { Ok(value) }
}

/// From the line and column (bytes) of `serde_json` to an offset.
fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    // At most the length: it grows to just behind a byte that was found.
    let mut start = 0;
    for _ in 1..line {
        match bytes[start..].iter().position(|b| *b == b'\n') {
            Some(newline) => start += newline + 1,
            None => break,
        }
    }
    (start + column.saturating_sub(1)).min(bytes.len())
}

/// Why an array can't be taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    TooMany,
    /// No item begins or ends at `offset`; `depth` is the deepest nesting seen so far.
    Syntax {
        offset: usize,
        depth: usize,
    },
}

/// The bytes of each item of the array in `text`, at most `room`. What is inside an item is not looked at.
pub(super) fn items(text: &[u8], room: usize) -> Result<Vec<Range<usize>>, Broken> {
    let mut depth = 0;
    let mut items = Vec::new();
    // The opening bracket, which the caller has seen.
    let mut at = skip_space(text, 0) + 1;
    let first = skip_space(text, at);
    if text.get(first) == Some(&b']') {
        at = first + 1;
    } else {
        loop {
            let start = skip_space(text, at);
            let end = skip_value(text, start, &mut depth).ok_or(Broken::Syntax { offset: start, depth })?;
            if items.len() == room {
                return Err(Broken::TooMany);
            }
            items.push(start..end);
            at = skip_space(text, end);
            match text.get(at) {
                Some(b',') => at += 1,
                Some(b']') => {
                    at += 1;
                    break;
                }
                _ => return Err(Broken::Syntax { offset: at.min(text.len()), depth }),
            }
        }
    }
    let rest = skip_space(text, at);
    if rest == text.len() { Ok(items) } else { Err(Broken::Syntax { offset: rest, depth }) }
}

/// Where the value at the end of `steps` begins; where it is missing, the object that should hold it. `text` is valid JSON.
pub(super) fn locate(text: &[u8], steps: &[String]) -> Option<usize> {
    let mut at = skip_space(text, 0);
    for step in steps {
        let opening = *text.get(at)?;
        if opening != b'{' && opening != b'[' {
            return Some(at);
        }
        let mut next = skip_space(text, at + 1);
        let mut index = 0usize;
        let mut found = None;
        // Each turn moves on by a member; the last one of a name counts, as for the parser.
        while !matches!(text.get(next), None | Some(b'}' | b']')) {
            let start = next;
            let mut end = skip_value(text, start, &mut 0)?;
            let is_it = if opening == b'{' {
                let is_it = is_name(text.get(start..end)?, step);
                next = skip_space(text, skip_space(text, end) + 1);
                end = skip_value(text, next, &mut 0)?;
                is_it
            } else {
                index += 1;
                step.parse() == Ok(index - 1)
            };
            if is_it {
                found = Some(next);
            }
            next = skip_space(text, end);
            if text.get(next) == Some(&b',') {
                next = skip_space(text, next + 1);
            }
        }
        match found {
            Some(value) => at = value,
            None => return Some(at),
        }
    }
    Some(at)
}

/// Whether `written`, with its quotes, is this name.
fn is_name(written: &[u8], name: &str) -> bool {
    match written.contains(&b'\\') {
        true => serde_json::from_slice::<String>(written).is_ok_and(|written| written == name),
        false => written.get(1..written.len().saturating_sub(1)) == Some(name.as_bytes()),
    }
}

/// The value of a member of the object that `text` is, as it was written; the last one of that name. `text` is valid JSON.
pub(super) fn member<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let object = skip_space(text, 0);
    let start = locate(text, &[name.to_owned()]).filter(|start| *start > object)?;
    text.get(start..skip_value(text, start, &mut 0)?)
}

fn skip_space(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the value that begins at `start`; `None` if there is none or it does not end. `deepest` grows with nesting.
fn skip_value(text: &[u8], start: usize, deepest: &mut usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = start;
    loop {
        match text.get(at)? {
            b'"' => at = skip_string(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                *deepest = (*deepest).max(depth);
                at += 1;
            }
            b'}' | b']' => {
                // Closes what this value did not open: it is not part of it.
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return None,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            _ => {
                let ends =
                    |b: &u8| matches!(b, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"') || b.is_ascii_whitespace();
                // `at` is inside: `get` has just found a byte there. It is passed whatever it is (a form feed ends a word,
                // but is none of JSON's blanks), or this would stand still.
                at += 1;
                at += text[at..].iter().position(ends).unwrap_or(text.len() - at);
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The end of the string that begins at `start`.
fn skip_string(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Result<Vec<&str>, Broken> {
        items(text.as_bytes(), 10).map(|ranges| ranges.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn an_array_is_taken_apart_without_looking_into_its_items() {
        assert_eq!(texts("[]").unwrap(), Vec::<&str>::new());
        assert_eq!(texts(" [ ] \n").unwrap(), Vec::<&str>::new());
        assert_eq!(texts(r#"[1, {"a":"],\"}"} ,tru,[[]]]"#).unwrap(), ["1", r#"{"a":"],\"}"}"#, "tru", "[[]]"]);
    }

    #[test]
    fn a_broken_array_says_where() {
        for (text, offset, depth) in
            [("[", 1, 0), ("[1,", 3, 0), ("[1,]", 3, 0), ("[,]", 1, 0), ("[1 2]", 3, 0), ("[1]x", 3, 0), ("[[[", 1, 2)]
        {
            assert_eq!(texts(text), Err(Broken::Syntax { offset, depth }), "{text}");
        }
        assert_eq!(items(b"[1,2,3]", 2), Err(Broken::TooMany));
    }

    #[test]
    fn a_blank_that_is_none_of_json_holds_up_nothing() {
        assert_eq!(texts("[{\"a\":\u{c}1},[\u{c}]]").unwrap(), ["{\"a\":\u{c}1}", "[\u{c}]"]);
        assert_eq!(texts("[\u{c}]").unwrap(), ["\u{c}"]);
    }

    #[test]
    fn a_member_is_told_as_it_was_written() {
        let text = br#" {"a": {"x": 1.10} ,"b":"}","a":[ 1 ]}"#;
        assert_eq!(member(text, "a"), Some(&b"[ 1 ]"[..]));
        assert_eq!(member(text, "b"), Some(&b"\"}\""[..]));
        assert_eq!(member(text, "c"), None);
        assert_eq!(member(br#"{"a\"":1,"\u0061":"x\\","b":2}"#, "a"), Some(&br#""x\\""#[..]));
        assert_eq!(member(br#"{"a\"":1,"\u0061":"x\\","b":2}"#, "b"), Some(&b"2"[..]));
        assert_eq!(member(b"7", "a"), None);
    }

    #[test]
    fn a_value_is_found_by_its_path_and_a_missing_one_by_its_object() {
        let text = r#"{ "a" : {"x":[10, {"y":"z"}]}, "b":1, "a":{"x":[0,20]} }"#;
        let at = |steps: &[&str]| {
            let steps: Vec<String> = steps.iter().map(|s| (*s).to_owned()).collect();
            locate(text.as_bytes(), &steps).map(|at| &text[at..at + 2])
        };
        assert_eq!(at(&["b"]), Some("1,"));
        assert_eq!(at(&["a", "x", "1"]), Some("20"));
        assert_eq!(at(&["missing"]), Some("{ "));
        assert_eq!(at(&["a", "missing"]), Some(r#"{""#));
        assert_eq!(at(&["b", "deeper"]), Some("1,"));
    }
}
