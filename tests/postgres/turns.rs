//! How often a transaction asks the server: it may be a millisecond away, and locks are held all the while.

use std::sync::Arc;

use owlpost::model::{Arrival, Asked, Effect, Entry, Time, Topic};
use owlpost::store::postgres::Postgres;
use owlpost::store::{Begun, Delivery as _, Intent};

use crate::postgres::Server;
use crate::store::{NOW, accept, ask, news, person, runtime, verified};
use crate::traffic::{accepted, intent};
use crate::unheard::behind;
use crate::wire::Wire;

/// More than any of these takes, and far less than one a row.
const FEW: usize = 80;

/// To everybody in a role.
fn asks(n: usize, people: usize) -> Entry {
    let Entry::Event(arrival) = news(format!("r{n}"), "nobody") else { unreachable!() };
    let people = (0..people).map(|n| Arc::new(person(&format!("user.a{n}")))).collect();
    let asked = Asked { route: "tell".into(), references: vec!["sports:role.admin".into()], people, except: None };
    Entry::Event(Box::new(Arrival { asked: vec![asked], ..*arrival }))
}

#[test]
fn a_begin_of_mails_to_a_large_role_asks_no_more_for_each_of_its_people() {
    const PEOPLE: usize = 20;
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    let turns = wire.turns();
    accept(&store, (0..40).map(|n| asks(n, PEOPLE)).collect()).unwrap();
    assert!(wire.turns() - turns < FEW, "{} turns for an intake", wire.turns() - turns);
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    assert_eq!(leased.len(), PEOPLE);
    // One has joined the role since.
    let now: Vec<_> = (0..=PEOPLE).map(|n| person(&format!("user.a{n}"))).collect();
    let intents: Vec<Intent> = leased
        .iter()
        .map(|one| {
            let audiences = one.audiences.iter().map(|named| (named.event_number, now.clone())).collect();
            Intent { audiences, ..intent(one) }
        })
        .collect();
    assert!(intents.iter().all(|one| one.audiences.len() == 40));
    let turns = wire.turns();
    let begun = runtime().block_on(store.begin(NOW, Arc::new(intents))).unwrap();
    assert!(begun.iter().all(|one| matches!(one, Begun::Send(contents) if contents.items.len() == 40)), "{begun:?}");
    assert!(wire.turns() - turns < FEW, "{} turns for a begin", wire.turns() - turns);
    verified(&store);
}

/// What the `n`th is about; `at` orders it.
pub fn speaks(id: String, at: i64, effect: Effect, people: &[String]) -> Entry {
    let Entry::Event(mut arrival) = news(id, "nobody") else { unreachable!() };
    (arrival.event.effect, arrival.time) = (effect, Time(NOW.0 + at));
    let people: Vec<_> = people.iter().map(|who| Arc::new(person(who))).collect();
    arrival.asked = vec![Asked { route: "tell".into(), references: vec![], people, except: None }];
    Entry::Event(arrival)
}

pub fn about(n: usize) -> Topic {
    Topic::of(&["test", &n.to_string()])
}

pub fn opens(n: usize, people: &[String]) -> Entry {
    speaks(format!("r{n}"), 0, Effect::Opens { topic: about(n), date: None }, people)
}

pub fn closes(n: usize) -> Entry {
    speaks(format!("d{n}"), 2, Effect::Closes { topics: vec![about(n)] }, &[])
}

/// The mails of all that is due are taken.
pub fn send_all(store: &Postgres) {
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    let begun = runtime().block_on(store.begin(NOW, Arc::new(leased.iter().map(intent).collect()))).unwrap();
    // What was closed meanwhile does not leave.
    let answer = |begun: &Begun| match begun {
        Begun::Send(contents) => Some(accepted(contents.attempt)),
        _ => None,
    };
    runtime().block_on(store.learn(NOW, Arc::new(begun.iter().filter_map(answer).collect()))).unwrap();
}

pub fn people(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("user.a{n}")).collect()
}

/// Decisions close what some were told of and others are not yet: those hear that it is handled, these nothing.
#[test]
fn decisions_ask_no_more_for_each_whom_they_concern() {
    const SUBJECTS: usize = 30;
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    let (told, untold) = (people(20), people(40));
    accept(&store, (0..SUBJECTS).map(|n| opens(n, &told)).collect()).unwrap();
    send_all(&store);
    accept(&store, (SUBJECTS..2 * SUBJECTS).map(|n| opens(n, &untold)).collect()).unwrap();
    let turns = wire.turns();
    accept(&store, (0..2 * SUBJECTS).map(closes).collect()).unwrap();
    assert!(wire.turns() - turns < FEW, "{} turns", wire.turns() - turns);
    let found = verified(&store);
    let (asked, notices) = (SUBJECTS * 60, SUBJECTS * 20);
    assert_eq!(found["items"], (asked + notices) as u64);
    assert_eq!((found["pending"], found["delivered"]), (notices as u64, notices as u64));
}

/// They were closed while their mails were on their way.
#[test]
fn answers_ask_no_more_for_each_who_hears_that_it_is_handled() {
    const SUBJECTS: usize = 30;
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    accept(&store, (0..SUBJECTS).map(|n| opens(n, &people(20))).collect()).unwrap();
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    let begun = runtime().block_on(store.begin(NOW, Arc::new(leased.iter().map(intent).collect()))).unwrap();
    accept(&store, (0..SUBJECTS).map(closes).collect()).unwrap();
    let answer = |begun: &Begun| match begun {
        Begun::Send(contents) => accepted(contents.attempt),
        other => panic!("it may leave, not {other:?}"),
    };
    let turns = wire.turns();
    runtime().block_on(store.learn(NOW, Arc::new(begun.iter().map(answer).collect()))).unwrap();
    assert!(wire.turns() - turns < FEW, "{} turns", wire.turns() - turns);
    let found = verified(&store);
    assert_eq!((found["delivered"], found["pending"]), ((SUBJECTS * 20) as u64, (SUBJECTS * 20) as u64));
}

/// The second twin of a topic, and all later ones.
#[test]
fn twins_ask_no_more_for_each_whom_they_concern() {
    const SUBJECTS: usize = 30;
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    let all = people(20);
    let twin = |n: usize, at: i64| {
        speaks(format!("e{n}.{at}"), at, Effect::Opens { topic: about(n), date: Some(Time(NOW.0 + 9)) }, &all)
    };
    accept(&store, (0..SUBJECTS).map(|n| twin(n, 0)).collect()).unwrap();
    for at in 1..4 {
        let turns = wire.turns();
        accept(&store, (0..SUBJECTS).map(|n| twin(n, at)).collect()).unwrap();
        assert!(wire.turns() - turns < FEW, "{} turns", wire.turns() - turns);
        let found = verified(&store);
        assert_eq!(found["pending"], (SUBJECTS * 20) as u64, "the others are replaced");
    }
}

#[test]
fn a_claim_from_thousands_that_are_as_urgent_asks_not_for_each() {
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    accept(&store, (0..2_000).map(|n| news(format!("n{n:04}"), "user.ann")).collect()).unwrap();
    let turns = wire.turns();
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    assert!(wire.turns() - turns < FEW, "{} turns", wire.turns() - turns);
    let begun = runtime().block_on(store.begin(NOW, Arc::new(leased.iter().map(intent).collect()))).unwrap();
    let Begun::Send(contents) = &begun[0] else { panic!("{begun:?}") };
    let ids: Vec<String> = contents.items.iter().map(|item| item.id.clone()).collect();
    assert_eq!(ids, (0..ids.len()).map(|n| format!("n{n:04}")).collect::<Vec<_>>(), "by rank");
}
