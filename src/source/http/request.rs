//! What is read of a request, and what is refused before a body is looked at.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Answer;

/// Bytes and time spent on a body that nobody wants, so that its sender comes to read the answer instead of finding the
/// connection reset. Twice the default body; a sender that goes on longer is cut off.
const DISCARD_MAX_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_secs(5);
/// The first allocation for a body, whatever length it claims to have.
const FIRST_BYTES: usize = 64 * 1024;

/// Whether the request has one of the tokens, if any are asked for (RFC 6750, section 2.1; the scheme's case does not matter).
pub(super) fn may_publish(tokens: &[blake3::Hash], headers: &HeaderMap) -> bool {
    if tokens.is_empty() {
        return true;
    }
    let given = headers.get(header::AUTHORIZATION).map(|v| v.as_bytes()).unwrap_or_default();
    match given.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            // Blanks around a header's value are gone already; those after the scheme are not.
            tokens.contains(&blake3::hash(token.trim_ascii_start()))
        }
        _ => false,
    }
}

/// The headers that say how to read the body, in lower case: `content-type`, `ce-*`, `idempotency-key`.
///
/// # Errors
/// 415 for what no reader is there for; 400 for a value that is not UTF-8 or stands there twice.
pub(super) fn headers_of(headers: &HeaderMap) -> Result<Vec<(String, String)>, Answer> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if name != "content-type" && name != "idempotency-key" && !name.starts_with("ce-") {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Answer::Unreadable(format!("the value of header {name} is not UTF-8")))?;
        if kept.iter().any(|(n, _)| n == name) {
            return Err(Answer::Unreadable(format!("header {name} stands there twice")));
        }
        kept.push((name.to_owned(), value.to_owned()));
    }
    let plain = |coding: &axum::http::HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(Answer::Unsupported("a compressed body (content-encoding) is not supported".to_owned()));
    }
    // In binary mode the content type is the data's, and data may be anything (HTTP protocol binding, section 3.1).
    let binary = kept.iter().any(|(n, _)| n == "ce-type" || n == "ce-specversion");
    if !binary && let Some((_, content_type)) = kept.iter().find(|(n, _)| n == "content-type") {
        readable(content_type).map_err(Answer::Unsupported)?;
    }
    Ok(kept)
}

/// JSON in UTF-8, under any of its names; no content type at all counts as JSON (CloudEvents JSON format, section 3.1).
fn readable(content_type: &str) -> Result<(), String> {
    let mut parts = content_type.split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let names = ["application/json", "text/json", "application/x-ndjson", "application/ndjson", "application/jsonl"];
    let is_json = names.contains(&&*media) || (media.contains('/') && media.ends_with("+json"));
    if !is_json {
        return Err("unsupported content-type: expected application/cloudevents+json, \
                    application/cloudevents-batch+json, application/x-ndjson or application/json"
            .to_owned());
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|c| c.eq_ignore_ascii_case(value));
        if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
            return Err("unsupported charset in content-type: expected utf-8".to_owned());
        }
    }
    Ok(())
}

/// Reads the body to its end. The permit holds its bytes' share of `budget`.
///
/// # Errors
/// 413 above `max_bytes`, 429 where the budget is used up, 400 where the body stops half-way.
pub(super) async fn read(
    body: &mut Body,
    headers: &HeaderMap,
    max_bytes: usize,
    budget: &Arc<Semaphore>,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Answer> {
    let claimed = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let claimed: usize = claimed.unwrap_or(0);
    if claimed > max_bytes {
        return Err(Answer::TooLarge { max_bytes });
    }
    let full = || Answer::Full { retry_in: super::RETRY_WHEN_FULL };
    let mut permit = Arc::clone(budget).try_acquire_many_owned(0).map_err(|_| full())?;
    let mut bytes = Vec::with_capacity(claimed.min(FIRST_BYTES));
    loop {
        match next_chunk(body).await {
            None => return Ok((bytes, permit)),
            Some(Err(_)) => return Err(Answer::Unreadable("the body stops half-way".to_owned())),
            Some(Ok(chunk)) => {
                if chunk.len() > max_bytes - bytes.len() {
                    return Err(Answer::TooLarge { max_bytes });
                }
                // A chunk is a read of the connection's buffer, far below 4 GiB.
                let share = u32::try_from(chunk.len()).map_err(|_| full())?;
                permit.merge(Arc::clone(budget).try_acquire_many_owned(share).map_err(|_| full())?);
                bytes.extend_from_slice(&chunk);
            }
        }
    }
}

/// Reads and forgets what is left of a body, within bounds.
pub(super) async fn discard(body: &mut Body) {
    let discarding = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = next_chunk(body).await {
            bytes += chunk.len();
            if bytes > DISCARD_MAX_BYTES {
                return;
            }
        }
    };
    // Either way the answer is sent next.
    let _ = tokio::time::timeout(DISCARD_WITHIN, discarding).await;
}

/// `None`: the body is at its end. Trailers are passed over.
async fn next_chunk(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_readable_under_all_its_names_and_nothing_else_is() {
        for good in [
            "application/json",
            "Application/CloudEvents+JSON; charset=UTF-8",
            "application/cloudevents-batch+json;charset=\"utf-8\"",
            "application/x-ndjson",
            "application/vnd.acme+json",
        ] {
            assert_eq!(readable(good), Ok(()), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "", "+json", "application/json; charset=latin1"]
        {
            assert!(readable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_very_token_opens() {
        let (expected, previous) = (blake3::hash(b"s3cret"), blake3::hash(b"0ld"));
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, axum::http::HeaderValue::from_bytes(value).unwrap());
            may_publish(&[expected, previous], &headers)
        };
        assert!(with(b"Bearer s3cret") && with(b"bearer  s3cret"));
        assert!(with(b"Bearer 0ld"), "while producers change from one to the other");
        for wrong in [&b"Bearer s3cre"[..], b"Bearer s3cret2", b"Basic s3cret", b"s3cret", b"Bearer", b"", b"\xff\xfe"]
        {
            assert!(!with(wrong), "{wrong:?}");
        }
        assert!(!may_publish(&[expected, previous], &HeaderMap::new()));
        assert!(may_publish(&[], &HeaderMap::new()));
    }
}
