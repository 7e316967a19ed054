//! Signing in to a database of Amazon RDS with an AWS identity: the password of a new connection is a signed request of
//! `rds-db:connect`. The server looks at it once; a connection outlives it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::sync::Mutex;

use super::Identity;
use super::presign::{Purpose, encoded, ends, presign};

/// What RDS takes at most.
const LIVES: Duration = Duration::from_secs(900);
/// Providers of credentials have their own limits; this bounds all of them together.
const WITHIN: Duration = Duration::from_secs(30);

/// Who signs, and when it is.
#[derive(Clone)]
pub struct Signer {
    credentials: SharedCredentialsProvider,
    region: String,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Signer {
    /// Reaches nobody yet.
    ///
    /// # Errors
    /// No region, or nothing that could have credentials.
    pub async fn load(identity: &Identity) -> Result<Signer, String> {
        let shared = identity.load().await;
        let region = shared.region().ok_or("store.auth = \"iam\" needs a region: set store.region, or AWS_REGION")?;
        let credentials = shared.credentials_provider().ok_or("no AWS credentials: see the chain in README.md")?;
        Ok(Signer { credentials, region: region.to_string(), now: Arc::new(SystemTime::now) })
    }

    pub fn new(
        credentials: impl ProvideCredentials + 'static,
        region: &str,
        now: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Signer {
        Signer {
            credentials: SharedCredentialsProvider::new(credentials),
            region: region.to_owned(),
            now: Arc::new(now),
        }
    }

    async fn sign(&self, to: &Endpoint) -> Result<Token, String> {
        // Without the error's source, which may hold what a metadata service or a profile said.
        let credentials = match tokio::time::timeout(WITHIN, self.credentials.provide_credentials()).await {
            Ok(had) => had.map_err(|e| format!("no AWS credentials: {e}"))?,
            Err(_) => return Err("the AWS credentials did not come in time".to_owned()),
        };
        let now = (self.now)();
        let url = format!("https://{}:{}/?Action=connect&DBUser={}", to.host, to.port, encoded(&to.user));
        let purpose = Purpose { service: "rds-db", region: &self.region, lives: LIVES };
        let signed = presign(&url, &purpose, &credentials, now)
            .map_err(|e| format!("the token for RDS can't be signed: {e}"))?;
        let text = signed.strip_prefix("https://").unwrap_or(&signed).to_owned();
        Ok(Token { text, made: now, ends: ends(now, LIVES, &credentials) })
    }
}

/// The database, as the token names it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub user: String,
}

struct Token {
    text: String,
    made: SystemTime,
    ends: SystemTime,
}

impl Token {
    /// A clock that went back makes it old: the server may think that it is of the future.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let lives = self.ends.duration_since(self.made).unwrap_or_default();
        now.duration_since(self.made).is_ok_and(|age| age < lives / 2)
    }
}

/// Tokens for one database: one serves all connections that are made while it is in the first half of its life, so that
/// many at once ask for credentials once.
pub struct Tokens {
    signer: Signer,
    endpoint: Endpoint,
    kept: Mutex<Option<Token>>,
}

impl Tokens {
    pub fn new(signer: Signer, endpoint: Endpoint) -> Tokens {
        Tokens { signer, endpoint, kept: Mutex::default() }
    }

    /// # Errors
    /// There are no credentials, and the last token has ended.
    pub async fn current(&self) -> Result<String, String> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| token.is_fresh((self.signer.now)())) {
            return Ok(token.text.clone());
        }
        match self.signer.sign(&self.endpoint).await {
            Ok(token) => Ok(kept.insert(token).text.clone()),
            // One that still holds is better than the reason why there is no newer one.
            Err(why) => kept
                .as_ref()
                .filter(|token| (self.signer.now)() < token.ends)
                .map_or(Err(why), |token| Ok(token.text.clone())),
        }
    }

    /// The server did not take it: the credentials behind it may have been withdrawn.
    pub async fn refused(&self, text: &str) {
        self.kept.lock().await.take_if(|token| token.text == text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Cell;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;

    const START: u64 = 1_724_709_600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn endpoint(host: &str, port: u16, user: &str) -> Endpoint {
        Endpoint { host: host.to_owned(), port, user: user.to_owned() }
    }

    async fn token(credentials: Credentials, to: &Endpoint) -> Token {
        Signer::new(credentials, "us-east-1", || at(START)).sign(to).await.unwrap()
    }

    /// What AWS's own generator for Rust makes of the same (`rds::auth_token`, its test).
    #[tokio::test]
    async fn a_token_is_what_the_generator_of_aws_makes() {
        let to = endpoint("prod-instance.us-east-1.rds.amazonaws.com", 3306, "peccy");
        let made = token(Credentials::new("akid", "secret", None, None, "test"), &to).await;
        assert_eq!(
            made.text,
            "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
        );
        assert_eq!(made.ends, at(START + 900));
    }

    #[tokio::test]
    async fn a_session_and_odd_names_are_encoded_once_and_credentials_end_a_token() {
        let session = Some("session/+=".to_owned());
        let credentials = Credentials::new("akid", "secret", session, Some(at(START + 60)), "test");
        let made = token(credentials, &endpoint("db", 5432, "a b+c")).await;
        assert!(made.text.starts_with("db:5432/?Action=connect&DBUser=a%20b%2Bc&X-Amz-"), "{}", made.text);
        assert!(made.text.contains("&X-Amz-Security-Token=session%2F%2B%3D"), "{}", made.text);
        assert!(!made.text.contains("secret"));
        assert_eq!(made.ends, at(START + 60));
    }

    /// Credentials, or none, as a test says; counts who asks.
    #[derive(Debug, Default)]
    struct Source {
        away: Cell<bool>,
        asked: Cell<u32>,
    }

    impl ProvideCredentials for &'static Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            *self.asked.lock().unwrap() += 1;
            let away = *self.away.lock().unwrap();
            future::ProvideCredentials::ready(if away {
                Err(CredentialsError::not_loaded("away"))
            } else {
                Ok(Credentials::new("akid", "secret", None, None, "test"))
            })
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_half_of_its_life_and_kept_to_its_end_without_credentials() {
        let source: &'static Source = Box::leak(Box::default());
        let clock = Arc::new(Cell::new(START));
        let tokens = {
            let clock = clock.clone();
            let signer = Signer::new(source, "us-east-1", move || at(*clock.lock().unwrap()));
            Tokens::new(signer, endpoint("db", 5432, "u"))
        };
        let set = |seconds: u64| *clock.lock().unwrap() = START + seconds;
        let asked = || *source.asked.lock().unwrap();
        let first = tokens.current().await.unwrap();
        set(449);
        assert_eq!(tokens.current().await.unwrap(), first);
        assert_eq!(asked(), 1);
        *source.away.lock().unwrap() = true;
        set(899);
        assert_eq!(tokens.current().await.unwrap(), first, "it still holds");
        set(900);
        assert!(tokens.current().await.is_err());
        *source.away.lock().unwrap() = false;
        let second = tokens.current().await.unwrap();
        assert_ne!(second, first);
        set(0);
        assert_eq!(tokens.current().await.unwrap(), first, "of the future: the clock went back");
    }

    #[tokio::test]
    async fn a_refused_token_is_not_used_again() {
        let source: &'static Source = Box::leak(Box::default());
        let tokens = Tokens::new(Signer::new(source, "us-east-1", || at(START)), endpoint("db", 5432, "u"));
        let token = tokens.current().await.unwrap();
        tokens.refused("another").await;
        tokens.current().await.unwrap();
        assert_eq!(*source.asked.lock().unwrap(), 1);
        tokens.refused(&token).await;
        tokens.current().await.unwrap();
        assert_eq!(*source.asked.lock().unwrap(), 2);
    }
}
