//! The SQS source through its trait, against a real SQS-compatible server (ElasticMQ), with a proxy in between where the
//! server makes no such faults.

#[path = "support/elasticmq.rs"]
mod elasticmq;
#[path = "sqs/faults.rs"]
mod faults;
#[path = "sqs/gone.rs"]
mod gone;
#[path = "sqs/outlet.rs"]
mod outlet;
#[path = "support/process.rs"]
mod process;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use elasticmq::{Depth, ElasticMq, unique};
use owlpost::aws::Identity;
use owlpost::aws::queue::Named;
use owlpost::metrics;
use owlpost::model::Receipt;
use owlpost::source::sqs::{Options, SqsSource};
use owlpost::source::{Ack, Batch, Health, Room, Source, SourceError, TRUNCATED};
use process::{PATIENCE, until};
use tokio::time::Instant;

const ROOMY: Room = Room { messages: 1_000, bytes: 10_000_000 };
const VISIBILITY: &[(QueueAttributeName, &str)] = &[(QueueAttributeName::VisibilityTimeout, "3")];
const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };

fn server() -> &'static ElasticMq {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: before any other thread of these tests reads the environment: each test calls this first.
        unsafe {
            std::env::set_var("AWS_ACCESS_KEY_ID", "test");
            std::env::set_var("AWS_SECRET_ACCESS_KEY", "test");
            std::env::set_var("AWS_EC2_METADATA_DISABLED", "true");
        }
        metrics::install();
    });
    ElasticMq::shared()
}

fn options(endpoint: &str, queue: Named) -> Options {
    Options {
        identity: Identity { region: Some("elasticmq".into()), ..Identity::default() },
        endpoint_url: Some(endpoint.to_owned()),
        queue,
        receivers_max: 8,
        event_bytes: 1_048_576,
        until_idle: false,
    }
}

async fn open(url: &str) -> SqsSource {
    open_at(server().endpoint(), url).await
}

/// Through a proxy.
async fn open_at(endpoint: &str, url: &str) -> SqsSource {
    named(&unique("source"), options(endpoint, Named::Url(url.to_owned()))).await
}

async fn named(name: &str, options: Options) -> SqsSource {
    SqsSource::open(name, options).await.unwrap_or_else(|e| panic!("{e}"))
}

fn bodies(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{{\"n\":{n}}}")).collect()
}

fn texts(batch: &Batch) -> Vec<String> {
    batch.messages.iter().map(|m| String::from_utf8(m.body.clone()).unwrap()).collect()
}

fn receipts(batch: &Batch) -> Vec<Vec<Receipt>> {
    batch.messages.iter().map(|_| vec![Receipt::Accepted]).collect()
}

/// The next batch; trouble that heals is waited out.
async fn next(source: &mut SqsSource, room: Room) -> Option<Batch> {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            match source.next(room).await {
                Ok(batch) => return batch,
                Err(SourceError::Unavailable(_)) => {}
                Err(fatal) => panic!("{fatal}"),
            }
        }
    });
    let waited = waited.await;
    waited.unwrap_or_else(|_| panic!("no batch in time: {:?}", source.health()))
}

/// Takes and acknowledges until so many messages came.
async fn take(source: &mut SqsSource, room: Room, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = next(source, room).await.unwrap();
        all.extend(texts(&batch));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    all
}

async fn stop(mut source: SqsSource) {
    source.stop(Instant::now() + Duration::from_secs(20)).await;
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

fn until_depth(url: &str, depth: Depth) {
    until(&format!("{depth:?}, found {:?}", server().depth(url)), || (server().depth(url) == depth).then_some(()));
}

fn metric(name: &str, source: &str) -> f64 {
    let wanted = format!("owlpost_sqs_{name}{{source=\"{source}\"}} ");
    let text = metrics::install().render();
    let line = text.lines().find_map(|l| l.strip_prefix(&wanted)).unwrap_or_else(|| panic!("{wanted} in\n{text}"));
    line.parse().unwrap()
}

/// Waits for the source to be down, asking it as the loop does.
async fn down(source: &mut SqsSource) -> String {
    let trouble = tokio::time::timeout(PATIENCE, source.next(ROOMY)).await.expect("trouble in time");
    let Err(SourceError::Unavailable(why)) = trouble else { panic!("{trouble:?}") };
    assert_eq!(source.health(), Health::Down(why.clone()));
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_deleted_and_the_queue_is_empty() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(137));
    let mut source = open(&url).await;
    let all = take(&mut source, Room { messages: 50, bytes: 1_000_000 }, 137).await;
    assert_eq!(sorted(all), sorted(bodies(137)));
    assert_eq!(source.health(), Health::Ready);
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_where_it_came_from() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(1));
    let mut source = open(&url).await;
    let batch = next(&mut source, ROOMY).await.unwrap();
    let message = &batch.messages[0];
    let (name, id) = (url.rsplit('/').next().unwrap(), message.broker_id.clone().unwrap());
    assert_eq!(message.position, format!("queue {name} message {id}"));
    assert!(message.time.is_some());
    source.ack(batch.ack, &receipts(&batch)).await;
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_comes_again_from_here_and_not_from_the_queue() {
    let (url, dead) = server().with_redrive(1, &[]);
    server().send(&url, &bodies(5));
    let mut source = open(&url).await;
    let mut all = Vec::new();
    while all.len() < 5 {
        let batch = next(&mut source, ROOMY).await.unwrap();
        source.refuse(batch.ack, Duration::ZERO).await;
        let again = next(&mut source, ROOMY).await.unwrap();
        assert!(texts(&batch).iter().all(|t| texts(&again).contains(t)));
        all.extend(texts(&again));
        source.ack(again.ack, &receipts(&again)).await;
    }
    assert_eq!(sorted(all), bodies(5));
    stop(source).await;
    assert_eq!(
        (server().depth(&url), server().depth(&dead)),
        (EMPTY, EMPTY),
        "no second receive, which would be one too many"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_nobody_else_gets_what_is_held() {
    let url = server().queue(VISIBILITY);
    server().send(&url, &bodies(15));
    let name = unique("source");
    let mut source = named(&name, options(server().endpoint(), Named::Url(url.clone()))).await;
    until_depth(&url, Depth { in_flight: 15, ..EMPTY });
    let (mut held, mut count) = (Vec::new(), 0);
    // Some are out, some wait inside.
    while count < 8 {
        let batch = next(&mut source, Room { messages: 4, bytes: 1_000_000 }).await.unwrap();
        count += batch.messages.len();
        held.push(batch);
    }
    // Twice the visibility timeout, by somebody who would take them.
    let other = server().client();
    for _ in 0..6 {
        let asked = other.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(1);
        let got = asked.send().await.unwrap().messages.unwrap_or_default();
        assert_eq!(got, [], "hidden for as long as it is held");
    }
    assert!(metric("visibility_extensions_total", &name) >= 15.0);
    for batch in held {
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    take(&mut source, ROOMY, 15 - count).await;
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_in_the_first_moments_is_hidden_in_time() {
    let (url, dead) = server().with_redrive(1, VISIBILITY);
    server().send(&url, &bodies(40));
    let name = unique("source");
    let mut source = named(&name, options(server().endpoint(), Named::Url(url.clone()))).await;
    let mut held = Vec::new();
    let mut count = 0;
    while count < 40 {
        let batch = next(&mut source, ROOMY).await.unwrap();
        count += batch.messages.len();
        held.push(batch);
    }
    // By then all of them were hidden for longer three times, which takes longer than the queue hides a message.
    until("three rounds", || (metric("visibility_extensions_total", &name) >= 120.0).then_some(()));
    for batch in held {
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    until_depth(&url, EMPTY);
    stop(source).await;
    assert_eq!((server().depth(&dead), metric("deletes_failed_total", &name)), (EMPTY, 0.0), "each was received once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_back_what_was_not_committed() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(30));
    let mut source = open(&url).await;
    let first = next(&mut source, Room { messages: 3, bytes: 1_000_000 }).await.unwrap();
    let second = next(&mut source, Room { messages: 3, bytes: 1_000_000 }).await.unwrap();
    source.ack(first.ack, &receipts(&first)).await;
    source.refuse(second.ack, Duration::from_secs(60)).await;
    let deleted = first.messages.len() as u64;
    stop(source).await;
    assert_eq!(server().depth(&url), Depth { visible: 30 - deleted, ..EMPTY }, "at once, not after 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_stops_at_once_and_ends() {
    let url = server().queue(&[]);
    let mut source = open(&url).await;
    // It waits for messages by then.
    until("the receiver", || matches!(source.health(), Health::Ready).then_some(()));
    tokio::select! {
        biased;
        batch = source.next(ROOMY) => panic!("{batch:?}"),
        () = tokio::task::yield_now() => {}
    }
    tokio::time::timeout(Duration::from_secs(15), source.stop(Instant::now() + PATIENCE)).await.expect("no 20 s poll");
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
    assert_eq!(source.health(), Health::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_loses_nothing() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(20));
    let mut source = open(&url).await;
    let one = Room { messages: 1, bytes: 1 };
    let mut all = Vec::new();
    while all.len() < 20 {
        // Polled once and dropped, again and again, then waited for.
        for _ in 0..3 {
            tokio::select! {
                biased;
                batch = source.next(one) => {
                    let batch = batch.unwrap().unwrap();
                    assert_eq!(batch.messages.len(), 1);
                    all.extend(texts(&batch));
                    source.ack(batch.ack, &receipts(&batch)).await;
                }
                () = std::future::ready(()) => {}
            }
        }
        if all.len() < 20 {
            all.extend(take(&mut source, one, 1).await);
        }
    }
    assert_eq!(sorted(all), sorted(bodies(20)));
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_nothing_new_comes_and_late_answers_count() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(20));
    let mut source = open(&url).await;
    let mut out = Vec::new();
    for _ in 0..2 {
        out.push(next(&mut source, Room { messages: 2, bytes: 1_000 }).await.unwrap());
    }
    source.stop(Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
    source.ack(out[0].ack, &receipts(&out[0])).await;
    source.refuse(out[1].ack, Duration::ZERO).await;
    source.ack(Ack { batch: 77, epoch: 9 }, &[]).await;
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
    let deleted = out[0].messages.len() as u64;
    until_depth(&url, Depth { visible: 20 - deleted, ..EMPTY });
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_grow_with_the_load_and_shrink_without() {
    let url = server().queue(&[]);
    let name = unique("source");
    let mut source =
        named(&name, Options { until_idle: true, ..options(server().endpoint(), Named::Url(url.clone())) }).await;
    server().send(&url, &bodies(400));
    let (mut most, mut all) = (0f64, 0);
    while let Some(batch) = next(&mut source, ROOMY).await {
        most = most.max(metric("receivers", &name));
        all += batch.messages.len();
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    assert!(all == 400 && most > 1.0 && most <= 8.0, "{all} {most}");
    // The last one is there until the stop.
    assert_eq!(metric("receivers", &name), 1.0);
    stop(source).await;
    assert_eq!((metric("receivers", &name), server().depth(&url)), (0.0, EMPTY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_ends_after_empty_polls_with_nothing_outstanding() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(12));
    let mut source =
        named("idle", Options { until_idle: true, ..options(server().endpoint(), Named::Url(url.clone())) }).await;
    let mut out = Vec::new();
    let mut count = 0;
    while count < 12 {
        let batch = next(&mut source, ROOMY).await.unwrap();
        count += batch.messages.len();
        out.push(batch);
    }
    // Not while something may still be refused.
    let early = tokio::time::timeout(Duration::from_secs(4), source.next(ROOMY)).await;
    assert!(early.is_err(), "{early:?}");
    for batch in out {
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    assert_eq!(next(&mut source, ROOMY).await, None);
    assert_eq!(source.health(), Health::Ended);
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_does_not_wait_for_a_queue_that_is_not_there() {
    let url = format!("{}/000000000000/{}", server().endpoint(), unique("none"));
    let mut source = named("none", Options { until_idle: true, ..options(server().endpoint(), Named::Url(url)) }).await;
    match tokio::time::timeout(PATIENCE, source.next(ROOMY)).await.unwrap() {
        Err(SourceError::Fatal(why)) => assert!(why.contains("queue_url"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_a_fifo_queue_keep_their_order() {
    let url = server().fifo(&[]);
    let messages: Vec<(String, String)> =
        (0..60).map(|n| (format!("g{}", n % 3), format!("{{\"g\":{},\"n\":{n}}}", n % 3))).collect();
    let sent: Vec<(Option<&str>, &str)> = messages.iter().map(|(g, b)| (Some(g.as_str()), b.as_str())).collect();
    server().send_to_groups(&url, &sent);
    let mut source = open(&url).await;
    let mut of_group: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let (mut count, mut refusals) = (0, 0);
    while count < 60 {
        let batch = next(&mut source, Room { messages: 7, bytes: 1_000_000 }).await.unwrap();
        // Every now and then the store is away.
        if refusals < 5 && batch.messages.len() > 2 {
            refusals += 1;
            source.refuse(batch.ack, Duration::ZERO).await;
            continue;
        }
        for text in texts(&batch) {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            of_group.entry(value["g"].as_u64().unwrap()).or_default().push(value["n"].as_u64().unwrap());
        }
        count += batch.messages.len();
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    for (group, numbers) in &of_group {
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() == 20, "group {group}: {numbers:?}");
    }
    stop(source).await;
    assert_eq!((of_group.len(), server().depth(&url)), (3, EMPTY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_group_holds_up_no_other() {
    let url = server().fifo(&[]);
    server().send_to_groups(&url, &[(Some("a"), "{\"a\":1}"), (Some("a"), "{\"a\":2}"), (Some("b"), "{\"b\":1}")]);
    let mut source = open(&url).await;
    // While the store is away no more is received.
    until_depth(&url, Depth { in_flight: 3, ..EMPTY });
    let first = next(&mut source, Room { messages: 1, bytes: 1_000 }).await.unwrap();
    assert_eq!(texts(&first), ["{\"a\":1}"]);
    source.refuse(first.ack, Duration::from_secs(3_600)).await;
    assert_eq!(take(&mut source, ROOMY, 1).await, ["{\"b\":1}"]);
    stop(source).await;
    assert_eq!(server().depth(&url), Depth { visible: 2, ..EMPTY });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_found_by_name_and_by_arn() {
    let url = server().queue(&[]);
    let arn = server().attribute(&url, QueueAttributeName::QueueArn);
    let name = url.rsplit('/').next().unwrap();
    for queue in [name, arn.as_str()] {
        server().send(&url, &bodies(1));
        let mut all = options(server().endpoint(), Named::read(queue).unwrap());
        if queue == arn {
            // The ARN says it.
            all.identity.region = None;
        }
        let mut source = named(&unique("source"), all).await;
        assert_eq!(take(&mut source, ROOMY, 1).await, bodies(1), "{queue}");
        stop(source).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_away_is_told_and_taken_up_again() {
    let client = server().client();
    let name = unique("coming");
    let mut source = named(&unique("source"), options(server().endpoint(), Named::read(&name).unwrap())).await;
    let why = down(&mut source).await;
    assert!(why.contains("the queue is not there") && why.contains("queue_url"), "{why}");
    let made = || async { client.create_queue().queue_name(&name).send().await.unwrap().queue_url.unwrap() };
    let url = made().await;
    server().send(&url, &bodies(3));
    assert_eq!(sorted(take(&mut source, ROOMY, 3).await), bodies(3));
    assert_eq!(source.health(), Health::Ready);
    client.delete_queue().queue_url(&url).send().await.unwrap();
    // The poll that waits may only see it at its end.
    let why = down(&mut source).await;
    assert!(why.contains("the queue is not there"), "{why}");
    server().send(&made().await, &bodies(3));
    assert_eq!(sorted(take(&mut source, ROOMY, 3).await), bodies(3));
    stop(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_consumers_share_a_queue_and_nobody_gets_anothers() {
    let url = server().queue(&[]);
    server().send(&url, &bodies(300));
    let mut all = BTreeSet::new();
    let run = |url: String| async move {
        let mut source =
            named(&unique("source"), Options { until_idle: true, ..options(server().endpoint(), Named::Url(url)) })
                .await;
        let mut mine = Vec::new();
        while let Some(batch) = next(&mut source, Room { messages: 20, bytes: 1_000_000 }).await {
            mine.extend(texts(&batch));
            source.ack(batch.ack, &receipts(&batch)).await;
        }
        stop(source).await;
        mine
    };
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(run(url.clone()))).collect();
    let mut count = 0;
    for task in tasks {
        let mine = task.await.unwrap();
        count += mine.len();
        all.extend(mine);
    }
    assert_eq!((count, all.len(), server().depth(&url)), (300, 300, EMPTY));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_comes_whole_and_one_over_the_limit_cut() {
    let url = server().queue(&[(QueueAttributeName::MaximumMessageSize, "1048576")]);
    let largest = format!("{{\"x\":\"{}\"}}", "y".repeat(1_048_576 - 8));
    assert_eq!(largest.len(), 1_048_576);
    server().send(&url, std::slice::from_ref(&largest));
    let mut source = open(&url).await;
    let batch = next(&mut source, ROOMY).await.unwrap();
    assert!(texts(&batch) == [largest.clone()]);
    source.refuse(batch.ack, Duration::ZERO).await;
    stop(source).await;
    let short = Options { event_bytes: 1_000_000, ..options(server().endpoint(), Named::Url(url.clone())) };
    let mut source = named(&unique("source"), short).await;
    let batch = next(&mut source, ROOMY).await.unwrap();
    assert!(batch.messages[0].header(TRUNCATED).is_some_and(|v| v.starts_with("1048576;")));
    assert_eq!(batch.messages[0].body.len(), 64 * 1024);
    source.ack(batch.ack, &receipts(&batch)).await;
    stop(source).await;
    assert_eq!(server().depth(&url), EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_takes_all_of_a_group_while_its_first_messages_are_held() {
    let url = server().fifo(&[]);
    let all = bodies(25);
    let sent: Vec<(Option<&str>, &str)> = all.iter().map(|body| (Some("g"), body.as_str())).collect();
    server().send_to_groups(&url, &sent);
    let proxy = proxy::Proxy::start(server().endpoint());
    let idle = Options { until_idle: true, ..options(proxy.url(), Named::Url(url.clone())) };
    let mut source = named(&unique("source"), idle).await;
    let mut taken = Vec::new();
    while let Some(batch) = next(&mut source, ROOMY).await {
        taken.extend(texts(&batch));
        // The commit takes as long as more polls than end an idle run: the group is locked, and they find nothing.
        let polls = proxy.calls("ReceiveMessage");
        until("polls of a locked group", || (proxy.calls("ReceiveMessage") >= polls + 4).then_some(()));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    assert_eq!(taken, all);
    assert_eq!(server().depth(&url), EMPTY);
}
