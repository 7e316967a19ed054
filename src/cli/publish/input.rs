//! Events out of files: one JSON value, an array, or a value a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::cli::Failure;
use crate::clock::{Clock, SystemClock};
use crate::decode::{Decoded, Decoder, Limits, Settings};
use crate::source::Message;

/// A JSON document (not NDJSON) is read as a whole.
const DOCUMENT_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A worker takes no larger event by default; a longer line is no event.
const LINE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// One event as it is sent: on one line.
#[derive(Debug)]
pub(super) struct Item {
    pub file: Arc<str>,
    /// From 1.
    pub line: u64,
    /// Place in the file, from 0.
    pub index: u64,
    pub body: Vec<u8>,
    /// How many events the worker will count; `None`: not known.
    pub events: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Read {
    Item(Item),
    Invalid(Item, String),
    /// Nothing more will come.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Inputs {
    pub paths: Vec<PathBuf>,
    /// Of all files together; `None`: not known.
    pub bytes: Option<u64>,
}

/// Every file is there, before anything is sent.
pub(super) fn check(files: &[PathBuf]) -> Result<Inputs, Failure> {
    let paths = if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() };
    let mut total = Some(0);
    for path in &paths {
        if path.as_os_str() == "-" {
            total = None;
            if io::stdin().is_terminal() {
                anstream::eprintln!("reading events from stdin, one a line; end with Ctrl-D");
            }
            continue;
        }
        let metadata = std::fs::metadata(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        if metadata.is_dir() {
            return Err(Failure::failed(format!("{}: is a folder; name files", path.display())));
        }
        total = total.filter(|_| metadata.is_file()).map(|sum: u64| sum.saturating_add(metadata.len()));
    }
    Ok(Inputs { paths, bytes: total })
}

/// Sends on what it reads, and ends early once nobody listens.
pub(super) fn read(paths: Vec<PathBuf>, validates: bool, to: &mpsc::Sender<Read>) {
    for path in paths {
        let (name, input): (String, Box<dyn io::Read>) = if path.as_os_str() == "-" {
            ("stdin".to_owned(), Box::new(io::stdin()))
        } else {
            let name = path.display().to_string();
            match File::open(&path) {
                Ok(file) => (name, Box::new(file)),
                Err(e) => return drop(to.blocking_send(Read::Failed(format!("{name}: {e}")))),
            }
        };
        let mut out = Out { file: name.as_str().into(), index: 0, validates, to };
        match read_one(input, &mut out) {
            Ok(()) => {}
            Err(Ended::Gone) => return,
            Err(Ended::Failed(why)) => return drop(to.blocking_send(Read::Failed(format!("{name}: {why}")))),
        }
    }
}

enum Ended {
    /// Nobody listens any more.
    Gone,
    Failed(String),
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Ended {
        Ended::Failed(e.to_string())
    }
}

struct Out<'a> {
    file: Arc<str>,
    index: u64,
    validates: bool,
    to: &'a mpsc::Sender<Read>,
}

impl Out<'_> {
    fn put(&mut self, line: u64, body: Vec<u8>) -> Result<(), Ended> {
        let checked = if self.validates { validate(&body).map(Some) } else { Ok(None) };
        let mut item = Item { file: Arc::clone(&self.file), line, index: self.index, body, events: None };
        self.index += 1;
        let read = match checked {
            Ok(events) => {
                item.events = events;
                Read::Item(item)
            }
            Err(why) => Read::Invalid(item, why),
        };
        self.to.blocking_send(read).map_err(|_| Ended::Gone)
    }
}

/// NDJSON if its first line is a whole JSON value and no array, or if that line is broken and another one is an event; else
/// one JSON document.
fn read_one(input: Box<dyn io::Read>, out: &mut Out<'_>) -> Result<(), Ended> {
    let mut input = BufReader::with_capacity(256 * 1024, input);
    let mut number = 0;
    let mut line = Vec::new();
    let blanks = loop {
        if !next_line(&mut input, &mut line, &mut number)? {
            return Ok(());
        }
        if number == 1 && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3);
        }
        if !line.trim_ascii().is_empty() {
            break number - 1;
        }
    };
    let is_array = line.trim_ascii_start().starts_with(b"[");
    if is_array || !is_json(&line) {
        let first = line.len() as u64;
        let mut text = line;
        (&mut input).take(DOCUMENT_MAX_BYTES.saturating_sub(first) + 1).read_to_end(&mut text)?;
        let is_event = |line: &[u8]| line.trim_ascii_start().starts_with(b"{") && is_json(line);
        if is_array || is_json(&text) || !text.split(|b| *b == b'\n').any(is_event) {
            return document(&text, blanks, out);
        }
        // One broken line among events costs the others nothing.
        return lines(&mut io::Cursor::new(text).chain(input), blanks, out);
    }
    out.put(number, line.trim_ascii().to_vec())?;
    lines(&mut input, number, out)
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// An event a line; `before`: lines that were read already.
fn lines(input: &mut impl BufRead, before: u64, out: &mut Out<'_>) -> Result<(), Ended> {
    let (mut number, mut line) = (before, Vec::new());
    while next_line(input, &mut line, &mut number)? {
        let body = line.trim_ascii();
        if !body.is_empty() {
            out.put(number, body.to_vec())?;
        }
    }
    Ok(())
}

/// `false`: at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>, number: &mut u64) -> Result<bool, Ended> {
    line.clear();
    *number += 1;
    let read = input.take(LINE_MAX_BYTES + 1).read_until(b'\n', line)?;
    if read as u64 > LINE_MAX_BYTES && line.last() != Some(&b'\n') {
        let why = format!(
            "line {number} is longer than {LINE_MAX_BYTES} bytes, which no event is; an array needs line breaks"
        );
        return Err(Ended::Failed(why));
    }
    Ok(read > 0)
}

/// `blanks`: lines before it.
fn document(text: &[u8], blanks: u64, out: &mut Out<'_>) -> Result<(), Ended> {
    if text.len() as u64 > DOCUMENT_MAX_BYTES {
        let why =
            format!("longer than {DOCUMENT_MAX_BYTES} bytes; write one event a line (NDJSON), which has no limit");
        return Err(Ended::Failed(why));
    }
    if let Err(e) = serde_json::from_slice::<serde::de::IgnoredAny>(text) {
        let line = blanks + e.line() as u64;
        // Not the parser's own words: they may quote the text.
        let why = format!("line {line}, column {}: neither JSON nor one event a line", e.column());
        return Err(Ended::Failed(why));
    }
    for (start, end) in elements(text) {
        let line = blanks + 1 + text[..start].iter().filter(|b| **b == b'\n').count() as u64;
        // In valid JSON a line break stands between values only.
        let body = text[start..end].iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
        out.put(line, body)?;
    }
    Ok(())
}

/// Where the elements of a valid JSON array stand, or the only value.
fn elements(text: &[u8]) -> Vec<(usize, usize)> {
    let begin = text.len() - text.trim_ascii_start().len();
    let end = text.trim_ascii_end().len();
    if text.get(begin) != Some(&b'[') {
        return vec![(begin, end)];
    }
    let mut found = Vec::new();
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut start = begin + 1;
    for (i, byte) in text.iter().enumerate().take(end).skip(begin) {
        if in_string {
            (in_string, escaped) = match byte {
                _ if escaped => (true, false),
                b'\\' => (true, true),
                b'"' => (false, false),
                _ => (true, false),
            };
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if (*byte == b',' && depth == 1) || depth == 0 {
            let element = &text[start..i];
            let from = start + (element.len() - element.trim_ascii_start().len());
            let to = start + element.trim_ascii_end().len();
            if from < to {
                found.push((from, to));
            }
            start = i + 1;
        }
    }
    found
}

/// Whether a worker would take this text, and how many events it will count in it: the worker's own decoder says. Where
/// only some rows of a notification are wrong, the worker decides. Recipients and sizes are left to its own limits.
fn validate(text: &[u8]) -> Result<usize, String> {
    let settings = Settings {
        source: "publish".to_owned(),
        origin: "publish".to_owned(),
        realm: String::new(),
        limits: Limits { event_bytes: usize::MAX, recipients_per_event: usize::MAX, ..Limits::default() },
    };
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let message = Message { position: String::new(), broker_id: None, headers, body: text.to_vec(), time: None };
    let decoded = Decoder::new(settings).decode(&message, SystemClock::new().now());
    let reasons: Vec<String> = decoded
        .iter()
        .filter_map(|d| match d {
            Decoded::Refused(refused) => Some(format!("{}: {}", refused.reason.as_str(), refused.detail)),
            _ => None,
        })
        .collect();
    match reasons.first() {
        Some(reason) if reasons.len() == decoded.len() => Err(reason.clone()),
        _ => Ok(decoded.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read_text(text: &[u8]) -> Vec<Read> {
        let (to, mut items) = mpsc::channel(1_000);
        let mut out = Out { file: "f".into(), index: 0, validates: false, to: &to };
        if let Err(Ended::Failed(why)) = read_one(Box::new(io::Cursor::new(text.to_vec())), &mut out) {
            to.blocking_send(Read::Failed(why)).unwrap();
        }
        drop(to);
        std::iter::from_fn(|| items.blocking_recv()).collect()
    }

    fn events(text: &[u8]) -> Vec<(u64, String)> {
        let told = |read| match read {
            Read::Item(item) => (item.line, String::from_utf8(item.body).unwrap()),
            other => panic!("{other:?}"),
        };
        read_text(text).into_iter().map(told).collect()
    }

    fn pairs(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn a_document_an_array_and_lines_are_told_apart() {
        assert_eq!(events(b"\n{\"a\":\r\n 1}\n"), pairs(&[(2, "{\"a\":   1}")]));
        assert_eq!(
            events(b"[ {\"a\":\"],[\\\"\"} ,\n\n {\"b\":[1,2]}]"),
            pairs(&[(1, r#"{"a":"],[\""}"#), (3, r#"{"b":[1,2]}"#)])
        );
        assert_eq!(events(b"{\"a\":1}\r\n\n{\"b\":2}"), pairs(&[(1, "{\"a\":1}"), (3, "{\"b\":2}")]));
        assert_eq!(events(b"\xEF\xBB\xBF{}\n{broken\n{}"), pairs(&[(1, "{}"), (2, "{broken"), (3, "{}")]));
        // Also the first line may be the broken one.
        assert_eq!(events(b"\n{broken\n{\"a\":1}\n{}"), pairs(&[(2, "{broken"), (3, "{\"a\":1}"), (4, "{}")]));
        assert_eq!(events(b"[]"), []);
        assert_eq!(events(b" \n\n"), []);
    }

    #[test]
    fn a_broken_document_is_refused_with_its_place_and_not_its_text() {
        let read = read_text(b"\n{\"a\":\n secret}");
        match &read[..] {
            [Read::Failed(why)] => {
                assert!(why.starts_with("line 3, column 2"), "{why}");
                assert!(!why.contains("secret"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_no_worker_would_take_is_told_before_it_is_sent() {
        let good = br#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
        assert_eq!(validate(good), Ok(1));
        let rows = br#"{"type":"ROLE_MEMBER_EXPIRY","consolidatedBy":"PRINCIPAL","recipients":["user.joe"],"details":
            {"member":"user.joe","rolesList":"sports;readers;user.joe;2026-12-01T00:00:00.000Z;|sports;writers;user.joe;2026-12-02T00:00:00.000Z;"}}"#;
        assert!(validate(rows).is_ok(), "{:?}", validate(rows));
        for bad in [&b"{"[..], b"\xff", b"7", b"{}", br#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_array_is_split_where_the_parser_splits_it(values in proptest::collection::vec("[\\[\\]{},\"\\\\ \na]{0,12}", 0..6), pretty: bool) {
            let array = Value::from(values.iter().map(|v| serde_json::json!({ "v": [v, {"k": v}] })).collect::<Vec<_>>());
            let text = if pretty { serde_json::to_vec_pretty(&array) } else { serde_json::to_vec(&array) }.unwrap();
            let split: Vec<Value> = elements(&text).iter().map(|(a, b)| serde_json::from_slice(&text[*a..*b]).unwrap()).collect();
            prop_assert_eq!(Value::from(split), array);
        }
    }
}
