//! The known types: what they need, what they are about, what they do.

use super::*;
use owlpost::decode::EVENT_SCHEMA;
use owlpost::model::{Effect, Topic};

/// An event with everything its type knows of, and its required fields.
fn full(kind: &str) -> (Value, Vec<&'static str>) {
    let mut event = request();
    event["type"] = json!(format!("io.athenz.{kind}.v1"));
    let membership =
        ["/data/domain", "/data/collection", "/data/collection/kind", "/data/collection/name", "/data/member"];
    let (more, required): (Value, Vec<&str>) = match kind {
        "membership.requested" | "membership.withdrawn" => (json!({}), [&membership[..], &["/data/change"]].concat()),
        "membership.decided" => {
            let more = json!({"decision": "approve", "actor": "user.alice"});
            (more, [&membership[..], &["/data/change", "/data/decision"]].concat())
        }
        "membership.expiring" => (json!({}), [&membership[..], &["/data/expires_at"]].concat()),
        "membership.review_due" => {
            (json!({"review_by": "2026-12-01T00:00:00Z"}), [&membership[..], &["/data/review_by"]].concat())
        }
        "membership.renewed" | "membership.removed" | "membership.added" => (json!({}), membership.to_vec()),
        "membership.reminder" => (json!({}), vec![]),
        "domain.changed" => {
            let more = json!({"object": {"kind": "role", "name": "a/b"}});
            (more, vec!["/data/domain", "/data/object", "/data/object/kind", "/data/object/name"])
        }
        "certificate.unrefreshed" => {
            (json!({"service": "sports.api", "instance": "i-1"}), vec!["/data/service", "/data/instance"])
        }
        "zts.unhealthy" => (json!({"server": "zts1", "role": "sports:role.api"}), vec!["/data/server", "/data/role"]),
        other => panic!("{other}"),
    };
    event["data"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (event, required)
}

const KINDS: [&str; 12] = [
    "membership.requested",
    "membership.decided",
    "membership.withdrawn",
    "membership.expiring",
    "membership.review_due",
    "membership.renewed",
    "membership.removed",
    "membership.added",
    "membership.reminder",
    "domain.changed",
    "certificate.unrefreshed",
    "zts.unhealthy",
];

fn topic(parts: &[&str]) -> Topic {
    Topic::of(&[&[""], parts].concat())
}

#[test]
fn each_type_has_its_effect_its_subject_and_its_deadline() {
    let membership = ["sports", "role", "writers", "user.joe"];
    let of = |name, more: &[&str]| topic(&[&[name], &membership[..], more].concat());
    let request = of("request", &["add"]);
    let ends = Time::parse("2026-12-21T10:00:00Z");
    let review = Time::parse("2026-12-01T00:00:00Z");
    let both = vec![of("expiring", &[]), of("review", &[])];
    let member = "sports/role/writers/user.joe";
    let closes = |topics| Effect::Closes { topics };
    let opens = |topic, date| Effect::Opens { topic, date };
    let expected = [
        (opens(request, None), format!("membership/{member}/add"), None),
        (closes(vec![request]), format!("membership/{member}/add"), None),
        (closes(vec![request]), format!("membership/{member}/add"), None),
        (opens(of("expiring", &[]), ends), format!("expiring/{member}"), ends),
        (opens(of("review", &[]), review), format!("review/{member}"), review),
        (closes(both.clone()), format!("membership/{member}"), None),
        (closes(both), format!("membership/{member}"), None),
        (Effect::Informs, format!("membership/{member}"), None),
        (Effect::Informs, String::new(), None),
        (Effect::Informs, "domain/sports/role/a%2Fb".into(), None),
        (opens(topic(&["certificate", "sports.api", "i-1"]), None), "certificate/sports.api/i-1".into(), ends),
        (opens(topic(&["zts", "zts1", "sports:role.api"]), None), "zts/zts1/sports:role.api".into(), ends),
    ];
    for (kind, (effect, key, deadline)) in KINDS.iter().zip(expected) {
        let event = event_of(&full(kind).0);
        assert_eq!(event.effect, effect, "{kind}");
        assert_eq!(event.subject_key.unwrap_or_default(), key, "{kind}");
        assert_eq!(event.deadline, deadline, "{kind}");
    }
}

#[test]
fn what_had_ended_before_it_was_reported_hurries_no_mail() {
    for kind in ["certificate.unrefreshed", "zts.unhealthy"] {
        let (mut event, _) = full(kind);
        event["time"] = json!("2026-11-21T10:00:00Z");
        for (end, deadline) in [
            ("2026-11-21T10:00:01Z", Time::parse("2026-11-21T10:00:01Z")),
            ("2026-11-21T10:00:00Z", None),
            ("2026-11-20T10:00:00Z", None),
        ] {
            event["data"]["expires_at"] = json!(end);
            assert_eq!(event_of(&event).deadline, deadline, "{kind} {end}");
        }
    }
}

#[test]
fn a_missing_empty_or_wrongly_typed_required_field_is_refused_with_its_place() {
    for kind in KINDS {
        let (event, required) = full(kind);
        for path in required {
            let (parent, key) = path.rsplit_once('/').unwrap();
            let dotted = path[1..].replace('/', ".");
            let check = |value: Option<Value>, reason| {
                let mut bad = event.clone();
                let holder = bad.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                match value {
                    Some(value) => holder.insert(key.into(), value),
                    None => holder.remove(key),
                };
                let (found, detail) = refused_of(&bad);
                assert!(detail.starts_with(&dotted), "{kind} {path}: {detail}");
                assert!(detail.contains("(column "), "{detail}");
                assert_eq!(found, reason, "{kind} {path}: {detail}");
            };
            check(Some(json!(5)), RefusedReason::WrongType);
            if !["/data/collection", "/data/object"].contains(&path) {
                check(None, RefusedReason::MissingAttribute);
                check(Some(Value::Null), RefusedReason::MissingAttribute);
                let empty = if path.ends_with("_at") || path.ends_with("_by") {
                    RefusedReason::WrongType
                } else {
                    RefusedReason::MissingAttribute
                };
                check(Some(json!("")), empty);
            }
        }
    }
}

#[test]
fn the_place_of_a_wrong_field_is_its_line_and_column() {
    let body = "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"io.athenz.membership.added.v1\",\n\
                \"data\":{\"domain\":\"sports\",\"collection\":{\"kind\":\"role\",\"name\":\"w\"},\n  \"member\": 5}}";
    let detail = "data.member: expected a string, found a number (line 3, column 13)";
    assert_eq!(refused(&post("", body)), (RefusedReason::WrongType, detail.into()));
    let data = "{\"domain\":\"sports\",\n\"collection\":true}";
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "io.athenz.membership.added.v1")];
    let detail = "data.collection: expected an object, found a boolean (line 2, column 14)";
    assert_eq!(refused(&with(post("", data), &headers)), (RefusedReason::WrongType, detail.into()));
}

#[test]
fn words_that_must_be_of_a_list_are() {
    for (kind, path, word) in [
        ("membership.requested", "/data/change", "ADD"),
        ("membership.decided", "/data/decision", "approved"),
        ("membership.added", "/data/collection/kind", "policy"),
    ] {
        let mut event = full(kind).0;
        *event.pointer_mut(path).unwrap() = json!(word);
        assert_eq!(refused_of(&event).0, RefusedReason::WrongType);
    }
}

#[test]
fn optional_fields_are_checked_and_null_is_absent() {
    for name in ["requester", "reason", "actor", "notes", "expires_at"] {
        assert_eq!(refused_of(&changed(&format!("/data/{name}"), json!([1]))).0, RefusedReason::WrongType, "{name}");
        event_of(&changed(&format!("/data/{name}"), Value::Null));
    }
    assert_eq!(event_of(&changed("/data/ticket", json!({"number": 5}))).data.map()["ticket"]["number"], 5);
    let mut custom = changed("/data/reason", json!([1]));
    custom["type"] = json!("com.example.x");
    event_of(&custom);
}

#[test]
fn a_request_says_who_asks_and_nothing_else_does() {
    let asker = |path: &str, value: Value| event_of(&changed(path, value)).asker;
    assert_eq!(asker("/data/requester", json!("user.bob")).as_deref(), Some("user.bob"));
    for nobody in [json!(""), Value::Null] {
        assert_eq!(asker("/data/requester", nobody).as_deref(), Some("user.joe"));
    }
    for kind in KINDS.into_iter().filter(|kind| *kind != "membership.requested") {
        assert_eq!(event_of(&full(kind).0).asker, None, "{kind}");
    }
}

#[test]
fn review_at_is_another_word_for_review_by() {
    let (mut event, _) = full("membership.review_due");
    let by = event_of(&event);
    let data = event["data"].as_object_mut().unwrap();
    let date = data.remove("review_by").unwrap();
    data.insert("review_at".into(), date.clone());
    let at = event_of(&event);
    assert_eq!((at.effect, at.deadline), (by.effect, by.deadline));
    assert_eq!(at.data.map()["review_by"], date);
}

#[test]
fn a_realm_keeps_the_subjects_of_two_installations_apart() {
    let realm = Decoder::new(Settings { realm: "eu".into(), ..settings() });
    for kind in KINDS {
        let message = post("", full(kind).0.to_string());
        let here = event(&message);
        let decoded = realm.decode(&message, now());
        let [Decoded::Event(there)] = decoded.as_slice() else { panic!("{decoded:?}") };
        assert!(here.effect != there.effect || here.effect == Effect::Informs, "{kind}");
        assert_eq!(there.subject_key, here.subject_key.map(|key| format!("eu:{key}")));
    }
}

#[test]
fn parts_of_a_subject_cannot_be_shifted_into_each_other() {
    let of = |domain: &str, name: &str| {
        let mut event = full("domain.changed").0;
        event["data"]["domain"] = json!(domain);
        event["data"]["object"]["kind"] = json!(name);
        event_of(&event).subject_key
    };
    assert_ne!(of("a/b", "c"), of("a", "b/c"));
    assert_ne!(of("a%2Fb", "c"), of("a/b", "c"));
}

#[test]
fn the_schema_knows_each_type_and_what_it_requires() {
    let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for kind in KINDS {
        let name = format!("io.athenz.{kind}.v1");
        let rule =
            schema["allOf"].as_array().unwrap().iter().find(|rule| rule["if"]["properties"]["type"]["const"] == *name);
        let data = &rule.unwrap_or_else(|| panic!("{kind} is not in the schema"))["then"]["properties"]["data"];
        let mut required: Vec<&str> =
            data["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if data["allOf"][0]["$ref"] == "#/$defs/membership" {
            required.extend(["domain", "collection", "member"]);
        }
        if data["anyOf"].is_array() {
            required.push("review_by");
        }
        required.sort_unstable();
        let mut checked: Vec<&str> =
            full(kind).1.iter().filter_map(|path| path.strip_prefix("/data/")).filter(|p| !p.contains('/')).collect();
        checked.sort_unstable();
        assert_eq!(required, checked, "{kind}");
    }
}
