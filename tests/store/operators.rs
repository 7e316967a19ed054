//! Operators: hold and release, send-now, replay.

use std::time::Duration;

use owlpost::store::{Answer, Ask, Begun, Command};

use crate::bench::{DAY, Setup};
use crate::events::{decision, expiring, news, request};
use crate::oracle::{DEAD, DELIVERED, IN_DOUBT, PENDING, WITHDRAWN};
use crate::world::{Mail, worlds};

const MINUTE: Duration = Duration::from_secs(60);

/// A held digest gathers until somebody lets it go.
#[test]
fn a_held_digest_leaves_when_it_is_released() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        w.accept(request("r1"));
        w.accept(request("o1").about(["leave"]));
        w.accept(decision("d1").at(2));
        assert!(w.claim_all().is_empty());
        let released = w.act(Command::Release { digest: None, route: Some("other".into()) });
        assert_eq!(released.changed, 0);
        assert_eq!(w.act(Command::Release { digest: None, route: Some("ask".into()) }).changed, 1);
        assert_eq!(w.send().items.len(), 1);
    }
}

/// What comes after the release was not released, however long the mails of those before it take.
#[test]
fn what_comes_to_a_released_digest_waits_for_a_release_of_its_own() {
    for mut w in worlds(Setup { hold: true, max_listed: 2, ..Setup::default() }) {
        w.accept_all((1..=5).map(|n| news(&format!("n{n}"))).collect());
        assert_eq!(w.act(Command::Release { digest: None, route: None }).changed, 1);
        w.accept(news("n6"));
        let mut mails = vec![];
        for listed in [2, 2, 1] {
            mails.push(w.send());
            assert_eq!(mails.last().unwrap().items.len(), listed, "{}", w.story());
            w.accept(news(&format!("late{listed}")));
        }
        for mail in &mails {
            w.accepted(mail);
        }
        assert!(w.claim_all().is_empty());
        assert_eq!(
            (w.state("n5", "ann"), w.state("n6", "ann"), w.state("late1", "ann")),
            (DELIVERED, PENDING, PENDING)
        );
        assert_eq!(w.act(Command::Release { digest: None, route: None }).changed, 1);
        w.finish();
    }
}

/// The rest of what was released has its cadence; a run to the end waits for none.
#[test]
fn a_run_to_the_end_takes_all_of_a_released_digest() {
    for mut w in worlds(Setup { hold: true, max_listed: 2, window: DAY, ..Setup::default() }) {
        w.accept_all((1..=5).map(|n| news(&format!("n{n}"))).collect());
        w.act(Command::Release { digest: None, route: None });
        let all = Ask { everything: true, ..w.ask() };
        for listed in [2, 2, 1] {
            let now = w.now;
            let mut leased = w.call(async |s| s.claim(now, &all).await).unwrap();
            assert_eq!(leased.len(), 1, "{}", w.story());
            let mail = w.begun(&leased.remove(0));
            assert_eq!(mail.items.len(), listed);
            let left = w.call(async |s| s.left(now).await).unwrap();
            assert_eq!((left.is_due, left.retry_at), (listed == 2, None));
        }
        assert!(w.claim_all().is_empty());
    }
}

/// A day is the longest that a retry waits, but not what an operator let go, which keeps its cadence.
#[test]
fn the_rest_of_a_released_digest_is_no_retry() {
    for mut w in worlds(Setup { hold: true, max_listed: 2, window: 3 * DAY, ..Setup::default() }) {
        w.accept_all((1..=3).map(|n| news(&format!("n{n}"))).collect());
        w.act(Command::Release { digest: None, route: None });
        let mail = w.send();
        assert_eq!(mail.items.len(), 2);
        w.restart();
        w.pass(DAY + MINUTE);
        assert!(w.claim_all().is_empty(), "{}", w.story());
        w.pass(2 * DAY);
        w.send();
    }
}

/// Another digest of theirs that begins first keeps a gap to what follows, but not to what an operator hurried.
#[test]
fn what_is_hurried_stays_so_when_another_digest_begins_first() {
    for mut w in worlds(Setup { window: MINUTE, ..Setup::default() }) {
        w.accept(news("n1"));
        w.pass(MINUTE);
        let first = w.claim();
        w.accept(news("n2"));
        let window = w.before.digests.keys().copied().max().unwrap();
        assert_eq!(w.hurry(window).changed, 1);
        let mail = w.begun(&first);
        w.accepted(&mail);
        assert_eq!(w.send().items.len(), 1);
    }
}

/// `operator_minds_doubt`
#[test]
fn nothing_can_be_hurried_that_is_on_its_way_or_in_doubt() {
    for mut w in worlds(Setup { resend: false, ..Setup::default() }) {
        w.accept(request("r1"));
        let leased = w.claim();
        assert_eq!(w.send_now(&leased).changed, 0);
        let mail = w.begun(&leased);
        assert_eq!(w.send_now(&leased).changed, 0);
        w.lost_sent(&mail);
        let refused = w.send_now(&leased);
        assert_eq!((refused.changed, refused.refused.len()), (0, 1));
        assert_eq!(w.state("r1", "ann"), IN_DOUBT);
        assert!(w.claim_all().is_empty());
        w.evidence(&mail);
        assert_eq!(w.send_now(&leased).changed, 0);
    }
}

/// A retry can be hurried.
#[test]
fn a_waiting_digest_can_be_hurried() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let leased = w.claim();
        let mail = w.begun(&leased);
        w.refused(&mail);
        assert!(w.claim_all().is_empty());
        assert_eq!(w.send_now(&leased).changed, 1);
        w.send();
    }
}

/// `replay_same_item`
#[test]
fn a_replayed_item_is_the_same_item_in_a_new_digest() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.permanent(&mail);
        assert_eq!(w.state("r1", "ann"), DEAD);
        let item = w.key("r1", "ann");
        assert_eq!(w.replay(&item).changed, 1);
        assert_eq!(w.state("r1", "ann"), PENDING);
        assert_eq!(w.before.items.len(), 1);
        assert_eq!(w.replay(&item).changed, 0, "it is not dead any more");
        let again = w.send();
        assert_ne!(again.attempt.digest, mail.attempt.digest);
        w.accepted(&again);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
}

/// `replay_same_item`: it is in two mails that are on their way, and is settled once.
#[test]
fn a_replayed_item_is_settled_once_by_the_answers_of_both_mails_that_list_it() {
    let later = || Answer::Permanent { detail: "550 no".into() };
    let lost = || Answer::Ambiguous { detail: "connection reset".into() };
    for end in ["permanent", "doubt", "leases", "unrenderable"] {
        for mut w in worlds(Setup { attempts_max: 3, ..Setup::default() }) {
            w.accept_all(vec![news("bad"), news("good")]);
            let leased = w.claim();
            let Begun::Send(contents) = w.begin(&leased) else { panic!("it may leave") };
            let bad = contents.items.iter().find(|i| i.id == "bad").unwrap().event_number;
            let first = w.mails.last().unwrap().clone();
            w.learn(&first, Answer::NotCalled { unrenderable: vec![bad], detail: "no such field".into() });
            let item = w.key("bad", "ann");
            assert_eq!(w.replay(&item).changed, 1);
            w.retry_is_due();
            let leased = w.claim_all();
            assert_eq!(leased.len(), 2, "{}", w.story());
            let mails: Vec<Mail> = leased.iter().map(|l| w.begun(l)).collect();
            let answers = |answer: &dyn Fn() -> Answer| vec![(&mails[0], answer()), (&mails[1], answer())];
            match end {
                "permanent" => w.learn_unsent(&answers(&later)),
                "doubt" => w.learn_unsent(&answers(&lost)),
                "unrenderable" => {
                    let all = || Answer::NotCalled { unrenderable: vec![bad], detail: "no such field".into() };
                    w.learn_unsent(&answers(&all));
                }
                _ => w.lease_ends(),
            }
            w.finish();
        }
    }
}

/// `replay_same_item`: it is still what its subject says.
#[test]
fn a_replayed_item_that_is_over_by_now_is_withdrawn() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let mail = w.send();
        w.permanent(&mail);
        w.accept(decision("d1"));
        let item = w.key("r1", "ann");
        assert_eq!(w.replay(&item).changed, 1);
        assert_eq!(w.state("r1", "ann"), WITHDRAWN);
        assert!(w.claim_all().is_empty());
    }
    // Decided after the replay: the topic's walk was over that item already.
    for mut w in worlds(Setup::default()) {
        w.accept(expiring("e1", "A").at(1).to(["ann"]));
        let mail = w.send();
        w.permanent(&mail);
        for (i, who) in ["bob", "kim", "lee"].iter().enumerate() {
            w.accept(expiring(who, "A").at(2 + i as i64).to([who]));
        }
        w.finish();
        w.accept(expiring("lower", "B").at(0).to(["zoe"]));
        let item = w.key("e1", "ann");
        assert_eq!(w.replay(&item).changed, 1);
        w.accept(decision("d1").at(9).about(["m/expiring"]));
        assert_eq!(w.state("e1", "ann"), WITHDRAWN);
    }
}

/// `replay_same_item`, `twin_replaces_own`: also an item for an audience that is nobody.
#[test]
fn a_replayed_item_for_nobody_is_withdrawn_if_a_twin_came() {
    for mut w in worlds(Setup::default()) {
        w.role.clear();
        w.accept(expiring("e1", "A").at(1));
        w.accept(expiring("e2", "A").at(2));
        let [old, new] = ["e1", "e2"].map(|id| w.key(id, crate::events::ROLE));
        w.replay(&old);
        assert_eq!(w.state("e1", crate::events::ROLE), WITHDRAWN);
        w.role.insert("ann".into());
        w.replay(&new);
        let leased = w.claim();
        assert_eq!(w.begin(&leased), Begun::Empty);
        assert_eq!(w.state("e2", "ann"), PENDING, "the audience is somebody again");
    }
}

/// `evidence_by_attempt`, `evidence_corrects`: what is learned of the first mail is true of the item wherever it is now.
#[test]
fn evidence_of_the_first_mail_ends_the_replay() {
    for mut w in worlds(Setup { resend: false, ..Setup::default() }) {
        w.accept(request("r1"));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        let item = w.key("r1", "ann");
        w.replay(&item);
        let leased = w.claim();
        w.evidence(&first);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
        assert!(!matches!(w.begin(&leased), Begun::Send(_)));
        assert!(w.before.is_settled());
    }
}

/// The same while the second mail is on its way: what it listed when it began is not what is left of it.
#[test]
fn evidence_of_the_first_mail_counts_while_the_second_is_on_its_way() {
    for refused in [true, false] {
        for mut w in worlds(Setup { resend: false, ..Setup::default() }) {
            w.accept(request("r1"));
            let first = w.send();
            w.lost_sent(&first);
            w.doubt_ends();
            let item = w.key("r1", "ann");
            w.replay(&item);
            let second = w.send();
            w.evidence(&first);
            assert_eq!(w.state("r1", "ann"), DELIVERED);
            if refused {
                w.refused(&second)
            } else {
                w.accepted(&second)
            };
            assert_eq!(w.state("r1", "ann"), DELIVERED);
            assert!(w.before.is_settled() && w.claim_all().is_empty());
        }
    }
}

/// `replay_minds_call`
#[test]
fn an_item_in_a_mail_on_its_way_cannot_be_replayed() {
    for mut w in worlds(Setup { attempts_max: 3, ..Setup::default() }) {
        w.accept(request("r1"));
        w.accept(news("n1").by(["ask"]));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.retry_is_due();
        let second = w.send();
        w.evidence(&first);
        w.bounced(&first);
        assert_eq!(w.state("r1", "ann"), DEAD, "delivered, as far as was known");
        let item = w.key("r1", "ann");
        let refused = w.replay(&item);
        assert_eq!((refused.changed, refused.refused.len()), (0, 1));
        w.accepted(&second);
        assert_eq!(w.state("r1", "ann"), DELIVERED);
    }
    // In doubt as well.
    for mut w in worlds(Setup { attempts_max: 3, ..Setup::default() }) {
        w.accept(request("r1"));
        w.accept(news("n1").by(["ask"]));
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.retry_is_due();
        let second = w.send();
        w.evidence(&first);
        w.bounced(&first);
        w.lost_sent(&second);
        assert_eq!(w.state("r1", "ann"), DEAD);
        w.finish();
    }
}

/// `evidence_by_attempt`: a mail that did not list the item says nothing about it.
#[test]
fn a_later_mail_that_did_not_list_a_replayed_item_leaves_it_alone() {
    let ways = [true, false].map(|bounces| worlds(Setup::default()).into_iter().map(move |w| (w, bounces)));
    for (mut w, bounces) in ways.into_iter().flatten() {
        w.accept_all(vec![news("bad"), news("good")]);
        let leased = w.claim();
        let Begun::Send(contents) = w.begin(&leased) else { panic!("it may leave") };
        let unrenderable = contents.items.iter().filter(|i| i.id == "bad").map(|i| i.event_number).collect();
        let first = w.mails.last().unwrap().clone();
        w.learn(&first, Answer::NotCalled { unrenderable, detail: "no such field".into() });
        let second = w.send();
        let bad = w.key("bad", "ann");
        assert_eq!(w.replay(&bad).changed, 1, "no mail that lists it is on its way");
        w.taken(&second);
        if bounces {
            w.bounced(&second);
            assert_eq!((w.state("bad", "ann"), w.state("good", "ann")), (PENDING, DEAD));
        } else {
            let third = w.send();
            w.evidence(&second);
            w.taken(&third);
            w.bounced(&third);
            assert_eq!((w.state("bad", "ann"), w.state("good", "ann")), (DEAD, DELIVERED));
        }
    }
}

/// `evidence_by_attempt`: what was delivered before a mail began is not listed by it.
#[test]
fn a_mail_without_what_was_delivered_before_says_nothing_about_it() {
    let window = Duration::from_secs(60);
    for mut w in worlds(Setup { resend: false, window, ..Setup::default() }) {
        w.accept(request("r1"));
        w.pass(window);
        let first = w.send();
        w.lost_sent(&first);
        w.doubt_ends();
        w.accept(news("n1").by(["ask"]));
        let item = w.key("r1", "ann");
        assert_eq!(w.replay(&item).changed, 1);
        w.evidence(&first);
        assert_eq!(w.state("r1", "ann"), DELIVERED, "in the window that still gathers");
        w.pass(window);
        let second = w.send();
        w.accepted(&second);
        let listed = "SELECT e.id FROM item i JOIN event e ON e.no = i.event_no \
                      WHERE i.digest_no = 2 AND (i.left_before IS NULL OR i.left_before > 1)";
        let listed: Vec<String> = w.bench.rows(listed).iter().map(|row| row[0].text()).collect();
        assert_eq!(listed, ["n1"]);
        w.bounced(&first);
        assert_eq!((w.state("r1", "ann"), w.state("n1", "ann")), (DEAD, DELIVERED));
    }
}

/// `nobody_is_dead`: news for an audience that was nobody reach those who are in it when an operator sends them again.
#[test]
fn replayed_news_for_nobody_reach_who_is_there_now() {
    for mut w in worlds(Setup::default()) {
        w.role.clear();
        w.accept(news("n1"));
        let item = w.key("n1", crate::events::ROLE);
        w.role.extend(["ann".to_owned(), "bob".to_owned()]);
        w.replay(&item);
        let leased = w.claim();
        assert_eq!(w.begin(&leased), Begun::Empty);
        assert_eq!((w.state("n1", "ann"), w.state("n1", "bob")), (PENDING, PENDING));
        // Of those, nobody passes them on any further.
        w.role.insert("kim".into());
        w.finish();
        assert_eq!(w.before.items.len(), 3);
    }
}

/// The bound on open items holds for what an operator sends again as well.
#[test]
fn nobody_is_given_too_many_open_items_by_a_replay() {
    let mut setup = Setup { window: Duration::from_secs(60), ..Setup::default() };
    setup.limits.open_items_per_recipient = 2;
    for mut w in worlds(setup) {
        w.accept_all(vec![news("n1"), news("n2")]);
        w.pass(Duration::from_secs(60));
        let mail = w.send();
        w.permanent(&mail);
        w.accept(news("n3"));
        let ids: Vec<String> = ["n1", "n2"].iter().map(|id| w.before.items[&w.key(id, "ann")].id.clone()).collect();
        let report = w.act(Command::ReplayItems { ids });
        assert_eq!(report.changed, 1);
        assert!(report.refused[0].contains("open_items_per_recipient"), "{report:?}");
        assert_eq!((w.state("n1", "ann"), w.state("n2", "ann")), (PENDING, DEAD));
    }
}

/// What is not there, not dead, or not an id is refused, each with its reason; the others of the command go on.
#[test]
fn a_command_says_what_it_did_not_do() {
    for mut w in worlds(Setup::default()) {
        w.accept(request("r1"));
        let ids = vec!["it-1-1".to_owned(), "it-99-1".to_owned(), "in-5".to_owned(), "it-1-".to_owned()];
        let report = w.act(Command::ReplayItems { ids });
        assert_eq!((report.changed, report.refused.len()), (0, 4));
        for digest in ["", "0-0", "00000000-1", "ffffffff-zz"] {
            let report = w.act(Command::SendNow { digest: digest.into() });
            assert_eq!((report.changed, report.refused.len()), (0, 1));
            let report = w.act(Command::Release { digest: Some(digest.into()), route: None });
            assert_eq!((report.changed, report.refused.len()), (0, 1));
        }
        assert_eq!(w.act(Command::Discard { ids: vec!["it-1-1".into()] }).refused.len(), 1);
    }
}
