//! Groups: members come and go, and every message is taken.

use super::*;

fn ways() -> Vec<(&'static str, Protocol, Vec<(&'static str, &'static str)>)> {
    let classic = |strategy| [&QUICK[..], &[("partition.assignment.strategy", strategy)]].concat();
    vec![
        ("cooperative", Protocol::Classic, QUICK.to_vec()),
        ("range", Protocol::Classic, classic("range")),
        ("roundrobin", Protocol::Classic, classic("roundrobin")),
        // KIP-848.
        ("consumer", Protocol::Consumer, Vec::new()),
    ]
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let by = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < by, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_take_over_from_each_other_by_every_protocol() {
    let broker = Broker::shared();
    for (way, protocol, properties) in ways() {
        let (topic, group) = (broker.topic(way, 6), unique("group"));
        let member = || {
            let plain = settings(&broker.plaintext(), &[&topic], &group);
            let cluster = Cluster { properties: super::properties(&properties), ..plain.cluster.clone() };
            Member::join(Settings { protocol, cluster, ..plain })
        };
        let produce = |round: usize| {
            let records: Vec<Record> =
                (0..60).map(|n| Record::of(format!("{round}-{n}")).to(i32::try_from(n % 6).unwrap())).collect();
            broker.produce(&topic, &records);
        };
        let one = member();
        produce(0);
        until(&format!("{way}: one member takes all"), || one.taken().len() == 60).await;
        let two = member();
        // Both have partitions as soon as both take messages.
        let mut rounds = 1;
        while two.taken().is_empty() {
            produce(rounds);
            rounds += 1;
            assert!(rounds < 300, "{way}: the second member gets nothing");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        one.leave().await;
        produce(rounds);
        rounds += 1;
        let last = rounds - 1;
        until(&format!("{way}: the other takes over"), || {
            two.taken().iter().filter(|body| body.starts_with(&format!("{last}-"))).count() == 60
        })
        .await;
        until_no_lag(&group, &topic).await;
        two.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_lost_partitions_count_for_nothing_and_the_others_still_do() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("lost", 2), unique("group"));
    broker.produce(&topic, &[Record::of("a").to(0), Record::of("b").to(1)]);
    let mut source = open(&[&topic], &group);
    let mut out = Vec::new();
    let mut seen = 0;
    while seen < 2 {
        let batch = next(&mut source, ROOMY).await;
        seen += batch.messages.len();
        out.push(batch);
    }
    // Another member gets one of the two, and reads its message again.
    let member = Member::join(settings(&broker.plaintext(), &[&topic], &group));
    until("the other member has a partition", || !member.taken().is_empty()).await;
    let theirs = member.taken();
    for batch in &out {
        source.ack(batch.ack, &receipts(batch)).await;
    }
    until_no_lag(&group, &topic).await;
    assert_eq!(member.taken(), theirs, "the partition that stayed was not read again");
    assert_eq!(theirs.len(), 1);
    member.leave().await;
    stop(source).await;
}

#[tokio::test]
async fn a_second_process_with_the_same_instance_id_is_fatal_and_named() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("instance", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a")]);
    let one = || {
        let plain = settings(&broker.plaintext(), &[&topic], &group);
        KafkaSource::open(Settings { instance_id: Some("worker-0".to_owned()), ..plain }).unwrap()
    };
    let mut first = one();
    take(&mut first, 1).await;
    // The newcomer takes over; the group tells the other at its next heartbeat.
    let second = one();
    match timeout(PATIENCE, first.next(ROOMY)).await.unwrap() {
        Err(SourceError::Fatal(why)) => assert!(why.contains("instance_id"), "{why}"),
        other => panic!("{other:?}"),
    }
    stop(first).await;
    stop(second).await;
}
