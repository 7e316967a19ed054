//! Every form that an event may come in.

use super::*;
use owlpost::model::{Effect, Topic};

#[test]
fn a_structured_event_keeps_what_its_producer_said() {
    let event = event_of(&request());
    assert_eq!((event.source.as_str(), event.id.as_str()), ("zms/prod", "7f1c"));
    assert_eq!(event.kind, "io.athenz.membership.requested.v1");
    assert_eq!(event.time, Time::parse("2026-11-21T10:00:00Z"));
    assert_eq!(event.recipients.unwrap(), ["sports:role.admin", "user.alice"]);
    assert_eq!(event.subject_key.unwrap(), "membership/sports/role/writers/user.joe/add");
    assert_eq!(&Value::Object(event.data.map()), request().get("data").unwrap());
    assert_eq!((event.expiry, event.deadline, event.id_counts_for), (None, None, None));
    let topic = Topic::of(&["", "request", "sports", "role", "writers", "user.joe", "add"]);
    assert_eq!(event.effect, Effect::Opens { topic, date: None });
}

#[test]
fn the_content_type_is_read_without_case_and_parameters() {
    let body = request().to_string();
    for media in [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=UTF-8",
        "application/json",
        "",
        "text/x+json",
    ] {
        assert_eq!(event(&post(media, body.as_str())).id, "7f1c", "{media}");
    }
    assert_eq!(event(&post("", format!("\u{feff}{body}"))).id, "7f1c");
}

#[test]
fn an_unknown_content_type_is_refused() {
    for media in ["text/html", "application/cloudevents+avro", "application/cloudevents-batch+xml", "image/png"] {
        assert_eq!(refused(&post(media, request().to_string())).0, RefusedReason::UnknownFormat, "{media}");
    }
}

#[test]
fn http_binary_mode_decodes_its_headers() {
    let message = with(
        post("application/json; charset=utf-8", request()["data"].to_string()),
        &[
            ("ce-specversion", "1.0"),
            ("ce-id", "caf%C3%A9"),
            ("ce-source", "\"zms/%20 \\\"prod\\\"\""),
            ("ce-type", "io.athenz.membership.requested.v1"),
            ("ce-time", "2026-11-21T10:00:00.5+01:00"),
            ("ce-expirytime", "2026-11-30T00:00:00Z"),
            ("ce-traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
    );
    let event = event(&message);
    assert_eq!((event.id.as_str(), event.source.as_str()), ("café", "zms/  \"prod\""));
    assert_eq!(event.time, Time::parse("2026-11-21T09:00:00.5Z"));
    assert_eq!(event.expiry, Time::parse("2026-11-30T00:00:00Z"));
    assert_eq!(event.data.map()["member"], "user.joe");
}

#[test]
fn kafka_binary_mode_takes_headers_as_they_are() {
    let mut message = with(
        post("", request()["data"].to_string()),
        &[("ce_specversion", "1.0"), ("ce_id", "100%25"), ("ce_source", "zms"), ("ce_type", "com.example.x")],
    );
    message.broker_id = Some("events/3/12".into());
    message.time = Some(Time(7));
    let event = event(&message);
    assert_eq!((event.id.as_str(), event.time), ("100%25", Some(Time(7))));
    assert_eq!(event.recipients.unwrap().len(), 2);
}

#[test]
fn structured_mode_ignores_headers_of_binary_mode() {
    let message =
        with(post("application/cloudevents+json", request().to_string()), &[("ce_id", "x"), ("ce_type", "y")]);
    assert_eq!(event(&message).id, "7f1c");
}

#[test]
fn a_binary_event_may_have_no_data_or_data_that_is_no_json() {
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "com.example.x")];
    assert!(event(&with(post("", ""), &headers)).data.map().is_empty());
    assert_eq!(event(&with(post("text/plain", "a;b"), &headers)).data.map()["value"], "a;b");
    assert_eq!(event(&with(post("image/png", [0xff, 0x00]), &headers)).data.map()["value"], "/wA=");
    assert_eq!(event(&with(post("application/json", "[1]"), &headers)).data.map()["value"], json!([1]));
    assert_eq!(refused(&with(post("application/json", "{"), &headers)).0, RefusedReason::NotJson);
}

#[test]
fn data_follows_its_content_type() {
    let custom = |fields: Value| {
        let mut event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "com.example.x"});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Value::Object(event_of(&event).data.map())
    };
    assert_eq!(custom(json!({})), json!({}));
    assert_eq!(custom(json!({"data": null, "data_base64": null})), json!({}));
    assert_eq!(
        custom(json!({"data": "{\"a\":1}"})),
        json!({"value": "{\"a\":1}"}),
        "JSON text in a string stays a string"
    );
    assert_eq!(custom(json!({"data": 5})), json!({"value": 5}));
    assert_eq!(custom(json!({"data_base64": "eyJhIjoxfQ=="})), json!({"a": 1}));
    assert_eq!(custom(json!({"data_base64": "PGEvPg==", "datacontenttype": "text/xml"})), json!({"value": "<a/>"}));
    assert_eq!(custom(json!({"data": "<a/>", "datacontenttype": "text/xml"})), json!({"value": "<a/>"}));
}

#[test]
fn null_attributes_are_unset_and_the_last_of_two_keys_wins() {
    let mut event = request();
    for name in ["time", "subject", "datacontenttype", "dataschema", "expirytime", "traceparent"] {
        event[name] = Value::Null;
    }
    assert_eq!(event_of(&event).time, None);
    let twice = r#"{"specversion":"1.0","id":"1","id":"2","source":"s","type":"t","data":{"a":1,"a":2}}"#;
    let decoded = super::event(&post("", twice));
    assert_eq!((decoded.id.as_str(), &decoded.data.map()["a"]), ("2", &json!(2)));
}

#[test]
fn an_event_of_any_other_type_informs() {
    let event = event_of(&changed("/type", json!("com.example.invoice.overdue.v1")));
    assert_eq!((event.effect, event.subject_key), (Effect::Informs, None));
    assert_eq!(event.recipients.unwrap().len(), 2);
}

#[test]
fn a_bad_item_of_a_batch_is_refused_with_its_own_bytes_and_holds_up_nothing() {
    let bad = r#"{"specversion":"1.0","id":7}"#;
    let broken = "{\"id\": tru}";
    let body = format!("[{},\n {bad} ,{broken},\n{}]", request(), changed("/id", json!("8")));
    for media in ["application/cloudevents-batch+json", "application/json", ""] {
        let decoded = decode(&post(media, body.as_str()));
        let [Decoded::Event(first), Decoded::Refused(second), Decoded::Refused(third), Decoded::Event(last)] =
            decoded.as_slice()
        else {
            panic!("{decoded:?}");
        };
        assert_eq!((first.id.as_str(), last.id.as_str()), ("7f1c", "8"));
        assert_eq!(second.body, bad.as_bytes());
        assert_eq!(second.position, "POST /v1/events item 2");
        assert_eq!(second.detail, "id: expected a string, found a number (line 2, column 28)");
        assert_eq!(third.body, broken.as_bytes());
        assert_eq!(third.reason, RefusedReason::NotJson);
        assert_eq!(third.bytes, broken.len() as u64);
        let again = Message { body: second.body.clone(), headers: second.headers.clone(), ..post("", "") };
        assert_eq!(refusal(&again).reason, second.reason, "what was refused can be read again");
    }
}

#[test]
fn an_empty_batch_is_legal() {
    assert_eq!(decode(&post("application/cloudevents-batch+json", " [ ] ")), []);
    assert_eq!(refused(&post("application/cloudevents-batch+json", request().to_string())).0, RefusedReason::WrongType);
}

#[test]
fn ndjson_has_one_event_a_line_of_any_form() {
    let change = r#"{"domainName":"sports","messageId":"m","published":1,"objectType":"ROLE","objectName":"r"}"#;
    let body = format!("\n{}\r\n\n  \n{change}\nnot json\n[{}]\n[1,\n", request(), changed("/id", json!("9")));
    let decoded = decode(&post("application/x-ndjson", body));
    let [Decoded::Event(a), Decoded::Event(b), Decoded::Refused(c), Decoded::Event(d), Decoded::Refused(e)] =
        decoded.as_slice()
    else {
        panic!("{decoded:?}");
    };
    assert_eq!([a.id.as_str(), &b.id, &d.id], ["7f1c", "m", "9"]);
    assert_eq!((c.position.as_str(), c.body.as_slice()), ("POST /v1/events line 6", "not json".as_bytes()));
    assert_eq!(c.detail, "not JSON: expected ident (column 2)");
    assert_eq!((e.position.as_str(), e.reason), ("POST /v1/events line 8", RefusedReason::NotJson));
    assert_eq!(decode(&post("application/x-ndjson", "\n \r\n")), []);
}

#[test]
fn a_message_of_a_broker_without_a_body_is_a_tombstone() {
    let mut message = post("", "");
    message.broker_id = Some("events/0/1".into());
    assert_eq!(decode(&message), [Decoded::Tombstone]);
    // Blanks are not: somebody sent them, and learns what is wrong with them.
    let blank = Message { body: b" \r\n".to_vec(), ..message.clone() };
    assert_eq!(refused(&blank), (RefusedReason::NotJson, "the body is empty".into()));
    let with_headers = with(message.clone(), &[("content-type", "application/json")]);
    assert_eq!(refused(&with_headers), (RefusedReason::NotJson, "the body is empty".into()));
    // An event may have no data (CloudEvents 1.0, 3.1); a source gives a null value without headers.
    let attributes = [("ce_specversion", "1.0"), ("ce_type", "t"), ("ce_source", "s"), ("ce_id", "1")];
    assert!(matches!(&decode(&with(message, &attributes))[..], [Decoded::Event(event)] if event.id == "1"));
    assert_eq!(refused(&post("application/json", " ")), (RefusedReason::NotJson, "the body is empty".into()));
}
