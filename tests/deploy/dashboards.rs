//! The dashboard: complete, in order, and every panel has something to show at a Prometheus that scrapes the real worker.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Worker, get, http, owlpost, until};
use crate::prometheus::{Prometheus, promtool, read, root, said};
use crate::tools::done;

const DASHBOARD: &str = "deploy/grafana/owlpost.json";

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn panels(dashboard: &Value) -> Vec<Value> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    all.filter(|panel| panel["type"] != "row").cloned().collect()
}

fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels(dashboard).iter().flat_map(of).collect()
}

/// Every `owlpost_…` name, histograms by the name they are described under.
fn names(text: &str) -> BTreeSet<String> {
    let begins = text.match_indices("owlpost_").map(|(at, _)| &text[at..]);
    let whole = begins.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap());
    let described = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.filter(|base| base.ends_with("_seconds")).unwrap_or(name).to_owned()
    };
    whole.map(described).collect()
}

/// A worker with a source of each kind; those of the brokers are down, and say so in metrics.
fn worker(folder: &TempDir) -> (Worker, String) {
    let config = r#"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
[store]
url = "sqlite:owlpost.db"
[[source]]
name = "events"
kind = "file"
path = "events.ndjson"
[[source]]
name = "posts"
kind = "http"
[[source]]
name = "topic"
kind = "kafka"
brokers = ["127.0.0.1:1"]
topics = ["events"]
group = "owlpost"
[[source]]
name = "queue"
kind = "sqs"
queue_url = "http://127.0.0.1:1/000000000000/events"
region = "eu-west-1"
endpoint_url = "http://127.0.0.1:1"
[mailer]
kind = "outbox"
dir = "outbox"
from = "Athenz <access@example.com>"
[[directory]]
kind = "rules"
rules = [{ principal = "user.{name}", address = "{name}@example.com" }]
[[route]]
name = "everything"
types = ["*"]
audience = ["user.alice"]
"#;
    fs::write(folder.path().join("owlpost.toml"), config).unwrap();
    fs::write(folder.path().join("events.ndjson"), read("templates/samples.ndjson")).unwrap();
    let mut command = owlpost(folder.path());
    command.args(["run", "-c", "owlpost.toml"]).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let mut worker = Worker::spawn(folder.path(), command);
    let address = worker.address();
    (worker, address)
}

/// What the worker says once it has sent something.
fn scrape(address: &str) -> String {
    until("a mail to be counted", || {
        let (_, text) = get(address, "/metrics").ok()?;
        let sent = text.lines().find(|line| line.starts_with("owlpost_mails_total") && line.contains("delivered"))?;
        (!sent.ends_with(" 0") && text.contains("owlpost_sqs_") && text.contains("owlpost_source_lag")).then_some(text)
    })
}

fn described(scrape: &str) -> BTreeSet<String> {
    scrape.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_is_named_is_told_by_the_worker_and_every_one_told_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (_worker, address) = worker(&folder);
    let told = described(&scrape(&address));
    assert!(told.len() > 35, "{told:?}");
    let shown = names(&expressions(&dashboard()).into_iter().map(|(_, expr)| expr + "\n").collect::<String>());
    let alerted = names(&read("deploy/prometheus/owlpost.rules.yaml"));
    for name in shown.iter().chain(&alerted) {
        assert!(told.contains(name), "{name} is no metric of the worker");
    }
    for name in &told {
        assert!(shown.contains(name), "{name} is on no panel");
    }
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let (_worker, address) = worker(&folder);
    let file = folder.path().join("metrics");
    fs::write(&file, scrape(&address)).unwrap();
    let checked = Command::new("sh")
        .args(["-c", r#""$0" check metrics <"$1""#])
        .arg(crate::prometheus::program("promtool"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
    // And it is there at all.
    assert!(promtool(&["--version"]).status.success());
}

/// An event, whose mail leaves at once.
fn publish(address: &str) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","source":"dashboard","type":"com.example.news","time":"{}","data":{{}}}}"#,
        jiff::Timestamp::now()
    );
    let headers = "content-type: application/cloudevents+json\r\n";
    assert_eq!(http(address, "POST", "/v1/events", headers, event.as_bytes()).unwrap().0, 202);
}

/// What `draw.py` says of each expression, and the page that it makes.
fn drawn(server: &Prometheus) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let mut draw = Command::new("python3");
    draw.arg(root().join("tests/deploy/dashboard/draw.py")).arg(root().join(DASHBOARD)).arg(server.url()).arg(&page);
    // As if it scraped each five seconds: rates over twenty, in which a slow machine still finds what it has just seen.
    let lines = done(draw.args(["--minutes", "1", "--scrape", "5"]).env("PYTHONDONTWRITEBYTECODE", "1"));
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), fs::read_to_string(page).unwrap())
}

#[test]
fn every_panel_is_drawn_with_what_a_real_prometheus_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (_worker, address) = worker(&folder);
    scrape(&address);
    let server = Prometheus::start(Some(&address));
    let seen = |expr: &str| (!server.query(expr).unwrap().is_empty()).then_some(());
    until("a scrape", || seen("owlpost_build_info"));
    publish(&address);
    until("the scrapes around the mail", || seen("rate(owlpost_mail_send_seconds_count[20s]) > 0"));
    until("the rules after them", || seen("owlpost:digests_late:ratio_rate3d"));
    for rule in server.rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let (answers, page) = drawn(&server);
    let asked: Vec<(String, String)> = answers
        .iter()
        .map(|answer| (answer["title"].as_str().unwrap().to_owned(), answer["expr"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(asked, expressions(&dashboard()));
    for answer in &answers {
        let expr = answer["expr"].as_str().unwrap();
        // Of the cluster there is nothing here, and an outbox has no quota that could be drawn.
        let elsewhere = ["kube_", "keda_", "container_", " < Inf"].iter().any(|part| expr.contains(part));
        assert!(elsewhere || answer["series"].as_u64().unwrap() > 0, "nothing to draw: {answer}");
    }
    assert_eq!(page.matches("class=\"panel\"").count(), panels(&dashboard()).len());
}

#[test]
fn the_dashboard_can_be_put_into_any_grafana() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "owlpost");
    assert_eq!((&dashboard["id"], &dashboard["editable"]), (&Value::Null, &Value::Bool(false)));
    let variables: Vec<&Value> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
    let names: Vec<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "namespace", "job", "instance"]);
    for variable in &variables[1..] {
        assert_eq!(variable["refresh"], 2, "looked up again when the time changes");
    }
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    for part in panels(&dashboard)
        .iter()
        .chain(&variables[1..].iter().map(|v| (*v).clone()).collect::<Vec<_>>())
        .chain(annotations)
    {
        assert_eq!(part["datasource"]["uid"], "${datasource}", "{part}");
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit() {
    let dashboard = dashboard();
    let mut seen = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(seen.insert(panel["id"].as_u64().unwrap()), "an id twice: {}", panel["title"]);
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
    }
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}: no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title}: no expression");
    }
}

#[test]
fn panels_do_not_overlap_and_fill_their_rows() {
    let mut taken = BTreeSet::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "{} lies over another panel", panel["title"]);
        }
    }
}

/// A fixed window shows nothing, or nonsense, when one zooms out.
#[test]
fn windows_follow_the_time_shown_and_counters_are_seen_as_rates() {
    for (title, expr) in expressions(&dashboard()) {
        // A class of characters is no window.
        for window in expr.replace("[.]", "").split('[').skip(1).map(|rest| rest.split(']').next().unwrap()) {
            assert!(["$__rate_interval", "$__range"].contains(&window), "{title}: [{window}]");
        }
        for (at, _) in expr.match_indices("_total{") {
            let before = &expr[..at];
            let call = before.rfind('(').map(|paren| &before[..paren]).unwrap_or_default();
            assert!(call.ends_with("rate") || call.ends_with("increase"), "{title}: {expr}");
        }
        // `$namespace` in all that is ours or the cluster's; KEDA's label has two names.
        assert!(expr.contains("$namespace") || expr.contains("keda_"), "{title}: {expr}");
    }
}

/// It stands in the documentation, which is fetched with every copy of the repository.
#[test]
fn the_picture_of_the_dashboard_is_shown_and_what_is_said_of_it_is_there() {
    let text = read("deploy/prometheus/README.md");
    assert!(text.contains("](../grafana/owlpost.png)"));
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links.filter(|link| !link.starts_with("https://")) {
        assert!(root().join("deploy/prometheus").join(link).exists(), "{link}");
    }
    let picture = fs::read(root().join("deploy/grafana/owlpost.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 300_000, "{} bytes", picture.len());
}
