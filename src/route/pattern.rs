//! Patterns with `*`, taken apart once so that matching is a few comparisons.

/// `*` stands for any run of characters, also none and also dots; everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(Box<str>),
    /// What stands before the first `*`, between two of them, and after the last one.
    Glob {
        head: Box<str>,
        middle: Box<[Box<str>]>,
        tail: Box<str>,
    },
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        let mut parts = text.split('*');
        let head: Box<str> = parts.next().unwrap_or_default().into();
        let Some(tail) = parts.next_back() else { return Pattern::Exact(head) };
        let middle = parts.filter(|part| !part.is_empty()).map(Box::from).collect();
        Pattern::Glob { head, middle, tail: tail.into() }
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *text,
            Pattern::Glob { head, middle, tail } => {
                let Some(mut rest) = text.strip_prefix(&**head).and_then(|rest| rest.strip_suffix(&**tail)) else {
                    return false;
                };
                // The earliest place is always good enough: it leaves the most for what follows.
                for part in middle {
                    match rest.find(&**part) {
                        // Inside: `find` gave the start of an occurrence of `part`.
                        Some(start) => rest = &rest[start + part.len()..],
                        None => return false,
                    }
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, slowly.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|i| slow(rest, &text[i..])),
            Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_anything(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
