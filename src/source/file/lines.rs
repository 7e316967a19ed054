//! Lines of a byte stream, with bounds: a line above the limit is read to its end, but only its first bytes are kept.

use std::io::{BufRead, BufReader, Read};

use sha2::{Digest, Sha256};

use crate::model::DEAD_LETTER_BYTES;

/// Large reads: a file is read in few system calls, and a pipe gives no more than 64 KiB at once anyway.
const BUFFER_BYTES: usize = 256 * 1024;

/// One line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
    /// Without its line break; the first [`DEAD_LETTER_BYTES`] of a line that is too long.
    pub body: Vec<u8>,
    /// Of the whole line: names it together with its place.
    pub hash: [u8; 8],
    pub cut: Option<Cut>,
}

/// What the whole of a line was that is too long to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// How much one call reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub lines: usize,
    pub bytes: usize,
    /// Stop where the next line would have to be waited for: somebody may be typing it.
    pub only_there: bool,
}

pub(super) struct Lines<R> {
    input: BufReader<R>,
    /// Above this a line is cut.
    line_max_bytes: usize,
    number: u64,
    offset: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R, line_max_bytes: usize) -> Lines<R> {
        Lines { input: BufReader::with_capacity(BUFFER_BYTES, input), line_max_bytes, number: 0, offset: 0 }
    }

    /// The number of the line that was read last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// At least one line, unless the input is at its end: then none.
    pub(super) fn read(&mut self, share: Share) -> std::io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < share.lines.max(1) && (lines.is_empty() || bytes < share.bytes) {
            if share.only_there && !lines.is_empty() && !self.input.buffer().contains(&b'\n') {
                break;
            }
            let Some(line) = self.next()? else { break };
            bytes += line.body.len();
            lines.push(line);
        }
        Ok(lines)
    }

    /// The next line that is not blank.
    fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let offset = self.offset;
            let mut body = Vec::new();
            // One byte for `\n`, and one for `\r` or to see that there is more.
            let window = self.line_max_bytes as u64 + 2;
            let read = (&mut self.input).take(window).read_until(b'\n', &mut body)?;
            if read == 0 {
                return Ok(None);
            }
            self.offset += read as u64;
            self.number += 1;
            let ended = body.last() == Some(&b'\n');
            if ended {
                body.pop();
            }
            let cut = if !ended && read as u64 == window {
                Some(self.rest_of(&mut body)?)
            } else {
                if body.last() == Some(&b'\r') {
                    body.pop();
                }
                None
            };
            // A byte order mark is no part of the text (RFC 8259, section 8.1: a reader may ignore it).
            if offset == 0 && cut.is_none() && body.starts_with(b"\xEF\xBB\xBF") {
                body.drain(..3);
            }
            if let Some((hash, cut)) = cut {
                return Ok(Some(Line { number: self.number, offset, body, hash, cut: Some(cut) }));
            }
            if body.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let hash = if body.len() > self.line_max_bytes { None } else { Some(short(&blake3::hash(&body))) };
            let (hash, cut) = match hash {
                Some(hash) => (hash, None),
                // Longer by the one or two bytes that were read ahead.
                None => {
                    let mut whole = Whole::default();
                    whole.update(&body);
                    let (hash, cut) = whole.finish();
                    body.truncate(DEAD_LETTER_BYTES);
                    (hash, Some(cut))
                }
            };
            return Ok(Some(Line { number: self.number, offset, body, hash, cut }));
        }
    }

    /// Reads to the line's end; keeps its first bytes, counts and hashes all of them.
    fn rest_of(&mut self, body: &mut Vec<u8>) -> std::io::Result<([u8; 8], Cut)> {
        let mut whole = Whole::default();
        whole.update(body);
        body.truncate(DEAD_LETTER_BYTES);
        loop {
            let there = self.input.fill_buf()?;
            if there.is_empty() {
                break;
            }
            let end = there.iter().position(|b| *b == b'\n');
            whole.update(&there[..end.unwrap_or(there.len())]);
            let used = end.map_or(there.len(), |at| at + 1);
            self.input.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                break;
            }
        }
        Ok(whole.finish())
    }
}

/// Hashes of a line that passes by in pieces. A `\r` at its very end belongs to the line break.
#[derive(Default)]
struct Whole {
    blake3: blake3::Hasher,
    sha256: Sha256,
    bytes: u64,
    held_back: bool,
}

impl Whole {
    fn update(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        if std::mem::take(&mut self.held_back) {
            self.feed(b"\r");
        }
        match piece.split_last() {
            Some((b'\r', before)) => {
                self.feed(before);
                self.held_back = true;
            }
            _ => self.feed(piece),
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.blake3.update(piece);
        self.sha256.update(piece);
        self.bytes += piece.len() as u64;
    }

    fn finish(self) -> ([u8; 8], Cut) {
        (short(&self.blake3.finalize()), Cut { bytes: self.bytes, sha256: self.sha256.finalize().into() })
    }
}

fn short(hash: &blake3::Hash) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&hash.as_bytes()[..8]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Share = Share { lines: usize::MAX, bytes: usize::MAX, only_there: false };

    /// Gives its bytes in pieces of a given size.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn bodies(text: &[u8], max: usize) -> Vec<(u64, u64, Vec<u8>)> {
        let lines = Lines::new(text, max).read(ALL).unwrap();
        lines.into_iter().map(|l| (l.number, l.offset, l.body)).collect()
    }

    #[test]
    fn lines_are_numbered_and_placed_whatever_their_breaks() {
        let text = b"\xEF\xBB\xBF{}\r\n\n  \t\r\n{1}\n{2}";
        let expected = [(1, 0, b"{}".to_vec()), (4, 13, b"{1}".to_vec()), (5, 17, b"{2}".to_vec())];
        assert_eq!(bodies(text, 100), expected);
        assert_eq!(bodies(b"", 100), []);
        assert_eq!(bodies(b"\r\n\n", 100), []);
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_byte_more_is_cut() {
        for ending in ["", "\n", "\r\n"] {
            let at = format!("{}{ending}", "x".repeat(10));
            assert_eq!(Lines::new(at.as_bytes(), 10).read(ALL).unwrap()[0].cut, None, "{ending:?}");
            let above = format!("{}{ending}", "x".repeat(11));
            let cut = Lines::new(above.as_bytes(), 10).read(ALL).unwrap()[0].cut.unwrap();
            assert_eq!(cut.bytes, 11, "{ending:?}");
            assert_eq!(cut.sha256[..], Sha256::digest("x".repeat(11))[..]);
        }
    }

    #[test]
    fn a_long_line_keeps_its_first_bytes_and_spoils_no_other() {
        let long = "y".repeat(3_000_000);
        let text = format!("{{}}\n{long}\r\n{{1}}\n");
        let lines = Lines::new(text.as_bytes(), 1_000_000).read(ALL).unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].body.len(), DEAD_LETTER_BYTES);
        assert_eq!(lines[1].cut.unwrap().bytes, 3_000_000);
        assert_eq!(lines[1].cut.unwrap().sha256[..], Sha256::digest(&long)[..]);
        assert_eq!((lines[2].number, lines[2].offset, &lines[2].body[..]), (3, 3_000_005, &b"{1}"[..]));
    }

    #[test]
    fn what_is_there_is_handed_on_before_more_is_waited_for() {
        let mut lines = Lines::new(Drip(b"{1}\n{2}\n{3", 8), 100);
        let there = Share { only_there: true, ..ALL };
        assert_eq!(lines.read(there).unwrap().len(), 2);
        assert_eq!(lines.read(there).unwrap().len(), 1);
        assert_eq!(lines.read(there).unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_lines(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>()], 0..200),
            piece in 1usize..50, max in 1usize..20, share in 1usize..5,
        ) {
            let mut lines = Lines::new(Drip(&text, piece), max);
            let mut got = Vec::new();
            loop {
                let more = lines.read(Share { lines: share, bytes: 7, only_there: false }).unwrap();
                if more.is_empty() { break }
                prop_assert!(more.len() <= share);
                got.extend(more);
            }
            // The oracle: split, strip, skip.
            let mut offset = 0u64;
            let mut expected = Vec::new();
            for (i, raw) in text.split(|b| *b == b'\n').enumerate() {
                let mut body = raw.strip_suffix(b"\r").unwrap_or(raw);
                if offset == 0 && body.len() <= max { body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body); }
                // A line that is too long is not looked at, so it may be all blanks.
                if body.len() > max || !body.iter().all(u8::is_ascii_whitespace) {
                    expected.push((i as u64 + 1, offset, short(&blake3::hash(body)), (body.len() > max).then_some(body.len() as u64)));
                }
                offset += raw.len() as u64 + 1;
            }
            let got: Vec<_> = got.into_iter().map(|l| (l.number, l.offset, l.hash, l.cut.map(|c| c.bytes))).collect();
            // Blank lines that are too long are told by neither or both.
            let blank = |n: u64| text.split(|b| *b == b'\n').nth(n as usize - 1).unwrap().iter().all(u8::is_ascii_whitespace);
            prop_assert_eq!(
                got.into_iter().filter(|l| !blank(l.0)).collect::<Vec<_>>(),
                expected.into_iter().filter(|l| !blank(l.0)).collect::<Vec<_>>()
            );
        }
    }
}
