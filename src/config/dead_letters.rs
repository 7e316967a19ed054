//! `[dead_letters]`: where refused inputs and dead items are forwarded to.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::Property;
use crate::aws::Identity;
use crate::aws::queue::Named;
use crate::kafka::{self, Cluster};

/// Where dead letters go, beside the store.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// `kafka://host:port[,host:port]/topic`, the URL of an SQS queue, or `sqs://name`. Default: nowhere.
    pub forward_to: Option<String>,
    /// For a Kafka topic: any setting of librdkafka.
    pub properties: BTreeMap<String, Property>,
    /// For a Kafka topic: sign in with the AWS identity of this process (MSK, IAM access control).
    pub iam: bool,
    /// For an SQS queue, and with `iam`: the AWS region. Default: the queue's own, or what the environment says.
    pub region: Option<String>,
    /// For an SQS queue: another endpoint than AWS's, for tests and VPC endpoints.
    pub endpoint_url: Option<String>,
    /// For an SQS queue, and with `iam`: a role to assume first.
    pub assume_role_arn: Option<String>,
    /// The external id that this role's trust policy asks for.
    pub external_id: Option<String>,
}

/// What `forward_to` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Kafka { brokers: Vec<String>, topic: String },
    Queue(Named),
}

impl Destination {
    /// # Errors
    /// What is wrong with it, without the text itself.
    pub fn parse(text: &str) -> Result<Destination, &'static str> {
        const FORMS: &str = "expected kafka://HOST:PORT/TOPIC, the URL of an SQS queue, or sqs://NAME";
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("holds blanks");
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        match scheme {
            "kafka" => kafka::address(text).map(|(brokers, topic)| Destination::Kafka { brokers, topic }),
            "sqs" => {
                Named::read(rest).map(Destination::Queue).map_err(|_| "not a queue: expected sqs://NAME or sqs://ARN")
            }
            "http" | "https"
                if rest.split_once('/').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty()) =>
            {
                Ok(Destination::Queue(Named::Url(text.to_owned())))
            }
            _ => Err(FORMS),
        }
    }
}

impl DeadLettersConfig {
    /// A cluster with these brokers, and how to sign in there.
    pub fn cluster(&self, brokers: &[String]) -> Cluster {
        let properties = self.properties.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        Cluster { brokers: brokers.to_vec(), properties, iam: self.iam }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            region: self.region.clone(),
            assume_role_arn: self.assume_role_arn.clone(),
            external_id: self.external_id.clone(),
        }
    }
}
