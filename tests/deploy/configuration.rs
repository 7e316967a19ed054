//! What stands in the ConfigMaps is what the program reads, with the environment and the files that the pod gives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use owlpost::config::{self, Config};
use serde_json::Value;

use crate::tools::{containers, everything, kinds, list, named, owlpost, pod, root, template, text};

/// The files that a pod's volumes give a container: absolute paths and texts.
pub fn mounted(documents: &[Value], pod: &Value, container: &Value) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for mount in list(&container["volumeMounts"]) {
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let path = mount["mountPath"].as_str().unwrap();
        files.extend(files_of(documents, volume).into_iter().map(|(file, text)| (format!("{path}/{file}"), text)));
    }
    files
}

/// A container's environment; what is in a Secret is "a-secret".
pub fn environment(container: &Value) -> BTreeMap<String, String> {
    let one = |variable: &Value| {
        let value = variable["value"].as_str().unwrap_or("a-secret");
        (variable["name"].as_str().unwrap().to_owned(), value.to_owned())
    };
    list(&container["env"]).iter().map(one).collect()
}

/// A container's view of its files, in a folder instead of `/`.
pub struct Room {
    _folder: tempfile::TempDir,
    pub env: BTreeMap<String, String>,
}

impl Room {
    pub fn of(documents: &[Value], pod: &Value, container: &Value) -> Room {
        let folder = tempfile::tempdir().unwrap();
        // The program is in no chroot here: what it is told of absolute paths becomes the folder's.
        let mounts = list(&container["volumeMounts"]).iter().map(|mount| mount["mountPath"].as_str().unwrap());
        // This folder may itself be below /tmp, and no file of a pod is there.
        let mounts = mounts.filter(|path| *path != "/tmp");
        let places: Vec<(&str, String)> =
            mounts.map(|path| (path, format!("{}{path}", folder.path().display()))).collect();
        let moved = |text: String| places.iter().fold(text, |text, (path, place)| text.replace(path, place));
        for (path, text) in mounted(documents, pod, container) {
            let path = folder.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, moved(text)).unwrap();
        }
        let env = environment(container).into_iter().map(|(name, value)| (name, moved(value))).collect();
        Room { _folder: folder, env }
    }
}

/// File names and texts; of Secrets, which are not in the manifests, what the values files say is in them.
fn files_of(documents: &[Value], volume: &Value) -> Vec<(String, String)> {
    if let Some(name) = volume["configMap"]["name"].as_str() {
        let Some(map) = kinds(documents, "ConfigMap").find(|map| map["metadata"]["name"] == name) else {
            return vec![("ca.pem".to_owned(), certificate())];
        };
        let items = list(&volume["configMap"]["items"]).iter();
        return items
            .map(|item| {
                let text = map["data"][item["key"].as_str().unwrap()].as_str();
                (item["path"].as_str().unwrap().to_owned(), text.unwrap().to_owned())
            })
            .collect();
    }
    if volume["secret"].is_object() {
        return ["password", "owner-password"].map(|file| (file.to_owned(), "a-secret\n".to_owned())).to_vec();
    }
    vec![]
}

fn certificate() -> String {
    let out = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=db"])
        .args(["-keyout", "/dev/null"])
        .output()
        .unwrap();
    text(&out.stdout)
}

/// The Deployments that run the worker.
pub fn workers(documents: &[Value]) -> impl Iterator<Item = &Value> {
    kinds(documents, "Deployment")
}

/// What the worker of this Deployment reads.
pub fn config_of(documents: &[Value], deployment: &Value) -> Config {
    let pod = pod(deployment).unwrap();
    // Paths stay as they are: they are what is to be looked at.
    let container = &pod["containers"][0];
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let config = list(&pod["volumes"]).iter().find(|volume| volume["name"] == "config").unwrap();
    for (file, text) in files_of(documents, config) {
        let path = folder.path().join(file);
        // Secrets are files of the pod.
        std::fs::write(&path, text.replace("${file:", "$${file:")).unwrap();
        files.push(path);
    }
    let env = environment(container).into_iter().filter(|(name, _)| name != "OWLPOST_CONFIG");
    config::load(&files, env).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn every_pod_passes_the_check_that_comes_before_it() {
    let mut seen = 0;
    for (name, documents) in everything() {
        for pod in documents.iter().filter_map(pod) {
            for container in containers(pod) {
                let room = Room::of(&documents, pod, container);
                let out = owlpost().envs(&room.env).args(["check", "--json"]).output().unwrap();
                let said: Value =
                    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{name}: {}", text(&out.stderr)));
                assert_eq!(said["problems"], Value::Array(vec![]), "{name}: {}", container["name"]);
                assert!(out.status.success(), "{name}");
                let wanted = ["routes.toml", "owlpost.toml"];
                let read: Vec<&str> = list(&said["files"]).iter().map(|file| file.as_str().unwrap()).collect();
                assert!(read.iter().zip(wanted).all(|(file, wanted)| file.ends_with(wanted)), "{name}: {read:?}");
                assert_eq!(list(&said["routes"]).len(), 10, "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn what_is_written_in_yaml_arrives_as_the_program_means_it() {
    let set = [
        r#"config.quota={"per_second":14,"per_day":50000,"urgent_reserve":0.25}"#,
        r#"config.source=[{"name":"events","kind":"http"}]"#,
        r#"config.route=[{"name":"approvals","priority":"bulk"},{"name":"alarms","types":["com.example.*"],"where":{"data.severity":["high","it's \"bad\" <&>"]},"audience":["{{data.team}}:group.oncall"],"cadence":{"quiet_for":"1m","max_items":20}}]"#,
        r#"config.limits={"event_bytes":1000000}"#,
        r#"config.realm="eu \\ ünï""#,
    ];
    let documents = template("smtp", &set);
    let config = config_of(&documents, workers(&documents).next().unwrap());
    assert_eq!(config.realm, "eu \\ ünï");
    assert_eq!(config.quota.per_second, config::Allowance::Mails(14.0));
    assert_eq!(config.quota.per_day, config::Allowance::Mails(50_000.0));
    assert!((config.quota.urgent_reserve - 0.25).abs() < 1e-9);
    assert_eq!(config.limits.event_bytes, 1_000_000);
    let route = |name: &str| config.routes.iter().find(|route| route.name == name).unwrap();
    assert_eq!(route("approvals").priority, owlpost::model::Priority::Bulk);
    assert_eq!(route("approvals").template, "approvals", "the built-in route, changed");
    assert_eq!(route("alarms").audience, ["{{data.team}}:group.oncall"]);
    assert_eq!(route("alarms").cadence.max_items, Some(20));
    let toml = named(&documents, "ConfigMap", "owlpost")["data"]["owlpost.toml"].as_str().unwrap();
    assert!(toml.contains(r#""data.severity" = ["high", "it's \"bad\" <&>"]"#), "{toml}");
}

#[test]
fn an_object_with_dots_in_its_name_can_be_mounted() {
    let documents = template("eks-irsa", &[r#"configFiles=["rds-ca","kube-root-ca.crt"]"#, r#"secrets.files=["a.b"]"#]);
    let pod = pod(named(&documents, "Deployment", "owlpost-intake")).unwrap();
    let worker = &pod["containers"][0];
    for (path, volume) in
        [("/etc/owlpost/files/kube-root-ca.crt", "files-kube-root-ca-crt"), ("/run/secrets/a.b", "secret-a-b")]
    {
        let mount = list(&worker["volumeMounts"]).iter().find(|mount| mount["mountPath"] == path).unwrap();
        assert_eq!(mount["name"], volume);
        assert!(list(&pod["volumes"]).iter().any(|one| one["name"] == volume));
    }
}

#[test]
fn a_change_of_the_configuration_is_a_rollout_and_one_of_the_people_is_none() {
    let sum = |documents: &[Value]| {
        let annotations = &named(documents, "Deployment", "owlpost")["spec"]["template"]["metadata"]["annotations"];
        annotations["checksum/config"].as_str().unwrap().to_owned()
    };
    let before = template("laptop", &[]);
    assert_ne!(sum(&before), sum(&template("laptop", &[r#"config.realm="eu""#])));
    let people = template("laptop", &[r#"people="[members]\n""#]);
    assert_eq!(sum(&before), sum(&people));
    let map = |documents: &[Value]| named(documents, "ConfigMap", "owlpost-people")["data"]["people.toml"].clone();
    assert_ne!(map(&before), map(&people));
}

#[test]
fn the_owner_migrates_before_workers_that_may_not() {
    let documents = template("gke-web-identity", &[]);
    for deployment in workers(&documents) {
        assert!(!config_of(&documents, deployment).store.migrate);
    }
    let job = named(&documents, "Job", "owlpost-migrate");
    let weight =
        |of: &Value| of["metadata"]["annotations"]["helm.sh/hook-weight"].as_str().unwrap().parse::<i32>().unwrap();
    assert!(weight(named(&documents, "Job", "owlpost-check")) < weight(job), "what can't be read is not migrated for");
    let env = list(&pod(job).unwrap()["containers"][0]["env"]);
    let of = |name: &str| env.iter().find(|variable| variable["name"] == name).unwrap();
    assert_eq!(of("OWLPOST__STORE__URL")["value"], "postgres://owlpost_owner@db.example.com/owlpost");
    assert_eq!(of("OWLPOST_OWNER_PASSWORD")["valueFrom"]["secretKeyRef"]["key"], "owner-password");
    let room = Room::of(&documents, pod(job).unwrap(), &pod(job).unwrap()["containers"][0]);
    let out = owlpost().envs(&room.env).arg("migrate").output().unwrap();
    // It gets as far as the network: nothing of its configuration is missing.
    let said = text(&out.stderr);
    assert!(!out.status.success() && said.contains("db.example.com"), "{said}");
}

#[test]
fn nothing_in_deploy_names_a_place_of_the_builder() {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&root().join("deploy"), &mut files);
    assert!(files.len() > 40);
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(root().to_str().unwrap()), "{}", file.display());
    }
}
