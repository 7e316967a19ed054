//! The guide's blocks that say so are run as they stand there, one after the other, by a shell.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::prometheus::{read, root, said};
use crate::runbook::{commands, exists};
use crate::tools::{tool, values};

const GUIDE: &str = "deploy/from-the-old-way.md";

/// Every block of shell, without the indent of the list that it is in.
fn blocks(page: &str) -> Vec<String> {
    let block = |rest: &str| {
        let inside = rest.split_once("```").unwrap().0;
        let indent = inside.len() - inside.trim_start_matches(' ').len();
        inside.lines().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect::<String>()
    };
    page.split("```sh\n").skip(1).map(block).collect()
}

/// What stands in the block after each mark.
fn marked(guide: &str) -> Vec<String> {
    guide.split("**✓**\n").skip(1).map(|rest| blocks(rest).swap_remove(0)).collect()
}

#[test]
fn what_can_be_run_without_a_cluster_works_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["src", "config"] {
        symlink(root().join(name), folder.path().join(name)).unwrap();
    }
    fs::create_dir(folder.path().join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_owlpost"), folder.path().join("bin/owlpost")).unwrap();
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    let blocks = marked(&read(GUIDE));
    assert!(blocks.len() >= 4);
    let mut told = String::new();
    for block in &blocks {
        let run = Command::new("sh")
            .args(["-euc", block])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("OWLPOST__HTTP__LISTEN", "127.0.0.1:0")
            .env_remove("OWLPOST_CONFIG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(run.status.success(), "{block}\n{}", said(&run));
        told += &String::from_utf8_lossy(&run.stdout);
    }
    for part in ["no difference", ".html", "Subject: user.joe asks to join sports:role.writers", "scores"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// In the place of OpenTofu: it looks only whether the modules are where the example says.
const TOFU: &str = r#"#!/bin/sh -e
for arg do case $arg in -chdir=*) cd "${arg#-chdir=}" ;; esac; done
modules=$(sed -n 's/^ *source *= "\(\.[^"]*\)"$/\1/p' main.tf)
[ -n "$modules" ] || { echo "$PWD uses no module" >&2; exit 1; }
for module in $modules; do
    [ -f "$module/main.tf" ] || { echo "$PWD: there is no $module" >&2; exit 1; }
done
"#;

#[test]
fn an_example_finds_its_modules_where_the_pages_copy_it() {
    let mut seen = 0;
    for page in [GUIDE, "deploy/terraform/README.md"] {
        for block in blocks(&read(page)).iter().filter(|block| block.contains("tofu ")) {
            let folder = tempfile::tempdir().unwrap();
            symlink(root().join("deploy"), folder.path().join("deploy")).unwrap();
            let bin = tempfile::tempdir().unwrap();
            fs::write(bin.path().join("tofu"), TOFU).unwrap();
            fs::set_permissions(bin.path().join("tofu"), fs::Permissions::from_mode(0o755)).unwrap();
            let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
            let mut run = Command::new("sh");
            run.args(["-euc", block]).current_dir(folder.path()).env("PATH", &path).stdin(Stdio::null());
            let run = run.output().unwrap();
            assert!(run.status.success(), "{page}:\n{block}\n{}", said(&run));
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn every_command_of_the_guide_exists_with_its_options() {
    let guide = read(GUIDE);
    // Those of pods: what stands after the two dashes.
    let inside: String = guide
        .lines()
        .filter_map(|line| line.split_once(" -- owlpost "))
        .map(|(_, c)| format!("owlpost {c}\n"))
        .collect();
    let found = commands(&guide).into_iter().chain(commands(&format!("\n```sh\n{inside}\n```\n")));
    let found: Vec<Vec<String>> = found.collect();
    assert!(found.len() >= 7, "{found:?}");
    for command in found {
        exists(&command).unwrap_or_else(|why| panic!("owlpost {}: {why}", command.join(" ")));
    }
}

/// What Helm says to each line that installs or upgrades, with the same values: `template` takes the same flags.
#[test]
fn every_release_that_a_page_makes_can_be_rendered() {
    let blocks = [GUIDE, "deploy/README.md"].map(|page| (page.to_owned(), blocks(&read(page)).concat()));
    // The head of a values file says how it is installed.
    let heads = values().into_iter().map(|name| format!("deploy/values/{name}.yaml")).map(|path| {
        let head: String =
            read(&path).lines().filter_map(|line| line.strip_prefix('#')).map(|l| format!("{l}\n")).collect();
        (path, head)
    });
    let mut seen = 0;
    for (page, text) in blocks.into_iter().chain(heads) {
        let lines = text.lines().map(|line| line.split(" #").next().unwrap().trim());
        let lines = lines.filter(|line| line.starts_with("helm install ") || line.starts_with("helm upgrade "));
        for line in lines {
            let words = line.split_whitespace().skip(2);
            let done = Command::new(tool("helm")).arg("template").args(words).current_dir(root()).output().unwrap();
            assert!(done.status.success(), "{page}: {line}\n{}", said(&done));
            seen += 1;
        }
    }
    // Four of the guide, one of the README, one of each values file.
    assert!(seen >= 5 + values().len(), "{seen}");
}

#[test]
fn every_file_that_a_page_names_is_there() {
    for page in [
        GUIDE,
        "deploy/runbook.md",
        "deploy/terraform/README.md",
        "deploy/zms-plugin/README.md",
        "deploy/prometheus/README.md",
    ] {
        let text = read(page);
        let here = root().join(page).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            match target.split_once('#') {
                Some(("", anchor)) => assert!(has_anchor(&text, anchor), "{page}: no heading for #{anchor}"),
                _ => assert!(Path::new(&here).join(target.split('#').next().unwrap()).exists(), "{page}: {target}"),
            }
        }
    }
}

/// As GitHub and GitLab make anchors of headings.
fn has_anchor(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchors = headings.map(|heading| {
        let kept = heading.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-', "");
        kept.replace(' ', "-")
    });
    anchors.into_iter().any(|made| made == anchor)
}
