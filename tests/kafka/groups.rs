//! Groups: members come and go, and every message is taken.

use super::*;

/// Name, protocol, and settings of librdkafka.
type Way = (&'static str, Protocol, Vec<(&'static str, &'static str)>);

fn ways() -> Vec<Way> {
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
            let records: Vec<Record> = (0..60).map(|n| Record::of(format!("{round}-{n}")).to(n % 6)).collect();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_goes_while_the_store_is_away_is_read_again_when_it_comes_back() {
    let broker = Broker::shared();
    for strategy in ["cooperative-sticky", "range"] {
        let (topic, group) = (broker.topic("paused", 2), unique("group"));
        let records: Vec<Record> = (0..300).map(|n| Record::of(format!("{n}")).to(n % 2)).collect();
        broker.produce(&topic, &records);
        let plain = settings(&broker.plaintext(), &[&topic], &group);
        let way = [&QUICK[..], &[("partition.assignment.strategy", strategy)]].concat();
        let cluster = Cluster { properties: properties(&way), ..plain.cluster.clone() };
        let of_both = Settings { cluster, ..plain };
        let mut source = KafkaSource::open(of_both.clone()).unwrap();
        // For longer than the second after which the partitions are paused.
        let room = Room { messages: 10, ..ROOMY };
        let mut batch = next(&mut source, room).await;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            source.refuse(batch.ack, Duration::from_millis(300)).await;
            batch = next(&mut source, room).await;
        }
        let member = Member::join(Settings { name: unique("source"), ..of_both });
        until(&format!("{strategy}: the other member has a partition"), || !member.taken().is_empty()).await;
        // The store is back: so much of one partition comes only after it is resumed.
        source.ack(batch.ack, &receipts(&batch)).await;
        let mut all = bodies(&batch);
        let by = Instant::now() + PATIENCE;
        while (0..300).any(|n| !all.contains(&n.to_string()) && !member.taken().contains(&n.to_string())) {
            assert!(Instant::now() < by, "{strategy}: both take what is theirs");
            if let Ok(batch) = timeout(Duration::from_millis(100), source.next(ROOMY)).await {
                let batch = batch.unwrap().unwrap();
                all.extend(bodies(&batch));
                source.ack(batch.ack, &receipts(&batch)).await;
            }
        }
        member.leave().await;
        broker.produce(&topic, &[Record::of("new 0").to(0), Record::of("new 1").to(1)]);
        while !["new 0", "new 1"].iter().all(|new| all.contains(&(*new).to_owned())) {
            all.extend(take(&mut source, 1).await);
        }
        until_no_lag(&group, &topic).await;
        stop(source).await;
    }
}

#[tokio::test]
async fn a_static_member_keeps_its_place_over_a_restart() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("static", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a")]);
    let open = |name: &str| {
        let plain = settings(&broker.plaintext(), &[&topic], &group);
        // As long as it may take to start again.
        let patient = [("session.timeout.ms", "60000")];
        let cluster = Cluster { properties: properties(&patient), ..plain.cluster.clone() };
        KafkaSource::open(Settings { instance_id: Some(name.to_owned()), cluster, ..plain }).unwrap()
    };
    let mut source = open("worker-0");
    take(&mut source, 1).await;
    // One that has nothing to give back would leave at once.
    let other = open("worker-1");
    until("both are members", || broker.members(&group) == Some(2)).await;
    stop(other).await;
    assert_eq!(broker.members(&group), Some(2), "nothing is shared out anew");
    stop(source).await;
    assert_eq!(broker.committed(&group, &topic), [Some(1)]);
    assert_eq!(broker.members(&group), Some(2), "nobody has to take over");
    broker.produce(&topic, &[Record::of("b")]);
    let mut source = open("worker-0");
    assert_eq!(take(&mut source, 1).await, ["b"]);
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
