//! `[[route]]` and its cadence.

use super::Check;
use crate::config::{Config, HANDLED, did_you_mean};
use crate::route::{ATHENZ_TYPES, Route};
use crate::schedule::Cadence;

/// The built-in templates; any of them takes any type.
pub const TEMPLATES: [&str; 8] =
    ["approvals", "decisions", "expiries", "reviews", "changes", "certificates", "health", "digest"];
pub const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAYS: [&str; 8] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "workdays"];

pub fn validate(check: &mut Check<'_>, config: &Config) {
    for (index, route) in config.routes.iter().enumerate() {
        let n = index.to_string();
        check.name(&["route", &n, "name"], &route.name);
        if route.name == HANDLED {
            if !route.types.is_empty() || !route.audience.is_empty() || route.subject_key.is_some() {
                check.error(
                    &["route", &n],
                    "\"handled\" is reserved for notices to those who had been asked: it takes no types, audience or subject_key",
                );
            }
        } else if route.types.is_empty() {
            check.missing(&["route", &n], "needs types, as in types = [\"io.athenz.membership.requested.v1\"]");
        }
        // A folder may hold templates of its own: whoever reads it, the worker and `check`, looks there.
        if config.templates.dir.is_none() && !TEMPLATES.contains(&route.template.as_str()) {
            let near = did_you_mean(&route.template, TEMPLATES);
            check.error(
                &["route", &n, "template"],
                format!("no template is called so{near} (there are {})", TEMPLATES.join(", ")),
            );
        }
        if route.attempts_max == Some(0) {
            check.error(&["route", &n, "attempts_max"], "must be at least 1");
        }
        if let Some(span) = route.give_up_after {
            check.at_least_a_moment(&["route", &n, "give_up_after"], span);
        }
        match Route::compile(route) {
            Ok(compiled) => {
                let own = ATHENZ_TYPES.iter().find(|kind| compiled.takes(kind));
                if let (Some(kind), Some(_)) = (own, &route.subject_key) {
                    check.warn(
                        &["route", &n, "subject_key"],
                        format!("counts for types that are not Athenz's own; {kind}, which this route takes, keeps its subject"),
                    );
                }
            }
            Err(faults) => {
                for fault in faults {
                    let mut path = vec!["route", &n];
                    path.extend(fault.path.iter().map(String::as_str));
                    check.missing(&path, fault.message);
                }
            }
        }
        cadence(check, &n, &route.cadence);
    }
    if config.routes.iter().all(|route| route.name == HANDLED) && !check.root.damaged {
        check.warn(&[], "no [[route]]: nobody hears of anything");
    }
}

/// In the words of the worker, which would not start with it.
fn cadence(check: &mut Check<'_>, n: &str, cadence: &Cadence) {
    let named = cadence.days.as_deref().unwrap_or_default();
    days(check, &["route", n, "cadence", "days"], named, &DAYS);
    let is_known = named.iter().all(|day| DAYS.contains(&day.as_str()));
    for problem in cadence.problems() {
        // It begins with the field's name.
        match problem.split_once(": ") {
            Some(("days", _)) if !is_known => {}
            Some((field, why)) => check.error(&["route", n, "cadence", field], why),
            None => check.error(&["route", n, "cadence"], problem),
        }
    }
}

pub fn days(check: &mut Check<'_>, path: &[&str], named: &[String], known: &[&'static str]) {
    for (index, day) in named.iter().enumerate() {
        let index = index.to_string();
        let place: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
        if !known.contains(&day.as_str()) {
            let near = did_you_mean(day, known.iter().copied());
            check.error(&place, format!("not a day: expected one of {}{near}", known.join(", ")));
        }
    }
}
