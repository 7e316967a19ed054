//! `DomainChangeMessage` and the 11 types of `Notification`.

use std::time::Duration;

use super::*;

fn notification(kind: &str, details: Value) -> Value {
    json!({"type": kind, "consolidatedBy": "PRINCIPAL", "recipients": ["user.alice", "user.bob"], "details": details})
}

/// Over HTTP with the id `n1`.
fn sent(value: &Value) -> Message {
    with(post("application/json", value.to_string()), &[("message-id", "n1")])
}

fn asked(collection: &str) -> Value {
    json!({"domain": "sports", collection: "writers", "member": "user.joe", "reason": "why", "requester": "user.kim"})
}

#[test]
fn approvals_become_requests() {
    for (kind, collection) in [("ROLE_MEMBER_APPROVAL", "role"), ("GROUP_MEMBER_APPROVAL", "group")] {
        let event = event(&sent(&notification(kind, asked(collection))));
        assert_eq!((event.kind.as_str(), event.id.as_str()), ("io.athenz.membership.requested.v1", "n1"));
        let expected = json!({"domain": "sports", "collection": {"kind": collection, "name": "writers"}, "member": "user.joe",
            "change": "add", "reason": "why", "requester": "user.kim", "recipients": ["user.alice", "user.bob"]});
        assert_eq!(Value::Object(event.data.map()), expected);
        assert_eq!(event.recipients.unwrap(), ["user.alice", "user.bob"]);
    }
}

#[test]
fn decisions_say_what_was_decided_by_whom() {
    for (kind, collection) in [("ROLE_MEMBER_DECISION", "role"), ("GROUP_MEMBER_DECISION", "group")] {
        for (state, change) in [("ADD", "add"), ("DELETE", "delete")] {
            for decision in ["approve", "reject"] {
                let mut details = asked(collection);
                details["pendingState"] = json!(state);
                details["membershipDecision"] = json!(decision);
                details["actionPrincipal"] = json!("user.lee");
                let event = event(&sent(&notification(kind, details)));
                assert_eq!(event.kind, "io.athenz.membership.decided.v1");
                assert_eq!(
                    event.subject_key.unwrap(),
                    format!("membership/sports/{collection}/writers/user.joe/{change}")
                );
                assert_eq!(
                    (&event.data.map()["decision"], &event.data.map()["actor"]),
                    (&json!(decision), &json!("user.lee"))
                );
            }
        }
    }
}

#[test]
fn pending_reminders_have_no_details() {
    for (kind, collection) in [("PENDING_ROLE_APPROVAL", "role"), ("PENDING_GROUP_APPROVAL", "group")] {
        let event = event(&sent(&notification(kind, Value::Null)));
        assert_eq!((event.kind.as_str(), event.subject_key), ("io.athenz.membership.reminder.v1", None));
        assert_eq!(event.data.map()["collection"], json!({"kind": collection}));
    }
}

#[test]
fn each_row_becomes_an_event_of_its_own() {
    let rows =
        "sports;writers;user.bob;2026-11-23T07:45:12.158Z;a%7Cb%3Bc+d|sports;readers;user.zoe;2026-12-01T00:00:00Z;";
    for (kind, becomes, collection, date) in [
        ("ROLE_MEMBER_EXPIRY", "io.athenz.membership.expiring.v1", "role", "expires_at"),
        ("GROUP_MEMBER_EXPIRY", "io.athenz.membership.expiring.v1", "group", "expires_at"),
        ("ROLE_MEMBER_REVIEW", "io.athenz.membership.review_due.v1", "role", "review_by"),
    ] {
        for key in ["rolesList", "membersList"] {
            let decoded = decode(&sent(&notification(kind, json!({key: rows, "member": "user.bob"}))));
            let [Decoded::Event(first), Decoded::Event(second)] = decoded.as_slice() else { panic!("{decoded:?}") };
            assert_eq!((first.id.as_str(), second.id.as_str()), ("n1#1", "n1#2"));
            assert_eq!(first.kind, becomes);
            let mut expected = json!({"domain": "sports", "collection": {"kind": collection, "name": "writers"},
                "member": "user.bob", "notes": "a|b;c d", "recipients": ["user.alice", "user.bob"]});
            expected[date] = json!("2026-11-23T07:45:12.158Z");
            assert_eq!(Value::Object(first.data.map()), expected);
            assert_eq!(second.deadline, Time::parse("2026-12-01T00:00:00Z"));
            assert_eq!(second.data.map().get("notes"), None);
        }
    }
}

#[test]
fn a_bad_row_is_refused_alone() {
    let rows = "sports;writers;user.bob;2026-11-23T07:45:12Z|sports;writers;user.zoe;soon;|sports;w;user.kim;2026-12-01T00:00:00Z;";
    let decoded = decode(&sent(&notification("ROLE_MEMBER_EXPIRY", json!({"membersList": rows}))));
    let [Decoded::Refused(short), Decoded::Refused(dateless), Decoded::Event(good)] = decoded.as_slice() else {
        panic!("{decoded:?}");
    };
    let alone: Value = serde_json::from_slice(&short.body).unwrap();
    let row = "sports;writers;user.bob;2026-11-23T07:45:12Z";
    assert_eq!(alone, notification("ROLE_MEMBER_EXPIRY", json!({ "membersList": row })));
    assert_eq!(short.position, "POST /v1/events row 1");
    assert_eq!(short.detail, "4 columns; expected 5: domain;name;member;date;notes");
    assert_eq!(dateless.detail, "data.expires_at is not a time of RFC 3339, e.g. 2026-11-21T10:00:00Z");
    assert_eq!(good.id, "n1#3");
}

#[test]
fn a_notification_without_a_row_names_the_field_that_has_none() {
    for (details, key) in [(json!({"rolesList": ""}), "rolesList"), (json!({}), "membersList")] {
        let decoded = decode(&sent(&notification("ROLE_MEMBER_EXPIRY", details)));
        let [Decoded::Refused(refused)] = decoded.as_slice() else { panic!("{decoded:?}") };
        assert!(refused.detail.starts_with(&format!("details.{key} is missing or has no row")), "{}", refused.detail);
    }
}

#[test]
fn unrefreshed_certificates_are_about_a_service_and_an_instance() {
    let rows = "api;athenz.k8s;i-1;2026-11-01T00:00:00.000Z;2026-12-01T00:00:00.000Z;h1|web;athenz.k8s;i-2;;;h2";
    let value = notification("CERT_FAILED_REFRESH", json!({"domain": "sports", "unrefreshedCerts": rows}));
    let decoded = decode(&sent(&value));
    let [Decoded::Event(first), Decoded::Event(second)] = decoded.as_slice() else { panic!("{decoded:?}") };
    let expected = json!({"domain": "sports", "service": "sports.api", "instance": "i-1", "provider": "athenz.k8s", "host": "h1",
        "updated_at": "2026-11-01T00:00:00.000Z", "expires_at": "2026-12-01T00:00:00.000Z",
        "recipients": ["user.alice", "user.bob"]});
    assert_eq!(Value::Object(first.data.map()), expected);
    assert_eq!(first.subject_key.as_deref(), Some("certificate/sports.api/i-1"));
    assert_eq!(first.deadline, Time::parse("2026-12-01T00:00:00Z"));
    assert_eq!((second.deadline, second.data.map().get("expires_at")), (None, None));
}

#[test]
fn an_unhealthy_zts_keeps_its_message_whole() {
    let row = "https://zts.cloud:4443;sports;api;2026-11-30T00:00:00.000Z;denied; 100%|retry+later";
    let event = event(&sent(&notification("AWS_ZTS_HEALTH", json!({"awsZtsHealth": row, "affectedZts": "zts1"}))));
    assert_eq!((event.kind.as_str(), event.id.as_str()), ("io.athenz.zts.unhealthy.v1", "n1#1"));
    assert_eq!(event.subject_key.unwrap(), "zts/zts1/sports:role.api");
    assert_eq!(event.data.map()["message"], "denied; 100%|retry+later");
    assert_eq!(event.deadline, Time::parse("2026-11-30T00:00:00Z"), "what it still has ends then");
    let odd = "zts.url;domain0;role0;Sun Mar 15 15:08:07 IST 2020;Error message";
    super::event(&sent(&notification("AWS_ZTS_HEALTH", json!({"awsZtsHealth": odd}))));
}

#[test]
fn the_domain_twin_is_no_event() {
    for kind in ["ROLE_MEMBER_APPROVAL", "ROLE_MEMBER_EXPIRY", "CERT_FAILED_REFRESH"] {
        let mut twin = notification(kind, asked("role"));
        twin["consolidatedBy"] = json!("DOMAIN");
        assert_eq!(decode(&sent(&twin)), [Decoded::Twin]);
    }
    let mut old = notification("ROLE_MEMBER_APPROVAL", asked("role"));
    old.as_object_mut().unwrap().remove("consolidatedBy");
    event(&sent(&old));
}

#[test]
fn the_id_is_the_producers_else_the_brokers() {
    let body = notification("ROLE_MEMBER_APPROVAL", asked("role")).to_string();
    for header in ["ce_id", "ce-id", "message-id", "idempotency-key"] {
        let mut message = with(post("", body.as_str()), &[(header, "given")]);
        message.broker_id = Some("events/1/2".into());
        let event = event(&message);
        assert_eq!((event.id.as_str(), event.id_counts_for), ("given", None), "{header}");
    }
    let mut message = post("", body.as_str());
    message.broker_id = Some("events/1/2".into());
    message.time = Some(Time(5));
    let event = event(&message);
    assert_eq!((event.id.as_str(), event.time), ("events/1/2", Some(Time(5))));
}

#[test]
fn without_an_id_the_content_is_the_id_for_ten_minutes() {
    let value = notification("ROLE_MEMBER_APPROVAL", asked("role"));
    let first = event(&post("", value.to_string()));
    assert_eq!(first.id_counts_for, Some(Duration::from_secs(600)));
    let again = r#"{"at":"x","details":{"role":"writers","requester":"user.kim","reason":"why","member":"user.joe","domain":"sports"},
        "recipients":["user.bob","user.alice"], "consolidatedBy":"PRINCIPAL","type":"ROLE_MEMBER_APPROVAL"}"#;
    assert_eq!(event(&post("", again)).id, first.id, "the order of keys and recipients says nothing");
    let mut other = value;
    other["details"]["reason"] = json!("because");
    assert_ne!(event(&post("", other.to_string())).id, first.id);
}

#[test]
fn notifications_of_one_message_have_ids_of_their_own() {
    let value = notification("ROLE_MEMBER_APPROVAL", asked("role"));
    let decoded = decode(&with(post("", format!("[{value},{value}]")), &[("idempotency-key", "k")]));
    let [Decoded::Event(first), Decoded::Event(second)] = decoded.as_slice() else { panic!("{decoded:?}") };
    assert_eq!((first.id.as_str(), second.id.as_str()), ("k#1", "k#2"));
}

#[test]
fn what_a_notification_lacks_is_named() {
    use RefusedReason::{MissingAttribute, TooManyRecipients, UnknownFormat, WrongType};
    let approval = |change: &dyn Fn(&mut Value)| {
        let mut value = notification("ROLE_MEMBER_APPROVAL", asked("role"));
        change(&mut value);
        refused(&sent(&value))
    };
    let (reason, detail) = approval(&|v| v["details"]["member"] = Value::Null);
    assert_eq!(
        (reason, detail.starts_with("details.member is missing (column ")),
        (MissingAttribute, true),
        "{detail}"
    );
    assert_eq!(approval(&|v| v["details"]["role"] = json!(5)).0, WrongType);
    assert_eq!(approval(&|v| v["details"] = json!("x")).0, WrongType);
    assert_eq!(approval(&|v| v["type"] = json!("NEW_TYPE")).0, UnknownFormat);
    assert_eq!(approval(&|v| v["type"] = Value::Null).0, MissingAttribute);
    assert_eq!(approval(&|v| v["consolidatedBy"] = json!("TEAM")).0, WrongType);
    assert_eq!(approval(&|v| v["recipients"] = json!("user.alice")).0, WrongType);
    assert_eq!(approval(&|v| v["recipients"] = json!([5])).0, WrongType);
    assert_eq!(approval(&|v| v["recipients"] = vec![json!("user.a"); 501].into()).0, TooManyRecipients);
    for (kind, details) in [
        ("ROLE_MEMBER_EXPIRY", json!({})),
        ("ROLE_MEMBER_EXPIRY", json!({"membersList": "|"})),
        ("CERT_FAILED_REFRESH", json!({"domain": "sports"})),
        ("AWS_ZTS_HEALTH", Value::Null),
        ("ROLE_MEMBER_DECISION", asked("role")),
    ] {
        assert_eq!(refused(&sent(&notification(kind, details))).0, MissingAttribute, "{kind}");
    }
    let mut undecided = asked("role");
    undecided["pendingState"] = json!("MAYBE");
    assert_eq!(refused(&sent(&notification("ROLE_MEMBER_DECISION", undecided))).0, WrongType);
}

#[test]
fn rows_times_recipients_are_bounded() {
    let row = "d;r;m;2026-12-01T00:00:00Z;";
    let mut value = notification("ROLE_MEMBER_EXPIRY", json!({"membersList": vec![row; 201].join("|")}));
    value["recipients"] = (0..500).map(|n| json!(format!("user.n{n}"))).collect();
    assert_eq!(refused(&sent(&value)).0, RefusedReason::TooLarge);
    value["details"]["membersList"] = vec![row; 200].join("|").into();
    assert_eq!(decode(&sent(&value)).len(), 200);
}

#[test]
fn a_domain_change_is_checked_like_any_event() {
    let change = |name: &str, value: Value| {
        let mut message = json!({"domainName": "sports", "messageId": "m1", "published": 1_795_333_511_013_i64,
            "objectType": "ROLE", "objectName": "readers", "apiName": "putmembership"});
        message[name] = value;
        post("application/json", message.to_string())
    };
    let changed = event(&change("apiName", Value::Null));
    assert_eq!((changed.source.as_str(), changed.id.as_str()), ("zms/prod", "m1"));
    assert_eq!(event(&change("published", json!(0))).time, None);
    assert_eq!(event(&change("published", Value::Null)).time, None);
    for name in ["domainName", "messageId", "objectType", "objectName"] {
        assert_eq!(refused(&change(name, Value::Null)).0, RefusedReason::MissingAttribute, "{name}");
        assert_eq!(refused(&change(name, json!(1))).0, RefusedReason::WrongType, "{name}");
    }
    for odd in [json!("now"), json!(1.5), json!(9_000_000_000_000_000_000_i64), json!(u64::MAX)] {
        assert_eq!(refused(&change("published", odd)).0, RefusedReason::WrongType);
    }
    assert_eq!(refused(&change("published", json!(253_402_207_200_000_i64))).0, RefusedReason::InTheFuture);
}

#[test]
fn a_refused_row_can_be_replayed_alone_once_it_is_read() {
    let rows = "sports;writers;user.joe;soon;|sports;writers;user.zoe;2026-12-01T00:00:00Z;";
    let cases = [
        ("ROLE_MEMBER_EXPIRY", json!({"rolesList": rows}), "soon", "2026-11-30T00:00:00Z"),
        (
            "CERT_FAILED_REFRESH",
            json!({"domain": "sports", "unrefreshedCerts": "api;p;;;;h|web;p;i;;;h"}),
            ";p;;",
            ";p;i;",
        ),
        ("AWS_ZTS_HEALTH", json!({"affectedZts": "z", "awsZtsHealth": "https://z;;;;|x"}), "z;;;;", "z;sports;api;;"),
    ];
    for (kind, details, bad, good) in cases {
        let decoded = decode(&sent(&notification(kind, details)));
        let Some(Decoded::Refused(refused)) = decoded.first() else { panic!("{decoded:?}") };
        // As if a later owlpost could read it.
        let fixed = String::from_utf8(refused.body.clone()).unwrap().replacen(bad, good, 1);
        let again = Message { headers: refused.headers.clone(), ..post("", fixed) };
        let event = event(&again);
        assert_eq!(event.recipients.unwrap(), ["user.alice", "user.bob"], "{kind}");
        assert_eq!(event.id, "n1#1", "as if it had been read the first time");
    }
}

#[test]
fn a_certificate_with_an_unreadable_time_is_still_told() {
    let rows = "api;athenz.k8s;i-1;yesterday;soon;h1";
    let event =
        event(&sent(&notification("CERT_FAILED_REFRESH", json!({"domain": "sports", "unrefreshedCerts": rows}))));
    assert_eq!(
        (event.deadline, event.data.map().get("expires_at"), event.data.map().get("updated_at")),
        (None, None, None)
    );
}

#[test]
fn the_rows_of_one_message_are_bounded_over_all_its_notifications() {
    let recipients: Vec<String> = (0..500).map(|n| format!("user.n{n}")).collect();
    let rows = |n: usize| vec!["sports;writers;user.joe;2026-12-01T00:00:00Z;"; n].join("|");
    let crowd = json!({"type": "ROLE_MEMBER_EXPIRY", "consolidatedBy": "PRINCIPAL", "recipients": recipients,
        "details": {"rolesList": rows(150)}});
    let decoded = decode(&sent(&json!([crowd, crowd, notification("PENDING_ROLE_APPROVAL", Value::Null)])));
    assert_eq!(decoded.len(), 150 + 2);
    let Decoded::Refused(refused) = &decoded[150] else { panic!("the second has too many rows") };
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    assert!(matches!(decoded[151], Decoded::Event(_)), "the others are taken");

    let long =
        json!({"type": "ROLE_MEMBER_EXPIRY", "recipients": ["x".repeat(500_000)], "details": {"rolesList": rows(100)}});
    assert_eq!(refused_reasons(&decode(&sent(&long))), [RefusedReason::TooLarge], "fifty megabytes of names");
    let domain = json!({"type": "CERT_FAILED_REFRESH", "details": {"domain": "x".repeat(500_000),
        "unrefreshedCerts": vec!["api;p;i;;;h"; 100].join("|")}});
    assert_eq!(refused_reasons(&decode(&sent(&domain))), [RefusedReason::TooLarge], "and of domains");

    let many = json!({"type": "ROLE_MEMBER_EXPIRY", "recipients": [], "details": {"rolesList": rows(6_000)}});
    let decoded = decode(&sent(&json!([many, many])));
    assert_eq!(decoded.len(), 6_001);
    assert_eq!(refused_reasons(&decoded), [RefusedReason::TooLarge], "as many events as a batch may have");
}

fn refused_reasons(decoded: &[Decoded]) -> Vec<RefusedReason> {
    let reason = |d: &Decoded| match d {
        Decoded::Refused(refused) => Some(refused.reason),
        _ => None,
    };
    decoded.iter().filter_map(reason).collect()
}

#[test]
fn everything_is_placed_by_what_the_sender_sent() {
    let rows = "sports;writers;user.joe;soon;|sports;writers;user.zoe;2026-12-01T00:00:00Z;";
    let notification = notification("ROLE_MEMBER_EXPIRY", json!({ "rolesList": rows })).to_string();
    let at = |index, row| Position { index, row };
    let expected = [at(0, None), at(1, Some(1)), at(1, Some(2)), at(2, None)];
    for (media, text) in [
        ("application/json", format!("[{{}},{notification},{}]", request())),
        ("application/x-ndjson", format!("{{}}\n\n{notification}\n{}\n", request())),
        ("application/x-ndjson", format!("{{}}\n[{notification}]\n{}\n", request())),
    ] {
        let (decoded, positions) = Decoder::new(settings()).decode_with_positions(&post(media, text), now());
        assert_eq!((decoded.len(), positions.as_slice()), (4, &expected[..]), "{media}");
    }
    let (_, positions) = Decoder::new(settings()).decode_with_positions(&post("", "{"), now());
    assert_eq!(positions, [at(0, None)]);
}
