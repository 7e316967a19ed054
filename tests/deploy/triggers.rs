//! KEDA's triggers: parameters that KEDA knows, and the same places that the workers read from.

use owlpost::config::SourceKind;
use serde_json::{Value, json};

use crate::configuration::{config_of, workers};
use crate::tools::{everything, kinds, list, named, template};

fn known() -> Value {
    serde_json::from_str(include_str!("schemas/triggers.json")).unwrap()
}

/// KEDA ignores what it does not know: a misspelt key would be its default, silently.
#[test]
fn keda_knows_every_parameter_and_gets_all_it_needs() {
    let known = known();
    let mut seen = 0;
    for (name, documents) in everything() {
        for trigger in kinds(&documents, "ScaledObject").flat_map(|scaled| list(&scaled["spec"]["triggers"])) {
            let parameters = known[trigger["type"].as_str().unwrap()].as_object().unwrap();
            let given = trigger["metadata"].as_object().unwrap();
            for (key, value) in given {
                let parameter = parameters.get(key).unwrap_or_else(|| panic!("{name}: KEDA has no {key}"));
                let value = value.as_str().unwrap_or_else(|| panic!("{name}: {key} has to be text"));
                let allowed = list(&parameter["allowedValue"]);
                assert!(allowed.is_empty() || allowed.iter().any(|one| one == value), "{name}: {key} = {value}");
            }
            for (key, parameter) in parameters {
                let needed = parameter["optional"] != true && parameter["default"].is_null();
                assert!(!needed || given.contains_key(key), "{name}: {key} is missing");
            }
            assert_eq!(trigger["useCachedMetrics"], true, "{name}: one question a poll, whoever asks");
            if let Some(reference) = trigger["authenticationRef"]["name"].as_str() {
                named(&documents, "TriggerAuthentication", reference);
            }
            seen += 1;
        }
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn keda_asks_where_the_workers_read() {
    for (name, documents) in everything() {
        for scaled in kinds(&documents, "ScaledObject") {
            let target = scaled["spec"]["scaleTargetRef"]["name"].as_str().unwrap();
            let config = config_of(&documents, named(&documents, "Deployment", target));
            for trigger in list(&scaled["spec"]["triggers"]) {
                let given = &trigger["metadata"];
                let source = |kind| config.sources.iter().find(|source| source.kind == kind).unwrap();
                match trigger["type"].as_str().unwrap() {
                    "kafka" => {
                        let source = source(SourceKind::Kafka);
                        assert_eq!(given["bootstrapServers"], source.brokers.join(","), "{name}");
                        assert_eq!(given["consumerGroup"], source.group.clone().unwrap(), "{name}");
                        assert!(source.topics.iter().any(|topic| given["topic"] == **topic), "{name}");
                        // The program's own default, which the chart has to know.
                        assert_eq!(given["offsetResetPolicy"], "earliest", "{name}");
                        assert_eq!(given["tls"], "enable", "{name}");
                    }
                    "aws-sqs-queue" => {
                        let url = source(SourceKind::Sqs).queue_url.clone().unwrap();
                        assert_eq!(given["queueURL"], url, "{name}");
                        assert!(url.contains(given["awsRegion"].as_str().unwrap()), "{name}");
                        assert_eq!(given["scaleOnInFlight"], "true", "{name}: what a pod holds keeps it alive");
                    }
                    "postgresql" => {
                        assert!(config.store.is_postgres(), "{name}");
                        let view = given["query"].as_str().unwrap().strip_prefix("SELECT due FROM ").unwrap();
                        let sql = include_str!("../../src/store/postgres/migrations/V2__backlog.sql");
                        assert!(
                            sql.contains(&format!("CREATE VIEW {view} AS SELECT owlpost_backlog() AS due")),
                            "{view}"
                        );
                    }
                    other => panic!("{name}: {other}"),
                }
            }
        }
    }
}

/// Each Deployment of two asks one thing only, so that the one goes on while what the other asks is down.
#[test]
fn intake_follows_the_sources_and_delivery_what_is_due() {
    for name in ["eks-irsa", "eks-pod-identity", "gke-web-identity"] {
        let documents = template(name, &[]);
        assert_eq!(workers(&documents).count(), 2, "{name}");
        let types = |of: &str| -> Vec<String> {
            let scaled = named(&documents, "ScaledObject", of);
            list(&scaled["spec"]["triggers"]).iter().map(|t| t["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(types("owlpost-deliver"), ["postgresql"], "{name}");
        let source = if name == "eks-pod-identity" { "aws-sqs-queue" } else { "kafka" };
        assert_eq!(types("owlpost-intake"), [source], "{name}");
    }
    // By Helm, by hand and by kustomize.
    for (name, documents) in everything() {
        for scaled in kinds(&documents, "ScaledObject") {
            assert_eq!(list(&scaled["spec"]["triggers"]).len(), 1, "{name}: {}", scaled["metadata"]["name"]);
        }
    }
    let documents = template("eks-irsa", &["split=false"]);
    let together = list(&named(&documents, "ScaledObject", "owlpost")["spec"]["triggers"]);
    let types: Vec<&Value> = together.iter().map(|trigger| &trigger["type"]).collect();
    assert_eq!(types, ["kafka", "postgresql"]);
}

#[test]
fn several_sources_and_topics_are_asked_for_each() {
    let sources = r#"config.source=[
        {"name":"a","kind":"kafka","brokers":["k:9098"],"topics":["one","two"],"group":"g","iam":true},
        {"name":"b","kind":"kafka","brokers":["k:9098"],"topics":["^x[.].*"],"group":"h","iam":true,
         "properties":{"auto.offset.reset":"latest"}},
        {"name":"c","kind":"sqs","queue":"arn:aws:sqs:eu-north-1:111122223333:events.fifo"},
        {"name":"d","kind":"sqs","queue":"owlpost-events"}]"#;
    let documents = template("eks-irsa", &[sources, r#"keda.kafka.topics={"b":["x.1","x.2"]}"#]);
    let triggers = list(&named(&documents, "ScaledObject", "owlpost-intake")["spec"]["triggers"]);
    let of =
        |key: &str| -> Vec<&str> { triggers.iter().filter_map(|trigger| trigger["metadata"][key].as_str()).collect() };
    assert_eq!(of("topic"), ["one", "two", "x.1", "x.2"]);
    assert_eq!(of("offsetResetPolicy"), ["earliest", "earliest", "latest", "latest"]);
    assert_eq!(of("queueURL"), ["https://sqs.eu-north-1.amazonaws.com/111122223333/events.fifo", "owlpost-events"]);
    assert_eq!(of("awsRegion"), ["eu-west-1", "eu-west-1", "eu-west-1", "eu-west-1", "eu-north-1", "eu-west-1"]);
    let names: std::collections::BTreeSet<&str> = triggers.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 6);
}

#[test]
fn a_source_that_keda_cannot_ask_keeps_its_pods() {
    let set =
        [r#"config.source=[{"name":"posts","kind":"http"}]"#, "config.http.allow_anonymous=true", "intake.replicas=2"];
    let documents = template("eks-irsa", &set);
    assert_eq!(named(&documents, "Deployment", "owlpost-intake")["spec"]["replicas"], 2);
    assert_eq!(kinds(&documents, "ScaledObject").count(), 1);
    named(&documents, "PodDisruptionBudget", "owlpost-intake");
}

/// The parameters that a TriggerAuthentication takes out of Secrets: what, Secret, key.
fn out_of_secrets(authentication: &Value) -> Vec<[&str; 3]> {
    let from = list(&authentication["spec"]["secretTargetRef"]).iter();
    from.map(|one| ["parameter", "name", "key"].map(|key| one[key].as_str().unwrap())).collect()
}

#[test]
fn keda_gets_the_certificates_that_the_workers_need() {
    let auth = r#"keda.kafka.auth={"ca":{"name":"kafka-ca","key":"ca.pem"}}"#;
    let documents = template("eks-irsa", &[auth]);
    let with_iam = named(&documents, "TriggerAuthentication", "owlpost-aws");
    assert_eq!(out_of_secrets(with_iam), [["ca", "kafka-ca", "ca.pem"]]);
    assert_eq!(with_iam["spec"]["podIdentity"]["provider"], "aws");

    let source = r#"config.source=[{"name":"k","kind":"kafka","brokers":["k:9093"],"topics":["t"],"group":"g","properties":{
        "ssl.ca.location":"/run/secrets/kafka/ca.pem","ssl.certificate.location":"/run/secrets/kafka/tls.crt",
        "ssl.key.location":"/run/secrets/kafka/tls.key","enable.ssl.certificate.verification":"false"}}]"#;
    let key = |name: &str, key: &str| format!(r#""{name}":{{"name":"kafka","key":"{key}"}}"#);
    let auth =
        format!("keda.kafka.auth={{{},{},{}}}", key("ca", "ca.pem"), key("cert", "tls.crt"), key("key", "tls.key"));
    let set = [source, "keda.kafka.auth=null", &auth, r#"secrets.env={}"#, r#"secrets.files=["owlpost-db","kafka"]"#];
    let documents = template("gke-web-identity", &set);
    let own = named(&documents, "TriggerAuthentication", "owlpost-kafka");
    assert_eq!(out_of_secrets(own).iter().map(|one| one[0]).collect::<Vec<_>>(), ["ca", "cert", "key"]);
    let trigger = &named(&documents, "ScaledObject", "owlpost-intake")["spec"]["triggers"][0];
    assert_eq!((&trigger["metadata"]["tls"], &trigger["metadata"]["unsafeSsl"]), (&"enable".into(), &"true".into()));
}

/// A source in another account is asked through the role by which it is read.
#[test]
fn keda_takes_on_the_role_of_a_source_of_another_account() {
    let sources = r#"config.source=[{"name":"here","kind":"sqs","queue":"owlpost-events"},
        {"name":"there","kind":"sqs","queue":"arn:aws:sqs:eu-west-1:444455556666:athenz-events",
         "assume_role_arn":"arn:aws:iam::444455556666:role/owlpost-queue","external_id":"owlpost"}]"#;
    let documents = template("eks-pod-identity", &[sources]);
    let triggers = list(&named(&documents, "ScaledObject", "owlpost-intake")["spec"]["triggers"]);
    let asked_as: Vec<&str> = triggers.iter().map(|t| t["authenticationRef"]["name"].as_str().unwrap()).collect();
    assert_eq!(asked_as, ["owlpost-aws", "owlpost-aws-there"]);
    let who = |name: &str| named(&documents, "TriggerAuthentication", name)["spec"]["podIdentity"].clone();
    assert_eq!(who("owlpost-aws"), json!({ "provider": "aws", "identityOwner": "keda" }));
    let role = "arn:aws:iam::444455556666:role/owlpost-queue";
    assert_eq!(who("owlpost-aws-there"), json!({ "provider": "aws", "roleArn": role, "externalID": "owlpost" }));
    // Two names that are one as Kubernetes wants them.
    let alike = r#"config.source=[
        {"name":"the_re","kind":"sqs","queue":"events","assume_role_arn":"arn:aws:iam::111122223333:role/owlpost-queue"},
        {"name":"the.re","kind":"sqs","queue":"events","assume_role_arn":"arn:aws:iam::444455556666:role/owlpost-queue"}]"#;
    let alike = template("eks-pod-identity", &[alike, "keda.kafka.auth=null"]);
    assert_eq!(kinds(&alike, "TriggerAuthentication").count(), 3, "two roles, and the backlog");
    // A role that was made for KEDA goes before.
    let own = "arn:aws:iam::444455556666:role/keda";
    let documents = template("eks-pod-identity", &[sources, &format!("keda.aws.roleArn={own:?}")]);
    assert_eq!(kinds(&documents, "TriggerAuthentication").count(), 2);
    assert_eq!(named(&documents, "TriggerAuthentication", "owlpost-aws")["spec"]["podIdentity"]["roleArn"], own);
}

/// KEDA reads the pod's variables by itself, under other names of its parameters.
#[test]
fn a_variable_is_looked_up_by_keda_as_by_the_workers() {
    let source = r#"config.source=[{"name":"k","kind":"kafka","brokers":["${BROKERS}"],"topics":["${TOPIC}"],"group":"g","iam":true},
        {"name":"q","kind":"sqs","queue_url":"${QUEUE_URL}","region":"eu-west-1"}]"#;
    let ports = r#"networkPolicy.extraEgress=[{"ports":[{"protocol":"TCP","port":9098}]}]"#;
    let documents = template("eks-irsa", &[source, ports]);
    let triggers = list(&named(&documents, "ScaledObject", "owlpost-intake")["spec"]["triggers"]);
    let kafka = &triggers[0]["metadata"];
    assert_eq!((&kafka["bootstrapServersFromEnv"], &kafka["topicFromEnv"]), (&"BROKERS".into(), &"TOPIC".into()));
    assert_eq!((&kafka["bootstrapServers"], &kafka["consumerGroup"]), (&Value::Null, &"g".into()));
    assert_eq!(triggers[1]["metadata"]["queueURLFromEnv"], "QUEUE_URL");
}
