//! Any order, any copies, any batches: the same events come to the same items, states and digests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use crate::bench::Setup;
use crate::events::{Ev, decision, expiring, news, renewed, request};
use crate::oracle::{PENDING, WITHDRAWN};
use crate::world::{Key, World, some_worlds};

/// Few times, ids and sources, so that ties and copies are common.
fn event() -> impl Strategy<Value = Ev> {
    let id = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let people = prop::sample::select(vec![vec!["ann"], vec!["bob"], vec!["ann", "bob"]]);
    let topic = prop::sample::select(vec!["m/expiring", "m/review"]);
    (id, 0..8usize, 1..5i64, people, topic, prop::sample::select(vec!["A", "B"]), prop::bool::ANY).prop_map(
        |(id, kind, time, people, topic, date, other)| {
            let mut event = match kind {
                0 | 1 => request(id),
                2 => decision(id),
                3 | 4 => expiring(id, date).about([topic]),
                // An opener of a dated topic may come without its date.
                5 => request(id).about([topic]),
                6 => renewed(id),
                _ => news(id),
            };
            if event.does != crate::events::Does::Closes {
                event.to = crate::events::To::People(people.iter().map(|p| p.to_string()).collect());
            }
            event.at(time).from(if other { "s2" } else { "s1" })
        },
    )
}

/// 2 to 9 events with different keys, and several ways to hear of them.
fn history() -> impl Strategy<Value = (Vec<Ev>, Vec<Vec<usize>>)> {
    prop::collection::vec(event(), 2..10).prop_flat_map(|events| {
        let mut unique: BTreeMap<(String, String), Ev> = BTreeMap::new();
        for event in events {
            unique.insert((event.id.clone(), event.source.clone()), event);
        }
        let events: Vec<Ev> = unique.into_values().collect();
        let all: Vec<usize> = (0..events.len()).collect();
        let copies = prop::collection::vec(0..events.len(), 0..4);
        let order =
            copies.prop_flat_map(move |more| Just(all.iter().copied().chain(more).collect::<Vec<_>>()).prop_shuffle());
        let batches = order.prop_flat_map(|order| {
            let n = order.len();
            (Just(order), prop::collection::vec(1..4usize, n))
        });
        let batches = batches.prop_map(|(order, sizes)| {
            let (mut rest, mut batches) = (order.as_slice(), vec![]);
            for size in sizes {
                let (batch, more) = rest.split_at(size.min(rest.len()));
                batches.push(batch.to_vec());
                rest = more;
            }
            batches
        });
        (Just(events), batches)
    })
}

type End = (BTreeMap<Key, i64>, BTreeMap<(String, String), std::collections::BTreeSet<(String, String)>>);

fn hear(w: &mut World, events: &[Ev], batches: &[Vec<usize>]) -> End {
    for batch in batches.iter().filter(|b| !b.is_empty()) {
        w.accept_all(batch.iter().map(|i| events[*i].clone()).collect());
    }
    let states = w.before.items.iter().map(|(k, row)| (k.clone(), row.state)).collect();
    (states, w.before.windows())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_copies_and_batches_come_to_one_result((events, batches) in history()) {
        let straight: Vec<Vec<usize>> = (0..events.len()).map(|i| vec![i]).collect();
        let backward: Vec<Vec<usize>> = (0..events.len()).rev().map(|i| vec![i]).collect();
        let at_once = vec![(0..events.len()).collect::<Vec<_>>()];
        static TIMES: AtomicU64 = AtomicU64::new(0);
        let time = TIMES.fetch_add(1, Ordering::Relaxed);
        for mut first in some_worlds(Setup::default(), time) {
            let expected = hear(&mut first, &events, &straight);
            for (item, state) in &expected.0 {
                let over = first.truly_over(item, &first.before.items);
                prop_assert_eq!(*state, if over { WITHDRAWN } else { PENDING }, "withdrawn if and only if over: {:?}", item);
            }
            for way in [&batches, &backward, &at_once] {
                for mut other in some_worlds(Setup::default(), time) {
                    prop_assert_eq!(&hear(&mut other, &events, way), &expected, "heard as {:?}", way);
                }
            }
        }
    }
}
