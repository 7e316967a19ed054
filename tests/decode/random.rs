//! Whatever comes in, something defined comes out.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MEDIA: [&str; 6] = [
    "",
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/x-ndjson",
    "text/plain",
];

/// No panic, and an answer; events and refusals keep what everybody relies on.
fn check(message: &Message) {
    let decoded = decode(message);
    for one in &decoded {
        match one {
            Decoded::Event(event) => {
                assert!(!event.id.is_empty() && !event.source.is_empty() && !event.kind.is_empty());
                assert!(!event.id.contains(char::is_control));
            }
            Decoded::Refused(refused) => {
                assert!(!refused.detail.is_empty() && refused.body.len() as u64 <= refused.bytes);
                assert!(!refused.detail.contains(char::is_control), "{:?}", refused.detail);
            }
            Decoded::Twin | Decoded::Tombstone => {}
        }
    }
    // Only blanks and empty batches become nothing.
    let nothing = |byte: &u8| byte.is_ascii_whitespace() || b"[]".contains(byte);
    assert!(!decoded.is_empty() || message.body.iter().all(nothing) || message.body.starts_with(b"\xef\xbb\xbf["));
}

fn valid() -> impl Strategy<Value = Vec<u8>> {
    let notifications: Vec<Vec<u8>> =
        include_str!("../../src/cli/demo/zms/notifications.jsonl").lines().map(Into::into).collect();
    let changes: Vec<Vec<u8>> =
        include_str!("../../src/cli/demo/zms/domain-changes.jsonl").lines().map(Into::into).collect();
    prop_oneof![
        Just(request().to_string().into_bytes()),
        Just(format!("[{},{}]", request(), request()).into_bytes()),
        Just(format!("{}\n{}\n", request(), request()).into_bytes()),
        prop::sample::select(notifications),
        prop::sample::select(changes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..200), media in prop::sample::select(&MEDIA[..])) {
        check(&post(media, body));
    }

    #[test]
    fn texts_made_of_the_letters_of_json_never_panic(
        body in r#"[\[\]{}:,"\\ \n0-9eE+.tfnu\-a-c]{0,120}"#,
        media in prop::sample::select(&MEDIA[..]),
    ) {
        check(&post(media, body));
    }

    #[test]
    fn changed_events_never_panic(
        body in valid(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6),
        media in prop::sample::select(&MEDIA[..]),
    ) {
        let mut body = body;
        for (index, byte, edit) in edits {
            if body.is_empty() {
                break;
            }
            let at = index.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
        }
        check(&post(media, body));
    }

    #[test]
    fn binary_headers_never_panic(
        headers in vec(("(ce-|ce_)?(id|type|source|time|specversion|x|[a-z_-]{0,5})", "\\PC{0,20}|1\\.0|%[0-9a-f]{2}"), 0..8),
        body in vec(any::<u8>(), 0..50),
    ) {
        let message = Message { headers, ..post("", body) };
        check(&message);
    }

    #[test]
    fn one_bad_item_never_hurts_its_neighbours(at in 0..5usize, bad in r#"(\{\}|5|"x"|nul|\{"id":\})"#) {
        let items: Vec<String> =
            (0..5).map(|n| if n == at { bad.clone() } else { changed("/id", json!(n.to_string())).to_string() }).collect();
        for (media, body) in [("", format!("[{}]", items.join(","))), ("application/x-ndjson", items.join("\n"))] {
            let decoded = decode(&post(media, body));
            prop_assert_eq!(decoded.len(), 5);
            for (n, one) in decoded.iter().enumerate() {
                match one {
                    Decoded::Refused(refused) => {
                        prop_assert_eq!(n, at);
                        prop_assert_eq!(&refused.body, bad.as_bytes());
                    }
                    Decoded::Event(event) => prop_assert_eq!(&event.id, &n.to_string()),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
