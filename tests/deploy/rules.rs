//! The rules: right by themselves, each alert seen firing and silent, and made into what the operator and the chart take.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::prometheus::{Prometheus, promtool, read, root, said};
use crate::tools::list;

const RULES: &str = "deploy/prometheus/owlpost.rules.yaml";

pub fn alerts() -> Vec<Value> {
    let rules = Prometheus::start(None).rules();
    let alerts: Vec<Value> = rules.into_iter().filter(|rule| rule["type"] == "alerting").collect();
    assert!(alerts.len() > 20, "{}", alerts.len());
    alerts
}

fn tests() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("deploy/prometheus/tests")).unwrap();
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&format!("deploy/prometheus/tests/{name}")))).collect()
}

#[test]
fn the_rules_are_without_fault() {
    let checked = promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES]);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn every_unit_test_of_the_rules_passes() {
    for (name, _) in tests() {
        let tested = promtool(&["test", "rules", &format!("deploy/prometheus/tests/{name}")]);
        assert!(tested.status.success(), "{}", said(&tested));
    }
}

#[test]
fn every_alert_is_seen_firing_silent_scaled_to_zero_and_while_all_is_well() {
    let tests = tests();
    let of = |wanted: &str| &tests.iter().find(|(name, _)| name == wanted).unwrap().1;
    let silent = |text: &str, alert: &str| text.contains(&format!("alertname: {alert}, exp_alerts: []}}"));
    for alert in alerts() {
        let name = alert["name"].as_str().unwrap();
        // Rules may share a name: each of them has to be seen by its own labels.
        let both = tests.iter().any(|(_, text)| fired(text, &alert) && silent(text, name));
        assert!(both, "{name} {}: no test of both", alert["labels"]);
        assert_eq!(of("zero.yaml").matches(&format!("alertname: {name}, exp_alerts: []")).count(), 3, "{name}");
        assert!(silent(of("healthy.yaml"), name), "{name}");
    }
}

/// Whether a case of this file expects this very rule to fire: by its name and all labels that it sets.
fn fired(text: &str, alert: &Value) -> bool {
    let file: Value = serde_yaml_ng::from_str(text).unwrap();
    let cases = list(&file["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
    let mut expected =
        cases.filter(|case| case["alertname"] == alert["name"]).flat_map(|case| list(&case["exp_alerts"]));
    let set = alert["labels"].as_object().unwrap();
    expected.any(|one| set.iter().all(|(label, value)| one["exp_labels"][label] == *value))
}

#[test]
fn rules_of_one_name_are_told_apart_by_their_labels() {
    let mut seen = BTreeSet::new();
    for alert in alerts() {
        assert!(seen.insert(format!("{} {}", alert["name"], alert["labels"])), "{} {}", alert["name"], alert["labels"]);
    }
}

#[test]
fn every_alert_says_how_urgent_it_is_and_what_is_wrong() {
    for alert in alerts() {
        let name = alert["name"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(alert["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        }
    }
}

/// Their values stand in the store, the same for every replica: a sum would count each replica's copy.
#[test]
fn what_the_store_says_is_never_added_up_over_replicas() {
    let of_the_store = [
        "owlpost_items",
        "owlpost_digests{",
        "owlpost_oldest_due",
        "owlpost_dead_letters{",
        "owlpost_dead_letters_unforwarded",
        "owlpost_quota_",
        "owlpost_store_size",
        "owlpost_sqs_backlog",
    ];
    for text in [read(RULES), read("deploy/grafana/owlpost.json")] {
        // An aggregation's argument, up to its end.
        for (at, _) in text.match_indices("sum") {
            let rest = text[at + 3..].trim_start();
            let argument = rest.strip_prefix("by ").and_then(|rest| rest.split_once(") (")).map_or(rest, |(_, a)| a);
            let argument = argument.trim_start_matches('(').trim_start();
            let wrong = of_the_store.iter().find(|name| argument.starts_with(**name));
            // Only to see whether a replica has looked into the store at all.
            let looked = argument.starts_with("owlpost_items) == 0");
            assert!(wrong.is_none() || looked, "{}", &text[at..text.len().min(at + 120)]);
        }
    }
}

/// Prometheus keeps `le="300"` before 3, and `le="300.0"` since: an exact bound would find nothing in one of them.
#[test]
fn a_bucket_is_found_by_every_prometheus() {
    for (file, quote) in [(RULES, "\""), ("deploy/grafana/owlpost.json", "\\\"")] {
        let text = read(file);
        assert!(text.contains(&format!("le=~{quote}300([.]0)?{quote}")), "{file}");
        assert!(!text.contains(&format!("le={quote}")), "{file}: a bound without its other form");
    }
}

#[test]
fn what_is_made_from_other_files_is_up_to_date() {
    let checked = Command::new(root().join("deploy/render")).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
    assert_eq!(read("deploy/prometheus/prometheusrule.yaml").matches("- alert: ").count(), alerts().len());
}

#[test]
fn an_alert_has_one_name_and_one_page_in_the_runbook() {
    let names: BTreeSet<String> = alerts().iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect();
    let runbook = read("deploy/runbook.md");
    for name in &names {
        assert_eq!(runbook.matches(&format!("\n### {name}\n")).count(), 1, "deploy/runbook.md has no section {name}");
    }
    for heading in runbook.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(names.contains(heading), "{heading} is no alert any more");
    }
    for alert in alerts() {
        // As GitHub and GitLab make anchors of headings of one word.
        let wanted = format!("deploy/runbook.md#{}", alert["name"].as_str().unwrap().to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], wanted.as_str());
    }
}
