//! Mails into nothing, counted: for benchmarks of everything else.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::{Account, Finding, Mailer, MessageId, SendError, mime};
use crate::model::{AttemptId, Email};

#[derive(Default)]
pub struct DiscardMailer {
    sent: AtomicU64,
}

impl DiscardMailer {
    pub fn new() -> DiscardMailer {
        DiscardMailer::default()
    }

    /// Mails taken so far.
    pub fn count(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Mailer for DiscardMailer {
    fn kind(&self) -> &'static str {
        "discard"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        mime::check(mail)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(mime::message_id(mail, tag))
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        Ok(None)
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![Finding { ok: true, what: "discard: mails are counted and thrown away".into() }]
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}
