//! One attempt: render, wait for its turn, call, and say what came of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Deliver;
use super::calls::Calls;
use super::valve::Said;
use crate::mailer::{SendError, answer_within};
use crate::metrics::{self, MailOutcome};
use crate::model::{AttemptId, Contents, Share, hash16};
use crate::quota::SLOT;
use crate::store::Answer;

/// How long a mail waits after the server said that the day's quota is used up.
const DAY_FULL: Duration = Duration::from_secs(60);

/// How long a mail waits that did not reach the server.
const UNREACHED: Duration = Duration::from_secs(5);

/// What an answer says beside what it is.
pub(super) fn words(answer: &Answer) -> &str {
    match answer {
        Answer::Accepted { .. } => "",
        Answer::Retryable { detail }
        | Answer::Throttled { detail, .. }
        | Answer::Permanent { detail }
        | Answer::NotCalled { detail, .. }
        | Answer::Ambiguous { detail }
        | Answer::Failed { detail } => detail,
    }
}

impl Deliver {
    /// From when and until when the call of this attempt may start.
    pub(super) fn slot(&self, contents: &Contents, asked_at: Instant) -> (Instant, Instant) {
        let from = asked_at + contents.call_at.since(contents.at);
        let by = asked_at + self.patience.send_within;
        // The slot is the permit's: its moment may be over when the begin is.
        let slot_ends = asked_at + contents.call_at.plus(SLOT).since(contents.at);
        (from, if self.quota.is_some() { by.min(slot_ends) } else { by })
    }

    /// One attempt, one call. Whatever happens, it comes to an answer, which may say something of the mailer.
    pub(super) async fn send(
        &self,
        contents: Contents,
        (from, by): (Instant, Instant),
        calls: Arc<Calls>,
    ) -> (Answer, Said) {
        let waits = calls.waits();
        let template = &self.policies.of(&contents.route).template;
        let email = match self.renderer.render(&contents, template) {
            Ok(email) => email,
            Err(e) => {
                return (Answer::NotCalled { unrenderable: e.event_numbers.clone(), detail: e.detail }, Said::Nothing);
            }
        };
        if from > by {
            // A clock was set: its moment would come too late.
            return (
                Answer::NotCalled { unrenderable: vec![], detail: "its permit is for a moment too far ahead".into() },
                Said::Nothing,
            );
        }
        tokio::time::sleep_until(from).await;
        // A line first: a turn that waited for one would be a call that comes early for the one behind it.
        let line = calls.line(by).await;
        let (in_time, turn) = match &self.quota {
            _ if line.is_none() => (false, None),
            Some(quota) => {
                let turn = quota.pace.turn(by).await;
                (turn.is_some(), turn)
            }
            None => (Instant::now() <= by, None),
        };
        let not_called = |detail: String| (Answer::NotCalled { unrenderable: vec![], detail }, Said::Nothing);
        if !in_time {
            return not_called("the call would have started too late".into());
        }
        if let Some(why) = calls.are_shut() {
            return not_called(format!("no mail can leave: {why}"));
        }
        drop(waits);
        let attempt = contents.attempt;
        let began = Instant::now();
        let call = answer_within(self.patience.call_timeout, self.mailer.send(&email, attempt, by)).await;
        if let (Some(quota), Some(turn), Some(_)) = (&self.quota, turn, &call) {
            quota.pace.answered(turn, began.elapsed());
        }
        let mut said = Said::Nothing;
        let (outcome, answer) = match call {
            None => {
                said = Said::Unclear;
                (MailOutcome::Ambiguous, Answer::Ambiguous { detail: "no answer in time".into() })
            }
            Some(Ok(id)) => (MailOutcome::Delivered, Answer::Accepted { message_id: Some(id) }),
            Some(Err(SendError::NotCalled(detail))) => return not_called(detail),
            Some(Err(SendError::Retryable(detail))) => (MailOutcome::Retryable, Answer::Retryable { detail }),
            Some(Err(SendError::Permanent(detail))) => (MailOutcome::Permanent, Answer::Permanent { detail }),
            Some(Err(SendError::Ambiguous(detail))) => {
                said = Said::Unclear;
                (MailOutcome::Ambiguous, Answer::Ambiguous { detail })
            }
            Some(Err(SendError::Throttled { reason, share })) => {
                let retry_in = self.retry_in(share, attempt);
                (MailOutcome::Throttled, Answer::Throttled { retry_in, share: Some(share), detail: reason })
            }
            Some(Err(SendError::Unreachable(detail))) => {
                said = Said::Away;
                let retry_in = UNREACHED.min(self.patience.throttle_max);
                (MailOutcome::NotCalled, Answer::Throttled { retry_in, share: None, detail })
            }
            Some(Err(SendError::Halted(detail))) => {
                said = Said::Halted;
                (MailOutcome::Halted, Answer::Throttled { retry_in: self.halt(), share: None, detail })
            }
        };
        metrics::mail(self.mailer.kind(), outcome, Some(began.elapsed()));
        (answer, said)
    }

    /// How long a mail waits that the account's quota refused: some seconds, spread by chance so that not all come back
    /// at once; or until the day may have room.
    fn retry_in(&self, share: Share, attempt: AttemptId) -> Duration {
        let wait = match share {
            Share::Second => {
                let chance = hash16(b"throttled", &[&attempt.to_string()]);
                Duration::from_millis(1_000 + u64::from(u16::from_le_bytes([chance[0], chance[1]])) * 4_000 / 65_536)
            }
            Share::Day => DAY_FULL,
        };
        wait.min(self.patience.throttle_max)
    }

    /// Each failure once, here where it is handled.
    pub(super) fn tell(&self, attempt: AttemptId, answer: &Answer, said: Said) {
        let digest = attempt.digest.to_string();
        let attempt = attempt.number;
        match answer {
            Answer::Accepted { .. } => tracing::debug!(digest, attempt, "mail handed over"),
            Answer::Retryable { detail } => tracing::warn!(digest, attempt, detail, "mail not sent; tried again"),
            Answer::Throttled { detail, .. } if said == Said::Away => {
                tracing::warn!(digest, attempt, detail, "mail not sent: the server was not reached; tried again")
            }
            Answer::Throttled { detail, .. } if said == Said::Halted => {
                tracing::error!(digest, attempt, detail, "no mail can leave; one is tried now and then")
            }
            Answer::Throttled { detail, .. } => tracing::info!(digest, attempt, detail, "mail not sent yet; later"),
            Answer::Permanent { detail } => {
                tracing::error!(digest, attempt, detail, "mail refused for good; its items are dead")
            }
            Answer::Ambiguous { detail } => {
                tracing::warn!(digest, attempt, detail, "nobody knows whether the mail was sent")
            }
            Answer::NotCalled { unrenderable, detail } if !unrenderable.is_empty() => {
                metrics::mail(self.mailer.kind(), MailOutcome::NotCalled, None);
                tracing::error!(
                    digest,
                    attempt,
                    items = unrenderable.len(),
                    detail,
                    "items can't be rendered; they are dead, the others go again"
                );
            }
            Answer::NotCalled { detail, .. } => {
                metrics::mail(self.mailer.kind(), MailOutcome::NotCalled, None);
                tracing::info!(digest, attempt, detail, "mail not called; tried again");
            }
            Answer::Failed { detail } => tracing::warn!(digest, attempt, detail, "mail bounced"),
        }
    }
}
