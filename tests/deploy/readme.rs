//! deploy/README.md leads to everything, and what it names is there.

use std::process::Command;

use crate::tools::{OVERLAYS, done, owlpost, root, text, values};

const README: &str = include_str!("../../deploy/README.md");

#[test]
fn every_values_file_overlay_and_document_is_explained() {
    for name in values() {
        assert!(README.contains(&format!("values/{name}.yaml")), "{name}");
    }
    for overlay in OVERLAYS {
        assert!(README.contains(&format!("kustomize/overlays/{overlay}")), "{overlay}");
    }
    for entry in std::fs::read_dir(root().join("deploy/values/iam")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(README.contains(&name), "{name}");
    }
}

#[test]
fn every_path_that_is_named_is_there() {
    for target in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(target.starts_with("https://") || root().join("deploy").join(target).exists(), "{target}");
    }
    for word in
        README.split(|c: char| c.is_whitespace() || "`'\"()".contains(c)).filter(|word| word.starts_with("deploy/"))
    {
        let path = word.trim_end_matches(['.', ',', ':', ';']);
        // kubectl's word for the Deployment.
        assert!(path == "deploy/owlpost" || path.contains("NAME") || root().join(path).exists(), "{path}");
    }
}

#[test]
fn the_values_that_are_explained_are_values() {
    let values = include_str!("../../deploy/helm/owlpost/values.yaml");
    let parsed: serde_json::Value = serde_yaml_ng::from_str(values).unwrap();
    let chart = README.split("\n## The chart\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = chart.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    let mut seen = 0;
    for name in rows {
        let pointer = format!("/{}", name.replace('.', "/"));
        assert!(parsed.pointer(&pointer).is_some() || name.starts_with("config."), "{name}");
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn every_command_is_one_and_every_block_is_shell() {
    let help = text(&owlpost().arg("--help").output().unwrap().stdout);
    let mut seen = 0;
    for word in README.split("-- owlpost ").skip(1).chain(README.split("`owlpost ").skip(1)) {
        let command = word.split(|c: char| !c.is_ascii_alphabetic() && c != '-').next().unwrap();
        assert!(command == "COMMAND" || help.contains(&format!("\n  {command} ")), "{command}");
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
    for block in README.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()) {
        done(Command::new("bash").args(["-n", "-c", block]));
    }
}
