//! People, roles and groups in a file: TOML, JSON or CSV, by its ending. `config/people.example.toml` shows one.
//!
//! TOML, and JSON with the same names:
//! ```toml
//! [[people]]
//! principal = "user.alice"        # required
//! address = "alice@example.com"   # the other three are optional
//! zone = "Europe/Berlin"          # IANA time zone; `time_zone` means the same
//! language = "en"                 # BCP 47
//!
//! [members]                       # roles and groups; members are principals, roles or groups
//! "sports:role.admin" = ["user.alice", "sports:group.leads"]
//! "sports:group.leads" = ["user.joe"]
//! ```
//! CSV (RFC 4180, UTF-8) has a header with `principal` and any of `address`, `zone` (or `time_zone`), `language`,
//! `members`. A row whose principal is a role or group names members, separated by spaces, semicolons or (in a quoted cell)
//! commas; all other rows are people. Rows of the same collection add up.
//! ```csv
//! principal,address,zone,language,members
//! user.alice,alice@example.com,Europe/Berlin,en,
//! sports:role.admin,,,,user.alice sports:group.leads
//! ```
//! A file that can't be read as such (not UTF-8, bad syntax, an unknown key, a number where a text belongs) is refused as
//! a whole. A single value that can't be what it should be (an address without `@`, an unknown time zone) is left out and
//! reported, so that one typo costs nobody else anything.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::people::People;
use super::{Audience, Directory, DirectoryError};

mod csv;
mod document;

/// 64 MiB: half a million people. The whole file is held in memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How old the last look at the file may be, however patient the caller is.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How long a file must have been left alone before its new content counts.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Toml,
    Json,
    Csv,
}

/// What tells one content of the file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    #[cfg(unix)]
    inode: u64,
}

/// A directory that follows its file. When it is asked and has not looked for a second (or for `max_age`, if that is
/// less), it looks whether the file changed. A new content that can't be read is logged once, and the old one stays.
///
/// What is still being written may look complete, so a new content counts only once the file has been left alone for a
/// second, and an empty file never does. Replacing it by renaming a new one over it is better still.
pub struct FileDirectory {
    path: PathBuf,
    format: Format,
    now: Mutex<Arc<People>>,
    watch: tokio::sync::Mutex<Watch>,
    /// Looks begun so far.
    looks: AtomicU64,
}

struct Watch {
    /// The content that was last read, be it good or bad; `None`: the file could not be read at all.
    stamp: Option<Stamp>,
    /// When the last look began; `None`: never since the start.
    looked_at: Option<Instant>,
    /// A content that was not settled yet, and when it was first seen.
    moving: Option<(Stamp, Instant)>,
    /// What was logged last, so that it is said once.
    problem: Option<String>,
}

/// When a content counts that is not the known one.
#[derive(Clone, Copy)]
enum Settled {
    /// At the start: there is nothing older that could count.
    Always,
    /// Once its last change is [`SETTLED_AFTER`] ago by the clock of this machine, or if it is this one, which was seen
    /// that long ago.
    Or(Option<Stamp>),
}

/// One look at the file.
enum Look {
    Same,
    New(Stamp, Box<People>),
    /// Still being written; look again.
    Moving(Stamp),
    Bad(Option<Stamp>, String),
}

impl FileDirectory {
    /// Reads the file. The error says what is wrong, with line and column, and what was expected.
    pub fn open(path: impl Into<PathBuf>) -> Result<FileDirectory, DirectoryError> {
        let path = path.into();
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            _ => {
                let what = "unknown kind of file; its name must end in .toml, .json or .csv";
                return Err(DirectoryError(format!("{}: {what}", path.display())));
            }
        };
        match look(&path, format, None, Settled::Always) {
            Look::New(stamp, people) => {
                report(&path, &people);
                let watch = Watch { stamp: Some(stamp), looked_at: None, moving: None, problem: None };
                Ok(FileDirectory {
                    path,
                    format,
                    now: Mutex::new(Arc::new(*people)),
                    watch: tokio::sync::Mutex::new(watch),
                    looks: AtomicU64::new(0),
                })
            }
            Look::Bad(_, problem) => Err(DirectoryError(problem)),
            Look::Same | Look::Moving(_) => {
                Err(DirectoryError(format!("{}: is being written right now; try again", path.display())))
            }
        }
    }

    /// What was left out of the content that counts now, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.people().findings()
    }

    fn people(&self) -> Arc<People> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the file unless somebody did so recently enough.
    async fn refresh(&self, max_age: Duration) {
        let looks_before = self.looks.load(Ordering::SeqCst);
        let mut watch = self.watch.lock().await;
        // A look that began while this call waited for the lock is fresh for anybody.
        if self.looks.load(Ordering::SeqCst) > looks_before && watch.looked_at.is_some() {
            return;
        }
        let looking_at = Instant::now();
        if watch.looked_at.is_some_and(|at| looking_at.duration_since(at) < CHECK_EVERY.min(max_age)) {
            return;
        }
        self.looks.fetch_add(1, Ordering::SeqCst);
        let (path, format, stamp) = (self.path.clone(), self.format, watch.stamp);
        let seen = watch.moving.filter(|(_, since)| looking_at.duration_since(*since) >= SETTLED_AFTER);
        let settled = Settled::Or(seen.map(|(stamp, _)| stamp));
        let found = match tokio::task::spawn_blocking(move || look(&path, format, stamp, settled)).await {
            Ok(found) => found,
            Err(_) => Look::Bad(stamp, format!("{}: reading it was interrupted", self.path.display())),
        };
        watch.looked_at = Some(looking_at);
        match found {
            Look::Same => {}
            Look::Moving(stamp) if watch.moving.is_some_and(|(known, _)| known == stamp) => {}
            Look::Moving(stamp) => watch.moving = Some((stamp, looking_at)),
            Look::New(stamp, people) => {
                report(&self.path, &people);
                tracing::info!(file = %self.path.display(), "the directory was read again");
                *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(*people);
                watch.stamp = Some(stamp);
                watch.problem = None;
            }
            Look::Bad(stamp, problem) => {
                watch.stamp = stamp;
                if watch.problem.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "the directory's file is broken; what it said before still counts");
                    watch.problem = Some(problem);
                }
            }
        }
    }
}

#[async_trait]
impl Directory for FileDirectory {
    async fn resolve(&self, who: &[String], max_age: Duration) -> Result<Vec<Audience>, DirectoryError> {
        self.refresh(max_age).await;
        let people = self.people();
        Ok(who.iter().map(|reference| people.audience(reference)).collect())
    }
}

fn report(path: &Path, people: &People) {
    let findings = people.findings();
    if !findings.is_empty() {
        let problems = findings.join("; ");
        tracing::warn!(file = %path.display(), %problems, "some values of the directory were left out");
    }
}

fn look(path: &Path, format: Format, known: Option<Stamp>, settled: Settled) -> Look {
    match read(path, known) {
        Ok(None) => Look::Same,
        Ok(Some((before, after, _))) if before != after || !settled.counts(&after) => Look::Moving(after),
        Ok(Some((stamp, _, bytes))) => match parse(format, &bytes) {
            Ok(people) => Look::New(stamp, Box::new(people)),
            Err(problem) => Look::Bad(Some(stamp), format!("{} {problem}", path.display())),
        },
        Err((stamp, problem)) => Look::Bad(stamp, format!("{}: {problem}", path.display())),
    }
}

impl Settled {
    fn counts(self, stamp: &Stamp) -> bool {
        match self {
            Settled::Always => true,
            Settled::Or(seen) => {
                seen.as_ref() == Some(stamp) || stamp.modified.elapsed().is_ok_and(|age| age >= SETTLED_AFTER)
            }
        }
    }
}

/// The content, with what the file looked like before and after it was read. `None`: it is the known one.
#[expect(clippy::type_complexity)]
fn read(path: &Path, known: Option<Stamp>) -> Result<Option<(Stamp, Stamp, Vec<u8>)>, (Option<Stamp>, String)> {
    let plain = |error: std::io::Error| (None, error.to_string());
    let before = stamp(path).map_err(plain)?;
    if known == Some(before) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(plain)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err((
            Some(before),
            format!("is larger than {} MiB; split it over several directories", FILE_BYTES_MAX >> 20),
        ));
    }
    Ok(Some((before, stamp(path).map_err(plain)?, bytes)))
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    // A named pipe would block for ever, and each read of it would be the last.
    if !meta.is_file() {
        return Err(std::io::Error::other("is not a regular file"));
    }
    Ok(Stamp {
        modified: meta.modified()?,
        bytes: meta.len(),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(&meta),
    })
}

/// The error begins with the place: `line 3, column 5: `.
fn parse(format: Format, bytes: &[u8]) -> Result<People, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        format!("{}: not UTF-8; save the file as UTF-8", place(&String::from_utf8_lossy(good), usize::MAX))
    })?;
    // Spreadsheets begin a UTF-8 file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        // The others have no form without a word.
        Format::Toml if text.trim().is_empty() => {
            Err("line 1: is empty; a directory without anybody would leave all mail undelivered".into())
        }
        Format::Toml => document::from_toml(text),
        Format::Json => document::from_json(text),
        Format::Csv => csv::read(text),
    }
}

/// `line 3, column 5` of a byte in a text; lines count from 1, columns in characters from 1.
fn place(text: &str, byte: usize) -> String {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = text.get(..byte).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    format!("line {line}, column {}", before.get(line_start..).unwrap_or_default().chars().count() + 1)
}
