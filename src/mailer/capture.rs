//! Mails into memory, with answers that a test writes beforehand.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Account, Finding, Mailer, MessageId, SendError, mime};
use crate::model::{AttemptId, Email};

/// What the next call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    Accept,
    /// Refuses; the mail is not kept.
    Refuse(SendError),
    /// The mail is kept, but the caller hears this: an answer that got lost.
    KeepAndFail(SendError),
}

/// Keeps every mail it takes, without a bound: for tests.
#[derive(Default)]
pub struct CaptureMailer {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    script: VecDeque<Script>,
    sent: Vec<(AttemptId, Email)>,
    calls: u64,
}

impl CaptureMailer {
    pub fn new() -> CaptureMailer {
        CaptureMailer::default()
    }

    /// Appends to the script; a call beyond its end is accepted.
    pub fn then(&self, step: Script) {
        self.inner().script.push_back(step);
    }

    /// Mails taken, in order. The same attempt sent twice stands here once.
    pub fn sent(&self) -> Vec<(AttemptId, Email)> {
        self.inner().sent.clone()
    }

    /// Calls made, refused ones among them.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can break halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailer for CaptureMailer {
    fn kind(&self) -> &'static str {
        "capture"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        let mut inner = self.inner();
        inner.calls += 1;
        mime::check(mail)?;
        let answer = match inner.script.pop_front().unwrap_or(Script::Accept) {
            Script::Refuse(error) => return Err(error),
            Script::KeepAndFail(error) => Err(error),
            Script::Accept => Ok(mime::message_id(mail, tag)),
        };
        match inner.sent.iter_mut().find(|(attempt, _)| *attempt == tag) {
            Some((_, kept)) => *kept = mail.clone(),
            None => inner.sent.push((tag, mail.clone())),
        }
        answer
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        Ok(None)
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![Finding { ok: true, what: "capture: mails are kept in memory".into() }]
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}
