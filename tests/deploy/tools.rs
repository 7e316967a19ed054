//! The tools, and what they make of the files of `deploy/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tool of `tests/run deploy`.
pub fn tool(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let found = target.join("servers/deploy/bin").join(name);
    assert!(found.is_file(), "{} is missing; tests/run installs it: tests/run deploy", found.display());
    found
}

pub fn owlpost() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    command.env_clear();
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Its stdout; it must end well.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status}\n{}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    let all = serde_yaml_ng::Deserializer::from_str(yaml).map(|one| Value::deserialize(one).unwrap());
    all.filter(|one| !one.is_null()).collect()
}

/// The names of the values files: `laptop` is `deploy/values/laptop.yaml`.
pub fn values() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("deploy/values"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    names
}

/// A values file after those that it says it goes on top of.
pub fn files(name: &str) -> Vec<PathBuf> {
    let folder = root().join("deploy/values");
    let mine = folder.join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&mine).unwrap();
    let below = text.lines().filter_map(|line| line.strip_prefix("# on top of: ")).map(|base| folder.join(base));
    below.chain([mine.clone()]).collect()
}

/// `helm COMMAND` of the chart with a values file and further `--set-json` values.
pub fn helm(command: &[&str], name: &str, set: &[&str]) -> Command {
    let mut helm = Command::new(tool("helm"));
    helm.args(command).arg(root().join("deploy/helm/owlpost"));
    if command[0] == "template" {
        helm.args(["--namespace", "owlpost"]);
    }
    for file in files(name) {
        helm.arg("--values").arg(file);
    }
    for value in set {
        helm.args(["--set-json", value]);
    }
    helm
}

pub fn template(name: &str, set: &[&str]) -> Vec<Value> {
    documents(&done(&mut helm(&["template", "owlpost"], name, set)))
}

/// The overlays of kustomize, by their folders.
pub const OVERLAYS: [&str; 3] = ["eks", "gke", "laptop"];

pub fn kustomized(overlay: &str) -> String {
    done(Command::new(tool("kustomize")).arg("build").arg(root().join("deploy/kustomize/overlays").join(overlay)))
}

/// Everything that can be applied, with its name: each values file through the chart, each overlay.
pub fn everything() -> Vec<(String, Vec<Value>)> {
    let charts = values().into_iter().map(|name| (name.clone(), template(&name, &[])));
    charts.chain(OVERLAYS.map(|name| (format!("overlay {name}"), documents(&kustomized(name))))).collect()
}

pub fn kinds<'d>(documents: &'d [Value], kind: &'d str) -> impl Iterator<Item = &'d Value> {
    documents.iter().filter(move |one| one["kind"] == kind)
}

pub fn named<'d>(documents: &'d [Value], kind: &str, name: &str) -> &'d Value {
    let found = documents.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The pod of a Deployment, a Job or a Pod.
pub fn pod(document: &Value) -> Option<&Value> {
    match document["kind"].as_str()? {
        "Deployment" | "Job" => Some(&document["spec"]["template"]["spec"]),
        "Pod" => Some(&document["spec"]),
        _ => None,
    }
}

/// The elements of a list; none if there is no list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).iter().chain(list(&pod["containers"]))
}
