//! What `POST /v1/events` answers (contract: "HTTP").

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::model::{Position, Receipt};

pub(super) enum Answer {
    /// 202, or 400 if nothing was acceptable; the counts as JSON.
    Counts { status: StatusCode, body: Value },
    /// 401
    Unauthorized,
    /// 400: headers that can't be read, or a body that stops half-way.
    Unreadable(String),
    /// 408
    Slow,
    /// 413
    TooLarge { max_bytes: usize },
    /// 415
    Unsupported(String),
    /// 429
    Full { retry_in: Duration },
    /// 503
    Away { why: &'static str, retry_in: Duration },
}

impl Answer {
    /// One receipt an event. An event beyond its `expirytime` is taken (its sender need not come again), and counted as
    /// `dropped` besides.
    pub(super) fn of(receipts: &[Receipt]) -> Answer {
        let (mut accepted, mut duplicates, mut dropped) = (0u64, 0u64, 0u64);
        let mut rejected = Vec::new();
        for (index, receipt) in receipts.iter().enumerate() {
            match receipt {
                Receipt::Accepted => accepted += 1,
                Receipt::Duplicate => duplicates += 1,
                Receipt::Dropped => {
                    accepted += 1;
                    dropped += 1;
                }
                Receipt::Refused { reason, detail, at } => {
                    // What the client sent, which knows nothing of the events that a notification's rows become.
                    let at = at.unwrap_or(Position { index, row: None });
                    let mut told = json!({ "index": at.index, "reason": reason.as_str(), "detail": detail });
                    if let Some(row) = at.row {
                        told["row"] = row.into();
                    }
                    rejected.push(told);
                }
            }
        }
        let nothing = !rejected.is_empty() && accepted + duplicates == 0;
        let status = if nothing { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
        let body = json!({ "accepted": accepted, "duplicates": duplicates, "dropped": dropped, "rejected": rejected });
        Answer::Counts { status, body }
    }

    /// Answered before the body was read to its end.
    pub(super) fn leaves_body_unread(&self) -> bool {
        !matches!(self, Answer::Counts { .. } | Answer::Slow | Answer::Unreadable(_))
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Response {
        let (status, body, extra) = match answer {
            Answer::Counts { status, body } => (status, body, None),
            Answer::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                problem("a bearer token is required: Authorization: Bearer <http.token of the worker>"),
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"owlpost\""))),
            ),
            Answer::Unreadable(why) => (StatusCode::BAD_REQUEST, problem(&why), None),
            Answer::Slow => (StatusCode::REQUEST_TIMEOUT, problem("the body did not arrive in time"), None),
            Answer::TooLarge { max_bytes } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                problem(&format!(
                    "the body is longer than {max_bytes} bytes (http.body_max_bytes); send smaller batches"
                )),
                None,
            ),
            Answer::Unsupported(why) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, problem(&why), None),
            Answer::Full { retry_in } => {
                (StatusCode::TOO_MANY_REQUESTS, problem("the intake is full; try again"), Some(retry_after(retry_in)))
            }
            Answer::Away { why, retry_in } => {
                (StatusCode::SERVICE_UNAVAILABLE, problem(why), Some(retry_after(retry_in)))
            }
        };
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn problem(why: &str) -> Value {
    json!({ "error": why })
}

/// Whole seconds (RFC 9110, section 10.2.3), rounded up and never 0, which would mean "at once".
fn retry_after(retry_in: Duration) -> (header::HeaderName, HeaderValue) {
    let seconds = retry_in.as_secs() + u64::from(retry_in.subsec_nanos() > 0);
    (header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RefusedReason;

    fn counts(receipts: &[Receipt]) -> (u16, Value) {
        match Answer::of(receipts) {
            Answer::Counts { status, body } => (status.as_u16(), body),
            _ => unreachable!("receipts are counted"),
        }
    }

    fn refused() -> Receipt {
        Receipt::Refused { reason: RefusedReason::MissingAttribute, detail: "id is missing".to_owned(), at: None }
    }

    #[test]
    fn an_expired_event_is_accepted_and_told_as_dropped() {
        let expected = json!({"accepted": 2, "duplicates": 1, "dropped": 1, "rejected": []});
        assert_eq!(counts(&[Receipt::Accepted, Receipt::Duplicate, Receipt::Dropped]), (202, expected));
    }

    #[test]
    fn a_part_that_is_rejected_is_named_by_its_place_and_spoils_nothing() {
        let (status, body) = counts(&[Receipt::Duplicate, refused()]);
        assert_eq!(status, 202);
        assert_eq!(body["rejected"], json!([{"index": 1, "reason": "missing_attribute", "detail": "id is missing"}]));
    }

    #[test]
    fn a_row_is_named_by_its_item_and_its_number() {
        let at = Some(Position { index: 4, row: Some(2) });
        let row = Receipt::Refused { reason: RefusedReason::WrongType, detail: "4 columns".to_owned(), at };
        let (_, body) = counts(&[Receipt::Accepted, row]);
        let expected = json!([{"index": 4, "row": 2, "reason": "wrong_type", "detail": "4 columns"}]);
        assert_eq!(body["rejected"], expected);
    }

    #[test]
    fn only_rejections_are_a_bad_request_and_an_empty_batch_is_none() {
        assert_eq!(counts(&[refused(), refused()]).0, 400);
        assert_eq!(counts(&[]), (202, json!({"accepted": 0, "duplicates": 0, "dropped": 0, "rejected": []})));
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_at_once() {
        for (ms, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (60_000, "60")] {
            assert_eq!(retry_after(Duration::from_millis(ms)).1, seconds);
        }
    }
}
