//! Refused input: one dead letter for the same input, open until it is discarded, and again when it comes again.

use std::sync::Arc;
use std::time::Duration;

use owlpost::model::{Entry, Refused, RefusedReason};
use owlpost::store::desk::LetterKind;
use owlpost::store::{Command, Condition, Fate, Letter, Portion};
use sha2::Digest as _;

use crate::bench::Setup;
use crate::events::{news, refused};
use crate::world::{World, worlds};

fn come(w: &mut World, refused: Refused) {
    w.accept_entries(vec![Entry::Refused(Box::new(refused))]);
}

/// Nobody has seen what came after a letter was discarded: it is shown again, and says what is wrong now.
#[test]
fn a_discarded_letter_that_comes_again_is_open_again() {
    for mut w in worlds(Setup::default()) {
        come(&mut w, refused("{", RefusedReason::NotJson));
        let first_at = w.now;
        assert_eq!(w.act(Command::Discard { ids: vec!["in-1".into()] }).changed, 1);
        let open = |w: &World| w.call(async |s| s.gauges(w.now).await).unwrap().dead_letters;
        assert_eq!(open(&w), 0);
        w.pass(crate::bench::DAY);
        let again =
            Refused { position: "line 7".into(), detail: "still bad".into(), ..refused("{", RefusedReason::TooOld) };
        come(&mut w, again);
        assert_eq!(open(&w), 1);
        let row = &w.bench.rows("SELECT position, reason, detail, first_at, count FROM dead_letter")[0];
        let texts: Vec<String> = row[..3].iter().map(|cell| cell.text()).collect();
        assert_eq!(texts, ["line 7", RefusedReason::TooOld.as_str(), "still bad"]);
        assert_eq!((row[3].int(), row[4].int()), (first_at.0, 2));
    }
}

/// In binary mode the event stands in the headers: equal bodies are other events.
#[test]
fn the_same_body_under_other_headers_is_another_dead_letter() {
    for mut w in worlds(Setup::default()) {
        for (id, broker) in [("e1", "0-1"), ("e2", "0-2"), ("e1", "0-3")] {
            let headers = [("ce-id", id), ("content-type", "application/json"), ("message-id", broker)];
            let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            come(&mut w, Refused { headers, ..refused("{}", RefusedReason::TooOld) });
        }
        let kept = w.bench.rows("SELECT count, headers FROM dead_letter ORDER BY no");
        let kept: Vec<(i64, String)> = kept.iter().map(|row| (row[0].int(), row[1].text())).collect();
        assert!(
            matches!(&kept[..], [(2, first), (1, second)] if first.contains("e1") && second.contains("e2")),
            "{kept:?}"
        );
    }
}

// ---- forwarding

fn waiting(w: &World) -> Vec<Letter> {
    w.call(async |s| s.unforwarded(Portion { letters: 100, bytes: usize::MAX }).await).unwrap()
}

fn ids(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|letter| letter.id.as_str()).collect()
}

fn settle(w: &mut World, fates: &[(&str, Fate)]) {
    let fates = fates.iter().map(|(id, fate)| ((*id).to_owned(), fate.clone())).collect();
    let now = w.now;
    w.call(async |s| s.forwarded(now, Arc::new(fates)).await).unwrap();
}

/// A letter may be nothing but headers.
#[test]
fn a_portion_counts_headers_as_it_counts_bodies() {
    for mut w in worlds(Setup::default()) {
        for text in ["a", "b", "c"] {
            let headers = vec![("ce-subject".to_owned(), text.repeat(600))];
            come(&mut w, Refused { headers, ..refused(text, RefusedReason::TooOld) });
        }
        let portion = Portion { letters: 100, bytes: 1_000 };
        let letters = w.call(async |s| s.unforwarded(portion).await).unwrap();
        assert_eq!(ids(&letters), ["in-1", "in-2"]);
    }
}

/// What is confirmed or refused for ever is not sent again, also when the same input comes again.
#[test]
fn a_letter_is_forwarded_once_however_often_it_comes() {
    for mut w in worlds(Setup::default()) {
        for text in ["a", "b", "c"] {
            come(&mut w, refused(text, RefusedReason::NotJson));
        }
        assert_eq!(ids(&waiting(&w)), ["in-1", "in-2", "in-3"], "in the order in which they came");
        settle(&mut w, &[("in-1", Fate::Forwarded), ("in-3", Fate::Refused("too large".into()))]);
        for text in ["a", "b", "c"] {
            come(&mut w, refused(text, RefusedReason::NotJson));
        }
        let left = waiting(&w);
        assert_eq!((ids(&left), left[0].count), (vec!["in-2"], 2));
        assert_eq!(w.gauges().unforwarded, 1);
        let said = w.bench.rows("SELECT forward_error FROM dead_letter WHERE no = 3")[0][0].text();
        assert_eq!(said, "too large");
    }
}

/// What somebody has discarded or replayed concerns nobody elsewhere, until it comes again.
#[test]
fn a_discarded_letter_is_not_forwarded() {
    for mut w in worlds(Setup::default()) {
        come(&mut w, refused("a", RefusedReason::NotJson));
        come(&mut w, refused("b", RefusedReason::NotJson));
        w.act(Command::Discard { ids: vec!["in-1".into()] });
        w.act(Command::Replayed { ids: vec!["in-2".into()] });
        assert_eq!((waiting(&w), w.gauges().unforwarded), (vec![], 0));
        come(&mut w, refused("a", RefusedReason::NotJson));
        assert_eq!(ids(&waiting(&w)), ["in-1"]);
    }
}

/// A portion is bounded in number and in bytes, and the longest letter still gets through.
#[test]
fn a_portion_of_what_waits_is_bounded() {
    for mut w in worlds(Setup::default()) {
        for text in ["aaaaaaaa", "bbbb", "cccc", "d"] {
            come(&mut w, refused(text, RefusedReason::NotJson));
        }
        let of = |w: &World, letters, bytes| {
            let portion = Portion { letters, bytes };
            w.call(async |s| s.unforwarded(portion).await).unwrap().len()
        };
        assert_eq!((of(&w, 2, 100), of(&w, 100, 1), of(&w, 100, 9), of(&w, 100, 100)), (2, 1, 2, 4));
    }
}

/// A dead item leaves with its event and says whom it was for; after a replay its next death is another one.
#[test]
fn a_dead_item_is_forwarded_with_its_event_once_for_each_death() {
    for mut w in worlds(Setup { attempts_max: 1, ..Setup::default() }) {
        w.accept(news("n1"));
        w.pass(w.setup().window);
        let mail = w.send();
        w.permanent(&mail);
        let letters = waiting(&w);
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!((letter.kind, letter.reason.as_str()), (LetterKind::Item, "permanent"));
        assert_eq!(letter.detail, "554 no");
        assert_eq!(letter.asked.as_ref().map(|(who, _)| who.as_str()), Some("ann"));
        let event: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
        assert_eq!((&event["id"], &event["specversion"]), (&"n1".into(), &"1.0".into()));
        assert_eq!(sha2::Sha256::digest(&letter.body).as_slice(), letter.sha256);
        settle(&mut w, &[(&letter.id, Fate::Forwarded)]);
        assert_eq!(waiting(&w), []);

        let item = w.before.items.keys().next().unwrap().clone();
        assert_eq!(w.replay(&item).changed, 1);
        assert_eq!(waiting(&w), [], "it lives");
        // An answer of the broker that comes only now is about the first death.
        settle(&mut w, &[(&letter.id, Fate::Forwarded)]);
        w.pass(w.setup().window);
        let mail = w.send();
        w.permanent(&mail);
        assert_eq!(ids(&waiting(&w)), [letter.id.as_str()]);
    }
}

/// What the worker says of its parts replaces what it said before. Where other workers tell of theirs, what nobody names any
/// more is forgotten after two minutes.
#[test]
fn a_report_replaces_the_one_before() {
    for mut w in worlds(Setup::default()) {
        let part = |name: &str, state| Condition {
            part: "source",
            name: name.to_owned(),
            state,
            detail: String::new(),
            lag: Some(3),
            since: w.now,
        };
        for parts in [vec![part("a", "ready"), part("b", "down")], vec![part("b", "ready")]] {
            w.call(async |s| s.report(w.now, Arc::new(parts)).await).unwrap();
            w.pass(Duration::from_secs(121));
        }
        let said = w.bench.rows("SELECT name, state, lag FROM condition");
        assert_eq!(said.len(), 1);
        assert_eq!((said[0][0].text().as_str(), said[0][1].text().as_str(), said[0][2].int()), ("b", "ready", 3));
    }
}
