//! `check --live`: who AWS takes this process for, whether the queue is there, and how it is set up.

use std::time::Duration;

use serde_json::Value;

use super::{Options, receive};
use crate::aws::queue::{self, Queue};
use crate::aws::trouble::Trouble;

const WITHIN: Duration = Duration::from_secs(30);

/// What was found: whether it is well, and the words for it. `retention`: of the store.
pub async fn probe(name: &str, options: &Options, retention: Duration) -> Vec<(bool, String)> {
    match tokio::time::timeout(WITHIN, ask(name, options, retention)).await {
        Ok(found) => found,
        Err(_) => vec![(false, format!("source {name}: no answer in time"))],
    }
}

async fn ask(name: &str, options: &Options, retention: Duration) -> Vec<(bool, String)> {
    let caller =
        queue::caller(options.identity.clone(), options.endpoint_url.as_deref(), &options.queue, receive::WAIT).await;
    let caller = match caller {
        Ok(caller) => caller,
        Err(why) => return vec![(false, format!("source {name}: {why}"))],
    };
    let mut found = vec![(true, format!("source {name}: region {}, endpoint {}", caller.region, caller.endpoint))];
    found.push(match caller.sts.get_caller_identity().send().await {
        Ok(who) => {
            let account = who.account().unwrap_or("?");
            (true, format!("source {name}: this process is {} in account {account}", who.arn().unwrap_or("?")))
        }
        // Reading a queue needs no STS: with another endpoint there may be none.
        Err(_) if options.endpoint_url.is_some() => {
            (true, format!("source {name}: STS does not say who this process is; the queue's answer counts"))
        }
        Err(error) => {
            let why = Trouble::of("sts:GetCallerIdentity", &error).text;
            (false, format!("source {name}: AWS does not say who this process is: {why}"))
        }
    });
    match caller.queue(&options.queue).await {
        Ok(queue) => found.extend(told(name, &queue, retention)),
        Err(trouble) => found.push((false, format!("source {name}: {}", trouble.text))),
    }
    found
}

fn told(name: &str, queue: &Queue, retention: Duration) -> Vec<(bool, String)> {
    let kind = if queue.is_fifo { "FIFO" } else { "standard" };
    let kms = queue.kms_key.as_deref().map_or_else(|| "no KMS key".to_owned(), |key| format!("KMS key {key}"));
    let mut found = vec![(
        true,
        format!(
            "source {name}: queue {} is there: {kind}, visibility timeout {} s, {kms}, about {} messages wait",
            queue.name,
            queue.visibility.as_secs(),
            queue.waiting
        ),
    )];
    let redrive = queue.redrive_policy.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    found.push((
        true,
        match redrive {
            Some(policy) => {
                // A text in some emulators.
                let most = policy["maxReceiveCount"].to_string();
                let most = most.trim_matches('"');
                let to = policy["deadLetterTargetArn"].as_str().unwrap_or("?");
                format!("source {name}: redrive policy: after {most} receives to {to}")
            }
            None => format!(
                "source {name}: WARNING: the queue has no redrive policy: what is received again and again, as after \
                 crashes, stays in it until its retention ends; give it a dead-letter queue"
            ),
        },
    ));
    if queue.retention > retention {
        found.push((
            true,
            format!(
                "source {name}: WARNING: the queue keeps messages for {} days, store.retention knows them for {}: one that \
                 comes again after that counts as new",
                queue.retention.as_secs() / 86_400,
                retention.as_secs() / 86_400
            ),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_at_a_queue_is_told() {
        let queue = Queue {
            url: "u".into(),
            name: "events".into(),
            is_fifo: false,
            visibility: Duration::from_secs(30),
            retention: Duration::from_secs(14 * 86_400),
            waiting: 3,
            redrive_policy: None,
            kms_key: None,
        };
        let day = Duration::from_secs(86_400);
        let all = |queue: &Queue, days: u32| told("in", queue, day * days).into_iter().map(|(_, t)| t + "\n").collect();
        let text: String = all(&queue, 7);
        assert!(text.contains("no redrive policy") && text.contains("keeps messages for 14 days"), "{text}");
        let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:1:dead","maxReceiveCount":"5"}"#;
        let text: String = all(&Queue { redrive_policy: Some(policy.into()), ..queue }, 90);
        assert!(text.contains("after 5 receives to arn:aws:sqs:eu-west-1:1:dead"), "{text}");
        assert!(!text.contains("WARNING"));
    }
}
