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

    fn plans(&self) -> String {
        let mut routes: Vec<_> = self.routes.iter().map(|(name, route)| (name, route.rules, &route.plan)).collect();
        routes.sort_unstable_by_key(|(name, ..)| *name);
        format!("{} {routes:?}", env!("CARGO_PKG_VERSION"))
    }

    fn backoff(&self, _route: &str, attempt: AttemptId, burned: u32) -> Duration {
        self.backoff.wait(attempt.to_string().as_bytes(), burned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(holidays: &[&str], at: &str) -> Policies {
        let calendar = Calendar::new("Europe/Berlin", &["mon", "tue"], holidays).unwrap();
        let rules = Rules {
            priority: Priority::Normal,
            hold: false,
            max_listed: 100,
            attempts_max: 3,
            give_up_after: Duration::from_secs(60),
            resend_in_doubt: false,
            doubt_grace: Duration::from_secs(60),
        };
        let cadence = Cadence { at: Some(at.into()), ..Cadence::default() };
        let route = RoutePolicy { rules, plan: cadence.compile(&calendar).unwrap(), template: "digest".into() };
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let routes = (0..20).map(|n| (format!("r{n}"), route.clone())).collect();
        Policies::new(routes, rules, backoff, &calendar).unwrap()
    }

    #[test]
    fn two_workers_of_one_configuration_plan_alike_and_others_do_not() {
        let days = ["2026-12-25", "2026-12-26", "2027-01-01", "2027-05-01", "2027-10-03"];
        let plans = policies(&days, "09:00").plans();
        for _ in 0..20 {
            assert_eq!(policies(&days, "09:00").plans(), plans);
        }
        assert_ne!(policies(&days[1..], "09:00").plans(), plans);
        assert_ne!(policies(&days, "09:01").plans(), plans);
    }
}
