use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const VISIBLE: Duration = Duration::from_secs(30);
const ROOMY: Room = Room { messages: 100, bytes: 1_000_000 };

fn taken(n: usize, group: Option<&str>, bytes: usize) -> Taken {
    let message = Message {
        position: format!("queue q message {n}"),
        broker_id: Some(n.to_string()),
        headers: Vec::new(),
        body: vec![b'x'; bytes],
        time: None,
    };
    Taken { message, receipt: format!("r{n}"), group: group.map(str::to_owned), count: 1 }
}

fn held(now: Instant, groups: &[Option<&str>]) -> Held {
    let mut held = Held::default();
    let reserved = held.reserve(VISIBLE).unwrap();
    let taken = groups.iter().enumerate().map(|(n, group)| taken(n, *group, 10)).collect();
    held.add(now, &reserved, taken, VISIBLE);
    held
}

fn keys(of: &[(u64, String)]) -> Vec<u64> {
    of.iter().map(|(key, _)| *key).collect()
}

#[test]
fn what_is_held_is_bounded_in_messages_and_in_bytes() {
    let now = Instant::now();
    let mut held = Held::default();
    let mut calls = 0;
    while let Some(reserved) = held.reserve(VISIBLE) {
        held.add(now, &reserved, (0..10).map(|n| taken(n, None, 10)).collect(), VISIBLE);
        calls += 1;
    }
    assert_eq!(calls, MESSAGES_MAX / CALL_MESSAGES);
    let mut held = Held::default();
    let mut calls = 0;
    while let Some(reserved) = held.reserve(VISIBLE) {
        held.add(now, &reserved, (0..10).map(|n| taken(n, None, 1024 * 1024)).collect(), VISIBLE);
        calls += 1;
    }
    assert_eq!(calls, 2, "20 MiB are held, and another 10 are expected of the next call");
    let all = held.give(now, Room { messages: 100, bytes: usize::MAX }).unwrap().0;
    held.doom(&all);
    assert!(held.reserve(VISIBLE).is_some(), "what is committed takes no memory");
}

#[test]
fn calls_under_way_count_as_what_they_may_bring() {
    let mut held = Held::default();
    let under_way: Vec<Reserved> = std::iter::from_fn(|| held.reserve(VISIBLE)).collect();
    assert_eq!(under_way.len(), MESSAGES_MAX / CALL_MESSAGES);
    held.add(Instant::now(), &under_way[0], Vec::new(), VISIBLE);
    assert!(held.reserve(VISIBLE).is_some());
}

#[test]
fn a_refused_message_blocks_its_group_and_no_other() {
    let now = Instant::now();
    let mut held = held(now, &[Some("a"), Some("b"), Some("a"), Some("c")]);
    let (first, _) = held.give(now, Room { messages: 2, bytes: 10_000 }).unwrap();
    assert_eq!(first, [0, 1]);
    let later = now + Duration::from_secs(5);
    held.refuse(&first, later);
    assert_eq!(held.give(now, ROOMY).unwrap().0, [3]);
    assert!(held.give(now, ROOMY).is_none());
    assert_eq!(held.next_due(), Some(later));
    assert_eq!(held.give(later, ROOMY).unwrap().0, [0, 1, 2], "in their order");
}

#[test]
fn a_message_behind_one_that_waits_is_not_due_before_it() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut held = held(now, &[Some("a"), Some("a"), Some("b"), None]);
    let (all, _) = held.give(now, ROOMY).unwrap();
    // The second of a was refused first, for a shorter time: it waits for the first all the same.
    held.refuse(&all[1..2], now + second);
    held.refuse(&all[..1], now + second * 60);
    held.refuse(&all[2..3], now + second * 30);
    let later = now + second * 2;
    assert!(held.give(later, ROOMY).is_none());
    assert_eq!(held.next_due(), Some(now + second * 30), "a moment that is over would be looked at without a pause");
    assert_eq!(held.give(now + second * 30, ROOMY).unwrap().0, [2]);
    assert_eq!(held.next_due(), Some(now + second * 60));
    assert_eq!(held.give(now + second * 60, ROOMY).unwrap().0, [0, 1]);
    assert_eq!(held.next_due(), None);
}

#[test]
fn a_group_is_deleted_in_its_order_in_one_call_at_a_time() {
    let now = Instant::now();
    let mut held = held(now, &[Some("a"), Some("a"), Some("b"), Some("a")]);
    let (all, _) = held.give(now, ROOMY).unwrap();
    // The first of a is refused: nothing behind it is deleted.
    held.doom(&all[1..]);
    held.refuse(&all[..1], now);
    assert_eq!(keys(&held.begin_deletes(10)), [2]);
    held.forget(2);
    let (first, _) = held.give(now, ROOMY).unwrap();
    held.doom(&first);
    assert_eq!(keys(&held.begin_deletes(2)), [0, 1]);
    assert!(held.begin_deletes(10).is_empty(), "3 waits for the call under way");
    held.forget(0);
    held.delete_again(&[1]);
    assert_eq!(keys(&held.begin_deletes(10)), [1, 3]);
    held.forget(1);
    held.forget(3);
    assert!(held.is_empty() && held.groups.is_empty());
}

#[test]
fn what_is_held_is_hidden_for_longer_until_its_time_is_over() {
    let now = Instant::now();
    let mut held = held(now, &[None]);
    assert!(held.to_extend(now + Duration::from_secs(9), VISIBLE, 100).is_empty());
    let mut at = now + VISIBLE / 3;
    while let [(key, _)] = held.to_extend(at, VISIBLE, 100)[..] {
        held.extended(key, at, VISIBLE);
        at += VISIBLE / 3;
    }
    assert!(at - now >= hold_for(1, VISIBLE) && at - now < hold_for(1, VISIBLE) + VISIBLE);
    assert_eq!(held.expire(at).0, 0);
    assert_eq!(held.expire(at + VISIBLE).0, 1);
    assert!(held.is_empty());
}

#[test]
fn what_has_the_least_time_left_is_hidden_for_longer_first() {
    let now = Instant::now();
    let mut held = held(now, &[None; 4]);
    let at = now + VISIBLE / 3;
    // The first two have more time than those behind them.
    held.extended(0, at, VISIBLE);
    held.extended(1, at - Duration::from_secs(1), VISIBLE);
    let later = at + VISIBLE / 3;
    assert_eq!(keys(&held.to_extend(later, VISIBLE, 3)), [2, 3, 1]);
    assert_eq!(keys(&held.to_extend(later, VISIBLE, 100)), [2, 3, 1, 0]);
}

#[test]
fn what_is_behind_a_lost_message_of_a_group_goes_back() {
    let now = Instant::now();
    let mut held = held(now, &[Some("a"), Some("b"), Some("a"), None]);
    held.lost(0, now);
    let (over, back) = held.expire(now);
    assert_eq!((over, keys(&back)), (1, vec![2]));
    assert_eq!(held.give(now, ROOMY).unwrap().0, [1, 3]);
}

#[test]
fn a_batch_that_is_refused_when_others_have_it_keeps_its_place_until_it_is_let_go() {
    let now = Instant::now();
    let mut held = held(now, &[Some("a"), Some("a"), None]);
    let (all, _) = held.give(now, ROOMY).unwrap();
    held.lost(0, now);
    held.refuse(&all, now + VISIBLE);
    assert!(held.give(now, ROOMY).is_none(), "nothing of its group passes it");
    let (over, back) = held.expire(now);
    assert_eq!((over, keys(&back)), (1, vec![1]));
    assert_eq!(held.take_ready(), [(2, "r2".to_owned())]);
    assert!(held.is_empty() && held.groups.is_empty());
}

#[test]
fn while_the_store_is_away_ten_messages_find_out_whether_it_still_is() {
    let now = Instant::now();
    let mut held = held(now, &[None]);
    let (first, _) = held.give(now, ROOMY).unwrap();
    held.refuse(&first, now);
    assert!(held.reserve(VISIBLE).is_none());
    // The queue has it again.
    held.lost(0, now);
    assert_eq!(held.expire(now).0, 1);
    let canary = held.reserve(VISIBLE).unwrap();
    assert!(held.reserve(VISIBLE).is_none(), "one call at a time");
    held.add(now, &canary, vec![taken(1, None, 10)], VISIBLE);
    assert!(held.reserve(VISIBLE).is_none());
    let (second, _) = held.give(now, ROOMY).unwrap();
    held.doom(&second);
    assert!(held.reserve(VISIBLE).is_some(), "it is back");
}

#[test]
fn attributes_count_as_a_body_does() {
    let now = Instant::now();
    let mut held = Held::default();
    let mut calls = 0;
    while let Some(reserved) = held.reserve(VISIBLE) {
        let mut ten: Vec<Taken> = (0..10).map(|n| taken(n, None, 10)).collect();
        for one in &mut ten {
            one.message.headers = vec![("x".into(), "y".repeat(1024 * 1024))];
        }
        held.add(now, &reserved, ten, VISIBLE);
        calls += 1;
    }
    assert_eq!(calls, 2);
    assert_eq!(held.give(now, Room { messages: 10, bytes: 3 * 1024 * 1024 }).unwrap().0, [0, 1]);
}

#[test]
fn no_more_is_held_than_can_be_hidden_in_time() {
    let of = |seconds| messages_max(Duration::from_secs(seconds));
    assert_eq!((of(3), of(30), of(43_200)), (800, MESSAGES_MAX, MESSAGES_MAX));
}

#[test]
fn what_is_committed_stays_hidden_for_as_long_as_sqs_hides_a_message() {
    let (now, hour) = (Instant::now(), Duration::from_secs(3_600));
    let mut held = held(now, &[None]);
    let (all, _) = held.give(now, ROOMY).unwrap();
    held.doom(&all);
    let mut at = now + VISIBLE / 3;
    while let [(key, _)] = held.to_extend(at, VISIBLE, 100)[..] {
        held.extended(key, at, VISIBLE);
        at += VISIBLE / 3;
    }
    assert!(at - now > hour * 12 - VISIBLE && at - now <= hour * 12, "never past its end");
}

#[test]
fn what_is_held_when_the_queue_goes_is_not_left_to_it() {
    let now = Instant::now();
    let mut held = held(now, &[None]);
    let (all, _) = held.give(now, ROOMY).unwrap();
    held.refuse(&all, now);
    held.orphan();
    let later = now + VISIBLE * 2;
    assert_eq!(held.expire(later), (0, Vec::new()));
    assert_eq!(held.give(later, ROOMY).unwrap().0, [0]);
}

/// What may be done to the buffer, by whoever it is.
#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<Option<u8>>),
    Give(usize),
    /// The batch that was given first, of those that are out.
    Refuse(u64),
    Commit,
    Delete {
        most: usize,
        again: bool,
    },
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        proptest::collection::vec(proptest::option::of(0u8..3), 1..10).prop_map(Step::Receive),
        (1usize..8).prop_map(Step::Give),
        (0u64..20).prop_map(Step::Refuse),
        Just(Step::Commit),
        (1usize..10, any::<bool>()).prop_map(|(most, again)| Step::Delete { most, again }),
        (1u64..8).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Whatever is received, refused, committed and deleted when: a group is given out and deleted in its order, and who
    /// waits for something to give out is told a moment that is still to come.
    #[test]
    fn groups_keep_their_order_and_no_moment_is_waited_for_that_is_over(steps in steps()) {
        let mut now = Instant::now();
        let mut held = Held::default();
        let mut groups: Vec<Option<u8>> = Vec::new();
        let (mut out, mut waits, mut there) = (VecDeque::new(), BTreeSet::<u64>::new(), BTreeSet::<u64>::new());
        for step in steps {
            match step {
                Step::Receive(of) => {
                    let Some(reserved) = held.reserve(VISIBLE) else { continue };
                    let name = |group: Option<u8>| group.map(|g| g.to_string());
                    let taken = of.iter().map(|group| taken(1, name(*group).as_deref(), 10)).collect();
                    held.add(now, &reserved, taken, VISIBLE);
                    let from = groups.len() as u64;
                    groups.extend(of);
                    waits.extend(from..groups.len() as u64);
                    there.extend(from..groups.len() as u64);
                }
                Step::Give(messages) => {
                    let Some((keys, _)) = held.give(now, Room { messages, ..ROOMY }) else {
                        let due = held.next_due();
                        prop_assert!(due.is_none_or(|at| at > now), "{:?} is over", due);
                        continue;
                    };
                    for key in &keys {
                        waits.remove(key);
                        let group = groups[*key as usize];
                        let passed = waits.iter().find(|k| **k < *key && group.is_some() && groups[**k as usize] == group);
                        prop_assert_eq!(passed, None, "{} passes it", key);
                    }
                    out.push_back(keys);
                }
                Step::Refuse(seconds) => {
                    let Some(keys) = out.pop_front() else { continue };
                    held.refuse(&keys, now + Duration::from_secs(seconds));
                    waits.extend(keys);
                }
                Step::Commit => {
                    let Some(keys) = out.pop_front() else { continue };
                    held.doom(&keys);
                }
                Step::Delete { most, again } => {
                    for (key, _) in held.begin_deletes(most) {
                        let group = groups[key as usize];
                        let before = there.iter().find(|k| **k < key && group.is_some() && groups[**k as usize] == group);
                        // Those before it in the call are gone by then, or nothing of the call is.
                        prop_assert!(before.is_none() || again, "{key} is deleted before {before:?}");
                        if again {
                            held.delete_again(&[key]);
                        } else {
                            held.forget(key);
                            there.remove(&key);
                        }
                    }
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
        }
    }
}
