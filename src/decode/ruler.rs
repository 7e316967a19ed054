//! Lines and columns of a long text, told many times: a batch may have thousands of bad items on one line, and counting
//! from its beginning for each of them would block the intake for a minute.

/// How far apart the marks are: at most so many bytes are counted for an answer.
const STEP_BYTES: usize = 4_096;

/// A text with marks in it.
pub(super) struct Ruler<'t> {
    text: &'t [u8],
    one_line: bool,
    marks: Vec<Mark>,
}

/// What is before a mark.
#[derive(Clone, Copy)]
struct Mark {
    newlines: usize,
    chars: usize,
    /// Characters before the line that the mark is in.
    chars_before_line: usize,
}

impl<'t> Ruler<'t> {
    pub fn new(text: &'t [u8]) -> Ruler<'t> {
        let mut at = Mark { newlines: 0, chars: 0, chars_before_line: 0 };
        let mut marks = Vec::with_capacity(text.len() / STEP_BYTES + 1);
        for step in text.chunks(STEP_BYTES) {
            marks.push(at);
            at = at.moved_over(step);
        }
        Ruler { text, one_line: !text.trim_ascii_end().contains(&b'\n'), marks }
    }

    /// `line 3, column 14`; columns count characters from 1. A text of one line has only a column.
    pub fn line_and_column(&self, at: usize) -> String {
        let at = at.min(self.text.len());
        // The end of the text may be the end of its last step.
        let step = (at / STEP_BYTES).min(self.marks.len().saturating_sub(1));
        let before = self.marks.get(step).copied().unwrap_or(Mark { newlines: 0, chars: 0, chars_before_line: 0 });
        // A step begins inside of the text, and before `at`.
        let here = before.moved_over(&self.text[step * STEP_BYTES..at]);
        let column = 1 + here.chars - here.chars_before_line;
        match self.one_line {
            true => format!("column {column}"),
            false => format!("line {}, column {column}", here.newlines + 1),
        }
    }
}

impl Mark {
    fn moved_over(self, bytes: &[u8]) -> Mark {
        let mut at = self;
        for byte in bytes {
            at.chars += usize::from(byte & 0xc0 != 0x80);
            if *byte == b'\n' {
                at.newlines += 1;
                at.chars_before_line = at.chars;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_count_characters() {
        assert_eq!(Ruler::new("{\n \"ä\": x}".as_bytes()).line_and_column(9), "line 2, column 7");
        assert_eq!(Ruler::new(b"{}").line_and_column(1), "column 2");
        assert_eq!(Ruler::new(b"{}\n").line_and_column(9), "column 1");
        assert_eq!(Ruler::new(b"").line_and_column(0), "column 1");
    }

    proptest! {
        #[test]
        fn a_long_text_is_told_as_counting_tells_it(
            unit in "[aä\n]{1,7}", times in 1usize..3_000, at in 0usize..20_000,
        ) {
            let text = unit.repeat(times);
            let text = text.as_bytes();
            let before = &text[..at.min(text.len())];
            let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
            let column = 1 + before[line_start..].iter().filter(|b| **b & 0xc0 != 0x80).count();
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            let one_line = !text.trim_ascii_end().contains(&b'\n');
            let expected = if one_line { format!("column {column}") } else { format!("line {line}, column {column}") };
            prop_assert_eq!(Ruler::new(text).line_and_column(at), expected);
        }
    }
}
