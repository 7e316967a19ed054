//! Mailers: how a mail leaves. One call, one attempt: a mailer never retries, it says what the caller must do next.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{AttemptId, Email, Share};

pub mod capture;
pub mod discard;
pub mod mime;
pub mod outbox;
pub mod ses;
pub mod smtp;

/// The server's id of an accepted mail.
pub type MessageId = String;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Certainly not sent; try again with backoff.
    #[error("{0}")]
    Retryable(String),
    /// The call was not made, as its time was over. Burns no attempt.
    #[error("{0}")]
    NotCalled(String),
    /// Certainly not sent, as the account's quota is used up for now. Burns no attempt.
    #[error("{reason}")]
    Throttled { reason: String, share: Share },
    /// Certainly not sent, as the server was not reached, or let nobody in for now: that says nothing of the mail. Burns no attempt.
    #[error("{0}")]
    Unreachable(String),
    /// Certainly not sent; no mail will be until somebody acts (suspended, not verified, no credentials). Burns no attempt.
    #[error("{0}")]
    Halted(String),
    /// Certainly not sent, and never will be.
    #[error("{0}")]
    Permanent(String),
    /// Nobody knows whether it was sent.
    #[error("{0}")]
    Ambiguous(String),
}

/// What the sending account may do (SES `GetAccount`). Counted in recipients.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub per_second: f64,
    /// In any 24 hours; `None`: without a bound.
    pub per_day: Option<u64>,
    /// By everybody who sends from this account.
    pub sent_24h: u64,
    /// Why no mail can leave now: sending is paused or the account is suspended.
    pub stopped: Option<String>,
}

/// Something `check --live` found out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub ok: bool,
    pub what: String,
}

#[async_trait]
pub trait Mailer: Send + Sync {
    /// `outbox`, `ses`, `smtp`: a metric label.
    fn kind(&self) -> &'static str;
    /// The call must not start after `by`. Sending the same attempt twice is the caller's mistake; where the wire allows,
    /// the mailer makes one of them.
    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError>;
    /// `None`: this mailer has no account with a quota.
    async fn account(&self) -> Result<Option<Account>, SendError>;
    /// Whether [`Mailer::account`] says what others sent from it, so that an old answer may hide much.
    fn counts_others(&self) -> bool {
        true
    }
    async fn probe(&self) -> Vec<Finding>;
    /// Whether somebody will tell later what became of a mail (SES events).
    fn gives_evidence(&self) -> bool;
}

/// What an answer that is here already needs at most to be seen.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// The answer, if it comes within this time. A process that stood still for longer (stopped, frozen with its machine) finds that
/// the time is over before it looks at what has come meanwhile: so it looks once more. An answer that is thrown away is a doubt.
pub async fn answer_within<T>(limit: Duration, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    match tokio::time::timeout(limit.saturating_sub(LAST_LOOK), &mut call).await {
        Ok(answer) => Some(answer),
        Err(_) => tokio::time::timeout(LAST_LOOK.min(limit), call).await.ok(),
    }
}

/// A server's words for a log or a dead letter: what looks like an address is left out, and the rest is short.
pub fn without_addresses(text: &str) -> String {
    const CHARS: usize = 300;
    let words = text.split_whitespace().map(|word| if word.contains('@') { "(address)" } else { word });
    words.collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(CHARS).collect()
}

/// SES says so while it reviews an account, or somebody has switched it off: over SMTP at the end of each mail, over its API in more
/// than one code.
fn is_stopped(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["sending paused", "sending is paused", "sending suspended", "sending is suspended", "sending is disabled"]
        .iter()
        .any(|words| said.contains(words))
}

/// SES does not know the sender, as its identity or its domain is not verified: that concerns every mail. In the sandbox it
/// says the same of a recipient, which concerns this one.
fn is_unverified(said: &str, from: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let Ok(sender) = from.parse::<lettre::message::Mailbox>() else { return false };
    let (address, domain) = (sender.email.to_string().to_lowercase(), sender.email.domain().to_lowercase());
    let mut words = said.split(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | ';' | '<' | '>' | '"'));
    said.contains("not verified")
        && words.any(|word| [address.as_str(), domain.as_str()].contains(&word.trim_end_matches('.')))
}

/// Whether an answer speaks of the SES identity of this address or of its domain (`identity/example.com`), or, as for the sender,
/// of a domain above that, which SES takes for it as well.
fn names_identity_of(said: &str, address: &str, or_above: bool) -> bool {
    let Ok(mailbox) = address.parse::<lettre::message::Mailbox>() else { return false };
    let (address, domain) = (mailbox.email.to_string().to_lowercase(), mailbox.email.domain().to_lowercase());
    let said = said.to_ascii_lowercase();
    let named = said.split("identity/").skip(1).filter_map(|rest| {
        rest.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '`' | ')')).next()
    });
    let is_above = |name: &str| domain.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    named.map(|name| name.trim_end_matches('.')).any(|name| {
        [address.as_str(), domain.as_str()].contains(&name) || (or_above && !name.is_empty() && is_above(name))
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

/// TLS itself refused: a certificate, mostly. That does not heal by itself. (`std::io::Error` hides what it wraps from its
/// chain.)
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|e| {
        let inside = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        e.is::<rustls::Error>() || inside.is_some_and(|e| is_tls(e))
    })
}
