//! `status` and `status --verify`.

use owlpost::model::RefusedReason;
use owlpost::store::desk::{DigestCounts, Ledger};
use owlpost::store::{Answer, Command};

use crate::world::{START, World, after, news, refused};

#[tokio::test]
async fn counts_items_digests_mails_and_letters() {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("a", START).to("urgent", &["user.alice"]).entry(),
                news("b", START).to("changes", &["user.joe"]).entry(),
                news("c", START).to("held", &["user.lee"]).entry(),
                news("d", START).named_nobody("changes", "sports:role.gone").entry(),
                refused("events", RefusedReason::NotJson, "{"),
            ],
        )
        .await;
    let status = world.status(after(60)).await;
    assert_eq!(status.digests, DigestCounts { gathering: 2, held: 1, ..DigestCounts::default() });
    assert_eq!(status.oldest_due_at, None);
    // An hour later both windows are due, and stay counted as gathering.
    let status = world.status(after(3_600)).await;
    assert_eq!((status.digests.gathering, status.digests.due), (2, 2));
    assert_eq!(status.oldest_due_at.as_deref(), Some("2026-11-22T10:00:00.000000Z"));
    assert_eq!((status.mails.sent, status.quota.used_24h), (0, 0));

    let mails = world.begin(after(3_600)).await;
    let (alice, joe) = (&mails[0], &mails[1]);
    world.learn(after(3_601), alice.attempt, Answer::Accepted { message_id: Some("m1".into()) }).await;
    world.learn(after(3_601), joe.attempt, Answer::Ambiguous { detail: "timeout".into() }).await;
    world.act(after(3_602), Command::Pause { route: Some("held".into()) }).await;

    let status = world.status(after(3_602)).await;
    let ledger = Ledger { items: 4, pending: 1, in_doubt: 1, delivered: 1, dead: 1, withdrawn: 0, suppressed: 0 };
    assert_eq!(status.ledger, ledger);
    assert_eq!(status.digests, DigestCounts { held: 1, in_doubt: 1, ..DigestCounts::default() });
    // What may have left counts against the day, too.
    assert_eq!((status.mails.sent, status.quota.used_24h, status.dead_letters), (1, 2, 1));
    assert_eq!(status.paused, ["held"]);
    assert_eq!(status.store_id.len(), 8);
    assert_eq!(status.schema_version, 8);
    // A day later that is over.
    assert_eq!(world.status(after(3_601 + 86_401)).await.quota.used_24h, 0);
    assert_eq!(world.verify().await.differences, [""; 0]);
    assert_eq!(world.verify().await.recounted, ledger);
}

/// Event 1 is delivered, 2 and 3 are pending in a window each, 4 is dead; nothing is wrong.
async fn sound() -> World {
    let world = World::new();
    world.accept(START, vec![news("sent", START).to("changes", &["user.zoe"]).entry()]).await;
    world.send(after(3_600)).await;
    world
        .accept(
            after(3_700),
            vec![
                news("a", START).to("changes", &["user.alice"]).entry(),
                news("b", START).to("changes", &["user.joe"]).entry(),
            ],
        )
        .await;
    world.accept(after(3_800), vec![news("c", START).named_nobody("changes", "sports:role.gone").entry()]).await;
    assert_eq!(world.verify().await.differences, [""; 0]);
    world
}

/// Breaks a sound store by SQL; gives what `verify` says about it.
async fn broken(statements: &str) -> Vec<String> {
    let world = sound().await;
    world.sql(statements);
    world.verify().await.differences
}

#[tokio::test]
async fn finds_a_count_that_is_off() {
    let said = broken("INSERT INTO ledger_delta (state, n) VALUES (2, 1)").await;
    assert_eq!(said, ["delivered: the ledger says 2, there are 1 items"]);
    let said = broken("UPDATE item SET state = 3 WHERE state = 5").await;
    let wanted = ["withdrawn: the ledger says 0, there are 1 items", "dead: the ledger says 1, there are 0 items"];
    assert_eq!(said, wanted);
    let said = broken("DELETE FROM item WHERE state = 5; INSERT INTO ledger_delta (state, n) VALUES (5, -2)").await;
    assert_eq!(said, ["dead: the ledger says -1, there are 0 items"]);
}

/// Exactly one difference that says all of this.
fn says(said: &[String], parts: &[&str]) {
    let hits = said.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(hits, 1, "{parts:?} in {said:?}");
}

#[tokio::test]
async fn finds_an_unsettled_item_outside_of_an_open_digest() {
    says(
        &broken("UPDATE item SET digest_no = NULL, behind = NULL WHERE event_no = 2").await,
        &["it-2-", "pending", "in no digest"],
    );
    says(&broken("UPDATE item SET digest_no = 77 WHERE event_no = 2").await, &["it-2-", "is not there"]);
    let said = broken(
        "UPDATE item SET digest_no = (SELECT p.digest_no FROM placed_item p WHERE p.event_no = 2), behind = NULL \
         WHERE event_no = 2; UPDATE digest SET state = 6 WHERE no = (SELECT digest_no FROM item WHERE event_no = 2)",
    )
    .await;
    says(&said, &["it-2-", "is closed"]);
}

#[tokio::test]
async fn finds_a_digest_whose_open_items_are_miscounted() {
    let said =
        broken("UPDATE digest SET open = 5 WHERE no = (SELECT digest_no FROM placed_item WHERE event_no = 2)").await;
    assert_eq!(said.len(), 1, "{said:?}");
    says(&said, &["says 5 open items, there are 1"]);
}

/// What joined a window is found by the window alone: a digest that left without it never lists it.
#[tokio::test]
async fn finds_items_that_their_digest_left_behind() {
    let world = World::new();
    let three = (0..3).map(|i| news(&format!("e{i}"), START).to("changes", &["user.alice"]).entry()).collect();
    world.accept(START, three).await;
    world.sql("UPDATE digest SET state = 2, until = 9000000000000000");
    world.accept(after(1), vec![news("next", START).to("changes", &["user.alice"]).entry()]).await;
    let said = world.verify().await.differences;
    assert_eq!(said.len(), 1, "{said:?}");
    says(&said, &["says 3 open items, there are 1"]);
}

#[tokio::test]
async fn finds_two_windows_of_one_mailbox() {
    let said = broken(
        "DROP INDEX digest_window; UPDATE digest SET mailbox_no = (SELECT max(mailbox_no) FROM digest WHERE state = 0) \
         WHERE state = 0",
    )
    .await;
    says(&said, &["has 2 digests that gather"]);
}

#[tokio::test]
async fn finds_a_doubt_outside_of_a_digest_in_doubt() {
    let said = broken(
        "UPDATE item SET state = 1 WHERE event_no = 2; INSERT INTO ledger_delta (state, n) VALUES (0, -1), (1, 1)",
    )
    .await;
    assert_eq!(said.len(), 1, "{said:?}");
    says(&said, &["it-2-", "is in doubt", "is gathering"]);
}

#[tokio::test]
async fn finds_a_delivery_that_no_attempt_made() {
    let said = broken("UPDATE attempt SET outcome = 1").await;
    assert_eq!(said, ["item it-1-1 is delivered, but no accepted attempt listed it"]);
    let said = broken("UPDATE item SET left_before = 1 WHERE event_no = 1").await;
    assert_eq!(said, ["item it-1-1 is delivered, but no accepted attempt listed it"]);
}

#[tokio::test]
async fn finds_an_open_digest_without_open_items() {
    let said = broken("UPDATE digest SET state = 4 WHERE state = 6").await;
    assert_eq!(said.len(), 1, "{said:?}");
    says(&said, &["is waiting, but has no open items"]);
}

#[tokio::test]
async fn names_a_bounded_number_of_differences() {
    let world = World::new();
    let many = (0..50).map(|i| news(&format!("e{i}"), START).to("changes", &["user.alice"]).entry()).collect();
    world.accept(START, many).await;
    world.sql("UPDATE item SET digest_no = NULL, behind = NULL");
    let said = world.verify().await.differences;
    assert!(said.len() < 25, "{}", said.len());
    says(&said, &["and more of this kind"]);
}
