//! Numbers in the manifests against those of the program.

use std::time::Duration;

use owlpost::app::{longest_start, longest_stop};
use owlpost::vitals::SILENT_AFTER;
use serde_json::Value;

use crate::configuration::{config_of, workers};
use crate::tools::{everything, kinds, named, pod, template};

fn seconds(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of seconds"))
}

/// The worker's container: the only one of its pod that goes on.
fn worker(document: &Value) -> &Value {
    &pod(document).unwrap()["containers"][0]
}

#[test]
fn a_pod_is_given_the_time_that_the_slowest_stop_takes() {
    for (name, documents) in everything() {
        for deployment in workers(&documents) {
            let drain = config_of(&documents, deployment).delivery.drain.0;
            let before = worker(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
            let grace = Duration::from_secs(seconds(&pod(deployment).unwrap()["terminationGracePeriodSeconds"]));
            assert!(grace >= longest_stop(drain) + Duration::from_secs(before), "{name}: {grace:?} for {drain:?}");
        }
    }
}

#[test]
fn probes_ask_what_is_there_and_a_loop_is_silent_before_its_pod_is_ended() {
    for (name, documents) in everything() {
        for deployment in workers(&documents) {
            let worker = worker(deployment);
            let port =
                config_of(&documents, deployment).http.listen.rsplit(':').next().unwrap().parse::<u64>().unwrap();
            assert_eq!(worker["ports"][0]["containerPort"], port, "{name}");
            for (probe, path) in
                [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            {
                assert_eq!(worker[probe]["httpGet"]["path"], path, "{name}");
                assert_eq!(worker[probe]["httpGet"]["port"], worker["ports"][0]["name"], "{name}");
            }
            let patience =
                |probe: &str| seconds(&worker[probe]["periodSeconds"]) * seconds(&worker[probe]["failureThreshold"]);
            // A loop that hangs is known after this; from then on some more failures end the pod, not a single one.
            assert!(patience("livenessProbe") >= SILENT_AFTER.as_secs(), "{name}");
            assert!(seconds(&worker["livenessProbe"]["failureThreshold"]) >= 3, "{name}");
            let migrates = config_of(&documents, deployment).store.migrate;
            let start = Duration::from_secs(patience("startupProbe"));
            assert!(start >= longest_start(migrates), "{name}: a migration comes before the first answer");
            assert!(migrates || start <= Duration::from_secs(300), "{name}: nobody waits for a start that hangs");
            assert!(patience("readinessProbe") < patience("livenessProbe"), "{name}");
        }
    }
}

/// The job's own migration, after the wait for another one.
#[test]
fn a_job_that_migrates_is_given_the_time_for_it() {
    let documents = template("gke-web-identity", &[]);
    let deadline = seconds(&named(&documents, "Job", "owlpost-migrate")["spec"]["activeDeadlineSeconds"]);
    assert!(Duration::from_secs(deadline) >= longest_start(true), "{deadline}");
}

#[test]
fn a_longer_drain_is_a_longer_grace() {
    let documents = template("eks-irsa", &["drainSeconds=120"]);
    for deployment in workers(&documents) {
        assert_eq!(config_of(&documents, deployment).delivery.drain.0, Duration::from_secs(120));
        let grace = seconds(&pod(deployment).unwrap()["terminationGracePeriodSeconds"]);
        assert!(Duration::from_secs(grace) > longest_stop(Duration::from_secs(120)), "{grace}");
    }
}

/// What the view of the backlog counts as due already.
fn lead() -> u64 {
    let sql = include_str!("../../src/store/postgres/migrations/V2__backlog.sql");
    let microseconds = sql.split(" AS bigint) + ").nth(1).unwrap().split(' ').next().unwrap();
    microseconds.parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn keda_looks_often_enough_for_what_is_due_and_waits_longer_than_a_stop() {
    let mut seen = 0;
    for (name, documents) in everything() {
        for scaled in kinds(&documents, "ScaledObject") {
            let spec = &scaled["spec"];
            let target = named(&documents, "Deployment", spec["scaleTargetRef"]["name"].as_str().unwrap());
            assert!(target["spec"]["replicas"].is_null(), "{name}: two hands on one wheel");
            let poll = seconds(&spec["pollingInterval"]);
            assert!(poll < lead(), "{name}: a pod starts before what it is woken for is due");
            let stop = seconds(&pod(target).unwrap()["terminationGracePeriodSeconds"]);
            if spec["minReplicaCount"] == 0 {
                assert!(seconds(&spec["cooldownPeriod"]) > stop + 3 * poll, "{name}");
            } else {
                assert!(spec["cooldownPeriod"].is_null(), "{name}: KEDA warns of it where there are never zero");
            }
            // One trigger that can't be built blinds the others, unless the first error counts.
            assert_eq!(spec["fallback"]["failureThreshold"], 0, "{name}");
            assert!(seconds(&spec["fallback"]["replicas"]) >= 1, "{name}");
            assert!(seconds(&spec["minReplicaCount"]) <= seconds(&spec["maxReplicaCount"]), "{name}");
            assert!(scaled["metadata"]["name"].as_str().unwrap().len() <= 54, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn a_store_of_one_worker_has_one_pod_that_ends_before_the_next_begins() {
    let mut seen = 0;
    for (name, documents) in everything() {
        for deployment in workers(&documents) {
            let config = config_of(&documents, deployment);
            let strategy = deployment["spec"]["strategy"]["type"].as_str().unwrap();
            if config.store.is_postgres() {
                assert_eq!(strategy, "RollingUpdate", "{name}");
                continue;
            }
            assert_eq!((strategy, &deployment["spec"]["replicas"]), ("Recreate", &1.into()), "{name}");
            let path = config.store.sqlite_path().unwrap();
            let mounts = worker(deployment)["volumeMounts"].as_array().unwrap();
            let data = mounts.iter().find(|mount| mount["mountPath"] == "/data").unwrap();
            assert!(path.starts_with("/data"), "{name}");
            let volumes = pod(deployment).unwrap()["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == data["name"]).unwrap();
            assert!(volume["persistentVolumeClaim"]["claimName"].is_string(), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}
