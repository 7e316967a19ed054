//! The outlet of kind `kafka`, as dead letters use it.

use owlpost::outlet::kafka::KafkaOutlet;
use owlpost::outlet::{Outgoing, Outlet, OutletError};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_headers_make_it_too_large_is_refused_for_good_and_holds_up_no_other() {
    let broker = Broker::shared();
    let topic = unique("headers");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    let raw = properties(&[("compression.type", "none")]);
    let cluster = Cluster { brokers: vec![broker.plaintext()], properties: raw, iam: false };
    let outlet = KafkaOutlet::new(&cluster, &Identity::default(), &topic).unwrap();
    let outgoing = |n: usize, header: usize| Outgoing {
        key: Some("events".to_owned()),
        headers: vec![("ce_subject".to_owned(), "x".repeat(header))],
        body: n.to_string().into_bytes(),
    };
    let large = [3, 17, 40];
    let sent: Vec<Outgoing> = (0..60).map(|n| outgoing(n, if large.contains(&n) { 30_000 } else { 10 })).collect();
    let answers = outlet.send(&sent).await;
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Ok(()) => assert!(!large.contains(&n), "{n}"),
            // With what made it too large: the body has two bytes.
            Err(OutletError::Refused(why)) => {
                assert!(large.contains(&n) && why.starts_with("30") && why.contains("headers"), "{n}: {why}");
            }
            Err(other) => panic!("{n}: {other}"),
        }
    }
    let mut arrived: Vec<usize> = broker.consume(&topic).iter().map(|record| record.text().parse().unwrap()).collect();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..60).filter(|n| !large.contains(n)).collect::<Vec<_>>(), "each once");
}
