//! `[[source]]`: where events come from. One table for all kinds; [`super::validate`] says which key belongs to which.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Where events come from.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Names it in metrics, logs, dead letters and environment variables.
    pub name: String,
    pub kind: SourceKind,
    /// The CloudEvents `source` given to dialects without one. Default: the name.
    pub origin: Option<String>,
    /// Of kind `file`: NDJSON; `-` is stdin.
    pub path: Option<PathBuf>,
    /// Of kind `kafka`: the brokers to begin with, `host:port`.
    #[serde(default)]
    pub brokers: Vec<String>,
    /// Of kind `kafka`: names, or patterns that begin with `^`.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Of kind `kafka`: the consumer group, whose committed offsets say what was taken.
    pub group: Option<String>,
    /// Of kind `kafka`: a name that stays the same over restarts (static membership).
    pub instance_id: Option<String>,
    /// Of kind `kafka`: how the group shares out its partitions.
    #[serde(default)]
    pub protocol: GroupProtocol,
    /// Of kind `kafka`: sign in with the AWS identity of this process (MSK, IAM access control).
    #[serde(default)]
    pub iam: bool,
    /// Of kind `kafka`: any setting of librdkafka.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
    /// Of kind `sqs`: the queue by URL. Either this or `queue`.
    pub queue_url: Option<String>,
    /// Of kind `sqs`: the queue by name or ARN.
    pub queue: Option<String>,
    /// Of kind `sqs`: what `run --shadow` reads instead, by URL, name or ARN: a queue with copies.
    pub shadow_queue: Option<String>,
    /// Of kind `sqs`, and of `kafka` with `iam`: the AWS region. Default: the queue's own, or what the environment says.
    pub region: Option<String>,
    /// Of kind `sqs`: another endpoint than AWS's, for tests and VPC endpoints.
    pub endpoint_url: Option<String>,
    /// Of kind `sqs`, and of `kafka` with `iam`: a role to assume first.
    pub assume_role_arn: Option<String>,
    /// The external id that this role's trust policy asks for.
    pub external_id: Option<String>,
    /// Of kind `sqs`: receivers at most; they grow and shrink with the load. Default: 8.
    pub receivers_max: Option<u32>,
}

impl SourceConfig {
    /// The CloudEvents `source` of events that have none.
    pub fn origin(&self) -> &str {
        self.origin.as_deref().unwrap_or(&self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    Http,
    File,
    Kafka,
    Sqs,
    Zms,
}

impl SourceKind {
    /// As `kind` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceKind::Http => "http",
            SourceKind::File => "file",
            SourceKind::Kafka => "kafka",
            SourceKind::Sqs => "sqs",
            SourceKind::Zms => "zms",
        }
    }
}

/// How a consumer group shares out its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The members decide, by `partition.assignment.strategy`.
    #[default]
    Classic,
    /// The broker decides (KIP-848), from Apache Kafka 4.0 on.
    Consumer,
}

/// A setting of librdkafka: a text, a number, or true or false. Hidden from `Debug`: it may be a password.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Property(#[schemars(with = "Scalar")] pub String);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes what `Property` reads")]
enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
    Switch(bool),
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Property")
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Property, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Property;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, a number, true or false")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Property, E> {
                Ok(Property(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Property, E> {
                Ok(Property(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Property, E> {
                Ok(Property(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Property, E> {
                Ok(Property(number.to_string()))
            }

            fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Property, E> {
                Ok(Property(switch.to_string()))
            }
        }

        // Not `any`: a variable of the environment is taken as it was written, a password of digits among them.
        deserializer.deserialize_str(Any)
    }
}
