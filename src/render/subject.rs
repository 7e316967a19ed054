//! The subject line: what waits, where, by when, before the mail is opened.

use std::borrow::Cow;

use super::data;
use super::item::Reader;
use super::kind::Kind;
use super::text;
use super::view::{Count, Item};
use crate::model::Listed;

/// A phone shows 40 characters, a desktop 80; what is longer is folded and cut by clients anyway.
const SUBJECT_MAX_BYTES: usize = 180;

/// So many kinds are counted by name in a subject; the others are `… more`.
const KINDS_MAX: usize = 3;

/// Counts by kind, what asks before what tells.
pub fn counts(items: &[Listed], handled: bool) -> Vec<Count> {
    let mut kinds: Vec<(Kind, u64)> = Vec::new();
    for item in items {
        let kind = Kind::of(&item.kind);
        match kinds.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, n)) => *n += 1,
            None => kinds.push((kind, 1)),
        }
    }
    if handled {
        let n = items.len() as u64;
        return vec![Count { n, of: "already handled", text: format!("{n} already handled") }];
    }
    kinds.sort_by_key(|(kind, _)| *kind);
    kinds
        .into_iter()
        .map(|(kind, n)| {
            let (one, many) = kind.nouns();
            Count { n, of: if n == 1 { one } else { many }, text: text::counted(n, one, many) }
        })
        .collect()
}

/// `3 approvals, 2 expiries in sports (+2 domains)`
pub fn title(reader: &Reader, items: &[Listed], counts: &[Count]) -> String {
    let mut words: Vec<String> = counts.iter().take(KINDS_MAX).map(|c| c.text.clone()).collect();
    let others: u64 = counts.iter().skip(KINDS_MAX).map(|c| c.n).sum();
    if others > 0 {
        words.push(format!("{others} more"));
    }
    format!("{}{}", words.join(", "), domains(reader, items))
}

/// The title with the first deadline: `3 approvals in sports, first due 24 Nov`; of a single item, or several about one
/// subject, what it says; `50 of 212: …` where more is open than the mail lists.
pub fn subject(reader: &Reader, items: &[Listed], told: &[Item], title: &str, open_total: u64) -> String {
    // A single one's own words may have the date already.
    let (title, due) = match told {
        [only] => match only.parts() {
            (what, "") => (what, due_words(reader, items)),
            (what, date) => (what, date.to_owned()),
        },
        _ => (title, due_words(reader, items)),
    };
    let listed = items.len() as u64;
    // "50 of 212: 50 approvals" says it twice.
    let counted = format!("{listed} ");
    let what = if open_total > listed {
        format!("{listed} of {open_total}: {}", title.strip_prefix(&counted).unwrap_or(title))
    } else {
        title.to_owned()
    };
    // The deadline is what must not be cut off.
    format!("{}{due}", text::cut(&what, SUBJECT_MAX_BYTES.saturating_sub(due.len())))
}

/// The domain of most items (of the first ones, if several have as many), and how many others there are.
fn domains(reader: &Reader, items: &[Listed]) -> String {
    let mut seen: Vec<(Cow<'_, str>, u64)> = Vec::new();
    for item in items {
        let Some(domain) = data::raw(&item.data, "domain") else { continue };
        match seen.iter_mut().find(|(d, _)| *d == domain) {
            Some((_, n)) => *n += 1,
            None => seen.push((domain, 1)),
        }
    }
    let Some(most) = seen.iter().map(|(_, n)| *n).max() else { return String::new() };
    let main = seen.iter().find(|(_, n)| *n == most).map(|(d, _)| &**d).unwrap_or_default();
    let main = text::name(main, reader.bounds.name_bytes.min(60));
    match seen.len() as u64 - 1 {
        0 => format!(" in {main}"),
        others => format!(" in {main} (+{})", text::counted(others, "domain", "domains")),
    }
}

fn due_words(reader: &Reader, items: &[Listed]) -> String {
    if reader.handled {
        return String::new();
    }
    let Some(first) = items.iter().filter_map(|i| i.deadline).min() else { return String::new() };
    let day = reader.zone.day(first, reader.now);
    let several = if items.len() > 1 { "first " } else { "" };
    if first < reader.now { format!(", {several}was due {day}") } else { format!(", {several}due {day}") }
}
