//! What is made from other files is what would be made of them now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::configuration::workers;
use crate::tools::{OVERLAYS, done, helm, list, named, root, template, text, tool, values};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn schema_routes_manifests_and_kustomizes_base_are_up_to_date() {
    let out = tempfile::tempdir().unwrap();
    let mut generate = Command::new(root().join("deploy/generate"));
    done(generate.arg(env!("CARGO_BIN_EXE_owlpost")).arg(out.path()).env("HELM", tool("helm")));
    let mut made = Vec::new();
    files(out.path(), &mut made);
    assert!(made.len() >= values().len() + 5, "{made:?}");
    for file in made {
        let name = file.strip_prefix(out.path()).unwrap();
        let kept = std::fs::read_to_string(root().join("deploy").join(name)).unwrap_or_default();
        let same = std::fs::read_to_string(&file).unwrap() == kept;
        assert!(same, "deploy/{} is old: deploy/generate target/debug/owlpost (HELM=PATH)", name.display());
    }
    let manifests = std::fs::read_dir(root().join("deploy/manifests")).unwrap().count();
    assert_eq!(manifests, values().len(), "one for each values file");
}

/// The rules and the dashboard of the chart are copies: of the folders where they are tested.
#[test]
fn what_the_chart_shows_of_monitoring_is_what_was_tested() {
    for (copy, source) in [("rules.yaml", "prometheus/owlpost.rules.yaml"), ("dashboard.json", "grafana/owlpost.json")]
    {
        let source = root().join("deploy").join(source);
        let copy = root().join("deploy/helm/owlpost/files").join(copy);
        assert_eq!(source.exists(), copy.exists(), "{} and {}", source.display(), copy.display());
        if source.exists() {
            assert_eq!(std::fs::read(&source).unwrap(), std::fs::read(&copy).unwrap(), "{}", copy.display());
        }
    }
}

#[test]
fn the_chart_brings_rules_and_dashboard_or_says_that_it_has_none() {
    let runbook = "https://git.example.com/owlpost/deploy/runbook.md";
    let link = format!("monitoring.runbook={runbook:?}");
    let set = ["monitoring.rules=true", "monitoring.dashboard=true", &link];
    let folder = root().join("deploy/helm/owlpost/files");
    let Ok(rules) = std::fs::read_to_string(folder.join("rules.yaml")) else {
        let out = helm(&["template", "owlpost"], "laptop", &set).output().unwrap();
        assert!(text(&out.stderr).contains("this copy of the chart has no files/rules.yaml"));
        return;
    };
    let documents = template("laptop", &set);
    let rules: serde_json::Value = serde_yaml_ng::from_str(&rules.replace("deploy/runbook.md", runbook)).unwrap();
    assert_eq!(named(&documents, "PrometheusRule", "owlpost")["spec"], rules);
    let shown = named(&documents, "ConfigMap", "owlpost-dashboard");
    assert_eq!(shown["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard = std::fs::read_to_string(folder.join("dashboard.json")).unwrap();
    assert_eq!(shown["data"]["owlpost.json"].as_str().unwrap().trim(), dashboard.trim());
}

/// What stands in a list, whatever its order. (The chart's `people` become a file; an overlay has them where it likes.)
fn by_name(all: &Value) -> BTreeMap<String, Value> {
    let name = |one: &Value| format!("{} {}", one["name"].as_str().unwrap(), one["mountPath"].as_str().unwrap_or(""));
    list(all).iter().filter(|one| one["name"] != "people").map(|one| (name(one), one.clone())).collect()
}

/// By hand and by chart, the pods are the same where both say something.
#[test]
fn an_overlay_runs_the_charts_pod() {
    for overlay in OVERLAYS {
        let documents = crate::tools::documents(&crate::tools::kustomized(overlay));
        let chart = match overlay {
            // With KEDA two Deployments, as a values file with KEDA has them.
            "eks" => template("eks-pod-identity", &[]),
            // This one has no KEDA, and its workers migrate.
            "gke" => template("gke-web-identity", &["split=false", "keda.enabled=false", "migrations.job=false"]),
            _ => template("laptop", &[]),
        };
        let mut seen = 0;
        for deployment in workers(&documents) {
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let theirs = &deployment["spec"]["template"]["spec"];
            let ours = &named(&chart, "Deployment", name)["spec"]["template"]["spec"];
            for key in ["securityContext", "automountServiceAccountToken", "enableServiceLinks", "serviceAccountName"] {
                assert_eq!(theirs[key], ours[key], "{overlay}: {key}");
            }
            // Who it is at AWS.
            let token = |pod: &Value| list(&pod["volumes"]).iter().find(|one| one["name"] == "aws-token").cloned();
            assert_eq!(token(theirs), token(ours), "{overlay}");
            let (theirs, ours) = (&theirs["containers"][0], &ours["containers"][0]);
            for key in
                ["args", "ports", "startupProbe", "livenessProbe", "readinessProbe", "securityContext", "resources"]
            {
                assert_eq!(theirs[key], ours[key], "{overlay}: {key}");
            }
            for key in ["env", "volumeMounts"] {
                assert_eq!(by_name(&theirs[key]), by_name(&ours[key]), "{overlay}: {key}");
            }
            seen += 1;
        }
        assert_eq!(seen, workers(&chart).count(), "{overlay}");
    }
    let laptop = crate::tools::documents(&crate::tools::kustomized("laptop"));
    let pod = &named(&laptop, "Deployment", "owlpost")["spec"]["template"]["spec"];
    assert!(list(&pod["volumes"]).iter().all(|volume| volume["secret"].is_null()), "no Secret that a laptop has not");
}
