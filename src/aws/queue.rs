//! An SQS queue: how it is named, how it is called, and what it says about itself. Used by the source and the outlet.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;

use super::Identity;
use super::trouble::{Class, Trouble};

/// To a server that does not answer at all, as the SDK's own default.
const CONNECT_WITHIN: Duration = Duration::from_millis(3_100);
/// One try of a call that does not wait for messages: 1 MiB is sent in it over 1 Mbit/s. The SDK itself has no such limit
/// (aws-sdk-rust#1094).
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// Three tries and the waits between them.
const CALL_WITHIN: Duration = Duration::from_secs(35);
/// Tries of the SDK itself (its standard mode), for calls that change nothing when they are made twice.
const TRIES: u32 = 3;
/// The longest wait of the SDK between two tries: `CALL_WITHIN` has room for them.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Beyond the time that a long poll waits at the server.
const POLL_SLACK: Duration = Duration::from_secs(5);

/// How a queue is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Url(String),
    Name(String),
    Arn { region: String, account: String, name: String },
}

impl Named {
    /// `arn:PARTITION:sqs:REGION:ACCOUNT:NAME`, or a name.
    ///
    /// # Errors
    /// Neither; says what is expected.
    pub fn read(text: &str) -> Result<Named, String> {
        if !text.starts_with("arn:") {
            check_name(text)?;
            return Ok(Named::Name(text.to_owned()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [_, _, "sqs", region, account, name] = parts[..] else {
            return Err("not the ARN of a queue: expected arn:aws:sqs:REGION:ACCOUNT:NAME".into());
        };
        check_name(name)?;
        if region.is_empty() || account.is_empty() || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err("not the ARN of a queue: expected arn:aws:sqs:REGION:ACCOUNT:NAME".into());
        }
        Ok(Named::Arn { region: region.to_owned(), account: account.to_owned(), name: name.to_owned() })
    }

    /// The queue's own name, for logs and positions.
    pub fn name(&self) -> &str {
        match self {
            Named::Url(url) => url.trim_end_matches('/').rsplit('/').next().unwrap_or_default(),
            Named::Name(name) | Named::Arn { name, .. } => name,
        }
    }

    /// The region that the name itself says: an ARN does, and a URL of AWS.
    pub fn region(&self) -> Option<&str> {
        match self {
            Named::Arn { region, .. } => Some(region),
            Named::Url(url) => region_of(url),
            Named::Name(_) => None,
        }
    }

    /// Where a URL's own host is to be called: a VPC endpoint, or one of FIPS. Of AWS's other hosts the SDK knows the
    /// endpoint itself.
    fn endpoint(&self) -> Option<String> {
        let Named::Url(url) = self else { return None };
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        region_of(url)?;
        (host.starts_with("vpce-") || host.starts_with("sqs-fips.")).then(|| format!("{scheme}://{host}"))
    }
}

/// At most 80 letters, digits, `-` and `_`, of which `.fifo` counts (SQS, `CreateQueue`).
fn check_name(name: &str) -> Result<(), String> {
    let base = name.strip_suffix(".fifo").unwrap_or(name);
    let plain = base.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match plain && !base.is_empty() && name.len() <= 80 {
        true => Ok(()),
        false => Err("not the name of a queue: 1 to 80 letters, digits, '-' and '_', with .fifo behind it if it is \
                      a FIFO queue"
            .into()),
    }
}

/// `https://sqs.REGION.amazonaws.com/…`, the older `https://REGION.queue.amazonaws.com/…`, or a VPC endpoint's
/// `https://vpce-….sqs.REGION.vpce.amazonaws.com/…`.
fn region_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
    if !host.ends_with(".amazonaws.com") && !host.ends_with(".amazonaws.com.cn") {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let at = labels.iter().position(|l| *l == "sqs" || *l == "sqs-fips");
    match (at, labels.get(1)) {
        (Some(at), _) => labels.get(at + 1).copied(),
        (None, Some(&"queue")) => labels.first().copied(),
        _ => None,
    }
}

/// Calls SQS. Two clients, since a long poll may take much longer than anything else.
#[derive(Clone, Debug)]
pub struct Caller {
    pub quick: Client,
    /// Retries nothing: whoever polls decides, and is told of each failure.
    pub poll: Client,
    pub sts: aws_sdk_sts::Client,
    pub region: String,
    /// What the configuration or the queue's URL says, or "AWS's own".
    pub endpoint: String,
}

/// # Errors
/// No region is known: neither the section, nor the queue, nor the environment names one.
pub async fn caller(
    mut identity: Identity,
    endpoint_url: Option<&str>,
    queue: &Named,
    poll_wait: Duration,
) -> Result<Caller, String> {
    if identity.region.is_none() {
        identity.region = queue.region().map(str::to_owned);
    }
    let own = queue.endpoint();
    let endpoint_url = endpoint_url.or(own.as_deref());
    let shared = identity.load().await;
    let Some(region) = shared.region().map(ToString::to_string) else {
        return Err("no AWS region is known: set source.region or AWS_REGION".into());
    };
    let within = |one: Duration, all: Duration| {
        TimeoutConfig::builder()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(one)
            .operation_attempt_timeout(one)
            .operation_timeout(all)
            .build()
    };
    let build = |retry: RetryConfig, timeouts: TimeoutConfig| {
        let mut config = aws_sdk_sqs::config::Builder::from(&shared).retry_config(retry).timeout_config(timeouts);
        if let Some(url) = endpoint_url {
            config = config.endpoint_url(url);
        }
        Client::from_conf(config.build())
    };
    let standard = RetryConfig::standard().with_max_attempts(TRIES).with_max_backoff(RETRY_WAIT_MAX);
    let polling = poll_wait + POLL_SLACK;
    Ok(Caller {
        quick: build(standard, within(TRY_WITHIN, CALL_WITHIN)),
        poll: build(RetryConfig::disabled(), within(polling, polling)),
        sts: aws_sdk_sts::Client::new(&shared),
        region,
        endpoint: endpoint_url.unwrap_or("AWS's own").to_owned(),
    })
}

/// What a queue says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub url: String,
    pub name: String,
    pub is_fifo: bool,
    /// How long a message that was received is hidden from others.
    pub visibility: Duration,
    /// How long a message is kept.
    pub retention: Duration,
    /// Messages that wait, about.
    pub waiting: u64,
    /// `maxReceiveCount` and the ARN of the dead-letter queue, as JSON.
    pub redrive_policy: Option<String>,
    pub kms_key: Option<String>,
}

impl Caller {
    /// Finds a queue and asks it for its attributes.
    ///
    /// # Errors
    /// It is not there, may not be asked, or nobody answers.
    pub async fn queue(&self, named: &Named) -> Result<Queue, Trouble> {
        let url = match named {
            Named::Url(url) => url.clone(),
            Named::Name(name) => self.find(name, None).await?,
            Named::Arn { account, name, .. } => self.find(name, Some(account)).await?,
        };
        let asked = self.quick.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
        let answer = asked.send().await.map_err(|e| Trouble::of("sqs:GetQueueAttributes", &e))?;
        Ok(read(url, named.name(), answer.attributes().cloned().unwrap_or_default()))
    }

    async fn find(&self, name: &str, account: Option<&str>) -> Result<String, Trouble> {
        let asked = self.quick.get_queue_url().queue_name(name);
        let asked = asked.set_queue_owner_aws_account_id(account.map(str::to_owned));
        let found = asked.send().await.map_err(|e| Trouble::of("sqs:GetQueueUrl", &e))?;
        found.queue_url.ok_or_else(|| Trouble {
            class: Class::Unavailable,
            code: String::new(),
            text: "GetQueueUrl: an answer without a URL".into(),
        })
    }
}

impl Queue {
    /// One that may not be asked: what its URL says, and what AWS gives a new queue.
    pub fn unseen(named: &Named) -> Queue {
        let url = if let Named::Url(url) = named { url.clone() } else { String::new() };
        read(url, named.name(), HashMap::new())
    }
}

/// What is not told has the value that AWS gives a new queue.
fn read(url: String, name: &str, attributes: HashMap<QueueAttributeName, String>) -> Queue {
    let text = |name| attributes.get(&name).cloned().filter(|v: &String| !v.is_empty());
    let number = |name, default| text(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(default);
    Queue {
        is_fifo: name.ends_with(".fifo") || text(QueueAttributeName::FifoQueue).as_deref() == Some("true"),
        visibility: Duration::from_secs(number(QueueAttributeName::VisibilityTimeout, 30)),
        retention: Duration::from_secs(number(QueueAttributeName::MessageRetentionPeriod, 345_600)),
        waiting: number(QueueAttributeName::ApproximateNumberOfMessages, 0),
        redrive_policy: text(QueueAttributeName::RedrivePolicy),
        kms_key: text(QueueAttributeName::KmsMasterKeyId),
        name: name.to_owned(),
        url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_name_or_arn() {
        assert_eq!(Named::read("events.fifo"), Ok(Named::Name("events.fifo".into())));
        let arn = Named::read("arn:aws-cn:sqs:cn-north-1:123456789012:events").unwrap();
        assert_eq!((arn.name(), arn.region()), ("events", Some("cn-north-1")));
        for wrong in ["", ".fifo", "a b", "https://x/y", "arn:aws:sns:eu-west-1:1:x", "arn:aws:sqs:eu-west-1:me:x"] {
            assert!(Named::read(wrong).is_err(), "{wrong}");
        }
        assert!(Named::read(&"x".repeat(81)).is_err());
    }

    #[test]
    fn a_url_of_aws_says_its_region_and_no_other_does() {
        for (url, region) in [
            ("https://sqs.eu-central-1.amazonaws.com/123456789012/events", Some("eu-central-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/e", Some("us-gov-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/e", Some("cn-north-1")),
            ("https://eu-west-1.queue.amazonaws.com/1/e", Some("eu-west-1")),
            ("https://vpce-0a-1b.sqs.eu-west-1.vpce.amazonaws.com/1/e", Some("eu-west-1")),
            ("http://127.0.0.1:9324/000000000000/events", None),
            ("https://sqs.eu-central-1.amazonaws.com.example.com/1/e", None),
        ] {
            assert_eq!(Named::Url(url.into()).region(), region, "{url}");
        }
        assert_eq!(Named::Url("http://127.0.0.1:1/0/events.fifo/".into()).name(), "events.fifo");
    }

    #[test]
    fn a_url_of_a_vpc_endpoint_or_of_fips_is_called_where_it_says() {
        for (url, endpoint) in [
            (
                "https://vpce-0a-1b.sqs.eu-west-1.vpce.amazonaws.com/1/e",
                Some("https://vpce-0a-1b.sqs.eu-west-1.vpce.amazonaws.com"),
            ),
            ("https://sqs-fips.us-east-1.amazonaws.com/1/e", Some("https://sqs-fips.us-east-1.amazonaws.com")),
            ("https://sqs.eu-central-1.amazonaws.com/1/e", None),
            ("https://vpce-0a-1b.example.com/1/e", None),
            ("http://127.0.0.1:9324/000000000000/e", None),
        ] {
            assert_eq!(Named::Url(url.into()).endpoint().as_deref(), endpoint, "{url}");
        }
    }

    #[test]
    fn what_a_queue_does_not_tell_is_as_aws_makes_it() {
        let told = HashMap::from([(QueueAttributeName::VisibilityTimeout, "7".to_owned())]);
        let queue = read("u".into(), "events", told);
        assert_eq!((queue.visibility.as_secs(), queue.retention.as_secs(), queue.is_fifo), (7, 345_600, false));
        assert!(read("u".into(), "events.fifo", HashMap::new()).is_fifo);
    }
}
