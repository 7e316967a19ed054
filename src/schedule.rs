//! When a digest is due, and how long a failed attempt waits. Pure: no clock; the only thing looked up is the time zone
//! database (the system's, else the one built in), which `jiff` caches.
//!
//! A route's [`Cadence`] is compiled once against the [`Calendar`] of `[schedule]` into a [`Plan`]; the store asks
//! [`Plan::due`] inside its transactions. `config/cadence.md` shows what a recipient sees, and `tests/schedule.rs` runs
//! every line of it.

use serde::{Deserialize, Serialize};

use crate::span::Span;

mod backoff;
mod calendar;
mod plan;
mod slots;

pub use backoff::Backoff;
pub use calendar::Calendar;
pub use plan::Plan;

/// What the recipient of a route sees, in time. No field means: at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cadence {
    /// Wait so long from the first item.
    pub first_after: Option<Span>,
    /// Sliding: wait so long from the last item ...
    pub quiet_for: Option<Span>,
    /// ... but no longer than this from the first one.
    pub at_latest: Option<Span>,
    /// The gap to the previous digest of this recipient and route. With `at`, it is measured on the recipient's clock.
    pub at_most_every: Option<Span>,
    /// Local times of day in the recipient's zone, `"09:00"` or `"09:00, 15:00"`: the digest waits for the next of them.
    pub at: Option<String>,
    /// Days on which `at` counts: `mon` to `sun`, or `workdays`. Without it, every day.
    pub days: Option<Vec<String>>,
    /// So many items end `first_after` and `quiet_for`, never `at_most_every` nor `at`.
    pub max_items: Option<u32>,
    /// Due this long before the earliest deadline among the items, whatever the other fields say.
    pub before_deadline: Option<Span>,
}

/// Everything that is wrong with a part of the configuration, a sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Problems(pub Vec<String>);

impl Cadence {
    /// What is wrong with it, a sentence each that begins with the field's name; empty if nothing is. A field that could
    /// have no effect is wrong too: whoever wrote it expects one.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(at) = &self.at
            && let Err(problem) = slots::parse_times(at)
        {
            found.push(format!("at: {problem}"));
        }
        if let Some(days) = &self.days {
            if let Err(problem) = slots::parse_days(days) {
                found.push(format!("days: {problem}"));
            }
            if self.at.is_none() {
                found.push("days: has no effect without `at`; add e.g. at = \"09:00\"".into());
            }
        }
        match (self.quiet_for, self.at_latest) {
            (None, Some(_)) => found.push(
                "at_latest: has no effect without `quiet_for`; for a fixed wait use `first_after` instead".into(),
            ),
            (Some(quiet), Some(latest)) if latest < quiet => found
                .push(format!("at_latest: {latest} is shorter than quiet_for = {quiet}, which would then never count")),
            _ => {}
        }
        if let (Some(first), Some(latest)) = (self.first_after, self.at_latest)
            && latest < first
        {
            found.push(format!("at_latest: {latest} is shorter than first_after = {first}"));
        }
        match self.max_items {
            Some(0) => found.push("max_items: must be at least 1; leave it out for no maximum".into()),
            Some(_) if self.first_after.is_none() && self.quiet_for.is_none() => found.push(
                "max_items: has no effect without `first_after` or `quiet_for`, the waits that it ends \
                 (how many items a mail lists is limits.max_listed)"
                    .into(),
            ),
            _ => {}
        }
        found
    }

    /// The cadence with its calendar, ready to be asked; the problems are those of [`Cadence::problems`].
    pub fn compile(&self, calendar: &Calendar) -> Result<Plan, Problems> {
        let problems = self.problems();
        if problems.is_empty() { Plan::new(self, calendar) } else { Err(Problems(problems)) }
    }
}
