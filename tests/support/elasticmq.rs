//! ElasticMQ, an SQS-compatible server, as a child process of the test; queues are made through the SDK.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::future::Future;
use std::sync::OnceLock;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{Message, QueueAttributeName, SendMessageBatchRequestEntry};

#[path = "java.rs"]
mod java;

pub use java::unique;
use java::{Server, free_ports, jars};

/// What the real binary needs to reach the server; credentials are not checked.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "elasticmq"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// How much of a queue is where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
}

pub struct ElasticMq {
    server: Server,
    endpoint: String,
    /// Of its own, so that tests with and without a runtime can use it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for ElasticMq {
    fn drop(&mut self) {
        // Waiting for it would not be allowed inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ElasticMq {
    /// The one that the tests of this binary share: names are theirs alone, faults are not to be made here.
    pub fn shared() -> &'static ElasticMq {
        static SHARED: OnceLock<ElasticMq> = OnceLock::new();
        SHARED.get_or_init(ElasticMq::start)
    }

    /// One of the test's own, which may be killed.
    pub fn start() -> ElasticMq {
        ElasticMq::start_with("")
    }

    /// One of the test's own, which has its queues and messages again after [`ElasticMq::kill`] and a restart.
    pub fn durable() -> ElasticMq {
        ElasticMq::start_with(
            r#"queues-storage { enabled = true, path = "queues.conf" }
messages-storage { enabled = true, driver-class-name = "org.h2.Driver", uri = "jdbc:h2:./messages;WRITE_DELAY=0" }
"#,
        )
    }

    fn start_with(more: &str) -> ElasticMq {
        let mut why = String::new();
        // Somebody else may take a port between its being found free and being bound.
        for _ in 0..3 {
            let [port] = free_ports();
            let folder = tempfile::Builder::new().prefix("owlpost-elasticmq-").tempdir().unwrap().keep();
            let config = format!(
                r#"include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
generate-node-address = false
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {port}, sqs-limits = strict }}
rest-stats {{ enabled = false }}
{more}"#
            );
            fs::write(folder.join("elasticmq.conf"), config).unwrap();
            let args = ["-Dconfig.file=elasticmq.conf", "org.elasticmq.server.Main"];
            let server = Server::new(folder, jars("elasticmq"), &args, "=== ElasticMQ server");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            match server.start() {
                Ok(()) => {
                    let endpoint = format!("http://127.0.0.1:{port}");
                    return ElasticMq { server, endpoint, runtime: Some(runtime) };
                }
                Err(told) => why = told,
            }
        }
        panic!("{why}");
    }

    /// For `endpoint_url` and `AWS_ENDPOINT_URL_SQS`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// SIGKILL. Everything was in memory, unless it is durable: after [`ElasticMq::restart`] there is no queue.
    pub fn kill(&self) {
        self.server.kill();
    }

    pub fn restart(&self) {
        self.server.start().unwrap();
    }

    /// `STOP`: calls hang. `CONT`: it goes on.
    pub fn signal(&self, name: &str) {
        self.server.signal(name);
    }

    /// Runs a call to its end, also from inside another runtime.
    pub fn call<F: Future<Output: Send> + Send>(&self, call: F) -> F::Output {
        let runtime = self.runtime.as_ref().unwrap().handle();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(call)).join().unwrap())
    }

    pub fn client(&self) -> Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("elasticmq"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(&self.endpoint);
        Client::from_conf(config.build())
    }

    /// A new queue; gives its URL.
    pub fn queue(&self, attributes: &[(QueueAttributeName, &str)]) -> String {
        self.create(&unique("queue"), attributes)
    }

    /// A new FIFO queue; ids for deduplication are given by the sender.
    pub fn fifo(&self, attributes: &[(QueueAttributeName, &str)]) -> String {
        let all = [attributes, &[(QueueAttributeName::FifoQueue, "true")]].concat();
        self.create(&(unique("queue") + ".fifo"), &all)
    }

    /// A new queue that moves a message to another one instead of giving it out more than `max` times; gives both URLs.
    pub fn with_redrive(&self, max: u32, attributes: &[(QueueAttributeName, &str)]) -> (String, String) {
        let dead = self.queue(&[]);
        let arn = self.attribute(&dead, QueueAttributeName::QueueArn);
        let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"{max}"}}"#);
        let all = [attributes, &[(QueueAttributeName::RedrivePolicy, policy.as_str())]].concat();
        (self.queue(&all), dead)
    }

    fn create(&self, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let mut call = self.client().create_queue().queue_name(name);
        for (key, value) in attributes {
            call = call.attributes(key.clone(), *value);
        }
        self.call(call.send()).unwrap().queue_url.unwrap()
    }

    pub fn delete(&self, url: &str) {
        self.call(self.client().delete_queue().queue_url(url).send()).unwrap();
    }

    pub fn attribute(&self, url: &str, name: QueueAttributeName) -> String {
        let call = self.client().get_queue_attributes().queue_url(url).attribute_names(name.clone());
        self.call(call.send()).unwrap().attributes.unwrap()[&name].clone()
    }

    pub fn depth(&self, url: &str) -> Depth {
        let call = self.client().get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let found = self.call(call.send()).unwrap().attributes.unwrap();
        let number = |name: QueueAttributeName| found[&name].parse().unwrap();
        Depth {
            visible: number(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            delayed: number(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
        }
    }

    /// Sends all, ten a call.
    pub fn send(&self, url: &str, bodies: &[String]) {
        self.send_to_groups(url, &bodies.iter().map(|body| (None, body.as_str())).collect::<Vec<_>>());
    }

    /// Sends ten at most, in one call. Whether the server has taken them; if not, it may have them all the same.
    pub fn try_send(&self, url: &str, bodies: &[String]) -> bool {
        let mut call = self.client().send_message_batch().queue_url(url);
        for (n, body) in bodies.iter().enumerate() {
            call = call
                .entries(SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(body).build().unwrap());
        }
        self.call(call.send()).is_ok_and(|sent| sent.failed.is_empty())
    }

    /// Sends (message group, body), ten a call. In a FIFO queue each is a message of its own, equal bodies too.
    pub fn send_to_groups(&self, url: &str, messages: &[(Option<&str>, &str)]) {
        let client = self.client();
        self.call(async {
            for ten in messages.chunks(10) {
                let mut call = client.send_message_batch().queue_url(url);
                for (n, (group, body)) in ten.iter().enumerate() {
                    let mut entry = SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(*body);
                    if let Some(group) = group {
                        entry = entry.message_group_id(*group).message_deduplication_id(unique("message"));
                    }
                    call = call.entries(entry.build().unwrap());
                }
                let sent = call.send().await.unwrap();
                assert!(sent.failed.is_empty(), "{:?}", sent.failed);
            }
        });
    }

    /// Takes and deletes what is visible, until two receives in a row find nothing.
    pub fn drain(&self, url: &str) -> Vec<Message> {
        let client = self.client();
        self.call(async {
            let (mut all, mut empty) = (Vec::new(), 0);
            while empty < 2 {
                let call = client.receive_message().queue_url(url).max_number_of_messages(10);
                let call = call.message_system_attribute_names("All".into()).message_attribute_names("All");
                let found = call.send().await.unwrap().messages.unwrap_or_default();
                empty = if found.is_empty() { empty + 1 } else { 0 };
                for message in &found {
                    let handle = message.receipt_handle.clone().unwrap();
                    client.delete_message().queue_url(url).receipt_handle(handle).send().await.unwrap();
                }
                all.extend(found);
            }
            all
        })
    }
}
