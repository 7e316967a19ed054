//! A shadow reads copies of what the real worker reads, and moves nobody's offsets and takes nobody's messages.

use super::*;
use crate::elasticmq::{Depth, ElasticMq};
use crate::kafka::unique;

const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };

/// What a shadow that runs to the end prints.
fn shadow(folder: &Path) -> String {
    let out = command(folder, &["run", "--shadow", "--until-idle"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The same, but for a person who may not be mailed any more.
fn changed(folder: &Path) {
    let text = fs::read_to_string(folder.join("owlpost.toml")).unwrap();
    let text = text + "[recipients]\nallowed_domains = [\"example.org\"]\n";
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

#[test]
fn a_shadow_of_a_topic_has_a_group_of_its_own_and_leaves_the_real_ones_offsets() {
    let broker = broker();
    let (topic, group) = (broker.topic("shadow", 2), unique("group"));
    broker.produce(&topic, &(0..20).map(record).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    config(folder, &kafka_source("events", &broker.plaintext(), &topic, &group));
    until_idle(folder);
    let (sent, committed) = (mails(folder), broker.committed(&group, &topic));
    assert!(sent > 0 && broker.lag(&group, &topic) == 0);
    // What the real worker has not read yet.
    broker.produce(&topic, &[record("later")]);
    let store = fs::read(folder.join("owlpost.db")).unwrap();
    let said = shadow(folder);
    assert!(said.contains("20 events seen by both (0 by the real worker alone, 1 by the shadow alone)"), "{said}");
    assert!(said.contains("0 of 20 items settled otherwise"), "{said}");
    changed(folder);
    let said = shadow(folder);
    // The shadow's own group has read everything by now, so the second one begins where the first ended.
    assert!(said.contains("0 events seen by both"), "{said}");
    let own = format!("{group}-shadow");
    assert_eq!((broker.committed(&group, &topic), broker.lag(&own, &topic)), (committed, 0));
    assert_eq!(mails(folder), sent, "nothing is sent");
    assert_eq!(fs::read(folder.join("owlpost.db")).unwrap(), store, "not a byte of it has changed");
    // The real one goes on where it was.
    assert_eq!(broker.lag(&group, &topic), 1);
}

#[test]
fn a_shadow_of_a_queue_reads_the_copies_and_prints_what_would_change() {
    let server = ElasticMq::shared();
    let (real, copies) = (server.queue(&[]), server.queue(&[]));
    let bodies: Vec<String> = (0..12).map(|n| event(n).to_string()).collect();
    server.send(&real, &bodies);
    server.send(&copies, &bodies);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let keys = format!("shadow_queue = {copies:?}\n");
    config(folder, &(sqs_source("queue", server.endpoint(), &real) + &keys));
    until_idle(folder);
    let sent = mails(folder);
    assert!(sent > 0);
    assert_eq!((server.depth(&real), server.depth(&copies)), (EMPTY, Depth { visible: 12, ..EMPTY }));
    server.send(&real, &[event("later").to_string()]);
    changed(folder);
    let said = shadow(folder);
    assert!(said.contains("12 events seen by both (0 by the real worker alone, 0 by the shadow alone)"), "{said}");
    assert!(said.contains("12 of 12 items settled otherwise") && said.contains("domain_not_allowed"), "{said}");
    assert_eq!((server.depth(&real), server.depth(&copies)), (Depth { visible: 1, ..EMPTY }, EMPTY));
    assert_eq!(mails(folder), sent, "nothing is sent");
}
