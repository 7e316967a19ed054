//! Who the pods are at AWS, and that the documents beside the values allow what is needed and no more.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::tools::{containers, kinds, list, named, pod, root, template};

fn document(name: &str) -> Value {
    let path = root().join("deploy/values/iam").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_str().map_or_else(|| list(value).iter().map(|one| one.as_str().unwrap()).collect(), |one| vec![one])
}

fn actions(name: &str) -> BTreeSet<String> {
    list(&document(name)["Statement"]).iter().flat_map(|one| texts(&one["Action"])).map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_document_allows_what_is_needed_and_no_more() {
    let send = ["ses:SendEmail", "ses:GetAccount", "ses:GetEmailIdentity", "ses:GetConfigurationSet"];
    let wanted: &[(&str, &[&str])] = &[
        ("send", &send),
        ("send-other-account", &send),
        ("send-smtp", &["ses:SendRawEmail"]),
        ("ses-identity-policy", &["ses:SendEmail"]),
        ("assume-role", &["sts:AssumeRole"]),
        ("trust-role", &["sts:AssumeRole"]),
        ("trust-irsa", &["sts:AssumeRoleWithWebIdentity"]),
        ("trust-web-identity", &["sts:AssumeRoleWithWebIdentity"]),
        ("trust-pod-identity", &["sts:AssumeRole", "sts:TagSession"]),
        (
            "sqs",
            &[
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:ChangeMessageVisibility",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
            ],
        ),
        (
            "msk",
            &[
                "kafka-cluster:Connect",
                "kafka-cluster:DescribeTopic",
                "kafka-cluster:ReadData",
                "kafka-cluster:DescribeGroup",
                "kafka-cluster:AlterGroup",
            ],
        ),
        ("forward-sqs", &["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]),
        (
            "forward-msk",
            &[
                "kafka-cluster:Connect",
                "kafka-cluster:WriteDataIdempotently",
                "kafka-cluster:DescribeTopic",
                "kafka-cluster:WriteData",
            ],
        ),
        ("rds", &["rds-db:connect"]),
        ("keda-sqs", &["sqs:GetQueueAttributes"]),
        ("keda-msk", &["kafka-cluster:Connect", "kafka-cluster:DescribeTopic", "kafka-cluster:DescribeGroup"]),
    ];
    for (name, wanted) in wanted {
        assert_eq!(actions(name), set(wanted), "{name}");
    }
    let there = std::fs::read_dir(root().join("deploy/values/iam")).unwrap().count();
    assert_eq!(there, wanted.len(), "each document is looked at here");
}

/// The configuration's own words for users say the same.
#[test]
fn the_configuration_names_the_same_rights() {
    let (sqs, kafka) = (include_str!("../../config/sqs.toml"), include_str!("../../config/kafka.toml"));
    assert!(actions("sqs").iter().all(|action| sqs.contains(action)));
    assert!(actions("msk").iter().all(|action| kafka.contains(action.trim_start_matches("kafka-cluster:"))));
    assert!(["ses:SendEmail", "ses:GetAccount"].iter().all(|action| sqs.contains(action)));
}

#[test]
fn no_document_is_wider_than_its_resource() {
    for entry in std::fs::read_dir(root().join("deploy/values/iam")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".json").unwrap();
        let document = document(name);
        assert_eq!(document["Version"], "2012-10-17", "{name}");
        for statement in list(&document["Statement"]) {
            assert_eq!(statement["Effect"], "Allow", "{name}");
            assert!(texts(&statement["Action"]).iter().all(|action| !action.contains('*')), "{name}");
            let everywhere = texts(&statement["Resource"]).contains(&"*");
            // GetAccount knows no resource.
            assert!(!everywhere || statement["Action"] == "ses:GetAccount", "{name}");
            let trust = name.starts_with("trust-");
            assert_eq!(trust, statement["Resource"].is_null(), "{name}");
            assert!(!trust || statement["Condition"].is_object(), "{name}: whoever could ask would be it");
            assert!(statement["Principal"] != "*" && statement["Principal"]["AWS"] != "*", "{name}");
        }
    }
}

#[test]
fn only_senders_of_the_domain_may_be_used() {
    for (name, action) in [
        ("send", "ses:SendEmail"),
        ("send-other-account", "ses:SendEmail"),
        ("ses-identity-policy", "ses:SendEmail"),
        ("send-smtp", "ses:SendRawEmail"),
    ] {
        let document = document(name);
        let send = list(&document["Statement"]).iter().find(|one| one["Action"] == action).unwrap();
        assert_eq!(send["Condition"]["StringLike"]["ses:FromAddress"], "*@example.com", "{name}");
    }
}

/// A values file's head names the policies that its settings need, and they are there.
#[test]
fn every_values_file_that_speaks_to_aws_names_its_policy() {
    for name in crate::tools::values() {
        let path = root().join("deploy/values").join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(path).unwrap();
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        let named: Vec<&str> = head.split("iam/").skip(1).filter_map(|rest| rest.split(".json").next()).collect();
        assert!(named.iter().all(|name| document(name).is_object()), "{name}");
        assert_eq!(named.is_empty(), !head.contains("SES") && !head.contains("AWS"), "{name}: {named:?}");
    }
}

/// The trust names the ServiceAccount and the audience that the manifests have.
#[test]
fn the_trust_fits_the_pods() {
    for (values, trust) in [("eks-irsa", "trust-irsa"), ("gke-web-identity", "trust-web-identity")] {
        let documents = template(values, &[]);
        let account = kinds(&documents, "ServiceAccount").next().unwrap();
        let (namespace, name) = (&account["metadata"]["namespace"], &account["metadata"]["name"]);
        let subject = format!("system:serviceaccount:{}:{}", namespace.as_str().unwrap(), name.as_str().unwrap());
        let trust = document(trust);
        let statement = &trust["Statement"][0];
        let conditions = statement["Condition"]["StringEquals"].as_object().unwrap();
        let provider = statement["Principal"]["Federated"].as_str().unwrap().split_once(":oidc-provider/").unwrap().1;
        assert_eq!(conditions[&format!("{provider}:sub")], subject);
        assert_eq!(conditions[&format!("{provider}:aud")], "sts.amazonaws.com");
        assert_eq!(conditions.len(), 2);
    }
    let documents = template("ses-other-account-role", &[]);
    let toml = named(&documents, "ConfigMap", "owlpost")["data"]["owlpost.toml"].as_str().unwrap();
    let assume = document("assume-role");
    let role = assume["Statement"][0]["Resource"].as_str().unwrap();
    let id = document("trust-role")["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"].clone();
    assert!(
        toml.contains(&format!("assume_role_arn = \"{role}\"")) && toml.contains(&format!("external_id = {id}")),
        "{toml}"
    );
    let documents = template("ses-other-account-identity", &[]);
    let toml = named(&documents, "ConfigMap", "owlpost")["data"]["owlpost.toml"].as_str().unwrap();
    let policy = document("ses-identity-policy");
    let identity = policy["Statement"][0]["Resource"].as_str().unwrap();
    assert!(toml.contains(&format!("identity_arn = \"{identity}\"")), "{toml}");
    assert!(texts(&document("send-other-account")["Statement"][0]["Resource"]).contains(&identity));
}

fn env<'v>(container: &'v Value, name: &str) -> &'v Value {
    list(&container["env"]).iter().find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn a_projected_token_is_where_the_aws_clients_look() {
    let documents = template("gke-web-identity", &[]);
    for deployment in kinds(&documents, "Deployment") {
        let pod = pod(deployment).unwrap();
        let worker = &pod["containers"][0];
        let file = env(worker, "AWS_WEB_IDENTITY_TOKEN_FILE")["value"].as_str().unwrap();
        let mount = list(&worker["volumeMounts"]).iter().find(|mount| mount["name"] == "aws-token").unwrap();
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == "aws-token").unwrap();
        let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(file, format!("{}/{}", mount["mountPath"].as_str().unwrap(), token["path"].as_str().unwrap()));
        assert_eq!(token["audience"], "sts.amazonaws.com");
        assert_eq!(volume["projected"]["defaultMode"], 0o440, "the pod's group may read it");
    }
}

#[test]
fn nobody_is_taken_for_the_machine_they_run_on() {
    for name in crate::tools::values() {
        let documents = template(&name, &[]);
        let aws = list(&named(&documents, "NetworkPolicy", "owlpost")["spec"]["egress"])
            .iter()
            .any(|rule| list(&rule["ports"]).iter().any(|port| port["port"] == 443));
        for worker in kinds(&documents, "Deployment").filter_map(pod).flat_map(containers) {
            assert_eq!(env(worker, "AWS_EC2_METADATA_DISABLED")["value"] == "true", aws, "{name}");
            assert_eq!(env(worker, "AWS_REGION")["value"] == "eu-west-1", aws, "{name}");
        }
    }
}

/// KEDA asks how much waits; the workers' keys may send mails.
#[test]
fn with_static_keys_keda_may_have_a_user_of_its_own() {
    let secrets = |more: &[&str]| -> BTreeSet<String> {
        let sqs = r#"config.source=[{"name":"events","kind":"sqs","queue":"owlpost-events"}]"#;
        let keda = r#"keda={"enabled":true,"backlog":{"connection":{"name":"owlpost-keda","key":"connection"}}}"#;
        let store = r#"config.store={"url":"postgres://owlpost@db.example.com/owlpost"}"#;
        let documents = template("static-keys", &[&[sqs, keda, store], more].concat());
        let spec = &named(&documents, "TriggerAuthentication", "owlpost-aws")["spec"];
        let workers = kinds(&documents, "Deployment").filter_map(pod).flat_map(containers);
        for worker in workers {
            assert_eq!(env(worker, "AWS_ACCESS_KEY_ID")["valueFrom"]["secretKeyRef"]["name"], "owlpost-aws");
        }
        list(&spec["secretTargetRef"]).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(secrets(&[r#"keda.aws={"secret":"keda-aws"}"#]), set(&["keda-aws"]));
    assert_eq!(secrets(&[]), set(&["owlpost-aws"]));
}

#[test]
fn keda_is_itself_at_aws_or_the_role_that_it_is_told() {
    let authentication = |set: &[&str]| {
        let documents = template("eks-irsa", set);
        named(&documents, "TriggerAuthentication", "owlpost-aws")["spec"].clone()
    };
    assert_eq!(authentication(&[])["podIdentity"], json!({ "provider": "aws", "identityOwner": "keda" }));
    let workload = authentication(&[r#"keda.aws.identityOwner="workload""#]);
    assert_eq!(workload["podIdentity"]["identityOwner"], "workload");
    let role = authentication(&[r#"keda.aws.roleArn="arn:aws:iam::111122223333:role/keda-owlpost""#]);
    // With both KEDA refuses the trigger.
    assert_eq!(
        role["podIdentity"],
        json!({ "provider": "aws", "roleArn": "arn:aws:iam::111122223333:role/keda-owlpost" })
    );
}
