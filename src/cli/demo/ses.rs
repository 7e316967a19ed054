//! `demo --ses`: the same day through the real SES client, against an endpoint of the demo's own that holds it to the
//! account's rate, throttles it once, and takes one mail without saying so.

use super::endpoint::{Account, Endpoint, Fault, Taken};
use super::folder::Folder;
use crate::cli::Failure;
use crate::mailer::mime;
use crate::model::{AttemptId, Email, Time};

/// A new production account, but for the sandbox.
const ACCOUNT: Account = Account {
    per_second: 14.0,
    per_day: 50_000.0,
    external: 0.0,
    sending: true,
    production: true,
    away: false,
    enforced: true,
    verified: true,
    shut_down: false,
    configuration_set: None,
};

/// What `[mailer]` gets on top of the demo's configuration.
pub fn overrides(endpoint: &Endpoint) -> Vec<(String, String)> {
    [("KIND", "ses".to_owned()), ("REGION", "eu-west-1".to_owned()), ("ENDPOINT_URL", endpoint.url())]
        .map(|(key, value)| (format!("OWLPOST__MAILER__{key}"), value))
        .into()
}

/// Keys for an endpoint that asks for none.
pub fn credentials() {
    for (name, value) in [("AWS_ACCESS_KEY_ID", "demo"), ("AWS_SECRET_ACCESS_KEY", "demo")] {
        // SAFETY: called before the runtime starts, while this process has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// # Errors
/// No port of this machine is free.
pub async fn start() -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::start(ACCOUNT)
        .await
        .map_err(|e| Failure::failed(format!("the demo's SES endpoint has no port to listen on: {e}")))?;
    let slow = Fault::Refuse(429, "TooManyRequestsException", "Maximum sending rate exceeded.");
    endpoint.then([Fault::Take, slow, Fault::Take, Fault::Take, Fault::LoseReply]);
    Ok(endpoint)
}

/// What the endpoint says of the day.
pub struct Record {
    pub calls: usize,
    pub taken: usize,
    /// Digests that it got more than once.
    pub twice: Vec<String>,
}

/// Writes what the endpoint took into the outbox, where the page over the mails finds it.
///
/// # Errors
/// The folder can't be written.
pub fn keep(endpoint: &Endpoint, folder: &Folder) -> Result<Record, Failure> {
    let taken = endpoint.taken();
    let mut twice = Vec::new();
    for mail in &taken {
        let name = format!("outbox/{}.{}", mail.digest, mail.attempt);
        folder.write(&format!("{name}.html"), &mail.html)?;
        let attempt =
            attempt(mail).ok_or_else(|| Failure::failed(format!("a mail without our tags: {}", mail.message_id)))?;
        let message = mime::message(&email(mail), attempt).map_err(|e| Failure::failed(e.to_string()))?;
        folder.write(&format!("{name}.eml"), &String::from_utf8_lossy(&message))?;
        if mail.attempt > 1 && taken.iter().any(|m| m.digest == mail.digest && m.attempt < mail.attempt) {
            twice.push(mail.digest.clone());
        }
    }
    Ok(Record { calls: endpoint.calls().len(), taken: taken.len(), twice })
}

fn attempt(mail: &Taken) -> Option<AttemptId> {
    Some(AttemptId { digest: mail.digest.parse().ok()?, number: mail.attempt })
}

/// What SES would have made of it.
fn email(mail: &Taken) -> Email {
    Email {
        from: mail.from.clone(),
        reply_to: mail.reply_to.clone(),
        to: mail.to.clone(),
        subject: mail.subject.clone(),
        html: mail.html.clone(),
        text: mail.text.clone(),
        headers: mail.headers.clone(),
        date: Time::default(),
    }
}
