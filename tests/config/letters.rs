//! `[dead_letters]`.

use owlpost::aws::queue::Named;
use owlpost::config::dead_letters::Destination;

use crate::{assert_problems, load, problems};

#[test]
fn a_destination_is_a_topic_or_a_queue_and_what_is_wrong_with_it_is_said_at_its_place() {
    let kafka = |brokers: &[&str], topic: &str| Destination::Kafka {
        brokers: brokers.iter().map(|b| (*b).to_owned()).collect(),
        topic: topic.to_owned(),
    };
    for (text, wanted) in [
        ("kafka://a:9092/dead", kafka(&["a:9092"], "dead")),
        ("kafka://a:9092,[::1]:9093/x.dead_letters-1", kafka(&["a:9092", "[::1]:9093"], "x.dead_letters-1")),
        ("sqs://dead", Destination::Queue(Named::Name("dead".into()))),
        (
            "sqs://arn:aws:sqs:eu-west-1:111122223333:dead",
            Destination::Queue(Named::Arn {
                region: "eu-west-1".into(),
                account: "111122223333".into(),
                name: "dead".into(),
            }),
        ),
        (
            "https://sqs.eu-west-1.amazonaws.com/1/dead",
            Destination::Queue(Named::Url("https://sqs.eu-west-1.amazonaws.com/1/dead".into())),
        ),
    ] {
        assert_eq!(Destination::parse(text), Ok(wanted), "{text}");
        assert!(load(&format!("[dead_letters]\nforward_to = '{text}'")).is_ok(), "{text}");
    }
    for (text, wanted) in [
        ("kafka://a:9092", "names no topic"),
        ("kafka://a:9092/", "the topic is no name"),
        ("kafka://a:9092/a b", "holds blanks"),
        ("kafka://a/dead", "expected HOST:PORT"),
        ("kafka://me:secret@a:9092/dead", ""),
        ("dead", "expected kafka://"),
        ("https://sqs.eu-west-1.amazonaws.com", "expected kafka://"),
        ("http://sqs.example.com/1/dead", "http:// is for this machine only"),
    ] {
        let found = problems(&format!("[dead_letters]\nforward_to = '{text}'"));
        assert_problems(&found, &[&format!("2:14 {wanted}")]);
        assert!(!found[0].contains("secret"), "{found:?}");
    }
}

#[test]
fn dead_letters_do_not_go_where_a_source_reads() {
    let text = "[[source]]\nname = 'in'\nkind = 'http'\n[[source]]\nname = 'orders'\nkind = 'kafka'\nbrokers = ['a:9092']\n\
                topics = ['orders']\ngroup = 'owlpost'\n[dead_letters]\nforward_to = 'kafka://b:9092,a:9092/orders'";
    let found = problems(text);
    assert!(found.iter().any(|p| p.starts_with("11:14 source \"orders\" reads from there")), "{found:?}");
    load(&text.replace("9092/orders", "9092/dead")).unwrap_or_else(|p| panic!("{p:?}"));
}

#[test]
fn a_key_that_has_no_effect_is_told() {
    let warnings = |text: &str| -> Vec<String> {
        let config = load(text).unwrap();
        config.warnings.into_iter().map(|w| w.message).filter(|m| m.contains("has no effect")).collect()
    };
    assert_eq!(warnings("[dead_letters]\nregion = 'eu-west-1'"), ["has no effect without dead_letters.forward_to"]);
    let found = warnings("[dead_letters]\nforward_to = 'kafka://a:9092/dead'\nregion = 'eu-west-1'");
    assert_eq!(found, ["has no effect: dead_letters.forward_to is a Kafka topic"]);
    let found = warnings("[dead_letters]\nforward_to = 'sqs://dead'\nproperties = { 'linger.ms' = 5 }");
    assert_eq!(found, ["has no effect: dead_letters.forward_to is an SQS queue"]);
    assert_problems(
        &problems("[dead_letters]\nforward_to = 'sqs://dead'\nexternal_id = 'x'"),
        &["3:15 goes with assume_role_arn only"],
    );
}

#[test]
fn a_setting_that_librdkafka_or_the_outlet_does_not_take_is_named() {
    let with = |property: &str| {
        problems(&format!("[dead_letters]\nforward_to = 'kafka://a:9092/dead'\n[dead_letters.properties]\n{property}"))
    };
    let found = with("'lingr.ms' = 5");
    assert!(found.len() == 1 && found[0].contains("lingr.ms") && found[0].contains("linger.ms"), "{found:?}");
    let found = with("acks = 1");
    assert!(found.len() == 1 && found[0].contains("leave it out"), "{found:?}");
}
