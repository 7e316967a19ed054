//! What heals: clocks that were wrong for a moment, rules that changed, rows that contradict themselves.

use std::sync::Arc;
use std::time::Duration;

use owlpost::store::{Answer, Begun, Command, Evidence, Learned};

use crate::bench::{DAY, Setup};
use crate::events::{To, decision, news, request};
use crate::oracle::DELIVERED;
use crate::world::{World, worlds};

const MINUTE: Duration = Duration::from_secs(60);

fn replan(w: &mut World) {
    let (now, mut cursor) = (w.now, 0);
    while let Some(next) = w.call(async |s| s.replan(now, cursor, 2).await).unwrap() {
        assert!(next > cursor, "it goes on");
        cursor = next;
    }
    w.check();
}

/// A retry, a doubt and a window of a clock that was a month ahead: a right one ends them as if they began now.
#[test]
fn a_clock_that_was_ahead_for_a_moment_blocks_nobody() {
    for mut w in worlds(Setup { window: MINUTE, ..Setup::default() }) {
        let right = w.now;
        w.pass(30 * DAY);
        w.accept_all(vec![news("b1").to(["bob"]), news("k1").to(["kim"])]);
        w.pass(MINUTE);
        let mails: Vec<_> = w.claim_all().iter().map(|leased| w.begun(leased)).collect();
        w.refused(&mails[0]);
        w.lost_unsent(&mails[1]);
        w.accept_all(vec![news("a1").to(["ann"]), news("c1").to(["cid"])]);
        w.now = right;
        w.restart();
        // A window is healed by what joins it, and by the plan anew of every start.
        w.accept(news("c2").to(["cid"]));
        w.pass(MINUTE);
        let mail = w.send();
        assert_eq!(mail.items.len(), 2);
        w.accepted(&mail);
        replan(&mut w);
        w.pass(MINUTE);
        let mail = w.send();
        w.accepted(&mail);
        assert_eq!(w.state("a1", "ann"), DELIVERED);
        w.doubt_ends();
        w.pass(DAY);
        assert_eq!(w.claim_all().len(), 2);
    }
}

/// It was given back, or hurried, and never called: it has its plan again.
#[test]
fn what_a_clock_that_was_ahead_gave_back_leaves_as_it_was_planned() {
    for mut w in worlds(Setup { window: MINUTE, ..Setup::default() }) {
        w.accept(news("n1"));
        let right = w.now;
        w.pass(30 * DAY);
        let leased = w.claim();
        w.release(&leased).unwrap();
        w.now = right;
        w.restart();
        w.pass(MINUTE);
        let mail = w.send();
        w.accepted(&mail);
        assert_eq!(w.state("n1", "ann"), DELIVERED);
    }
}

/// Events that a clock dated into the future do not keep the old ones behind them for ever.
#[test]
fn a_clock_that_was_ahead_for_a_moment_does_not_stop_the_purge() {
    for mut w in worlds(Setup::default()) {
        w.purged = true;
        let right = w.now;
        w.pass(1_000 * DAY);
        let ahead = (0..600).map(|i| {
            let mut event = news(&format!("ahead{i}"));
            event.to = To::Unasked;
            event.entry(&w.role)
        });
        let ahead = ahead.collect();
        w.accept_entries(ahead);
        w.now = right;
        w.accept(news("n1"));
        w.finish();
        w.pass(91 * DAY);
        w.purge();
        assert!(w.before.items.is_empty());
        assert_eq!(w.bench.rows("SELECT count(*) FROM event")[0][0].int(), 600);
    }
}

/// What a route holds no more leaves at its time; what an operator let go is not held again.
#[test]
fn a_changed_hold_counts_for_what_gathers_already() {
    for mut w in worlds(Setup { hold: true, window: MINUTE, ..Setup::default() }) {
        for who in ["ann", "bob", "kim"] {
            w.accept(news(who).to([who]));
        }
        w.change(|s| s.hold = false);
        assert!(w.claim_all().is_empty());
        replan(&mut w);
        assert!(w.claim_all().is_empty(), "its window is open yet");
        w.pass(MINUTE);
        assert_eq!(w.claim_all().len(), 3);
    }
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.accept(news("n1"));
        w.act(Command::Release { digest: None, route: None });
        replan(&mut w);
        w.send();
    }
}

/// A worker of another configuration, or of an older one, starts beside the one that has the route: what that one holds
/// stays held, and what it planned leaves when it was to leave.
#[test]
fn a_worker_without_the_route_neither_lets_go_nor_hurries_what_another_planned() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.accept(news("n1"));
        w.change(|s| (s.known, s.hold) = (false, false));
        w.restart();
        replan(&mut w);
        assert!(w.claim_all().is_empty(), "it is held");
        w.act(Command::Release { digest: None, route: None });
        let mail = w.send();
        w.accepted(&mail);
        assert_eq!(w.state("n1", "ann"), DELIVERED);
    }
    for mut w in worlds(Setup { window: 3 * MINUTE, ..Setup::default() }) {
        w.accept_all(vec![request("r1").about(["first"]), request("r2").about(["second"])]);
        w.pass(MINUTE);
        w.change(|s| (s.known, s.window) = (false, Duration::ZERO));
        w.restart();
        replan(&mut w);
        // One leaves the window, which is planned anew for that.
        w.accept(decision("d1").about(["first"]).at(5));
        assert!(w.claim_all().is_empty(), "its window is open yet");
        w.pass(2 * MINUTE);
        assert_eq!(w.claim_all().len(), 1);
    }
}

/// What a route does in doubt, a worker without it does not know: it leaves that to one that does, and where there is none
/// it sends nothing a second time, for that may have been promised.
#[test]
fn a_worker_without_the_route_sends_nothing_again_in_doubt() {
    for mut w in worlds(Setup { resend: false, grace: MINUTE, ..Setup::default() }) {
        w.accept(news("n1"));
        let mail = w.send();
        w.lost_sent(&mail);
        // It would, if the route were one that it has.
        w.change(|s| (s.known, s.resend) = (false, true));
        w.restart();
        w.pass(MINUTE);
        if w.bench.is_alone() {
            assert_eq!(w.expire().doubts_ended, 1, "nobody else could");
        } else {
            // Also at the end of a run to the end: it is another's.
            let now = w.now;
            assert_eq!(w.call(async |s| s.expire(now, true).await).unwrap().doubts_ended, 0);
            assert_eq!(w.call(async |s| s.under_way(now).await).unwrap(), 1, "for a moment it may be anybody's");
            w.pass(MINUTE);
            assert_eq!(w.expire().doubts_ended, 0, "for long");
            let now = w.now;
            assert_eq!(w.call(async |s| s.under_way(now).await).unwrap(), 0, "no run to the end waits for it");
            w.pass(DAY);
            assert_eq!(w.expire().doubts_ended, 1, "but not for ever");
        }
        assert!(w.claim_all().is_empty());
    }
    // The one that has the route ends it as that says.
    for mut w in worlds(Setup { resend: true, grace: MINUTE, ..Setup::default() }) {
        if w.bench.is_alone() {
            continue;
        }
        w.accept(news("n1"));
        let mail = w.send();
        w.lost_unsent(&mail);
        w.change(|s| s.known = false);
        w.restart();
        w.pass(MINUTE);
        assert_eq!(w.expire().doubts_ended, 0);
        w.change(|s| s.known = true);
        w.pass(MINUTE);
        assert_eq!(w.expire().doubts_ended, 1);
        w.retry_is_due();
        assert_eq!(w.claim_all().len(), 1);
    }
}

/// Two digests; the event behind the first is gone, which nothing but a damaged file can bring about.
fn half_broken(w: &mut World) {
    w.purged = true;
    w.accept(request("r1"));
    w.accept(news("n1").to(["bob"]));
}

/// One mail that can't begin, for whatever reason, holds up no other: it alone is lost, and tried again after its lease.
#[test]
fn a_mail_that_cannot_begin_holds_up_no_other() {
    for mut w in worlds(Setup::default()) {
        half_broken(&mut w);
        let leased = w.claim_all();
        w.bench.run("DELETE FROM event WHERE id = 'r1'");
        let (now, intents) = (w.now, Arc::new(leased.iter().map(|l| w.intent(l)).collect::<Vec<_>>()));
        let begun = w.call(async |s| s.begin(now, intents).await).unwrap();
        for (leased, begun) in leased.iter().zip(&begun) {
            match leased.recipient.as_str() {
                "ann" => assert_eq!(*begun, Begun::Lost),
                _ => assert!(matches!(begun, Begun::Send(_)), "{begun:?}"),
            }
        }
        let states =
            w.bench.rows("SELECT d.state FROM digest d JOIN mailbox m ON m.no = d.mailbox_no ORDER BY m.recipient");
        assert_eq!(states.iter().map(|row| row[0].int()).collect::<Vec<_>>(), [2, 3], "leased, sending");
    }
}

/// One answer that can't be taken holds up no other, and its doubt no other doubt.
#[test]
fn an_answer_that_cannot_be_taken_holds_up_no_other() {
    for mut w in worlds(Setup::default()) {
        half_broken(&mut w);
        let leased = w.claim_all();
        let mails: Vec<_> = leased.iter().map(|l| w.begun(l)).collect();
        w.bench.run("DELETE FROM event WHERE id = 'r1'");
        // Else a worker might settle it by what it knows from its begin.
        w.bench.run("UPDATE digest SET open = 2 WHERE mailbox_no = (SELECT no FROM mailbox WHERE recipient = 'ann')");
        let answer = |detail: &str| Answer::Retryable { detail: detail.into() };
        let evidence = mails.iter().map(|m| Evidence { attempt: m.attempt, answer: answer("451 later") }).collect();
        let (now, evidence) = (w.now, Arc::new(evidence));
        let mut learned = w.call(async |s| s.learn(now, evidence).await).unwrap();
        if leased[0].recipient != "ann" {
            learned.reverse();
        }
        assert_eq!(learned, [Learned::Unknown, Learned::Settled]);
        let states = "SELECT d.state FROM digest d JOIN mailbox m ON m.no = d.mailbox_no ORDER BY m.recipient";
        assert_eq!(w.bench.rows(states).iter().map(|row| row[0].int()).collect::<Vec<_>>(), [3, 4], "sending, waiting");
        // The other one is sent again, and its doubt ends, although the first's can't.
        w.pass(MINUTE);
        let leased = w.call(async |s| s.claim(w.now, &w.ask()).await).unwrap();
        let (now, intents) = (w.now, Arc::new(leased.iter().map(|l| w.intent(l)).collect::<Vec<_>>()));
        let begun = w.call(async |s| s.begin(now, intents).await).unwrap();
        assert!(matches!(begun[..], [Begun::Send(_)]), "{begun:?}");
        for _ in 0..3 {
            w.pass(DAY);
            let now = w.now;
            w.call(async |s| s.expire(now, false).await).unwrap();
        }
        assert_eq!(w.bench.rows(states).iter().map(|row| row[0].int()).collect::<Vec<_>>(), [5, 6], "in doubt, closed");
        let now = w.now;
        let next = w.call(async |s| s.next_upkeep().await).unwrap();
        assert!(next.is_some_and(|at| at > now), "nobody is woken for it at once");
    }
}

/// A paused route of any size holds up no other: what became due last leaves at once, what is hidden among the paused
/// ones after a few looks, each of which is bounded.
#[test]
fn many_paused_digests_hold_up_no_other() {
    for mut w in worlds(Setup::default()) {
        w.accept_all(vec![news("paused").by(["ask"]), news("hidden").to(["bob"])]);
        w.act(Command::Pause { route: Some("ask".into()) });
        // As many again and again as one claim steps over, before and behind the hidden one.
        for (first, due_at) in [(100_000, "due_at - 1"), (200_000, "due_at + 1")] {
            w.bench.run(&format!(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 24999) \
                 INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, until, \
                 attempts, waited_us, address, opened_at, closed_at, lane) SELECT {first} + i, mailbox_no, 4, priority, {due_at}, 1, first_at, last_at, NULL, 0, \
                 NULL, 0, 0, NULL, opened_at, NULL, lane FROM n, digest WHERE no = 1"
            ));
        }
        w.pass(MINUTE);
        w.accept_entries(vec![news("new").to(["kim"]).entry(&w.role)]);
        let leave = |w: &mut World| {
            let (now, ask) = (w.now, w.ask());
            let leased = w.call(async |s| s.claim(now, &ask).await).unwrap();
            leased.into_iter().map(|l| l.recipient).collect::<Vec<_>>()
        };
        assert_eq!(leave(&mut w), ["kim"]);
        let later: Vec<String> = (0..10).flat_map(|_| leave(&mut w)).collect();
        assert_eq!(later, ["bob"]);
        assert!(leave(&mut w).is_empty());
    }
}
