//! What the README shows is what happens.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const README: &str = include_str!("../README.md");

fn owlpost(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    command.env_remove("OWLPOST_CONFIG").env_remove("RUST_LOG").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The contents of the fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let open = format!("\n```{language}\n");
    README.split(open.as_str()).skip(1).map(|rest| rest.split_once("\n```").unwrap().0).collect()
}

#[test]
fn the_story_of_the_demo_is_the_one_that_it_tells() {
    let dir = tempfile::tempdir().unwrap();
    let out = owlpost(&["demo", "--dir", dir.path().to_str().unwrap()]);
    let said = text(&out.stdout);
    let said: Vec<&str> = said.lines().map(str::trim_end).collect();
    let shown = blocks("text").into_iter().find(|block| block.contains("Worth a look")).unwrap();
    // Some subjects hold dates, which are another day's.
    let dated = |line: &&str| line.contains(" item") && (line.contains(" ends on ") || line.contains(" due "));
    let lines: Vec<&str> = shown.lines().filter(|line| line.trim() != "…" && !dated(line)).collect();
    assert!(lines.len() > 40);
    for line in lines {
        assert!(said.contains(&line.trim_end()), "the demo no longer says: {line}");
    }
}

#[test]
fn the_event_is_one_that_a_worker_takes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("request.json");
    fs::write(&file, blocks("json")[0]).unwrap();
    let out = owlpost(&["preview", "approvals", "--events", file.to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("Subject: user.joe asks to join tools:role.deployers"));
}

#[test]
fn the_route_is_the_built_in_one() {
    let route: toml::Table = blocks("toml")[0].parse().unwrap();
    let local: toml::Table = include_str!("../config/local.toml").parse().unwrap();
    assert_eq!(route["route"][0], local["route"][0]);
}

#[test]
fn the_line_to_change_is_in_the_demos_people() {
    let line = README.split("change the line `").nth(1).unwrap().split('`').next().unwrap();
    let people = include_str!("../src/cli/demo/people.toml");
    assert_eq!(people.lines().filter(|l| *l == line).count(), 1, "{line}");
}

#[test]
fn every_file_that_is_named_is_there_and_every_command_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(target.starts_with("https://") || root.join(target).exists(), "{target}");
    }
    let help = text(&owlpost(&["--help"]).stdout);
    for line in blocks("text").iter().flat_map(|block| block.lines()).filter_map(|line| line.strip_prefix("$ owlpost "))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let command = if words[0] == "-c" { words[2] } else { words[0] };
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
}
