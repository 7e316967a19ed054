//! Signing in to Amazon MSK with an AWS identity: a token of OAUTHBEARER is a signed request of
//! `kafka-cluster:Connect`, as AWS's own signers make it (aws-msk-iam-sasl-signer).
//!
//! librdkafka asks for tokens on the thread that polls, which can't wait for credentials: a task keeps one ready.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::JoinHandle;

use crate::aws::Identity;
use crate::aws::presign::{Purpose, ends, presign};

/// What MSK takes at most.
const LIVES: Duration = Duration::from_secs(900);
/// A fresh one well before the old one ends: a broker asks for a new sign-in at its end.
const RENEW_EVERY: Duration = Duration::from_secs(300);
/// Credentials that end in a moment are not asked for without a pause.
const RENEW_FIRST: Duration = Duration::from_secs(1);
/// First and longest wait after credentials could not be had.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Providers of credentials have their own limits; this bounds all of them together.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
}

impl Token {
    fn left(&self, now: SystemTime) -> Duration {
        let ends = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(self.expires_ms).unwrap_or(0));
        ends.duration_since(now).unwrap_or_default()
    }

    /// Temporary credentials may end long before a token would.
    fn renew_in(&self, now: SystemTime) -> Duration {
        (self.left(now) / 2).clamp(RENEW_FIRST, RENEW_EVERY)
    }
}

/// A token that still holds is better than the reason why there is no newer one.
fn keep(latest: &mut Result<Token, String>, made: Result<Token, String>, now: SystemTime) {
    let holds = latest.as_ref().is_ok_and(|token| !token.left(now).is_zero());
    if made.is_ok() || !holds {
        *latest = made;
    }
}

/// A token that stays fresh for as long as this lives.
pub struct Tokens {
    latest: Arc<Mutex<Result<Token, String>>>,
    task: JoinHandle<()>,
}

impl Tokens {
    /// Inside of a runtime.
    pub fn keep(identity: Identity) -> Tokens {
        let latest = Arc::new(Mutex::new(Err("the AWS credentials are not there yet".to_owned())));
        let to = Arc::clone(&latest);
        let task = tokio::spawn(async move {
            let shared = identity.load().await;
            let mut retry = RETRY.0;
            loop {
                let made = match tokio::time::timeout(WITHIN, token(&shared)).await {
                    Ok(made) => made,
                    Err(_) => Err("the AWS credentials did not come in time".to_owned()),
                };
                let now = SystemTime::now();
                let wait = made.as_ref().map_or(retry, |token| token.renew_in(now));
                retry = if made.is_ok() { RETRY.0 } else { (retry * 2).min(RETRY.1) };
                keep(&mut to.lock().unwrap_or_else(PoisonError::into_inner), made, now);
                tokio::time::sleep(wait).await;
            }
        });
        Tokens { latest, task }
    }

    /// # Errors
    /// There is none yet, or no more: why.
    pub fn latest(&self) -> Result<Token, String> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn token(shared: &SdkConfig) -> Result<Token, String> {
    let region = shared.region().ok_or("iam = true needs a region: set region, or AWS_REGION")?;
    let provider = shared.credentials_provider().ok_or("no AWS credentials: see the chain in README.md")?;
    // Without the error's source, which may hold what a metadata service or a profile said.
    let credentials = provider.provide_credentials().await.map_err(|e| format!("no AWS credentials: {e}"))?;
    make(&credentials, region.as_ref(), SystemTime::now())
}

fn make(credentials: &Credentials, region: &str, now: SystemTime) -> Result<Token, String> {
    let url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let purpose = Purpose { service: "kafka-cluster", region, lives: LIVES };
    let signed =
        presign(&url, &purpose, credentials, now).map_err(|e| format!("the token for MSK can't be signed: {e}"))?;
    let signed = signed + concat!("&User-Agent=owlpost%2F", env!("CARGO_PKG_VERSION"));
    let expires = ends(now, LIVES, credentials).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Token {
        text: URL_SAFE_NO_PAD.encode(signed),
        expires_ms: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(token: &Token) -> String {
        String::from_utf8(URL_SAFE_NO_PAD.decode(&token.text).unwrap()).unwrap()
    }

    /// Every part that the MSK signers of AWS put into theirs, for a fixed moment.
    #[test]
    fn a_token_is_a_signed_url_for_the_cluster() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session/+=".to_owned()), None, "test");
        let token = make(&credentials, "eu-west-1", now).unwrap();
        let url = decoded(&token);
        assert!(url.starts_with("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&"), "{url}");
        for part in [
            "&X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "&X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-1%2Fkafka-cluster%2Faws4_request",
            "&X-Amz-Date=20231114T221320Z",
            "&X-Amz-Expires=900",
            "&X-Amz-SignedHeaders=host",
            "&X-Amz-Security-Token=session%2F%2B%3D",
            "&X-Amz-Signature=",
            "&User-Agent=owlpost%2F",
        ] {
            assert!(url.contains(part), "{part} is missing in {url}");
        }
        assert!(!url.contains("secret"));
        assert_eq!(token.expires_ms, 1_700_000_900_000);
    }

    #[test]
    fn a_token_is_renewed_before_it_ends_and_kept_until_then() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let of = |seconds: i64| Token { text: "t".to_owned(), expires_ms: (1_700_000_000 + seconds) * 1_000 };
        for (lives, renewed) in [(900, 300), (60, 30), (1, 1), (-5, 1)] {
            assert_eq!(of(lives).renew_in(now), Duration::from_secs(renewed), "{lives}");
        }
        let mut latest = Ok(of(60));
        keep(&mut latest, Err("away".to_owned()), now);
        assert!(latest.is_ok());
        keep(&mut latest, Err("away".to_owned()), now + Duration::from_secs(60));
        assert!(latest.is_err());
    }

    #[test]
    fn a_token_ends_with_the_credentials() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let credentials = Credentials::new("a", "b", None, Some(now + Duration::from_secs(60)), "test");
        assert_eq!(make(&credentials, "eu-west-1", now).unwrap().expires_ms, 1_700_000_060_000);
    }
}
