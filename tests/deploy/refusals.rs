//! What makes no sense is refused before anything is changed, in words that say what to do.

use serde_json::json;

use crate::cluster::Cluster;
use crate::tools::{done, helm, text};

/// What helm says of a values file with these values.
fn refused(name: &str, set: &[&str]) -> String {
    let out = helm(&["template", "owlpost"], name, set).output().unwrap();
    assert!(!out.status.success(), "{name} {set:?} is not refused");
    text(&out.stderr)
}

/// Values file, values, what is said.
const REFUSALS: &[(&str, &[&str], &str)] = &[
    // Sources and mails.
    ("laptop", &["config.source=[]"], "config.source is empty: name where events come from"),
    (
        "laptop",
        &[r#"config.source=[{"name":"old","kind":"file","path":"x"}]"#],
        "is of kind file: a pod has no file that is read once",
    ),
    ("smtp", &["config.recipients.allowed_domains=[]"], "name the domains that may get mail, as in [example.com]"),
    ("static-keys", &[r#"config.recipients={"allowed_domains":[]}"#], "config.recipients.allowed_domains is empty"),
    ("laptop", &["config.http.token=null"], "anybody in the cluster could publish: set config.http.token"),
    ("laptop", &[r#"config.http.listen="127.0.0.1:8080""#], "on loopback, where no probe reaches it"),
    ("smtp", &[r#"config.mailer.password="hunter2""#], "config.mailer.password is written out, and everybody"),
    ("laptop", &[r#"config.http.previous_token="hunter2""#], "config.http.previous_token is written out"),
    (
        "gke-web-identity",
        &[r#"config.source[0].properties={"sasl.mechanism":"PLAIN","sasl.password":"hunter2"}"#],
        "config.source.properties.sasl.password is written out",
    ),
    ("laptop", &["builtinRoutes=false"], "nobody would hear of anything"),
    // What nobody could follow or reach.
    (
        "laptop",
        &["monitoring.rules=true"],
        "monitoring.runbook is empty, and who is woken at night could follow no alert's link",
    ),
    (
        "gke-web-identity",
        &[r#"config.source[0].brokers=["${BROKERS}"]"#],
        r#"config.source "events": brokers has its port in a variable, and the NetworkPolicy would close it: write HOST:PORT out"#,
    ),
    (
        "eks-irsa",
        &[r#"config.dead_letters={"forward_to":"kafka://${BROKERS}/letters"}"#],
        "config.dead_letters.forward_to has its port in a variable",
    ),
    ("eks-irsa", &[r#"config.store.url="${DATABASE_URL}""#], "config.store.url has its port in a variable"),
    (
        "eks-irsa",
        &[r#"config.store.url="postgres://u@db:${PORT}/owlpost""#],
        "config.store.url has its port in a variable",
    ),
    // A store of one worker.
    (
        "laptop",
        &["all.replicas=2"],
        "all.replicas is 2, but SQLite's file has one worker; more of them need config.store.url: postgres://",
    ),
    ("laptop", &["split=true"], "split is true, but SQLite's file has one worker"),
    ("laptop", &["keda.enabled=true"], "nothing could see from outside what is due in it"),
    (
        "laptop",
        &[r#"config.store.url="sqlite:owlpost.db""#],
        "not in /data, where the volume is: the ledger would end with the pod",
    ),
    ("laptop", &[r#"config.mailer.dir="/tmp/outbox""#], "config.mailer.dir is not below /data"),
    (
        "eks-irsa",
        &[r#"config.mailer={"kind":"outbox","dir":"/data/outbox","configuration_set":null}"#],
        "split is true, but the outbox is a folder on one volume",
    ),
    // Migrations.
    ("laptop", &["migrations.job=true"], "migrations.job is for PostgreSQL"),
    ("eks-pod-identity", &["migrations.job=true"], "migrations.job needs migrations.user"),
    ("eks-pod-identity", &["migrations.job=true"], "migrations.job needs migrations.password"),
    (
        "gke-web-identity",
        &[r#"config.store.url="${DATABASE_URL}""#],
        "migrations.job needs config.store.url written out, postgres://",
    ),
    (
        "eks-irsa",
        &["migrations.job=true", r#"migrations.user="owner""#],
        "needs migrations.serviceAccountName: a ServiceAccount that is there before the release",
    ),
    (
        "gke-web-identity",
        &[r#"migrations.password={"name":"owlpost-db","key":"owner-password"}"#],
        "secrets.files gives to the workers as well: they would have the owner's password",
    ),
    // Identity.
    (
        "static-keys",
        &[r#"identity.kind="none""#],
        "uses AWS, but identity.kind is none: choose irsa or pod-identity (EKS)",
    ),
    (
        "eks-irsa",
        &[r#"identity.region="""#],
        "identity.region is empty: without it AWS's clients would ask the machine",
    ),
    ("eks-irsa", &[r#"identity.roleArn="""#], "identity.kind irsa needs identity.roleArn"),
    ("gke-web-identity", &[r#"identity.roleArn="""#], "identity.kind web-identity needs identity.roleArn"),
    (
        "eks-pod-identity",
        &[r#"identity.roleArn="arn:aws:iam::111122223333:role/x""#],
        "identity.roleArn has no effect with identity.kind pod-identity: the role stands in the cluster's association",
    ),
    ("static-keys", &[r#"identity.secret="""#], "a Secret with the keys access-key-id and secret-access-key"),
    ("smtp", &[r#"identity.kind="irsa""#], "nothing in the configuration uses AWS"),
    ("eks-irsa", &["serviceAccount.create=false"], "needs serviceAccount.name: the one that has the annotation"),
    ("eks-pod-identity", &["serviceAccount.create=false"], "needs serviceAccount.name: the one that the role is for"),
    (
        "laptop",
        &[r#"podLabels={"app.kubernetes.io/component":"x"}"#],
        "podLabels has app.kubernetes.io/component, by which Deployment, Service and NetworkPolicy find their pods",
    ),
    // KEDA.
    (
        "eks-pod-identity",
        &[
            r#"config.source=[{"name":"events","kind":"http"}]"#,
            "config.http.allow_anonymous=true",
            "keda.backlog.enabled=false",
        ],
        "keda.enabled is true, but there is no trigger",
    ),
    ("eks-irsa", &["intake.min=7"], "intake.min (7) is more than intake.max (6)"),
    (
        "eks-irsa",
        &[
            r#"config.source=[{"name":"posts","kind":"http"},{"name":"queue","kind":"sqs","queue":"owlpost-events"}]"#,
            "config.http.allow_anonymous=true",
        ],
        "intake.min is 0, but a source is of kind http: with no pod nobody would take a request",
    ),
    (
        "eks-irsa",
        &["split=false", "keda.backlog.enabled=false"],
        "all.min is 0, but keda.backlog is off: nothing would wake a pod for mails that are due",
    ),
    ("eks-irsa", &["keda.backlog.connection=null"], "keda.backlog.connection is empty"),
    (
        "eks-irsa",
        &[
            r#"config.source=[{"name":"all","kind":"kafka","brokers":["k:9098"],"topics":["^athenz[.].*"],"group":"owlpost","iam":true}]"#,
        ],
        r#"takes topics by a pattern, which KEDA can't: list them in keda.kafka.topics: {all: [TOPIC"#,
    ),
    (
        "eks-pod-identity",
        &[r#"config.source=[{"name":"q","kind":"sqs","queue":"owlpost-events"}]"#, r#"identity.region="""#],
        r#"source "q" has no region that KEDA could ask in"#,
    ),
    ("gke-web-identity", &["keda.kafka.auth=null"], "signs in with SCRAM-SHA-512, and KEDA has to as well"),
    (
        "gke-web-identity",
        &[
            r#"config.source=[{"name":"k","kind":"kafka","brokers":["k:9093"],"topics":["t"],"group":"g","properties":{"sasl.mechanism":"GSSAPI"}}]"#,
        ],
        "signs in with GSSAPI, which this chart can't set up for KEDA",
    ),
    (
        "eks-pod-identity",
        &[r#"keda.aws.identityOwner="workload""#],
        "reads the role from the ServiceAccount's annotation, which only identity.kind irsa has",
    ),
    (
        "eks-irsa",
        &[r#"config.source[0].properties={"ssl.ca.location":"/etc/owlpost/files/kafka-ca/ca.pem"}"#],
        "trusts authorities of its own (ssl.ca.…), and KEDA has to as well: set keda.kafka.auth.ca",
    ),
    (
        "gke-web-identity",
        &[r#"config.source[0].properties={"SSL_CA_PEM":"x"}"#],
        "trusts authorities of its own (ssl.ca.…), and KEDA has to as well",
    ),
    (
        "gke-web-identity",
        &[r#"config.source[0].properties={"ssl.keystore.location":"/run/secrets/kafka/tls.p12"}"#],
        "shows a certificate of its own, and KEDA has to as well: set keda.kafka.auth.cert and .key",
    ),
    (
        "gke-web-identity",
        &[r#"config.source[0].properties={"ssl.key.password":"${KAFKA_PASSWORD}"}"#],
        "has a key with a password, and KEDA needs it as well: set keda.kafka.auth.keyPassword",
    ),
    (
        "gke-web-identity",
        &[r#"keda.kafka.auth.cert={"name":"kafka","key":"tls.crt"}"#],
        "keda.kafka.auth.cert and .key go together",
    ),
    (
        "gke-web-identity",
        &[r#"config.source[0].properties={"ssl.endpoint.identification.algorithm":"none"}"#],
        "does not compare brokers' names with their certificates, which KEDA always does",
    ),
    (
        "eks-irsa",
        &[r#"config.source[0].group="owlpost-${STAGE}""#],
        r#"has a variable in group, where KEDA would read it as it is written: let ${NAME} be all of it"#,
    ),
    ("eks-irsa", &[r#"config.source[0].region="${REGION}""#], "has a variable in region, where KEDA would read it"),
    (
        "static-keys",
        &[
            r#"config.store={"url":"postgres://owlpost@db.example.com/owlpost"}"#,
            r#"config.source=[{"name":"q","kind":"sqs","queue":"owlpost-events","assume_role_arn":"arn:aws:iam::444455556666:role/q"}]"#,
            "keda.enabled=true",
        ],
        "is read through a role (assume_role_arn), which KEDA can't take on with static keys",
    ),
    (
        "eks-irsa",
        &[
            r#"config.source[0].assume_role_arn="arn:aws:iam::444455556666:role/k""#,
            r#"keda.aws.identityOwner="workload""#,
        ],
        "is read through a role (assume_role_arn), which KEDA takes on itself",
    ),
    (
        "eks-irsa",
        &[r#"keda.aws={"identityOwner":"workload","roleArn":"arn:aws:iam::444455556666:role/k"}"#],
        "keda.aws: identityOwner workload and roleArn exclude each other",
    ),
    (
        "eks-irsa",
        &[r#"keda.aws.secret="keda-aws""#],
        "keda.aws.secret has no effect with identity.kind irsa, where KEDA has a role",
    ),
    // Names that would be taken twice.
    (
        "gke-web-identity",
        &[r#"secrets.files=["owlpost-db","owlpost.db"]"#],
        "secrets.files has owlpost-db and owlpost.db, which would be one volume",
    ),
    (
        "eks-irsa",
        &[r#"configFiles=["rds-ca","rds-ca"]"#],
        "configFiles has rds-ca and rds-ca, which would be one volume",
    ),
    ("gke-web-identity", &[r#"secrets.files=["owlpost-db","aws"]"#], "where the token for AWS is"),
    (
        "gke-web-identity",
        &[r#"secrets.env={"AWS_ROLE_ARN":{"name":"a","key":"b"}}"#],
        "secrets.env has AWS_ROLE_ARN, which the chart itself sets",
    ),
    (
        "laptop",
        &[r#"extraEnv=[{"name":"OWLPOST_TOKEN","value":"x"}]"#],
        "extraEnv has OWLPOST_TOKEN, which secrets.env sets",
    ),
    // Pods.
    ("laptop", &[r#"config.delivery.drain="30s""#], "config.delivery.drain is set by drainSeconds"),
    (
        "eks-irsa",
        &["terminationGracePeriodSeconds=30"],
        "a stop with drainSeconds 20 may take 75 s, and mails in flight would be cut off",
    ),
    ("laptop", &["terminationGracePeriodSeconds=75"], "a stop with drainSeconds 20 may take 80 s"),
];

#[test]
fn nonsense_is_refused_in_words_that_help() {
    for (name, set, words) in REFUSALS {
        let said = refused(name, set);
        assert!(said.contains("These values make no sense together:"), "{name} {set:?}: {said}");
        assert!(said.contains(words), "{name} {set:?} should say {words:?}: {said}");
    }
}

/// The texts of `_refusals.tpl`, without what `printf` puts in.
fn texts() -> Vec<Vec<String>> {
    let template = include_str!("../../deploy/helm/owlpost/templates/_refusals.tpl");
    let mut texts = Vec::new();
    for (at, found) in template.match_indices("append $no ") {
        let rest = template[at + found.len()..].trim_start_matches("(printf ");
        let text = rest.strip_prefix('"').unwrap_or_else(|| panic!("no text: {}", &rest[..60]));
        let end = text.match_indices('"').map(|(end, _)| end).find(|end| !text[..*end].ends_with('\\')).unwrap();
        let text = ["%s", "%d"].iter().fold(text[..end].replace("\\\"", "\""), |text, put| text.replace(put, "%q"));
        texts.push(text.split("%q").map(str::to_owned).collect());
    }
    assert!(texts.len() >= 50, "{}", texts.len());
    texts
}

/// Whether the parts stand in one of its lines, in their order.
fn says(said: &str, parts: &[String]) -> bool {
    said.lines().any(|line| {
        let mut rest = Some(line);
        for part in parts {
            rest = rest.and_then(|rest| rest.split_once(part.as_str())).map(|(_, rest)| rest);
        }
        rest.is_some()
    })
}

#[test]
fn every_refusal_is_seen() {
    let mut said: Vec<String> = REFUSALS.iter().map(|(name, set, _)| refused(name, set)).collect();
    said.push(first_try());
    let texts = texts().into_iter();
    // Where the chart's copy has no rules, and (below) where a cluster has some.
    let texts = texts.filter(|parts| !parts[0].starts_with("monitoring."));
    let unseen: Vec<String> =
        texts.filter(|parts| !said.iter().any(|said| says(said, parts))).map(|parts| parts.join("…")).collect();
    assert!(unseen.is_empty(), "no case of REFUSALS shows:\n  {}", unseen.join("\n  "));
}

/// The rules are for every owlpost that a Prometheus sees.
#[test]
fn two_releases_of_a_namespace_bring_the_rules_once() {
    let brought_by = |release: &str| {
        let labels = json!({ "app.kubernetes.io/name": "owlpost", "app.kubernetes.io/instance": release });
        let rule = json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
            "metadata": { "name": release, "namespace": "owlpost", "labels": labels },
        });
        let list = json!({ "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRuleList", "items": [rule] });
        Cluster::with(&[("/apis/monitoring.coreos.com/v1/namespaces/owlpost/prometheusrules", list)])
    };
    let set = ["monitoring.rules=true", r#"monitoring.runbook="https://git.example.com/runbook.md""#];
    let out = brought_by("other").helm("laptop", &set).output().unwrap();
    let said = text(&out.stderr);
    assert!(!out.status.success() && said.contains("the release other has brought the rules"), "{said}");
    // An upgrade, and a release without them.
    assert!(done(&mut brought_by("owlpost").helm("laptop", &set)).contains("kind: PrometheusRule"));
    done(&mut brought_by("other").helm("laptop", &[]));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let said = refused("laptop", &["all.replicas=3", "config.http.token=null", "config.source=[]"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("  - ")).count(), 2, "{said}");
    assert!(said.contains("all.replicas is 3") && said.contains("config.source is empty"), "{said}");
}

/// Values file, values, what the schema names.
const UNKNOWN: &[(&str, &[&str], &str)] = &[
    ("laptop", &[r#"confg={}"#], "confg"),
    ("laptop", &[r#"keda.colldownPeriod=30"#], "colldownPeriod"),
    // The program's own schema is in it.
    ("laptop", &[r#"config.mailer.form="x""#], "form"),
    ("laptop", &[r#"config.source=[{"name":"events","kind":"htp"}]"#], "config/source/0/kind"),
    ("laptop", &[r#"config.delivery={"in_flight":"many"}"#], "in_flight"),
    ("laptop", &[r#"image.digest="sha256:abc""#], "digest"),
    ("laptop", &[r#"drainSeconds=5"#], "drainSeconds"),
    ("laptop", &[r#"identity.kind="iam""#], "identity/kind"),
    ("laptop", &[r#"identity.roleArn="role/x""#], "roleArn"),
    ("laptop", &[r#"persistence.size="4""#], "persistence/size"),
    ("laptop", &[r#"secrets.env={"token":{"name":"a","key":"b"}}"#], "token"),
    ("laptop", &[r#"secrets.env={"TOKEN":{"name":"a"}}"#], "key"),
];

#[test]
fn a_misspelt_name_and_a_value_of_another_type_are_refused() {
    for (name, set, words) in UNKNOWN {
        let said = refused(name, set);
        assert!(said.contains("values don't meet the specifications of the schema"), "{set:?}: {said}");
        assert!(said.contains(words), "{set:?} should name {words}: {said}");
    }
}

/// What helm says of the chart as it is.
fn first_try() -> String {
    let mut helm = std::process::Command::new(crate::tools::tool("helm"));
    let out =
        helm.args(["template", "owlpost"]).arg(crate::tools::root().join("deploy/helm/owlpost")).output().unwrap();
    assert!(!out.status.success());
    text(&out.stderr)
}

#[test]
fn a_first_try_without_values_says_what_is_needed() {
    let said = first_try();
    assert!(said.contains("config.source is empty") && said.contains("config.mailer.kind"), "{said}");
}

#[test]
fn one_source_and_one_mailer_are_enough() {
    let set = r#"config={"source":[{"name":"events","kind":"http"}],"http":{"allow_anonymous":true},"mailer":{"kind":"smtp","host":"mail.example.com"},"quota":{"per_second":1,"per_day":1000},"recipients":{"allowed_domains":["example.com"]}}"#;
    let out = std::process::Command::new(crate::tools::tool("helm"))
        .args(["template", "owlpost", "--set-json", set])
        .arg(crate::tools::root().join("deploy/helm/owlpost"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
}
