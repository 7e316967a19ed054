//! `check --live`: who AWS takes this process for, and whether mails can leave.

use std::time::Duration;

use aws_sdk_sesv2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::super::{Finding, without_addresses};
use super::{SesMailer, answer};

const WITHIN: Duration = Duration::from_secs(15);

pub async fn probe(mailer: &SesMailer) -> Vec<Finding> {
    let Some(region) = &mailer.region else { return vec![bad(answer::NO_REGION)] };
    let endpoint = mailer.settings.endpoint_url.as_deref().unwrap_or("AWS's own");
    let mut found = vec![good(format!("ses: region {region}, endpoint {endpoint}"))];
    found.push(identity(mailer).await);
    let account = account(mailer).await;
    let reached = account.iter().all(|f| f.ok);
    found.extend(account);
    if reached {
        found.push(sender(mailer).await);
        if let Some(set) = &mailer.settings.configuration_set {
            found.push(configuration_set(mailer, set).await);
        }
    }
    found
}

fn good(what: impl Into<String>) -> Finding {
    Finding { ok: true, what: what.into() }
}

fn bad(what: impl Into<String>) -> Finding {
    Finding { ok: false, what: what.into() }
}

/// A call within its time, or why there is no answer.
async fn asked<T, E, R>(call: impl Future<Output = Result<T, SdkError<E, R>>>) -> Result<T, String>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match tokio::time::timeout(WITHIN, call).await {
        Err(_) => Err("no answer in time".into()),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match error.as_service_error().map(ProvideErrorMetadata::meta) {
            Some(meta) if meta.code().is_some() => without_addresses(&format!(
                "{}: {}",
                meta.code().unwrap_or_default(),
                meta.message().unwrap_or_default()
            )),
            _ => without_addresses(&DisplayErrorContext(&error).to_string()),
        }),
    }
}

async fn identity(mailer: &SesMailer) -> Finding {
    match asked(mailer.sts.get_caller_identity().send()).await {
        Ok(who) => good(format!(
            "sts: this process is {} in account {}",
            who.arn().unwrap_or("?"),
            who.account().unwrap_or("?")
        )),
        Err(why) => bad(format!(
            "sts: AWS does not say who this process is: {why}; check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE (EKS, \
             GKE), the profile, or the keys"
        )),
    }
}

async fn account(mailer: &SesMailer) -> Vec<Finding> {
    let account = match asked(mailer.client.get_account().send()).await {
        Ok(account) => account,
        Err(why) => {
            return vec![bad(format!("ses: GetAccount failed: {why}; the policy needs ses:GetAccount on \"*\""))];
        }
    };
    let mut found = Vec::new();
    let health = account.enforcement_status().unwrap_or("unknown");
    found.push(match (account.sending_enabled(), health) {
        (true, "HEALTHY" | "PROBATION" | "unknown") => good(format!("ses: sending is on, enforcement status {health}")),
        (true, _) => bad(format!("ses: enforcement status {health}: SES may refuse every mail")),
        (false, _) => bad("ses: sending is switched off for this account"),
    });
    found.push(if account.production_access_enabled() {
        good("ses: production access")
    } else {
        // Not an error: that is how everybody starts.
        good("ses: SANDBOX: only verified recipients get mail, 200 in 24 hours; ask AWS for production access")
    });
    if let Some(quota) = account.send_quota() {
        let day = quota.max24_hour_send();
        let day = if day < 0.0 { "without a bound".to_owned() } else { format!("{day}") };
        found.push(good(format!(
            "ses: {} a second, {day} in 24 hours, {} used",
            quota.max_send_rate(),
            quota.sent_last24_hours()
        )));
    }
    found
}

/// The sender's domain or, failing that, the address itself has to be a verified identity.
async fn sender(mailer: &SesMailer) -> Finding {
    if let Some(arn) = &mailer.settings.identity_arn {
        return good(format!("ses: sends as {arn}, whose owner alone can look it up"));
    }
    let Ok(from) = mailer.settings.from.parse::<lettre::message::Mailbox>() else {
        return bad("mailer.from is no mail address");
    };
    let mut why = String::new();
    for name in [from.email.domain().to_owned(), from.email.to_string()] {
        match asked(mailer.client.get_email_identity().email_identity(&name).send()).await {
            Ok(identity) if identity.verified_for_sending_status() => {
                return good(format!("ses: the sender's identity ({}) is verified", from.email.domain()));
            }
            Ok(_) => why = "it is there and not verified yet".to_owned(),
            Err(e) if why.is_empty() => why = e,
            Err(_) => {}
        }
    }
    bad(format!(
        "ses: the sender (mailer.from, {}) is no verified identity here: {why}; verify it in this region, set \
         mailer.identity_arn if another account owns it, or allow ses:GetEmailIdentity to look",
        from.email.domain()
    ))
}

async fn configuration_set(mailer: &SesMailer, set: &str) -> Finding {
    match asked(mailer.client.get_configuration_set().configuration_set_name(set).send()).await {
        Ok(found) if found.sending_options().is_none_or(|o| o.sending_enabled()) => {
            // The right to look at a set says nothing of the right to send with it, and SES can't be asked for that.
            good(format!(
                "ses: configuration set {set} is there; a policy that names resources has to name it too, which only a \
                 mail can show"
            ))
        }
        Ok(_) => bad(format!("ses: sending is switched off for configuration set {set}")),
        Err(why) => bad(format!(
            "ses: configuration set {set}: {why}; create it in this region, or allow ses:GetConfigurationSet to look"
        )),
    }
}
