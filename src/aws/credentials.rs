//! Credentials that could never be signed with: a secret that was made with `echo` ends in a line break, and the SDK panics
//! over one in the key's id.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};

/// Another provider's, refused with the reason if they can't be sent. No value stands in the reason.
#[derive(Debug)]
pub(super) struct Checked(pub SharedCredentialsProvider);

impl ProvideCredentials for Checked {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { check(self.0.provide_credentials().await?) })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt().and_then(|found| check(found).ok())
    }
}

fn check(found: Credentials) -> Result {
    let parts = [
        ("access key id", Some(found.access_key_id())),
        ("secret access key", Some(found.secret_access_key())),
        ("session token", found.session_token()),
    ];
    let wrong = parts.into_iter().find_map(|(name, value)| Some(format!("the {name} {}", trouble(value?)?)));
    wrong.map_or(Ok(found), |why| Err(CredentialsError::invalid_configuration(why)))
}

fn trouble(value: &str) -> Option<&'static str> {
    let fits = |value: &str| !value.is_empty() && value.chars().all(|c| matches!(c, ' '..='~'));
    match (fits(value), fits(value.trim())) {
        (true, _) if value == value.trim() => None,
        (_, true) => Some("has blanks or a line break around it; make the secret without them (`printf`, not `echo`)"),
        _ => Some("is empty, or holds what no key does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_sent_is_refused_with_its_reason_and_not_shown() {
        let of = |id: &str, secret: &str, token: Option<&str>| {
            check(Credentials::new(id, secret, token.map(str::to_owned), None, "test"))
        };
        assert!(of("AKIAEXAMPLE", "abc/d f+1=", Some("tok/en+=")).is_ok());
        for (id, secret, token) in [
            ("AKIAEXAMPLE\n", "s3cret", None),
            (" AKIAEXAMPLE", "s3cret", None),
            ("AKIAEXAMPLE", "s3cret\r\n", None),
            ("AKIAEXAMPLE", "s3cret", Some("token\n")),
            ("AKIA\u{e9}XAMPLE", "s3cret", None),
            ("", "s3cret", None),
        ] {
            let why = std::error::Error::source(&of(id, secret, token).unwrap_err()).unwrap().to_string();
            assert!(why.starts_with("the ") && !why.contains("AKIA") && !why.contains("s3cret"), "{why}");
        }
    }
}
