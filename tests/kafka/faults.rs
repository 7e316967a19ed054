//! What goes wrong with brokers, topics and the store, and how it ends.

use super::*;

fn down(words: &'static [&'static str]) -> impl Fn(&Health) -> bool {
    move |health| matches!(health, Health::Down(why) if words.iter().all(|word| why.contains(word)))
}

fn ready(health: &Health) -> bool {
    *health == Health::Ready
}

#[tokio::test]
async fn an_unknown_topic_is_named_with_its_setting_and_taken_once_it_is_there() {
    let broker = Broker::shared();
    let (topic, group) = (unique("later"), unique("group"));
    let mut source = open(&[&topic], &group);
    let health = until_health(&source, "the topic is missed", down(&["source.topics"])).await;
    assert!(matches!(health, Health::Down(why) if why.contains(&topic)));
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &[Record::of("a")]);
    assert_eq!(take(&mut source, 1).await, ["a"]);
    until_health(&source, "ready", ready).await;
    stop(source).await;
}

#[tokio::test]
async fn a_topic_that_is_missing_does_not_hold_up_the_others() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("there", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a")]);
    let missing = unique("missing");
    let mut source = open(&[&missing, &topic], &group);
    assert_eq!(take(&mut source, 1).await, ["a"]);
    until_health(&source, "the topic is missed", down(&["source.topics"])).await;
    until_no_lag(&group, &topic).await;
    stop(source).await;
}

/// TLS to `localhost` with SASL, and what is wrong with it.
fn secured(pairs: &[(&str, &str)]) -> Settings {
    let broker = Broker::shared();
    let ca = broker.certificates().ca.display().to_string();
    let right = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", broker::USER),
        ("sasl.password", broker::PASSWORD),
        ("ssl.ca.location", &ca),
    ];
    let mut properties = properties(&[&QUICK[..], &right[..]].concat());
    properties.extend(super::properties(pairs));
    let topic = broker.topic("secured", 1);
    broker.produce(&topic, &[Record::of("a")]);
    let plain = settings(&broker.sasl_ssl(), &[&topic], &unique("group"));
    Settings { cluster: Cluster { properties, ..plain.cluster }, ..plain }
}

#[tokio::test]
async fn tls_with_every_mechanism_of_sasl_and_with_client_certificates() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut source = KafkaSource::open(secured(&[("sasl.mechanism", mechanism)])).unwrap();
        assert_eq!(take(&mut source, 1).await, ["a"], "{mechanism}");
        stop(source).await;
    }
    let broker = Broker::shared();
    let topic = broker.topic("mutual", 1);
    broker.produce(&topic, &[Record::of("a")]);
    let of = broker.certificates();
    let plain = settings(&broker.ssl(), &[&topic], &unique("group"));
    let (ca, cert, key) = (of.ca.display().to_string(), of.cert.display().to_string(), of.key.display().to_string());
    let mutual = [
        ("security.protocol", "ssl"),
        ("ssl.ca.location", &*ca),
        ("ssl.certificate.location", &*cert),
        ("ssl.key.location", &*key),
    ];
    let cluster = Cluster { properties: properties(&mutual), ..plain.cluster.clone() };
    let mut source = KafkaSource::open(Settings { cluster, ..plain }).unwrap();
    assert_eq!(take(&mut source, 1).await, ["a"]);
    stop(source).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_with_its_setting() {
    let source = KafkaSource::open(secured(&[("sasl.password", "wrong")])).unwrap();
    until_health(&source, "the sign-in is refused", down(&["sasl.password"])).await;
    stop(source).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_told_with_its_setting() {
    let other = broker::certificates();
    let source = KafkaSource::open(secured(&[("ssl.ca.location", &other.ca.display().to_string())])).unwrap();
    until_health(&source, "the certificate is refused", down(&["certificate", "ssl.ca.location"])).await;
    stop(source).await;
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_told_with_their_setting() {
    // Bound and closed: nobody is there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = KafkaSource::open(settings(&free.to_string(), &["t"], "g")).unwrap();
    until_health(&source, "no broker answers", down(&["source.brokers"])).await;
    stop(source).await;
}

#[tokio::test]
async fn a_file_that_a_property_names_and_that_is_not_there_is_fatal_at_once() {
    match KafkaSource::open(secured(&[("ssl.ca.location", "/nowhere/ca.pem")])) {
        Err(SourceError::Fatal(why)) => assert!(why.contains("ssl.ca.location"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn an_offset_that_is_gone_begins_at_what_is_left_and_is_counted() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("gone", 1), unique("group"));
    broker.produce(&topic, &(0..10).map(|n| Record::of(n.to_string())).collect::<Vec<_>>());
    let mut source = open(&[&topic], &group);
    let first = next(&mut source, Room { messages: 2, ..ROOMY }).await;
    source.ack(first.ack, &receipts(&first)).await;
    let settled = first.messages.len() as i64;
    stop(source).await;
    assert_eq!(broker.committed(&group, &topic), [Some(settled)]);
    broker.delete_records(&topic, &[8]);
    let mut source = open(&[&topic], &group);
    assert_eq!(take(&mut source, 2).await, ["8", "9"]);
    until_no_lag(&group, &topic).await;
    assert_eq!(counter("owlpost_source_offset_resets_total", source.name()), 1);
    stop(source).await;
}

#[tokio::test]
async fn an_offset_that_is_gone_and_may_not_be_reset_is_told_and_ends_a_run_to_the_end() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("stuck", 2), unique("group"));
    let records: Vec<Record> = (0..8).map(|n| Record::of(n.to_string()).to(n % 2)).collect();
    broker.produce(&topic, &records);
    let mut source = open(&[&topic], &group);
    take(&mut source, 8).await;
    stop(source).await;
    broker.produce(&topic, &[records, vec![Record::of("last").to(1)]].concat());
    broker.delete_records(&topic, &[6, 4]);
    let plain = settings(&broker.plaintext(), &[&topic], &group);
    let strict = [&QUICK[..], &[("auto.offset.reset", "error")]].concat();
    let cluster = Cluster { properties: properties(&strict), ..plain.cluster.clone() };
    let mut source = KafkaSource::open(Settings { cluster, until_idle: true, ..plain }).unwrap();
    // The other partition is read to its end first.
    assert_eq!(take(&mut source, 5).await, ["1", "3", "5", "7", "last"]);
    match timeout(PATIENCE, source.next(ROOMY)).await.unwrap() {
        Err(SourceError::Fatal(why)) => assert!(why.contains(&topic) && why.contains("auto.offset.reset"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(down(&["auto.offset.reset"])(&source.health()));
    stop(source).await;
    assert_eq!(broker.committed(&group, &topic), [Some(4), Some(9)]);
}

#[tokio::test]
async fn a_topic_that_is_made_again_with_fewer_messages_is_read_from_its_beginning() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("again", 1), unique("group"));
    broker.produce(&topic, &(0..5).map(|n| Record::of(format!("old {n}"))).collect::<Vec<_>>());
    let mut source = open(&[&topic], &group);
    take(&mut source, 5).await;
    until_no_lag(&group, &topic).await;
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &(0..3).map(|n| Record::of(format!("new {n}"))).collect::<Vec<_>>());
    let mut all = Vec::new();
    while !all.contains(&"new 2".to_owned()) {
        all.extend(take(&mut source, 1).await);
    }
    assert_eq!(all, ["new 0", "new 1", "new 2"]);
    let (g, t) = (group.clone(), topic.clone());
    tokio::task::spawn_blocking(move || {
        process::until("the group at the new end", || (broker.committed(&g, &t) == [Some(3)]).then_some(()))
    })
    .await
    .unwrap();
    stop(source).await;
}

#[tokio::test]
async fn an_offset_that_was_committed_for_a_topic_that_is_made_again_since_is_not_read_on_from() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("noted", 2), unique("group"));
    broker.produce(&topic, &(0..4).map(|n| Record::of(format!("old {n}")).to(n % 2)).collect::<Vec<_>>());
    let mut source = open(&[&topic], &group);
    take(&mut source, 4).await;
    stop(source).await;
    let note = broker.note(&group, &topic);
    assert!(note.starts_with("topic-id="), "{note:?}");
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 2, &[]);
    broker.produce(&topic, &(0..8).map(|n| Record::of(format!("new {n}")).to(n % 2)).collect::<Vec<_>>());
    // Whoever read on from the old one's offset, and ended before it knew.
    broker.commit(&group, &topic, &[(3, &note), (4, &note)]);
    for until_idle in [false, true] {
        let plain = settings(&broker.plaintext(), &[&topic], &group);
        let mut source = KafkaSource::open(Settings { until_idle, ..plain }).unwrap();
        let wanted: std::collections::BTreeSet<String> = (0..8).map(|n| format!("new {n}")).collect();
        let mut all = std::collections::BTreeSet::new();
        // What is read before it is known comes again.
        while !all.is_superset(&wanted) {
            all.extend(take(&mut source, 1).await);
        }
        if until_idle {
            while let Some(batch) = timeout(PATIENCE, source.next(ROOMY)).await.unwrap().unwrap() {
                source.ack(batch.ack, &receipts(&batch)).await;
            }
        }
        stop(source).await;
        assert_eq!(broker.lag(&group, &topic), 0);
        assert_ne!(broker.note(&group, &topic), note, "it is of the new one");
        broker.commit(&group, &topic, &[(3, &note), (4, &note)]);
    }
}

#[tokio::test]
async fn where_a_group_begins_at_the_end_is_committed_before_anything_is_settled() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("latest", 1), unique("group"));
    let stop_it = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let producing = {
        let (topic, stop_it) = (topic.clone(), Arc::clone(&stop_it));
        // Something comes between the broker's word on the end and the first read.
        std::thread::spawn(move || {
            let producer = broker.producer(&[("linger.ms", "0")]);
            let mut count = 0;
            while !stop_it.load(std::sync::atomic::Ordering::SeqCst) {
                producer.send(&topic, &Record::of(count.to_string()));
                producer.flush();
                count += 1;
            }
        })
    };
    let plain = settings(&broker.plaintext(), &[&topic], &group);
    let latest = [&QUICK[..], &[("auto.offset.reset", "latest")]].concat();
    let cluster = Cluster { properties: properties(&latest), ..plain.cluster.clone() };
    let mut source = KafkaSource::open(Settings { cluster, ..plain }).unwrap();
    let first: i64 = bodies(&next(&mut source, Room { messages: 1, ..ROOMY }).await)[0].parse().unwrap();
    let (g, t) = (group.clone(), topic.clone());
    let looking =
        tokio::task::spawn_blocking(move || process::until("the group's beginning", || broker.committed(&g, &t)[0]));
    let began = looking.await.unwrap();
    stop_it.store(true, std::sync::atomic::Ordering::SeqCst);
    producing.join().unwrap();
    assert_eq!(began, first, "whoever begins again misses nothing");
    stop(source).await;
}

#[tokio::test]
async fn a_commit_that_the_broker_refuses_is_counted_and_said_again() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("refused", 1), unique("group"));
    broker.produce(&topic, &[Record::of("a")]);
    let mut source = open(&[&topic], &group);
    let batch = next(&mut source, ROOMY).await;
    // Nobody may commit to what is not there; until the group hears of it, the partition is assigned.
    broker.delete_topic(&topic);
    source.ack(batch.ack, &receipts(&batch)).await;
    let by = Instant::now() + PATIENCE;
    while counter("owlpost_source_commit_failures_total", source.name()) < 2 {
        assert!(Instant::now() < by, "the refused commit is heard of, and said again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(source).await;
}

#[tokio::test]
async fn a_store_that_is_away_for_longer_than_the_poll_interval_costs_no_rebalance_and_no_message() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("away", 3), unique("group"));
    let records: Vec<Record> = (0..300).map(|n| Record::of(format!("{n:03}")).to(n % 3)).collect();
    broker.produce(&topic, &records);
    let plain = settings(&broker.plaintext(), &[&topic], &group);
    let patience = [&QUICK[..], &[("max.poll.interval.ms", "4000")]].concat();
    let cluster = Cluster { properties: properties(&patience), ..plain.cluster.clone() };
    let mut source = KafkaSource::open(Settings { cluster, ..plain }).unwrap();
    let room = Room { messages: 10, ..ROOMY };
    let first = next(&mut source, room).await;
    let rebalances = counter("owlpost_source_rebalances_total", source.name());
    let began = std::time::Instant::now();
    let expected = bodies(&first);
    let mut batch = first;
    while began.elapsed() < Duration::from_secs(9) {
        source.refuse(batch.ack, Duration::from_millis(500)).await;
        batch = next(&mut source, room).await;
        assert_eq!(bodies(&batch), expected, "what was refused comes first");
    }
    source.ack(batch.ack, &receipts(&batch)).await;
    let mut all = expected;
    all.extend(take(&mut source, 300 - all.len()).await);
    let of = |partition: usize| -> Vec<&String> {
        all.iter().filter(|body| body.parse::<usize>().unwrap() % 3 == partition).collect()
    };
    for partition in 0..3 {
        assert!(of(partition).is_sorted(), "each partition keeps its order");
        assert_eq!(of(partition).len(), 100);
    }
    assert_eq!(counter("owlpost_source_rebalances_total", source.name()), rebalances);
    until_no_lag(&group, &topic).await;
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let broker = Box::leak(Box::new(tokio::task::spawn_blocking(Broker::start).await.unwrap()));
    let (topic, group) = (broker.topic("restart", 2), unique("group"));
    broker.produce(&topic, &[Record::of("a").to(0), Record::of("b").to(1)]);
    let mut source = KafkaSource::open(settings(&broker.plaintext(), &[&topic], &group)).unwrap();
    take(&mut source, 2).await;
    broker.kill();
    until_health(&source, "no broker answers", down(&["source.brokers"])).await;
    broker.restart();
    broker.produce(&topic, &[Record::of("c").to(0), Record::of("d").to(1)]);
    let mut all = Vec::new();
    // What was acknowledged and not committed may come again.
    while !["c", "d"].iter().all(|new| all.contains(&(*new).to_owned())) {
        all.extend(take(&mut source, 1).await);
    }
    until_health(&source, "ready", ready).await;
    let (g, t) = (group.clone(), topic.clone());
    let shared: &'static Broker = broker;
    tokio::task::spawn_blocking(move || shared.until_no_lag(&g, &t)).await.unwrap();
    stop(source).await;
    broker.kill();
}
