//! A mail as bytes (RFC 5322, MIME): multipart/alternative of text and HTML. The same mail and attempt give the same bytes.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue, Headers};
use lettre::message::{Mailbox, Mailboxes, Message, MultiPart, SinglePart};

use super::SendError;
use crate::model::{AttemptId, Email};

/// Checks what any mailer must refuse, whatever the wire: the recipient's address and line breaks in headers. Messages
/// never hold an address.
///
/// # Errors
/// [`SendError::Permanent`]: this mail can't be sent to this person.
pub fn check(mail: &Email) -> Result<lettre::Address, SendError> {
    let address = mail.to.parse::<lettre::Address>().map_err(|e| {
        SendError::Permanent(format!("the recipient's address is not valid ({e}); correct it in the directory"))
    })?;
    if address.user().starts_with('"') {
        // Programs disagree about where the domain of such an address begins, and the allowed domains depend on it.
        let why = "the recipient's address is quoted, which not every server reads alike; correct it in the directory";
        return Err(SendError::Permanent(why.into()));
    }
    let values = mail.headers.iter().flat_map(|(name, value)| [name, value]).chain([&mail.subject]);
    if values.into_iter().any(|v| v.chars().any(char::is_control)) {
        return Err(SendError::Permanent("a header of the mail holds a control character; check its template".into()));
    }
    on_the_wire(&address).map_err(|e| {
        SendError::Permanent(format!("the recipient's address is not valid ({e}); correct it in the directory"))
    })
}

/// A sender as it stands in a header: a name that is not ASCII is encoded (RFC 2047), a domain that is not is in Punycode.
///
/// # Errors
/// [`SendError::Halted`]: it is no address, which concerns every mail. `key`: where it stands in the configuration.
pub fn sender(key: &str, value: &str) -> Result<String, SendError> {
    let mailbox = mailbox(key, value)?;
    let Some(name) = &mailbox.name else { return Ok(mailbox.email.to_string()) };
    let mut headers = Headers::new();
    headers.set(header::From::from(Mailboxes::from(Mailbox::new(Some(name.clone()), mailbox.email))));
    let folded = headers.to_string();
    Ok(folded.trim_start_matches("From:").replace("\r\n", "").trim().to_owned())
}

/// The bare address of a sender, for an envelope.
///
/// # Errors
/// As of [`sender`].
pub fn address(key: &str, value: &str) -> Result<lettre::Address, SendError> {
    Ok(mailbox(key, value)?.email)
}

fn mailbox(key: &str, value: &str) -> Result<Mailbox, SendError> {
    let wrong = |e: &dyn std::fmt::Display| {
        SendError::Halted(format!("mailer.{key} is no mail address ({e}); correct the configuration"))
    };
    let parsed = value.parse::<Mailbox>().map_err(|e| wrong(&e))?;
    let email = on_the_wire(&parsed.email).map_err(|e| wrong(&e))?;
    Ok(Mailbox::new(parsed.name, email))
}

/// The same address with its domain in ASCII (RFC 5891), as servers without SMTPUTF8 want it.
fn on_the_wire(address: &lettre::Address) -> Result<lettre::Address, String> {
    if address.domain().is_ascii() {
        return Ok(address.clone());
    }
    let domain = idna::domain_to_ascii(address.domain()).map_err(|_| "its domain is not valid".to_owned())?;
    lettre::Address::new(address.user(), domain).map_err(|e| e.to_string())
}

/// The whole message, lines ended by CRLF.
///
/// # Errors
/// [`SendError::Permanent`] as of [`check`]; [`SendError::Halted`] if the sender is not valid, which concerns every mail.
pub fn message(mail: &Email, attempt: AttemptId) -> Result<Vec<u8>, SendError> {
    let to = check(mail)?;
    // `Date` has no years before 1970 here and none after 9999 anywhere.
    let seconds = u64::try_from(mail.date.0 / 1_000_000).unwrap_or(0).min(253_402_300_799);
    let mut builder = Message::builder()
        .from(mailbox("from", &mail.from)?)
        .to(Mailbox::new(None, to))
        .date(UNIX_EPOCH + Duration::from_secs(seconds))
        .subject(mail.subject.as_str());
    if let Some(reply_to) = &mail.reply_to {
        builder = builder.reply_to(mailbox("reply_to", reply_to)?);
    }
    for (name, value) in &mail.headers {
        let name = HeaderName::new_from_ascii(name.clone())
            .map_err(|_| SendError::Permanent("a header of the mail has a name that is not allowed".into()))?;
        builder = builder.raw_header(HeaderValue::new(name, value.clone()));
    }
    let part = |kind: ContentType, body: &str| {
        let part = SinglePart::builder().header(kind);
        // Left alone, lettre takes quoted-printable for texts that are a third larger in it than in base64.
        let part =
            if quoted_bytes(body) > base64_bytes(body) { part.header(ContentTransferEncoding::Base64) } else { part };
        part.body(body.to_owned())
    };
    let parts = MultiPart::alternative()
        // `=_` occurs in neither base64 nor quoted-printable; a 7bit body is checked below.
        .boundary(boundary(mail, attempt))
        .singlepart(part(ContentType::TEXT_PLAIN, &mail.text))
        .singlepart(part(ContentType::TEXT_HTML, &mail.html));
    let message =
        builder.multipart(parts).map_err(|e| SendError::Permanent(format!("the mail can't be put together: {e}")))?;
    Ok(message.formatted())
}

/// What a body takes in base64, in lines of 76 (RFC 2045, section 6.8): the most that [`message`] spends on it.
fn base64_bytes(body: &str) -> usize {
    // LF becomes CRLF first.
    let raw = body.len() + body.bytes().filter(|b| *b == b'\n').count();
    let base64 = raw.div_ceil(3) * 4;
    base64 + base64.div_ceil(76) * 2
}

/// What it takes in quoted-printable, soft line breaks included, give or take a line.
fn quoted_bytes(body: &str) -> usize {
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    let encoded: usize = body
        .bytes()
        .map(|b| {
            if b == b'\n' {
                2
            } else if plain(b) {
                1
            } else {
                3
            }
        })
        .sum();
    encoded + encoded / 73 * 3
}

/// Of the attempt, and again until no body holds it (each turn is another name; one that a value forged takes one more).
fn boundary(mail: &Email, attempt: AttemptId) -> String {
    let mut boundary = format!("=_owlpost_{attempt}");
    while mail.text.contains(&boundary) || mail.html.contains(&boundary) {
        boundary.push('_');
        if boundary.len() > 69 {
            // RFC 2046 allows 70. A body with all of them holds ours by design; a hash of it can't be in it.
            let hash = crate::model::hash16(b"boundary", &[&mail.text, &mail.html]);
            return format!("=_{}", hash.iter().map(|b| format!("{b:02x}")).collect::<String>());
        }
    }
    boundary
}

/// What a mailer without a server gives as the message's id: its `Message-ID`, or the attempt.
pub fn message_id(mail: &Email, attempt: AttemptId) -> String {
    let header = mail.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Message-ID"));
    header.map(|(_, id)| id.clone()).unwrap_or_else(|| format!("<owlpost.{attempt}@localhost>"))
}

/// The call must not start after `by`.
pub fn in_time(by: tokio::time::Instant) -> Result<(), SendError> {
    if tokio::time::Instant::now() > by {
        return Err(SendError::NotCalled("the call would have started too late".into()));
    }
    Ok(())
}
