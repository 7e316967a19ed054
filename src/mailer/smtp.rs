//! Mails through an SMTP server (RFC 5321), on a pool of connections that are kept open. The dialogue goes step by step,
//! so that each failure says whether the mail can have been sent: before the end of DATA it was not.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{Pool, PoolError, Timeouts};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use tokio::time::Instant;

use super::{Account, Finding, Mailer, MessageId, SendError, mime};
use crate::model::{AttemptId, Email};

mod answer;
mod connect;

use answer::{Failure, Step};
use connect::{Connected, Dialler};

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Starttls,
    Implicit,
    None,
}

/// What the mailer needs of the configuration.
#[derive(Clone)]
pub struct Settings {
    pub host: String,
    pub port: Option<u16>,
    pub tls: Tls,
    pub ca_file: Option<PathBuf>,
    /// User name and password.
    pub login: Option<(String, String)>,
    pub call_timeout: Duration,
    /// Bound on open connections: the sends in flight.
    pub connections: usize,
}

/// So much of a call is kept for the answer to the end of DATA. Servers take seconds on purpose before it (a greeting that
/// tells robots from mailers, a question to another server at RCPT).
const END_KEEPS: Duration = Duration::from_secs(2);

pub struct SmtpMailer {
    pool: Pool<Dialler>,
    /// Bound on everything before the end of DATA: a little less than a call, so that whoever waits for the call hears that
    /// nothing was sent, and does not have to doubt it.
    before_end: Duration,
}

impl SmtpMailer {
    /// Reaches nobody yet.
    ///
    /// # Errors
    /// The certificate file or the host can't be used, in words.
    pub fn new(settings: Settings) -> Result<SmtpMailer, String> {
        let (connections, within) =
            (settings.connections.max(1), settings.call_timeout - END_KEEPS.min(settings.call_timeout / 2));
        let pool = Pool::builder(Dialler::new(settings)?)
            .max_size(connections)
            .runtime(deadpool::Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(within), create: Some(within), recycle: Some(within) })
            .build()
            .map_err(|e| format!("mailer: {e}"))?;
        Ok(SmtpMailer { pool, before_end: within })
    }

    async fn connection(&self, by: Instant) -> Result<deadpool::managed::Object<Dialler>, SendError> {
        // The server is out of reach, or so slow that others have all connections: no fault of this mail's.
        let late = || SendError::Unreachable("smtp: no connection in time".into());
        let got = tokio::time::timeout_at(by, self.pool.get()).await.map_err(|_| late())?;
        got.map_err(|e| match e {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => late(),
            other => SendError::Retryable(format!("smtp: {other}")),
        })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    fn kind(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        let to = mime::check(mail)?;
        let from = mime::address("from", &mail.from)?;
        let message = mime::message(mail, tag)?;
        let before_end = Instant::now() + self.before_end;
        let mut again = true;
        loop {
            // The one that is opened too late for this mail is there for the next.
            let mut connection = self.connection(before_end).await?;
            let used = std::mem::replace(&mut connection.used, true);
            mime::in_time(by)?;
            // Until it is over, also if the caller gives up: what comes then is the answer to this mail, not to the next.
            connection.busy = true;
            match dialogue(&mut connection, (&from, &to), &message, before_end).await {
                Ok(response) => {
                    connection.busy = false;
                    return Ok(queue_id(&response).unwrap_or_else(|| mime::message_id(mail, tag)));
                }
                Err(failure) => {
                    let gone = failure.is_gone();
                    if gone || !connection.reset(before_end).await {
                        // What is broken must not go back into the pool.
                        drop(deadpool::managed::Object::take(connection));
                    } else {
                        connection.busy = false;
                    }
                    // A server closes what is idle; that says nothing about this mail, which nobody has seen yet.
                    if gone && used && failure.step == Step::Mail && failure.error.is_some() && again {
                        again = false;
                        continue;
                    }
                    return Err(failure.class(&mail.from));
                }
            }
        }
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        Ok(None)
    }

    fn counts_others(&self) -> bool {
        false
    }

    async fn probe(&self) -> Vec<Finding> {
        self.pool.manager().probe().await
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}

/// One mail, from MAIL to the answer to its end; what comes before the end of DATA within `by`.
async fn dialogue(
    connection: &mut Connected,
    (from, to): (&lettre::Address, &lettre::Address),
    message: &[u8],
    by: Instant,
) -> Result<Response, Failure> {
    let smtp = &mut connection.smtp;
    let mut options = Vec::new();
    if !AsRef::<str>::as_ref(to).is_ascii() {
        // Without SMTPUTF8 the server refuses the recipient, which says it all.
        if smtp.server_info().supports_feature(Extension::SmtpUtfEight) {
            options.push(MailParameter::SmtpUtfEight);
        }
    }
    if !message.is_ascii() && smtp.server_info().supports_feature(Extension::EightBitMime) {
        options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    step(Step::Mail, by, smtp.command(Mail::new(Some(from.clone()), options))).await?;
    step(Step::Rcpt, by, smtp.command(Rcpt::new(to.clone(), vec![]))).await?;
    step(Step::Data, by, smtp.command(Data)).await?;
    smtp.message(message).await.map_err(|error| Failure { step: Step::End, error: Some(error) })
}

async fn step(
    step: Step,
    by: Instant,
    command: impl Future<Output = Result<Response, lettre::transport::smtp::Error>>,
) -> Result<Response, Failure> {
    match tokio::time::timeout_at(by, command).await {
        // Also if the answer is here, but the process stood still meanwhile: what would be sent now may be another's to send.
        Ok(Ok(_)) | Err(_) if Instant::now() > by => Err(Failure { step, error: None }),
        Ok(answer) => answer.map_err(|error| Failure { step, error: Some(error) }),
        Err(_) => Err(Failure { step, error: None }),
    }
}

/// "250 2.0.0 Ok: queued as 4F3A" and SES's "250 Ok 0102018…": the last word, if it looks like an id.
fn queue_id(response: &Response) -> Option<String> {
    let id = response.first_line()?.split_whitespace().last()?;
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '<' | '>' | '@'));
    (plain && id.len() >= 6 && id.len() <= 200 && id.chars().any(|c| c.is_ascii_digit())).then(|| id.to_owned())
}
