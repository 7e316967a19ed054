//! SQS itself, below the AWS SDK and in virtual time: owlpost's own source calls it as it would call AWS. Calls fail before
//! their effect or after it, are slow, throttled, refused as if the queue were gone; entries of a batch fail one by one; now
//! and then nobody answers for minutes, and some may not hide messages for longer, so that what is held is another's by
//! then; and all that [`crate::broker::Queue`] does.

use std::fmt;
use std::time::Duration;

use aws_sdk_sqs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sqs::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::result::ConnectorError;
use owlpost::aws::Identity;
use owlpost::aws::queue::{Caller, Named};
use owlpost::source::sqs::{Options, SqsSource};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Queue, Said};
use crate::consumer::VISIBILITY_MS;
use crate::world::{Shared, World, lock};

const ENDPOINT: &str = "http://sqs.simulated";
/// How often a poll that waits looks for messages.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub fn open(world: &Shared) -> SqsSource {
    let (is_fifo, receivers_max) = {
        let mut world = lock(world);
        let receivers = 1 + world.dice("sqs").below(3) as u32;
        (matches!(&world.broker, Broker::Sqs(queue) if queue.is_fifo), receivers)
    };
    let options = Options {
        identity: Identity::default(),
        endpoint_url: None,
        queue: Named::Url(format!("{ENDPOINT}/1/events{}", if is_fifo { ".fifo" } else { "" })),
        receivers_max,
        event_bytes: 1024 * 1024,
        until_idle: false,
    };
    SqsSource::with("zms", options, caller(world))
}

/// As owlpost makes it, but for who answers.
fn caller(world: &Shared) -> Caller {
    let server = SharedHttpConnector::new(Server(world.clone()));
    let http: SharedHttpClient = http_client_fn(move |_, _| server.clone());
    let sqs = |retry: RetryConfig, one: Duration, all: Duration| {
        let within = TimeoutConfig::builder().operation_attempt_timeout(one).operation_timeout(all).build();
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "simulated"))
            .endpoint_url(ENDPOINT)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(retry)
            // Of its own: seeds that run side by side would spend each other's tries.
            .retry_partition(RetryPartition::custom("simulated").token_bucket(TokenBucket::new(500)).build())
            .timeout_config(within)
            .http_client(http.clone());
        aws_sdk_sqs::Client::from_conf(config.build())
    };
    let seconds = Duration::from_secs;
    Caller {
        quick: sqs(RetryConfig::standard().with_max_attempts(3), seconds(10), seconds(35)),
        poll: sqs(RetryConfig::disabled(), seconds(25), seconds(25)),
        sts: aws_sdk_sts::Client::from_conf(
            aws_sdk_sts::Config::builder()
                .behavior_version(aws_sdk_sts::config::BehaviorVersion::v2026_01_12())
                .http_client(http.clone())
                .build(),
        ),
        region: "eu-west-1".into(),
        endpoint: ENDPOINT.into(),
    }
}

struct Server(Shared);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated SQS")
    }
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let world = self.0.clone();
        let action = request.headers().get("x-amz-target").and_then(|t| t.split('.').nth(1)).unwrap_or_default();
        let action = action.to_owned();
        let asked = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or(Value::Null);
        HttpConnectorFuture::new(async move { answer(&world, &action, &asked).await })
    }
}

/// What becomes of a call besides its effect.
enum Fate {
    Well,
    Before,
    After,
    Refused(u16, &'static str),
}

async fn answer(world: &Shared, action: &str, asked: &Value) -> Result<HttpResponse, ConnectorError> {
    let (fate, took_ms) = fate(&mut lock(world), action);
    sleep(Duration::from_millis(took_ms)).await;
    match fate {
        Fate::Before => {
            lock(world).note(format!("{action}: not heard"));
            return Err(ConnectorError::io("not heard".into()));
        }
        Fate::Refused(status, code) => {
            lock(world).note(format!("{action}: {code}"));
            return Ok(response(status, &json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "" })));
        }
        Fate::Well | Fate::After => {}
    }
    let said = match action {
        "GetQueueAttributes" => json!({ "Attributes": { "VisibilityTimeout": (VISIBILITY_MS / 1000).to_string() } }),
        "ReceiveMessage" => receive(world, asked).await,
        "DeleteMessageBatch" => {
            each(world, action, asked, |queue, at, handle, now_ms, _, dice| queue.delete(at, handle, now_ms, dice))
        }
        "ChangeMessageVisibilityBatch" => each(world, action, asked, |queue, at, handle, now_ms, entry, _| {
            queue.hide(at, handle, now_ms, now_ms + entry["VisibilityTimeout"].as_u64().unwrap_or(0) * 1000)
        }),
        other => panic!("the source calls {other}"),
    };
    if matches!(fate, Fate::After) {
        lock(world).note(format!("{action}: its answer is lost"));
        return Err(ConnectorError::io("the answer is lost".into()));
    }
    Ok(response(200, &said))
}

fn fate(world: &mut World, action: &str) -> (Fate, u64) {
    let (faults, now_ms) = (world.faults, world.elapsed().as_millis() as u64);
    if faults && now_ms < world.sqs_away_until_ms {
        return (Fate::Before, 3_000);
    }
    if faults && world.dice("sqs").below(200) == 0 {
        world.sqs_away_until_ms = now_ms + 10_000 + world.dice("sqs").below(150_000);
    }
    if faults && world.may_not_hide && action == "ChangeMessageVisibilityBatch" {
        return (Fate::Refused(400, "AccessDeniedException"), 0);
    }
    let dice = world.dice("sqs");
    let took_ms = if faults && dice.chance(3) { dice.below(40_000) } else { dice.below(60) };
    let throw = if faults { dice.below(200) } else { 0 };
    let fate = match throw {
        0..=173 => Fate::Well,
        174..=181 => Fate::Before,
        182..=189 => Fate::After,
        190..=194 => Fate::Refused(500, "InternalFailure"),
        195..=198 => Fate::Refused(400, "RequestThrottled"),
        _ => Fate::Refused(400, "QueueDoesNotExist"),
    };
    (fate, took_ms)
}

fn response(status: u16, body: &Value) -> HttpResponse {
    HttpResponse::new(status.try_into().expect("a status"), body.to_string().into())
}

async fn receive(world: &Shared, asked: &Value) -> Value {
    let number = |name: &str| asked[name].as_u64().unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(number("WaitTimeSeconds"));
    loop {
        let found = take(&mut lock(world), number("MaxNumberOfMessages"), number("VisibilityTimeout") * 1000);
        if !found.is_empty() || Instant::now() >= until {
            return json!({ "Messages": found });
        }
        sleep(LOOK_EVERY.min(until - Instant::now())).await;
    }
}

fn take(world: &mut World, most: u64, hide_ms: u64) -> Vec<Value> {
    let (now_ms, faults) = (world.elapsed().as_millis() as u64, world.faults);
    let mut dice = world.dice("sqs").clone();
    let most = 1 + dice.below(most) as usize;
    let Broker::Sqs(queue) = &mut world.broker else { return vec![] };
    let found = queue.receive(now_ms, most, hide_ms, &mut dice, faults);
    let found: Vec<(usize, u64, crate::broker::Hidden)> =
        found.into_iter().map(|(at, handle)| (at, handle, queue.messages[at].clone())).collect();
    *world.dice("sqs") = dice;
    if !found.is_empty() {
        let names: Vec<String> =
            found.iter().map(|(at, handle, m)| format!("{at}.{handle} {}", world.name(m.what))).collect();
        world.note(format!("received: {}", names.join(", ")));
    }
    let one = |(at, handle, message): (usize, u64, crate::broker::Hidden)| {
        let (headers, body) = world.on_wire(message.what);
        let attribute = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let headers: serde_json::Map<String, Value> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), attribute(value))).collect();
        json!({
            "MessageId": format!("m-{at}"),
            "ReceiptHandle": format!("{at}.{handle}"),
            "Body": String::from_utf8_lossy(body.unwrap_or_default()),
            "Attributes": {
                "ApproximateReceiveCount": message.receives.to_string(),
                "SentTimestamp": (1_795_000_600_000 + message.at_ms).to_string(),
                "MessageGroupId": message.group.to_string(),
            },
            "MessageAttributes": headers,
        })
    };
    found.into_iter().map(one).collect()
}

type Change = fn(&mut Queue, usize, u64, u64, &Value, &mut crate::events::Dice) -> Said;

/// Each entry of a batch, for itself.
fn each(world: &Shared, action: &str, asked: &Value, change: Change) -> Value {
    let mut world = lock(world);
    let now_ms = world.elapsed().as_millis() as u64;
    let (mut done, mut failed, mut told) = (vec![], vec![], vec![]);
    for entry in asked["Entries"].as_array().into_iter().flatten() {
        let (id, receipt) = (&entry["Id"], entry["ReceiptHandle"].as_str().unwrap_or_default());
        let place = receipt.split_once('.').and_then(|(at, n)| Some((at.parse().ok()?, n.parse().ok()?)));
        let (at, handle): (usize, u64) = place.expect("a handle that was given");
        let fails = world.fault("sqs", 5);
        let mut dice = world.dice("sqs").clone();
        let Broker::Sqs(queue) = &mut world.broker else { continue };
        let said = if fails { None } else { Some(change(queue, at, handle, now_ms, entry, &mut dice)) };
        *world.dice("sqs") = dice;
        told.push(format!("{receipt} {said:?}"));
        match said {
            Some(Said::Done) => done.push(json!({ "Id": id })),
            Some(Said::Over) => {
                failed.push(json!({ "Id": id, "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "" }));
            }
            None => failed.push(json!({ "Id": id, "SenderFault": false, "Code": "InternalError", "Message": "" })),
        }
    }
    world.note(format!("{action}: {}", told.join(", ")));
    json!({ "Successful": done, "Failed": failed })
}
