//! What an answer of an SMTP server means for the mail, step by step (RFC 5321, section 4.2; RFC 3463 for the enhanced
//! codes; SES's "454 Throttling failure").

use lettre::transport::smtp::Error;

use super::super::{SendError, is_stopped, is_unverified, without_addresses};
use crate::model::Share;

/// How far a mail had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Greeting and EHLO.
    Greeting,
    Tls,
    Login,
    Mail,
    Rcpt,
    Data,
    /// The message is written; its answer is the server's word for it.
    End,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Step::Greeting => "smtp greeting",
            Step::Tls => "smtp STARTTLS",
            Step::Login => "smtp login",
            Step::Mail => "smtp MAIL",
            Step::Rcpt => "smtp RCPT",
            Step::Data => "smtp DATA",
            Step::End => "smtp end of DATA",
        }
    }
}

/// A mail that was not accepted.
pub struct Failure {
    pub step: Step,
    /// `None`: no answer in time.
    pub error: Option<Error>,
}

impl Failure {
    /// The connection is of no more use.
    pub fn is_gone(&self) -> bool {
        // 421: "closing transmission channel".
        let code = self.error.as_ref().and_then(Error::status);
        code.is_none_or(|code| code.to_string() == "421")
    }

    /// `from`: the sender, whose own verification concerns every mail.
    pub fn class(&self, from: &str) -> SendError {
        let Some(error) = &self.error else { return verdict(self.step, None, "no answer in time") };
        match class(self.step, error) {
            // SES says only at the end that it does not know the sender.
            SendError::Permanent(why) if is_unverified(&words(error), from) => SendError::Halted(why),
            other => other,
        }
    }
}

pub fn class(step: Step, error: &Error) -> SendError {
    let code = error.status().map(|code| code.to_string());
    verdict(step, code.as_deref(), &words(error))
}

/// Without a code: the connection broke, the time was over, or the answer was none.
pub fn verdict(step: Step, code: Option<&str>, said: &str) -> SendError {
    let shown = without_addresses(&format!(
        "{}: {}{}{said}",
        step.words(),
        code.unwrap_or_default(),
        if code.is_some() { " " } else { "" }
    ));
    // Before the first mail there is none that could be at fault.
    let comes_in = matches!(step, Step::Greeting | Step::Tls | Step::Login);
    let Some(code) = code else {
        return match step {
            // Nobody knows whether the last dot arrived.
            Step::End => SendError::Ambiguous(shown),
            _ if comes_in => SendError::Unreachable(shown),
            _ => SendError::Retryable(shown),
        };
    };
    let lower = said.to_ascii_lowercase();
    if code.starts_with('4') {
        // Not any "quota exceeded": a recipient's mailbox may be full (452 4.2.2), which says nothing of the account.
        if ["throttling failure", "maximum sending rate", "daily message quota"].iter().any(|w| lower.contains(w)) {
            let share = if lower.contains("daily") { Share::Day } else { Share::Second };
            return SendError::Throttled { reason: shown, share };
        }
        return if comes_in { SendError::Unreachable(shown) } else { SendError::Retryable(shown) };
    }
    match (step, code) {
        // Who may not come in, or not send in this name, may not for any mail. A message that is too large is alone.
        (Step::Mail, "552" | "523") => SendError::Permanent(shown),
        (Step::Greeting | Step::Tls | Step::Login | Step::Mail, _) => SendError::Halted(shown),
        // "Authentication required", at whatever step.
        (_, "530" | "535" | "538") => SendError::Halted(shown),
        // SES says only at the end that the user may not send. ("Access denied" alone others say of one recipient.)
        (Step::End, _) if lower.contains("not authorized to perform") => SendError::Halted(shown),
        (Step::Rcpt | Step::Data | Step::End, _) if is_stopped(said) => SendError::Halted(shown),
        (Step::Rcpt | Step::Data | Step::End, _) => SendError::Permanent(shown),
    }
}

/// An error's own words are its innermost ones.
pub fn words(error: &Error) -> String {
    let source = std::error::Error::source(error);
    let chain = std::iter::successors(source, |e| e.source());
    chain.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_in_doubt_only_after_its_end() {
        for step in [Step::Greeting, Step::Tls, Step::Login] {
            assert!(matches!(verdict(step, None, "closed"), SendError::Unreachable(_)), "{step:?}");
            assert!(matches!(verdict(step, Some("421"), "later"), SendError::Unreachable(_)), "{step:?}");
        }
        for step in [Step::Mail, Step::Rcpt, Step::Data] {
            assert!(matches!(verdict(step, None, "closed"), SendError::Retryable(_)), "{step:?}");
            assert!(matches!(verdict(step, Some("421"), "later"), SendError::Retryable(_)), "{step:?}");
        }
        assert!(matches!(verdict(Step::End, None, "closed"), SendError::Ambiguous(_)));
        assert!(matches!(verdict(Step::End, Some("451"), "later"), SendError::Retryable(_)));
    }

    #[test]
    fn a_refused_login_or_sender_stops_everything_a_refused_recipient_only_this_mail() {
        assert!(matches!(verdict(Step::Login, Some("535"), "no"), SendError::Halted(_)));
        assert!(matches!(verdict(Step::Mail, Some("554"), "sender not verified"), SendError::Halted(_)));
        assert!(matches!(verdict(Step::Greeting, Some("554"), "no service"), SendError::Halted(_)));
        assert!(matches!(verdict(Step::Mail, Some("552"), "too large"), SendError::Permanent(_)));
        assert!(matches!(verdict(Step::Rcpt, Some("550"), "no such user"), SendError::Permanent(_)));
        assert!(matches!(verdict(Step::Rcpt, Some("530"), "authentication required"), SendError::Halted(_)));
        assert!(matches!(verdict(Step::End, Some("554"), "rejected"), SendError::Permanent(_)));
    }

    #[test]
    fn the_throttling_of_ses_burns_nothing() {
        let share = |said| match verdict(Step::End, Some("454"), said) {
            SendError::Throttled { share, .. } => share,
            other => panic!("{other:?}"),
        };
        assert_eq!(share("Throttling failure: Maximum sending rate exceeded."), Share::Second);
        assert_eq!(share("Throttling failure: Daily message quota exceeded."), Share::Day);
    }

    #[test]
    fn a_full_mailbox_is_no_quota_of_ours() {
        for step in [Step::Rcpt, Step::End] {
            let said = verdict(step, Some("452"), "4.2.2 Quota exceeded (mailbox for user is full)");
            assert!(matches!(said, SendError::Retryable(_)), "{said:?}");
        }
    }

    #[test]
    fn a_user_that_may_not_send_stops_everything_though_ses_says_so_only_at_the_end() {
        let denied = "Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'";
        assert!(matches!(verdict(Step::End, Some("554"), denied), SendError::Halted(_)));
        for said in [
            "Message rejected: Sending paused for this account. For more information, please check the inbox",
            "Message rejected: Sending suspended for this account.",
        ] {
            assert!(matches!(verdict(Step::End, Some("554"), said), SendError::Halted(_)), "{said}");
        }
        let suspended = "5.2.1 The account of this recipient is suspended";
        assert!(matches!(verdict(Step::Rcpt, Some("550"), suspended), SendError::Permanent(_)));
        let of_one = "5.4.1 Recipient address rejected: Access denied";
        assert!(matches!(verdict(Step::End, Some("550"), of_one), SendError::Permanent(_)));
    }

    #[test]
    fn no_address_comes_into_the_words() {
        let said = verdict(Step::Rcpt, Some("550"), "5.1.1 <bob@example.com>: no such user");
        assert!(matches!(&said, SendError::Permanent(why) if !why.contains("bob") && why.contains("no such user")));
    }
}
