//! Least privilege, in every pod that can come of `deploy/`.

use serde_json::json;

use crate::tools::{containers, everything, kinds, list, named, pod, template};

#[test]
fn every_container_has_no_privilege_and_nothing_to_write_to() {
    let mut seen = 0;
    for (name, documents) in everything() {
        for pod in documents.iter().filter_map(pod) {
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}: the API is asked for nothing");
            assert_eq!(pod["enableServiceLinks"], false, "{name}: other Services are no configuration of ours");
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[key].is_null(), "{name}: {key}");
            }
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert!(security["fsGroup"].as_u64() >= Some(10_000), "{name}: volumes and tokens are the group's");
            assert_eq!(security["seccompProfile"], json!({ "type": "RuntimeDefault" }), "{name}");
            for container in containers(pod) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["runAsNonRoot"], true, "{name}");
                assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
                assert!(security["runAsUser"].as_u64() >= Some(10_000), "{name}");
                assert!(security["privileged"].is_null(), "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
                assert!(container["command"].is_null(), "{name}: the image's own program, and no shell");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn only_what_may_change_can_be_written() {
    for (name, documents) in everything() {
        for pod in documents.iter().filter_map(pod) {
            for container in containers(pod) {
                let writable = list(&container["volumeMounts"]).iter().filter(|mount| mount["readOnly"] != true);
                for mount in writable {
                    let path = mount["mountPath"].as_str().unwrap();
                    assert!(["/tmp", "/data"].contains(&path), "{name}: {path}");
                }
            }
        }
    }
}

#[test]
fn every_service_account_keeps_its_token() {
    for (name, documents) in everything() {
        for account in kinds(&documents, "ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        }
        assert!(
            documents.iter().all(|one| !one["kind"].as_str().unwrap().contains("Role")),
            "{name}: no right is needed"
        );
    }
}

#[test]
fn no_secret_stands_in_a_manifest() {
    for (name, documents) in everything() {
        assert_eq!(kinds(&documents, "Secret").count(), 0, "{name}");
        for map in kinds(&documents, "ConfigMap") {
            for (file, text) in map["data"].as_object().unwrap() {
                for line in text.as_str().unwrap().lines().filter(|line| {
                    let key = line.split('=').next().unwrap_or_default();
                    key.contains("password") || key.contains("token")
                }) {
                    assert!(line.contains("${"), "{name}: {file}: {line}");
                }
            }
        }
    }
}

#[test]
fn the_ports_that_the_configuration_needs_are_open_and_no_others() {
    let ports = |name: &str, set: &[&str]| -> Vec<u64> {
        let documents = template(name, set);
        let rules = list(&named(&documents, "NetworkPolicy", "owlpost")["spec"]["egress"]);
        let ports = rules.iter().flat_map(|rule| list(&rule["ports"])).filter(|port| port["port"] != 53);
        ports.map(|port| port["port"].as_u64().unwrap()).collect()
    };
    assert_eq!(ports("laptop", &[]), [0; 0]);
    assert_eq!(ports("smtp", &[]), [587]);
    assert_eq!(ports("smtp", &[r#"config.mailer.tls="implicit""#]), [465]);
    assert_eq!(ports("static-keys", &[]), [443]);
    assert_eq!(ports("eks-irsa", &[]), [443, 5432, 9098]);
    // 80 is the agent's of EKS Pod Identity, at its address only.
    assert_eq!(ports("eks-pod-identity", &[]), [443, 5432, 80]);
    let several = [
        r#"config.store.url="postgres://u@h1:5433,h2:5434/owlpost""#,
        r#"config.dead_letters={"forward_to":"kafka://a:9193,b/letters"}"#,
        r#"config.mailer.endpoint_url="https://vpce.example.com:8443/ses""#,
    ];
    assert_eq!(ports("gke-web-identity", &several), [443, 5433, 5434, 8443, 9092, 9093, 9193]);
    // Where a token for Kafka comes from, and a queue that is not AWS's own.
    let token = r#"config.source[0].properties={"sasl.mechanism":"OAUTHBEARER","sasl.oauthbearer.token.endpoint.url":"https://sso.example.com:8444/token"}"#;
    assert_eq!(ports("gke-web-identity", &["keda.enabled=false", token]), [443, 5432, 8444, 9093]);
    let queue = r#"config.source[0]={"name":"events","kind":"sqs","queue_url":"http://elasticmq:9324/0/events"}"#;
    assert_eq!(ports("eks-irsa", &[queue]), [443, 5432, 9324]);
    let letters = r#"config.dead_letters={"forward_to":"http://elasticmq/0/letters"}"#;
    assert_eq!(ports("eks-irsa", &[letters]), [80, 443, 5432, 9098]);
    // A variable is not asked where the port is known all the same.
    let variables = [
        "keda.enabled=false",
        r#"config.store.url="postgres://u:${file:/run/secrets/db/password}@${HOST}:6432/owlpost""#,
        r#"config.source[0].brokers=["${A}:9193","${B}:9193"]"#,
    ];
    assert_eq!(ports("eks-irsa", &variables), [443, 6432, 9193]);
}

#[test]
fn a_port_that_only_a_variable_knows_is_the_operators_to_open() {
    let set = [
        r#"config.source[0].brokers=["${BROKERS}"]"#,
        r#"networkPolicy.extraEgress=[{"ports":[{"protocol":"TCP","port":19092}]}]"#,
    ];
    let documents = template("eks-irsa", &set);
    let egress = &named(&documents, "NetworkPolicy", "owlpost")["spec"]["egress"];
    let ports = list(egress).iter().flat_map(|rule| list(&rule["ports"])).map(|port| port["port"].as_u64().unwrap());
    assert_eq!(ports.collect::<Vec<_>>(), [53, 53, 443, 5432, 19_092], "no port that was guessed");
    template("eks-irsa", &[set[0], "networkPolicy.enabled=false"]);
}

#[test]
fn a_network_policy_covers_every_pod_and_closes_all_else() {
    for (name, documents) in everything() {
        // Migrations have one of their own, which is there before the release's.
        let (early, policies): (Vec<_>, Vec<_>) =
            kinds(&documents, "NetworkPolicy").partition(|one| one["metadata"]["name"] == "owlpost-migrate");
        let migrates = kinds(&documents, "Job").any(|job| job["metadata"]["name"] == "owlpost-migrate");
        assert_eq!(early.len(), usize::from(migrates), "{name}");
        for policy in early {
            let of = &policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"];
            assert_eq!(of, "migrate", "{name}");
            assert_eq!(policy["spec"]["egress"], policies[0]["spec"]["egress"], "{name}");
            assert!(policy["spec"]["ingress"].is_null(), "{name}");
        }
        assert_eq!(policies.len(), 1, "{name}");
        assert_eq!(policies[0]["spec"]["policyTypes"], json!(["Ingress", "Egress"]), "{name}");
        let wanted = policies[0]["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
        for owner in documents.iter().filter(|one| pod(one).is_some()) {
            let labels =
                if owner["kind"] == "Pod" { &owner["metadata"] } else { &owner["spec"]["template"]["metadata"] };
            for (key, value) in wanted {
                assert_eq!(&labels["labels"][key], value, "{name}: {}", owner["metadata"]["name"]);
            }
        }
    }
}
