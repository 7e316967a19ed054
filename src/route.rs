//! Which routes an event takes, and whom each of them asks. Pure: no clock, no I/O, no look into a directory.
//!
//! Types are looked up in a table; only routes with `*` in their types, conditions or expressions cost more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Effect, Event, Topic};

mod config;
mod expression;
mod pattern;

pub use config::{OnInDoubt, OneOf, RouteConfig, RouteEffect};
use expression::{Expansion, Expression, Field};
use pattern::Pattern;

/// The types of `events.md` that bring their own subject and effect, or have none; routes can't give them another.
pub const ATHENZ_TYPES: [&str; 12] = [
    REQUESTED,
    "io.athenz.membership.decided.v1",
    "io.athenz.membership.withdrawn.v1",
    "io.athenz.membership.expiring.v1",
    "io.athenz.membership.review_due.v1",
    "io.athenz.membership.renewed.v1",
    "io.athenz.membership.removed.v1",
    "io.athenz.membership.added.v1",
    "io.athenz.membership.reminder.v1",
    "io.athenz.domain.changed.v1",
    "io.athenz.certificate.unrefreshed.v1",
    "io.athenz.zts.unhealthy.v1",
];
const REQUESTED: &str = "io.athenz.membership.requested.v1";

/// What one route makes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    pub route: Arc<str>,
    /// Principals, roles and groups, each once, never none.
    pub references: Vec<String>,
    /// A principal who must not be asked: nobody approves their own request.
    pub except: Option<String>,
    /// The audience could not be read of the event: `references` are its expressions, which mean nobody.
    pub unreadable: bool,
}

/// An event with its subject, and whom it asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Routed {
    /// Of a type that is not Athenz's own, with the subject and effect that a route gave it.
    pub event: Event,
    /// In the order of the configuration. Empty: nobody hears of it.
    pub asked: Vec<Asking>,
}

/// What is wrong with a route: the path below it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFault {
    /// For example `["audience", "0"]`.
    pub path: Vec<String>,
    pub message: String,
}

/// One compiled `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    name: Arc<str>,
    types: Vec<Pattern>,
    conditions: Vec<(Field, Vec<Pattern>)>,
    audience: Vec<Expression>,
    subject: Option<(Expression, RouteEffect)>,
}

impl Route {
    /// # Errors
    /// Everything that is wrong with it at once.
    pub fn compile(config: &RouteConfig) -> Result<Route, Vec<RouteFault>> {
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: String| {
            faults.push(RouteFault { path: path.iter().map(|s| (*s).to_owned()).collect(), message });
        };
        for (index, pattern) in config.types.iter().enumerate() {
            if pattern.is_empty() || pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
                let message =
                    "not a type: expected a CloudEvents type without spaces, with * for any run of characters";
                fault(&["types", &index.to_string()], message.into());
            }
        }
        let mut conditions = Vec::new();
        for (path, OneOf(values)) in &config.conditions {
            match Field::parse(path) {
                Ok(_) if values.is_empty() => {
                    fault(&["where", path], "an empty list matches nothing; leave the key out".into())
                }
                Ok(field) => conditions.push((field, values.iter().map(|v| Pattern::new(v)).collect())),
                Err(message) => fault(&["where", path], message),
            }
        }
        let mut audience = Vec::new();
        for (index, text) in config.audience.iter().enumerate() {
            match Expression::parse(text) {
                Ok(expression) if !expression.literals_are(|c| !c.is_whitespace() && !c.is_control()) => {
                    fault(&["audience", &index.to_string()], "a principal, role or group has no spaces".into());
                }
                Ok(expression) => audience.push(expression),
                Err(message) => fault(&["audience", &index.to_string()], message),
            }
        }
        let subject = match (&config.subject_key, config.effect) {
            (Some(text), effect) => match Expression::parse(text) {
                Ok(expression) => Some((expression, effect.unwrap_or(RouteEffect::Opens))),
                Err(message) => {
                    fault(&["subject_key"], message);
                    None
                }
            },
            (None, Some(RouteEffect::Opens | RouteEffect::Closes)) => {
                fault(&["effect"], "needs a subject_key that says what is opened or closed".into());
                None
            }
            (None, _) => None,
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let types = config.types.iter().map(|t| Pattern::new(t)).collect();
        Ok(Route { name: config.name.as_str().into(), types, conditions, audience, subject })
    }

    pub fn takes(&self, kind: &str) -> bool {
        self.types.iter().any(|pattern| pattern.matches(kind))
    }

    fn holds(&self, event: &Event) -> bool {
        self.conditions.iter().all(|(field, allowed)| field.any(event, |text| allowed.iter().any(|p| p.matches(text))))
    }

    /// Whom its audience names, and whether they could not be read. An entry without its value does not concern the event; if
    /// nothing else is left than entries with a value that can name nobody, they are what is asked, so that the event is
    /// seen to reach nobody.
    fn references(&self, event: &Event) -> (Vec<String>, bool) {
        let mut unusable = Vec::new();
        let readable = self.audience.iter().filter_map(|entry| {
            // A reference with a blank in it could read as two, or as none.
            match entry.expand(event, |c| !c.is_whitespace()) {
                Expansion::Text(reference) => return Some(reference),
                Expansion::Missing => {}
                Expansion::Unusable => unusable.push(entry.as_written().to_owned()),
            }
            None
        });
        let references = once(readable);
        if references.is_empty() && !unusable.is_empty() { (unusable, true) } else { (references, false) }
    }
}

/// Each once, in their order. At most a few hundred (`limits.recipients_per_event`).
fn once(references: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut seen: std::collections::HashSet<String> = std::collections::HashSet::new();
    for reference in references {
        // A handful is compared quicker than hashed.
        let new = if all.len() < 8 {
            !all.contains(&reference)
        } else {
            if seen.is_empty() {
                seen.extend(all.iter().cloned());
            }
            seen.insert(reference.clone())
        };
        if new {
            all.push(reference);
        }
    }
    all
}

/// All routes, ready to be asked.
#[derive(Clone, Debug)]
pub struct Router {
    realm: String,
    routes: Vec<Route>,
    /// The routes for every type that some route names in full, those with a fitting `*` among them.
    by_type: HashMap<Box<str>, Box<[usize]>>,
    /// For all other types: the routes with a `*`.
    globs: Box<[usize]>,
}

impl Router {
    /// `realm` is part of every subject.
    ///
    /// # Errors
    /// The number of the route in `configs`, and everything that is wrong with it.
    pub fn new(configs: &[RouteConfig], realm: &str) -> Result<Router, Vec<(usize, RouteFault)>> {
        let (mut routes, mut faults) = (Vec::new(), Vec::new());
        for (index, config) in configs.iter().enumerate() {
            match Route::compile(config) {
                Ok(route) => routes.push(route),
                Err(wrong) => faults.extend(wrong.into_iter().map(|fault| (index, fault))),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut by_type = HashMap::new();
        for pattern in routes.iter().flat_map(|route| &route.types) {
            if let Pattern::Exact(kind) = pattern {
                by_type.entry(kind.clone()).or_insert_with(|| {
                    let fitting = routes.iter().enumerate().filter(|(_, route)| route.takes(kind));
                    fitting.map(|(index, _)| index).collect()
                });
            }
        }
        let with_star = |route: &Route| route.types.iter().any(|p| matches!(p, Pattern::Glob { .. }));
        let globs = routes.iter().enumerate().filter(|(_, route)| with_star(route)).map(|(index, _)| index).collect();
        Ok(Router { realm: realm.to_owned(), routes, by_type, globs })
    }

    /// Gives the event its subject, if a route has one for it, and says whom each matching route asks: the recipients
    /// that the event names, else the route's audience. Conditions see the event as it came, audiences with its subject.
    pub fn route(&self, mut event: Event) -> Routed {
        let exact = self.by_type.get(event.kind.as_str());
        let candidates = exact.unwrap_or(&self.globs).iter().filter_map(|index| self.routes.get(*index));
        let matching: Vec<&Route> =
            candidates.filter(|route| (exact.is_some() || route.takes(&event.kind)) && route.holds(&event)).collect();
        if matching.iter().any(|route| route.subject.is_some()) && !ATHENZ_TYPES.contains(&event.kind.as_str()) {
            self.give_subject(&mut event, &matching);
        }
        let except = event.asker.take();
        // Whom the event names goes to the routes; nobody behind them reads it again.
        let mut named = event.recipients.take().map(|named| once(named.into_iter()));
        let mut asked = Vec::with_capacity(matching.len());
        let last = matching.len().saturating_sub(1);
        for (i, route) in matching.into_iter().enumerate() {
            let named = if i == last { named.take() } else { named.clone() };
            let (references, unreadable) = match named {
                Some(named) => (named, false),
                None => route.references(&event),
            };
            if !references.is_empty() {
                asked.push(Asking { route: route.name.clone(), references, except: except.clone(), unreadable });
            }
        }
        Routed { event, asked }
    }

    /// By the first route whose `subject_key` has all its values.
    fn give_subject(&self, event: &mut Event, matching: &[&Route]) {
        let found = matching
            .iter()
            .filter_map(|route| route.subject.as_ref())
            .find_map(|(expression, effect)| expression.expand(event, |_| true).text().map(|key| (key, *effect)));
        let Some((key, effect)) = found else { return };
        let topic = Topic::of(&["custom", &self.realm, &key]);
        event.effect = match effect {
            // No date: every opener replaces what was open before it.
            RouteEffect::Opens => Effect::Opens { topic, date: None },
            RouteEffect::Closes => Effect::Closes { topics: vec![topic] },
            RouteEffect::Informs => Effect::Informs,
        };
        event.subject_key = Some(key);
    }
}
