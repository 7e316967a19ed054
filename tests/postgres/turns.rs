//! How often a transaction asks the server: it may be a millisecond away, and locks are held all the while.

use std::sync::Arc;

use owlpost::model::{Arrival, Asked, Entry};
use owlpost::store::{Begun, Delivery as _, Intent};

use crate::postgres::Server;
use crate::store::{NOW, accept, ask, news, person, runtime, verified};
use crate::traffic::intent;
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
