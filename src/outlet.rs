//! Outlets: where messages are handed on to a broker. `publish` sends events through one, and dead letters are forwarded
//! through one.

use async_trait::async_trait;

pub mod kafka;
pub mod sqs;

/// A message to be handed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What orders it among others: a Kafka key, an SQS message group.
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutletError {
    /// Try again after a while. The message may have arrived all the same.
    #[error("{0}")]
    Unavailable(String),
    /// This message will never be taken, others may be.
    #[error("{0}")]
    Refused(String),
    /// Nothing will be taken before somebody changes the configuration or a permission.
    #[error("{0}")]
    Fatal(String),
}

#[async_trait]
pub trait Outlet: Send + Sync {
    /// For a person, without secrets: `kafka://host:9092/topic`.
    fn place(&self) -> String;
    /// Hands all of them on; answers come in their order, each only after the broker has confirmed it. Bounded in time.
    async fn send(&self, messages: &[Outgoing]) -> Vec<Result<(), OutletError>>;
}
