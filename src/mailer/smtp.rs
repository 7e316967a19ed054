//! Mails through an SMTP server (RFC 5321), on a pool of connections that are kept open. The dialogue goes step by step,
//! so that each failure says whether the mail can have been sent: before the end of DATA it was not.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{Pool, PoolError, Timeouts};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;

use super::{Account, Finding, Mailer, MessageId, SendError, mime};
use crate::model::{AttemptId, Email};

mod answer;
mod connect;

use answer::Step;
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

pub struct SmtpMailer {
    pool: Pool<Dialler>,
}

impl SmtpMailer {
    /// Reaches nobody yet.
    ///
    /// # Errors
    /// The certificate file or the host can't be used, in words.
    pub fn new(settings: Settings) -> Result<SmtpMailer, String> {
        let (connections, within) = (settings.connections.max(1), settings.call_timeout);
        let pool = Pool::builder(Dialler::new(settings)?)
            .max_size(connections)
            .runtime(deadpool::Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(within), create: Some(within), recycle: Some(within) })
            .build()
            .map_err(|e| format!("mailer: {e}"))?;
        Ok(SmtpMailer { pool })
    }

    async fn connection(&self) -> Result<deadpool::managed::Object<Dialler>, SendError> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => SendError::Retryable("smtp: no connection in time".into()),
            other => SendError::Retryable(format!("smtp: {other}")),
        })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    fn kind(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        let to = mime::check(mail)?;
        let from = mime::address("from", &mail.from)?;
        let message = mime::message(mail, tag)?;
        let mut again = true;
        loop {
            let mut connection = self.connection().await?;
            let used = connection.used;
            let answer = dialogue(&mut connection, &from, &to, &message).await;
            match answer {
                Ok(response) => {
                    connection.used = true;
                    return Ok(queue_id(&response).unwrap_or_else(|| mime::message_id(mail, tag)));
                }
                Err((step, error)) => {
                    let gone = answer::is_gone(&error);
                    if gone || !connection.reset().await {
                        // What is broken must not go back into the pool.
                        drop(deadpool::managed::Object::take(connection));
                    }
                    // A server closes what is idle; that says nothing about this mail, which nobody has seen yet.
                    if gone && used && step == Step::Mail && again && tokio::time::Instant::now() <= by {
                        again = false;
                        continue;
                    }
                    return Err(answer::class(step, &error));
                }
            }
        }
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        Ok(None)
    }

    async fn probe(&self) -> Vec<Finding> {
        self.pool.manager().probe().await
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}

type Failure = (Step, lettre::transport::smtp::Error);

/// One mail, from MAIL to the answer to its end.
async fn dialogue(
    connection: &mut Connected,
    from: &lettre::Address,
    to: &lettre::Address,
    message: &[u8],
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
    let at = |step| move |e| (step, e);
    smtp.command(Mail::new(Some(from.clone()), options)).await.map_err(at(Step::Mail))?;
    smtp.command(Rcpt::new(to.clone(), vec![])).await.map_err(at(Step::Rcpt))?;
    smtp.command(Data).await.map_err(at(Step::Data))?;
    smtp.message(message).await.map_err(at(Step::End))
}

/// "250 2.0.0 Ok: queued as 4F3A" and SES's "250 Ok 0102018…": the last word, if it looks like an id.
fn queue_id(response: &Response) -> Option<String> {
    let id = response.first_line()?.split_whitespace().last()?;
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '<' | '>' | '@'));
    (plain && id.len() >= 6 && id.len() <= 200 && id.chars().any(|c| c.is_ascii_digit())).then(|| id.to_owned())
}
