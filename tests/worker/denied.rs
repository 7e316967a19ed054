//! Sources that are not let in: each says what is to be set, and holds up none of the others.

use std::time::Duration;

use owlpost::aws::Identity;
use owlpost::kafka::Cluster;
use owlpost::source::kafka::{KafkaSource, Protocol, Settings};
use owlpost::source::{Room, Source, SourceError};
use tokio::time::timeout;

use super::*;
use crate::acls::Acls;
use crate::kafka::{PASSWORD, USER, certificates, unique};
use crate::process::{PATIENCE, get, until};

/// Properties of a source that signs in.
fn signed_in(password: &str, ca: &Path) -> String {
    format!(
        "[source.properties]\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = {USER:?}\n\
         \"sasl.password\" = {password:?}\n\"ssl.ca.location\" = {:?}\n\"session.timeout.ms\" = 3000\n",
        ca.display().to_string()
    )
}

#[test]
fn each_source_that_is_not_let_in_names_its_setting_and_the_others_go_on() {
    let broker = broker();
    let client = broker.client();
    let (mine, nobody) = (Acls::of(&client, USER), Acls::of(&client, "nobody"));
    let topics =
        ["open", "unreadable", "hidden", "no-group", "wrong-password", "wrong-ca"].map(|name| broker.topic(name, 1));
    let [open, unreadable, hidden, no_group, wrong_password, wrong_ca] = &topics;
    let groups = ["a", "b", "c", "d", "e", "f", "g"].map(unique);
    let missing = unique("missing");
    // Seen and not read; not even seen; read, and in a group that is not to be used.
    nobody.may_read_topic(unreadable);
    mine.may_describe_topic(unreadable);
    nobody.may_read_topic(hidden);
    nobody.may_read_group(&groups[3]);
    for topic in &topics {
        broker.produce(topic, &[record(topic)]);
    }
    let (ca, stranger) = (broker.certificates().ca.clone(), certificates());
    let source = |name: &str, topic: &str, group: &str, password: &str, ca: &Path| {
        kafka_source(name, &broker.sasl_ssl(), topic, group) + &signed_in(password, ca)
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let all = [
        source("open", open, &groups[0], PASSWORD, &ca),
        source("unreadable", unreadable, &groups[1], PASSWORD, &ca),
        source("hidden", hidden, &groups[2], PASSWORD, &ca),
        source("no-group", no_group, &groups[3], PASSWORD, &ca),
        source("wrong-password", wrong_password, &groups[4], "wrong", &ca),
        source("wrong-ca", wrong_ca, &groups[5], PASSWORD, &stranger.ca),
        source("missing", &missing, &groups[6], PASSWORD, &ca),
    ];
    config(folder, &all.concat());
    let mut worker = run(folder);
    let address = worker.address();
    let accepted = |source: &str| {
        let line = format!("owlpost_events_total{{source=\"{source}\",outcome=\"accepted\"}} 1");
        get(&address, "/metrics").is_ok_and(|(_, text)| text.contains(&line))
    };
    until("the source that is let in", || accepted("open").then_some(()));
    let words = [
        ("unreadable", &[unreadable.as_str(), "source.topics", "READ"][..]),
        ("hidden", &[hidden, "source.topics", "DESCRIBE"]),
        ("no-group", &[&groups[3], "source.group", "READ"]),
        ("wrong-password", &["sasl.password"]),
        ("wrong-ca", &["ssl.ca.location"]),
        ("missing", &[&missing, "source.topics"]),
    ];
    let mut last = String::new();
    let by = std::time::Instant::now() + process::PATIENCE;
    loop {
        assert!(std::time::Instant::now() < by, "not all are told: {last}");
        let (code, said) = get(&address, "/readyz").unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let reasons: Vec<&str> = said["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        let told = |(name, words): &(&str, &[&str])| {
            let of_it = reasons.iter().find(|reason| reason.starts_with(&format!("source {name}: ")));
            of_it.is_some_and(|reason| words.iter().all(|word| reason.contains(word)))
        };
        last = said.to_string();
        assert!(!last.contains("\"wrong\"") && !last.contains(PASSWORD), "no password in {last}");
        if words.iter().all(told) {
            // One that takes events is enough to be ready.
            assert_eq!((code, said["sources"]["open"].as_str()), (200, Some("ready")), "{last}");
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Granted, and made: they go on by themselves.
    mine.may_read_topic(unreadable);
    mine.may_read_topic(hidden);
    mine.may_read_group(&groups[3]);
    broker.create_topic(&missing, 1, &[]);
    broker.produce(&missing, &[record(&missing)]);
    for source in ["unreadable", "hidden", "no-group", "missing"] {
        until(source, || accepted(source).then_some(()));
    }
    worker.signal("TERM");
    worker.ends_with(0);
}

#[tokio::test]
async fn a_run_to_the_end_of_which_the_group_does_not_hear_fails_and_says_so() {
    let broker = broker();
    let (topic, group) = (broker.topic("unheard", 1), unique("group"));
    broker.produce(&topic, &[record(1)]);
    let ca = broker.certificates().ca.display().to_string();
    let properties =
        [("sasl.mechanism", "PLAIN"), ("sasl.username", USER), ("sasl.password", PASSWORD), ("ssl.ca.location", &*ca)];
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owlpost::metrics::install();
    let settings = Settings {
        name: unique("source"),
        cluster: Cluster { brokers: vec![broker.sasl_ssl()], properties, iam: false },
        topics: vec![topic.clone()],
        group: group.clone(),
        instance_id: None,
        protocol: Protocol::Classic,
        event_bytes: 1_048_576,
        identity: Identity::default(),
        until_idle: true,
    };
    let mut source = KafkaSource::open(settings).unwrap();
    let room = Room { messages: 10, bytes: 1_000_000 };
    let batch = timeout(PATIENCE, source.next(room)).await.unwrap().unwrap().unwrap();
    Acls::of(&broker.client(), "nobody").may_read_group(&group);
    source.ack(batch.ack, &[]).await;
    match timeout(PATIENCE, source.next(room)).await.unwrap() {
        Err(SourceError::Fatal(why)) => assert!(why.contains(&group) && why.contains("source.group"), "{why}"),
        other => panic!("{other:?}"),
    }
    source.stop(tokio::time::Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(broker.committed(&group, &topic), [None]);
}
