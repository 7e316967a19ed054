//! Answers, doubts and evidence: what is known of an attempt, in whichever order it comes.

use std::time::Duration;

use owlpost::model::{AttemptId, DigestId};
use owlpost::store::{Answer, Begun, Learned};

use crate::bench::Setup;
use crate::events::{decision, news, request};
use crate::oracle::{DEAD, DELIVERED, IN_DOUBT, PENDING, WITHDRAWN};
use crate::world::{Mail, worlds};

fn bury() -> Setup {
    Setup { resend: false, ..Setup::default() }
}

fn told(by: &str, who: &str) -> Vec<(String, String)> {
    vec![(by.to_owned(), who.to_owned())]
}

/// `intent`
#[test]
fn a_lease_that_ends_after_the_begin_is_a_doubt() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(decision("d1"));
        w.lease_ends();
        assert_eq!(w.state("r1", "ann"), IN_DOUBT);
        assert!(w.claim_all().is_empty());
        w.accepted(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
}

/// `intent`: a worker that died during a call leaves a doubt, one that died before leaves a retry.
#[test]
fn the_next_worker_takes_over_what_a_dead_one_left() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(news("n1"));
        w.claim();
        w.restart();
        assert_eq!((w.state("r1", "ann"), w.state("n1", "ann")), (IN_DOUBT, PENDING));
        let again = w.send();
        assert_eq!(again.attempt.number, 1);
        assert_ne!(again.attempt.digest, mail.attempt.digest);
    }
}

/// `ambiguous_is_doubt`
#[test]
fn a_lost_reply_is_a_doubt_and_no_retry() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        assert_eq!(w.lost_sent(&mail), Learned::Settled);
        assert_eq!(w.state("r1", "ann"), IN_DOUBT);
        w.retry_is_due();
        assert!(w.claim_all().is_empty());
    }
}

/// Doubt blocks only its digest.
#[test]
fn the_next_window_goes_on_beside_a_doubt() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lost_unsent(&mail);
        w.accept(news("n1").by(["ask"]));
        assert_eq!(w.send().items.len(), 1);
    }
}

/// `doubt_ends`
#[test]
fn a_doubt_that_nobody_settles_ends_in_a_second_mail() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let first = w.send();
        w.lost_unsent(&first);
        w.pass(Duration::from_secs(3_599));
        assert_eq!(w.expire().doubts_ended, 0);
        w.pass(Duration::from_secs(1));
        assert_eq!(w.expire().doubts_ended, 1);
        let ask = w.ask();
        assert_eq!(w.call(async |s| s.next_due(&ask).await).unwrap(), Some(w.now.plus(Duration::from_secs(10))));
        assert!(w.claim_all().is_empty(), "a server in trouble is not called again at once");
        w.pass(Duration::from_secs(10));
        let second = w.send();
        assert_eq!((second.attempt.digest, second.attempt.number), (first.attempt.digest, 2), "`same_digest`");
        w.accepted(&second);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
}

/// `doubt_ends`, for one that does not wait: `run --until-idle` ends all doubts.
#[test]
fn all_doubts_can_be_ended_at_once() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lost_unsent(&mail);
        let now = w.now;
        assert_eq!(w.call(async |s| s.expire(now, true).await).unwrap().doubts_ended, 1);
        w.check();
        assert_eq!(w.state("r1", "ann"), DEAD);
    }
}

/// `bury_keeps_promise`
#[test]
fn a_buried_doubt_is_never_sent_again() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.taken(&mail);
        w.lease_ends();
        w.doubt_ends();
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(12)));
        assert!(w.before.is_settled());
        w.accept(decision("d1"));
        assert_eq!(w.notices(), told("d1", "ann"), "they may have been told");
    }
}

/// `closure_after_doubt`
#[test]
fn what_was_decided_during_a_doubt_is_not_sent_again() {
    for setup in [Setup::default(), bury()] {
        for mut w in worlds(setup) {
            w.accept(request("r1"));
            let mail = w.send();
            w.accept(decision("d1"));
            w.lost_sent(&mail);
            assert_eq!(w.state("r1", "ann"), IN_DOUBT);
            w.doubt_ends();
            assert_eq!(w.state("r1", "ann"), WITHDRAWN);
            assert_eq!(w.notices(), told("d1", "ann"), "`notice_on_settlement`");
        }
    }
}

/// `closure_waits_for_call`: also what is decided when it is in doubt already.
#[test]
fn a_decision_leaves_what_is_in_doubt_to_the_evidence() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lost_sent(&mail);
        w.accept(decision("d1"));
        assert_eq!(w.state("r1", "ann"), IN_DOUBT);
        w.evidence(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        assert_eq!(w.notices(), told("d1", "ann"));
    }
}

/// `late_finish_counts`
#[test]
fn an_answer_that_comes_after_its_lease_counts() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.taken(&mail);
        w.lease_ends();
        assert_eq!(w.evidence(&mail), Learned::Settled);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        assert!(w.before.is_settled());
        assert_eq!(w.evidence(&mail), Learned::Known);
    }
    // A refusal too: it is certain, so the doubt is over.
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lease_ends();
        w.refused(&mail);
        assert_eq!(w.state("r1", "ann"), PENDING);
        w.retry_is_due();
        assert_eq!(w.send().attempt.number, 2);
    }
}

/// `evidence_corrects`
#[test]
fn evidence_of_a_delivery_corrects_what_was_final() {
    for mut w in worlds(bury()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.lost_sent(&mail);
        w.doubt_ends();
        assert_eq!(w.state("r1", "ann"), DEAD);
        w.evidence(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accept(decision("d1"));
        w.lost_sent(&mail);
        w.doubt_ends();
        assert_eq!(w.state("r1", "ann"), WITHDRAWN);
        w.evidence(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.retry_is_due();
        let second = w.send();
        w.accepted(&second);
        w.bounced(&second);
        assert_eq!(w.state("r1", "ann"), DEAD);
        w.evidence(&first);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
}

/// `evidence_stops_retry`
#[test]
fn evidence_of_a_delivery_stops_the_retry_and_voids_its_lease() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.taken(&mail);
        w.lease_ends();
        w.doubt_ends();
        w.retry_is_due();
        let leased = w.claim();
        w.evidence(&mail);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        assert!(w.before.is_settled());
        assert_eq!(w.begin(&leased), Begun::Lost);
        assert_eq!(w.mails.len(), 1);
    }
    // While it waits, and while the second call is under way.
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.evidence(&first);
        assert!(w.before.is_settled());
        w.accept(request("r2").about(["x"]));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.retry_is_due();
        let second = w.send();
        w.evidence(&first);
        assert_eq!(w.state("r2", "ann"), DELIVERED);
        w.refused(&second);
        assert!(w.before.is_settled());
    }
}

/// `evidence_by_attempt`
#[test]
fn evidence_settles_what_its_attempt_listed() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        w.accept(request("o1").about(["leave"]));
        let first = w.send();
        w.accept(decision("d1"));
        w.lost_sent(&first);
        w.doubt_ends();
        assert_eq!((w.state("r1", "ann"), w.state("o1", "ann")), (WITHDRAWN, PENDING));
        // The notice about r1 is due as well, in a digest of its own.
        w.retry_is_due();
        let leased = w.claim_all();
        let retry = leased.iter().find(|l| l.lease.digest == first.attempt.digest).unwrap();
        let second = w.begun(retry);
        assert_eq!(second.items.len(), 1);
        w.accepted(&second);
        assert_eq!((w.state("r1", "ann"), w.state("o1", "ann")), (WITHDRAWN, DELIVERED), "the second listed one");
        w.evidence(&first);
        assert_eq!((w.state("r1", "ann"), w.state("o1", "ann")), (DELIVERED, DELIVERED), "the first listed both");
    }
}

/// `bounce_wins`
#[test]
fn a_bounce_outranks_acceptance_in_every_order() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.taken(&mail);
        w.bounced(&mail);
        assert_eq!((w.state("r1", "ann"), w.before.items[&w.key("r1", "ann")].reason), (DEAD, Some(10)));
        assert_eq!(w.evidence(&mail), Learned::Known);
        assert_eq!(w.state("r1", "ann"), DEAD);
        assert_eq!(w.mails_sent(), 1, "it was sent all the same");
    }
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.accepted(&mail);
        w.bounced(&mail);
        assert_eq!(w.state("r1", "ann"), DEAD);
        assert_eq!(w.mails_sent(), 1);
    }
}

/// Refused is known for good: nothing that comes later makes it a delivery.
#[test]
fn what_was_certainly_not_sent_stays_so() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.refused(&mail);
        let answer = Answer::Ambiguous { detail: "late".into() };
        assert_eq!(w.learn(&mail, answer), Learned::Known);
        let stranger = AttemptId {
            digest: DigestId { store: mail.attempt.digest.store ^ 1, ..mail.attempt.digest },
            ..mail.attempt
        };
        let unknown = [stranger, AttemptId { number: 9, ..mail.attempt }];
        for attempt in unknown {
            let other = Mail { attempt, ..mail.clone() };
            assert_eq!(w.learn(&other, Answer::Failed { detail: String::new() }), Learned::Unknown);
        }
        assert_eq!(w.state("r1", "ann"), PENDING);
    }
}
