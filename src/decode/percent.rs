//! Percent-encoding, in the two dialects that arrive: HTTP header values of CloudEvents, and Java's `URLEncoder`.

use std::borrow::Cow;

/// A `ce-*` header's value (CloudEvents HTTP binding, 3.1.3.2): a quoted string is unquoted (RFC 9110, 5.6.4), then one
/// round of percent-decoding. `None` if the result is not UTF-8.
pub(super) fn header_value(text: &str) -> Option<Cow<'_, str>> {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => {
            let mut plain = String::with_capacity(quoted.len());
            let mut chars = quoted.chars();
            while let Some(c) = chars.next() {
                plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
            Some(Cow::Owned(decode(&plain, false)?.into_owned()))
        }
        None => decode(text, false),
    }
}

/// A column that Athenz wrote with `URLEncoder`. What is no such encoding stays as it is.
pub(super) fn form_value(text: &str) -> Cow<'_, str> {
    decode(text, true).unwrap_or(Cow::Borrowed(text))
}

/// A `%` without two hexadecimal digits behind it stands for itself.
fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(*first),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        // The caller has seen a hexadecimal digit: A to F is what is left.
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_unquoted_and_decoded_once() {
        for (text, plain) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            (r#""a \"b\" %41""#, "a \"b\" A"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%2541", "%41"),
            ("a+b", "a+b"),
            ("", ""),
        ] {
            assert_eq!(header_value(text).unwrap(), plain);
        }
        assert_eq!(header_value("%ff"), None);
    }

    #[test]
    fn form_values_are_what_java_wrote() {
        assert_eq!(form_value("ask+in+%23sports%2C+%3Cb%3Eplease%3C%2Fb%3E"), "ask in #sports, <b>please</b>");
        assert_eq!(form_value("%ff+"), "%ff+");
    }
}
