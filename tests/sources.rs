//! What every source promises (`source::Source`), checked on each kind.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use owlpost::http::Listener;
use owlpost::model::{Receipt, Time};
use owlpost::source::TRUNCATED;
use owlpost::source::file::FileSource;
use owlpost::source::http::{HttpSource, Options};
use owlpost::source::{Ack, Batch, Health, Room, Source, SourceError};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const ROOMY: Room = Room { messages: 1_000, bytes: 10_000_000 };
const EVENT_BYTES: usize = 1_048_576;

/// A source with five messages `{"n":0}` … `{"n":4}` to give.
struct Subject {
    source: Box<dyn Source>,
    /// Ends what a source without an end would wait for.
    is_endless: bool,
    _keep: Box<dyn std::any::Any>,
}

fn body(n: usize) -> String {
    format!("{{\"n\":{n}}}")
}

fn file(text: &[u8]) -> (FileSource, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    (FileSource::open("events", file.path(), EVENT_BYTES).unwrap(), file)
}

fn five() -> String {
    (0..5).map(|n| body(n) + "\n").collect()
}

async fn post(address: SocketAddr, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body(n);
    let head =
        format!("POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

async fn subjects() -> Vec<Subject> {
    let (source, keep) = file(five().as_bytes());
    let from_file = Subject { source: Box::new(source), is_endless: false, _keep: Box::new(keep) };
    let text = five();
    let pipe =
        FileSource::pipe("pipe", "stdin", EVENT_BYTES, move || Ok(Box::new(std::io::Cursor::new(text)))).unwrap();
    let from_pipe = Subject { source: Box::new(pipe), is_endless: false, _keep: Box::new(()) };
    let mut http = HttpSource::new("web", Options::new(None, 1_000_000));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    tokio::spawn(listener.serve(http.router(), CancellationToken::new(), Duration::ZERO));
    let mut clients = Vec::new();
    // One after the other, each seen and called back: so they stand in the queue in a known order.
    for n in 0..5 {
        clients.push(post(address, n).await);
        let batch = http.next(ROOMY).await.unwrap().unwrap();
        assert_eq!(batch.messages[0].body, body(n).into_bytes());
        http.refuse(batch.ack, Duration::ZERO).await;
    }
    clients.clear();
    let mut held = Vec::new();
    for n in 0..5 {
        held.push(post(address, n).await);
    }
    let from_http = Subject { source: Box::new(http), is_endless: true, _keep: Box::new(held) };
    vec![from_file, from_pipe, from_http]
}

fn receipts(batch: &Batch) -> Vec<Vec<Receipt>> {
    batch.messages.iter().map(|_| vec![Receipt::Accepted]).collect()
}

fn bodies(batch: &Batch) -> Vec<String> {
    batch.messages.iter().map(|m| String::from_utf8(m.body.clone()).unwrap()).collect()
}

/// Everything, in batches of `room`, acknowledged at once; at most `count` messages.
async fn drain(source: &mut dyn Source, room: Room, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let Some(batch) = source.next(room).await.unwrap() else { break };
        assert!(batch.messages.len() <= room.messages.max(1));
        all.extend(bodies(&batch));
        source.ack(batch.ack, &receipts(&batch)).await;
    }
    all
}

fn sorted(mut bodies: Vec<String>) -> Vec<String> {
    bodies.sort();
    bodies
}

fn all_five() -> Vec<String> {
    (0..5).map(body).collect()
}

#[tokio::test]
async fn batches_keep_to_the_room_and_nothing_is_lost_or_given_twice() {
    for room in [
        ROOMY,
        Room { messages: 2, bytes: 10_000_000 },
        Room { messages: 1_000, bytes: 8 },
        Room { messages: 1, bytes: 0 },
    ] {
        for mut subject in subjects().await {
            assert_eq!(subject.source.health(), Health::Ready);
            assert_eq!(sorted(drain(&mut *subject.source, room, 5).await), all_five(), "{}", subject.source.name());
        }
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    for mut subject in subjects().await {
        let source = &mut *subject.source;
        let mut all = Vec::new();
        while all.len() < 5 {
            // Polled once and dropped, again and again, then waited for.
            for _ in 0..3 {
                tokio::select! {
                    biased;
                    batch = source.next(Room { messages: 1, bytes: 1 }) => {
                        let batch = batch.unwrap().unwrap();
                        all.extend(bodies(&batch));
                        source.ack(batch.ack, &receipts(&batch)).await;
                    }
                    () = std::future::ready(()) => {}
                }
                if all.len() == 5 {
                    break;
                }
            }
            if all.len() < 5 {
                all.extend(drain(source, Room { messages: 1, bytes: 1 }, 1).await);
            }
        }
        assert_eq!(sorted(all), all_five(), "{}", source.name());
    }
}

#[tokio::test]
async fn a_source_ends_once_and_says_so() {
    for mut subject in subjects().await {
        let source = &mut *subject.source;
        drain(source, ROOMY, 5).await;
        if subject.is_endless {
            source.stop(Instant::now()).await;
        }
        assert_eq!(source.next(ROOMY).await.unwrap(), None);
        assert_eq!(source.next(ROOMY).await.unwrap(), None);
        assert_eq!(source.health(), Health::Ended, "{}", source.name());
    }
}

#[tokio::test]
async fn after_a_stop_nothing_new_comes_and_late_answers_harm_nobody() {
    for mut subject in subjects().await {
        let source = &mut *subject.source;
        let batch = source.next(Room { messages: 1, bytes: 1 }).await.unwrap().unwrap();
        source.stop(Instant::now()).await;
        assert_eq!(source.next(ROOMY).await.unwrap(), None, "{}", source.name());
        source.ack(batch.ack, &receipts(&batch)).await;
        source.refuse(batch.ack, Duration::ZERO).await;
        source.ack(Ack { batch: 77, epoch: 9 }, &[]).await;
        assert_eq!(source.next(ROOMY).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_gives_refused_batches_again_in_their_order_and_not_before_their_time() {
    let (mut source, _keep) = file(five().as_bytes());
    let two = Room { messages: 2, bytes: 10_000 };
    let first = source.next(two).await.unwrap().unwrap();
    let second = source.next(two).await.unwrap().unwrap();
    let began = Instant::now();
    source.refuse(first.ack, Duration::from_secs(7)).await;
    source.refuse(second.ack, Duration::from_secs(7)).await;
    let again = source.next(ROOMY).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(7));
    assert_eq!(again.messages, [first.messages, second.messages].concat());
    assert_ne!(again.ack, first.ack);
    assert_eq!(bodies(&source.next(ROOMY).await.unwrap().unwrap()), [body(4)]);
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_refused_twice_keep_their_place() {
    let (mut source, _keep) = file(five().as_bytes());
    let two = Room { messages: 2, bytes: 10_000 };
    let first = source.next(two).await.unwrap().unwrap();
    let second = source.next(two).await.unwrap().unwrap();
    source.refuse(first.ack, Duration::ZERO).await;
    source.refuse(second.ack, Duration::ZERO).await;
    let again = source.next(two).await.unwrap().unwrap();
    assert_eq!(again.messages, first.messages);
    source.refuse(again.ack, Duration::ZERO).await;
    assert_eq!(drain(&mut source, two, 9).await, all_five());
}

#[tokio::test]
async fn a_file_does_not_end_while_a_batch_may_still_be_refused() {
    let (mut source, _keep) = file(five().as_bytes());
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    tokio::select! {
        biased;
        next = source.next(ROOMY) => panic!("{next:?}"),
        // The read that finds the end is a task: give it its turn.
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(source.health(), Health::Ready);
    source.refuse(batch.ack, Duration::ZERO).await;
    assert_eq!(drain(&mut source, ROOMY, 9).await, all_five());
    assert_eq!(source.next(ROOMY).await.unwrap(), None);
}

#[tokio::test]
async fn a_line_is_named_by_its_place_and_the_same_on_every_read() {
    let text = b"{}\r\n\n{\"a\":1}";
    let (mut source, keep) = file(text);
    let name = keep.path().file_name().unwrap().to_str().unwrap().to_owned();
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    assert_eq!(batch.messages[0].position, format!("{name} line 1 (byte 0)"));
    assert_eq!(batch.messages[1].position, format!("{name} line 3 (byte 5)"));
    let hash = &blake3::hash(b"{\"a\":1}").to_hex()[..16];
    assert_eq!(batch.messages[1].broker_id.as_deref(), Some(&*format!("events:5:{hash}")));
    let mut again = FileSource::open("events", keep.path(), EVENT_BYTES).unwrap();
    assert_eq!(again.next(ROOMY).await.unwrap().unwrap().messages, batch.messages);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_handed_on_cut_and_the_next_is_whole() {
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(10_000_000));
    let (mut source, _keep) = file(format!("{long}\n{{\"n\":1}}\n\u{0}\n").as_bytes());
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    let hex: String = Sha256::digest(&long).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(batch.messages[0].header(TRUNCATED), Some(&*format!("{};{hex}", long.len())));
    assert_eq!(batch.messages[0].body.len(), 64 * 1024);
    assert_eq!(batch.messages[1].header(TRUNCATED), None);
    assert_eq!(bodies(&batch)[1..], ["{\"n\":1}", "\u{0}"]);
}

#[tokio::test]
async fn what_is_not_utf8_is_handed_on_as_it_is() {
    let (mut source, _keep) = file(b"\xff\xfe{}\n");
    assert_eq!(source.next(ROOMY).await.unwrap().unwrap().messages[0].body, b"\xff\xfe{}");
}

#[test]
fn what_cant_be_read_is_fatal_and_named() {
    let folder = tempfile::tempdir().unwrap();
    for (path, word) in [(folder.path().join("none.ndjson"), "no such file"), (folder.path().to_owned(), "is a folder")]
    {
        match FileSource::open("events", &path, EVENT_BYTES) {
            Err(SourceError::Fatal(why)) => {
                assert!(why.contains(word) && why.contains(path.to_str().unwrap()), "{why}");
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{} was opened", path.display()),
        }
    }
    assert!(FileSource::open("events", Path::new("/nowhere/at/all"), EVENT_BYTES).is_err());
}

struct Broken(bool);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        buffer[..3].copy_from_slice(b"{}\n");
        Ok(3)
    }
}

#[tokio::test]
async fn a_read_that_fails_is_fatal_after_what_was_read_before() {
    let mut source = FileSource::pipe("events", "stdin", EVENT_BYTES, || Ok(Box::new(Broken(false)))).unwrap();
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    source.ack(batch.ack, &receipts(&batch)).await;
    match source.next(ROOMY).await {
        Err(SourceError::Fatal(why)) => assert!(why.contains("stdin") && why.contains("the disk is gone"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(source.health(), Health::Down(_)));
}

/// A pipe whose writer says nothing until the test ends.
struct Silent(std::sync::mpsc::Receiver<()>);

impl Read for Silent {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(0)
    }
}

#[test]
fn a_silent_stdin_holds_up_neither_the_stop_nor_the_end() {
    let (writer, reader) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut source = FileSource::pipe("stdin", "stdin", EVENT_BYTES, || Ok(Box::new(Silent(reader)))).unwrap();
        tokio::select! {
            biased;
            next = source.next(ROOMY) => panic!("{next:?}"),
            () = tokio::task::yield_now() => {}
        }
        source.stop(Instant::now()).await;
        assert_eq!(source.next(ROOMY).await.unwrap(), None);
    });
    // Waits for every task of the blocking pool: none may hang on the read.
    drop(runtime);
    drop(writer);
}

#[tokio::test]
async fn a_refused_request_is_told_when_to_come_again() {
    let mut source = HttpSource::new("web", Options::new(None, 1_000));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    tokio::spawn(listener.serve(source.router(), CancellationToken::new(), Duration::ZERO));
    let mut client = post(address, 0).await;
    let batch = source.next(ROOMY).await.unwrap().unwrap();
    source.refuse(batch.ack, Duration::from_secs(3)).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 3\r\n"), "{answer}");
}

#[tokio::test]
async fn lines_of_a_file_are_as_old_as_the_file_and_their_times_rise() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(five().as_bytes()).unwrap();
    let changed = Time::parse("2026-03-01T12:00:00Z").unwrap();
    file.as_file().set_modified(changed.timestamp().into()).unwrap();
    // Each start reads it again, and says the same.
    for _ in 0..2 {
        let mut source = FileSource::open("events", file.path(), EVENT_BYTES).unwrap();
        let batch = source.next(ROOMY).await.unwrap().unwrap();
        let times: Vec<Time> = batch.messages.iter().map(|m| m.time.unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a < b) && times.iter().all(|t| *t <= changed), "{times:?}");
        assert!(changed.since(times[0]) < Duration::from_secs(1));
    }
}
