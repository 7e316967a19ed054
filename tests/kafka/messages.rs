//! What a message becomes, and what is committed.

use owlpost::model::Time;
use owlpost::source::{TRUNCATED, UNREADABLE};

use super::*;

#[tokio::test]
async fn an_offset_is_committed_after_the_acknowledgement_and_not_before() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("committed", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a"), Record::of("b"), Record::of("c")]);
    let mut source = open(&[&topic], &group);
    let first = next(&mut source, Room { messages: 1, ..ROOMY }).await;
    assert_eq!(bodies(&first), ["a"]);
    let second = next(&mut source, Room { messages: 1, ..ROOMY }).await;
    source.ack(first.ack, &receipts(&first)).await;
    source.refuse(second.ack, Duration::ZERO).await;
    stop(source).await;
    assert_eq!(broker.committed(&group, &topic), [Some(1)]);

    // The next one begins there.
    let mut source = open(&[&topic], &group);
    assert_eq!(take(&mut source, 2).await, ["b", "c"]);
    // While it runs, within seconds.
    until_no_lag(&group, &topic).await;
    stop(source).await;
    assert_eq!(broker.committed(&group, &topic), [Some(3)]);
}

#[tokio::test]
async fn nothing_is_committed_that_was_only_read() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("read", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a")]);
    let mut source = open(&[&topic], &group);
    next(&mut source, ROOMY).await;
    stop(source).await;
    let committed = broker.committed(&group, &topic);
    assert!(matches!(committed[..], [None | Some(0)]), "at most where the group began: {committed:?}");
}

#[tokio::test]
async fn the_lag_falls_to_0_over_markers_aborted_transactions_and_tombstones_of_several_topics() {
    let broker = Broker::shared();
    let (one, two, group) = (broker.topic("markers", 3), broker.topic("tombstones", 3), unique("group"));
    let mut source = open(&[&one, &two], &group);
    let producer = broker.producer(&[("transactional.id", &unique("transaction"))]);
    producer.begin_transactions();
    // Partition 0: an aborted transaction behind the last message. Partition 1: nothing but one. Partition 2: a marker.
    producer.transaction(&one, &[Record::of("kept").to(0), Record::of("last").to(2)], true);
    producer.transaction(&one, &[Record::of("never").to(0), Record::of("never").to(1)], false);
    broker.produce(&two, &[Record::of("x").to(0), Record { partition: Some(0), ..Record::default() }]);
    let mut all = take(&mut source, 4).await;
    all.sort();
    assert_eq!(all, ["", "kept", "last", "x"]);
    until_no_lag(&group, &one).await;
    until_no_lag(&group, &two).await;
    let committed: Vec<i64> = broker.watermarks(&one).iter().map(|(_, end)| *end).collect();
    assert_eq!(broker.committed(&group, &one), committed.iter().map(|end| Some(*end)).collect::<Vec<_>>());
    stop(source).await;
}

#[tokio::test]
async fn a_message_says_where_and_when_it_was_and_keeps_the_headers_that_mean_something() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("headers", 1), unique("group"));
    broker.produce(
        &topic,
        &[
            Record { timestamp: Some(1_764_000_000_123), ..Record::of("{}") }
                .key("k")
                .header("Content-Type", "application/json")
                .header("CE_ID", "1")
                .header("x-other", b"\xff")
                .header("x-owlpost-truncated", "9;00")
                .header("ce_id", "1"),
            Record { headers: vec![("ce_subject".into(), None)], ..Record::of("null header") },
            // Nobody can tell which was meant.
            Record::of("doubled").header("ce_id", "1").header("ce_id", "2").header("ce_type", "t"),
            Record::of("not utf-8").header("ce_source", b"\xff\xfe").header("ce_id", "3"),
            Record { value: None, ..Record::default() }.header("ce_id", "4"),
            Record::of("").header("ce_id", "5"),
        ],
    );
    let mut source = open(&[&topic], &group);
    let mut messages = Vec::new();
    while messages.len() < 6 {
        messages.extend(next(&mut source, ROOMY).await.messages);
    }
    let h = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let first = &messages[0];
    assert_eq!(first.position, format!("topic {topic} partition 0 offset 0"));
    assert_eq!(first.broker_id, Some(format!("{topic}/0/0")));
    assert_eq!(first.headers, [h("content-type", "application/json"), h("ce_id", "1")]);
    assert_eq!(first.time, Some(Time(1_764_000_000_123_000)));
    assert_eq!(messages[1].headers, []);
    let doubled = "unknown_format;header ce_id stands there twice, with different values";
    assert_eq!(messages[2].headers, [h("ce_type", "t"), h(UNREADABLE, doubled)]);
    assert_eq!(messages[2].body, b"doubled");
    let not_utf8 = "not_utf8;the value of header ce_source is not UTF-8";
    assert_eq!(messages[3].headers, [h("ce_id", "3"), h(UNREADABLE, not_utf8)]);
    // A tombstone is one whatever its headers say; an empty value is an event without data.
    assert_eq!((&messages[4].headers[..], &messages[4].body[..]), (&[][..], &b""[..]));
    assert_eq!((&messages[5].headers[..], &messages[5].body[..]), (&[h("ce_id", "5")][..], &b""[..]));
    stop(source).await;
}

/// Looking for twins among all of them would hold up the partition for minutes, and no bound of a value counts headers.
#[tokio::test]
async fn a_message_that_is_all_headers_is_refused_and_holds_up_nobody() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("crowded", 1), unique("group"));
    let many = (0..30_000).fold(Record::of("many"), |record, n| record.header(&format!("ce_x{n}"), "1"));
    let long = Record::of("long").header("ce_id", "1").header("ce_x", vec![b'x'; 100_000]);
    broker.produce(&topic, &[many, long, Record::of("after")]);
    let mut source = open(&[&topic], &group);
    let mut messages = Vec::new();
    while messages.len() < 3 {
        messages.extend(next(&mut source, ROOMY).await.messages);
    }
    for crowded in &messages[..2] {
        let said = crowded.header(UNREADABLE).unwrap();
        assert!(said.starts_with("too_large;more than 100 attributes"), "{said}");
        assert!(crowded.headers.len() <= 101 && !crowded.body.is_empty());
    }
    assert_eq!((messages[1].header("ce_id"), &messages[2].body[..]), (Some("1"), &b"after"[..]));
    stop(source).await;
}

#[tokio::test]
async fn a_value_that_is_too_long_is_handed_on_cut() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("long", 1), unique("group"));
    broker.produce(&topic, &[Record::of(vec![b'x'; 100_001]), Record::of("after")]);
    let mut source =
        KafkaSource::open(Settings { event_bytes: 100_000, ..settings(&broker.plaintext(), &[&topic], &group) })
            .unwrap();
    let mut messages = Vec::new();
    while messages.len() < 2 {
        messages.extend(next(&mut source, ROOMY).await.messages);
    }
    assert_eq!(messages[0].body.len(), 64 * 1024);
    assert!(messages[0].header(TRUNCATED).unwrap().starts_with("100001;"));
    assert_eq!(messages[1].body, b"after");
    stop(source).await;
}

#[tokio::test]
async fn patterns_take_every_topic_that_fits() {
    let broker = Broker::shared();
    let family = unique("family");
    let names = [format!("{family}.a"), format!("{family}.b")];
    names.iter().for_each(|name| broker.create_topic(name, 1, &[]));
    let group = unique("group");
    let mut source = open(&[&format!("^{family}[.].*")], &group);
    names.iter().for_each(|name| broker.produce(name, &[Record::of(name.as_str())]));
    let mut all = take(&mut source, 2).await;
    all.sort();
    assert_eq!(all, names);
    stop(source).await;
}

#[tokio::test]
async fn a_backlog_makes_full_batches_within_the_room() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("backlog", 4), unique("group"));
    let records: Vec<Record> = (0..5_000).map(|n| Record::of(format!("{n:0>500}")).to(n % 4)).collect();
    broker.produce(&topic, &records);
    let mut source = open(&[&topic], &group);
    let room = Room { messages: 1_000, bytes: 8_000_000 };
    // The first may be small; while it is out, the next one fills.
    let mut largest = 0;
    let mut all = Vec::new();
    while all.len() < 5_000 {
        let batch = next(&mut source, room).await;
        assert!(batch.messages.len() <= room.messages);
        largest = largest.max(batch.messages.len());
        all.extend(bodies(&batch));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5_000);
    assert!(largest > 100, "batches grow with a backlog; the largest had {largest}");
    until_no_lag(&group, &topic).await;
    stop(source).await;
}
