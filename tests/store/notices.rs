//! Notices "already handled": to those who were, or may have been, told, and to nobody else.

use crate::bench::Setup;
use crate::events::{decision, request};
use crate::oracle::{DEAD, PENDING, WITHDRAWN};
use crate::world::worlds;

fn told(by: &str, who: &str) -> Vec<(String, String)> {
    vec![(by.to_owned(), who.to_owned())]
}

/// `notice_if_told`
#[test]
fn only_those_who_were_told_hear_that_it_is_handled() {
    for mut w in worlds(Setup::default()) {
        w.role.insert("bob".into());
        w.accept(request("r1"));
        let leased = w.claim_all();
        let anns = leased.iter().find(|l| l.recipient == "ann").unwrap();
        let mail = w.begun(anns);
        w.accepted(&mail);
        let mut decided = decision("d1");
        decided.actor = Some("bob".into());
        w.accept(decided);
        assert_eq!(w.notices(), told("d1", "ann"));
        w.accept(decision("d2").at(3));
        assert_eq!(w.notices().len(), 2, "each decision is told once");
        w.accept(decision("d0").at(0).from("older"));
        assert_eq!(w.notices().len(), 2);
    }
}

/// `notice_if_told`: who decided it needs no mail about it.
#[test]
fn who_decided_it_is_not_told_that_it_is_handled() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accepted(&mail);
        let mut decided = decision("d1");
        decided.actor = Some("ann".into());
        w.accept(decided);
        let notice = w.before.items.iter().find(|(k, _)| k.3 == "handled").unwrap().1;
        assert_eq!(notice.state, WITHDRAWN);
    }
}

/// `notice_if_told`: a mail that bounced, or that was never called, told nobody.
#[test]
fn whose_only_mail_did_not_arrive_is_not_told_that_it_is_handled() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accepted(&mail);
        w.bounced(&mail);
        w.accept(decision("d1"));
        assert!(w.notices().is_empty());
    }
    for mut w in worlds(Setup { resend: false, ..Setup::default() }) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lease_ends();
        w.doubt_ends();
        assert_eq!(w.state("r1", "ann"), DEAD);
        w.not_called(&mail);
        w.accept(decision("d1"));
        assert!(w.notices().is_empty());
    }
    // Two requests, one arrived: told of that one.
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let first = w.send();
        w.accepted(&first);
        w.accept(request("r2").at(2));
        let second = w.send();
        w.accepted(&second);
        w.bounced(&second);
        w.accept(decision("d1").at(3));
        assert_eq!(w.notices(), told("d1", "ann"));
    }
}

/// `notice_on_settlement`: the request is answered after a decision that came between two of them.
#[test]
fn a_notice_is_owed_when_a_call_ends_after_its_decision() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(decision("d1"));
        w.accept(request("r3").at(3));
        w.accepted(&mail);
        assert_eq!(w.notices(), told("d1", "ann"));
        assert_eq!(w.state("r3", "ann"), PENDING, "asked again after the decision");
        w.finish();
    }
}

/// A notice comes at the recipient's time of day, though no event of its route has said where they are.
#[test]
fn a_notice_knows_where_its_recipient_is() {
    for mut w in worlds(Setup::default()) {
        let mut entry = request("r1").entry(&w.role);
        if let owlpost::model::Entry::Event(arrival) = &mut entry {
            std::sync::Arc::make_mut(&mut arrival.asked[0].people[0]).zone = Some("Asia/Tokyo".into());
        }
        w.accept_entries(vec![entry]);
        w.history.push(request("r1"));
        w.check();
        let mail = w.send();
        w.accepted(&mail);
        w.accept(decision("d1"));
        let zones = w.bench.rows("SELECT zone FROM mailbox WHERE route = 'handled'");
        assert_eq!(zones[0][0].text(), "Asia/Tokyo");
    }
}

/// What an answer settles makes room for the notices that it owes.
#[test]
fn notices_take_the_places_of_what_they_are_about() {
    let limits = owlpost::store::Limits { open_items_per_recipient: 3, ..Setup::default().limits };
    for mut w in worlds(Setup { limits, ..Setup::default() }) {
        let topics = ["join", "leave", "rename"];
        w.accept_all((0..3).map(|n| request(&format!("r{n}")).about([topics[n]])).collect());
        let mail = w.send();
        assert_eq!(mail.items.len(), 3);
        w.accept_all((0..3).map(|n| decision(&format!("d{n}")).about([topics[n]]).at(5)).collect());
        w.accepted(&mail);
        let notices = (0..3).map(|n| w.state(&format!("d{n}"), "ann")).collect::<Vec<_>>();
        assert_eq!(notices, [PENDING; 3]);
    }
}

/// The bound on open items holds for notices as well.
#[test]
fn nobody_is_given_too_many_open_items_by_notices() {
    let mut setup = Setup::default();
    setup.limits.open_items_per_recipient = 1;
    for mut w in worlds(setup) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accepted(&mail);
        w.accept(request("o1").about(["leave"]));
        w.accept(decision("d1"));
        assert_eq!(w.notices(), told("d1", "ann"));
        assert_eq!(w.state("d1", "ann"), DEAD);
    }
}
