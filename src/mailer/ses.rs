//! Mails through Amazon SES, API version 2. One call an attempt: the SDK retries nothing, since `SendEmail` has no
//! idempotency token and a retry after a timeout would be a second mail that nobody counts.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::IdentityCache;
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message, MessageHeader, MessageTag, RawMessage};

use super::{Account, Finding, Mailer, MessageId, SendError, answer_within, mime};
use crate::aws::Identity;
use crate::model::{AttemptId, Email};

mod answer;
mod probe;

/// To a server that does not answer at all; what is not connected was certainly not sent.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// For credentials, but no longer than half a call: who gives none in time has to be told apart from an SES that does not
/// answer, which leaves a doubt.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(5);

/// For questions about the account, which nobody waits for.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// SES sets these itself and refuses or drops ours.
const OWN_HEADERS: [&str; 2] = ["message-id", "date"];

/// What the mailer needs of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub identity: Identity,
    pub endpoint_url: Option<String>,
    pub identity_arn: Option<String>,
    pub configuration_set: Option<String>,
    /// Our own MIME message instead of SES's.
    pub raw: bool,
    /// `mailer.from`: the identity that has to be verified.
    pub from: String,
    pub call_timeout: Duration,
}

pub struct SesMailer {
    client: Client,
    sts: aws_sdk_sts::Client,
    settings: Settings,
    /// `None`: neither the configuration nor the environment names one, and no mail can leave.
    region: Option<String>,
}

impl SesMailer {
    /// Finds region and credentials as every AWS tool does (environment, profile, web identity, container, instance).
    /// Reaches nobody yet.
    pub async fn connect(settings: Settings) -> SesMailer {
        let shared = settings.identity.load().await;
        // Each call has a bound of its own, which looks once more before it says that there is no answer.
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN).build();
        let credentials = IdentityCache::lazy().load_timeout(CREDENTIALS_WITHIN.min(settings.call_timeout / 2)).build();
        let mut config = aws_sdk_sesv2::config::Builder::from(&shared)
            .identity_cache(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(url) = &settings.endpoint_url {
            config = config.endpoint_url(url);
        }
        let region = shared.region().map(ToString::to_string);
        let sts = aws_sdk_sts::Client::new(&shared);
        SesMailer { client: Client::from_conf(config.build()), sts, settings, region }
    }

    /// What SES makes the message of.
    fn content(&self, mail: &Email, tag: AttemptId) -> Result<EmailContent, SendError> {
        let broken =
            |e: aws_sdk_sesv2::error::BuildError| SendError::Permanent(format!("the mail is not complete: {e}"));
        if self.settings.raw {
            let raw = RawMessage::builder().data(Blob::new(mime::message(mail, tag)?)).build().map_err(broken)?;
            return Ok(EmailContent::builder().raw(raw).build());
        }
        let text = |value: &str| Content::builder().data(value).charset("UTF-8").build().map_err(broken);
        let mut message = Message::builder()
            .subject(text(&mail.subject)?)
            .body(Body::builder().text(text(&mail.text)?).html(text(&mail.html)?).build());
        for (name, value) in &mail.headers {
            if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                continue;
            }
            message = message.headers(MessageHeader::builder().name(name).value(value).build().map_err(broken)?);
        }
        Ok(EmailContent::builder().simple(message.build()).build())
    }
}

#[async_trait]
impl Mailer for SesMailer {
    fn kind(&self) -> &'static str {
        "ses"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        let to = mime::check(mail)?;
        if self.region.is_none() {
            return Err(SendError::Halted(answer::NO_REGION.into()));
        }
        if !AsRef::<str>::as_ref(&to).is_ascii() {
            return Err(SendError::Permanent(
                "SES takes only ASCII in front of the @ of an address; correct it in the directory".into(),
            ));
        }
        let tags = [("owlpost-digest", tag.digest.to_string()), ("owlpost-attempt", tag.number.to_string())];
        let mut call = self
            .client
            .send_email()
            .from_email_address(mime::sender("from", &mail.from)?)
            .destination(Destination::builder().to_addresses(to.to_string()).build())
            .content(self.content(mail, tag)?)
            .set_configuration_set_name(self.settings.configuration_set.clone())
            .set_from_email_address_identity_arn(self.settings.identity_arn.clone());
        if let (Some(reply_to), false) = (&mail.reply_to, self.settings.raw) {
            call = call.reply_to_addresses(mime::sender("reply_to", reply_to)?);
        }
        for (name, value) in tags {
            let tag = MessageTag::builder().name(name).value(value).build();
            call = call.email_tags(tag.map_err(|e| SendError::Permanent(format!("the mail is not complete: {e}")))?);
        }
        let Some(answer) = answer_within(self.settings.call_timeout, call.send()).await else {
            return Err(SendError::Ambiguous("no answer in time".into()));
        };
        match answer {
            // Without an id it was accepted all the same.
            Ok(sent) => Ok(sent.message_id.unwrap_or_else(|| mime::message_id(mail, tag))),
            Err(error) => Err(answer::class(&error, &self.settings.from, &mail.to)),
        }
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        let asked = tokio::time::timeout(ASK_WITHIN, self.client.get_account().send()).await;
        let account = match asked {
            Err(_) => return Err(SendError::Retryable("GetAccount: no answer in time".into())),
            Ok(Err(error)) => return Err(answer::class(&error, &self.settings.from, "")),
            Ok(Ok(account)) => account,
        };
        let Some(quota) = account.send_quota() else {
            return Err(SendError::Retryable("GetAccount tells no SendQuota; set quota.per_second and per_day".into()));
        };
        let stopped = match (account.sending_enabled(), account.enforcement_status()) {
            (_, Some("SHUTDOWN")) => Some("SES has shut this account down (EnforcementStatus SHUTDOWN)".to_owned()),
            (false, _) => Some("sending is switched off for this account (SendingEnabled false)".to_owned()),
            (true, _) => None,
        };
        Ok(Some(Account {
            per_second: quota.max_send_rate(),
            // -1: without a bound.
            per_day: Some(quota.max24_hour_send()).filter(|n| *n >= 0.0).map(|n| n as u64),
            sent_24h: quota.sent_last24_hours().max(0.0) as u64,
            stopped,
        }))
    }

    async fn probe(&self) -> Vec<Finding> {
        probe::probe(self).await
    }

    fn gives_evidence(&self) -> bool {
        // SES events come with a later version.
        false
    }
}
