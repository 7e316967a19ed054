//! The last gates before a mail: suppression, addresses, the audience as it is now, the kill switch, templates.

use std::time::Duration;

use owlpost::store::{Answer, Ask, Begun, Command};

use crate::bench::Setup;
use crate::events::{Ev, To, decision, expiring, news, request};
use crate::oracle::{DEAD, DELIVERED, PENDING, SUPPRESSED, WITHDRAWN};
use crate::world::{World, worlds};

/// `suppression_last`
#[test]
fn who_is_suppressed_before_the_begin_is_not_mailed() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        w.suppress("ann");
        assert_eq!(w.begin(&leased), Begun::Empty);
        assert_eq!(w.state("r1", "ann"), SUPPRESSED);
        assert!(w.before.is_settled());
    }
}

/// The other gates: no address, and a domain that may not be mailed.
#[test]
fn who_has_no_address_or_a_foreign_one_is_not_mailed() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        let mut intent = w.intent(&leased);
        intent.recipient.address = None;
        assert_eq!(w.begin_with(&leased, intent), Begun::Empty);
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(2)));
        w.accept(request("o1").about(["leave"]));
        let leased = w.claim();
        let intent = owlpost::store::Intent { domain_allowed: false, ..w.intent(&leased) };
        assert_eq!(w.begin_with(&leased, intent), Begun::Empty);
        assert_eq!((w.state("o1", "ann"), w.before.items[&w.key("o1", "ann")].reason), (SUPPRESSED, Some(3)));
    }
}

/// The bound on open items holds for those who join later as well.
#[test]
fn nobody_is_given_too_many_open_items_by_joining() {
    let mut setup = Setup::default();
    setup.limits.open_items_per_recipient = 1;
    for mut w in worlds(setup) {
        w.accept(request("r1"));
        let leased = w.claim();
        w.accept(news("n1").to(["bob"]));
        w.role.insert("bob".into());
        w.begun(&leased);
        assert_eq!((w.state("r1", "bob"), w.before.items[&w.key("r1", "bob")].reason), (DEAD, Some(6)));
    }
}

/// `leavers`
#[test]
fn who_left_the_role_is_not_asked_any_more() {
    for mut w in worlds(Setup::default()) {
        w.role.insert("bob".into());
        w.accept(request("r1"));
        let leased = w.claim_all();
        w.role.remove("ann");
        let anns = leased.iter().find(|l| l.recipient == "ann").unwrap();
        assert_eq!(w.begin(anns), Begun::Empty);
        assert_eq!(w.state("r1", "ann"), SUPPRESSED);
        w.role.clear();
        let bobs = leased.iter().find(|l| l.recipient == "bob").unwrap();
        assert_eq!(w.begin(bobs), Begun::Empty);
        assert_eq!(w.state("r1", "bob"), DEAD, "nobody is left who could act");
    }
}

/// `joiners`
#[test]
fn who_joined_the_role_is_asked_too() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.accept(news("n1").by(["ask"]));
        let leased = w.claim();
        w.role.insert("bob".into());
        let mail = w.begun(&leased);
        assert_eq!(w.state("r1", "bob"), PENDING);
        assert!(
            !w.before.items.contains_key(&("n1".into(), "zms".into(), "bob".into(), "ask".into())),
            "news stay with those who had them"
        );
        w.accepted(&mail);
        let bobs = w.send();
        w.accept(decision("d1"));
        w.accepted(&bobs);
        assert_eq!(w.notices().len(), 2);
    }
}

/// `joiners`, `twin_replaces_own`: the item that a joiner gets replaces the older ones they have.
#[test]
fn who_joins_the_later_of_two_twins_loses_the_earlier() {
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1).to(["bob"]));
        let bobs = w.claim();
        w.accept(expiring("e2", "A").at(2));
        let leased = w.claim();
        w.role.insert("bob".into());
        w.begun(&leased);
        assert_eq!((w.state("e1", "bob"), w.state("e2", "bob")), (WITHDRAWN, PENDING));
        assert_eq!(w.begin(&bobs), Begun::Empty);
    }
}

/// `pause_at_begin`
#[test]
fn a_pause_stops_what_is_claimed_already_and_burns_nothing() {
    for mut w in worlds(Setup { attempts_max: 1, ..Setup::default() }) {
        w.accept(request("r1"));
        let leased = w.claim();
        w.pause();
        assert_eq!(w.begin(&leased), Begun::Paused);
        assert!(w.claim_all().is_empty());
        w.resume();
        let mail = w.send();
        assert_eq!(mail.attempt.number, 1);
        w.accepted(&mail);
    }
}

#[test]
fn whoever_watches_sees_that_somebody_has_paused() {
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.gauges().pauses, 0);
        w.pause();
        w.act(Command::Pause { route: Some("tell".into()) });
        assert_eq!(w.gauges().pauses, 2);
        w.resume();
        assert_eq!(w.gauges().pauses, 1, "a route that was paused by name stays so");
    }
}

/// Whoever is woken because nothing leaves is woken for what may leave; a pause of one route silences nothing else.
#[test]
fn the_oldest_that_is_due_is_of_what_no_pause_holds_back() {
    for mut w in worlds(Setup::default()) {
        assert_eq!(w.gauges().oldest_due_at, None);
        w.accept(news("n1").to(["ann"]).by(["stopped"]));
        let stopped = w.now;
        assert_eq!(w.gauges().oldest_due_at, Some(stopped));
        w.act(Command::Pause { route: Some("stopped".into()) });
        assert_eq!(w.gauges().oldest_due_at, None, "all that is due is paused");
        w.pass(Duration::from_secs(5));
        w.accept(news("n2").to(["bob"]));
        let told = w.now;
        w.pass(Duration::from_secs(5));
        w.accept(news("n3").to(["cat"]).by(["urgent"]));
        let urgent = w.now;
        assert_eq!(w.gauges().oldest_due_at, Some(told), "another route is late, whatever its priority");
        w.act(Command::Pause { route: Some("tell".into()) });
        assert_eq!(w.gauges().oldest_due_at, Some(urgent));
        w.pause();
        assert_eq!(w.gauges().oldest_due_at, None, "everything is paused");
        w.resume();
        w.act(Command::Resume { route: Some("stopped".into()) });
        assert_eq!(w.gauges().oldest_due_at, Some(stopped));
    }
}

/// A look has an end; what may leave and became due last is seen behind any number that may not.
#[test]
fn more_paused_digests_than_a_look_takes_hide_no_late_one() {
    let more = owlpost::store::Gauges::CAP as usize + 1;
    for mut w in worlds(Setup::default()) {
        // Past the model that looks at everything after each step.
        let put = |w: &mut World, event: Ev| w.accept_entries(vec![event.entry(&w.role)]);
        let people: Vec<String> = (0..more).map(|n| format!("p{n}")).collect();
        for some in people.chunks(500) {
            let to = To::People(some.to_vec());
            put(&mut w, Ev { to, ..news(&some[0]).by(["stopped"]) });
        }
        let pause = Command::Pause { route: Some("stopped".into()) };
        w.call(async |s| s.act(w.now, &pause).await).unwrap();
        assert_eq!(w.gauges().oldest_due_at, None);
        w.pass(Duration::from_secs(1));
        put(&mut w, news("late"));
        let late = w.now;
        w.pass(Duration::from_secs(3_600));
        put(&mut w, news("later").to(["bob"]));
        assert_eq!(w.gauges().oldest_due_at, Some(late));
    }
}

/// `pause_at_begin`: what waits behind the kill switch of one route does not keep the others waiting.
#[test]
fn a_paused_route_does_not_use_up_the_claims_of_the_others() {
    for everything in [false, true] {
        for mut w in worlds(Setup::default()) {
            for who in ["a", "b", "c"] {
                w.accept(news(who).to([who]).by(["stopped"]));
            }
            w.pass(Duration::from_secs(1));
            w.accept(news("n1"));
            w.act(Command::Pause { route: Some("stopped".into()) });
            let (now, ask) = (w.now, Ask { limit: 2, everything, ..w.ask() });
            let leased = w.call(async |s| s.claim(now, &ask).await).unwrap();
            assert_eq!(leased.iter().map(|l| l.route.as_str()).collect::<Vec<_>>(), ["tell"]);
        }
    }
}

/// Items that no template can show are dead, the others go again, and nothing is burned.
#[test]
fn an_item_that_cannot_be_rendered_does_not_hold_up_the_others() {
    for mut w in worlds(Setup { attempts_max: 1, ..Setup::default() }) {
        w.accept_all(vec![news("bad"), news("good")]);
        let leased = w.claim();
        let Begun::Send(contents) = w.begin(&leased) else { panic!("it may leave") };
        let bad = contents.items.iter().find(|i| i.id == "bad").unwrap().event_number;
        let mail = w.mails.last().unwrap().clone();
        w.learn(&mail, Answer::NotCalled { unrenderable: vec![bad], detail: "no such field".into() });
        assert_eq!((w.state("bad", "ann"), w.state("good", "ann")), (DEAD, PENDING));
        let again = w.send();
        w.accepted(&again);
        assert_eq!((w.state("bad", "ann"), w.state("good", "ann")), (DEAD, DELIVERED));
    }
}
