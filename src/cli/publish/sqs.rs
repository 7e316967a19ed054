//! `publish --to` an SQS queue.

use async_trait::async_trait;
use reqwest::Url;
use tokio::sync::OnceCell;

use crate::aws::Identity;
use crate::aws::queue::Named;
use crate::cli::Failure;
use crate::outlet::sqs::{Options, SqsOutlet};
use crate::outlet::{Outgoing, Outlet, OutletError};

/// `sqs://NAME`, or a queue's URL at AWS.
pub(super) fn is_queue(to: &str) -> bool {
    to.starts_with("sqs://") || Named::Url(to.to_owned()).region().is_some()
}

/// # Errors
/// Usage: what stands there is no queue.
pub(super) fn outlet(to: &str) -> Result<Queue, Failure> {
    let expected = "expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME or sqs://NAME";
    let queue = match to.strip_prefix("sqs://") {
        Some(name) => Named::read(name).map_err(|why| Failure::usage(format!("--to: {why}; {expected}")))?,
        None => {
            let url = Url::parse(to).map_err(|e| Failure::usage(format!("--to: no URL ({e}): {expected}")))?;
            let parts = url.path_segments().map_or(0, |parts| parts.filter(|p| !p.is_empty()).count());
            if url.scheme() != "https" || parts != 2 {
                return Err(Failure::usage(format!("--to: not the URL of a queue: {expected}")));
            }
            Named::Url(to.to_owned())
        }
    };
    // Who we are, the region and another endpoint: as every AWS tool finds them (AWS_ENDPOINT_URL_SQS).
    let options = Options { identity: Identity::default(), endpoint_url: None, queue };
    Ok(Queue { options, opened: OnceCell::new() })
}

/// Found with the first message.
pub(super) struct Queue {
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
            Err(why) => messages.iter().map(|_| Err(why.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_its_url_or_its_name() {
        for to in ["sqs://events.fifo", "https://sqs.eu-central-1.amazonaws.com/123456789012/events"] {
            assert!(is_queue(to) && outlet(to).is_ok(), "{to}");
        }
        assert!(!is_queue("https://owlpost.example.com/v1/events") && !is_queue("http://127.0.0.1:9324/0/q"));
        for to in
            ["sqs://", "sqs://a/b", "https://sqs.eu-central-1.amazonaws.com/", "http://sqs.eu-west-1.amazonaws.com/1/q"]
        {
            assert!(is_queue(to), "{to}");
            assert_eq!(outlet(to).err().map(|f| f.code), Some(2), "{to}");
        }
    }
}
