//! What joined a window and was not looked at since stands in its tail (SQLite); nothing of that shows.

use crate::bench::{DAY, OnSqlite, Setup};
use crate::events::{Ev, at, decision, news, request};
use crate::oracle::{DELIVERED, WITHDRAWN};
use crate::world::{World, worlds};

/// Three wait, and the one in the middle is over.
fn three(w: &mut World) {
    for id in ["a", "b", "c"] {
        w.accept(request(id).about([id]));
    }
    w.accept(decision("d").about(["b"]));
    assert_eq!(w.state("b", "ann"), WITHDRAWN);
}

#[test]
fn what_was_decided_while_it_waited_is_not_in_the_mail_and_the_others_are() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        three(&mut w);
        w.finish();
        assert_eq!(["a", "b", "c"].map(|id| w.state(id, "ann")), [DELIVERED, WITHDRAWN, DELIVERED]);
    }
}

/// A window that is held for longer than the retention loses what is over and old, and nothing else.
#[test]
fn what_a_purge_takes_out_of_a_window_takes_nobody_along() {
    for mut w in worlds(Setup { hold: true, ..Setup::default() }) {
        three(&mut w);
        w.pass(100 * DAY);
        w.purge();
        let items = w.bench.rows("SELECT count(*) FROM item WHERE state <> 0")[0][0].int();
        assert_eq!(items, 0, "what is over and old is gone");
        w.accept(request("e").about(["e"]));
        w.finish();
        assert_eq!(["a", "c", "e"].map(|id| w.state(id, "ann")), [DELIVERED; 3]);
    }
}

/// `plan`: what leaves a window takes its deadline along, and the next one's counts.
#[test]
fn a_window_is_due_by_the_deadline_of_what_is_left_in_it() {
    for mut w in worlds(Setup { window: DAY, ..Setup::default() }) {
        for (id, deadline) in [("a", 7_200), ("b", 3_600), ("c", 10_800)] {
            w.accept(Ev { deadline: Some(at(deadline)), ..request(id).about([id]) });
        }
        let due = |w: &World| w.bench.rows("SELECT due_at FROM digest WHERE state = 0")[0][0].int();
        assert_eq!(due(&w), at(3_600).0);
        w.accept(decision("d").about(["b"]));
        assert_eq!(due(&w), at(7_200).0);
        w.accept(decision("e").about(["c"]));
        assert_eq!(due(&w), at(7_200).0);
        w.accept(decision("f").about(["a"]));
        assert_eq!(w.bench.rows("SELECT state FROM digest")[0][0].int(), 6, "nothing is left");
    }
}

/// As a file of schema 7 has them: what waits is in the index already, and what joins later is not.
#[test]
fn a_window_from_before_there_were_tails_leaves_with_all_that_is_in_it() {
    let mut w = World::on(Box::new(OnSqlite::new()), Setup { hold: true, ..Setup::default() });
    w.accept_all(vec![news("a"), news("b")]);
    w.bench.run(
        "UPDATE item SET digest_no = (SELECT p.digest_no FROM placed_item p WHERE p.event_no = item.event_no), \
         behind = NULL; UPDATE digest SET tail = NULL",
    );
    w.restart();
    w.accept_all(vec![news("c"), news("d")]);
    w.finish();
    assert_eq!(["a", "b", "c", "d"].map(|id| w.state(id, "ann")), [DELIVERED; 4]);
    assert_eq!(w.mails_sent(), 1);
}

/// Placing a tail is bounded, however many join a window that nobody looks at.
#[test]
fn a_window_that_nobody_looks_at_leaves_with_all_that_joined_it() {
    let mut w = World::on(Box::new(OnSqlite::new()), Setup { hold: true, max_listed: 5_000, ..Setup::default() });
    w.accept_all((0..2_500).map(|n| news(&format!("n{n}"))).collect());
    let tail = w.bench.rows("SELECT tail_items FROM digest")[0][0].int();
    assert_eq!(tail, 2_499 - 2 * 1_000, "the first is in the index, and twice a thousand came to it");
    w.finish();
    let states = w.bench.rows("SELECT state, count(*) FROM item GROUP BY state");
    assert_eq!(states.iter().map(|row| (row[0].int(), row[1].int())).collect::<Vec<_>>(), [(DELIVERED, 2_500)]);
    assert_eq!(w.mails_sent(), 1);
}

/// What a claim would hold up others for is the next one's.
#[test]
fn a_claim_of_many_large_windows_lets_others_have_their_turn() {
    let mut w = World::on(Box::new(OnSqlite::new()), Setup { max_listed: 5_000, ..Setup::default() });
    let people: [String; 22] = std::array::from_fn(|n| format!("p{n}"));
    w.accept_all((0..1_000).map(|n| news(&format!("n{n}")).to(people.each_ref().map(String::as_str))).collect());
    let tails = w.bench.rows("SELECT min(tail_items), max(tail_items) FROM digest");
    assert_eq!((tails[0][0].int(), tails[0][1].int()), (999, 999));
    assert_eq!([w.claim_all().len(), w.claim_all().len(), w.claim_all().len()], [21, 1, 0]);
}
