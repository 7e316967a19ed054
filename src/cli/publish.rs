//! Sends events to a worker, or to a broker that workers read.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::output::tell;
use super::{Failure, Outcome};

mod encode;
mod forward;
mod input;
mod kafka;
mod post;
mod sqs;

use encode::Mode;
use forward::Forwarder;
use input::{Item, Read};
use post::Poster;

/// Sends CloudEvents to a worker, a Kafka topic or an SQS queue
#[derive(clap::Args)]
pub struct Args {
    /// JSON (one event or an array) or NDJSON, one event a line; `-` or nothing: stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where a worker takes events, kafka://HOST:PORT[,HOST:PORT]/TOPIC, or a queue: sqs://NAME or its URL at AWS; default:
    /// at the configuration's http.listen, with its http.token
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// To Kafka: a setting of librdkafka, such as sasl.username; ${NAME} and ${file:PATH} in it are filled in. Without any,
    /// those of the configuration's source with that broker apply, if there is one
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// To Kafka: attributes as headers and only the data as value (binary mode), instead of the event as it is
    #[arg(long)]
    binary: bool,
    /// File with the worker's http.token (or set OWLPOST_TOKEN, which wins over the configuration's)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Send also what this program thinks is wrong; the worker decides
    #[arg(long)]
    no_validate: bool,
    /// The sum as JSON
    #[arg(long)]
    json: bool,
}

/// One request: the worker commits it as one batch, and a rejected request is sent again as a whole.
const BATCH_EVENTS: usize = 500;
/// Far below the worker's default `http.body_max_bytes` (8 MiB); one larger event goes alone.
const BATCH_BYTES: usize = 1024 * 1024;
/// Events read ahead while a request is on its way; with those of a request some MiB at most.
const READ_AHEAD: usize = 64;
/// How long a batch waits for more: longer than a disk takes for the next line, and nobody notices it.
const LINGER: Duration = Duration::from_millis(20);
/// Rejections that are listed one by one; the others are only counted.
const LISTED_MAX: usize = 1_000;
/// What to do after a failure.
const AGAIN: &str = "publishing all of it again is safe for events with an id; notifications without one that were accepted \
                     would count again";

/// What became of all that was read.
#[derive(Default)]
pub(super) struct Sum {
    /// Those beyond their `expirytime` (`dropped`) among them.
    pub accepted: u64,
    pub duplicates: u64,
    pub dropped: u64,
    pub rejected: u64,
    listed: Vec<Rejection>,
}

struct Rejection {
    file: String,
    line: u64,
    /// Place in the file, from 0.
    index: u64,
    reason: String,
}

impl Sum {
    fn reject(&mut self, item: &Item, reason: String) {
        self.rejected += 1;
        if self.listed.len() < LISTED_MAX {
            let file = item.file.to_string();
            self.listed.push(Rejection { file, line: item.line, index: item.index, reason });
        }
    }

    fn json(&self) -> Value {
        let listed: Vec<Value> = self
            .listed
            .iter()
            .map(|r| json!({ "file": r.file, "line": r.line, "index": r.index, "reason": r.reason }))
            .collect();
        json!({
            "accepted": self.accepted, "duplicates": self.duplicates, "dropped": self.dropped,
            "rejected": listed, "rejected_total": self.rejected,
        })
    }

    fn text(&self) -> String {
        let mut text: String = self
            .listed
            .iter()
            .map(|r| format!("{} line {} (event {}): rejected: {}\n", r.file, r.line, r.index, r.reason))
            .collect();
        let unlisted = self.rejected - self.listed.len() as u64;
        if unlisted > 0 {
            text += &format!("and {unlisted} more\n");
        }
        text += &format!("{} accepted", self.accepted);
        if self.dropped > 0 {
            text += &format!(" ({} of them beyond their expirytime)", self.dropped);
        }
        text + &format!(", {} duplicates, {} rejected\n", self.duplicates, self.rejected)
    }
}

/// A file is read on a thread of its own and posted from here, in its order.
///
/// # Errors
/// Usage: a URL that can't be used. Failed: a file, the worker, or the answer; what was sent before it is summed up.
pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("can't start: {e}")))?;
    let mut target = {
        let _inside = runtime.enter();
        target(&args, config)?
    };
    let inputs = input::check(&args.files)?;
    let bar = progress(inputs.bytes);
    let mut sum = Sum::default();
    let outcome = runtime.block_on(async {
        let (to, items) = mpsc::channel(READ_AHEAD);
        let validates = !args.no_validate;
        // Detached: it may be waiting for a terminal when posting has failed.
        std::thread::spawn(move || input::read(inputs.paths, validates, &to));
        publish(items, &mut target, &mut sum, &bar).await
    });
    // Anything else would wait for what a terminal has not said yet.
    runtime.shutdown_background();
    // Outside the runtime: a client of Kafka is waited for, whose threads must not outlive `main`.
    drop(target);
    bar.finish_and_clear();
    let told = if args.json { format!("{}\n", sum.json()) } else { sum.text() };
    let told = tell(&told);
    outcome?;
    told?;
    Ok(ExitCode::from(u8::from(sum.rejected > 0)))
}

/// What `publish --no-validate --to URL FILE` does.
///
/// # Errors
/// As [`run`].
pub(super) async fn feed(to: &str, file: PathBuf) -> Result<Sum, Failure> {
    let mut target = Target::Worker(Poster::new(post::target(to)?, None)?);
    let mut sum = Sum::default();
    let (sender, items) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || input::read(vec![file], false, &sender));
    publish(items, &mut target, &mut sum, &ProgressBar::hidden()).await?;
    Ok(sum)
}

/// Where events go.
enum Target {
    Worker(Poster),
    Broker(Forwarder),
}

impl Target {
    async fn post(&mut self, items: Vec<Item>, sum: &mut Sum) -> Result<(), Failure> {
        match self {
            Target::Worker(poster) => poster.post(items, sum).await,
            Target::Broker(forwarder) => forwarder.post(items, sum).await,
        }
    }
}

fn target(args: &Args, config: &[PathBuf]) -> Result<Target, Failure> {
    if let Some(to) = args.to.as_ref().filter(|to| to.starts_with("kafka://")) {
        if args.token_file.is_some() {
            return Err(Failure::usage("--token-file: a token is a worker's; to Kafka, --property signs in"));
        }
        let outlet = kafka::outlet(to, &args.properties, config)?;
        let mode = if args.binary { Mode::Binary } else { Mode::Structured };
        return Ok(Target::Broker(Forwarder::new(Arc::new(outlet), mode)));
    }
    if let Some(to) = args.to.as_ref().filter(|to| sqs::is_queue(to) && !args.binary && args.properties.is_empty()) {
        if args.token_file.is_some() {
            return Err(Failure::usage("--token-file: a token is a worker's; to SQS, the AWS identity signs in"));
        }
        return Ok(Target::Broker(Forwarder::new(Arc::new(sqs::outlet(to)?), Mode::Structured)));
    }
    if args.binary || !args.properties.is_empty() {
        return Err(Failure::usage("--binary and --property are for --to kafka://HOST:PORT/TOPIC"));
    }
    let (url, configured) = match &args.to {
        // The configuration's token is for its own worker, so there is nothing to read there.
        Some(to) => (post::target(to)?, None),
        None => {
            let config = super::load(config)?;
            (post::target(&post::at_listener(&config.http.listen)?)?, config.http.token.map(|token| token.0))
        }
    };
    let token = token(args.token_file.as_ref())?.or(configured);
    Ok(Target::Worker(Poster::new(url, token.as_deref())?))
}

/// Posts batch after batch until the input is at its end.
async fn publish(
    mut items: mpsc::Receiver<Read>,
    target: &mut Target,
    sum: &mut Sum,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut batch: Vec<Item> = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    loop {
        // Somebody who types, or a slow pipe: what is there goes out before more is waited for.
        let read = match tokio::time::timeout(LINGER, items.recv()).await {
            Ok(read) => read,
            Err(_) => {
                target.post(std::mem::take(&mut batch), sum).await?;
                (events, bytes) = (0, 0);
                items.recv().await
            }
        };
        match read {
            None => return target.post(batch, sum).await,
            Some(Read::Failed(why)) => {
                target.post(batch, sum).await?;
                return Err(Failure::failed(why));
            }
            Some(Read::Invalid(item, why)) => {
                bar.inc(item.body.len() as u64 + 1);
                sum.reject(&item, why);
            }
            Some(Read::Item(item)) => {
                bar.inc(item.body.len() as u64 + 1);
                // A notification counts with its rows, so that no request has more events than a worker takes.
                let rows = item.events.unwrap_or(1);
                if events + rows > BATCH_EVENTS || bytes + item.body.len() > BATCH_BYTES {
                    target.post(std::mem::take(&mut batch), sum).await?;
                    (events, bytes) = (0, 0);
                }
                (events, bytes) = (events + rows, bytes + item.body.len());
                batch.push(item);
            }
        }
    }
}

fn token(file: Option<&PathBuf>) -> Result<Option<String>, Failure> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| Failure::failed(format!("--token-file {}: {e}", path.display())))?,
        None => std::env::var("OWLPOST_TOKEN").unwrap_or_default(),
    };
    let token = text.trim();
    if file.is_some() && token.is_empty() {
        return Err(Failure::failed("--token-file: the file is empty"));
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

/// On stderr, and only on a terminal.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let (bar, look) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {bytes}/{total_bytes}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {elapsed}"),
    };
    match ProgressStyle::with_template(look) {
        Ok(style) => bar.with_style(style),
        // The templates are constants, and the tests draw them.
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_can_be_drawn() {
        for look in ["{bar:30} {bytes}/{total_bytes}  {eta} left", "{spinner} {bytes}  {elapsed}"] {
            assert!(ProgressStyle::with_template(look).is_ok());
        }
    }
}
