//! `why`: what one id names, and its history.

use owlpost::store::{Answer, Command};

use crate::world::{START, World, after, every_letter, news, whats};

#[tokio::test]
async fn an_event_is_found_in_every_source() {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("same", START).to("changes", &["user.alice"]).entry(),
                news("same", START).of("other").entry(),
                news("another", START).to("changes", &["user.alice"]).entry(),
            ],
        )
        .await;
    let history = world.why("same").await.unwrap();
    assert_eq!((history.id.as_str(), history.kind.as_str()), ("same", "event"));
    let mut found: Vec<_> =
        history.matches.iter().map(|m| (m.source.as_deref().unwrap(), m.state.as_deref().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, [("other", "asks_nobody"), ("zms", "pending")]);
    assert!(history.matches.iter().all(|m| m.id == "same"));
    assert_eq!(whats(&history), ["received", "received", "digested", "due"]);
    assert!(world.why("sam").await.is_none());
    assert!(world.why("").await.is_none());
}

#[tokio::test]
async fn an_event_tells_who_was_told_and_why_not() {
    let world = World::new();
    let subject = "membership/sports/joe";
    world
        .accept(START, vec![news("ask", START).opens(subject).to("changes", &["user.alice", "user.lee"]).entry()])
        .await;
    world.accept(after(60), vec![news("done", after(30)).closes(subject).to("changes", &["user.joe"]).entry()]).await;
    let history = world.why("ask").await.unwrap();
    assert_eq!(history.matches[0].subject_key.as_deref(), Some(subject));
    assert_eq!(history.matches[0].state.as_deref(), Some("withdrawn"));
    assert_eq!(whats(&history), ["received", "digested", "digested", "closed_by", "withdrawn", "withdrawn"]);
    let closed = &history.history[3];
    assert_eq!(closed.at, "2026-11-22T09:01:00.000000Z");
    assert_eq!(closed.reason.as_deref(), Some("io.athenz.membership.decided.v1 done from zms"));
    let withdrawn = &history.history[4];
    assert_eq!((withdrawn.reason.as_deref(), withdrawn.route.as_deref()), (Some("decided"), Some("changes")));
    assert_eq!(withdrawn.recipient.as_deref(), Some("user.alice"));
    assert!(withdrawn.digest.is_some());
}

#[tokio::test]
async fn an_event_names_what_replaced_it() {
    let world = World::new();
    world.accept(START, vec![news("first", START).opens("s").to("changes", &["user.alice"]).entry()]).await;
    world.accept(after(60), vec![news("second", after(30)).opens("s").to("changes", &["user.alice"]).entry()]).await;
    let history = world.why("first").await.unwrap();
    assert_eq!(whats(&history), ["received", "digested", "replaced_by", "withdrawn"]);
    assert!(history.history[2].reason.as_deref().unwrap().contains(" second "));
    assert_eq!(whats(&world.why("second").await.unwrap()), ["received", "digested", "due"]);
}

#[tokio::test]
async fn an_event_beyond_its_expiry_says_so() {
    let world = World::new();
    world.accept(after(100), vec![news("late", START).expires(after(50)).to("changes", &["user.alice"]).entry()]).await;
    let history = world.why("late").await.unwrap();
    assert_eq!(history.matches[0].state.as_deref(), Some("dropped"));
    assert_eq!(whats(&history), ["received", "dropped"]);
}

#[tokio::test]
async fn attempts_tell_how_they_ended() {
    let world = World::new();
    world.accept(START, vec![news("a", START).to("changes", &["user.alice"]).entry()]).await;
    let attempt = world.begin(after(3_600)).await.remove(0).attempt;
    // In its call, nobody doubts yet.
    assert_eq!(whats(&world.why("a").await.unwrap()), ["received", "digested", "attempt_begun"]);
    world.learn(after(3_601), attempt, Answer::Retryable { detail: "busy".into() }).await;
    let attempt = world.begin(after(3_700)).await.remove(0).attempt;
    world.learn(after(3_701), attempt, Answer::Ambiguous { detail: "no answer".into() }).await;
    world.end_doubts(after(3_702)).await;
    let sent = world.send(after(3_800)).await.remove(0).attempt;
    let history = world.why("a").await.unwrap();
    assert_eq!(
        whats(&history),
        [
            "received",
            "digested",
            "attempt_begun",
            "attempt_refused",
            "attempt_begun",
            "attempt_in_doubt",
            "attempt_begun",
            "attempt_accepted",
            "delivered"
        ]
    );
    let steps = &history.history;
    assert_eq!((steps[3].attempt, steps[3].reason.as_deref()), (Some(1), Some("busy")));
    assert_eq!((steps[5].attempt, steps[5].reason.as_deref()), (Some(2), Some("no answer")));
    assert_eq!((steps[8].attempt, steps[8].message_id.clone()), (Some(3), Some(format!("m-{sent}"))));
    assert!(steps.windows(2).all(|w| w[0].at <= w[1].at), "in the order of time");

    // The same by digest, by message and by recipient.
    let digest = world.why(&sent.digest.to_string()).await.unwrap();
    assert_eq!((digest.kind.as_str(), digest.matches.len()), ("digest", 1));
    assert_eq!(whats(&digest)[..2], ["opened", "digested"]);
    assert_eq!(whats(&digest)[8..], ["delivered", "closed"]);
    let message = world.why(&format!("m-{sent}")).await.unwrap();
    assert_eq!((message.kind.as_str(), message.matches[0].id.as_str()), ("message", "a"));
    assert!(whats(&message).contains(&"delivered"));
    let alice = world.why("user.alice").await.unwrap();
    assert_eq!((alice.kind.as_str(), alice.matches[0].state.as_deref()), ("recipient", Some("delivered")));
    for unknown in ["user.nobody", "m-9", "00000000-1"] {
        assert!(world.why(unknown).await.is_none(), "{unknown}");
    }
}

#[tokio::test]
async fn a_replayed_item_tells_its_death_and_no_step_before_it_could_be() {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("mailed", START).to("changes", &["user.alice"]).entry(),
                news("nobody", START).named_nobody("changes", "sports:role.gone").entry(),
            ],
        )
        .await;
    let attempt = world.begin(after(3_600)).await.remove(0).attempt;
    world.learn(after(3_601), attempt, Answer::Permanent { detail: "no such user".into() }).await;
    let ids = world.letters(every_letter(), 10).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(world.act(after(7_200), Command::ReplayItems { ids }).await.changed, 2);

    let history = world.why("mailed").await.unwrap();
    let whats = whats(&history);
    assert_eq!(whats, ["received", "digested", "attempt_begun", "attempt_refused", "dead", "relisted", "due"]);
    assert_eq!(history.history[4].at, "2026-11-22T10:00:01.000000Z");
    assert_eq!(history.history[5].at, "2026-11-22T11:00:00.000000Z");
    assert_ne!(history.history[4].digest, history.history[5].digest);
    // It died at the door, in no digest; into one it came by the replay.
    let history = world.why("nobody").await.unwrap();
    let digested = history.history.iter().find(|step| step.what == "digested").unwrap();
    assert_eq!(digested.at, "2026-11-22T11:00:00.000000Z");
}

#[tokio::test]
async fn an_open_digest_says_what_it_waits_for() {
    let world = World::new();
    world
        .accept(START, vec![news("a", START).to("changes", &["user.alice"]).to("held", &["user.alice"]).entry()])
        .await;
    for (route, waits, at) in
        [("changes", "due", "2026-11-22T10:00:00.000000Z"), ("held", "held", "2026-11-22T09:00:00.000000Z")]
    {
        let id = world.digests(None, Some(route), START).await.remove(0).id;
        let history = world.why(&id).await.unwrap();
        assert_eq!(whats(&history), ["opened", "digested", waits]);
        assert_eq!(history.history[2].at, at);
    }
    world.act(after(60), Command::Release { digest: None, route: None }).await;
    let id = world.digests(None, Some("held"), START).await.remove(0).id;
    assert_eq!(world.why(&id).await.unwrap().history[2].at, "2026-11-22T09:01:00.000000Z");
}

/// What somebody asks who waits for a mail.
#[tokio::test]
async fn a_mail_that_has_not_left_says_what_keeps_it() {
    let world = World::new();
    world.accept(START, vec![news("a", START).to("changes", &["user.alice"]).entry()]).await;
    let last = async || world.why("a").await.unwrap().history.pop().unwrap();
    let due = last().await;
    assert_eq!((due.what.as_str(), due.at.as_str(), due.reason), ("due", "2026-11-22T10:00:00.000000Z", None));
    assert_eq!((due.recipient.as_deref(), due.route.as_deref()), (Some("user.alice"), Some("changes")));
    world.act(START, Command::Pause { route: Some("changes".into()) }).await;
    assert_eq!(last().await.reason.as_deref(), Some("its route is paused"));
    world.act(START, Command::Pause { route: None }).await;
    assert_eq!(last().await.reason.as_deref(), Some("all mail is paused"));
    world.act(START, Command::Resume { route: None }).await;
    world.act(START, Command::Resume { route: Some("changes".into()) }).await;
    assert_eq!(last().await.reason, None);
}

#[tokio::test]
async fn a_recipient_with_5000_items_is_told_of_the_last_1000() {
    let world = World::new();
    let item = |i: usize| news(&format!("e{i:04}"), START).to("changes", &["user.alice"]).entry();
    // The newest came last; those of one batch are numbered by their key.
    for batch in 0..5 {
        let entries = (batch * 1_000..(batch + 1) * 1_000).map(item).collect();
        world.accept(after(batch as u64), entries).await;
    }
    let history = world.why("user.alice").await.unwrap();
    assert_eq!((history.matches.len(), history.is_cut), (1_000, true));
    assert!(!world.why("e0000").await.unwrap().is_cut);
    let mut told: Vec<&str> = history.matches.iter().map(|m| m.id.as_str()).collect();
    told.sort_unstable();
    assert_eq!((told[0], told[999]), ("e4000", "e4999"));
    assert_eq!(world.ledger(None, Some("user.alice")).await.len(), 5_000);
    assert_eq!(world.status(after(10)).await.ledger.pending, 5_000);
    assert_eq!(world.verify().await.differences, [""; 0]);
}
