//! Events as tests write them: `request("r1").at(1).to(["ann"])`.

use std::collections::BTreeSet;
use std::time::Duration;

use owlpost::model::{Arrival, Asked, Effect, Entry, Event, Person, Refused, RefusedReason, Time, Topic};

/// 2026-01-05T00:00:00Z, before everything that happens in these tests.
pub const START: Time = Time(1_767_571_200_000_000);

/// Seconds after the start.
pub fn at(seconds: i64) -> Time {
    Time(START.0 + seconds * 1_000_000)
}

pub const ROLE: &str = "sports:role.admin";

#[derive(Clone, Debug, PartialEq)]
pub enum To {
    People(Vec<String>),
    /// Whoever is in the role at the time.
    Role,
    /// The event names nobody and its route has no audience.
    Unasked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Informs,
    Opens,
    Closes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ev {
    pub id: String,
    pub source: String,
    pub time: i64,
    pub does: Does,
    pub topics: Vec<String>,
    pub date: Option<String>,
    pub to: To,
    pub routes: Vec<String>,
    pub actor: Option<String>,
    pub deadline: Option<Time>,
    pub expiry: Option<Time>,
    pub counts_for: Option<Duration>,
    pub stale: bool,
    pub domain: Option<String>,
}

fn ev(id: &str, does: Does, topics: &[&str], to: To, route: &str) -> Ev {
    Ev {
        id: id.into(),
        source: "zms".into(),
        time: 1,
        does,
        topics: topics.iter().map(|t| t.to_string()).collect(),
        date: None,
        to,
        routes: vec![route.into()],
        actor: None,
        deadline: None,
        expiry: None,
        counts_for: None,
        stale: false,
        domain: None,
    }
}

/// Asks the role's people to decide.
pub fn request(id: &str) -> Ev {
    ev(id, Does::Opens, &["join"], To::Role, "ask")
}

/// Closes the request, asks nobody.
pub fn decision(id: &str) -> Ev {
    ev(id, Does::Closes, &["join"], To::Unasked, "tell").at(2)
}

/// A membership that ends on a date: twins share it.
pub fn expiring(id: &str, date: &str) -> Ev {
    Ev { date: Some(date.into()), ..ev(id, Does::Opens, &["m/expiring"], To::Role, "ask") }
}

/// Closes what waits for a membership's end and its review.
pub fn renewed(id: &str) -> Ev {
    ev(id, Does::Closes, &["m/expiring", "m/review"], To::Unasked, "tell")
}

pub fn news(id: &str) -> Ev {
    ev(id, Does::Informs, &[], To::Role, "tell")
}

impl Ev {
    pub fn at(mut self, seconds: i64) -> Ev {
        self.time = seconds;
        self
    }

    pub fn to<const N: usize>(mut self, people: [&str; N]) -> Ev {
        self.to = To::People(people.iter().map(|p| p.to_string()).collect());
        self
    }

    pub fn about<const N: usize>(mut self, topics: [&str; N]) -> Ev {
        self.topics = topics.iter().map(|t| t.to_string()).collect();
        self
    }

    pub fn by<const N: usize>(mut self, routes: [&str; N]) -> Ev {
        self.routes = routes.iter().map(|r| r.to_string()).collect();
        self
    }

    pub fn of_domain(mut self, domain: &str) -> Ev {
        self.domain = Some(domain.into());
        self
    }

    pub fn from(mut self, source: &str) -> Ev {
        self.source = source.into();
        self
    }

    pub fn date_of(&self) -> Option<Time> {
        // Any moment will do, as long as equal names are equal moments.
        self.date.as_ref().map(|name| at(1_000_000 + name.bytes().fold(0, |n, b| n * 256 + i64::from(b))))
    }

    /// (time, closes, id, source): a total order.
    pub fn rank(&self) -> (i64, bool, &str, &str) {
        (self.time, self.does == Does::Closes, &self.id, &self.source)
    }

    pub fn shares_topic(&self, other: &Ev) -> bool {
        self.topics.iter().any(|t| other.topics.contains(t))
    }

    pub fn entry(&self, role: &BTreeSet<String>) -> Entry {
        let topic = |name: &String| Topic::of(&["test", name]);
        let effect = match self.does {
            Does::Informs => Effect::Informs,
            Does::Opens => Effect::Opens { topic: topic(&self.topics[0]), date: self.date_of() },
            Does::Closes => Effect::Closes { topics: self.topics.iter().map(topic).collect() },
        };
        let (references, people) = match &self.to {
            To::People(names) => (names.clone(), names.clone()),
            To::Role => (vec![ROLE.to_owned()], role.iter().cloned().collect()),
            To::Unasked => (vec![], vec![]),
        };
        let mut data = serde_json::Map::new();
        if let Some(actor) = &self.actor {
            data.insert("actor".into(), actor.as_str().into());
        }
        let asked = self.routes.iter().map(|route| Asked {
            route: route.as_str().into(),
            references: references.clone(),
            people: people.iter().map(|p| person(p).into()).collect(),
            except: None,
        });
        let event = Event {
            source: self.source.clone(),
            id: self.id.clone(),
            id_counts_for: self.counts_for,
            kind: "test".into(),
            time: Some(at(self.time)),
            expiry: self.expiry,
            deadline: self.deadline,
            recipients: None,
            effect,
            subject_key: Some(self.topics.join(" ")),
            asker: None,
            domain: self.domain.clone(),
            data: (&data).into(),
        };
        Entry::Event(Box::new(Arrival {
            asked: asked.collect(),
            stale: self.stale.then(|| Box::new(refused(&self.id, RefusedReason::TooOld))),
            ..Arrival::new(event, at(self.time))
        }))
    }
}

pub fn refused(body: &str, reason: RefusedReason) -> Refused {
    let mut sha256 = [0; 32];
    for (to, from) in sha256.iter_mut().zip(body.bytes()) {
        *to = from;
    }
    Refused {
        source: "zms".into(),
        position: "line 1".into(),
        reason,
        detail: "too old".into(),
        body: body.as_bytes().to_vec(),
        bytes: body.len() as u64,
        sha256,
        headers: vec![],
        broker_id: None,
    }
}

pub fn person(principal: &str) -> Person {
    Person {
        principal: principal.into(),
        address: Some(format!("{principal}@example.com")),
        zone: None,
        language: None,
    }
}
