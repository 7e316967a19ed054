//! Refused input: one dead letter for the same input, open until it is discarded, and again when it comes again.

use owlpost::model::{Entry, Refused, RefusedReason};
use owlpost::store::Command;

use crate::bench::Setup;
use crate::events::refused;
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
