//! Envelopes of SNS and EventBridge are taken off first.

use super::*;

fn sns(message: &str) -> Value {
    json!({
        "Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:events",
        "Subject": "ignored", "Message": message, "Timestamp": "2026-11-21T11:00:00.123Z", "SignatureVersion": "1",
        "Signature": "x", "SigningCertURL": "https://sns.example.com/x", "UnsubscribeURL": "https://sns.example.com/y"
    })
}

fn bridge(detail: Value) -> Value {
    json!({
        "version": "0", "id": "eb-1", "detail-type": "Role Change", "source": "com.example.iam",
        "account": "123456789012", "time": "2026-11-21T11:30:00Z", "region": "eu-west-1", "resources": [],
        "detail": detail
    })
}

/// As the SQS source gives it.
fn from_queue(body: &Value) -> Message {
    let mut message = post("", body.to_string());
    message.position = "queue events message m-1".into();
    message.broker_id = Some("m-1".into());
    message
}

const CHANGE: &str = r#"{"domainName":"sports","messageId":"c1","published":1,"objectType":"ROLE","objectName":"r"}"#;

#[test]
fn what_sns_carries_is_read_as_if_it_had_come_alone() {
    assert_eq!(event(&from_queue(&sns(&request().to_string()))).id, "7f1c");
    assert_eq!(event(&from_queue(&sns(CHANGE))).id, "c1");
    let batch = format!("[{},{}]", request(), changed("/id", json!("8")));
    let mut attributed = sns(&batch);
    attributed["MessageAttributes"] =
        json!({"Content-Type": {"Type": "String", "Value": "application/cloudevents-batch+json"}});
    let decoded = decode(&from_queue(&attributed));
    assert!(matches!(decoded.as_slice(), [Decoded::Event(a), Decoded::Event(b)] if a.id == "7f1c" && b.id == "8"));
}

#[test]
fn attributes_of_sns_may_carry_a_binary_event() {
    let mut envelope = sns(&request()["data"].to_string());
    let text = |value: &str| json!({"Type": "String", "Value": value});
    envelope["MessageAttributes"] = json!({
        "ce_specversion": text("1.0"), "ce_id": text("b1"), "ce_source": text("zms"), "ce_type": text("com.example.x"),
        "picture": {"Type": "Binary", "Value": "AA=="}, "x-owlpost-truncated": text("1;00"),
    });
    let event = event(&from_queue(&envelope));
    assert_eq!((event.id.as_str(), event.time), ("b1", Time::parse("2026-11-21T11:00:00.123Z")));
}

#[test]
fn a_dialect_without_an_id_has_the_one_of_its_innermost_envelope() {
    let notification = json!({
        "type": "ROLE_MEMBER_APPROVAL", "consolidatedBy": "PRINCIPAL", "recipients": ["user.joe"],
        "details": {"domain": "sports", "role": "writers", "member": "user.jane", "requester": "user.jane", "reason": "x"}
    });
    assert_eq!(event(&from_queue(&sns(&notification.to_string()))).id, "sns-1");
    let mut nameless = sns(&notification.to_string());
    nameless.as_object_mut().unwrap().remove("MessageId");
    assert_eq!(event(&from_queue(&nameless)).id, "m-1");
    assert_eq!(event(&from_queue(&bridge(notification.clone()))).id, "eb-1");
    assert_eq!(event(&from_queue(&sns(&bridge(notification).to_string()))).id, "eb-1");
}

#[test]
fn eventbridge_carries_an_event_or_is_one() {
    let inside = event(&from_queue(&bridge(request())));
    assert_eq!((inside.id.as_str(), inside.source.as_str()), ("7f1c", "zms/prod"));
    let own = event(&from_queue(&bridge(json!({"domain": "sports", "recipients": ["user.joe"]}))));
    assert_eq!((own.id.as_str(), own.source.as_str(), own.kind.as_str()), ("eb-1", "com.example.iam", "Role Change"));
    assert_eq!(own.time, Time::parse("2026-11-21T11:30:00Z"));
    assert_eq!(own.recipients.unwrap(), ["user.joe"]);
}

#[test]
fn bad_content_is_refused_with_its_own_bytes_and_can_be_read_again() {
    let bad = refusal(&from_queue(&sns("Successfully validated SNS topic")));
    assert_eq!((bad.reason, bad.body.as_slice()), (RefusedReason::NotJson, &b"Successfully validated SNS topic"[..]));
    assert_eq!(bad.position, "queue events message m-1 in SNS message");
    let spaced = bridge(json!({})).to_string().replace("{}", r#"{ "specversion" : "1.0", "id": 7 }"#);
    let mut message = from_queue(&json!(null));
    message.body = spaced.into_bytes();
    let bad = refusal(&message);
    assert_eq!(bad.body, br#"{ "specversion" : "1.0", "id": 7 }"#);
    assert_eq!(bad.position, "queue events message m-1 in EventBridge event");
    let again = Message { body: bad.body.clone(), headers: bad.headers.clone(), ..post("", "") };
    assert_eq!(refusal(&again).reason, bad.reason);
    for (path, value) in [("/detail", json!("text")), ("/time", json!("yesterday")), ("/time", json!(7))] {
        let mut envelope = bridge(json!({}));
        *envelope.pointer_mut(path).unwrap() = value;
        assert_eq!(refused(&from_queue(&envelope)).0, RefusedReason::WrongType, "{path}");
    }
    let mut number = sns("");
    number["Message"] = json!(7);
    assert_eq!(refused(&from_queue(&number)).0, RefusedReason::WrongType);
}

#[test]
fn envelopes_in_envelopes_have_an_end() {
    let mut text = request().to_string();
    for _ in 0..2 {
        text = sns(&text).to_string();
    }
    let two: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event(&from_queue(&two)).id, "7f1c");
    assert_eq!(refused(&from_queue(&sns(&text))).0, RefusedReason::UnknownFormat);
}

#[test]
fn a_cloudevent_is_no_envelope_whatever_its_data_is_called() {
    let mut event_ = request();
    event_["data"]["Type"] = json!("Notification");
    event_["data"]["Message"] = json!("{}");
    assert_eq!(event(&from_queue(&event_)).id, "7f1c");
}
