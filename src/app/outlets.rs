//! Makes the outlet that dead letters leave through.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::AppError;
use crate::config::DeadLettersConfig;
use crate::config::dead_letters::Destination;
use crate::outlet::kafka::KafkaOutlet;
use crate::outlet::sqs::{Options, SqsOutlet};
use crate::outlet::{Outgoing, Outlet, OutletError};

/// `None`: dead letters stay in the store. Reaches nobody yet: a broker that is away holds up no worker's start.
///
/// # Errors
/// What the section names can't be used.
pub(super) fn dead_letters(section: &DeadLettersConfig) -> Result<Option<Arc<dyn Outlet>>, AppError> {
    let Some(text) = &section.forward_to else { return Ok(None) };
    let wrong = |why: &str| AppError::Config(format!("dead_letters.forward_to: {why}"));
    Ok(Some(match Destination::parse(text).map_err(wrong)? {
        Destination::Kafka { brokers, topic } => {
            let made = KafkaOutlet::new(&section.cluster(&brokers), &section.identity(), &topic);
            Arc::new(made.map_err(|e| AppError::Config(format!("dead_letters: {e}")))?)
        }
        Destination::Queue(queue) => {
            let (identity, endpoint_url) = (section.identity(), section.endpoint_url.clone());
            Arc::new(Queue { options: Options { identity, endpoint_url, queue }, opened: OnceCell::new() })
        }
    }))
}

/// Found with the first letter, and looked for again until it is there.
struct Queue {
    options: Options,
    opened: OnceCell<SqsOutlet>,
}

#[async_trait]
impl Outlet for Queue {
    fn place(&self) -> String {
        format!("sqs://{}", self.options.queue.name())
    }

    async fn send(&self, messages: &[Outgoing]) -> Vec<Result<(), OutletError>> {
        match self.opened.get_or_try_init(|| SqsOutlet::open(self.options.clone())).await {
            Ok(outlet) => outlet.send(messages).await,
            // That there is no queue says nothing of a letter.
            Err(OutletError::Refused(why)) => messages.iter().map(|_| Err(OutletError::Fatal(why.clone()))).collect(),
            Err(why) => messages.iter().map(|_| Err(why.clone())).collect(),
        }
    }
}
