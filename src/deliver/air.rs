//! What is on its way, and how what was answered gets into the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::ahead::Ahead;
use super::calls::Calls;
use super::valve::{Said, Valve};
use super::{Deliver, Phase};
use crate::model::{AttemptId, Time};
use crate::store::{Answer, Evidence, Learned, StoreError};
use crate::vitals::Vitals;

/// How soon the store is told again what somebody else's locks kept out of it.
const HELD_AGAIN: Duration = Duration::from_secs(1);

/// Unless there is more to do than can be done, answers gather for so long at most, so that one transaction serves several; after
/// a kill those are in doubt, as are the calls that are under way.
const GATHER: Duration = Duration::from_millis(50);

/// So many such answers are kept before nothing more begins: each is a mail whose record somebody else holds.
const HELD_MAX: usize = 256;

/// Answers whose rows somebody else holds. They are kept until the store has them; the others go on.
#[derive(Default)]
pub(super) struct Held {
    answers: Vec<Evidence>,
    again: Option<Instant>,
    /// So many of them the store is being told again just now.
    telling: usize,
}

impl Held {
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() + self.telling >= HELD_MAX
    }

    /// No time is left to wait.
    pub fn hurry(&mut self) {
        self.again = None;
    }

    fn take_due(&mut self) -> Vec<Evidence> {
        if self.again.is_some_and(|at| at > Instant::now()) {
            return vec![];
        }
        let due = std::mem::take(&mut self.answers);
        self.telling += due.len();
        due
    }
}

/// What is in the air, and what is known but not settled yet.
pub(super) struct Air {
    pub sends: JoinSet<(Answer, Said)>,
    pub calls: Arc<Calls>,
    /// Which attempt a task sends, and when its digest was due: a panic says neither.
    pub tasks: HashMap<Id, (AttemptId, Time)>,
    /// Bounded by the sends in flight and those that end within [`GATHER`]: nothing new begins while the store takes no answers.
    pub answers: Vec<Evidence>,
    pub held: Held,
    /// The store did not take them.
    pub unsettled: bool,
    /// Since when the first of them waits.
    answered: Option<Instant>,
    /// Claimed and not begun: for the next sends that end, or waiting for a permit.
    pub ahead: Ahead,
    /// How long the last begin took.
    pub lead: Duration,
    pub valve: Valve,
    /// Since when nothing is claimed because nobody has said what the account may send, which must not look like the end.
    pub unknown_since: Option<Instant>,
    pub vitals: Vitals,
}

impl Air {
    pub fn new(valve: Valve, vitals: Vitals, in_flight: usize) -> Air {
        Air {
            sends: JoinSet::new(),
            calls: Arc::new(Calls::new(in_flight)),
            tasks: HashMap::new(),
            answers: Vec::new(),
            held: Held::default(),
            unsettled: false,
            answered: None,
            ahead: Ahead::default(),
            lead: Duration::ZERO,
            valve,
            unknown_since: None,
            vitals,
        }
    }

    /// An answer says that a share of the account is used up.
    pub fn hears_of_account(&self) -> bool {
        self.answers.iter().any(|one| matches!(one.answer, Answer::Throttled { share: Some(_), .. }))
    }

    pub fn hears(&mut self, answer: Evidence) {
        self.answered.get_or_insert_with(Instant::now);
        self.answers.push(answer);
    }

    /// When what was answered is to be settled, if it may gather.
    pub fn settle_at(&self) -> Option<Instant> {
        let again = self.held.again.filter(|_| self.held.len() > 0);
        [self.answered.map(|since| since + GATHER), again].into_iter().flatten().min()
    }

    fn answers_to_settle(&mut self) -> Arc<Vec<Evidence>> {
        let due = self.held.take_due();
        self.answers.extend(due);
        self.unsettled = !self.answers.is_empty();
        Arc::new(self.answers.clone())
    }

    /// What came of it; no answer came meanwhile.
    fn settled(&mut self, result: Result<Vec<Learned>, StoreError>) -> Result<(), StoreError> {
        let learned = result?;
        (self.unsettled, self.answered) = (false, None);
        self.held.telling = 0;
        let told = self.answers.drain(..).zip(learned);
        let held: Vec<Evidence> = told.filter(|(_, is)| *is == Learned::Held).map(|(one, _)| one).collect();
        if !held.is_empty() {
            if self.held.answers.is_empty() {
                let mails = held.len();
                tracing::warn!(
                    mails,
                    "somebody else's transaction holds what answers are to be written to; they are kept"
                );
            }
            self.held.again = Some(Instant::now() + HELD_AGAIN);
            self.held.answers.extend(held);
        }
        Ok(())
    }
}

impl Deliver {
    /// Settles what was answered while the next ones begin and those behind them are claimed: none has to do with another.
    pub(super) async fn settle_beside(
        self: &Arc<Self>,
        air: &mut Air,
        phase: Phase,
    ) -> Result<(bool, Option<usize>), StoreError> {
        let answers = air.answers_to_settle();
        if let Some(most) = self.to_claim_beside(air) {
            let ask = self.ask(most, phase);
            let claim = self.store.claim(self.clock.now(), &ask);
            let (in_vain, claimed, settled) = tokio::join!(self.begins_in_vain(air), claim, self.learn(answers));
            let settled = air.settled(settled);
            // What was claimed is kept, whatever became of the others.
            let claimed = match claimed {
                Ok(claimed) => {
                    air.ahead.has_claimed(claimed.len(), most, phase);
                    self.take_in(air, claimed).await
                }
                Err(why) => Err(why),
            };
            settled?;
            return Ok((in_vain?, Some(claimed?)));
        }
        let go_on = async {
            let in_vain = self.begins_in_vain(air).await?;
            Ok((in_vain, self.claim(air, phase).await?))
        };
        let (gone_on, settled) = tokio::join!(go_on, self.learn(answers));
        air.settled(settled)?;
        gone_on
    }

    pub(super) async fn settle(&self, air: &mut Air) -> Result<(), StoreError> {
        let answers = air.answers_to_settle();
        let settled = self.learn(answers).await;
        air.settled(settled)
    }

    async fn learn(&self, answers: Arc<Vec<Evidence>>) -> Result<Vec<Learned>, StoreError> {
        if answers.is_empty() {
            return Ok(vec![]);
        }
        self.store.learn(self.clock.now(), answers).await
    }
}
