//! A server that knows as much of Kubernetes as Helm asks for when a chart looks at the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use serde_json::{Value, json};

use crate::tools::helm;

/// Of the objects that the chart has: API and kind.
const KINDS: &[(&str, &str)] = &[
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("batch/v1", "Job"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
];

/// A cluster with these objects, each by its path.
pub struct Cluster {
    _runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub fn with(objects: &[(&str, Value)]) -> Cluster {
        let live: BTreeMap<String, Value> =
            objects.iter().map(|(path, live)| ((*path).to_owned(), live.clone())).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(move |uri: Uri| {
            let none = json!({ "kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404 });
            let found = live.get(uri.path()).cloned().or_else(|| api(uri.path()));
            let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            std::future::ready((
                status,
                [(header::CONTENT_TYPE, "application/json")],
                found.unwrap_or(none).to_string(),
            ))
        });
        runtime.spawn(async { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{ "name": "here", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "me", "user": {} }],
            "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "me" } }],
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Cluster { _runtime: runtime, folder }
    }

    /// Helm, making of the chart what it would apply to this cluster.
    pub fn helm(&self, name: &str, set: &[&str]) -> Command {
        let mut helm = helm(&["template", "owlpost", "--dry-run=server", "--disable-openapi-validation"], name, set);
        helm.env("KUBECONFIG", self.folder.path().join("config"));
        helm
    }
}

/// What is asked before any object: which kinds there are.
fn api(path: &str) -> Option<Value> {
    match path {
        "/version" => Some(json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0" })),
        "/api" => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "/apis" => {
            // Each once: a group that stands there twice has every kind twice.
            let apis: BTreeSet<&str> = KINDS.iter().map(|(api, _)| *api).collect();
            let groups = apis.into_iter().filter_map(|api| {
                api.split_once('/').map(|(group, version)| {
                    let version = json!({ "groupVersion": api, "version": version });
                    json!({ "name": group, "versions": [version], "preferredVersion": version })
                })
            });
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>() }))
        }
        _ => {
            let wanted = path.strip_prefix("/apis/").or(path.strip_prefix("/api/"))?;
            let kinds = KINDS.iter().filter(|(api, _)| *api == wanted).map(|(_, kind)| {
                let names = format!("{}s", kind.to_lowercase()).replace("policys", "policies");
                json!({ "name": names, "kind": kind, "namespaced": true, "verbs": ["get"] })
            });
            let kinds: Vec<Value> = kinds.collect();
            let list =
                json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": wanted, "resources": kinds });
            (!kinds.is_empty()).then_some(list)
        }
    }
}
