//! What belongs to which kind of mailer, and what it needs.

use std::net::IpAddr;

use super::Check;
use crate::config::{Allowance, Config, MailerConfig, MailerKind, SmtpTls};
use crate::model::Priority;
use crate::quota::{Day, Terms};

/// A key, whether it is set, and the kinds it belongs to.
type Key = (&'static str, bool, MailerKind);

pub fn validate(check: &mut Check<'_>, config: &Config) {
    let mailer = &config.mailer;
    check.mailbox(&["mailer", "from"], &mailer.from);
    if let Some(reply_to) = &mailer.reply_to {
        check.mailbox(&["mailer", "reply_to"], reply_to);
    }
    strangers(check, mailer);
    match mailer.kind {
        MailerKind::Outbox if mailer.dir.as_os_str().is_empty() => {
            check.error(&["mailer", "dir"], "is empty; give a folder");
        }
        MailerKind::Outbox | MailerKind::Discard => {}
        MailerKind::Ses => ses(check, mailer),
        MailerKind::Smtp => smtp(check, mailer),
    }
    if matches!(mailer.kind, MailerKind::Ses | MailerKind::Smtp) && config.recipients.allowed_domains.is_empty() {
        check.missing(
            &["recipients"],
            "recipients.allowed_domains is required for a mailer that really sends: the domains that may get mail",
        );
    }
    quota(check, config);
}

/// Keys of another kind: they would do nothing.
fn strangers(check: &mut Check<'_>, mailer: &MailerConfig) {
    use MailerKind::{Ses, Smtp};
    let keys: [Key; 10] = [
        ("region", mailer.region.is_some(), Ses),
        ("endpoint_url", mailer.endpoint_url.is_some(), Ses),
        ("identity_arn", mailer.identity_arn.is_some(), Ses),
        ("configuration_set", mailer.configuration_set.is_some(), Ses),
        ("assume_role_arn", mailer.assume_role_arn.is_some(), Ses),
        ("external_id", mailer.external_id.is_some(), Ses),
        ("host", mailer.host.is_some(), Smtp),
        ("port", mailer.port.is_some(), Smtp),
        ("ca_file", mailer.ca_file.is_some(), Smtp),
        ("username", mailer.username.is_some(), Smtp),
    ];
    for (key, set, kind) in keys {
        if set && kind != mailer.kind {
            let name = if kind == Ses { "ses" } else { "smtp" };
            check.error(&["mailer", key], format!("belongs to kind = \"{name}\" only"));
        }
    }
}

fn ses(check: &mut Check<'_>, mailer: &MailerConfig) {
    if let Some(url) = &mailer.endpoint_url {
        endpoint(check, &["mailer", "endpoint_url"], url);
    }
    for (key, value, part) in
        [("identity_arn", &mailer.identity_arn, ":identity/"), ("assume_role_arn", &mailer.assume_role_arn, ":role/")]
    {
        if value.as_deref().is_some_and(|arn| !arn.starts_with("arn:") || !arn.contains(part)) {
            check.error(&["mailer", key], format!("not an ARN of this kind: expected \"arn:aws:…{part}NAME\""));
        }
    }
    if mailer.external_id.is_some() && mailer.assume_role_arn.is_none() {
        check.error(&["mailer", "external_id"], "goes with assume_role_arn only");
    }
    let set_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if mailer.configuration_set.as_deref().is_some_and(|s| s.is_empty() || s.len() > 64 || !s.chars().all(set_name)) {
        check.error(&["mailer", "configuration_set"], "has 1 to 64 letters, digits, '-' and '_'");
    }
    if mailer.region.as_deref().is_some_and(|r| r.is_empty() || !r.chars().all(set_name)) {
        check.error(&["mailer", "region"], "not a region: expected a name as in \"eu-west-1\"");
    }
}

/// An endpoint of AWS's or a stand-in for it.
pub fn endpoint(check: &mut Check<'_>, path: &[&str], url: &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if !matches!(scheme, "http" | "https") || name.is_empty() {
        check.error(path, "not a web address: expected https://HOST or http://127.0.0.1:PORT");
    } else if scheme == "http" && !is_loopback(name) {
        check.error(path, "http:// is for this machine only; use https://");
    }
}

fn smtp(check: &mut Check<'_>, mailer: &MailerConfig) {
    let host = mailer.host.as_deref().unwrap_or_default();
    if host.is_empty() {
        check.missing(&["mailer"], "kind = \"smtp\" needs a host");
    } else if host.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@')) {
        check.error(
            &["mailer", "host"],
            "not a host: expected a name as in \"smtp.example.com\"; the port has a key of its own",
        );
    } else if mailer.tls == SmtpTls::None && !is_loopback(host) {
        check.error(&["mailer", "tls"], "\"none\" is for this machine only; use \"starttls\" or \"implicit\"");
    }
    if mailer.port == Some(0) {
        check.error(&["mailer", "port"], "must be at least 1");
    }
    if mailer.username.is_some() != mailer.password.is_some() {
        check.missing(&["mailer"], "username and password go together: set both or none");
    }
}

fn quota(check: &mut Check<'_>, config: &Config) {
    let quota = &config.quota;
    for (key, allowance) in [("per_second", quota.per_second), ("per_day", quota.per_day)] {
        if config.mailer.kind == MailerKind::Smtp && allowance == Allowance::Account {
            check.error(&["quota", key], "an SMTP server tells no quota: expected a number");
        }
    }
    if !(0.0..=1.0).contains(&quota.urgent_reserve) {
        check.error(&["quota", "urgent_reserve"], "a part of the day's quota: expected 0 to 1, as in 0.1");
    }
    if let Allowance::Mails(per_day) = quota.per_day {
        let terms =
            Terms { per_second: None, per_day: Some(per_day as u64), burst: 1, urgent_reserve: quota.urgent_reserve };
        if per_day < 1.0 {
            check.error(&["quota", "per_day"], "must be at least 1; `owlpost pause` stops all mail");
        } else if Day::default().room(&terms, Priority::Normal) == 0 {
            check.warn(
                &["quota", "per_day"],
                "leaves nothing to routes that are not urgent: urgent_reserve keeps it all back",
            );
        }
    } else if quota.urgent_reserve == 1.0 {
        check.warn(&["quota", "urgent_reserve"], "leaves nothing to routes that are not urgent");
    }
    check.at_least_one(&["quota", "burst"], quota.burst.into());
    if let Allowance::Mails(rate) = quota.per_second
        && f64::from(quota.burst) > rate.max(1.0)
    {
        check.error(&["quota", "burst"], "must be at most what per_second allows in a second");
    }
}

/// `https://`, or `http://` on this machine.
pub(super) fn is_safe_url(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    !name.is_empty() && (scheme == "https" || (scheme == "http" && is_loopback(name)))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
