//! The brokers that tests start: what `tests/support/kafka.rs` and `tests/support/elasticmq.rs` promise to the suites that
//! use them.

#![allow(clippy::duplicate_mod, reason = "both brokers run on the JVM, and most test files need one of them")]

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Message};

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/process.rs"]
mod process;

use elasticmq::{Depth, ElasticMq};
use kafka::{Broker, PASSWORD, Record, USER, certificates, unique};
use process::until;

#[test]
fn messages_come_back_as_they_were_sent() {
    let broker = Broker::shared();
    let topic = broker.topic("round", 3);
    let sent = [
        Record::of("one").key("k").header("ce_id", "1").header("twice", "a").header("twice", b"\xff").to(0),
        Record { partition: Some(1), key: None, value: None, timestamp: Some(1_700_000_000_000), ..Record::default() },
        Record { headers: vec![("empty".to_owned(), None)], ..Record::of("").to(2) },
    ];
    broker.produce(&topic, &sent);
    let mut read = broker.consume(&topic);
    for (record, sent) in read.iter_mut().zip(&sent) {
        assert_eq!(record.offset, 0);
        record.timestamp = sent.timestamp;
    }
    assert_eq!(read, sent);
}

#[test]
fn every_compression_is_taken() {
    let broker = Broker::shared();
    for (codec, compression) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let topic = broker.topic(compression, 1);
        let producer = broker.producer(&[("compression.type", compression)]);
        for n in 0..100 {
            producer.send(&topic, &Record::of(format!("message {n}")));
        }
        producer.flush();
        assert_eq!(broker.consume(&topic).len(), 100, "{compression}");
        assert!(broker.codecs(&topic).contains(&codec), "{compression} is stored as it was sent");
    }
}

#[test]
fn an_aborted_transaction_is_not_read_and_its_marker_counts_in_the_lag() {
    let broker = Broker::shared();
    let topic = broker.topic("transactions", 1);
    let producer = broker.producer(&[("transactional.id", &unique("transaction"))]);
    producer.begin_transactions();
    producer.transaction(&topic, &[Record::of("kept"), Record::of("kept too")], true);
    producer.transaction(&topic, &[Record::of("aborted")], false);
    let read: Vec<String> = broker.consume(&topic).iter().map(Record::text).collect();
    assert_eq!(read, ["kept", "kept too"]);
    assert_eq!(broker.watermarks(&topic), [(0, 5)], "three messages and two markers");
    assert_eq!(broker.lag("nobody", &topic), 5);
}

#[test]
fn the_lag_of_a_group_is_what_it_has_not_committed() {
    let broker = Broker::shared();
    let (topic, group) = (broker.topic("lag", 2), unique("group"));
    broker.produce(&topic, &[Record::of("a").to(0), Record::of("b").to(0), Record::of("c").to(1)]);
    assert_eq!((broker.committed(&group, &topic), broker.lag(&group, &topic)), (vec![None, None], 3));
    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", &group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let mut left = 3;
    until("all messages", || {
        let message = consumer.poll(Duration::from_millis(100))?.unwrap();
        left -= 1;
        if message.partition() == 0 {
            consumer.commit_message(&message, CommitMode::Sync).unwrap();
        }
        (left == 0).then_some(())
    });
    until("a stable group", || broker.members(&group).filter(|n| *n == 1));
    assert_eq!((broker.committed(&group, &topic), broker.lag(&group, &topic)), (vec![Some(2), None], 1));
    broker.delete_records(&topic, &[0, 1]);
    assert_eq!(broker.watermarks(&topic), [(0, 2), (1, 1)]);
    broker.until_no_lag(&group, &topic);
}

#[test]
fn topics_grow_and_go() {
    let broker = Broker::shared();
    let topic = broker.topic("grows", 1);
    broker.add_partitions(&topic, 4);
    until("four partitions", || (broker.watermarks(&topic).len() == 4).then_some(()));
    broker.delete_topic(&topic);
    broker.create_topic(&topic, 2, &[("max.message.bytes", "4000000")]);
    broker.produce(&topic, &[Record::of(vec![b'x'; 3_000_000])]);
    assert_eq!(broker.consume(&topic)[0].value.as_ref().unwrap().len(), 3_000_000);
}

/// The topics that a client sees through `config`, or what librdkafka says about why not.
fn topics(config: &mut ClientConfig) -> Result<usize, String> {
    config.set("broker.address.family", "v4").set("group.id", "sees");
    let consumer: BaseConsumer = config.create().map_err(|e| e.to_string())?;
    let found = consumer.fetch_metadata(None, Duration::from_secs(5)).map_err(|e| e.to_string())?;
    Ok(found.topics().len())
}

#[test]
fn tls_with_a_password_lets_in_who_has_it() {
    let broker = Broker::shared();
    let ca = broker.certificates().ca.to_str().unwrap();
    let client = |mechanism: &str, password: &str, ca: &str| {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.sasl_ssl())
            .set("security.protocol", "sasl_ssl")
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", USER)
            .set("sasl.password", password)
            .set("ssl.ca.location", ca);
        topics(&mut config)
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        client(mechanism, PASSWORD, ca).unwrap_or_else(|e| panic!("{mechanism}: {e}"));
    }
    client("PLAIN", "wrong", ca).unwrap_err();
    let stranger = certificates();
    client("PLAIN", PASSWORD, stranger.ca.to_str().unwrap()).unwrap_err();
}

#[test]
fn tls_with_client_certificates_lets_in_who_has_one() {
    let broker = Broker::shared();
    let mine = broker.certificates();
    let client = |certificate: Option<&kafka::Certificates>| {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.ssl())
            .set("security.protocol", "ssl")
            .set("ssl.ca.location", mine.ca.to_str().unwrap());
        if let Some(certificate) = certificate {
            config
                .set("ssl.certificate.location", certificate.cert.to_str().unwrap())
                .set("ssl.key.location", certificate.key.to_str().unwrap());
        }
        topics(&mut config)
    };
    client(Some(mine)).unwrap();
    client(None).unwrap_err();
    client(Some(&certificates())).unwrap_err();
}

#[test]
fn a_broker_that_is_killed_or_hangs_comes_back_with_its_messages() {
    let broker = Broker::start();
    let topic = broker.topic("survives", 1);
    broker.produce(&topic, &[Record::of("before")]);
    broker.kill();
    let (producer, address) = (broker.producer(&[]), broker.plaintext());
    producer.send(&topic, &Record::of("while it was down"));
    assert!(std::net::TcpStream::connect(&address).is_err());
    broker.restart();
    producer.flush();
    broker.signal("STOP");
    producer.send(&topic, &Record::of("while it hung"));
    broker.signal("CONT");
    producer.flush();
    let read: Vec<String> = broker.consume(&topic).iter().map(Record::text).collect();
    assert_eq!(read, ["before", "while it was down", "while it hung"]);
}

#[test]
fn a_dropped_broker_leaves_nothing_behind() {
    let broker = Broker::start();
    let (address, folder) = (broker.plaintext(), broker.folder().to_owned());
    assert!(folder.join("pid").exists());
    drop(broker);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!folder.exists());
}

#[test]
fn queues_give_out_what_they_were_given() {
    let sqs = ElasticMq::shared();
    let queue = sqs.queue(&[(QueueAttributeName::VisibilityTimeout, "5")]);
    let bodies: Vec<String> = (0..25).map(|n| format!("body {n}")).collect();
    sqs.send(&queue, &bodies);
    assert_eq!(sqs.depth(&queue), Depth { visible: 25, ..Depth::default() });
    let mut read: Vec<String> = sqs.drain(&queue).into_iter().map(|m| m.body.unwrap()).collect();
    read.sort_by_key(|body| body[5..].parse::<u32>().unwrap());
    assert_eq!(read, bodies);
    assert_eq!(sqs.depth(&queue), Depth::default());
}

#[test]
fn a_fifo_queue_keeps_the_order_of_a_group() {
    let sqs = ElasticMq::shared();
    let queue = sqs.fifo(&[]);
    sqs.send_to_groups(&queue, &[(Some("a"), "1"), (Some("b"), "x"), (Some("a"), "2"), (Some("a"), "2")]);
    let read: Vec<String> = sqs.drain(&queue).into_iter().map(|m| m.body.unwrap()).collect();
    let of_a: Vec<&str> = read.iter().map(String::as_str).filter(|b| *b != "x").collect();
    assert_eq!((read.len(), of_a), (4, vec!["1", "2", "2"]));
}

#[tokio::test]
async fn what_is_received_too_often_moves_to_the_dead_letter_queue() {
    let sqs = ElasticMq::shared();
    let (queue, dead) = sqs.with_redrive(2, &[(QueueAttributeName::VisibilityTimeout, "0")]);
    sqs.send(&queue, &["poison".to_owned()]);
    until("the message in the dead-letter queue", || {
        sqs.call(sqs.client().receive_message().queue_url(&queue).send()).unwrap();
        (sqs.depth(&dead).visible == 1).then_some(())
    });
    assert_eq!(sqs.depth(&queue), Depth::default());
}

#[test]
fn a_killed_queue_server_comes_back_empty() {
    let sqs = ElasticMq::start();
    sqs.queue(&[]);
    sqs.kill();
    assert!(sqs.call(sqs.client().list_queues().send()).is_err());
    sqs.restart();
    assert!(sqs.call(sqs.client().list_queues().send()).unwrap().queue_urls.is_none_or(|all| all.is_empty()));
}
