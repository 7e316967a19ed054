//! The SMTP server of the tests as a child process.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process::until;

#[path = "certificates.rs"]
mod certificates;

#[allow(unused_imports, reason = "each test file uses its part")]
pub use certificates::{Certificates, certificates};

/// Python with the packages of `tests/servers/requirements.txt`, as `tests/run` sets it up.
pub fn python() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let python = target.join("servers/venv/bin/python");
    assert!(python.exists(), "{} is missing; tests/run sets it up: tests/run smtp", python.display());
    python
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub struct Sink {
    folder: tempfile::TempDir,
    child: Child,
    ports: serde_json::Value,
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sink {
    pub fn start(args: &[&str], tls: Option<&Certificates>) -> Sink {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python());
        command.arg(root().join("tests/servers/smtp_sink.py")).arg(folder.path()).args(args);
        if let Some(tls) = tls {
            command.arg("--cert").arg(&tls.cert).arg("--key").arg(&tls.key);
        }
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let ports = until("the SMTP server", || {
            assert!(child.try_wait().unwrap().is_none(), "the SMTP server ended");
            serde_json::from_slice(&fs::read(folder.path().join("ports.json")).ok()?).ok()
        });
        Sink { folder, child, ports }
    }

    pub fn port(&self, name: &str) -> u16 {
        u16::try_from(self.ports[name].as_u64().unwrap()).unwrap()
    }

    /// What it has taken so far.
    pub fn mails(&self) -> Vec<serde_json::Value> {
        read_lines(&self.folder.path().join("mails.jsonl"))
    }
}

fn read_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A line that is being written is not there yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
