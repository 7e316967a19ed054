//! Faults of the server and of the permissions, made by a proxy.

use super::*;
use crate::proxy::{Fault, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn throttling_errors_and_lost_replies_lose_nothing() {
    let url = server().queue(VISIBILITY);
    let proxy = Proxy::start(server().endpoint());
    for (status, code) in [
        (403, "OverLimit"),
        (400, "RequestThrottled"),
        (400, "KMS.ThrottlingException"),
        (500, "InternalFailure"),
        (503, "ServiceUnavailable"),
    ] {
        proxy.plan("ReceiveMessage", Fault::Answer { status, code }, 1);
    }
    // Messages that were handed out into the void come again after their visibility timeout.
    proxy.plan("ReceiveMessage", Fault::LoseReply, 1);
    proxy.plan("DeleteMessageBatch", Fault::Answer { status: 500, code: "InternalFailure" }, 4);
    proxy.plan("DeleteMessageBatch", Fault::LoseReply, 1);
    server().send(&url, &bodies(40));
    let name = unique("source");
    let mut source = named(&name, options(proxy.url(), Named::Url(url.clone()))).await;
    let mut all = BTreeSet::new();
    while all.len() < 40 {
        let batch = next(&mut source, ROOMY).await.unwrap();
        all.extend(texts(&batch));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    stop(source).await;
    assert!(metric("receive_errors_total", &name) >= 6.0);
    until_depth(&url, EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    let proxy = Proxy::start(server().endpoint());
    for (action, code, words) in [
        ("ReceiveMessage", "AccessDenied", "sqs:ReceiveMessage"),
        ("ReceiveMessage", "KMS.AccessDeniedException", "kms:Decrypt"),
        ("ReceiveMessage", "ExpiredToken", "renew or correct"),
        ("GetQueueAttributes", "AccessDenied", "sqs:GetQueueAttributes"),
    ] {
        proxy.plan(action, Fault::Answer { status: 403, code }, 1_000);
        let url = server().queue(&[]);
        let mut source = open_at(proxy.url(), &url).await;
        let why = down(&mut source).await;
        assert!(why.contains(words), "{why}");
        proxy.heal();
        server().send(&url, &bodies(1));
        assert_eq!(take(&mut source, ROOMY, 1).await, bodies(1), "it heals");
        stop(source).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_and_found_again() {
    // Nobody listens there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    server();
    let mut source = open_at(&format!("http://{address}"), &format!("http://{address}/000000000000/q")).await;
    let why = down(&mut source).await;
    assert!(why.contains("can't be reached"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_delete_that_fail_are_deleted_with_another_call() {
    let url = server().queue(&[]);
    let proxy = Proxy::start(server().endpoint());
    proxy.plan("DeleteMessageBatch", Fault::FailEntries { entries: 3, code: "InternalError", ours: false }, 2);
    server().send(&url, &bodies(10));
    let name = unique("source");
    let mut source = named(&name, options(proxy.url(), Named::Url(url.clone()))).await;
    take(&mut source, ROOMY, 10).await;
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
    assert_eq!(metric("deletes_failed_total", &name), 0.0);
    assert!(proxy.calls("DeleteMessageBatch") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_over_harms_nobody() {
    let url = server().queue(&[]);
    let proxy = Proxy::start(server().endpoint());
    proxy.plan("DeleteMessageBatch", Fault::FailEntries { entries: 1, code: "ReceiptHandleIsInvalid", ours: true }, 1);
    server().send(&url, &bodies(1));
    let name = unique("source");
    let mut source = named(&name, options(proxy.url(), Named::Url(url.clone()))).await;
    take(&mut source, ROOMY, 1).await;
    until("the failure", || (metric("deletes_failed_total", &name) >= 1.0).then_some(()));
    server().send(&url, &["{\"next\":1}".to_owned()]);
    assert_eq!(take(&mut source, ROOMY, 1).await, ["{\"next\":1}"]);
    assert_eq!(source.health(), Health::Ready);
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ran_out_comes_again_and_both_are_settled() {
    let url = server().queue(VISIBILITY);
    let proxy = Proxy::start(server().endpoint());
    // Nothing can be hidden for longer, so the message runs out while it is out.
    proxy.plan("ChangeMessageVisibilityBatch", Fault::Answer { status: 500, code: "InternalFailure" }, 100_000);
    server().send(&url, &bodies(1));
    let mut source = open_at(proxy.url(), &url).await;
    let first = next(&mut source, ROOMY).await.unwrap();
    let second = next(&mut source, ROOMY).await.unwrap();
    assert_eq!(first.messages, second.messages, "the same id, so it is known");
    proxy.heal();
    // The first one's receipt is over.
    source.ack(first.ack, &receipts(&first)).await;
    source.ack(second.ack, &receipts(&second)).await;
    server().send(&url, &["{\"next\":1}".to_owned()]);
    assert_eq!(take(&mut source, ROOMY, 1).await, ["{\"next\":1}"]);
    until_depth(&url, EMPTY);
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_is_given_up_and_made_again() {
    let url = server().queue(&[]);
    let proxy = Proxy::start(server().endpoint());
    proxy.plan("GetQueueAttributes", Fault::Delay(PATIENCE * 2), 1);
    proxy.plan("DeleteMessageBatch", Fault::Delay(PATIENCE * 2), 1);
    server().send(&url, &bodies(10));
    let mut source = open_at(proxy.url(), &url).await;
    assert_eq!(sorted(take(&mut source, ROOMY, 10).await), bodies(10));
    until_depth(&url, EMPTY);
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_often_is_the_queues_own_business() {
    let (url, dead) = server().with_redrive(2, VISIBILITY);
    let proxy = Proxy::start(server().endpoint());
    // Nothing can be hidden for longer: the message runs out each time.
    proxy.plan("ChangeMessageVisibilityBatch", Fault::Answer { status: 500, code: "InternalFailure" }, 100_000);
    server().send(&url, &bodies(1));
    let mut source = open_at(proxy.url(), &url).await;
    let first = next(&mut source, ROOMY).await.unwrap();
    let second = next(&mut source, ROOMY).await.unwrap();
    assert_eq!(first.messages, second.messages);
    until("the dead-letter queue", || (server().depth(&dead).visible == 1).then_some(()));
    // An answer that comes too late takes nothing out of it.
    source.ack(first.ack, &receipts(&first)).await;
    source.ack(second.ack, &receipts(&second)).await;
    stop(source).await;
    assert_eq!((server().depth(&url), server().depth(&dead)), (EMPTY, Depth { visible: 1, ..EMPTY }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_delete_nothing_more_is_received_until_it_is_granted() {
    let (url, dead) = server().with_redrive(1, &[]);
    let proxy = Proxy::start(server().endpoint());
    proxy.plan("DeleteMessageBatch", Fault::Answer { status: 403, code: "AccessDenied" }, 100_000);
    server().send(&url, &bodies(10));
    let name = unique("source");
    let mut source = named(&name, options(proxy.url(), Named::Url(url.clone()))).await;
    assert_eq!(sorted(take(&mut source, ROOMY, 10).await), bodies(10));
    let is_told = || matches!(source.health(), Health::Down(why) if why.contains("sqs:DeleteMessage")).then_some(());
    until("the missing right", is_told);
    // The poll that was under way may bring ten; no further call is made, for as many tries as would let messages go.
    let polls = proxy.calls("ReceiveMessage");
    server().send(&url, &(10..50).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
    until("more tries", || (proxy.calls("DeleteMessageBatch") >= 6).then_some(()));
    assert!(proxy.calls("ReceiveMessage") <= polls + 1, "{}", proxy.calls("ReceiveMessage"));
    assert_eq!(metric("deletes_failed_total", &name), 0.0);
    assert!(server().depth(&url).visible >= 20, "{:?}", server().depth(&url));
    proxy.heal();
    for _ in 0..40 {
        let one = tokio::time::timeout(Duration::from_secs(25), take(&mut source, Room { messages: 1, bytes: 1 }, 1));
        assert!(one.await.is_ok(), "{:?} {:?} {:?}", source.health(), server().depth(&url), server().depth(&dead));
    }
    until_depth(&url, EMPTY);
    assert_eq!(source.health(), Health::Ready);
    stop(source).await;
    assert_eq!(server().depth(&dead), EMPTY, "each was received once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_without_the_right_to_delete_says_so() {
    let url = server().queue(&[]);
    let proxy = Proxy::start(server().endpoint());
    proxy.plan("DeleteMessageBatch", Fault::Answer { status: 403, code: "AccessDenied" }, 100_000);
    server().send(&url, &bodies(1));
    let idle = Options { until_idle: true, ..options(proxy.url(), Named::Url(url.clone())) };
    let mut source = named(&unique("source"), idle).await;
    take(&mut source, ROOMY, 1).await;
    match tokio::time::timeout(PATIENCE, source.next(ROOMY)).await.unwrap() {
        Err(SourceError::Fatal(why)) => assert!(why.contains("sqs:DeleteMessage"), "{why}"),
        other => panic!("{other:?}"),
    }
}
