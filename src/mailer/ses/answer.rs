//! What an answer of SES means for the mail. The codes are those of the API's model and of AWS's common errors.

use std::error::Error;

use aws_sdk_sesv2::config::http::HttpResponse;
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};

use super::super::{SendError, chain, is_stopped, is_tls, is_unverified, names_identity_of, without_addresses};
use crate::model::Share;

pub const NO_REGION: &str = "no AWS region is known: set mailer.region or AWS_REGION";

/// SES says so, in one of several codes, when 24 hours' worth is sent.
const DAY_WORDS: [&str; 2] = ["daily", "24-hour"];

/// Configuration or account: no mail can leave until somebody acts.
const HALTED: [&str; 22] = [
    "AccountSuspendedException",
    "SendingPausedException",
    "ConfigurationSetSendingPausedException",
    "AccountSendingPausedException",
    "MailFromDomainNotVerifiedException",
    "NotFoundException",
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "UnknownOperationException",
];

/// Beside all that have "Throttl" in their name: those that AWS's own programs take for it.
const THROTTLED: [&str; 7] = [
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestLimitExceededException",
    "LimitExceededException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "SlowDown",
];

/// This mail will never be taken. What is refused in other words is tried again: they are not known.
const PERMANENT: [&str; 7] = [
    "MessageRejected",
    "MessageRejectedException",
    "BadRequestException",
    "ValidationException",
    "ValidationError",
    "InvalidParameterValue",
    "InvalidParameterValueException",
];

/// `from`: the sender, whose own verification concerns every mail. `to`: whom this one is for.
pub fn class<E>(error: &SdkError<E, HttpResponse>, from: &str, to: &str) -> SendError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => {
            SendError::Permanent(format!("the request can't be made: {}", innermost(error)))
        }
        SdkError::TimeoutError(_) => SendError::Ambiguous("no answer in time".into()),
        SdkError::DispatchFailure(failure) => undelivered(error, failure.is_other()),
        SdkError::ResponseError(response) => {
            let (status, headers) = (response.raw().status().as_u16(), response.raw().headers());
            let code = headers.get("x-amzn-errortype").unwrap_or_default();
            let why = "an answer that can't be read";
            match status {
                // It says what it is, if not why: whether it is of this mail alone, only the words would tell.
                400..500 if status != 408 => {
                    match refusal(code.split(':').next().unwrap_or_default(), why, status, (from, to)) {
                        SendError::Permanent(why) => SendError::Retryable(why),
                        other => other,
                    }
                }
                // An answer that is no answer: it may well have been sent.
                _ => SendError::Ambiguous(format!("{why} (HTTP {status})")),
            }
        }
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            refusal(
                meta.code().unwrap_or_default(),
                meta.message().unwrap_or_default(),
                service.raw().status().as_u16(),
                (from, to),
            )
        }
        _ => SendError::Ambiguous(innermost(error)),
    }
}

/// No answer came. Before the request was written, that is certain; afterwards nobody knows.
fn undelivered(error: &(dyn Error + 'static), other: bool) -> SendError {
    let why = innermost(error);
    if chain(error).any(|e| e.is::<aws_credential_types::provider::error::CredentialsError>()) {
        return SendError::Halted(format!("no AWS credentials: {why}"));
    }
    let connecting = chain(error)
        .filter_map(|e| e.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect);
    // TLS that breaks later says nothing of the request that went through it.
    if connecting && is_tls(error) {
        return SendError::Halted(format!("the endpoint's certificate is not accepted: {why}"));
    }
    if connecting {
        return SendError::Unreachable(format!("SES can't be reached: {why}"));
    }
    if other && chain(error).any(|e| e.to_string().contains("identity")) {
        return SendError::Halted(format!("no AWS credentials: {why}"));
    }
    SendError::Ambiguous(format!("the connection broke after the request was begun: {why}"))
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    without_addresses(&chain(error).last().map(ToString::to_string).unwrap_or_default())
}

/// SES has answered, and not with an acceptance.
pub fn refusal(code: &str, message: &str, status: u16, (from, to): (&str, &str)) -> SendError {
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    let shown = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
    let reason = without_addresses(format!("{shown}: {message}").trim_end_matches([':', ' ']));
    if THROTTLED.contains(&code) || code.contains("Throttl") || status == 429 {
        let share = if says(&DAY_WORDS) { Share::Day } else { Share::Second };
        return SendError::Throttled { reason, share };
    }
    let is_to = |identity: &str| names_identity_of(message, identity, false);
    if code.starts_with("AccessDenied") && is_to(to) && !names_identity_of(message, from, true) {
        // A policy that forbids this recipient; in the sandbox, SES asks for the right to the recipient's identity. What may be the
        // sender's concerns every mail.
        return SendError::Permanent(reason);
    }
    if HALTED.contains(&code) || matches!(status, 401 | 403) || (code.is_empty() && matches!(status, 300..400 | 404)) {
        return SendError::Halted(reason);
    }
    match status {
        // A proxy's or SES's own trouble: the request may have got through.
        500.. | 408 => SendError::Ambiguous(reason),
        200..300 => SendError::Ambiguous(reason),
        // The sender's own identity concerns every mail; a recipient's, in the sandbox, only this one.
        _ if is_unverified(message, from) || is_stopped(message) => SendError::Halted(reason),
        _ if code.starts_with("ConfigurationSetDoesNotExist") => SendError::Halted(reason),
        _ if says(&["configuration set"]) && says(&["does not exist"]) => SendError::Halted(reason),
        413 if !code.is_empty() => SendError::Permanent(reason),
        _ if PERMANENT.contains(&code) => SendError::Permanent(reason),
        // SES names what it refuses: without a name this is somebody between it and us, and it may pass.
        _ => SendError::Retryable(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "Athenz <access@example.com>";

    fn class_of(code: &str, message: &str, status: u16) -> SendError {
        refusal(code, message, status, (FROM, "bob@other.example"))
    }

    #[test]
    fn a_policy_that_forbids_one_recipient_is_that_mails_and_any_other_is_everybodys() {
        let denied = |identity: &str| {
            let arn = format!("arn:aws:ses:eu-west-1:123456789012:identity/{identity}");
            let said = format!(
                "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: ses:SendEmail on resource: {arn}"
            );
            class_of("AccessDeniedException", &said, 403)
        };
        for identity in ["bob@other.example", "Other.example.", "other.example because no policy allows it"] {
            let class = denied(identity);
            assert!(matches!(&class, SendError::Permanent(why) if !why.contains("bob")), "{identity}: {class:?}");
        }
        for identity in ["access@example.com", "example.com", "sub.other.example", "*"] {
            assert!(matches!(denied(identity), SendError::Halted(_)), "{identity}");
        }
        let own = |from: &str, identity: &str| {
            let said = format!("on resource: arn:aws:ses:r:1:identity/{identity}");
            refusal("AccessDenied", &said, 403, (from, "bob@example.com"))
        };
        for (from, identity) in [(FROM, "example.com"), ("access@notify.example.com", "example.com")] {
            assert!(matches!(own(from, identity), SendError::Halted(_)), "the sender's own, {identity} of {from}");
        }
        assert!(matches!(own("access@anexample.com", "example.com"), SendError::Permanent(_)));
    }

    #[test]
    fn the_rate_and_the_day_are_told_apart_by_words() {
        let share = |code, message, status| match class_of(code, message, status) {
            SendError::Throttled { share, .. } => share,
            other => panic!("{code} {message}: {other:?}"),
        };
        assert_eq!(share("TooManyRequestsException", "Maximum sending rate exceeded.", 429), Share::Second);
        assert_eq!(share("ThrottlingException", "Maximum sending rate exceeded.", 400), Share::Second);
        assert_eq!(share("ThrottlingException", "Daily message quota exceeded.", 400), Share::Day);
        assert_eq!(share("LimitExceededException", "Daily message quota exceeded", 400), Share::Day);
        for (code, status) in [("", 429), ("NeverHeardOf", 429), ("RequestThrottledException", 400), ("SlowDown", 503)]
        {
            assert_eq!(share(code, "", status), Share::Second, "{code}");
        }
    }

    #[test]
    fn the_account_and_the_configuration_halt_all_mails() {
        for code in HALTED {
            assert!(matches!(class_of(code, "", 400), SendError::Halted(_)), "{code}");
        }
        assert!(matches!(class_of("SomethingNew", "", 403), SendError::Halted(_)));
        for said in ["Sending paused for this account. Please check the inbox", "Sending suspended for this account."] {
            assert!(matches!(class_of("MessageRejected", said, 400), SendError::Halted(_)), "{said}");
        }
        for code in ["ConfigurationSetDoesNotExist", "BadRequestException"] {
            let said = "Configuration set news does not exist.";
            assert!(matches!(class_of(code, said, 400), SendError::Halted(_)), "{code}");
        }
        assert!(matches!(class_of("", "", 404), SendError::Halted(_)), "a page of something that is not SES");
    }

    #[test]
    fn a_refusal_without_a_name_is_not_of_ses_and_no_mail_dies_of_it() {
        for status in [400, 405, 407, 413] {
            assert!(matches!(class_of("", "", status), SendError::Retryable(_)), "{status}");
        }
        // 413 of SES itself has a name: this mail is too large.
        assert!(matches!(class_of("RequestEntityTooLargeException", "", 413), SendError::Permanent(_)));
    }

    #[test]
    fn a_refused_message_is_dead_but_an_unverified_sender_stops_everything() {
        let not_verified = |who: &str| {
            format!(
                "Email address is not verified. The following identities failed the check in region EU-WEST-1: {who}"
            )
        };
        assert!(matches!(class_of("MessageRejected", "bad content", 400), SendError::Permanent(_)));
        assert!(matches!(class_of("BadRequestException", "", 400), SendError::Permanent(_)));
        for who in ["access@example.com", "Athenz <access@example.com>", "example.com", "x@y.example, example.com"] {
            let class = class_of("MessageRejected", &not_verified(who), 400);
            assert!(matches!(&class, SendError::Halted(_)), "{who}: {class:?}");
        }
        let class = class_of("MessageRejected", &not_verified("bob@example.com"), 400);
        assert!(matches!(&class, SendError::Permanent(why) if !why.contains("bob")), "{class:?}");
    }

    #[test]
    fn a_refusal_in_unknown_words_is_tried_again() {
        for (code, status) in
            [("ConflictException", 409), ("ConcurrentModificationException", 409), ("NeverHeardOf", 400)]
        {
            assert!(matches!(class_of(code, "", status), SendError::Retryable(_)), "{code}");
        }
    }

    #[test]
    fn trouble_behind_the_door_leaves_doubt() {
        for status in [500, 502, 503, 504] {
            assert!(matches!(class_of("InternalFailure", "", status), SendError::Ambiguous(_)), "{status}");
            assert!(matches!(class_of("", "", status), SendError::Ambiguous(_)), "{status}");
        }
    }
}
