//! What went wrong with a call of SQS, and what has to change. By the code that the answer names and by the modelled
//! error: emulators and older endpoints name only one of them (`QueueDoesNotExist`,
//! `AWS.SimpleQueueService.NonExistentQueue`).

use std::error::Error;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The queue is not there, or not there any more.
    NoQueue,
    /// A right is missing, or the credentials are not accepted.
    Denied,
    /// No credentials can be had.
    NoCredentials,
    /// Too many calls, or too many messages in flight: slow down.
    Throttled,
    /// No answer, or one that says nothing about the call: again after a while.
    Unavailable,
    /// A receipt handle that is over: the message comes again, or is gone.
    Expired,
    /// The call itself is wrong, and stays wrong.
    Refused,
}

/// In words for a person, without addresses and payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub class: Class,
    pub code: String,
    pub text: String,
}

impl Trouble {
    /// `action`: the right that the call needs, `sqs:ReceiveMessage`.
    pub fn of<E>(action: &str, error: &SdkError<E, HttpResponse>) -> Trouble
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let call = action.strip_prefix("sqs:").unwrap_or(action);
        match error {
            SdkError::ServiceError(service) => {
                let meta = service.err().meta();
                let (code, words) = (meta.code().unwrap_or_default(), meta.message().unwrap_or_default());
                Trouble::answered(action, code, words, service.raw().status().as_u16())
            }
            SdkError::TimeoutError(_) => Trouble::new(Class::Unavailable, "", format!("{call}: no answer in time")),
            SdkError::DispatchFailure(_) if is_about_credentials(error) => Trouble::new(
                Class::NoCredentials,
                "",
                format!(
                    "no AWS credentials: {}; check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE (EKS, GKE), the profile, \
                     or the keys",
                    innermost(error)
                ),
            ),
            SdkError::ConstructionFailure(_) => {
                Trouble::new(Class::Refused, "", format!("{call}: the request can't be made: {}", innermost(error)))
            }
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                Trouble::new(Class::Unavailable, "", format!("{call}: an answer that can't be read (HTTP {status})"))
            }
            _ => Trouble::new(Class::Unavailable, "", format!("{call}: SQS can't be reached: {}", innermost(error))),
        }
    }

    /// SQS has answered, and not as asked.
    pub fn answered(action: &str, code: &str, words: &str, status: u16) -> Trouble {
        let call = action.strip_prefix("sqs:").unwrap_or(action);
        let class = class(code, status);
        let shown = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
        let said = short(words);
        let said = if said.is_empty() { shown } else { format!("{shown}: {said}") };
        let kms = code.starts_with("Kms") || code.starts_with("KMS");
        let text = match class {
            Class::NoQueue => format!(
                "the queue is not there ({said}); create it, or correct queue_url, queue, region or endpoint_url"
            ),
            Class::Denied if kms => format!(
                "{call}: the queue's KMS key refuses ({said}); the role needs kms:Decrypt on it (and \
                 kms:GenerateDataKey to send), and the key must be enabled"
            ),
            Class::Denied if is_denial(code) => {
                let on = if action.starts_with("sqs:") { " on this queue" } else { "" };
                format!("{call} is not allowed ({said}); the role's policy needs {action}{on}")
            }
            Class::Denied => format!("{call}: AWS does not accept the credentials ({said}); renew or correct them"),
            Class::Refused if code.ends_with("InvalidAddress") => format!(
                "{call}: the queue's URL is not one of this endpoint ({said}); correct queue_url, or set endpoint_url"
            ),
            Class::Throttled if code.ends_with("OverLimit") => format!(
                "{call}: too many messages of this queue are in flight ({said}); fewer workers, or a shorter visibility \
                 timeout"
            ),
            _ => format!("{call}: {said}"),
        };
        Trouble::new(class, code, text)
    }

    fn new(class: Class, code: &str, text: String) -> Trouble {
        Trouble { class, code: code.to_owned(), text }
    }
}

/// What a code means; the codes are those of the API's model, of AWS's common errors, and of the older query protocol.
fn class(code: &str, status: u16) -> Class {
    // The query protocol puts a namespace in front.
    let code = code.rsplit(['.', '#']).next().unwrap_or_default();
    match code {
        "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" => Class::NoQueue,
        "OverLimit"
        | "RequestThrottled"
        | "KmsThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown" => Class::Throttled,
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => Class::Expired,
        "KmsAccessDenied"
        | "KmsDisabled"
        | "KmsInvalidKeyUsage"
        | "KmsInvalidState"
        | "KmsNotFound"
        | "KmsOptInRequired"
        | "DisabledException"
        | "InvalidStateException"
        | "NotFoundException" => Class::Denied,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "InvalidSecurity"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Class::Denied,
        _ if is_denial(code) => Class::Denied,
        _ => match status {
            429 => Class::Throttled,
            401 | 403 => Class::Denied,
            // A page of something that is not SQS.
            404 if code.is_empty() => Class::NoQueue,
            400..500 if status != 408 => Class::Refused,
            _ => Class::Unavailable,
        },
    }
}

fn is_denial(code: &str) -> bool {
    let code = code.rsplit(['.', '#']).next().unwrap_or_default();
    matches!(code, "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "AuthorizationError")
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|e| {
        e.is::<aws_credential_types::provider::error::CredentialsError>() || e.to_string().contains("identity")
    })
}

/// An error and what caused it, outermost first.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let here = next?;
        next = here.source();
        Some(here)
    })
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    short(&chain(error).last().map(ToString::to_string).unwrap_or_default())
}

/// A server's words for a log: what looks like an address or a receipt handle is left out, and the rest is short.
pub fn short(text: &str) -> String {
    const CHARS: usize = 300;
    /// Longer than any word of a sentence. What else is long, an ARN, has a colon.
    const WORD_CHARS: usize = 64;
    let words = text.split_whitespace().map(|word| match word {
        _ if word.contains('@') => "(address)",
        _ if word.len() > WORD_CHARS && !word.contains(':') => "(…)",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_in_every_protocol() {
        for (code, status, expected) in [
            ("QueueDoesNotExist", 400, Class::NoQueue),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, Class::NoQueue),
            ("com.amazonaws.sqs#QueueDoesNotExist", 400, Class::NoQueue),
            ("OverLimit", 403, Class::Throttled),
            ("RequestThrottled", 403, Class::Throttled),
            ("KMS.ThrottlingException", 400, Class::Throttled),
            ("KmsThrottled", 400, Class::Throttled),
            ("", 429, Class::Throttled),
            ("KMS.AccessDeniedException", 400, Class::Denied),
            ("AccessDenied", 403, Class::Denied),
            ("ExpiredToken", 403, Class::Denied),
            ("ReceiptHandleIsInvalid", 400, Class::Expired),
            ("InvalidAddress", 404, Class::Refused),
            ("InvalidParameterValue", 400, Class::Refused),
            ("InternalFailure", 500, Class::Unavailable),
            ("ServiceUnavailable", 503, Class::Unavailable),
            ("", 408, Class::Unavailable),
            ("", 404, Class::NoQueue),
        ] {
            assert_eq!(class(code, status), expected, "{code} {status}");
        }
    }

    #[test]
    fn a_receipt_handle_stays_out_of_the_words_and_an_arn_in_them() {
        let handle = format!("AQEB{}==", "wJnKyrHigUMZj6rYigCgxlaS3SLy0a".repeat(10));
        let said =
            format!("Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.");
        let told = Trouble::answered("sqs:DeleteMessage", "InvalidParameterValue", &said, 400).text;
        assert!(!told.contains("AQEB") && told.contains("Value (…) for parameter ReceiptHandle"), "{told}");
        assert!(told.ends_with("The receipt handle has expired."), "{told}");
        let arn = "arn:aws:sqs:eu-central-1:123456789012:a-queue-of-a-team-with-a-very-long-name-indeed";
        assert_eq!(short(&format!("on resource: {arn}")), format!("on resource: {arn}"));
    }

    #[test]
    fn the_words_say_what_to_change() {
        let text = |code, status| Trouble::answered("sqs:ReceiveMessage", code, "User: a@b.example is x", status).text;
        assert!(text("AccessDenied", 403).contains("needs sqs:ReceiveMessage on this queue"));
        assert!(!text("AccessDenied", 403).contains("a@b"));
        assert!(text("KMS.AccessDeniedException", 400).contains("kms:Decrypt"));
        assert!(text("ExpiredToken", 403).contains("renew or correct"));
        assert!(text("QueueDoesNotExist", 400).contains("queue_url"));
        assert!(text("InvalidAddress", 404).contains("endpoint_url"));
    }
}
