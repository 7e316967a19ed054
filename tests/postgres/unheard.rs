//! A begin whose commit got no answer: nothing was called, so it is no doubt, whether it is written or not.

use std::sync::Arc;

use owlpost::model::Time;
use owlpost::store::postgres::Postgres;
use owlpost::store::{Begun, Delivery as _, Leased, Opening, StoreError, Upkeep as _};

use crate::postgres::{Database, Server, Value};
use crate::process::until;
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};
use crate::traffic::{accepted, intent};
use crate::wire::{Cut, Wire};

pub fn behind(wire: &Wire, database: &Database) -> Arc<Postgres> {
    drop(open(database.url()));
    let url = format!("postgres://owlpost@127.0.0.1:{}/{}", wire.port(), database.name);
    try_open(settings(url, Opening::Worker)).unwrap()
}

fn begin(store: &Postgres, now: Time, leased: &[Leased]) -> Result<Vec<Begun>, StoreError> {
    runtime().block_on(store.begin(now, Arc::new(leased.iter().map(intent).collect())))
}

/// Two mails whose begin is cut off, and then what the delivery does with them; it goes on from the time that this gives.
fn cut_off(cut: Cut, then: impl FnOnce(&Postgres, &[Leased], bool) -> Time) {
    let written = cut == Cut::AfterCommit;
    let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
    let store = behind(&wire, &database);
    accept(&store, vec![news("n1", "ann"), news("n2", "bob")]).unwrap();
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    // What the begin draws its permits with goes through.
    wire.cut_after(1, cut);
    let why = begin(&store, NOW, &leased).unwrap_err();
    assert!(matches!(why, StoreError::Unavailable(_)) && wire.has_cut(), "{why:?}");
    let look = database.admin();
    let attempts = |what: &str| look.rows(&format!("SELECT count(*) FROM attempt WHERE {what}"));
    until("what is written", || (attempts("true") == [[Value::Int(if written { 2 } else { 0 })]]).then_some(()));
    let now = then(&store, &leased, written);
    // Nothing of it counts: not as a try, not as a doubt.
    let free = if written { 2 } else { 0 };
    assert_eq!(attempts("outcome = 1 AND free = 1"), [[Value::Int(free)]]);
    assert_eq!(attempts("outcome = 0"), [[Value::Int(0)]]);
    let leased = runtime().block_on(store.claim(now, &ask())).unwrap();
    if written {
        assert_eq!(leased.len(), 2, "it is due at once");
    }
    let begun = begin(&store, now, &leased).unwrap();
    let answers = begun.into_iter().filter_map(|one| match one {
        Begun::Send(mail) => Some(accepted(mail.attempt)),
        _ => None,
    });
    runtime().block_on(store.learn(now, Arc::new(answers.collect()))).unwrap();
    assert_eq!(verified(&store)["delivered"], 2);
    assert_eq!(attempts("outcome = 2"), [[Value::Int(2)]]);
    assert_eq!(runtime().block_on(store.under_way(now)).unwrap(), 0);
}

#[test]
fn a_begin_whose_commit_got_no_answer_is_looked_up_and_is_no_doubt() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        cut_off(cut, |store, leased, written| {
            let begun = until("the store again", || begin(store, NOW, leased).ok());
            if written {
                assert_eq!(begun, [Begun::Lost, Begun::Lost], "it was begun, and not called");
            } else {
                let sent = begun.into_iter().map(|one| match one {
                    Begun::Send(mail) if mail.attempt.number == 1 => accepted(mail.attempt),
                    other => panic!("nothing had happened: {other:?}"),
                });
                runtime().block_on(store.learn(NOW, Arc::new(sent.collect()))).unwrap();
            }
            NOW
        });
    }
}

#[test]
fn a_begin_without_an_answer_that_is_given_up_goes_back() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        cut_off(cut, |store, leased, _| {
            let leases: Vec<_> = leased.iter().map(|one| one.lease).collect();
            until("the store again", || runtime().block_on(store.release(NOW, Arc::new(leases.clone()))).ok());
            NOW
        });
    }
}

/// Nobody asks about it again, and its lease ends.
#[test]
fn a_begin_without_an_answer_that_is_forgotten_is_no_doubt_at_the_end_of_its_lease() {
    cut_off(Cut::AfterCommit, |store, _, _| {
        let over = NOW.plus(std::time::Duration::from_secs(100));
        let tidied = until("the store again", || runtime().block_on(store.expire(over, false)).ok());
        assert_eq!((tidied.leases_ended, tidied.doubts_ended), (2, 0));
        over
    });
}

/// Permits are drawn before the begin: nothing of it has happened.
#[test]
fn a_draw_of_permits_whose_commit_got_no_answer_begins_nothing() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
        let store = behind(&wire, &database);
        accept(&store, vec![news("n1", "ann")]).unwrap();
        let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
        wire.cut(cut);
        let why = begin(&store, NOW, &leased).unwrap_err();
        assert!(matches!(why, StoreError::Unavailable(_)) && wire.has_cut(), "{why:?}");
        assert_eq!(database.admin().rows("SELECT count(*) FROM attempt"), [[Value::Int(0)]]);
        let begun = until("the store again", || begin(&store, NOW, &leased).ok());
        assert!(matches!(&begun[..], [Begun::Send(mail)] if mail.attempt.number == 1), "{begun:?}");
    }
}

/// What the server was told and what it heard of are two things, for a settlement too: the answer is said again.
#[test]
fn an_answer_whose_commit_got_no_answer_counts_once() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let (database, wire) = (Server::shared().database(None), Wire::to(Server::shared().port()));
        let store = behind(&wire, &database);
        accept(&store, vec![news("n1", "ann")]).unwrap();
        let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
        let Begun::Send(mail) = begin(&store, NOW, &leased).unwrap().remove(0) else { panic!("it may leave") };
        let answer = Arc::new(vec![accepted(mail.attempt)]);
        wire.cut(cut);
        runtime().block_on(store.learn(NOW, answer.clone())).unwrap_err();
        until("the store again", || runtime().block_on(store.learn(NOW, answer.clone())).ok());
        assert_eq!(verified(&store)["delivered"], 1);
    }
}
