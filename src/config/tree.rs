//! What the files say, before anybody asks what it means: a tree in which every value knows where it stands.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// A configuration is a page or two; a bigger file is a mistake, such as a log or a dump given with `-c`.
pub const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where a value stands. An environment variable has line and column 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub at: At,
    /// Where the key stands that names it; of a list's element and of the root, the same as `at`.
    pub key_at: At,
    pub value: Value,
    /// What an environment variable says, letter by letter: it is text if text is wanted (`TOKEN=123`).
    pub raw: Option<String>,
    /// Something wrong was taken out of this table or list.
    pub damaged: bool,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub fn new(at: At, value: Value) -> Node {
        Node { key_at: at.clone(), at, value, raw: None, damaged: false }
    }

    pub fn table(at: At) -> Node {
        Node::new(at, Value::Table(BTreeMap::new()))
    }

    /// The child under a key, or at a position written as a number.
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.get(step),
            Value::List(nodes) => nodes.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Where the value on this path stands, or the nearest thing around it.
    pub fn locate(&self, path: &[&str]) -> &At {
        let mut here = self;
        for step in path {
            match here.child(step) {
                Some(node) => here = node,
                None => break,
            }
        }
        &here.at
    }

    /// Takes out what stands on this path.
    pub fn remove(&mut self, path: &[String]) {
        let Some((step, rest)) = path.split_first() else { return };
        self.damaged |= rest.is_empty();
        match &mut self.value {
            Value::Table(entries) if rest.is_empty() => drop(entries.remove(step)),
            Value::Table(entries) => {
                if let Some(node) = entries.get_mut(step) {
                    node.remove(rest);
                }
            }
            Value::List(nodes) => {
                let Some(index) = step.parse::<usize>().ok().filter(|i| *i < nodes.len()) else { return };
                if rest.is_empty() {
                    nodes.remove(index);
                } else {
                    // In range by the filter above.
                    nodes[index].remove(rest);
                }
            }
            _ => {}
        }
    }

    pub fn name(&self) -> Option<&str> {
        match &self.child("name")?.value {
            Value::Text(name) => Some(name),
            _ => None,
        }
    }
}

/// Reads a file. `None` if there is nothing to go on with; what is wrong goes to `problems`.
pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<Node> {
    let file = path.display().to_string();
    let mut fail = |line, column, message: String| {
        problems.push(Problem::error(&At { file: file.as_str().into(), line, column }, message));
    };
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            fail(0, 0, "is a folder; give the file in it".into());
            return None;
        }
        Ok(meta) if meta.len() > FILE_MAX_BYTES => {
            fail(0, 0, format!("is {} bytes long; a configuration has at most {FILE_MAX_BYTES}", meta.len()));
            return None;
        }
        _ => std::fs::read(path),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            fail(0, 0, format!("can't be read: {error}"));
            return None;
        }
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&file, text, problems),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let tail = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
            let column = String::from_utf8_lossy(tail).chars().count() + 1;
            fail(line, column, "is not UTF-8 from here on; save the file as UTF-8".into());
            None
        }
    }
}

/// Reads TOML. Lines with a syntax error are reported and passed over, so that the other problems show as well.
pub fn parse(file: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let root = lines.at(0);
    for error in &errors {
        let at = error.span().map_or_else(|| lines.at(text.len()), |span| lines.at(span.start));
        problems.push(Problem::error(&at, format!("not TOML: {}", error.message())));
    }
    let mut node = Node::new(root, Value::Table(lines.table(table.get_ref(), problems)));
    if !errors.is_empty() {
        let broken: Vec<usize> = problems.iter().filter(|p| p.file == file).map(|p| p.line).collect();
        drop_lines(&mut node, &broken);
    }
    Some(node)
}

/// Reads what an environment variable says: TOML if it is, else text.
pub fn from_env(variable: &str, text: &str) -> Node {
    let lines = Lines { file: variable.into(), text: "", starts: Vec::new() };
    let mut ignored = Vec::new();
    let value = DeValue::parse(text)
        .ok()
        .and_then(|value| lines.value(value.get_ref(), &lines.at(0), &mut ignored))
        .unwrap_or_else(|| Value::Text(text.to_owned()));
    let raw = (!matches!(value, Value::Text(_) | Value::List(_) | Value::Table(_))).then(|| text.to_owned());
    Node { raw, ..Node::new(lines.at(0), value) }
}

/// Takes out the values on lines whose syntax is broken: what the parser makes of them is a guess.
fn drop_lines(node: &mut Node, broken: &[usize]) {
    match &mut node.value {
        Value::Table(entries) => {
            entries.retain(|_, child| !broken.contains(&child.key_at.line) && !broken.contains(&child.at.line));
            entries.values_mut().for_each(|child| drop_lines(child, broken));
        }
        Value::List(nodes) => {
            nodes.retain(|child| !broken.contains(&child.at.line));
            nodes.iter_mut().for_each(|child| drop_lines(child, broken));
        }
        _ => {}
    }
}

/// Turns byte offsets into lines and columns (both from 1, columns in characters).
struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &str, text: &'a str) -> Lines<'a> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Lines { file: file.into(), text, starts }
    }

    fn at(&self, offset: usize) -> At {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|i| self.starts.get(i)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count() + 1);
        // Without lines (an environment variable) both stay 0.
        At { file: self.file.clone(), line, column: if line == 0 { 0 } else { column } }
    }

    fn table(&self, table: &DeTable<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, Node> {
        let mut entries = BTreeMap::new();
        for (key, value) in table.iter() {
            let (key_at, at) = (self.at(key.span().start), self.at(value.span().start));
            if let Some(value) = self.value(value.get_ref(), &at, problems) {
                // A `[header]` spans no value of its own: its key is the better place.
                let at = if matches!(value, Value::Table(_)) { key_at.clone() } else { at };
                entries.insert(key.get_ref().to_string(), Node { key_at, ..Node::new(at, value) });
            }
        }
        entries
    }

    fn value(&self, value: &DeValue<'_>, at: &At, problems: &mut Vec<Problem>) -> Option<Value> {
        Some(match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    problems.push(Problem::error(at, "the number is too large"));
                    return None;
                }
            },
            DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => {
                    problems.push(Problem::error(at, "not a finite number"));
                    return None;
                }
            },
            DeValue::Boolean(yes) => Value::Boolean(*yes),
            // Dates and times of day may stand without quotes.
            DeValue::Datetime(datetime) => Value::Text(datetime.to_string()),
            DeValue::Array(items) => {
                let mut nodes = Vec::new();
                for item in items.iter() {
                    let at = self.at(item.span().start);
                    if let Some(value) = self.value(item.get_ref(), &at, problems) {
                        nodes.push(Node::new(at, value));
                    }
                }
                Value::List(nodes)
            }
            DeValue::Table(table) => Value::Table(self.table(table, problems)),
        })
    }
}
