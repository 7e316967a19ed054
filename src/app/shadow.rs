//! A shadow of a deployment: the same events, decided and recorded beside it, and nothing is sent. At its end the two
//! ledgers are laid side by side.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{AppError, Parts, parts};
use crate::clock::{Clock, SystemClock};
use crate::config::{Allowance, Config, DeadLettersConfig, SourceKind};
use crate::model::{ItemState, Reason};
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::outcomes::{self, EventOutcome, ItemOutcome, Outcomes};
use crate::store::{Command, Opening, StoreError};

/// A shadow that may start.
pub struct Shadow {
    /// The deployment's, but for what a shadow must have of its own.
    pub config: Config,
    real: PathBuf,
    own: PathBuf,
}

/// Marks everything that a shadow has of its own.
const MARK: &str = "shadow";

impl Shadow {
    /// `keep`: go on with the store of the shadow before; else it begins anew.
    ///
    /// # Errors
    /// A source would take messages away from the deployment; the shadow's store can't be made.
    pub async fn of(config: &Config, keep: bool) -> Result<Shadow, AppError> {
        let real = config.store.sqlite_path().ok_or_else(|| {
            AppError::Config(format!(
                "store.url: {} is no sqlite: URL; only a SQLite store can have a shadow",
                config.store.shown()
            ))
        })?;
        let own = PathBuf::from(format!("{}.{MARK}", real.display()));
        let mut config = config.clone();
        config.store.url = format!("sqlite:{}", own.display());
        config.store.migrate = true;
        config.dead_letters = DeadLettersConfig::default();
        apart(&mut config)?;
        if !keep {
            Sqlite::remove(&own)?;
        }
        let shadow = Shadow { config, real, own };
        shadow.inherit().await
    }

    /// What the deployment has learned and no event tells: what its account may send, and who must not be mailed.
    async fn inherit(mut self) -> Result<Shadow, AppError> {
        if Outcomes::open(&self.real).await?.is_none() {
            return Ok(self);
        }
        if let Some(account) = parts::account(&self.config)
            && let Some((per_second, per_day)) = outcomes::terms(&self.real, &account).await?
        {
            let quota = &mut self.config.quota;
            let known = |allowance: &mut Allowance, n: Option<f64>| {
                if let (Allowance::Account, Some(n)) = (*allowance, n) {
                    *allowance = Allowance::Mails(n);
                }
            };
            known(&mut quota.per_second, per_second);
            known(&mut quota.per_day, per_day.map(|n| n as f64));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let parts = Parts::new(&self.config, clock.clone(), false)?;
        let store = parts.open_store(&self.config, Opening::Worker).await?.store;
        let mut after = String::new();
        loop {
            let page = outcomes::suppressed(&self.real, &after).await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (address, reason) in page {
                by_reason.entry(reason).or_default().push(address);
            }
            for (reason, addresses) in by_reason {
                store.act(clock.now(), &Command::Suppress { addresses, reason }).await?;
            }
        }
        Ok(self)
    }

    /// The deployment's store, which is only read.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// Lays the ledgers side by side, in bounded steps; `each` gets every difference. `None`: the deployment has no store.
    ///
    /// # Errors
    /// One of the stores can't be read, or what `each` says.
    pub async fn compare<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<Option<Counts>, E> {
        let (Some(real), Some(own)) = (Outcomes::open(&self.real).await?, Outcomes::open(&self.own).await?) else {
            return Ok(None);
        };
        let (mut real, mut own) = (Ledger::new(real), Ledger::new(own));
        let mut counts = Counts::default();
        loop {
            let order = match (real.peek().await?, own.peek().await?) {
                (None, None) => return Ok(Some(counts)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.key.cmp(&b.key),
            };
            match order {
                Ordering::Less => {
                    counts.events_only_real += 1;
                    real.next();
                }
                Ordering::Greater => {
                    counts.events_only_shadow += 1;
                    own.next();
                }
                Ordering::Equal => {
                    if let (Some(theirs), Some(mine)) = (real.next(), own.next()) {
                        counts.events += 1;
                        differences(theirs, mine, &mut counts).into_iter().try_for_each(&mut each)?;
                    }
                }
            }
        }
    }
}

/// What must not be shared with the deployment.
fn apart(config: &mut Config) -> Result<(), AppError> {
    for source in &mut config.sources {
        match source.kind {
            SourceKind::Kafka => {
                // A group of its own reads everything and moves nobody's offsets.
                source.group = Some(format!("{}-{MARK}", source.group.as_deref().unwrap_or("owlpost")));
                source.instance_id = source.instance_id.take().map(|id| format!("{id}-{MARK}"));
            }
            SourceKind::Sqs => match source.shadow_queue.take() {
                Some(queue) if queue.starts_with("https://") || queue.starts_with("http://") => {
                    (source.queue_url, source.queue) = (Some(queue), None);
                }
                Some(queue) => (source.queue_url, source.queue) = (None, Some(queue)),
                None => {
                    return Err(AppError::Config(format!(
                        "source {}: a shadow that reads an SQS queue takes its messages away from the real worker; give it a \
                         queue with copies (an SNS subscription, an EventBridge rule) in shadow_queue, or leave the source out",
                        source.name
                    )));
                }
            },
            SourceKind::Http | SourceKind::File | SourceKind::Zms => {}
        }
    }
    Ok(())
}

/// A ledger that is read page by page.
struct Ledger {
    rest: Outcomes,
    page: std::vec::IntoIter<EventOutcome>,
}

impl Ledger {
    fn new(rest: Outcomes) -> Ledger {
        Ledger { rest, page: Vec::new().into_iter() }
    }

    async fn peek(&mut self) -> Result<Option<&EventOutcome>, StoreError> {
        if self.page.as_slice().is_empty() {
            self.page = self.rest.next().await?.into_iter();
        }
        Ok(self.page.as_slice().first())
    }

    fn next(&mut self) -> Option<EventOutcome> {
        self.page.next()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    OnlyInShadow,
    OnlyInReal,
    /// Settled in both, in another way.
    OtherOutcome,
    /// Settled in one of the two so far.
    StillOpen,
}

impl Difference {
    pub fn words(self) -> &'static str {
        match self {
            Difference::OnlyInShadow => "only in shadow",
            Difference::OnlyInReal => "only in real",
            Difference::OtherOutcome => "other outcome",
            Difference::StillOpen => "still open",
        }
    }
}

/// A state and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    pub state: ItemState,
    pub reason: Option<Reason>,
}

/// An item that is not the same in both ledgers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    pub difference: Difference,
    pub source: String,
    pub id: String,
    pub route: String,
    pub recipient: String,
    pub real: Option<Outcome>,
    pub shadow: Option<Outcome>,
}

/// Items of the events that both saw, and those events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub events_only_real: u64,
    pub events_only_shadow: u64,
    pub same: u64,
    pub only_in_shadow: u64,
    pub only_in_real: u64,
    pub other_outcome: u64,
    pub still_open: u64,
}

impl Counts {
    fn of(&mut self, difference: Difference) -> &mut u64 {
        match difference {
            Difference::OnlyInShadow => &mut self.only_in_shadow,
            Difference::OnlyInReal => &mut self.only_in_real,
            Difference::OtherOutcome => &mut self.other_outcome,
            Difference::StillOpen => &mut self.still_open,
        }
    }
}

/// The items of one event, both lists by route and recipient.
fn differences(real: EventOutcome, shadow: EventOutcome, counts: &mut Counts) -> Vec<Row> {
    let by_name = |item: ItemOutcome| {
        let outcome = Outcome { state: item.state, reason: item.reason };
        ((item.route, item.recipient), outcome)
    };
    let mut both: BTreeMap<(String, String), (Option<Outcome>, Option<Outcome>)> = BTreeMap::new();
    for (name, outcome) in real.items.into_iter().map(by_name) {
        both.entry(name).or_default().0 = Some(outcome);
    }
    for (name, outcome) in shadow.items.into_iter().map(by_name) {
        both.entry(name).or_default().1 = Some(outcome);
    }
    let mut rows = Vec::new();
    for ((route, recipient), (theirs, mine)) in both {
        let difference = match (theirs, mine) {
            (Some(a), Some(b)) if a == b => {
                counts.same += 1;
                continue;
            }
            (Some(a), Some(b)) if a.state.is_final() && b.state.is_final() => Difference::OtherOutcome,
            (Some(_), Some(_)) => Difference::StillOpen,
            (None, _) => Difference::OnlyInShadow,
            (_, None) => Difference::OnlyInReal,
        };
        *counts.of(difference) += 1;
        let (source, id) = (real.source.clone(), real.id.clone());
        rows.push(Row { difference, source, id, route, recipient, real: theirs, shadow: mine });
    }
    rows
}
