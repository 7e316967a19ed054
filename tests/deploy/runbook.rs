//! The runbook: what it tells an operator to type is what the program has.

use std::collections::BTreeSet;
use std::process::Command;

use crate::prometheus::read;

/// The commands of a page: after `owlpost ` at the begin of a line of a block, up to a comment, a pipe or the end.
pub fn commands(page: &str) -> BTreeSet<Vec<String>> {
    let blocks = page.split("\n```").skip(1).step_by(2);
    let lines = blocks.flat_map(|block| block.lines().skip(1));
    let lines = lines.filter_map(|line| line.trim_start().strip_prefix("owlpost "));
    let words = |line: &str| -> Vec<String> {
        let words = line.split_whitespace().take_while(|word| !["#", "|", ">", "&&", ";"].contains(word));
        words.map(str::to_owned).collect()
    };
    lines.map(words).collect()
}

fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_owlpost")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Subcommands and options of a line exist.
pub fn exists(command: &[String]) -> Result<(), String> {
    let mut words: Vec<&str> = Vec::new();
    let mut help_text = help(&[]).unwrap();
    for word in command.iter().filter(|word| !word.is_empty()) {
        let is_subcommand = help_text.contains(&format!("\n  {word} ")) || help_text.contains(&format!("\n  {word}\n"));
        if words.len() < 2 && is_subcommand {
            words.push(word);
            help_text = help(&words).ok_or_else(|| format!("no command {}", words.join(" ")))?;
        } else if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap();
            let known = [" ", "\n", ","].iter().any(|end| help_text.contains(&format!("--{option}{end}")));
            if !known {
                return Err(format!("{}: no option --{option}", words.join(" ")));
            }
        }
    }
    if words.is_empty() { Err("no command".into()) } else { Ok(()) }
}

#[test]
fn every_command_of_the_runbook_exists_with_its_options() {
    let commands = commands(&read("deploy/runbook.md"));
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        exists(&command).unwrap_or_else(|why| panic!("owlpost {}: {why}", command.join(" ")));
    }
}

#[test]
fn every_section_tells_what_is_seen_what_to_do_and_how_to_know() {
    let runbook = read("deploy/runbook.md");
    for section in runbook.split("\n### ").skip(1) {
        let section = section.split("\n## ").next().unwrap();
        let name = section.lines().next().unwrap();
        for part in ["**Seen:**", "**Do:**", "**Mended when:**"] {
            assert!(section.contains(part), "{name}: {part} is missing");
        }
    }
}
