//! Mails into a folder: `<digest>.<attempt>.eml` and `.html`, for trials, tests and the demo.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Account, Finding, Mailer, MessageId, SendError, mime};
use crate::model::{AttemptId, Email};

/// Writes beside and renames: a reader sees whole mails only. The same attempt again writes the same files.
pub struct OutboxMailer {
    dir: PathBuf,
}

impl OutboxMailer {
    /// The folder is made with the first mail.
    pub fn new(dir: impl Into<PathBuf>) -> OutboxMailer {
        OutboxMailer { dir: dir.into() }
    }
}

#[async_trait]
impl Mailer for OutboxMailer {
    fn kind(&self) -> &'static str {
        "outbox"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: tokio::time::Instant) -> Result<MessageId, SendError> {
        mime::in_time(by)?;
        let message = mime::message(mail, tag)?;
        let (dir, html) = (self.dir.clone(), mail.html.clone());
        // Disk work off the runtime's threads. If the caller gives up waiting, the write still ends: that is the doubt
        // which the caller records.
        tokio::task::spawn_blocking(move || deliver(&dir, &tag.to_string(), &message, html.as_bytes()))
            .await
            .map_err(|_| SendError::Ambiguous("writing the mail broke off".into()))??;
        Ok(mime::message_id(mail, tag))
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        Ok(None)
    }

    async fn probe(&self) -> Vec<Finding> {
        let dir = self.dir.clone();
        let tried = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&dir)?;
            let path = dir.join(format!(".probe-{}", std::process::id()));
            File::create(&path)?.sync_all()?;
            fs::remove_file(&path)
        });
        let result = tried.await.unwrap_or_else(|_| Err(io::Error::other("the try broke off")));
        let dir = self.dir.display();
        vec![match result {
            Ok(()) => Finding { ok: true, what: format!("outbox: {dir} can be written") },
            Err(e) => Finding { ok: false, what: words(&self.dir, &e) },
        }]
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}

/// The page first, the mail last: where the `.eml` is, the mail is complete. Everything before its rename leaves no mail.
fn deliver(dir: &Path, name: &str, message: &[u8], html: &[u8]) -> Result<(), SendError> {
    let not_sent = |e: io::Error| not_sent(dir, &e);
    fs::create_dir_all(dir).map_err(not_sent)?;
    write(dir, &format!("{name}.html"), html).map_err(not_sent)?;
    write(dir, &format!("{name}.eml"), message).map_err(not_sent)?;
    // The mail is there; whether it would survive a power cut is what nobody knows if this fails.
    sync_dir(dir).map_err(|e| SendError::Ambiguous(words(dir, &e)))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // A dot in front: listings and readers of the folder pass over it.
    let beside = dir.join(format!(".{name}.part"));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, dir.join(name))
    });
    if written.is_err() {
        // On a full disk the half file takes the room the next try needs. What is not there need not be removed.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What is wrong with the folder itself is wrong for every mail until somebody acts: it burns no mail's attempts.
fn not_sent(dir: &Path, error: &io::Error) -> SendError {
    use io::ErrorKind::{
        AlreadyExists, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        NotADirectory | AlreadyExists | PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded => {
            SendError::Halted(words(dir, error))
        }
        _ => SendError::Retryable(words(dir, error)),
    }
}

fn words(dir: &Path, error: &io::Error) -> String {
    let todo = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "make it writable for this user, or set mailer.dir to a folder that is"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "it must be a folder: set mailer.dir to one",
        _ => "check that folder, or set mailer.dir to another",
    };
    format!("outbox: can't write into {}: {error}; {todo}", dir.display())
}
