//! The account loop: asks the mail server now and then what the account may send and what all who use it have sent, and
//! tells the store. What the configuration says in numbers wins over what the account says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mailer::{Account, Mailer};
use crate::metrics;
use crate::pace::Pace;
use crate::quota::Terms;
use crate::store::{Store, StoreError};
use crate::vitals::Vitals;

/// SES lets an account ask once a second in all; an answer a minute old misses what others sent in it.
const EVERY: Duration = Duration::from_secs(60);

/// After a failure, or when a mail was refused for the quota: soon, but never in a row.
const SOON: Duration = Duration::from_secs(5);

/// What the configuration says; `None`: what the account says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    pub per_second: Option<f64>,
    pub per_day: Option<u64>,
    pub burst: u32,
    pub urgent_reserve: f64,
}

pub struct AccountWatch {
    pub store: Arc<dyn Store>,
    pub mailer: Arc<dyn Mailer>,
    pub clock: Arc<dyn Clock>,
    pub pace: Arc<Pace>,
    pub wanted: Wanted,
}

impl AccountWatch {
    /// Runs until `stop`. `ask` hurries the next question, `wake` hears of every answer.
    ///
    /// # Errors
    /// The store can't be used any more.
    pub async fn run(
        self,
        vitals: Vitals,
        wake: Arc<Notify>,
        ask: Arc<Notify>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let pulse = vitals.pulse("account");
        let mut failing = false;
        while !stop.is_cancelled() {
            pulse.beat();
            let asked_at = Instant::now();
            let next = match self.ask(&mut failing).await {
                Ok(()) if failing => SOON,
                Ok(()) => EVERY,
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) => {
                    metrics::store_error();
                    tracing::warn!(error = %why, "the account's quota could not be stored; tried again");
                    SOON
                }
            };
            wake.notify_one();
            let until = asked_at + next;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = async { ask.notified().await; tokio::time::sleep_until(asked_at + SOON).await } => {}
                () = beating(&pulse, until) => {}
            }
        }
        pulse.finish();
        Ok(())
    }

    async fn ask(&self, failing: &mut bool) -> Result<(), StoreError> {
        let answer = self.mailer.account().await;
        let (terms, sent_24h) = match answer {
            Ok(account) => {
                if *failing {
                    tracing::info!("the account answers again");
                }
                *failing = false;
                (self.terms(account.as_ref()), account.map(|a| a.sent_24h))
            }
            Err(why) => {
                if !*failing {
                    tracing::warn!(error = %why, "the account does not say what it may send; what was last known holds");
                }
                *failing = true;
                (self.terms(None), None)
            }
        };
        let complete = self.wanted.per_second.is_some() && self.wanted.per_day.is_some();
        let now = self.clock.now();
        if *failing && !complete {
            // Perhaps an earlier life, or another replica, has asked.
            let known = self.store.gauges(now).await?.quota;
            if let Some(known) = known {
                self.pace.set(known.terms.per_second, known.terms.burst);
            }
            return Ok(());
        }
        self.store.account(now, terms, sent_24h).await?;
        self.pace.set(terms.per_second, terms.burst);
        Ok(())
    }

    fn terms(&self, account: Option<&Account>) -> Terms {
        let Wanted { per_second, per_day, burst, urgent_reserve } = self.wanted;
        let per_second = per_second.or(account.map(|a| a.per_second));
        Terms {
            per_second,
            per_day: per_day.or(account.and_then(|a| a.per_day)),
            // At most a second's worth, whatever the configuration hoped the account would have.
            burst: per_second.map_or(burst, |rate| burst.min(rate.max(1.0) as u32)),
            urgent_reserve,
        }
    }
}

/// Sleeps, and shows all the while that the loop lives.
async fn beating(pulse: &crate::vitals::Pulse, until: Instant) {
    while Instant::now() < until {
        tokio::time::sleep_until(until.min(Instant::now() + EVERY / 4)).await;
        pulse.beat();
    }
}
