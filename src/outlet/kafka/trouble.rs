//! What librdkafka says about the brokers beside its answers: a message that nobody confirmed in time has no reason of its
//! own.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kafka::iam::Tokens;

/// Under this target librdkafka's own lines stand in the log.
const LOG: &str = "librdkafka";
/// How long all brokers may be down at the beginning: a name with several addresses has them tried one after the other.
const DOWN: Duration = Duration::from_secs(5);

/// How long the first token may take: credentials come over the network. librdkafka asks again, 10 s after a refusal.
const TOKEN: Duration = Duration::from_secs(10);
const TOKEN_POLL: Duration = Duration::from_millis(50);

/// The last trouble that is not over.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Told>,
    /// No broker answers, since then; told since the last call was answered.
    down: Option<Instant>,
    /// A sign-in was refused, likewise.
    refused: bool,
    /// A broker has confirmed something: it lets us in, whatever another one says.
    was_let_in: bool,
}

/// A cause and librdkafka's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub code: Code,
    pub words: String,
}

impl Told {
    /// Time does not heal it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.code,
            Code::SSL | Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism
        )
    }
}

impl Trouble {
    pub fn told(&self) -> Option<Told> {
        self.state().last.clone()
    }

    /// A broker has confirmed a message.
    pub fn is_over(&self) {
        *self.state() = State { was_let_in: true, ..State::default() };
    }

    /// A call has its answers. What was told until now says nothing of the next one: somebody may have started the broker,
    /// or made the user, and librdkafka tells of every try to connect anew.
    pub fn call_is_over(&self) {
        let mut state = self.state();
        (state.down, state.refused) = (None, false);
    }

    /// Returns when no broker lets us in, and none ever did. `began`: the call that waits.
    pub async fn locked_out(&self, began: Instant) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // From here on nothing that is told is missed.
            news.as_mut().enable();
            let given_up = {
                let state = self.state();
                match state.down {
                    _ if state.was_let_in => None,
                    _ if state.refused => return,
                    down => down.map(|since| since.max(began) + DOWN),
                }
            };
            match given_up {
                None => news.await,
                Some(at) if at <= Instant::now() => return,
                Some(at) => drop(tokio::time::timeout_at(at, news).await),
            }
        }
    }

    fn tell(&self, code: Code, words: &str) {
        // A broker that does not take our certificate only says so after the handshake, which then is a broken connection.
        let is_alert = code == Code::BrokerTransportFailure && words.contains("SSL routines");
        let code = if is_alert && words.contains("certificate") { Code::SSL } else { code };
        let mut state = self.state();
        if code == Code::AllBrokersDown {
            state.down.get_or_insert_with(Instant::now);
        }
        let told = Told { code, words: words.to_owned() };
        // The more exact one stands: a broker that refuses a sign-in is also one that does not answer, and why it does not
        // says more than that it does not.
        let stands = match &state.last {
            None => false,
            Some(before) if before.is_refusal() && state.refused => !told.is_refusal(),
            Some(_) => code == Code::AllBrokersDown,
        };
        state.refused |= told.is_refusal();
        if !stands {
            state.last = Some(told);
        }
        drop(state);
        self.news.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka's callbacks.
pub(super) struct Watch {
    pub trouble: Arc<Trouble>,
    /// Of a cluster that is signed in to with an AWS identity.
    pub tokens: Option<Arc<Tokens>>,
}

impl ClientContext for Watch {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// On the thread that polls, which has nothing to tell before somebody is signed in.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self.tokens.as_ref().ok_or("tokens are made for MSK only, by iam = true")?;
        let by = std::time::Instant::now() + TOKEN;
        loop {
            match tokens.latest() {
                Ok(token) => {
                    return Ok(OAuthToken {
                        token: token.text,
                        principal_name: "owlpost".to_owned(),
                        lifetime_ms: token.expires_ms,
                    });
                }
                Err(why) if std::time::Instant::now() >= by => {
                    self.trouble.tell(Code::Authentication, &why);
                    return Err(why.into());
                }
                Err(_) => std::thread::sleep(TOKEN_POLL),
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(target: LOG, %error, reason, "a producer's trouble");
        self.trouble.tell(code, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // What goes wrong comes back as an error too, in words of ours.
        if level as i32 <= RDKafkaLogLevel::Error as i32 {
            tracing::warn!(target: LOG, facility, "{line}");
        } else {
            tracing::debug!(target: LOG, facility, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_stands_until_something_is_confirmed_and_locks_out_only_before() {
        let trouble = Trouble::default();
        trouble.tell(Code::AllBrokersDown, "1/1 brokers are down");
        assert!(!trouble.told().unwrap().is_refusal());
        trouble.tell(Code::Authentication, "refused");
        trouble.tell(Code::BrokerTransportFailure, "disconnected");
        assert_eq!(trouble.told().unwrap().words, "refused");
        trouble.locked_out(Instant::now()).await;
        trouble.is_over();
        assert_eq!(trouble.told(), None);
        trouble.tell(Code::Authentication, "refused");
        let waits = tokio::time::timeout(Duration::from_millis(1), trouble.locked_out(Instant::now()));
        assert!(waits.await.is_err(), "another broker lets us in");
    }

    #[tokio::test]
    async fn a_broker_that_wants_another_certificate_locks_out() {
        let trouble = Trouble::default();
        let words = "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42";
        trouble.tell(Code::BrokerTransportFailure, words);
        assert!(trouble.told().unwrap().is_refusal());
        trouble.locked_out(Instant::now()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn brokers_that_are_all_down_at_the_beginning_are_given_seconds() {
        let trouble = Trouble::default();
        trouble.tell(Code::BrokerTransportFailure, "connection refused");
        trouble.tell(Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(trouble.told().unwrap().words, "connection refused");
        let begun = Instant::now();
        trouble.locked_out(Instant::now()).await;
        assert!(begun.elapsed() >= DOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_kept_one_call_out_does_not_keep_out_the_next() {
        let trouble = Trouble::default();
        for (code, words) in [(Code::AllBrokersDown, "1/1 brokers are down"), (Code::Authentication, "refused")] {
            trouble.tell(code, words);
            trouble.locked_out(Instant::now()).await;
            trouble.call_is_over();
            assert!(trouble.told().is_some(), "the reason of what is not confirmed in time");
            let next = tokio::time::timeout(DOWN * 10, trouble.locked_out(Instant::now()));
            assert!(next.await.is_err(), "{words}: told before");
            trouble.tell(code, words);
            trouble.locked_out(Instant::now()).await;
            trouble.call_is_over();
        }
        // Told while nobody sends: a broker may be there by the time somebody does.
        trouble.tell(Code::AllBrokersDown, "1/1 brokers are down");
        tokio::time::sleep(DOWN * 10).await;
        let begun = Instant::now();
        trouble.locked_out(begun).await;
        assert!(begun.elapsed() >= DOWN);
    }
}
