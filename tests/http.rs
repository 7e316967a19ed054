//! The listener and `POST /v1/events` over real sockets: every status, and what a bad client can do.

use std::net::SocketAddr;
use std::time::Duration;

use owlpost::http::{Bounds, Listener, router};
use owlpost::metrics;
use owlpost::model::{Receipt, RefusedReason};
use owlpost::source::http::{HttpSource, Options};
use owlpost::source::{Batch, Health, Room, Source};
use owlpost::vitals::{SILENT_AFTER, Vitals};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const ROOMY: Room = Room { messages: 10_000, bytes: 100_000_000 };

struct Server {
    address: SocketAddr,
    vitals: Vitals,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn serve(source: &HttpSource, bounds: Bounds) -> Server {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap().with(bounds);
    let (address, vitals, stop) = (listener.address(), Vitals::new(), CancellationToken::new());
    let app = router(vitals.clone(), metrics::install(), source.router());
    let serving = tokio::spawn(listener.serve(app, stop.clone(), Duration::from_secs(5)));
    Server { address, vitals, stop, serving }
}

/// A source that the test asks by itself.
async fn by_hand(options: Options) -> (HttpSource, Server) {
    let source = HttpSource::new("web", options);
    let server = serve(&source, Bounds::default()).await;
    (source, server)
}

/// A source whose messages get these receipts, for ever.
async fn answering(options: Options, receipts: Vec<Receipt>) -> Server {
    let (mut source, server) = by_hand(options).await;
    tokio::spawn(async move {
        while let Ok(Some(batch)) = source.next(ROOMY).await {
            let all = vec![receipts.clone(); batch.messages.len()];
            source.ack(batch.ack, &all).await;
        }
    });
    server
}

fn options() -> Options {
    Options::new(None, 100_000)
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// What the server says until it closes; status 0: nothing.
async fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn request(headers: &str, body: &str) -> Vec<u8> {
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    format!("{head}{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn post(address: SocketAddr, headers: &str, body: &str) -> Answer {
    answer(send(address, &request(headers, body)).await).await
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    answer(send(address, request.as_bytes()).await).await
}

fn refused() -> Receipt {
    Receipt::Refused { reason: RefusedReason::NotJson, detail: "column 1".to_owned(), at: None }
}

fn accepted(batch: &Batch) -> Vec<Vec<Receipt>> {
    vec![vec![Receipt::Accepted]; batch.messages.len()]
}

#[tokio::test]
async fn the_answer_comes_after_the_commit_and_not_before() {
    let (mut source, server) = by_hand(options()).await;
    let headers = "Content-Type: application/json\r\nCE-Id: 1\r\nidempotency-key: k\r\nx-other: o\r\nx-owlpost-truncated: 9;00\r\n";
    let client = send(server.address, &request(headers, "{}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    let message = &batch.messages[0];
    assert_eq!((&*message.position, &*message.body, &message.broker_id), ("POST /v1/events", &b"{}"[..], &None));
    assert_eq!(
        message.headers,
        [("content-type", "application/json"), ("ce-id", "1"), ("idempotency-key", "k")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    let mut byte = [0];
    let early = client.try_read(&mut byte);
    assert!(early.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "answered before the commit");
    source.ack(batch.ack, &accepted(&batch)).await;
    let answer = answer(client).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), serde_json::json!({"accepted": 1, "duplicates": 0, "dropped": 0, "rejected": []}));
}

#[tokio::test]
async fn what_became_of_the_events_decides_between_202_and_400() {
    let server = answering(options(), vec![Receipt::Accepted, refused(), Receipt::Duplicate]).await;
    let some = post(server.address, "", "[]").await;
    assert_eq!(some.status, 202);
    assert_eq!(some.json()["rejected"], serde_json::json!([{"index": 1, "reason": "not_json", "detail": "column 1"}]));
    let server = answering(options(), vec![refused()]).await;
    let none = post(server.address, "", "x").await;
    assert_eq!((none.status, none.json()["accepted"].as_u64()), (400, Some(0)));
    let server = answering(options(), vec![]).await;
    let empty = post(server.address, "content-type: application/cloudevents-batch+json\r\n", "[]").await;
    assert_eq!((empty.status, empty.json()["accepted"].as_u64()), (202, Some(0)));
}

#[tokio::test]
async fn without_the_token_nothing_comes_in() {
    let server = answering(Options::new(Some("s3cret".into()), 1_000), vec![Receipt::Accepted]).await;
    for wrong in ["", "authorization: Bearer s3cre\r\n", "authorization: Basic s3cret\r\n"] {
        let answer = post(server.address, wrong, "{}").await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        assert!(!answer.body.contains("s3cret"));
    }
    assert_eq!(post(server.address, "authorization: bearer s3cret\r\n", "{}").await.status, 202);
}

/// A token is changed without a gap: producers one after another, while both are taken.
#[tokio::test]
async fn the_previous_token_is_taken_as_well() {
    let both = Options { previous_token: Some("0ld".into()), ..Options::new(Some("s3cret".into()), 1_000) };
    let server = answering(both, vec![Receipt::Accepted]).await;
    for token in ["s3cret", "0ld"] {
        let answer = post(server.address, &format!("authorization: Bearer {token}\r\n"), "{}").await;
        assert_eq!(answer.status, 202, "{token}");
    }
    assert_eq!(post(server.address, "authorization: Bearer older\r\n", "{}").await.status, 401);
}

#[tokio::test]
async fn other_methods_paths_types_and_codings_are_refused() {
    let server = answering(options(), vec![Receipt::Accepted]).await;
    let wrong_method = get(server.address, "/v1/events").await;
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.head.contains("allow: post"), "{}", wrong_method.head);
    assert_eq!(get(server.address, "/v1").await.status, 404);
    for headers in [
        "content-type: text/xml\r\n",
        "content-type: application/json; charset=utf-16\r\n",
        "content-encoding: gzip\r\n",
    ] {
        assert_eq!(post(server.address, headers, "{}").await.status, 415, "{headers}");
    }
    assert_eq!(post(server.address, "content-encoding: Identity\r\n", "{}").await.status, 202, "as it is");
    let binary = "ce-specversion: 1.0\r\ncontent-type: text/plain\r\n";
    assert_eq!(post(server.address, binary, "{}").await.status, 202, "in binary mode it is the data's type");
}

#[tokio::test]
async fn a_long_body_is_refused_whether_it_is_announced_or_not() {
    let server = answering(options(), vec![Receipt::Accepted]).await;
    let ten_mb = "x".repeat(10_000_000);
    assert_eq!(post(server.address, "", &ten_mb).await.status, 413);
    assert_eq!(post(server.address, "", &"x".repeat(100_001)).await.status, 413);
    assert_eq!(post(server.address, "", &"x".repeat(100_000)).await.status, 202);
    let chunked = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{ten_mb}\r\n0\r\n\r\n",
        ten_mb.len()
    );
    assert_eq!(answer(send(server.address, chunked.as_bytes()).await).await.status, 413);
    // Who asks first is answered first, and need not send anything.
    let asking = "POST /v1/events HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10000000\r\n\r\n";
    let mut stream = send(server.address, asking.as_bytes()).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_full_intake_says_so_and_takes_again_once_there_is_room() {
    let (mut source, server) = by_hand(Options { waiting_max: 1, ..options() }).await;
    let first = send(server.address, &request("", "{}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    let full = post(server.address, "", "{}").await;
    assert_eq!(full.status, 429);
    assert!(full.head.contains("retry-after: 1"), "{}", full.head);
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(first).await.status, 202);
    let next = send(server.address, &request("", "{}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(next).await.status, 202);
}

#[tokio::test]
async fn the_intake_is_bounded_in_bytes_as_well() {
    let (mut source, server) = by_hand(Options { waiting_max_bytes: 100_000, ..options() }).await;
    let first = send(server.address, &request("", &"x".repeat(60_000))).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    assert_eq!(post(server.address, "", &"x".repeat(60_000)).await.status, 429);
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(first).await.status, 202);
}

#[tokio::test]
async fn a_stop_sends_away_who_waits_and_answers_who_was_stored() {
    let (mut source, server) = by_hand(options()).await;
    let stored = send(server.address, &request("", "{}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    source.stop(tokio::time::Instant::now()).await;
    let away = post(server.address, "", "{}").await;
    assert_eq!(away.status, 503);
    assert!(away.head.contains("retry-after: 5"), "{}", away.head);
    server.stop.cancel();
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(stored).await.status, 202);
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_source_that_is_gone_answers_instead_of_hanging() {
    let (mut source, server) = by_hand(options()).await;
    let client = send(server.address, &request("", "{}")).await;
    let _ = source.next(ROOMY).await.unwrap().unwrap();
    drop(source);
    assert_eq!(answer(client).await.status, 503);
    assert_eq!(post(server.address, "", "{}").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_does_not_come_is_a_503() {
    let (mut source, server) = by_hand(options()).await;
    let client = send(server.address, &request("", "{}")).await;
    let _batch = source.next(ROOMY).await.unwrap().unwrap();
    let answer = answer(client).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("not committed in time"), "{}", answer.body);
}

#[tokio::test]
async fn a_client_that_leaves_harms_nobody() {
    let (mut source, server) = by_hand(options()).await;
    let gone = send(server.address, &request("", "{\"n\":1}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    drop(gone);
    let there = send(server.address, &request("", "{\"n\":2}")).await;
    let second = source.next(ROOMY).await.unwrap().unwrap();
    source.ack(batch.ack, &accepted(&batch)).await;
    source.ack(second.ack, &accepted(&second)).await;
    assert_eq!(answer(there).await.status, 202);
}

#[tokio::test]
async fn a_thousand_requests_at_once_are_all_answered_and_share_commits() {
    let (mut source, server) = by_hand(options()).await;
    let mut clients = Vec::new();
    for n in 0..1_000 {
        clients.push(send(server.address, &request("", &format!("{{\"n\":{n}}}"))).await);
    }
    let loop_ = tokio::spawn(async move {
        let (mut batches, mut messages) = (0, 0);
        while messages < 1_000 {
            let batch = source.next(ROOMY).await.unwrap().unwrap();
            batches += 1;
            messages += batch.messages.len();
            source.ack(batch.ack, &accepted(&batch)).await;
        }
        batches
    });
    for client in clients {
        assert_eq!(answer(client).await.status, 202);
    }
    assert!(loop_.await.unwrap() < 1_000, "each request had a commit of its own");
}

#[tokio::test]
async fn garbage_is_answered_or_cut_off_and_the_next_is_served() {
    let server = answering(options(), vec![Receipt::Accepted]).await;
    let huge_header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    for (bytes, statuses) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], &[0, 400][..]),
        (b"POST /v1/events HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", &[400]),
        (b"POST /v1/events HTTP/1.1\r\ncontent-length: -1\r\n\r\n", &[400]),
        (b"POST /v1/events HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n", &[400]),
        (huge_header.as_bytes(), &[0, 431]),
        (many_headers.as_bytes(), &[431]),
        (b"POST /v1/events HTTP/1.1\r\nconnection: close\r\nce-id: \xff\xfe\r\ncontent-length: 0\r\n\r\n", &[400]),
        (b"POST /v1/events HTTP/1.1\r\nconnection: close\r\nce-id: 1\r\nce-id: 2\r\ncontent-length: 0\r\n\r\n", &[400]),
        (b"POST /v1/events HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n{}", &[400]),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close before all is sent.
        let _ = stream.write_all(bytes).await;
        let status = answer(stream).await.status;
        assert!(statuses.contains(&status), "{status} for {}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }
    assert_eq!(post(server.address, "", "{}").await.status, 202);
}

#[tokio::test]
async fn a_body_that_stops_half_way_becomes_no_message() {
    let (mut source, server) = by_hand(options()).await;
    for start in [
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{}",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\na\r\n{}",
    ] {
        let mut stream = send(server.address, start.as_bytes()).await;
        stream.shutdown().await.unwrap();
        let status = answer(stream).await.status;
        assert!([0, 400].contains(&status), "{status}");
    }
    let whole = send(server.address, &request("", "{\"whole\":1}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    assert_eq!(batch.messages.len(), 1);
    assert_eq!(batch.messages[0].body, b"{\"whole\":1}");
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(whole).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn slow_clients_lose_their_connection() {
    let (_source, server) = by_hand(options()).await;
    let slow_header = send(server.address, b"POST /v1/events HTTP/1.1\r\nhost:").await;
    assert!([0, 408].contains(&answer(slow_header).await.status));
    let slow_body = send(server.address, b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await;
    assert_eq!(answer(slow_body).await.status, 408);
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(answer(silent).await.status, 0);
}

/// Else whoever asks whether the worker lives is told nothing, and the worker is ended.
#[tokio::test(start_paused = true)]
async fn clients_that_say_nothing_keep_out_no_probe_however_many_they_are() {
    let source = HttpSource::new("web", options());
    let server = serve(&source, Bounds { connections: 4, ..for_ever() }).await;
    let mut silent = Vec::new();
    let began = tokio::time::Instant::now();
    for n in 0..8 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
        silent.push(send(server.address, b"GET").await);
        assert_eq!(get(server.address, "/livez").await.status, 200, "{n}");
    }
    // In virtual time, which goes on by itself until something ends.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// Nothing ends a connection by itself.
fn for_ever() -> Bounds {
    let long = Duration::from_secs(86_400);
    Bounds { headers_within: long, request_within: long, connection_age: long, ..Bounds::default() }
}

/// A request may take long: its commit does.
#[tokio::test(start_paused = true)]
async fn whose_request_is_under_way_keeps_the_connection() {
    let mut source = HttpSource::new("web", options());
    let server = serve(&source, Bounds { connections: 2, ..for_ever() }).await;
    let began = tokio::time::Instant::now();
    let whole = send(server.address, &request("", "{\"whole\":1}")).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    let _silent = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        assert_eq!(get(server.address, "/livez").await.status, 200);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    source.ack(batch.ack, &accepted(&batch)).await;
    assert_eq!(answer(whole).await.status, 202);
}

#[tokio::test]
async fn ready_means_that_work_can_be_taken_with_the_reason_if_not() {
    let (_source, server) = by_hand(options()).await;
    let starting = get(server.address, "/readyz").await;
    assert_eq!((starting.status, starting.json()["reasons"][0].as_str()), (503, Some("store: not open yet")));
    server.vitals.set_store("intake", Ok(()));
    server.vitals.set_source("web", Health::Ready);
    let ready = get(server.address, "/readyz").await;
    assert_eq!((ready.status, ready.json()["sources"]["web"].as_str()), (200, Some("ready")));
    server.vitals.set_source("kafka", Health::Down("no broker answers".into()));
    let down = get(server.address, "/readyz").await;
    assert_eq!((down.status, down.json()["reasons"][0].as_str()), (200, Some("source kafka: no broker answers")));
    server.vitals.set_source("web", Health::Down("nobody may publish".into()));
    let all_down = get(server.address, "/readyz").await;
    assert_eq!((all_down.status, all_down.json()["ready"].as_bool()), (503, Some(false)));
    server.vitals.set_source("web", Health::Ready);
    server.vitals.set_source("kafka", Health::Ended);
    server.vitals.set_stopping();
    assert_eq!(get(server.address, "/readyz").await.json()["reasons"][0], "stopping");
    assert_eq!(get(server.address, "/livez").await.status, 200, "a worker that stops is alive");
}

#[tokio::test(start_paused = true)]
async fn alive_means_that_every_loop_turns() {
    let (_source, server) = by_hand(options()).await;
    let pulse = server.vitals.pulse("deliver");
    assert_eq!(get(server.address, "/livez").await.status, 200);
    tokio::time::advance(SILENT_AFTER).await;
    let silent = get(server.address, "/livez").await;
    assert_eq!(silent.status, 503);
    assert!(silent.body.contains("the deliver loop has not turned for"), "{}", silent.body);
    pulse.beat();
    assert_eq!(get(server.address, "/livez").await.status, 200);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (_source, server) = by_hand(options()).await;
    metrics::touch(&["web"], "outbox");
    let answer = get(server.address, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("owlpost_events_total{source=\"web\",outcome=\"accepted\"} 0"), "{}", answer.body);
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_address_and_key() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let why = Listener::bind(&address.to_string()).await.err().unwrap().to_string();
    assert!(
        why.starts_with(&format!("http.listen: can't listen on {address}: another program listens there")),
        "{why}"
    );
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_say_nothing() {
    let (_source, server) = by_hand(options()).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(get(server.address, "/livez").await.status, 200);
    server.stop.cancel();
    server.serving.await.unwrap();
    assert_eq!(answer(idle).await.status, 0);
}
