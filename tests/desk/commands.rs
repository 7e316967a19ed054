//! The commands, as a script sees them: exit codes, field names, what goes to stdout.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use owlpost::model::RefusedReason;
use serde_json::Value;

use crate::world::{START, World, after, news, refused};

fn owlpost(config: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_owlpost"))
        .args(args)
        .arg("--config")
        .arg(config)
        .env_remove("OWLPOST__STORE__URL")
        .env_remove("OWLPOST_CONFIG")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every line a JSON value; the command succeeded.
fn ndjson(config: &Path, args: &[&str]) -> Vec<Value> {
    let output = owlpost(config, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn names(list: &'static str) -> BTreeSet<&'static str> {
    list.split(' ').collect()
}

/// The worker runs on: commands work beside it.
async fn busy() -> World {
    let world = World::new();
    world
        .accept(
            START,
            vec![
                news("a", START).to("changes", &["user.alice", "user.joe"]).entry(),
                news("b", START).to("held", &["user.lee"]).entry(),
                news("c", START).named_nobody("changes", "sports:role.gone").entry(),
                refused("events", RefusedReason::NotJson, "{\u{1b}[31m"),
                refused("events", RefusedReason::TooLarge, &"x".repeat(100_000)),
            ],
        )
        .await;
    world.send(after(3_600)).await;
    world
}

#[tokio::test]
async fn status_has_the_contracts_fields_and_verify_decides_the_exit_code() {
    let world = busy().await;
    let config = world.config();
    let status = ndjson(&config, &["status", "--json"]).remove(0);
    assert_eq!(keys(&status["ledger"]), names("items pending in_doubt delivered withdrawn suppressed dead"));
    assert_eq!(keys(&status["digests"]), names("gathering due held leased sending waiting in_doubt"));
    assert_eq!(keys(&status["mails"]), names("sent"));
    assert_eq!(keys(&status["quota"]), names("per_second per_day used_24h reserved external_24h slowed_to"));
    assert_eq!((&status["dead_letters"], &status["ledger"]["dead"]), (&2.into(), &1.into()));
    let good = owlpost(&config, &["status", "--verify"]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(stdout(&good).contains("no difference"));
    assert!(!stdout(&good).contains('\u{1b}'), "no colours where nobody sees them");
    world.sql("INSERT INTO ledger_delta (state, n) VALUES (0, 3)");
    let bad = owlpost(&config, &["status", "--verify", "--json"]);
    assert_eq!(bad.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(said["verified"]["differences"][0], "pending: the ledger says 4, there are 1 items");
    // Without --verify nobody looks.
    assert_eq!(owlpost(&config, &["status"]).status.code(), Some(0));
}

#[tokio::test]
async fn ledger_lines_have_the_contracts_fields() {
    let world = busy().await;
    let config = world.config();
    let lines = ndjson(&config, &["ledger", "--json"]);
    assert_eq!(lines.len(), 4);
    let wanted = names(
        "source id type subject_key recipient address route state reason digest message_id accepted_at settled_at",
    );
    assert!(lines.iter().all(|line| keys(line) == wanted), "{:?}", lines[0]);
    let joe = ndjson(&config, &["ledger", "--json", "--recipient", "user.joe"]);
    assert_eq!((joe.len(), &joe[0]["address"]), (1, &"joe@example.com".into()));
    assert_eq!(ndjson(&config, &["ledger", "--json", "--since", "2126-01-01T00:00:00Z"]).len(), 0);
    let none = owlpost(&config, &["ledger", "--recipient", "user.nobody"]);
    assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(0), ""));
    assert_eq!(stderr(&none), "no items\n");
    assert_eq!(owlpost(&config, &["ledger", "--since", "yesterday"]).status.code(), Some(2));
}

#[tokio::test]
async fn why_has_the_contracts_fields_and_says_what_it_does_not_know() {
    let world = busy().await;
    let config = world.config();
    let why = ndjson(&config, &["why", "a", "--json"]).remove(0);
    assert_eq!(keys(&why), names("id kind matches history"));
    assert!(keys(&why["matches"][0]).is_superset(&names("source id")));
    let wanted = names("at what reason route recipient digest attempt message_id");
    assert!(why["history"].as_array().unwrap().iter().all(|step| keys(step) == wanted));
    let unknown = owlpost(&config, &["why", "nothing"]);
    assert_eq!((unknown.status.code(), stdout(&unknown).as_str()), (Some(1), ""));
    assert!(stderr(&unknown).starts_with("owlpost: nothing: no event"), "{}", stderr(&unknown));
}

#[tokio::test]
async fn dead_letters_have_the_contracts_fields_and_can_be_discarded_and_replayed() {
    let world = busy().await;
    let config = world.config();
    let rows = ndjson(&config, &["dead-letters", "list", "--json"]);
    assert_eq!(rows.len(), 3);
    let wanted = names("id kind reason source position first_at count bytes truncated forwarded_at");
    assert!(rows.iter().all(|row| keys(row).is_superset(&wanted)));
    assert_eq!((&rows[0]["kind"], &rows[2]["kind"]), (&"input".into(), &"item".into()));
    let item = rows[2]["id"].as_str().unwrap();
    let shown = owlpost(&config, &["dead-letters", "show", item, "--json"]);
    assert!(shown.status.success() && !stdout(&shown).contains("not-for-the-desk"), "{}", stdout(&shown));
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["item"]["id"], "c");
    let shown = owlpost(&config, &["dead-letters", "show", "in-1"]);
    assert!(stdout(&shown).contains("{\\u{1b}[31m"), "{}", stdout(&shown));
    assert_eq!(ndjson(&config, &["dead-letters", "show", "in-1", "--json"])[0]["body"], "{\u{1b}[31m");

    let cut = owlpost(&config, &["dead-letters", "replay", "in-2"]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(stderr(&cut).contains("only the first 65536 of its 100000 bytes"), "{}", stderr(&cut));
    let item = ndjson(&config, &["dead-letters", "replay", "--kind", "item", "--json"]);
    assert_eq!(item[0]["changed"], 1);
    let gone = ndjson(&config, &["dead-letters", "discard", "--reason", "too_large", "--json"]);
    assert_eq!(gone[0]["changed"], 1);
    let again = owlpost(&config, &["dead-letters", "discard", "in-2"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(ndjson(&config, &["dead-letters", "discard", "--all", "--json"])[0]["changed"], 1);
    let none = owlpost(&config, &["dead-letters", "list"]);
    assert_eq!((stdout(&none).as_str(), stderr(&none).as_str()), ("", "no dead letters\n"));
    assert_eq!(ndjson(&config, &["dead-letters", "list", "--all", "--json"]).len(), 2);
    assert_eq!(world.status(after(3_601)).await.ledger.dead, 0);
}

#[tokio::test]
async fn what_to_change_must_be_said() {
    let world = busy().await;
    let config = world.config();
    for args in [
        &["dead-letters", "replay"][..],
        &["dead-letters", "discard"],
        &["dead-letters", "discard", "in-1", "--all"],
        &["dead-letters", "discard", "--kind", "item"],
        &["digests", "release"],
        &["digests", "send-now"],
    ] {
        let output = owlpost(&config, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn digests_are_listed_shown_released_and_hurried() {
    let world = busy().await;
    let config = world.config();
    let held = ndjson(&config, &["digests", "list", "--state", "held", "--json"]);
    assert_eq!((held.len(), &held[0]["route"], &held[0]["open"]), (1, &"held".into(), &1.into()));
    let id = held[0]["id"].as_str().unwrap().to_owned();
    let shown = ndjson(&config, &["digests", "show", &id, "--json"]).remove(0);
    assert_eq!(shown["listed"][0]["id"], "b");
    assert!(stdout(&owlpost(&config, &["digests", "show", &id])).contains("user.lee"));
    assert_eq!(owlpost(&config, &["digests", "show", "00000000-1"]).status.code(), Some(1));
    assert_eq!(owlpost(&config, &["digests", "list", "--state", "open"]).status.code(), Some(2));
    let held_back = owlpost(&config, &["digests", "send-now", &id]);
    assert_eq!(held_back.status.code(), Some(1), "a held digest is released, not hurried");
    assert_eq!(ndjson(&config, &["digests", "release", "--route", "held", "--json"])[0]["changed"], 1);
    assert_eq!(ndjson(&config, &["digests", "list", "--state", "held", "--json"]).len(), 0);
    assert_eq!(owlpost(&config, &["digests", "send-now", &id]).status.code(), Some(0));
    assert_eq!(owlpost(&config, &["digests", "release", &id]).status.code(), Some(1), "not held any more");
}

#[tokio::test]
async fn columns_stand_under_their_names() {
    let world = busy().await;
    let table = stdout(&owlpost(&world.config(), &["ledger"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5);
    let at = lines[0].find("STATE").unwrap();
    for line in &lines[1..] {
        let state = line[at..].split(' ').next().unwrap();
        assert!(["delivered", "pending", "dead"].contains(&state), "{line}");
    }
    assert!(lines.iter().all(|line| line.trim_end() == *line));
    assert!(table.contains("2026-11-22T09:00:00Z"));
}

#[tokio::test]
async fn dead_letters_of_both_kinds_stand_under_one_head() {
    let world = busy().await;
    let table = stdout(&owlpost(&world.config(), &["dead-letters", "list"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    let at = lines[0].find("FIRST_AT").unwrap();
    assert!(lines[1..].iter().all(|line| line[at..].starts_with("2026-11-22T09:00:00Z ")), "{table}");
}

#[tokio::test]
async fn a_replay_that_is_refused_again_changes_nothing() {
    let world = busy().await;
    let config = world.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[[source]]\nname = \"events\"\nkind = \"http\"\n")).unwrap();
    let before = ndjson(&config, &["dead-letters", "show", "in-1", "--json"]);
    let again = owlpost(&config, &["dead-letters", "replay", "in-1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("in-1: refused again: not_json"), "{}", stderr(&again));
    assert_eq!(ndjson(&config, &["dead-letters", "show", "in-1", "--json"]), before);
    assert_eq!(ndjson(&config, &["dead-letters", "list", "--all", "--json"]).len(), 3, "and no new one");
}

/// Athenz's messages have no time of their own: stamped when it is replayed, a request would outrank its decision.
#[test]
fn a_request_that_was_decided_meanwhile_is_not_opened_again_by_its_replay() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("owlpost.toml");
    let text = |recipients: usize| {
        format!(
            r#"
            [store]
            url = "sqlite:{at}/owlpost.db"
            [limits]
            recipients_per_event = {recipients}
            [mailer]
            kind = "discard"
            [[source]]
            name = "zms"
            kind = "file"
            path = "{at}/events.ndjson"
            [[directory]]
            kind = "rules"
            rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
            [[route]]
            name = "approvals"
            types = ["io.athenz.membership.requested.v1"]
            "#,
            at = folder.path().display()
        )
    };
    let details = r#""domain":"sports","role":"writers","member":"user.joe","requester":"user.joe""#;
    let of = |kind: &str, recipients: &str, more: &str| {
        format!(
            r#"{{"type":"{kind}","consolidatedBy":"PRINCIPAL","recipients":[{recipients}],"details":{{{details}{more}}}}}"#
        )
    };
    let asked = of("ROLE_MEMBER_APPROVAL", r#""user.ann","user.bob""#, "");
    let decided = of(
        "ROLE_MEMBER_DECISION",
        r#""user.joe""#,
        r#","pendingState":"ADD","membershipDecision":"approve","actionPrincipal":"user.ann""#,
    );
    std::fs::write(folder.path().join("events.ndjson"), format!("{asked}\n{decided}\n")).unwrap();
    std::fs::write(&config, text(1)).unwrap();
    let ran = owlpost(&config, &["run", "--until-idle"]);
    assert_eq!(ran.status.code(), Some(0), "{}", stderr(&ran));
    std::fs::write(&config, text(2)).unwrap();
    let replayed = owlpost(&config, &["dead-letters", "replay", "in-1"]);
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    let ledger = ndjson(&config, &["ledger", "--json"]);
    let states: Vec<(&str, &str)> =
        ledger.iter().map(|row| (row["recipient"].as_str().unwrap(), row["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("user.ann", "withdrawn"), ("user.bob", "withdrawn")]);
}

#[tokio::test]
async fn a_name_that_nothing_has_is_told() {
    let world = busy().await;
    let config = world.config();
    for command in ["list", "replay", "discard"] {
        let output = owlpost(&config, &["dead-letters", command, "--reason", "no_adress"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(stderr(&output).contains("did you mean \"no_address\"?"), "{}", stderr(&output));
    }
    let output = owlpost(&config, &["digests", "list", "--route", "handld"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
    assert!(stderr(&output).contains("route handld: not in the configuration; did you mean \"handled\"?"));
    let output = owlpost(&config, &["digests", "release", "--route", "handld"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "0 digests released\n"));
    assert!(stderr(&output).contains("route handld"), "{}", stderr(&output));
}

#[tokio::test]
async fn times_in_json_stand_in_the_order_of_time_as_text() {
    let world = World::new();
    for (id, micros) in [("a", 0), ("b", 1), ("c", 500_000), ("d", 1_000_000)] {
        let at = owlpost::model::Time(START.0 + micros);
        world.accept(at, vec![news(id, START).to("changes", &["user.alice"]).entry()]).await;
    }
    let lines = ndjson(&world.config(), &["ledger", "--json"]);
    let times: Vec<&str> = lines.iter().map(|line| line["accepted_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|t| t.len() == times[0].len()), "{times:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    let entries = (0..3_000).map(|i| news(&format!("e{i}"), START).to("changes", &["user.alice"]).entry()).collect();
    world.accept(START, entries).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_owlpost"))
        .args(["ledger", "--json", "--config"])
        .arg(world.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_store_that_is_not_there_is_made_by_migrate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("owlpost.toml");
    let file = folder.path().join("data/owlpost.db");
    std::fs::write(&config, format!("[store]\nurl = \"sqlite:{}\"\n", file.display())).unwrap();
    let missing = owlpost(&config, &["status"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("no such store"), "{}", stderr(&missing));
    assert!(!file.exists(), "looking makes nothing");
    let made = ndjson(&config, &["migrate", "--json"]).remove(0);
    assert_eq!(made["schema_version"], 8);
    assert_eq!(ndjson(&config, &["migrate", "--json"]).remove(0), made, "again changes nothing");
    assert_eq!(owlpost(&config, &["status", "--verify"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_broken_people_file_locks_the_operator_out_of_nothing_that_needs_no_people() {
    let world = busy().await;
    let config = world.config();
    let people = world.path().with_file_name("people.toml");
    std::fs::write(&people, "[members]\n\"a:role.b\" = []\n\"a:role.b\" = []\n").unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let more = "[[source]]\nname = \"events\"\nkind = \"http\"\n[[directory]]\nkind = \"file\"\npath = ";
    std::fs::write(&config, format!("{text}{more}\"{}\"\n", people.display())).unwrap();
    for args in [
        &["status"][..],
        &["ledger"],
        &["why", "a"],
        &["digests", "release", "--all"],
        &["dead-letters", "show", "in-1"],
        &["dead-letters", "replay", "--kind", "item"],
        &["dead-letters", "discard", "in-2"],
    ] {
        let output = owlpost(&config, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    }
    let input = owlpost(&config, &["dead-letters", "replay", "in-1"]);
    assert_eq!(input.status.code(), Some(2), "an input's people are looked up");
    assert!(stderr(&input).contains("people.toml"), "{}", stderr(&input));
}

#[tokio::test]
async fn reading_changes_nothing_and_waits_for_nobody() {
    let world = busy().await;
    let config = world.config();
    let writer = rusqlite::Connection::open(world.path()).unwrap();
    let version = |c: &rusqlite::Connection| c.query_row("PRAGMA data_version", [], |r| r.get::<_, i64>(0)).unwrap();
    let other = rusqlite::Connection::open(world.path()).unwrap();
    let before = version(&other);
    // Somebody holds the writer's lock all the while.
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let digest = world.digests(None, None, START).await.remove(0).id;
    let started = std::time::Instant::now();
    for args in [
        &["status", "--verify"][..],
        &["ledger"],
        &["why", "user.alice"],
        &["digests", "list"],
        &["digests", "show", &digest],
        &["dead-letters", "list"],
        &["dead-letters", "show", "in-1"],
        &["migrate"],
    ] {
        let output = owlpost(&config, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    assert!(started.elapsed().as_secs() < 10, "nothing waited for the lock");
    writer.execute_batch("ROLLBACK").unwrap();
    assert_eq!(version(&other), before);
}

#[tokio::test]
async fn the_kill_switch_is_set_and_shown_and_ended() {
    let world = busy().await;
    let config = world.config();
    let paused = |config: &Path| ndjson(config, &["status", "--json"]).remove(0)["paused"].clone();
    assert_eq!(owlpost(&config, &["pause"]).status.code(), Some(0));
    assert_eq!(paused(&config), serde_json::json!(["*"]));
    let again = owlpost(&config, &["pause"]);
    assert!(again.status.success() && stderr(&again).contains("already"));
    let unknown = owlpost(&config, &["pause", "--route", "chnages"]);
    assert_eq!(unknown.status.code(), Some(2), "a typing mistake is no stop");
    assert!(stderr(&unknown).contains("chnages"));
    assert_eq!(ndjson(&config, &["resume", "--json"])[0]["changed"], 1);
    assert_eq!(paused(&config), serde_json::json!([]));
    let nothing = owlpost(&config, &["resume"]);
    assert!(nothing.status.success() && stderr(&nothing).contains("not paused"));
}

#[tokio::test]
async fn suppressions_are_added_listed_and_removed() {
    let world = busy().await;
    let config = world.config();
    let added = owlpost(&config, &["suppressions", "add", "Alice@Example.com", "no-address", "--reason", "left"]);
    assert_eq!(added.status.code(), Some(1), "one of them is no address");
    assert!(stdout(&added).contains("1 suppression added") && stderr(&added).contains("no-address"));
    let listed = ndjson(&config, &["suppressions", "list", "--json"]);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["address"], &listed[0]["reason"]), (&"alice@example.com".into(), &"left".into()));
    assert!(stdout(&owlpost(&config, &["suppressions", "list"])).starts_with("ADDRESS"));
    let removed = owlpost(&config, &["suppressions", "remove", "alice@example.com"]);
    assert!(stdout(&removed).contains("1 suppression removed"));
    assert!(ndjson(&config, &["suppressions", "list", "--json"]).is_empty());
}

/// Only the very address that a mail would go to is held back: what can never be one is refused, and says so.
#[tokio::test]
async fn a_suppression_is_written_as_mails_are_addressed() {
    let world = busy().await;
    let config = world.config();
    let odd = ["<bob@example.com>", "mailto:bob@example.com,", "bob@example.com,", "@", "bob@", "a b@example.com"];
    for address in odd {
        let added = owlpost(&config, &["suppressions", "add", address]);
        assert_eq!(added.status.code(), Some(1), "{address}");
        assert!(stderr(&added).contains("not a mail address"), "{address}: {}", stderr(&added));
    }
    assert!(ndjson(&config, &["suppressions", "list", "--json"]).is_empty());
    let added = owlpost(&config, &["suppressions", "add", " Bob@EXÄMPLE.com "]);
    assert_eq!(added.status.code(), Some(0), "{}", stderr(&added));
    assert_eq!(ndjson(&config, &["suppressions", "list", "--json"])[0]["address"], "bob@xn--exmple-cua.com");
    assert_eq!(owlpost(&config, &["suppressions", "remove", "bob@exämple.com"]).status.code(), Some(0));
    assert!(ndjson(&config, &["suppressions", "list", "--json"]).is_empty());
}

#[tokio::test]
async fn a_live_check_reaches_the_store_and_the_outbox() {
    let world = busy().await;
    let config = world.config();
    let live = owlpost(&config, &["check", "--live", "--json"]);
    let found: Value = serde_json::from_slice(&live.stdout).unwrap();
    let told: Vec<&str> = found["live"].as_array().unwrap().iter().map(|f| f["what"].as_str().unwrap()).collect();
    assert!(told.iter().any(|t| t.starts_with("store: ") && t.contains("can be read")), "{told:?}");
    assert!(told.iter().any(|t| t.starts_with("outbox: ")), "{told:?}");
}
