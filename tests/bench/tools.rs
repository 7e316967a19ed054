//! What the benchmarks need beside the program: an SES endpoint and an SMTP server that only count, and a loop that renders.
//!
//! `tools ses RATE DAY ENFORCED` and `tools smtp` print `{"port":N}`, serve until their stdin ends, and print their record.
//! `tools render SECONDS` prints how many 20-item digests a core renders a second.
//! `tools kafka-topic BROKER NAME PARTITIONS` makes a topic.
//! `tools sqs-fill ENDPOINT QUEUE COUNT` makes a queue with so many events, `tools sqs-loop ENDPOINT QUEUE TASKS` only receives
//! and deletes until it is empty: the most that the SDK and the server give.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use owlpost::cli::demo::endpoint::{Account, Endpoint};
use owlpost::render::{Renderer, Settings, samples};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<f64>().ok()).unwrap_or(0.0);
    match args.first().map(String::as_str) {
        Some("ses") => runtime().block_on(ses(number(1), number(2), number(3) > 0.0)),
        Some("smtp") => runtime().block_on(smtp()),
        Some("render") => render(Duration::from_secs_f64(number(1).max(1.0))),
        Some("kafka-topic") => runtime().block_on(kafka_topic(&args[1], &args[2], number(3) as i32)),
        Some("sqs-fill") => runtime().block_on(sqs_fill(&args[1], &args[2], number(3) as usize)),
        Some("sqs-loop") => runtime().block_on(sqs_loop(&args[1], &args[2], number(3) as usize)),
        _ => eprintln!(
            "tools ses RATE DAY ENFORCED | smtp | render SECONDS | kafka-topic BROKER NAME PARTITIONS | sqs-fill ENDPOINT QUEUE COUNT | sqs-loop ENDPOINT QUEUE TASKS"
        ),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

async fn until_stdin_ends() {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

async fn ses(per_second: f64, per_day: f64, enforced: bool) {
    let endpoint = Endpoint::start(Account { per_second, per_day, enforced, ..Account::default() }).await.unwrap();
    endpoint.forget_mails();
    let port = endpoint.url().rsplit(':').next().unwrap().to_owned();
    say(&format!("{{\"port\":{port}}}"));
    until_stdin_ends().await;
    let calls = endpoint.calls();
    let seconds = calls.last().zip(calls.first()).map_or(0.0, |(l, f)| l.duration_since(*f).as_secs_f64());
    let windows: Vec<String> = [0.1, 1.0, 10.0].map(|length| format!("{}", worst(&calls, length))).into();
    say(&format!(
        "{{\"calls\":{},\"taken\":{},\"refused\":{},\"seconds\":{seconds},\"worst\":[{}]}}",
        calls.len(),
        endpoint.count(),
        endpoint.refused_for_rate(),
        windows.join(",")
    ));
}

/// The most calls in any window of so many seconds.
fn worst(calls: &[Instant], seconds: f64) -> usize {
    let (mut most, mut from) = (0, 0);
    for to in 0..calls.len() {
        while calls[to].duration_since(calls[from]).as_secs_f64() >= seconds {
            from += 1;
        }
        most = most.max(to - from + 1);
    }
    most
}

/// Takes every mail (RFC 5321, the least of it) and keeps none.
async fn smtp() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    say(&format!("{{\"port\":{}}}", socket.local_addr().unwrap().port()));
    let (count, span) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None::<(Instant, Instant)>)));
    let (counted, spanned) = (count.clone(), span.clone());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = socket.accept().await else { continue };
            stream.set_nodelay(true).unwrap();
            let (count, span) = (counted.clone(), spanned.clone());
            tokio::spawn(async move {
                let (reader, mut writer) = stream.into_split();
                let mut lines = BufReader::new(reader);
                let (mut line, mut in_data) = (Vec::new(), false);
                let _ = writer.write_all(b"220 sink\r\n").await;
                loop {
                    line.clear();
                    if lines.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let answer: &[u8] = match (in_data, line.get(..4)) {
                        (true, _) if line != b".\r\n" => continue,
                        (true, _) => {
                            in_data = false;
                            count.fetch_add(1, Ordering::Relaxed);
                            let now = Instant::now();
                            let mut span = span.lock().unwrap();
                            *span = Some((span.map_or(now, |(first, _)| first), now));
                            b"250 2.0.0 Ok: queued as 4F3A2B1C\r\n"
                        }
                        (false, Some(b"DATA")) => {
                            in_data = true;
                            b"354 go on\r\n"
                        }
                        (false, Some(b"EHLO")) => b"250-sink\r\n250 8BITMIME\r\n",
                        (false, Some(b"QUIT")) => b"221 bye\r\n",
                        _ => b"250 ok\r\n",
                    };
                    if writer.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    until_stdin_ends().await;
    let seconds = span.lock().unwrap().map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64());
    say(&format!("{{\"taken\":{},\"seconds\":{seconds}}}", count.load(Ordering::Relaxed)));
}

fn render(time: Duration) {
    let ui_url = Some("https://athenz.example.com".to_owned());
    let renderer = Renderer::new(Settings { ui_url, ..Settings::default() }).unwrap_or_else(|p| panic!("{p:?}"));
    let items: Vec<_> = samples::for_template("approvals").into_iter().cycle().take(20).collect();
    let contents = samples::contents(items, "approvals");
    let (begin, mut mails, mut bytes) = (Instant::now(), 0u64, 0);
    while begin.elapsed() < time {
        let mail = renderer.render(&contents, "approvals").unwrap();
        bytes = mail.html.len() + mail.text.len();
        mails += 1;
    }
    let rate = mails as f64 / begin.elapsed().as_secs_f64();
    say(&format!("{{\"per_second\":{rate},\"bytes\":{bytes}}}"));
}

async fn kafka_topic(broker: &str, name: &str, partitions: i32) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker).set("broker.address.family", "v4").create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let made = client.create_topics([&topic], &options).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

fn sqs(endpoint: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("elasticmq"))
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// Events of some 600 bytes, one a message.
async fn sqs_fill(endpoint: &str, queue: &str, count: usize) {
    let client = sqs(endpoint);
    let url = client.create_queue().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let pad = "x".repeat(420);
    let tasks = (0..4).map(|task| {
        let (client, url, pad) = (client.clone(), url.clone(), pad.clone());
        tokio::spawn(async move {
            for from in (task * 10..count).step_by(40) {
                let entries = (from..count.min(from + 10)).map(|n| {
                    let body = format!(
                        r#"{{"specversion":"1.0","id":"{queue_id}","source":"bench","type":"com.example.news","data":{{"text":"{pad}","recipients":["user.a{}"]}}}}"#,
                        n % 1_000,
                        queue_id = n,
                    );
                    SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(body).build().unwrap()
                });
                let sent = client.send_message_batch().queue_url(&url).set_entries(Some(entries.collect())).send().await;
                assert!(sent.unwrap().failed.is_empty());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn sqs_loop(endpoint: &str, queue: &str, tasks: usize) {
    let client = sqs(endpoint);
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let begin = Instant::now();
    let tasks = (0..tasks.max(1)).map(|_| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let mut taken = 0u64;
            loop {
                let call =
                    client.receive_message().queue_url(&url).max_number_of_messages(10).message_attribute_names("All");
                let messages = call.send().await.unwrap().messages.unwrap_or_default();
                if messages.is_empty() {
                    return taken;
                }
                taken += messages.len() as u64;
                let entries = messages.into_iter().enumerate().map(|(n, message)| {
                    let receipt = message.receipt_handle.unwrap();
                    DeleteMessageBatchRequestEntry::builder().id(n.to_string()).receipt_handle(receipt).build().unwrap()
                });
                let call = client.delete_message_batch().queue_url(&url).set_entries(Some(entries.collect()));
                assert!(call.send().await.unwrap().failed.is_empty());
            }
        })
    });
    let mut taken = 0;
    for task in tasks.collect::<Vec<_>>() {
        taken += task.await.unwrap();
    }
    say(&format!("{{\"taken\":{taken},\"seconds\":{}}}", begin.elapsed().as_secs_f64()));
}
