//! What is rendered is what a cluster takes, by the tools that would say so.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::tools::{OVERLAYS, done, helm, kustomized, root, text, tool, values};

/// Gives a tool the manifests, and what it says back.
#[track_caller]
fn judged(command: &mut Command, name: &str, manifests: &str) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{name}:\n{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

fn manifests() -> Vec<(String, String)> {
    let charts = values().into_iter().map(|name| (name.clone(), done(&mut helm(&["template", "owlpost"], &name, &[]))));
    // Switches that no values file turns on.
    let more = [
        ("service monitor", "laptop", r#"monitoring={"kind":"service"}"#),
        ("two pods", "eks-pod-identity", r#"keda.enabled=false"#),
        ("one Deployment", "eks-irsa", "split=false"),
    ];
    let more = more.map(|(what, name, set)| (what.to_owned(), done(&mut helm(&["template", "owlpost"], name, &[set]))));
    charts.chain(more).chain(OVERLAYS.map(|name| (format!("overlay {name}"), kustomized(name)))).collect()
}

#[test]
fn the_chart_has_no_lint() {
    for name in values() {
        let said = done(&mut helm(&["lint", "--strict"], &name, &[]));
        assert!(!said.contains("[WARNING]"), "{name}: {said}");
    }
}

/// What is applied besides: the rules and the dashboard of the chart, and what those without Helm take.
fn applied_besides() -> Vec<(String, String)> {
    let runbook = r#"monitoring.runbook="https://git.example.com/owlpost/deploy/runbook.md""#;
    let set = ["monitoring.rules=true", "monitoring.dashboard=true", runbook];
    let watched = done(&mut helm(&["template", "owlpost"], "eks-irsa", &set));
    assert!(watched.contains("kind: PrometheusRule\n") && watched.contains("grafana_dashboard: "), "{watched}");
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("deploy/manifests")).unwrap().map(|one| one.unwrap().path()).collect();
    files.push(root().join("deploy/prometheus/prometheusrule.yaml"));
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
    [("rules and dashboard".to_owned(), watched)].into_iter().chain(files.into_iter().map(read)).collect()
}

#[test]
fn an_api_server_knows_every_kind_and_every_key() {
    let schemas = root().join("tests/deploy/schemas");
    let core = format!("{}/core/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
    let custom = format!("{}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json", schemas.display());
    for (name, yaml) in manifests().into_iter().chain(applied_besides()) {
        let mut command = Command::new(tool("kubeconform"));
        command.args(["-strict", "-summary", "-kubernetes-version", "1.36.0"]);
        command.args(["-schema-location", &core, "-schema-location", &custom, "-"]);
        let said = judged(&mut command, &name, &yaml);
        assert!(said.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{name}: {said}");
    }
}

/// Proves that the schemas see what they should.
#[test]
fn a_misspelt_key_of_a_scaled_object_is_seen() {
    let said = unknown(&kustomized("eks").replace("cooldownPeriod", "coolDownPeriod"));
    assert!(said.contains("coolDownPeriod"), "{said}");
}

/// What is said of a manifest of custom resources with a fault.
fn unknown(yaml: &str) -> String {
    let schemas = root().join("tests/deploy/schemas");
    let custom = format!("{}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json", schemas.display());
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let mut command = Command::new(tool("kubeconform"));
    let command = command.args(["-strict", "-schema-location", &custom, "-ignore-missing-schemas"]).arg(file.path());
    let out = command.output().unwrap();
    assert!(!out.status.success());
    text(&out.stdout)
}

#[test]
fn a_misspelt_key_of_a_rule_is_seen() {
    let yaml = std::fs::read_to_string(root().join("deploy/prometheus/prometheusrule.yaml")).unwrap();
    let said = unknown(&yaml.replacen("annotations:", "anotations:", 1));
    assert!(said.contains("anotations"), "{said}");
}

#[test]
fn nothing_is_critical_to_a_linter_of_security() {
    for (name, yaml) in manifests() {
        let mut command = Command::new(tool("kube-score"));
        command.args(["score", "--ignore-container-cpu-limit"]);
        // Whether two pods are there, and where, is the operator's choice: KEDA's, or one for SQLite.
        for test in [
            "container-image-pull-policy",
            "deployment-has-poddisruptionbudget",
            "deployment-has-host-podantiaffinity",
            "deployment-replicas",
        ] {
            command.args(["--ignore-test", test]);
        }
        judged(command.arg("-"), &name, &yaml);
    }
}

#[test]
fn a_budget_of_disruption_is_there_where_two_pods_always_are_and_nowhere_else() {
    for (name, yaml) in manifests() {
        let wanted = ["eks-pod-identity"].contains(&name.as_str());
        assert_eq!(yaml.contains("kind: PodDisruptionBudget"), wanted, "{name}");
    }
}

#[test]
fn chart_overlays_and_program_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = std::fs::read_to_string(root().join("deploy/helm/owlpost/Chart.yaml")).unwrap();
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")), "{chart}");
    for (name, yaml) in manifests() {
        let images = yaml.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        assert!(images.clone().count() > 0, "{name}");
        assert!(images.clone().all(|image| image == format!("owlpost:{version}")), "{name}");
    }
}

#[test]
fn an_image_by_digest_is_taken_by_its_digest() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let set = format!(r#"image={{"repository":"registry.example.com/owlpost","digest":"{digest}"}}"#);
    let yaml = done(&mut helm(&["template", "owlpost"], "laptop", &[&set]));
    assert!(yaml.contains(&format!("image: registry.example.com/owlpost@{digest}\n")), "{yaml}");
    assert!(!yaml.contains("image: owlpost"));
}
