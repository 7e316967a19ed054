//! What may stand in a mail's `To`.

/// RFC 5321, 4.5.3.1: a path has at most 256 octets with its angle brackets, a local part 64, a label of the domain 63
/// (RFC 1035, 2.3.4).
const ADDRESS_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 63;

/// Whether this is one bare address: `dot-atom "@" domain` (RFC 5322, 3.4.1), all of it printable ASCII without spaces.
/// Stricter than the RFC on purpose: quoted local parts (`"a b"@x`) and domain literals (`@[192.0.2.1]`) are refused,
/// since programs disagree about where their domain begins, and the allowed domains depend on it. A domain with other
/// letters is written as `xn--...`.
pub fn is_plausible_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    text.len() <= ADDRESS_BYTES_MAX
        && local.len() <= LOCAL_BYTES_MAX
        && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
        && domain.split('.').all(is_label)
}

/// RFC 5322, 3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_at_and_nothing_that_could_end_a_header() {
        for good in
            ["alice@example.com", "a.b+c_d@mail.example.com", "o'neil@example.com", "x@localhost", "A/b=c@x-1.y"]
        {
            assert!(is_plausible_address(good), "{good}");
        }
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_label = format!("a@{}.com", "a".repeat(64));
        let long = format!("a@{}.com", "abc.".repeat(63));
        for bad in [
            "",
            "@",
            "alice",
            "alice@",
            "@example.com",
            "a@b@example.com",
            "\"a@b\"@example.com",
            "\"a\"@example.com",
            "a b@example.com",
            "a@example.com ",
            "a\r\nBcc: x@example.com",
            "a\0@example.com",
            "a\u{202e}@example.com",
            "ä@example.com",
            "a@exämple.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a@.example.com",
            "a@example.com.",
            "a@-example.com",
            "a@[192.0.2.1]",
            "<a@example.com>",
            "a@example.com,b@example.com",
            "a@example.com>",
            &long_local,
            &long_label,
            &long,
        ] {
            assert!(!is_plausible_address(bad), "{bad:?}");
        }
    }
}
