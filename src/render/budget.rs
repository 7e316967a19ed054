//! How many bytes a mail may take, and what is left out of it, step by step, until it fits.

use super::data::Bounds;
use super::templates::Rendered;

/// Below it, a mail could not even list its items in short form.
pub const MAIL_BYTES_MIN: usize = 40_000;

/// What an item with names of ordinary length takes in its shortest form, with its share of the frame (a test tries). The
/// longest names of the worst characters take up to three times as much; what then has no room is counted in the mail.
pub const LISTED_BYTES: usize = 400;

/// Headers and MIME parts around the two bodies; a long subject in base64 included.
const ENVELOPE_BYTES: usize = 3_000;

/// From the most generous to the tightest: bounds of values, and how many items are told in full (`rows` is one line
/// each). The last one fits 50 items of the worst characters into 100,000 bytes (a test tries); if the budget is smaller
/// or an override's layout heavier, fewer rows are shown.
pub const STEPS: [(Bounds, usize); 8] = [
    (Bounds { name_bytes: 256, prose_bytes: 500, pairs: 20, links: true }, usize::MAX),
    (Bounds { name_bytes: 256, prose_bytes: 160, pairs: 10, links: true }, usize::MAX),
    (Bounds { name_bytes: 200, prose_bytes: 120, pairs: 6, links: true }, 30),
    (Bounds { name_bytes: 160, prose_bytes: 120, pairs: 6, links: true }, 12),
    (Bounds { name_bytes: 120, prose_bytes: 80, pairs: 4, links: true }, 4),
    (Bounds { name_bytes: 64, prose_bytes: 60, pairs: 4, links: true }, 1),
    (Bounds { name_bytes: 32, prose_bytes: 40, pairs: 2, links: true }, 0),
    (Bounds { name_bytes: 32, prose_bytes: 40, pairs: 2, links: false }, 0),
];

/// Whether the whole mail, encoded, stays within `mail_bytes`.
pub fn fits(rendered: &Rendered, mail_bytes: usize) -> bool {
    let all = |encoded: fn(&str) -> usize| encoded(&rendered.html) + encoded(&rendered.text) + ENVELOPE_BYTES;
    // Most mails are far from the limit; the second looks at every byte, the third longer.
    all(most_bytes) <= mail_bytes || all(base64_bytes) <= mail_bytes || all(encoded_bytes) <= mail_bytes
}

/// No less than [`base64_bytes`], without a look at the body: as if it were line breaks only, each of which becomes two
/// bytes.
fn most_bytes(body: &str) -> usize {
    base64(body.len() * 2)
}

/// What a body takes in base64, in lines of 76 (RFC 2045, section 6.8): the most that a mailer spends on it.
fn base64_bytes(body: &str) -> usize {
    // LF becomes CRLF first.
    base64(body.len() + body.bytes().filter(|b| *b == b'\n').count())
}

fn base64(raw: usize) -> usize {
    let base64 = raw.div_ceil(3) * 4;
    base64 + base64.div_ceil(76) * 2
}

/// What it takes in the better of base64 and quoted-printable, which mailers choose; rounded up.
fn encoded_bytes(body: &str) -> usize {
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    let quoted: usize = body.bytes().map(|b| if plain(b) { 1 } else { 3 }).sum();
    (quoted + quoted / 70 * 3 + 100).min(base64_bytes(body))
}
