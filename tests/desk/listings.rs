//! The ledger, digests and dead letters: filters, pages, what stands in a row.

use owlpost::model::RefusedReason;
use owlpost::store::desk::{DeadLetter, DeadLetterRow, DigestPage, LetterKind};
use owlpost::store::{Answer, Command, Desk, Page, Query, Rows};

use crate::world::{START, World, after, every_letter, news, refused};

fn ids(rows: &[DeadLetterRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

async fn letter(world: &World, id: &str) -> Option<DeadLetter> {
    match world.read(Query::DeadLetter { id: id.into() }).await {
        Rows::DeadLetter(found) => found.map(|l| *l),
        other => panic!("{other:?}"),
    }
}

async fn digest(world: &World, id: &str) -> Option<DigestPage> {
    match world.read(Query::Digest { id: id.into(), now: START }).await {
        Rows::Digest(found) => found.map(|d| *d),
        other => panic!("{other:?}"),
    }
}

// ---- ledger

#[tokio::test]
async fn the_ledger_proves_who_was_told_in_which_message() {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("a", START).opens("membership/sports/joe").to("changes", &["user.alice", "user.joe"]).entry(),
                news("b", START).named_nobody("changes", "sports:role.gone").entry(),
            ],
        )
        .await;
    let mails = world.send(after(3_600)).await;
    let mail = mails.iter().find(|m| m.recipient.principal == "user.alice").unwrap();
    let rows = world.ledger(None, None).await;
    assert_eq!(rows.len(), 3);
    let alice = rows.iter().find(|r| r.recipient == "user.alice").unwrap();
    assert_eq!(alice.address.as_deref(), Some("alice@example.com"));
    assert_eq!((alice.source.as_str(), alice.id.as_str(), alice.route.as_str()), ("zms", "a", "changes"));
    assert_eq!(alice.kind, "io.athenz.membership.requested.v1");
    assert_eq!(alice.subject_key.as_deref(), Some("membership/sports/joe"));
    assert_eq!((alice.state.as_str(), alice.reason.as_deref()), ("delivered", None));
    assert_eq!(alice.digest, Some(mail.attempt.digest.to_string()));
    assert_eq!(alice.message_id, Some(format!("m-{}", mail.attempt)));
    assert_eq!(alice.accepted_at, "2026-11-22T09:00:00.000000Z");
    assert_eq!(alice.settled_at.as_deref(), Some("2026-11-22T10:00:00.000000Z"));
    let nobody = rows.iter().find(|r| r.state == "dead").unwrap();
    assert_eq!((nobody.recipient.as_str(), nobody.reason.as_deref()), ("sports:role.gone", Some("unreachable")));
    assert_eq!((&nobody.digest, &nobody.message_id, &nobody.address), (&None, &None, &None));
}

#[tokio::test]
async fn a_bounced_item_keeps_the_message_that_bounced() {
    let world = World::new();
    world.accept(START, vec![news("a", START).to("changes", &["user.alice"]).entry()]).await;
    let mails = world.send(after(3_600)).await;
    world.learn(after(3_700), mails[0].attempt, Answer::Failed { detail: "mailbox full".into() }).await;
    let rows = world.ledger(None, None).await;
    assert_eq!((rows[0].state.as_str(), rows[0].reason.as_deref()), ("dead", Some("bounced")));
    assert_eq!(rows[0].message_id, Some(format!("m-{}", mails[0].attempt)));
}

#[tokio::test]
async fn late_evidence_names_the_digest_that_told_and_not_the_one_it_waits_in() {
    let world = World::new();
    world.accept(START, vec![news("a", START).to("changes", &["user.alice"]).entry()]).await;
    let first = world.begin(after(3_600)).await.remove(0);
    world.learn(after(3_601), first.attempt, Answer::Permanent { detail: "no such mailbox".into() }).await;
    let rows = world.ledger(None, None).await;
    assert_eq!(rows[0].reason.as_deref(), Some("permanent"));
    let report = world.act(after(3_700), Command::ReplayItems { ids: vec!["it-1-1".into()] }).await;
    assert_eq!(report.changed, 1, "{report:?}");
    let second = world.send(after(7_400)).await.remove(0);
    assert_ne!(first.attempt.digest, second.attempt.digest);
    let rows = world.ledger(None, None).await;
    assert_eq!(rows[0].digest, Some(second.attempt.digest.to_string()));
    assert_eq!(rows[0].state, "delivered");
    assert_eq!(world.verify().await.differences, [""; 0]);
    // Both digests show the item: it was in both.
    assert_eq!(digest(&world, &first.attempt.digest.to_string()).await.unwrap().items.len(), 1);
    let history = world.why("a").await.unwrap();
    let whats = crate::world::whats(&history);
    assert_eq!(
        whats,
        [
            "received",
            "digested",
            "attempt_begun",
            "attempt_refused",
            "dead",
            "relisted",
            "attempt_begun",
            "attempt_accepted",
            "delivered"
        ]
    );
}

#[tokio::test]
async fn the_ledger_is_filtered_by_time_and_recipient() {
    let world = World::new();
    world.accept(START, vec![news("old", START).to("changes", &["user.alice"]).entry()]).await;
    world.send(after(3_600)).await;
    world.accept(after(7_200), vec![news("new", START).to("changes", &["user.alice", "user.joe"]).entry()]).await;
    let ids = async |since, recipient| -> Vec<String> {
        world.ledger(since, recipient).await.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(None, None).await, ["old", "new", "new"]);
    assert_eq!(ids(None, Some("user.joe")).await, ["new"]);
    assert_eq!(ids(None, Some("user.nobody")).await, [""; 0]);
    assert_eq!(ids(Some(after(7_200)), None).await, ["new", "new"]);
    // Accepted before, but settled since: an export each hour misses no outcome.
    assert_eq!(ids(Some(after(3_600)), Some("user.alice")).await, ["old", "new"]);
    assert_eq!(ids(Some(after(3_601)), Some("user.alice")).await, ["new"]);
}

#[tokio::test]
async fn pages_end_with_whole_events_and_skip_nothing() {
    let world = World::new();
    let people = ["user.alice", "user.joe", "user.lee"];
    let entries = (0..10).map(|i| news(&format!("e{i}"), START).to("changes", &people).entry()).collect();
    world.accept(START, entries).await;
    for limit in [1, 2, 3, 4, 7, 100] {
        let pages = world.ledger_by(None, None, limit).await;
        assert!(pages.iter().all(|page| page.len() <= limit as usize + 2), "limit {limit}");
        let mut seen: Vec<(String, String)> = pages.concat().into_iter().map(|row| (row.id, row.recipient)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 30, "limit {limit}");
        assert_eq!(pages.concat().len(), 30, "limit {limit}");
    }
}

// ---- digests

#[tokio::test]
async fn digests_are_listed_by_state_and_route() {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("a", START).to("changes", &["user.alice", "user.joe", "user.lee"]).entry(),
                news("b", START).to("held", &["user.alice"]).entry(),
            ],
        )
        .await;
    let count = async |state, route, now| world.digests(state, route, now).await.len();
    assert_eq!(count(None, None, START).await, 4);
    assert_eq!(count(Some("gathering"), None, START).await, 3);
    assert_eq!(count(Some("due"), None, START).await, 0);
    assert_eq!(count(Some("due"), None, after(3_600)).await, 3);
    assert_eq!(count(Some("held"), None, after(3_600)).await, 1);
    assert_eq!(count(None, Some("held"), START).await, 1);
    assert_eq!(count(Some("closed"), None, START).await, 0);
    let mails = world.begin(after(3_600)).await;
    world.learn(after(3_601), mails[0].attempt, Answer::Accepted { message_id: None }).await;
    world.learn(after(3_601), mails[1].attempt, Answer::Ambiguous { detail: "timeout".into() }).await;
    world.learn(after(3_601), mails[2].attempt, Answer::Retryable { detail: "busy".into() }).await;
    for (state, n) in [("closed", 1), ("in_doubt", 1), ("waiting", 1), ("held", 1), ("gathering", 0), ("due", 0)] {
        assert_eq!(count(Some(state), None, after(3_601)).await, n, "{state}");
    }
    assert_eq!(count(None, None, after(3_601)).await, 3);
    assert_eq!(count(Some("due"), None, after(3_661)).await, 1, "a retry that is due");
    let said = world.refuses(Query::Digests { state: Some("open".into()), route: None, now: START }).await;
    assert!(said.to_string().contains("gathering"), "{said}");

    let closed = world.digests(Some("closed"), None, START).await.remove(0);
    assert_eq!((closed.items, closed.open, closed.attempts), (1, 0, 1));
    assert_eq!((closed.due, &closed.due_at), (false, &None));
    assert_eq!(closed.closed_at.as_deref(), Some("2026-11-22T10:00:01.000000Z"));
    let doubt = world.digests(Some("in_doubt"), None, START).await.remove(0);
    assert_eq!((doubt.open, doubt.until.as_deref()), (1, Some("2026-11-22T10:15:01.000000Z")));
}

#[tokio::test]
async fn a_digest_is_shown_with_its_attempts_and_items() {
    let world = World::new();
    world
        .accept(START, (0..5).map(|i| news(&format!("e{i}"), START).to("changes", &["user.alice"]).entry()).collect())
        .await;
    let first = world.begin(after(3_600)).await.remove(0).attempt;
    world.learn(after(3_601), first, Answer::Retryable { detail: "try later".into() }).await;
    world.send(after(3_700)).await;
    let shown = digest(&world, &first.digest.to_string()).await.unwrap();
    assert_eq!(shown.address.as_deref(), Some("alice@example.com"));
    let outcomes: Vec<_> =
        shown.attempts.iter().map(|a| (a.attempt, a.outcome.as_str(), a.detail.as_deref())).collect();
    assert_eq!(outcomes, [(1, "refused", Some("try later")), (2, "accepted", None)]);
    assert_eq!(shown.items.len(), 5);
    // The same in pages.
    let query = Query::Digest { id: first.digest.to_string(), now: START };
    let (mut page, mut seen) = (Page { limit: 2, ..Page::FIRST }, 0);
    loop {
        let Rows::Digest(Some(found)) = world.store.read(&query, page).await.unwrap() else { panic!() };
        seen += found.items.len();
        let Some(after) = found.next else { break };
        page.after = after;
    }
    assert_eq!(seen, 5);
    for unknown in ["", "00000000-1", "no digest", &format!("{}9", first.digest)] {
        assert!(digest(&world, unknown).await.is_none(), "{unknown}");
    }
}

// ---- dead letters

/// Two inputs (one came twice) and two dead items.
async fn dead() -> World {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                refused("events", RefusedReason::NotJson, "{"),
                refused("queue", RefusedReason::TooLarge, &"x".repeat(100_000)),
                news("a", START).named_nobody("changes", "sports:role.gone").entry(),
            ],
        )
        .await;
    world
        .accept(
            after(60),
            vec![
                refused("events", RefusedReason::NotJson, "{"),
                news("b", START).of("other").named_nobody("changes", "sports:role.gone").entry(),
            ],
        )
        .await;
    world
}

#[tokio::test]
async fn refused_inputs_and_dead_items_are_one_listing() {
    let world = dead().await;
    for limit in [1, 2, 3, 100] {
        let rows = world.letters(every_letter(), limit).await;
        assert_eq!(ids(&rows), ["in-1", "in-2", "it-1-1", "it-2-1"], "limit {limit}");
    }
    let rows = world.letters(every_letter(), 100).await;
    assert_eq!((rows[0].kind, rows[0].reason.as_str(), rows[0].count), (LetterKind::Input, "not_json", 2));
    assert_eq!((rows[0].source.as_str(), rows[0].position.as_str()), ("events", "events.ndjson line 3"));
    assert_eq!(
        (rows[0].bytes, rows[0].truncated, rows[0].first_at.as_str()),
        (1, false, "2026-11-22T09:00:00.000000Z")
    );
    assert_eq!((rows[1].bytes, rows[1].truncated), (100_000, true));
    assert_eq!(
        (rows[2].kind, rows[2].reason.as_str(), rows[2].source.as_str()),
        (LetterKind::Item, "unreachable", "zms")
    );
    for named in ["event a", "sports:role.gone", "route changes"] {
        assert!(rows[2].position.contains(named), "{}", rows[2].position);
    }
}

#[tokio::test]
async fn dead_letters_are_filtered_by_kind_reason_source_and_time() {
    let world = dead().await;
    let found = async |kind, reason: Option<&str>, source: Option<&str>, since| -> Vec<String> {
        let (reason, source) = (reason.map(Into::into), source.map(Into::into));
        let query = Query::DeadLetters { kind, reason, source, since, discarded: false };
        world.letters(query, 1).await.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(found(Some(LetterKind::Input), None, None, None).await, ["in-1", "in-2"]);
    assert_eq!(found(Some(LetterKind::Item), None, None, None).await, ["it-1-1", "it-2-1"]);
    assert_eq!(found(None, Some("too_large"), None, None).await, ["in-2"]);
    assert_eq!(found(None, Some("unreachable"), None, None).await, ["it-1-1", "it-2-1"]);
    assert_eq!(found(None, Some("gave_up"), None, None).await, [""; 0]);
    assert_eq!(found(None, None, Some("events"), None).await, ["in-1"]);
    assert_eq!(found(None, None, Some("other"), None).await, ["it-2-1"]);
    // in-1 came again since.
    assert_eq!(found(None, None, None, Some(after(60))).await, ["in-1", "it-2-1"]);
    assert_eq!(found(None, None, None, Some(after(61))).await, [""; 0]);
    assert_eq!(found(Some(LetterKind::Item), Some("not_json"), None, None).await, [""; 0]);
}

#[tokio::test]
async fn a_discarded_input_is_hidden_and_not_gone() {
    let world = dead().await;
    world.act(after(100), Command::Discard { ids: vec!["in-1".into()] }).await;
    assert_eq!(ids(&world.letters(every_letter(), 100).await), ["in-2", "it-1-1", "it-2-1"]);
    let all =
        Query::DeadLetters { kind: Some(LetterKind::Input), reason: None, source: None, since: None, discarded: true };
    assert_eq!(ids(&world.letters(all, 100).await), ["in-1", "in-2"]);
    assert_eq!(world.status(after(100)).await.dead_letters, 1);
    assert_eq!(letter(&world, "in-1").await.unwrap().discarded_at.as_deref(), Some("2026-11-22T09:01:40.000000Z"));
}

#[tokio::test]
async fn a_letter_shows_the_bytes_of_an_input_and_only_ids_of_an_item() {
    let world = dead().await;
    let input = letter(&world, "in-1").await.unwrap();
    assert_eq!((input.body.as_slice(), input.last_at.as_str()), (&b"{"[..], "2026-11-22T09:01:00.000000Z"));
    assert_eq!(input.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    let sha256 = "021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96";
    assert_eq!(input.sha256.as_deref(), Some(sha256));
    assert_eq!(letter(&world, "in-2").await.unwrap().body.len(), 64 * 1024);
    let item = letter(&world, "it-1-1").await.unwrap();
    assert!(item.body.is_empty());
    assert!(!format!("{item:?}").contains("not-for-the-desk"));
    assert_eq!(item.item.unwrap().id, "a");
    for unknown in ["in-9", "it-9-9", "it-1", "", "in-x"] {
        assert!(letter(&world, unknown).await.is_none(), "{unknown}");
    }
    // Not dead any more: no dead letter.
    world.act(after(100), Command::ReplayItems { ids: vec!["it-1-1".into()] }).await;
    assert!(letter(&world, "it-1-1").await.is_none());
}
