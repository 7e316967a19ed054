//! What every source promises (`tests/sources.rs`), on Kafka.

use owlpost::source::Ack;

use super::*;

fn five() -> (String, String) {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("five", 1), unique("group"));
    broker.produce(&topic, &(0..5).map(|n| Record::of(n.to_string())).collect::<Vec<_>>());
    (topic, group)
}

#[tokio::test]
async fn batches_keep_to_the_room_and_nothing_is_lost_or_given_twice() {
    for room in
        [ROOMY, Room { messages: 2, ..ROOMY }, Room { messages: 1_000, bytes: 2 }, Room { messages: 1, bytes: 0 }]
    {
        let (topic, group) = five();
        let mut source = open(&[&topic], &group);
        let mut all = Vec::new();
        while all.len() < 5 {
            let batch = next(&mut source, room).await;
            assert!(batch.messages.len() <= room.messages.max(1));
            assert!(
                batch.messages.len() == 1 || batch.messages.iter().map(|m| m.body.len()).sum::<usize>() <= room.bytes
            );
            all.extend(bodies(&batch));
            source.ack(batch.ack, &receipts(&batch)).await;
        }
        assert_eq!(all, ["0", "1", "2", "3", "4"], "{room:?}");
        stop(source).await;
        assert_eq!(Broker::shared().committed(&group, &topic), [Some(5)]);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let (topic, group) = five();
    let mut source = open(&[&topic], &group);
    let mut all = Vec::new();
    let by = Instant::now() + PATIENCE;
    while all.len() < 5 {
        assert!(Instant::now() < by, "{all:?}");
        tokio::select! {
            biased;
            batch = source.next(Room { messages: 1, bytes: 1 }) => {
                let batch = batch.unwrap().unwrap();
                all.extend(bodies(&batch));
                source.ack(batch.ack, &receipts(&batch)).await;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(all, ["0", "1", "2", "3", "4"]);
    stop(source).await;
}

#[tokio::test]
async fn refused_batches_come_again_in_their_order_and_before_anything_new() {
    let (topic, group) = five();
    let mut source = open(&[&topic], &group);
    let room = Room { messages: 2, ..ROOMY };
    let mut first = next(&mut source, room).await;
    // The first may have come before the second was there.
    if first.messages.len() < 2 {
        source.refuse(first.ack, Duration::from_millis(300)).await;
        first = next(&mut source, room).await;
    }
    let second = next(&mut source, room).await;
    source.refuse(first.ack, Duration::from_millis(100)).await;
    source.refuse(second.ack, Duration::from_millis(100)).await;
    let again = next(&mut source, room).await;
    assert_eq!(again.messages, first.messages);
    assert_ne!(again.ack, first.ack);
    source.ack(again.ack, &receipts(&again)).await;
    let mut all = bodies(&again);
    all.extend(take(&mut source, 5 - all.len()).await);
    assert_eq!(all, ["0", "1", "2", "3", "4"]);
    stop(source).await;
    assert_eq!(Broker::shared().committed(&group, &topic), [Some(5)]);
}

#[tokio::test]
async fn a_batch_that_is_refused_twice_keeps_its_place() {
    let (topic, group) = five();
    let mut source = open(&[&topic], &group);
    let room = Room { messages: 1, ..ROOMY };
    let (first, second) = (next(&mut source, room).await, next(&mut source, room).await);
    source.refuse(first.ack, Duration::ZERO).await;
    source.refuse(second.ack, Duration::ZERO).await;
    let again = next(&mut source, room).await;
    assert_eq!(again.messages, first.messages);
    source.refuse(again.ack, Duration::ZERO).await;
    assert_eq!(take(&mut source, 5).await, ["0", "1", "2", "3", "4"]);
    stop(source).await;
    assert_eq!(Broker::shared().committed(&group, &topic), [Some(5)]);
}

#[tokio::test]
async fn after_a_stop_nothing_new_comes_and_late_answers_harm_nobody() {
    let (topic, group) = five();
    let mut source = open(&[&topic], &group);
    let batch = next(&mut source, Room { messages: 1, bytes: 1 }).await;
    source.stop(Instant::now() + PATIENCE).await;
    assert_eq!(source.health(), Health::Ended);
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
    source.ack(batch.ack, &receipts(&batch)).await;
    source.refuse(batch.ack, Duration::ZERO).await;
    source.ack(Ack { batch: 77, epoch: 9 }, &[]).await;
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
    let committed = Broker::shared().committed(&group, &topic);
    assert!(matches!(committed[..], [None | Some(0)]), "at most where the group began: {committed:?}");
}

#[tokio::test]
async fn a_source_that_ends_says_so_once_everything_is_settled() {
    let (topic, group) = five();
    let plain = settings(&Broker::shared().plaintext(), &[&topic], &group);
    let mut source = KafkaSource::open(Settings { until_idle: true, ..plain }).unwrap();
    let batch = next(&mut source, ROOMY).await;
    let mut seen = batch.messages.len();
    let mut out = vec![batch];
    while seen < 5 {
        let batch = next(&mut source, ROOMY).await;
        seen += batch.messages.len();
        out.push(batch);
    }
    // What is produced after the start is for the next run, and what is out may still be refused.
    Broker::shared().produce(&topic, &(5..8).map(|n| Record::of(n.to_string())).collect::<Vec<_>>());
    let waiting = timeout(Duration::from_millis(500), source.next(ROOMY)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    for batch in &out {
        source.ack(batch.ack, &receipts(batch)).await;
    }
    assert_eq!(timeout(PATIENCE, source.next(ROOMY)).await.unwrap().unwrap(), None);
    assert_eq!(source.health(), Health::Ended);
    // Not only after a stop, which waits for nobody.
    assert_eq!(Broker::shared().lag(&group, &topic), 3, "the group knows of it when the run ends");
    stop(source).await;
    let mut rest = open(&[&topic], &group);
    assert_eq!(take(&mut rest, 3).await, ["5", "6", "7"], "the next run takes it");
    stop(rest).await;
}
