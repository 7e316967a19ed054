//! Several files and the environment become one tree; then `${NAME}` and `${file:PATH}` are filled in.

use std::collections::BTreeMap;
use std::io::Read;

use super::Problem;
use super::nearest::did_you_mean;
use super::tree::{At, FILE_MAX_BYTES, Node, Value, from_env};

/// The arrays of tables whose elements have names.
pub const NAMED: [&str; 3] = ["source", "route", "directory"];
const PREFIX: &str = "OWLPOST__";

/// Lays `over` on `under`: sections key by key; elements of [`NAMED`] lists by name, or by position if they have none;
/// everything else is replaced as a whole, a route's `cadence` and `where` among it (half of one condition beside half
/// of another is what nobody meant).
pub fn merge(under: &mut Node, over: Node) {
    let (Value::Table(below), Value::Table(above)) = (&mut under.value, over.value) else { return };
    for (key, node) in above {
        let Some(old) = below.get_mut(&key) else {
            below.insert(key, node);
            continue;
        };
        let named = NAMED.contains(&key.as_str());
        match (&mut old.value, node) {
            (Value::List(below), Node { value: Value::List(above), .. }) if named => merge_named(below, above),
            (Value::Table(below), Node { value: Value::Table(above), .. }) => below.extend(above),
            (_, node) => *old = node,
        }
    }
}

fn merge_named(below: &mut Vec<Node>, above: Vec<Node>) {
    for (position, node) in above.into_iter().enumerate() {
        let same = match node.name() {
            Some(name) => below.iter().position(|old| old.name() == Some(name)),
            None => below.get(position).filter(|old| old.name().is_none()).map(|_| position),
        };
        match same.and_then(|i| below.get_mut(i)) {
            Some(old) => match (&mut old.value, node.value) {
                (Value::Table(old), Value::Table(new)) => old.extend(new),
                (old, new) => *old = new,
            },
            None => below.push(node),
        }
    }
}

/// Adds the named elements of `under` at the end of the lists of `root`, or, where one of that name is there already, the
/// keys that it lacks.
pub fn merge_under(root: &mut Node, under: Node) {
    let (Value::Table(entries), Value::Table(defaults)) = (&mut root.value, under.value) else { return };
    for (key, node) in defaults {
        let at = node.at.clone();
        let list = entries.entry(key).or_insert_with(|| Node::new(at, Value::List(Vec::new())));
        let (Value::List(list), Value::List(defaults)) = (&mut list.value, node.value) else { continue };
        for default in defaults {
            match list.iter_mut().find(|old| old.name() == default.name()) {
                Some(old) => {
                    if let (Value::Table(old), Value::Table(default)) = (&mut old.value, default.value) {
                        for (key, node) in default {
                            old.entry(key).or_insert(node);
                        }
                    }
                }
                None => list.push(default),
            }
        }
    }
}

/// A name that stands twice in one file is a mistake, not a merge.
pub fn duplicates(root: &Node, problems: &mut Vec<Problem>) {
    for list in NAMED {
        let Some(Value::List(nodes)) = root.child(list).map(|n| &n.value) else { continue };
        let mut seen: BTreeMap<&str, &At> = BTreeMap::new();
        for node in nodes {
            let Some(name) = node.name() else { continue };
            match seen.get(name) {
                Some(first) => problems.push(Problem::error(
                    node.locate(&["name"]),
                    format!(
                        "a [[{list}]] with the name {name:?} stands in line {} already; names are unique",
                        first.line
                    ),
                )),
                None => drop(seen.insert(name, node.locate(&["name"]))),
            }
        }
    }
}

/// `OWLPOST__SECTION__KEY`, `OWLPOST__ROUTE__<NAME>__KEY`, `OWLPOST__DIRECTORY__<POSITION FROM 0 OR NAME>__KEY`.
pub fn overrides(root: &mut Node, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for (variable, text) in env.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let steps: Vec<&str> = variable.strip_prefix(PREFIX).unwrap_or_default().split("__").collect();
        let at = At { file: variable.as_str().into(), line: 0, column: 0 };
        if let Err(message) = place(root, &steps, from_env(variable, text)) {
            problems.push(Problem::error(&at, message));
        }
    }
}

fn place(node: &mut Node, steps: &[&str], new: Node) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = new;
        return Ok(());
    };
    if step.is_empty() || step.starts_with('_') || step.ends_with('_') {
        return Err("not a name of a key: expected OWLPOST__SECTION__KEY, two underscores between the parts".into());
    }
    match &mut node.value {
        Value::Table(entries) => {
            let key = step.to_ascii_lowercase();
            let list = NAMED.contains(&key.as_str());
            let child = entries.entry(key).or_insert_with(|| {
                let empty = if list { Value::List(Vec::new()) } else { Value::Table(BTreeMap::new()) };
                Node::new(new.at.clone(), empty)
            });
            place(child, rest, new)
        }
        Value::List(nodes) => {
            let wanted = step.to_ascii_uppercase();
            let names: Vec<String> = nodes.iter().filter_map(|n| n.name().map(shout)).collect();
            let mut found = nodes.iter().enumerate().filter(|(_, n)| n.name().map(shout).as_ref() == Some(&wanted));
            let index = match (found.next(), found.next()) {
                (Some((first, _)), None) => Some(first),
                (Some(_), Some(_)) => {
                    return Err(format!("several entries are called {wanted} when written like this; use a file"));
                }
                (None, _) => wanted.parse::<usize>().ok(),
            };
            let count = nodes.len();
            match index.and_then(|i| nodes.get_mut(i)) {
                Some(child) => place(child, rest, new),
                None => Err(format!(
                    "nothing is called {wanted} here ({count} entries; a name in capitals with _ for anything else than letters and digits, or a position from 0){}",
                    did_you_mean(&wanted, names.iter().map(String::as_str))
                )),
            }
        }
        // A value is in the way; the environment wins, and reading says what is wrong with the result.
        _ => {
            *node = Node::table(new.at.clone());
            place(node, steps, new)
        }
    }
}

/// A name as it stands in a variable: capitals, digits, and `_` for the rest.
fn shout(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Fills in `${NAME}` and `${file:PATH}` in every string; `$${` is a literal `${`. What was filled in is not read again.
/// A string with a piece that is not there is reported and taken out.
pub fn expand(node: &mut Node, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    // The root is a table, never a string.
    expands(node, env, problems);
}

fn expands(node: &mut Node, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> bool {
    let mut lost = false;
    match &mut node.value {
        Value::Text(text) if text.contains("${") => match expanded(text, env) {
            Ok(full) => *text = full,
            Err(messages) => {
                problems.extend(messages.into_iter().map(|message| Problem::error(&node.at, message)));
                return false;
            }
        },
        Value::List(nodes) => {
            let before = nodes.len();
            nodes.retain_mut(|child| expands(child, env, problems));
            lost = nodes.len() < before;
        }
        Value::Table(entries) => {
            let before = entries.len();
            entries.retain(|_, child| expands(child, env, problems));
            lost = entries.len() < before;
        }
        _ => {}
    }
    node.damaged |= lost;
    true
}

pub fn expanded(text: &str, env: &BTreeMap<String, String>) -> Result<String, Vec<String>> {
    let (mut out, mut rest, mut wrong) = (String::new(), text, Vec::new());
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            wrong.push("a ${ without its }; write $${ for a literal ${".to_owned());
            rest = "";
            break;
        };
        match lookup(&after[..end], env) {
            Ok(value) => out.push_str(&value),
            Err(message) => wrong.push(message),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

fn lookup(name: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let Some(path) = name.strip_prefix("file:") else {
        return env.get(name).cloned().ok_or_else(|| format!("${{{name}}}: the environment has no variable {name:?}"));
    };
    let wrong = |why: &dyn std::fmt::Display| format!("${{file:{path}}}: can't be read: {why}");
    let file = std::fs::File::open(path).map_err(|e| wrong(&e))?;
    let mut text = String::new();
    // One byte more than allowed, to tell "full" from "too long".
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| wrong(&e))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(wrong(&format!("longer than {FILE_MAX_BYTES} bytes")));
    }
    // Editors and `kubectl create secret` end a file with a line break that is no part of the secret.
    let end = text.strip_suffix('\n').map_or(text.len(), |t| t.strip_suffix('\r').unwrap_or(t).len());
    text.truncate(end);
    Ok(text)
}
