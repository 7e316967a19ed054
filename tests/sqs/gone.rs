//! A queue that goes away while messages of it are held. What was deleted with the queue is nobody's to bring back; what
//! was received before is committed from here.

use super::*;
use crate::proxy::{Fault, Proxy};

const ACTIONS: [&str; 4] =
    ["ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "GetQueueAttributes"];

/// Every call is told that there is no such queue, until the proxy is healed.
fn hide_queue(proxy: &Proxy) {
    for action in ACTIONS {
        proxy.plan(action, Fault::Answer { status: 400, code: "QueueDoesNotExist" }, 100_000);
    }
}

/// Takes all of `count` messages, and holds their batches, of ten at most.
async fn hold(source: &mut SqsSource, count: usize) -> (Vec<Batch>, Vec<String>) {
    let (mut held, mut all) = (Vec::new(), Vec::new());
    while all.len() < count {
        let batch = next(source, Room { messages: 10, ..ROOMY }).await.unwrap();
        all.extend(texts(&batch));
        held.push(batch);
    }
    (held, sorted(all))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_when_its_queue_is_deleted_is_committed_from_here() {
    let client = server().client();
    let url = server().queue(VISIBILITY);
    let name = url.rsplit('/').next().unwrap();
    server().send(&url, &bodies(10));
    let mut source = open(&url).await;
    let (held, before) = hold(&mut source, 10).await;
    assert_eq!(before, bodies(10));
    client.delete_queue().queue_url(&url).send().await.unwrap();
    for batch in held {
        // Longer than they would be hidden for.
        source.refuse(batch.ack, Duration::from_secs(5)).await;
    }
    let why = down(&mut source).await;
    assert!(why.contains(name) && why.contains("the queue is not there"), "{why}");
    // The store is back before the queue is.
    assert_eq!(sorted(take(&mut source, ROOMY, 10).await), before);
    client.create_queue().queue_name(name).send().await.unwrap();
    server().send(&url, &["{\"new\":1}".to_owned()]);
    assert_eq!(take(&mut source, ROOMY, 1).await, ["{\"new\":1}"]);
    assert_eq!(source.health(), Health::Ready);
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_of_a_queue_that_was_gone_and_is_made_again_is_committed_from_here() {
    let client = server().client();
    let url = server().queue(VISIBILITY);
    let name = url.rsplit('/').next().unwrap();
    server().send(&url, &bodies(10));
    let mut source = open(&url).await;
    let (held, before) = hold(&mut source, 10).await;
    client.delete_queue().queue_url(&url).send().await.unwrap();
    for batch in held {
        source.refuse(batch.ack, Duration::from_secs(8)).await;
    }
    down(&mut source).await;
    // The queue is back before the store is: the new one knows nothing of what is held.
    client.create_queue().queue_name(name).send().await.unwrap();
    assert_eq!(sorted(take(&mut source, ROOMY, 10).await), before);
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

/// For a minute after a queue was deleted AWS may tell how it is, and that it does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_receiving_tells_that_there_is_no_queue_asks_less_and_less() {
    let url = server().queue(VISIBILITY);
    let proxy = Proxy::start(server().endpoint());
    let mut source = open_at(proxy.url(), &url).await;
    proxy.plan("ReceiveMessage", Fault::Answer { status: 400, code: "QueueDoesNotExist" }, 100_000);
    down(&mut source).await;
    let before = proxy.calls("ReceiveMessage");
    // Not to wait for something: what is told is how often it asks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let calls = proxy.calls("ReceiveMessage") - before;
    assert!(calls <= 8, "{calls} in four seconds");
    proxy.heal();
    server().send(&url, &bodies(1));
    assert_eq!(take(&mut source, ROOMY, 1).await, bodies(1));
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_said_to_be_gone_for_a_while_loses_nothing() {
    let url = server().queue(VISIBILITY);
    let name = url.rsplit('/').next().unwrap();
    let proxy = Proxy::start(server().endpoint());
    server().send(&url, &bodies(30));
    let mut source = open_at(proxy.url(), &url).await;
    let (mut held, all) = hold(&mut source, 30).await;
    assert_eq!(all, sorted(bodies(30)));
    hide_queue(&proxy);
    // Some are committed while it is gone: they can't be deleted, and come again if the queue does. So nothing is asked of
    // them.
    let committed = held.remove(0);
    let mut seen: BTreeSet<String> = texts(&committed).into_iter().collect();
    source.ack(committed.ack, &receipts(&committed)).await;
    let why = down(&mut source).await;
    assert!(why.contains(name) && why.contains("the queue is not there"), "{why}");
    for batch in held {
        source.refuse(batch.ack, Duration::ZERO).await;
    }
    proxy.heal();
    let by = Instant::now() + PATIENCE;
    while seen.len() < 30 || server().depth(&url) != EMPTY {
        assert!(Instant::now() < by, "{} seen, {:?}, {:?}", seen.len(), server().depth(&url), source.health());
        if let Ok(batch) = tokio::time::timeout(Duration::from_millis(200), source.next(ROOMY)).await {
            let batch = batch.unwrap().unwrap();
            seen.extend(texts(&batch));
            source.ack(batch.ack, &receipts(&batch)).await;
        }
    }
    assert_eq!(source.health(), Health::Ready);
    stop(source).await;
}
