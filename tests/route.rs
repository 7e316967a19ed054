//! What routes promise: which events they take, whom they ask, and which subject they give.

use owlpost::model::{Data, Effect, Event, Topic};
use owlpost::route::{Asking, OneOf, RouteConfig, RouteEffect, Routed, Router};
use proptest::prelude::*;
use serde_json::{Value, json};

const REQUESTED: &str = "io.athenz.membership.requested.v1";

fn event(kind: &str, data: Value) -> Event {
    Event {
        source: "zms/prod".into(),
        id: "1".into(),
        id_counts_for: None,
        kind: kind.into(),
        time: None,
        expiry: None,
        deadline: None,
        recipients: None,
        effect: Effect::Informs,
        subject_key: None,
        asker: None,
        domain: None,
        data: Data::of_text(data.to_string()),
    }
}

fn route(name: &str, types: &[&str]) -> RouteConfig {
    let types = types.iter().map(|t| (*t).to_owned()).collect();
    RouteConfig { types, audience: vec!["user.alice".into()], ..RouteConfig::named(name) }
}

fn with_audience(name: &str, types: &[&str], audience: &[&str]) -> RouteConfig {
    RouteConfig { audience: audience.iter().map(|a| (*a).to_owned()).collect(), ..route(name, types) }
}

fn with_where(name: &str, conditions: &[(&str, &[&str])]) -> RouteConfig {
    let conditions = conditions
        .iter()
        .map(|(key, values)| ((*key).to_owned(), OneOf(values.iter().map(|v| (*v).to_owned()).collect())))
        .collect();
    RouteConfig { conditions, ..route(name, &["*"]) }
}

fn routed(routes: &[RouteConfig], event: Event) -> Routed {
    Router::new(routes, "").expect("good routes").route(event)
}

fn names(routed: &Routed) -> Vec<&str> {
    routed.asked.iter().map(|asking| &*asking.route).collect()
}

fn references(routes: &[RouteConfig], event: Event) -> Vec<String> {
    routed(routes, event).asked.into_iter().flat_map(|asking| asking.references).collect()
}

#[test]
fn an_event_takes_every_route_that_fits_in_the_order_of_the_configuration() {
    let routes =
        [route("all", &["*"]), route("exact", &["a.b"]), route("glob", &["a.*"]), route("other", &["a.c", "x"])];
    assert_eq!(names(&routed(&routes, event("a.b", json!({})))), ["all", "exact", "glob"]);
    assert_eq!(names(&routed(&routes, event("a.z", json!({})))), ["all", "glob"]);
    assert_eq!(names(&routed(&routes, event("x", json!({})))), ["all", "other"]);
    assert_eq!(names(&routed(&routes[1..2], event("a.b.c", json!({})))), [""; 0]);
}

#[test]
fn all_conditions_must_hold_and_any_value_of_a_list_will_do() {
    let routes = [with_where("r", &[("data.change", &["add"]), ("data.domain", &["sports", "media*"])])];
    for (data, fits) in [
        (json!({"change": "add", "domain": "sports"}), true),
        (json!({"change": "add", "domain": "media.tv"}), true),
        (json!({"change": "add", "domain": "sports.tv"}), false),
        (json!({"change": "delete", "domain": "sports"}), false),
        (json!({"domain": "sports"}), false),
        (json!({"change": ["add"], "domain": "sports"}), true),
        (json!({"change": {"add": 1}, "domain": "sports"}), false),
        (json!({"change": null, "domain": "sports"}), false),
    ] {
        assert_eq!(names(&routed(&routes, event("t", data.clone()))).len(), usize::from(fits), "{data}");
    }
}

#[test]
fn conditions_look_into_objects_attributes_numbers_and_booleans() {
    let data = json!({"collection": {"kind": "role"}, "count": 3, "ratio": 1.5, "big": true, "empty": ""});
    for (key, value, fits) in [
        ("data.collection.kind", "role", true),
        ("data.collection", "*", false),
        ("data.collection.kind.more", "*", false),
        ("data.count", "3", true),
        ("data.count", "30", false),
        ("data.ratio", "1.5", true),
        ("data.big", "true", true),
        ("data.empty", "*", true),
        ("data.nothing", "*", false),
        ("type", "t", true),
        ("source", "zms/*", true),
        ("id", "1", true),
        ("subject_key", "*", false),
    ] {
        let routes = [with_where("r", &[(key, &[value])])];
        assert_eq!(names(&routed(&routes, event("t", data.clone()))).len(), usize::from(fits), "{key} = {value}");
    }
}

#[test]
fn recipients_of_the_event_win_over_the_audience_and_none_of_both_asks_nobody() {
    let routes = [route("r", &["t"])];
    let named = |recipients: Option<&[&str]>| Event {
        recipients: recipients.map(|r| r.iter().map(|s| (*s).to_owned()).collect()),
        ..event("t", json!({}))
    };
    assert_eq!(
        references(&routes, named(Some(&["user.bob", "sports:role.admin", "user.bob"]))),
        ["user.bob", "sports:role.admin"]
    );
    assert_eq!(routed(&routes, named(Some(&[]))).asked, [], "an empty list is there, and names nobody");
    assert_eq!(references(&routes, named(None)), ["user.alice"]);
    let silent = [with_audience("r", &["t"], &[])];
    assert_eq!(routed(&silent, named(None)).asked, []);
    assert_eq!(routed(&silent, named(Some(&[]))).asked, []);
    assert_eq!(references(&silent, named(Some(&["user.bob"]))), ["user.bob"]);
}

#[test]
fn an_audience_entry_without_its_value_vanishes_and_the_others_stay() {
    let routes =
        [with_audience("r", &["t"], &["{{data.domain}}:role.admin", "{{ data.member }}", "{{data.x.y}}", "user.kim"])];
    let data = json!({"domain": "sports", "x": {"y": null}});
    assert_eq!(references(&routes, event("t", data)), ["sports:role.admin", "user.kim"]);
    let only = [with_audience("r", &["t"], &["{{data.domain}}:role.admin"])];
    assert_eq!(routed(&only, event("t", json!({}))).asked, []);
}

#[test]
fn the_same_person_by_two_expressions_is_asked_once() {
    let routes = [with_audience("r", &["t"], &["{{data.member}}", "{{data.requester}}"])];
    assert_eq!(references(&routes, event("t", json!({"member": "user.joe", "requester": "user.joe"}))), ["user.joe"]);
    let many: Vec<String> = (0..50).map(|i| format!("user.p{}", i % 25)).collect();
    let event = Event { recipients: Some(many), ..event("t", json!({})) };
    assert_eq!(references(&routes, event).len(), 25);
}

#[test]
fn a_value_that_could_be_no_reference_makes_none() {
    let routes = [with_audience("r", &["t"], &["{{data.v}}"])];
    let long = "x".repeat(257);
    for bad in ["", "a b", "a\nb", "a\tb", "a\u{0}", "\u{a0}x", "a\u{7f}", &long] {
        let asked = routed(&routes, event("t", json!({"v": bad}))).asked;
        assert!(asked.iter().all(|a| a.unreadable && a.references == ["{{data.v}}"]), "{bad:?}: {asked:?}");
        assert_eq!(asked.is_empty(), bad.is_empty(), "{bad:?}: an empty value is none");
    }
    for good in ["user.joe", "{{data.v}}", "ü", &long[1..]] {
        assert_eq!(references(&routes, event("t", json!({"v": good}))), [good]);
    }
    assert_eq!(references(&routes, event("t", json!({"v": 7}))), ["7"]);
}

#[test]
fn an_audience_of_values_that_name_nobody_is_still_asked_so_that_somebody_sees_it() {
    let routes = [with_audience("r", &["t"], &["{{data.domain}}:role.admin", "{{data.member}}"])];
    let asked = |data: Value| routed(&routes, event("t", data)).asked;
    for bad in [json!("a b"), json!("a\u{0}"), json!("x".repeat(257)), json!(["sports"]), json!({"name": "sports"})] {
        let one = asked(json!({"domain": bad})).remove(0);
        assert!(one.unreadable, "{bad}");
        assert_eq!(one.references, ["{{data.domain}}:role.admin"]);
        // Whoever can be read is asked.
        let other = asked(json!({"domain": bad, "member": "user.joe"})).remove(0);
        assert_eq!((other.references, other.unreadable), (vec!["user.joe".to_owned()], false));
    }
    assert_eq!(asked(json!({"domain": null, "member": ""})), []);
}

#[test]
fn nobody_is_asked_to_approve_their_own_request() {
    let routes = [route("r", &["*"]), route("too", &["*"])];
    for asker in [Some("user.joe".to_owned()), None] {
        let asking = routed(&routes, Event { asker: asker.clone(), ..event(REQUESTED, json!({})) }).asked;
        assert_eq!(asking.into_iter().map(|one| one.except).collect::<Vec<_>>(), [asker.clone(), asker]);
    }
}

#[test]
fn the_first_route_with_a_subject_for_a_type_of_your_own_sets_it() {
    let subject = |name: &str, key: &str, effect| RouteConfig {
        subject_key: Some(key.into()),
        effect,
        ..with_audience(name, &["my.*"], &["{{subject_key}}"])
    };
    let routes = [
        route("plain", &["my.*"]),
        subject("first", "alarm/{{data.host}}", None),
        subject("second", "{{data.other}}", Some(RouteEffect::Closes)),
    ];
    let router = Router::new(&routes, "eu").unwrap();
    let given = router.route(event("my.alarm", json!({"host": "db 1", "other": "x"}))).event;
    assert_eq!(given.subject_key.as_deref(), Some("alarm/db 1"));
    assert_eq!(given.effect, Effect::Opens { topic: Topic::of(&["custom", "eu", "alarm/db 1"]), date: None });

    // A missing value: the next one.
    let routed = router.route(event("my.alarm", json!({"other": "x"})));
    assert_eq!(routed.event.effect, Effect::Closes { topics: vec![Topic::of(&["custom", "eu", "x"])] });
    // Audiences see the subject.
    assert_eq!(routed.asked[1].references, ["x"]);

    let without = router.route(event("my.alarm", json!({"host": "a\nb"}))).event;
    assert_eq!((without.subject_key, without.effect), (None, Effect::Informs));

    let informs = [subject("r", "{{data.host}}", Some(RouteEffect::Informs))];
    let given = super_route(&informs, event("my.x", json!({"host": "h"})));
    assert_eq!((given.subject_key.as_deref(), given.effect), (Some("h"), Effect::Informs));
}

fn super_route(routes: &[RouteConfig], event: Event) -> Event {
    routed(routes, event).event
}

#[test]
fn types_of_athenz_keep_their_own_subject() {
    let routes = [RouteConfig { subject_key: Some("{{data.domain}}".into()), ..route("r", &["*"]) }];
    let topic = Topic::of(&["membership"]);
    let own = Event {
        effect: Effect::Opens { topic, date: None },
        subject_key: Some("membership/x".into()),
        ..event(REQUESTED, json!({"domain": "sports"}))
    };
    assert_eq!(super_route(&routes, own.clone()), own);
}

#[test]
fn another_realm_is_another_subject() {
    let routes = [RouteConfig { subject_key: Some("{{id}}".into()), ..route("r", &["t"]) }];
    let effect = |realm| Router::new(&routes, realm).unwrap().route(event("t", json!({}))).event.effect;
    assert_ne!(effect(""), effect("eu"));
}

#[test]
fn everything_wrong_with_routes_is_told_at_once() {
    let wrong = RouteConfig {
        audience: vec![
            "{{data.x".into(),
            "}}".into(),
            "{{dta.x}}".into(),
            "{{data..x}}".into(),
            "a b".into(),
            String::new(),
        ],
        subject_key: Some("{{}}".into()),
        types: vec!["a b".into(), String::new()],
        ..with_where("r", &[("domain", &["x"]), ("data.y", &[])])
    };
    let lost = RouteConfig { effect: Some(RouteEffect::Closes), ..route("s", &["t"]) };
    let faults = Router::new(&[wrong, lost], "").unwrap_err();
    let paths: Vec<String> = faults.iter().map(|(index, fault)| format!("{index} {}", fault.path.join("/"))).collect();
    assert_eq!(
        paths,
        [
            "0 types/0",
            "0 types/1",
            "0 where/data.y",
            "0 where/domain",
            "0 audience/0",
            "0 audience/1",
            "0 audience/2",
            "0 audience/3",
            "0 audience/4",
            "0 audience/5",
            "0 subject_key",
            "1 effect"
        ]
    );
}

#[test]
fn literal_braces_and_values_with_braces_are_not_expanded_twice() {
    let routes = [with_audience("r", &["t"], &["{x}:{{data.a}}{{data.b}}"])];
    let data = json!({"a": "{{data.b}}", "b": "}}"});
    assert_eq!(
        routed(&routes, event("t", data)).asked,
        [Asking { route: "r".into(), references: vec!["{x}:{{data.b}}}}".into()], except: None, unreadable: false }]
    );
}

proptest! {
    #[test]
    fn a_reference_has_neither_blanks_nor_control_characters(value in any::<String>()) {
        let routes = [with_audience("r", &["t"], &["{{data.v}}:role.admin"])];
        for reference in routed(&routes, event("t", json!({"v": value}))).asked.into_iter().flat_map(|a| a.references) {
            prop_assert!(!reference.chars().any(|c| c.is_control() || c.is_whitespace()));
            prop_assert!(reference.len() <= 256 + ":role.admin".len());
        }
    }

    #[test]
    fn the_table_of_types_finds_what_asking_every_route_finds(
        types in prop::collection::vec(prop::collection::vec("[ab*]{1,3}", 1..3), 1..6),
        kind in "[ab]{1,3}",
    ) {
        let configs: Vec<RouteConfig> = types
            .iter()
            .enumerate()
            .map(|(i, t)| route(&i.to_string(), &t.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        let slow: Vec<String> = configs
            .iter()
            .filter(|c| owlpost::route::Route::compile(c).unwrap().takes(&kind))
            .map(|c| c.name.clone())
            .collect();
        let routed = routed(&configs, event(&kind, json!({})));
        prop_assert_eq!(names(&routed), slow);
    }
}
