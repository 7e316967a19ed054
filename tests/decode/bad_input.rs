//! Everything that is refused, and what is not although it looks odd.

use super::*;

fn detail_of(value: &Value, reason: RefusedReason) -> String {
    let (found, detail) = refused_of(value);
    assert_eq!(found, reason, "{detail}");
    detail
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let (reason, detail) = refused(&post("", "{\"id\": 1,\n \"a\" 2}"));
    assert_eq!((reason, detail.as_str()), (RefusedReason::NotJson, "not JSON: expected `:` (line 2, column 6)"));
    for body in ["", "{", "{}x", "{\"a\":1e999}", "nul", "\"\\ud800\"", "[1", "{'a':1}", "{\"a\":\"\u{1}\"}"] {
        assert_eq!(refused(&post("", body)).0, RefusedReason::NotJson, "{body}");
    }
}

#[test]
fn what_is_not_utf8_is_refused_with_its_place() {
    let mut body = request().to_string().into_bytes();
    let at = body.iter().position(|b| *b == b'j').unwrap();
    body[at] = 0xff;
    let (reason, detail) = refused(&post("", body));
    assert_eq!((reason, detail), (RefusedReason::NotUtf8, format!("not UTF-8 (column {})", at + 1)));
    let headers = [("ce-specversion", "1.0"), ("ce-id", "%ff"), ("ce-source", "s"), ("ce-type", "t")];
    assert_eq!(refused(&with(post("", "{}"), &headers)).0, RefusedReason::NotUtf8);
}

#[test]
fn an_item_that_is_not_utf8_hurts_no_other() {
    let bad = b"{\"id\":\"\xff\"}";
    for (media, open, between, close) in [("", "[", ",", "]"), ("application/x-ndjson", "", "\n", "\n")] {
        let body =
            [open.as_bytes(), bad, between.as_bytes(), request().to_string().as_bytes(), close.as_bytes()].concat();
        let decoded = decode(&post(media, body));
        let [Decoded::Refused(refused), Decoded::Event(_)] = decoded.as_slice() else { panic!("{decoded:?}") };
        assert_eq!((refused.reason, refused.body.as_slice()), (RefusedReason::NotUtf8, &bad[..]));
    }
}

#[test]
fn what_is_too_large_is_refused_and_only_its_beginning_kept() {
    let big = changed("/data/reason", json!("x".repeat(1_048_577)));
    let refused = refusal(&post("application/cloudevents+json", big.to_string()));
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    assert_eq!(refused.body.len(), 65_536);
    assert_eq!(refused.bytes, big.to_string().len() as u64);
    let body = format!("[{big},{}]", request());
    assert!(matches!(decode(&post("", body)).as_slice(), [Decoded::Refused(_), Decoded::Event(_)]));
}

#[test]
fn ten_megabytes_of_nesting_are_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let half = 5_000_000 / open.len();
        let nested = format!("{}1{}", open.repeat(half), close.repeat(half));
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{nested}}}"#);
        for body in [nested.clone(), event, open.repeat(half * 2)] {
            let (reason, _) = refused(&post("", body));
            assert!(matches!(reason, RefusedReason::TooLarge | RefusedReason::TooDeep), "{reason:?}");
        }
    }
}

#[test]
fn nesting_beyond_the_limit_is_too_deep() {
    let nested = |levels: usize| {
        let data = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        post("", format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{data}}}"#))
    };
    assert!(matches!(decode(&nested(63)).as_slice(), [Decoded::Event(_)]));
    for levels in [64, 126, 127, 128, 1_000, 100_000] {
        assert_eq!(refused(&nested(levels)).0, RefusedReason::TooDeep, "{levels}");
    }
}

#[test]
fn a_value_that_is_no_object_is_refused() {
    for body in ["1", "\"text\"", "null", "[1]", "[[]]"] {
        assert_eq!(refused(&post("", body)).0, RefusedReason::WrongType, "{body}");
    }
    assert_eq!(refused(&post("", "{}")).0, RefusedReason::UnknownFormat);
    assert_eq!(refused(&post("", r#"{"id":"1","source":"s","type":"t"}"#)).1, "specversion is missing (column 1)");
}

#[test]
fn a_missing_or_empty_attribute_is_refused() {
    for name in ["specversion", "id", "source", "type"] {
        let path = format!("/{name}");
        assert!(detail_of(&without(&path), RefusedReason::MissingAttribute).contains(name));
        assert!(detail_of(&changed(&path, Value::Null), RefusedReason::MissingAttribute).contains("is missing"));
        assert!(detail_of(&changed(&path, json!(1)), RefusedReason::WrongType).contains("found a number"));
    }
    for name in ["id", "source", "type"] {
        let detail = detail_of(&changed(&format!("/{name}"), json!("")), RefusedReason::MissingAttribute);
        assert!(detail.contains("is empty"), "{detail}");
    }
}

#[test]
fn an_attribute_of_a_wrong_type_is_refused() {
    for name in ["subject", "time", "datacontenttype", "dataschema", "expirytime"] {
        assert!(detail_of(&changed(&format!("/{name}"), json!({})), RefusedReason::WrongType).starts_with(name));
    }
    for value in [json!([]), json!({}), json!(1.5), json!(2_147_483_648_u32)] {
        detail_of(&changed("/comexampleext", value), RefusedReason::WrongType);
    }
    for value in [json!(true), json!(-5), json!("x")] {
        event_of(&changed("/comexampleext", value));
    }
}

#[test]
fn the_name_of_an_extension_has_lower_case_letters_and_digits() {
    for name in ["traceParent", "trace_parent", "ä", ""] {
        detail_of(&changed(&format!("/{name}"), json!("x")), RefusedReason::WrongType);
    }
    let detail = detail_of(&changed(&format!("/{}", "X<script>".repeat(50)), json!(1)), RefusedReason::WrongType);
    assert!(!detail.contains("script"), "{detail}");
}

#[test]
fn an_unknown_specversion_is_refused() {
    for version in ["0.3", "1", "1.0.2", "2.0", ""] {
        detail_of(&changed("/specversion", json!(version)), RefusedReason::UnknownSpecversion);
    }
}

#[test]
fn data_and_data_base64_exclude_each_other() {
    detail_of(&changed("/data_base64", json!("e30=")), RefusedReason::WrongType);
    let mut event = without("/data");
    event["data_base64"] = json!("no base64!");
    detail_of(&event, RefusedReason::WrongType);
    event["data_base64"] = json!("e3s=");
    detail_of(&event, RefusedReason::NotJson);
    // `[[[` and `]]]`: what is encoded has the limits of what is not.
    event["data_base64"] = json!("W1tb".repeat(22) + &"XV1d".repeat(22));
    detail_of(&event, RefusedReason::TooDeep);
    event["data_base64"] = json!("W1tb".repeat(21) + &"XV1d".repeat(21));
    event["type"] = json!("com.example.nested");
    event_of(&event);
}

#[test]
fn a_time_must_be_rfc_3339_and_at_most_a_day_ahead() {
    for text in ["yesterday", "2026-11-21", "2026-13-01T00:00:00Z", "2026-11-21T10:00:00", "1732183200", ""] {
        detail_of(&changed("/time", json!(text)), RefusedReason::WrongType);
    }
    for text in [
        "2026-11-21T10Z",
        "2026-11-21T10:00Z",
        "2026-11-21T10:00:00Z[UTC]",
        "2026-11-21T10:00:00+01:00[Europe/Berlin]",
        "20261121T100000Z",
        "2026-11-21T10:00:00+24:00",
        "2026-11-21T10:00:00+01:60",
        "2026-11-21T10:00:00+0100",
        "2026-11-21T10:00:00+01",
        "2026-11-21T10:00:00,5Z",
        "2026-11-21T10:00:00.Z",
        "+002026-11-21T10:00:00Z",
        "2026-11-21T10:00:00Zé",
        "2026-11-21T10:00:0é",
    ] {
        detail_of(&changed("/time", json!(text)), RefusedReason::WrongType);
    }
    for (text, same) in [
        ("2026-11-21T10:00:00.1234567890123456789Z", "2026-11-21T10:00:00.123456Z"),
        ("2026-11-21t10:00:00.5z", "2026-11-21T10:00:00.500000Z"),
        ("2026-11-21T10:00:00-00:00", "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00+23:59", "2026-11-20T10:01:00Z"),
    ] {
        assert_eq!(event_of(&changed("/time", json!(text))).time, Time::parse(same), "{text}");
        assert!(Time::parse(same).is_some());
    }
    assert!(event_of(&changed("/time", json!("2026-11-22T12:00:00Z"))).time > Some(now()));
    let detail = detail_of(&changed("/time", json!("2026-11-22T12:00:00.000001Z")), RefusedReason::InTheFuture);
    assert!(detail.starts_with("time"), "{detail}");
}

#[test]
fn years_0_and_9999_are_read_or_refused_cleanly() {
    assert!(event_of(&changed("/time", json!("0000-01-01T00:00:00Z"))).time.unwrap() < Time(0));
    for text in ["9999-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-12:00"] {
        detail_of(&changed("/time", json!(text)), RefusedReason::InTheFuture);
        let mut expiring = changed("/data/expires_at", json!(text));
        expiring["type"] = json!("io.athenz.membership.expiring.v1");
        assert!(event_of(&expiring).deadline.unwrap() > Time::parse("9998-12-31T00:00:00Z").unwrap());
    }
    detail_of(&changed("/data/expires_at", json!("9999-13-01T00:00:00Z")), RefusedReason::WrongType);
    detail_of(&changed("/data/expires_at", json!("10000-01-01T00:00:00Z")), RefusedReason::WrongType);
}

#[test]
fn control_characters_are_refused_in_keys_and_kept_in_names() {
    for name in ["id", "source", "type"] {
        for bad in ["a\0b", "a\r\nb", "\u{7f}", "\u{85}", "\u{fdd0}", "\u{ffff}", "\u{1fffe}"] {
            let detail = detail_of(&changed(&format!("/{name}"), json!(bad)), RefusedReason::WrongType);
            assert!(!detail.contains(bad));
        }
        detail_of(&changed(&format!("/{name}"), json!("x".repeat(2_049))), RefusedReason::TooLarge);
    }
    let names = |long: usize| changed("/data/recipients", json!(["user.joe", "x".repeat(long)]));
    let detail = detail_of(&names(2_049), RefusedReason::TooLarge);
    assert!(detail.starts_with("data.recipients[1]: longer than 2048 bytes"), "{detail}");
    event_of(&names(2_048));
    let odd = "user.\0\u{202e}joe\r\nBcc: x {{data}} <b>";
    let event = event_of(&changed("/data/member", json!(odd)));
    assert_eq!(event.data.map()["member"], odd);
    let key = event.subject_key.unwrap();
    assert!(!key.contains(['\0', '\r', '\n']), "{key:?}");
    assert_eq!(event_of(&changed("/id", json!("zoë 🦉"))).id, "zoë 🦉");
}

#[test]
fn a_long_reason_is_kept_whole() {
    let reason = "é".repeat(2_000);
    assert_eq!(event_of(&changed("/data/reason", json!(reason))).data.map()["reason"], reason);
}

#[test]
fn too_many_recipients_are_refused() {
    let named = |count: usize| changed("/data/recipients", (0..count).map(|n| json!(format!("user.n{n}"))).collect());
    assert_eq!(event_of(&named(500)).recipients.unwrap().len(), 500);
    detail_of(&named(501), RefusedReason::TooManyRecipients);
}

#[test]
fn recipients_must_be_names() {
    for (bad, path) in [
        (json!("user.joe"), "data.recipients"),
        (json!(["a", 5]), "data.recipients[1]"),
        (json!([""]), "data.recipients[0]"),
        (json!(["user.a", "user.b\0"]), "data.recipients[1]"),
        (json!(["user.a\u{85}"]), "data.recipients[0]"),
    ] {
        assert!(detail_of(&changed("/data/recipients", bad), RefusedReason::WrongType).starts_with(path));
    }
    assert_eq!(event_of(&changed("/data/recipients", Value::Null)).recipients, None);
    assert_eq!(event_of(&changed("/data/recipients", json!([]))).recipients, Some(vec![]));
}

#[test]
fn too_many_events_in_one_message_are_refused_at_once() {
    let decoder = Decoder::new(Settings { limits: Limits { batch_events: 3, ..Limits::default() }, ..settings() });
    for (media, text) in [
        ("", "[{},{},{},{}]"),
        ("application/x-ndjson", "{}\n[{},{}]\n{}"),
        ("application/x-ndjson", "{}\n{}\n{}\n{}"),
        ("application/x-ndjson", "{}\n{}\n{}\n[1 2]"),
    ] {
        let decoded = decoder.decode(&post(media, text), now());
        assert!(
            matches!(decoded.as_slice(), [Decoded::Refused(r)] if r.reason == RefusedReason::TooLarge),
            "{decoded:?}"
        );
    }
    assert_eq!(decoder.decode(&post("", "[{},{},{}]"), now()).len(), 3);
}

#[test]
fn a_refusal_never_repeats_a_value() {
    let secret = "hunter2";
    for path in [
        "/id",
        "/source",
        "/type",
        "/specversion",
        "/time",
        "/data/change",
        "/data/collection/kind",
        "/data/expires_at",
    ] {
        let refusals =
            decode(&post("application/cloudevents+json", changed(path, json!(format!("{secret}\0"))).to_string()));
        for refused in refusals {
            let Decoded::Refused(refused) = refused else { panic!("{path}") };
            assert!(!refused.detail.contains(secret), "{path}: {}", refused.detail);
        }
    }
}

#[test]
fn a_refusal_keeps_what_is_needed_to_read_it_again() {
    let message = with(
        post("application/json", "{\"type\":\"ROLE_MEMBER_APPROVAL\"}"),
        &[("idempotency-key", "k1"), ("authorization", "Bearer x"), ("ce_id", "")],
    );
    let refused = refusal(&message);
    assert!(refused.headers.contains(&("content-type".into(), "application/json".into())));
    assert!(refused.headers.contains(&("message-id".into(), "k1".into())));
    assert!(refused.headers.iter().all(|(name, _)| name != "authorization"));
    assert_eq!((refused.source.as_str(), refused.position.as_str()), ("events", "POST /v1/events"));
}

#[test]
fn thousands_of_bad_items_on_one_line_are_told_with_their_places_in_no_time() {
    // Eight megabytes: counting each place from the beginning of the line took a minute.
    let bad = format!("{{\"id\":\"{}\",\"x\":tru}}", "ä".repeat(400));
    let body = format!("[{}]", vec![bad.as_str(); 9_990].join(","));
    let began = std::time::Instant::now();
    let decoded = decode(&post("", body));
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    let Some(Decoded::Refused(last)) = decoded.last() else { panic!("refused") };
    let chars = bad.chars().count();
    let column = 2 + 9_989 * (chars + 1) + bad.chars().position(|c| c == 'u').unwrap() + 1;
    assert_eq!(last.detail, format!("not JSON: expected ident (column {column})"));
}

#[test]
fn a_message_whose_headers_the_source_could_not_read_is_refused_with_its_body() {
    let fault = "not_utf8;the value of header ce_source is not UTF-8";
    let message = with(post("application/json", request().to_string()), &[("ce_id", "1"), (UNREADABLE, fault)]);
    let refused = refusal(&message);
    assert_eq!(refused.reason, RefusedReason::NotUtf8);
    assert_eq!(refused.detail, "the value of header ce_source is not UTF-8");
    assert_eq!(refused.body, request().to_string().into_bytes());
    // So that replaying it is judged by what it has.
    assert!(!refused.headers.iter().any(|(name, _)| name == UNREADABLE));
}

/// Thousands of items in a few kilobytes, each of which would be kept with all of the id.
#[test]
fn a_message_with_an_id_beyond_bounds_is_refused_once_and_without_it() {
    let long = "k".repeat(60_000);
    let lines = "x1\n".repeat(10_000);
    let rows = (0..9_000).map(|n| format!("d;r;user.m{n};2026-12-01T00:00:00Z;")).collect::<Vec<_>>().join("|");
    let notification = json!({"type": "ROLE_MEMBER_EXPIRY", "consolidatedBy": "PRINCIPAL",
        "recipients": ["user.a"], "details": {"rolesList": rows}});
    let array = format!("[{}]", vec!["1"; 5_000].join(","));
    let sns = json!({"Type": "Notification", "MessageId": long, "Message": array});
    let named = |media, body: String| with(post(media, body), &[("idempotency-key", &long)]);
    let of_a_queue = Message { broker_id: Some(long.clone()), ..post("application/x-ndjson", lines.clone()) };
    for message in [
        named("application/x-ndjson", lines),
        named("application/json", notification.to_string()),
        post("application/json", sns.to_string()),
        of_a_queue,
    ] {
        let refused = refusal(&message);
        assert_eq!(refused.reason, RefusedReason::TooLarge, "{}", refused.detail);
        assert!(refused.detail.contains("id is longer than 2048 bytes"), "{}", refused.detail);
        let headers: usize = refused.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(headers < 100 && refused.broker_id.is_none(), "{headers}");
    }
}

/// A letter of a row repeats no more than what is read of it.
#[test]
fn the_letters_of_many_bad_rows_stay_small() {
    let rows = vec!["x"; 9_000].join("|");
    let notification = json!({"type": "ROLE_MEMBER_EXPIRY", "consolidatedBy": "PRINCIPAL", "recipients": ["user.a"],
        "details": {"rolesList": rows, "domain": "d".repeat(70_000), "affectedZts": "z".repeat(70_000)}});
    let all = decode(&post("application/json", notification.to_string()));
    let bytes = |one: &Decoded| match one {
        Decoded::Refused(refused) => refused.body.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(all.len(), 9_000);
    assert!(all.iter().map(bytes).sum::<usize>() < 9_000 * 200);
}

/// Taken again, a row has the id that it had: were it another one, the same row from the topic would be a second event.
#[test]
fn a_refused_row_keeps_its_id_however_often_it_is_read_again() {
    let rows = "d;r;user.m;2026-12-01T00:00:00Z;|bad";
    let notification = json!({"type": "ROLE_MEMBER_EXPIRY", "consolidatedBy": "PRINCIPAL", "recipients": ["user.a"],
        "details": {"rolesList": rows}});
    let message = with(post("application/json", notification.to_string()), &[("message-id", "n-1")]);
    let decoded = decode(&message);
    let [Decoded::Event(first), Decoded::Refused(second)] = &decoded[..] else { panic!("{decoded:?}") };
    assert_eq!(first.id, "n-1#1");
    let again = |refused: &Refused, body: Vec<u8>| Message { headers: refused.headers.clone(), ..post("", body) };
    let third = refusal(&again(second, second.body.clone()));
    assert_eq!(third.headers, second.headers);
    let mended = String::from_utf8(third.body.clone()).unwrap().replace("bad", "d;r;user.n;2026-12-01T00:00:00Z;");
    assert_eq!(event(&again(&third, mended.into_bytes())).id, "n-1#2");
}
