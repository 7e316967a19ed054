//! The section of the mailer.

use std::path::PathBuf;

use schemars::JsonSchema;

use super::sections::Secret;

/// How mails leave.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MailerConfig {
    pub kind: MailerKind,
    /// Of kind `outbox`: the folder of `.eml` and `.html` files.
    pub dir: PathBuf,
    /// Of kind `ses`: the AWS region. Default: what the environment or the profile says.
    pub region: Option<String>,
    /// Of kind `ses`: another endpoint than AWS's, for tests and VPC endpoints.
    pub endpoint_url: Option<String>,
    /// Of kind `ses`: the ARN of a verified identity in another account that lets this one send in its name.
    pub identity_arn: Option<String>,
    /// Of kind `ses`: the configuration set, which SES events need.
    pub configuration_set: Option<String>,
    /// Of kind `ses`: a role to assume first, for example in the account that owns the identity.
    pub assume_role_arn: Option<String>,
    /// The external id that this role's trust policy asks for.
    pub external_id: Option<String>,
    /// Of kind `ses`: `simple` lets SES build the message, `raw` sends ours.
    pub content: SesContent,
    /// Of kind `smtp`: the server's name, as its certificate says.
    pub host: Option<String>,
    /// Of kind `smtp`. Default: 587 with `starttls`, 465 with `implicit`, 25 with `none`.
    pub port: Option<u16>,
    /// Of kind `smtp`.
    pub tls: SmtpTls,
    /// Of kind `smtp`: PEM file of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// One mailbox, `Name <a@b>` or `a@b`.
    pub from: String,
    /// One mailbox for answers.
    pub reply_to: Option<String>,
}

impl Default for MailerConfig {
    fn default() -> MailerConfig {
        MailerConfig {
            kind: MailerKind::Outbox,
            dir: "data/outbox".into(),
            region: None,
            endpoint_url: None,
            identity_arn: None,
            configuration_set: None,
            assume_role_arn: None,
            external_id: None,
            content: SesContent::Simple,
            host: None,
            port: None,
            tls: SmtpTls::Starttls,
            ca_file: None,
            username: None,
            password: None,
            from: "Athenz <access@example.com>".into(),
            reply_to: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailerKind {
    Outbox,
    Discard,
    Ses,
    Smtp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SesContent {
    Simple,
    Raw,
}

/// How an SMTP connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Plain, then upgraded (RFC 3207); a server that can't is refused.
    Starttls,
    /// From the first byte (RFC 8314).
    Implicit,
    /// Not at all: on loopback only.
    None,
}
