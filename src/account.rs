//! The account loop: asks the mail server now and then what the account may send and what all who use it have sent, and
//! tells the store. Of several workers one asks at a time; the others use what it stored. What the configuration says in
//! numbers wins over what the account says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mailer::{Account, Mailer};
use crate::metrics;
use crate::pace::Pace;
use crate::quota::Terms;
use crate::store::{Asking, Ours, Sent, Store, StoreError, Turn};
use crate::vitals::Vitals;

/// SES lets an account ask once a second in all; an answer a minute old misses what others sent in it.
const EVERY: Duration = Duration::from_secs(60);

/// After a failure, or when a mail was refused for the quota: soon, but never in a row.
const SOON: Duration = Duration::from_secs(5);

/// A mailer gives up a question before that: who has not told the store then has ended.
const WITHIN: Duration = Duration::from_secs(15);

/// And whoever asked when this worker came has its answer by then, or has none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(11);

/// How old what another worker learned may become before this one sees it ...
const LOOK: Duration = Duration::from_secs(15);
/// ... and how soon it looks again while nothing is known.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// What the configuration says; `None`: what the account says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    pub per_second: Option<f64>,
    pub per_day: Option<u64>,
    pub burst: u32,
    pub urgent_reserve: f64,
}

/// How soon another reason for its silence is told.
const TOLD_AGAIN: Duration = Duration::from_secs(300);

pub struct AccountWatch {
    pub store: Arc<dyn Store>,
    pub mailer: Arc<dyn Mailer>,
    pub clock: Arc<dyn Clock>,
    pub pace: Arc<Pace>,
    /// Set once it is known what may be sent: what was stored before this process came may be of any age.
    pub heard: Arc<AtomicBool>,
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
        let (mut heard, mut fresh) = (
            Heard { since: Instant::now(), failing: false, why: String::new(), told_at: Instant::now(), known: false },
            EVERY,
        );
        while !stop.is_cancelled() {
            pulse.beat();
            let looked_at = Instant::now();
            let next = match self.look(&mut heard, fresh).await {
                Ok(next) => next,
                Err(StoreError::Unusable(why)) => return Err(StoreError::Unusable(why)),
                Err(why) => {
                    metrics::store_error();
                    tracing::warn!(error = %why, "the account's quota could not be stored; tried again");
                    SOON
                }
            };
            wake.notify_one();
            let until = looked_at + next;
            fresh = EVERY;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = async { ask.notified().await; tokio::time::sleep_until(looked_at + SOON).await } => fresh = SOON,
                () = beating(&pulse, until) => {}
            }
        }
        pulse.finish();
        Ok(())
    }

    /// Asks if it is this worker's turn. Gives when to look again.
    async fn look(&self, heard: &mut Heard, fresh: Duration) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        match self.store.take_turn(now, Turn { fresh, within: WITHIN }).await? {
            Asking::Mine(ours) => {
                self.ask(heard, ours).await?;
                Ok(if heard.failing { SOON } else { EVERY })
            }
            Asking::Theirs { again, known } => {
                let known = match known {
                    None if heard.may_be_old(&*self.mailer) => {
                        self.store.gauges(now).await?.quota.map(|quota| quota.terms)
                    }
                    known => known,
                };
                if let Some(known) = known {
                    self.follow(known, heard.known).await?;
                    heard.known = true;
                }
                // Whoever was not answered lets another one try first.
                let again = again.since(now) + if heard.failing { SOON } else { Duration::ZERO };
                Ok(again.clamp(LOOK_SOON, if heard.known { LOOK } else { LOOK_SOON }))
            }
        }
    }

    /// Uses what another worker has learned. This one may have been given other numbers since: its first look says so.
    async fn follow(&self, known: Terms, told: bool) -> Result<(), StoreError> {
        let mine = self.terms(known.per_second, known.per_day);
        if !told && mine != known {
            self.store.account(self.clock.now(), mine, None).await?;
        }
        let terms = if told { known } else { mine };
        self.knows(terms);
        Ok(())
    }

    fn knows(&self, terms: Terms) {
        self.pace.set(terms.per_second, terms.burst);
        self.heard.store(true, Ordering::Relaxed);
    }

    async fn ask(&self, heard: &mut Heard, ours: Ours) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let answer = self.mailer.account().await;
        if asked_at.elapsed() >= WITHIN {
            // This process stood still, and another one asks by now: what it has heard since is newer.
            tracing::warn!("what the account said is old by now, as this worker stood still; it is asked again");
            heard.failing = true;
            return Ok(());
        }
        let (terms, sent) = match answer {
            Ok(account) => {
                if heard.failing {
                    tracing::info!("the account answers again");
                }
                (heard.failing, heard.why) = (false, String::new());
                (self.terms_of(account.as_ref()), account.map(|a| Sent { all: a.sent_24h, ours }))
            }
            Err(why) => return self.is_not_told(heard, why.to_string()).await,
        };
        let now = self.clock.now();
        self.store.account(now, terms, sent).await?;
        heard.known = true;
        self.knows(terms);
        Ok(())
    }

    /// What is configured counts, or else what was last known.
    async fn is_not_told(&self, heard: &mut Heard, why: String) -> Result<(), StoreError> {
        let complete = self.wanted.per_second.is_some() && self.wanted.per_day.is_some();
        let now = self.clock.now();
        // Perhaps an earlier life, or another replica, has asked.
        let known = if complete { None } else { self.store.gauges(now).await?.quota };
        // Its words may be others each time (a request's id, a moment): another reason is told now and then.
        let is_news = !heard.failing || (heard.why != why && heard.told_at.elapsed() >= TOLD_AGAIN);
        if is_news {
            heard.told_at = Instant::now();
            let what = match (complete, known.is_some()) {
                (true, _) => "the account does not say what it may send; the configured numbers count",
                (false, true) => "the account does not say what it may send; what was last known holds",
                (false, false) => {
                    "the account does not say what it may send, and never did: no mail leaves until it does"
                }
            };
            tracing::warn!(error = why, "{what}");
        }
        heard.failing = true;
        if is_news {
            heard.why = why;
        }
        if complete {
            let terms = self.terms_of(None);
            self.store.account(now, terms, None).await?;
            heard.known = true;
            self.knows(terms);
        } else if let Some(known) = known {
            self.knows(known.terms);
        }
        Ok(())
    }

    fn terms_of(&self, account: Option<&Account>) -> Terms {
        self.terms(account.map(|a| a.per_second), account.and_then(|a| a.per_day))
    }

    /// What is configured, and else what the account says.
    fn terms(&self, per_second: Option<f64>, per_day: Option<u64>) -> Terms {
        let per_second = self.wanted.per_second.or(per_second);
        Terms {
            per_second,
            per_day: self.wanted.per_day.or(per_day),
            // At most a second's worth, whatever the configuration hoped the account would have.
            burst: per_second.map_or(self.wanted.burst, |rate| self.wanted.burst.min(rate.max(1.0) as u32)),
            urgent_reserve: self.wanted.urgent_reserve,
        }
    }
}

/// What this worker knows of the account.
struct Heard {
    /// When it began to look.
    since: Instant,
    /// It did not answer when this worker asked last.
    failing: bool,
    /// Why, as it was told last.
    why: String,
    told_at: Instant,
    /// The store knows what it may send, as this worker's configuration has it.
    known: bool,
}

impl Heard {
    /// What was last known will do: nobody can say anything newer.
    fn may_be_old(&self, mailer: &dyn Mailer) -> bool {
        !self.known && (self.since.elapsed() >= ANSWERED_WITHIN || !mailer.counts_others())
    }
}

/// Sleeps, and shows all the while that the loop lives.
async fn beating(pulse: &crate::vitals::Pulse, until: Instant) {
    while Instant::now() < until {
        tokio::time::sleep_until(until.min(Instant::now() + EVERY / 4)).await;
        pulse.beat();
    }
}
