//! Text from strangers, made fit to stand in a mail: no control characters, nothing that reorders what is beside it,
//! one line, bounded. Escaping for HTML is the template's.

use std::fmt::Write;

/// Stands where something invisible stood, so that a reader sees that the value is odd.
const ODD: char = '\u{FFFD}';

/// Directional marks, embeddings, overrides and isolates (Unicode UAX #9): they can show `nimda.elor` as `role.admin`.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Zero-width and invisible characters: they belong into some scripts and emoji, never into a name.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{00AD}' | '\u{034F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}'
        | '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Letters of scripts that run from right to left (blocks, not single characters: more isolation does no harm).
fn runs_right_to_left(c: char) -> bool {
    matches!(c, '\u{0590}'..='\u{08FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFE}'
        | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

/// A name (principal, domain, role, instance): one line, at most `max_bytes`, everything invisible made visible.
pub fn name(raw: &str, max_bytes: usize) -> String {
    clean(raw, max_bytes, |c| is_directional(c) || is_invisible(c))
}

/// Free text (a reason): one line, at most `max_bytes`; joiners stay, since scripts and emoji need them.
pub fn prose(raw: &str, max_bytes: usize) -> String {
    clean(raw, max_bytes, is_directional)
}

/// Line breaks and runs of blanks become one space: a value can't start a line of its own and pose as our words. Looks at
/// no more than what it keeps, so a huge value costs nothing.
fn clean(raw: &str, max_bytes: usize, odd: impl Fn(char) -> bool) -> String {
    // Most names are like this.
    if raw.len() <= max_bytes && raw.bytes().all(|b| b.is_ascii_graphic()) {
        return raw.to_owned();
    }
    let mut out = String::with_capacity(raw.len().min(max_bytes));
    let (mut gap, mut foreign, mut cut) = (false, false, false);
    for c in raw.chars() {
        if c.is_whitespace() {
            gap = !out.is_empty();
            continue;
        }
        let shown = if c.is_control() || odd(c) { ODD } else { c };
        if out.len() + shown.len_utf8() + usize::from(gap) > max_bytes {
            cut = true;
            break;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
        }
        foreign |= runs_right_to_left(shown);
        out.push(shown);
    }
    if cut {
        out.push('…');
    }
    if foreign {
        // FIRST STRONG ISOLATE and POP DIRECTIONAL ISOLATE: the value may run as it likes, its neighbours stay.
        out.insert(0, '\u{2068}');
        out.push('\u{2069}');
    }
    out
}

/// Cuts our own text, which is clean already, at a character and with an ellipsis. An isolate that was opened is closed.
pub fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = text[..end].trim_end().to_owned();
    let open = out.matches('\u{2068}').count().saturating_sub(out.matches('\u{2069}').count());
    out.push('…');
    out.extend(std::iter::repeat_n('\u{2069}', open));
    out
}

/// What a template made of clean values, as one line for a header: no line break, no control character, bounded.
pub fn one_line(rendered: &str, max_bytes: usize) -> String {
    let line = rendered.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty());
    cut(&line.collect::<Vec<_>>().join(" "), max_bytes)
}

/// One path segment or query value of a URL (RFC 3986, section 2.3: only unreserved characters stay).
pub fn url_part(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    // `.` and `..` mean a folder wherever they stand alone.
    if out == "." || out == ".." { out.replace('.', "%2E") } else { out }
}

/// `1 approval`, `3 approvals`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_shows_what_hides_in_it() {
        assert_eq!(name("user.\u{202E}eoj", 99), "user.\u{FFFD}eoj");
        assert_eq!(name("user.j\u{200B}oe\0", 99), "user.j\u{FFFD}oe\u{FFFD}");
    }

    #[test]
    fn a_reason_stays_on_one_line() {
        assert_eq!(prose(" on call\r\n\r\nApproved by: user.bob\u{2028}x ", 99), "on call Approved by: user.bob x");
    }

    #[test]
    fn foreign_scripts_are_isolated_from_their_neighbours() {
        assert_eq!(name("שלום", 99), "\u{2068}שלום\u{2069}");
        assert_eq!(cut("a \u{2068}שלום\u{2069} b", 9), "a \u{2068}…\u{2069}");
    }

    #[test]
    fn a_url_part_can_leave_neither_its_segment_nor_the_attribute() {
        assert_eq!(url_part("a/b?c#d\"e é"), "a%2Fb%3Fc%23d%22e%20%C3%A9");
        assert_eq!(url_part(".."), "%2E%2E");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_the_result_is_bounded_and_harmless(raw in any::<String>(), max in 0usize..80) {
            for out in [name(&raw, max), prose(&raw, max)] {
                prop_assert!(out.len() <= max + 3 + 6, "{} > {max}", out.len());
                let bad = |c: char| c.is_control() || (is_directional(c) && c != '\u{2068}' && c != '\u{2069}');
                prop_assert!(!out.chars().any(bad));
                prop_assert_eq!(out.matches('\u{2068}').count(), out.matches('\u{2069}').count());
            }
            prop_assert!(cut(&prose(&raw, 500), max).len() <= max.max(3) + 3);
        }
    }
}
