use proptest::prelude::*;

use super::*;

#[test]
fn nothing_is_committed_before_something_is_settled() {
    let mut progress = Progress::new(1);
    assert_eq!(progress.to_commit(), None);
    progress.had(5);
    assert_eq!(progress.read(5), Ok(5));
    assert_eq!(progress.read(6), Ok(6));
    assert_eq!(progress.to_commit(), None);
    progress.settle(5, 6);
    assert_eq!(progress.to_commit(), Some(6));
    progress.commits(6);
    assert_eq!(progress.to_commit(), None);
}

#[test]
fn an_end_behind_markers_is_committed_only_once_everything_before_it_is_settled() {
    let mut progress = Progress::new(1);
    progress.had(0);
    assert_eq!(progress.read(0), Ok(0));
    assert_eq!(progress.reached(3), Ok(()));
    assert_eq!(progress.to_commit(), None);
    assert!(!progress.is_at_end());
    progress.settle(0, 1);
    assert_eq!(progress.to_commit(), Some(3));
    assert!(progress.is_at_end());
}

#[test]
fn what_comes_behind_the_goal_of_a_run_is_neither_read_nor_committed() {
    let mut progress = Progress::new(1);
    progress.set_goal(5);
    assert!(!progress.leaves(2));
    assert_eq!(progress.read(2), Ok(2));
    assert!(progress.leaves(5) && progress.leaves(6), "3 and 4 are markers");
    assert!(!progress.is_at_end(), "2 is out");
    // The end is where the log ends by now.
    assert_eq!(progress.reached(9), Ok(()));
    progress.settle(2, 3);
    assert!(progress.is_at_end());
    assert_eq!(progress.to_commit(), Some(5));
    // Nothing but what came later.
    let mut progress = Progress::new(1);
    progress.set_goal(5);
    progress.had(5);
    assert!(progress.leaves(5));
    assert_eq!((progress.is_at_end(), progress.to_commit()), (true, None));
}

#[test]
fn a_log_that_has_begun_again_is_read_whatever_goal_there_was() {
    for anew in [Progress::anew, |progress: &Progress, epoch| {
        let mut other = progress.anew(epoch);
        assert_eq!(other.reached(7), Ok(()));
        other
    }] {
        let mut progress = Progress::new(1);
        progress.set_goal(5);
        let mut progress = anew(&progress, 2);
        assert!(!progress.leaves(8));
        assert_eq!(progress.read(8), Ok(progress.settled().unwrap_or(8)));
    }
}

#[test]
fn a_partition_with_nothing_but_markers_is_committed_to_its_end() {
    let mut progress = Progress::new(1);
    assert_eq!(progress.reached(4), Ok(()));
    assert_eq!(progress.to_commit(), Some(4));
}

#[test]
fn a_log_that_begins_again_is_told() {
    let mut progress = Progress::new(1);
    progress.read(10).unwrap();
    assert_eq!(progress.read(3), Err(Rewound));
    assert_eq!(progress.reached(3), Err(Rewound));
}

#[test]
fn where_a_group_begins_is_said_at_once_unless_it_has_that() {
    let mut progress = Progress::new(1);
    progress.read(7).unwrap();
    assert_eq!((progress.to_commit(), progress.last_commit()), (Some(7), Some(7)));
    progress.had(7);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
    // Out of range, say.
    let mut elsewhere = Progress::new(1);
    elsewhere.had(3);
    elsewhere.read(7).unwrap();
    assert_eq!(elsewhere.to_commit(), Some(7));
}

#[test]
fn a_log_that_begins_again_does_not_keep_the_offset_of_the_one_before_it() {
    let mut progress = Progress::new(1);
    progress.had(9);
    progress.read(9).unwrap();
    progress.settle(9, 10);
    progress.commits(10);
    progress.is_committed(10);
    for mut again in [progress.anew(2), progress.over(2)] {
        again.read(0).unwrap();
        assert_eq!((again.to_commit(), again.last_commit(), again.is_heard()), (Some(0), Some(0), false));
        // The answer to a commit of before.
        again.is_committed(10);
        assert_eq!(again.to_commit(), Some(0));
    }
}

#[test]
fn a_commit_that_is_heard_after_a_later_one_does_not_stay_the_last() {
    let mut progress = Progress::new(1);
    progress.had(0);
    for offset in 0..2 {
        progress.read(offset).unwrap();
        progress.settle(offset, offset + 1);
        progress.commits(offset + 1);
    }
    // The first waited for the group's coordinator.
    progress.is_committed(2);
    assert!(progress.is_heard());
    progress.is_committed(1);
    assert_eq!((progress.to_commit(), progress.is_heard()), (Some(2), false), "the partition may be idle from now on");
    progress.commits(2);
    progress.is_committed(2);
    assert_eq!((progress.to_commit(), progress.is_heard()), (None, true));
    // In their order.
    progress.read(2).unwrap();
    progress.settle(2, 3);
    progress.commits(3);
    progress.read(3).unwrap();
    progress.settle(3, 4);
    progress.commits(4);
    progress.is_committed(3);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(4)));
}

#[test]
fn a_failed_commit_is_said_again() {
    let mut progress = Progress::new(1);
    progress.had(0);
    progress.read(0).unwrap();
    progress.settle(0, 1);
    progress.commits(1);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(1)));
    assert!(!progress.is_heard());
    progress.commit_failed(1);
    assert_eq!(progress.to_commit(), Some(1));
    progress.commits(1);
    progress.is_committed(1);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
    assert!(progress.is_heard());
}

#[test]
fn a_failed_commit_neither_undoes_a_later_one_nor_commits_where_reading_began() {
    let mut progress = Progress::new(1);
    progress.had(5);
    progress.read(5).unwrap();
    progress.commit_failed(5);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, None));
    progress.settle(5, 6);
    progress.commits(6);
    progress.read(6).unwrap();
    progress.settle(6, 7);
    progress.commits(7);
    progress.commit_failed(6);
    assert_eq!((progress.to_commit(), progress.last_commit()), (None, Some(7)));
}

proptest! {
    /// Any gaps, any batches, settled in any order, ends anywhere: what may be committed is exactly the end of the
    /// settled messages without one missing, and all of it in the end.
    #[test]
    fn what_is_committed_is_settled_and_in_the_end_everything_is(
        gaps in proptest::collection::vec((1i64..5, any::<bool>()), 1..40),
        order in proptest::collection::vec(any::<u16>(), 40),
        start in 0i64..100,
    ) {
        let mut progress = Progress::new(1);
        let (mut at, mut spans, mut last) = (start, Vec::new(), None);
        for (gap, ends) in gaps {
            let from = progress.read(at).unwrap();
            spans.push((from, at + 1, at));
            at += 1;
            if ends {
                // Markers up to the end.
                at += gap - 1;
                progress.reached(at).unwrap();
                last = Some(at);
            } else {
                at += gap - 1;
            }
        }
        let read = spans.last().unwrap().1.max(last.unwrap_or(0));
        let mut open: Vec<_> = spans.clone();
        let mut turn = order.iter().cycle();
        while !open.is_empty() {
            let next = usize::from(*turn.next().unwrap()) % open.len();
            let (from, to, _) = open.remove(next);
            progress.settle(from, to);
            let first_open = open.iter().map(|(_, _, offset)| *offset).min();
            let settled = progress.settled().unwrap();
            match first_open {
                Some(offset) => prop_assert!(settled <= offset, "{settled} is beyond {offset}"),
                None => prop_assert_eq!(settled, read),
            }
            // Everything before it that is a message is settled, and nothing is held back.
            let settled_up_to = spans.iter().filter(|s| !open.contains(s)).take_while(|s| first_open.is_none_or(|o| s.2 < o)).map(|s| s.1).max();
            prop_assert!(settled_up_to.is_none_or(|to| settled >= to));
        }
        prop_assert!(progress.ahead.is_empty());
    }

    /// Whatever overtakes what, and whatever fails: the broker ends with what is settled.
    #[test]
    fn the_broker_ends_with_what_is_settled_in_whichever_order_it_hears(
        had in proptest::option::of(0i64..3),
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), proptest::option::of((any::<u8>(), any::<bool>()))), 1..60),
    ) {
        let mut progress = Progress::new(1);
        let (mut broker, mut said, mut at) = (had, Vec::new(), 0);
        if let Some(had) = had {
            progress.had(had);
        }
        let answer = |progress: &mut Progress, said: &mut Vec<i64>, which: usize, is_heard: bool, broker: &mut Option<i64>| {
            let offset = said.remove(which);
            if is_heard {
                *broker = Some(offset);
                progress.is_committed(offset);
            } else {
                progress.commit_failed(offset);
            }
        };
        for (reads, says, answers) in steps {
            if reads {
                progress.read(at).unwrap();
                progress.settle(at, at + 1);
                at += 1;
            }
            if says && let Some(offset) = progress.to_commit() {
                progress.commits(offset);
                said.push(offset);
            }
            if let (Some((which, is_heard)), false) = (answers, said.is_empty()) {
                let which = usize::from(which) % said.len();
                answer(&mut progress, &mut said, which, is_heard, &mut broker);
            }
        }
        // Nothing is read any more.
        for _ in 0..100 {
            while !said.is_empty() {
                answer(&mut progress, &mut said, 0, true, &mut broker);
            }
            let Some(offset) = progress.to_commit() else { break };
            progress.commits(offset);
            said.push(offset);
        }
        if let Some(settled) = progress.settled() {
            prop_assert_eq!((broker, progress.is_heard()), (Some(settled), true));
        }
    }
}
