//! What a real ZMS handed out (1.12.46; a field `at` was added to each line by the recorder).

use std::collections::BTreeMap;

use super::*;

fn lines(text: &str) -> Vec<Decoded> {
    // As the file source does it: a message a line, with an id of its own.
    let message = |(index, line): (usize, &str)| Message {
        broker_id: Some(format!("f:{index}")),
        position: format!("f line {}", index + 1),
        time: None,
        headers: Vec::new(),
        body: line.into(),
    };
    let messages = text.lines().enumerate().map(message);
    let late = Time::parse("2026-11-22T12:00:00Z").unwrap();
    messages.flat_map(|message| Decoder::new(settings()).decode(&message, late)).collect()
}

fn events(decoded: &[Decoded]) -> Vec<&Event> {
    decoded.iter().filter_map(|d| if let Decoded::Event(event) = d { Some(&**event) } else { None }).collect()
}

#[test]
fn the_notifications_of_a_real_zms_become_exactly_these_events() {
    let decoded = lines(include_str!("../../src/cli/demo/zms/notifications.jsonl"));
    assert_eq!(decoded.iter().filter(|d| **d == Decoded::Twin).count(), 11);
    let events = events(&decoded);
    assert_eq!(decoded.len(), 11 + events.len(), "nothing is refused");
    let told: Vec<String> = events
        .iter()
        .map(|e| {
            let kind = e.kind.trim_start_matches("io.athenz.membership.").trim_end_matches(".v1");
            let deadline = e.deadline.map(|time| time.to_string()).unwrap_or_default();
            let recipients = e.recipients.clone().unwrap().join(",");
            format!("{} {kind} {} -> {recipients} {deadline}", e.id, e.subject_key.clone().unwrap())
        })
        .collect();
    let told: Vec<&str> = told.iter().map(|line| line.trim_end()).collect();
    assert_eq!(
        told,
        [
            "f:0 requested membership/sports/role/readers/user.joe/add -> user.alice",
            "f:2 requested membership/sports/group/coaches/user.joe/add -> user.alice",
            "f:4 decided membership/sports/role/readers/user.joe/add -> user.joe",
            "f:6 decided membership/sports/role/writers/user.joe/add -> user.alice,user.joe",
            "f:8 decided membership/sports/group/coaches/user.joe/add -> user.joe",
            "f:10#1 expiring expiring/sports/role/readers/user.zoe -> user.zoe 2026-11-29T07:45:12.128000Z",
            "f:11#1 expiring expiring/sports/role/writers/tools.notifier -> user.lee 2026-12-06T07:45:12.158000Z",
            "f:11#2 expiring expiring/sports/role/writers/user.bob -> user.lee 2026-11-23T07:45:12.158000Z",
            "f:14#1 review_due review/sports/role/reviewed/user.zoe -> user.zoe 2026-12-06T07:45:12.270000Z",
            "f:15#1 review_due review/sports/role/reviewed/user.zoe -> user.alice 2026-12-06T07:45:12.270000Z",
            "f:15#2 review_due review/sports/role/reviewed/user.bob -> user.alice 2026-11-25T07:45:12.270000Z",
            "f:18#1 expiring expiring/sports/group/coaches/user.bob -> user.bob 2026-11-29T07:45:12.361000Z",
            "f:19#1 expiring expiring/sports/group/coaches/user.bob -> user.alice 2026-11-29T07:45:12.361000Z",
        ]
    );
    let data = |index: usize| Value::Object(events[index].data.map());
    assert_eq!(
        data(0),
        json!({"domain": "sports", "collection": {"kind": "role", "name": "readers"}, "member": "user.joe", "change": "add",
               "requester": "user.joe", "reason": "need the scores", "recipients": ["user.alice"]})
    );
    assert_eq!(
        data(3),
        json!({"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "user.joe", "change": "add",
               "requester": "user.alice", "reason": "not this month", "decision": "reject", "actor": "user.lee",
               "recipients": ["user.alice", "user.joe"]})
    );
    assert_eq!(data(6)["notes"], "ask in #sports, <b>please</b>");
    assert_eq!(data(8).get("notes"), None);
    assert_eq!(events[0].effect, owlpost::model::Effect::Opens { topic: topic_of(events[2]), date: None });
    assert!(events.iter().all(|e| e.source == "zms/prod" && e.time.is_none() && e.id_counts_for.is_none()));
}

fn topic_of(closer: &Event) -> owlpost::model::Topic {
    match &closer.effect {
        owlpost::model::Effect::Closes { topics } => topics[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_change_messages_of_a_real_zms_become_exactly_these_events() {
    let decoded = lines(include_str!("../../src/cli/demo/zms/domain-changes.jsonl"));
    let events = events(&decoded);
    assert_eq!((decoded.len(), events.len()), (16, 16));
    let mut objects: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        assert_eq!(event.kind, "io.athenz.domain.changed.v1");
        *objects.entry(event.subject_key.clone().unwrap()).or_default() += 1;
    }
    let objects: Vec<String> = objects.iter().map(|(key, count)| format!("{count} {key}")).collect();
    assert_eq!(
        objects,
        [
            "3 domain/sports/domain/sports",
            "3 domain/sports/group/coaches",
            "1 domain/sports/group/staff",
            "1 domain/sports/role/auditors",
            "1 domain/sports/role/locked",
            "3 domain/sports/role/readers",
            "1 domain/sports/role/writers",
            "1 domain/sys.auth.audit.domain/policy/sports",
            "1 domain/sys.auth.audit.domain/role/sports",
            "1 domain/tools/domain/tools",
        ]
    );
    assert_eq!(events[0].id, "f184d714-25fa-4d96-bb17-6caae5a6652a");
    assert_eq!(events[0].time, Time::parse("2026-11-22T07:45:11.013000Z"));
    assert_eq!(
        Value::Object(events[15].data.map()),
        json!({"domain": "tools", "object": {"kind": "domain", "name": "tools"}, "api": "deletetopleveldomain"})
    );
}
