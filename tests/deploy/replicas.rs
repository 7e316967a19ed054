//! Who sets the number of pods, the chart or KEDA, and what becomes of the pods when that changes: the chart looks at the
//! cluster for it.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::tools::{documents, done, named};

/// A Deployment with so many replicas, a number that these set last: (manager, operation).
fn deployment(replicas: u32, owners: &[(&str, &str)], others: &[(&str, &str)]) -> Value {
    let entry = |fields: Value| move |(manager, operation): &(&str, &str)| json!({ "manager": manager, "operation": operation, "fieldsV1": { "f:spec": fields } });
    let owners = owners.iter().map(entry(json!({ "f:replicas": {} })));
    let fields = owners.chain(others.iter().map(entry(json!({ "f:template": {} })))).collect::<Vec<_>>();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "owlpost-deliver", "namespace": "owlpost", "managedFields": fields,
            // Else Helm would not take it for its own.
            "labels": { "app.kubernetes.io/managed-by": "Helm" },
            "annotations": { "meta.helm.sh/release-name": "owlpost", "meta.helm.sh/release-namespace": "owlpost" },
        },
        "spec": { "replicas": replicas },
    })
}

fn replicas(live: Option<Value>, set: &[&str]) -> Value {
    let path = "/apis/apps/v1/namespaces/owlpost/deployments/owlpost-deliver";
    let live: Vec<(&str, Value)> = live.into_iter().map(|live| (path, live)).collect();
    let documents = documents(&done(&mut Cluster::with(&live).helm("eks-irsa", set)));
    named(&documents, "Deployment", "owlpost-deliver")["spec"]["replicas"].clone()
}

#[test]
fn turning_keda_on_keeps_the_pods_that_are_there() {
    // Left out, a number that Helm has set would become Kubernetes's default, 1, until KEDA has looked.
    assert_eq!(replicas(Some(deployment(3, &[("helm", "Apply")], &[])), &[]), 3);
    // Without server-side apply Helm takes away what it once set, whoever has changed it since.
    assert_eq!(replicas(Some(deployment(3, &[("keda", "Update")], &[("helm", "Update")])), &[]), 3);
}

#[test]
fn an_upgrade_leaves_to_keda_what_is_kedas() {
    let scaled = deployment(4, &[("keda", "Update")], &[("helm", "Apply")]);
    assert_eq!(replicas(Some(scaled), &[]), Value::Null, "a second hand on the wheel");
    assert_eq!(replicas(None, &[]), Value::Null, "and so at a first install");
}

#[test]
fn without_keda_the_values_say_how_many() {
    let set = ["keda.enabled=false", "deliver.replicas=2"];
    assert_eq!(replicas(Some(deployment(4, &[("helm", "Apply")], &[])), &set), 2);
}
