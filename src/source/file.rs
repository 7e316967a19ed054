//! Events from a file or stdin: NDJSON, one message a line. A file is read to its end once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::{Receipt, Time};
use crate::source::{Ack, Batch, Health, Message, Room, Source, SourceError, TRUNCATED};

mod lines;

use lines::{Line, Lines, Share};

/// Chunks of a pipe that wait for the loop: two keep its reader and the loop busy, more is only memory.
const CHUNKS: usize = 2;
/// What one chunk of a pipe holds at most; two chunks and the lines at hand stay within some MiB.
const CHUNK: Share = Share { lines: 1_000, bytes: 1024 * 1024, only_there: true };

type Chunk = io::Result<Vec<Line>>;

/// The source of kind `file`.
pub struct FileSource {
    name: String,
    /// How its lines are named: the file's last component, or `stdin`.
    file_name: String,
    input: Input,
    /// When the file was last changed, and its length then. `None`: a pipe.
    written: Option<(Time, u64)>,
    /// Read, and not yet given out.
    ready: VecDeque<Line>,
    /// Refused, to be given out again before anything new.
    again: VecDeque<Line>,
    not_before: Option<Instant>,
    /// Given out and not settled, in order. As large as the loop's room: its lines are needed again if it refuses them.
    out: VecDeque<(u64, Vec<Line>)>,
    next_batch: u64,
    down: Option<String>,
}

enum Input {
    /// A file never makes wait for long: each read is a task of the blocking pool.
    File(Lines<File>),
    /// The task that has the file. Kept here, so that a dropped [`FileSource::next`] loses nothing.
    Reading(JoinHandle<(Lines<File>, Chunk)>),
    /// A pipe or terminal may make wait for ever, and nothing can interrupt that read: it has a thread of its own, which
    /// does not hold up the process's end.
    Pipe(mpsc::Receiver<Chunk>),
    Ended,
}

impl FileSource {
    /// `path`: a file, a named pipe, or `-` for stdin. `event_bytes`: a longer line is handed on cut, see [`TRUNCATED`].
    ///
    /// # Errors
    /// [`SourceError::Fatal`]: missing, a folder, or not readable; it says which and what to do.
    pub fn open(name: &str, path: &Path, event_bytes: usize) -> Result<FileSource, SourceError> {
        if path.as_os_str() == "-" {
            return FileSource::pipe(name, "stdin", event_bytes, || Ok(Box::new(io::stdin()) as Box<dyn Read>));
        }
        let fatal = |why: String| SourceError::Fatal(format!("source {name}: {}: {why}", path.display()));
        let why = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                fatal("no such file; check path, which is relative to the working folder".into())
            }
            io::ErrorKind::PermissionDenied => fatal("not readable for this user".into()),
            _ => fatal(e.to_string()),
        };
        let metadata = std::fs::metadata(path).map_err(why)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(fatal("is a folder; name a file, one event a line".into()));
        }
        let file_name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        if kind.is_file() {
            let file = File::open(path).map_err(why)?;
            let mut source = FileSource::with(name, &file_name, Input::File(Lines::new(file, event_bytes)));
            source.written = metadata.modified().ok().map(|at| (moment(at), metadata.len()));
            return Ok(source);
        }
        // Opening a named pipe waits for its writer, so the thread does it.
        let path = path.to_owned();
        FileSource::pipe(name, &file_name, event_bytes, move || Ok(Box::new(File::open(path)?) as Box<dyn Read>))
    }

    /// Anything that can be read. `open` runs on the thread that reads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn pipe(
        name: &str,
        file_name: &str,
        event_bytes: usize,
        open: impl FnOnce() -> io::Result<Box<dyn Read>> + Send + 'static,
    ) -> Result<FileSource, SourceError> {
        let (to, chunks) = mpsc::channel(CHUNKS);
        std::thread::Builder::new()
            .name(format!("source {name}"))
            .spawn(move || match open() {
                Ok(input) => pump(Lines::new(input, event_bytes), &to),
                // Nobody is there to hear it if the source is gone.
                Err(e) => drop(to.blocking_send(Err(e))),
            })
            .map_err(|e| SourceError::Fatal(format!("source {name}: no thread to read {file_name}: {e}")))?;
        Ok(FileSource::with(name, file_name, Input::Pipe(chunks)))
    }

    fn with(name: &str, file_name: &str, input: Input) -> FileSource {
        FileSource {
            name: name.to_owned(),
            file_name: file_name.to_owned(),
            input,
            written: None,
            ready: VecDeque::new(),
            again: VecDeque::new(),
            not_before: None,
            out: VecDeque::new(),
            next_batch: 0,
            down: None,
        }
    }

    /// Fills `ready`. `false`: the input is at its end. Cancel-safe: what is awaited stays in `self.input`.
    async fn fill(&mut self, room: Room) -> io::Result<bool> {
        let share = Share { lines: room.messages, bytes: room.bytes, only_there: false };
        if matches!(self.input, Input::File(_))
            && let Input::File(mut lines) = std::mem::replace(&mut self.input, Input::Ended)
        {
            self.input = Input::Reading(tokio::task::spawn_blocking(move || {
                let chunk = lines.read(share);
                (lines, chunk)
            }));
        }
        let chunk = match &mut self.input {
            Input::Reading(task) => {
                let (lines, chunk) = task.await.map_err(io::Error::other)?;
                let at = lines.number();
                self.input = Input::File(lines);
                chunk.map_err(|e| io::Error::new(e.kind(), format!("after line {at}: {e}")))?
            }
            // A closed channel: the thread has read to the end.
            Input::Pipe(chunks) => chunks.recv().await.unwrap_or_else(|| Ok(Vec::new()))?,
            Input::File(_) | Input::Ended => Vec::new(),
        };
        if chunk.is_empty() {
            self.input = Input::Ended;
            return Ok(false);
        }
        self.ready.extend(chunk);
        Ok(true)
    }

    /// As many lines as there is room for; at least one, since a line above the room must go as well.
    fn give(&mut self, room: Room) -> Option<Batch> {
        let from = if self.again.is_empty() { &mut self.ready } else { &mut self.again };
        let mut lines: Vec<Line> = Vec::new();
        let mut bytes = 0usize;
        while let Some(first) = from.front() {
            bytes = bytes.saturating_add(first.body.len());
            if !lines.is_empty() && (lines.len() >= room.messages || bytes > room.bytes) {
                break;
            }
            lines.extend(from.pop_front());
        }
        if lines.is_empty() {
            return None;
        }
        let messages = lines.iter().map(|line| message(&self.name, &self.file_name, self.written, line)).collect();
        let ack = Ack { batch: self.next_batch, epoch: 0 };
        self.next_batch += 1;
        self.out.push_back((ack.batch, lines));
        Some(Batch { messages, ack })
    }

    fn settled(&mut self, ack: Ack) -> Option<Vec<Line>> {
        let at = self.out.iter().position(|(batch, _)| *batch == ack.batch)?;
        self.out.remove(at).map(|(_, lines)| lines)
    }
}

/// Reads a pipe until its end, an error, or until nobody listens any more.
fn pump(mut lines: Lines<Box<dyn Read>>, to: &mpsc::Sender<Chunk>) {
    loop {
        let chunk = lines.read(CHUNK);
        let last = chunk.as_ref().map_or(true, Vec::is_empty);
        if to.blocking_send(chunk).is_err() || last {
            return;
        }
    }
}

/// A file is read from its beginning at each start. The time of its lines (of those without one of their own) is when it
/// was last changed, so that once their keys are purged they are too old, and not new. It rises line by line: a
/// microsecond a byte.
fn message(name: &str, file_name: &str, written: Option<(Time, u64)>, line: &Line) -> Message {
    let micros = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let time =
        |(at, length): (Time, u64)| Time(at.0.saturating_sub(micros(length)).saturating_add(micros(line.offset)));
    let mut broker_id = format!("{name}:{}:", line.offset);
    push_hex(&mut broker_id, &line.hash);
    let headers = line.cut.map_or_else(Vec::new, |cut| {
        let mut value = format!("{};", cut.bytes);
        push_hex(&mut value, &cut.sha256);
        vec![(TRUNCATED.to_owned(), value)]
    });
    Message {
        position: format!("{file_name} line {} (byte {})", line.number, line.offset),
        broker_id: Some(broker_id),
        headers,
        body: line.body.clone(),
        time: written.map(time),
    }
}

fn moment(at: SystemTime) -> Time {
    Time(0).plus(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    text.extend(
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|half| char::from(b"0123456789abcdef"[usize::from(half)])),
    );
}

#[async_trait]
impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    /// At the end of its file it waits until what is out is settled, since a refused batch comes again; then `None`.
    async fn next(&mut self, room: Room) -> Result<Option<Batch>, SourceError> {
        loop {
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            if let Some(batch) = self.give(room) {
                return Ok(Some(batch));
            }
            match self.fill(room).await {
                Ok(true) => {}
                Ok(false) if self.out.is_empty() => return Ok(None),
                // The loop drops this call when it has a batch to settle.
                Ok(false) => std::future::pending::<()>().await,
                Err(e) => {
                    self.input = Input::Ended;
                    let why = format!("source {}: reading {} failed: {e}", self.name, self.file_name);
                    self.down = Some(why.clone());
                    return Err(SourceError::Fatal(why));
                }
            }
        }
    }

    /// A file has nobody to tell: the lines are only forgotten.
    async fn ack(&mut self, ack: Ack, _receipts: &[Vec<Receipt>]) {
        self.settled(ack);
    }

    async fn refuse(&mut self, ack: Ack, retry_in: Duration) {
        if let Some(lines) = self.settled(ack) {
            // In its place: of what is refused for the second time, what came after it may wait here already.
            let first = lines.first().map_or(u64::MAX, |line| line.offset);
            let later = self.again.split_off(self.again.partition_point(|line| line.offset < first));
            self.again.extend(lines.into_iter().chain(later));
            self.not_before = Some(Instant::now() + retry_in);
        }
    }

    /// What was read and not given out is read again by the next start.
    async fn stop(&mut self, _by: Instant) {
        self.input = Input::Ended;
        self.ready.clear();
        self.again.clear();
        self.not_before = None;
        // Nobody gives them out again.
        self.out.clear();
    }

    fn health(&self) -> Health {
        let given = self.ready.is_empty() && self.again.is_empty() && self.out.is_empty();
        match &self.down {
            Some(why) => Health::Down(why.clone()),
            None if given && matches!(self.input, Input::Ended) => Health::Ended,
            None => Health::Ready,
        }
    }
}
