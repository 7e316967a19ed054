//! What the routes say about time and patience, compiled once: the store asks inside its transactions.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{AttemptId, Priority, Time};
use crate::schedule::{Backoff, Cadence, Calendar, Plan, Problems};
use crate::store::{Policy, Rules, Window};

/// The route of the notices "already handled".
pub const HANDLED: &str = "handled";

/// One route, as far as delivery is concerned.
#[derive(Clone, Debug)]
pub struct RoutePolicy {
    pub rules: Rules,
    pub plan: Plan,
    pub template: String,
}

pub struct Policies {
    routes: HashMap<String, RoutePolicy>,
    /// For digests of a route that the configuration has no more: when they are due they leave as a plain digest.
    orphans: RoutePolicy,
    backoff: Backoff,
}

impl Policies {
    /// # Errors
    /// The calendar's own defaults do not compile, which no configuration can cause.
    pub fn new(
        routes: HashMap<String, RoutePolicy>,
        rules: Rules,
        backoff: Backoff,
        calendar: &Calendar,
    ) -> Result<Policies, Problems> {
        let orphans = RoutePolicy {
            rules: Rules { priority: Priority::Normal, hold: false, ..rules },
            plan: Cadence::default().compile(calendar)?,
            template: "digest".into(),
        };
        Ok(Policies { routes, orphans, backoff })
    }

    pub fn of(&self, route: &str) -> &RoutePolicy {
        self.routes.get(route).unwrap_or(&self.orphans)
    }
}

impl Policy for Policies {
    fn knows(&self, route: &str) -> bool {
        self.routes.contains_key(route)
    }

    fn rules(&self, route: &str) -> Rules {
        self.of(route).rules
    }

    fn due(&self, route: &str, zone: Option<&str>, window: &Window) -> Time {
        self.of(route).plan.due(zone, window)
    }

    fn backoff(&self, _route: &str, attempt: AttemptId, burned: u32) -> Duration {
        self.backoff.wait(attempt.to_string().as_bytes(), burned)
    }
}
