//! The real binary as a child process: started, asked over HTTP, killed. Waits are bounded polls of something real.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything: far more than a loaded machine needs, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `look` gives something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let by = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < by, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A run of the binary in `folder`; its log is a file there. Killed when dropped.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

/// `owlpost` with nothing of this process's environment that it reads.
pub fn owlpost(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OWLPOST_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

impl Worker {
    /// `owlpost run ARGS`; the log goes to `folder/log` (a new file each time).
    pub fn start(folder: &Path, args: &[&str]) -> Worker {
        let mut command = owlpost(folder);
        command.arg("run").args(args);
        Worker::spawn(folder, command)
    }

    pub fn spawn(folder: &Path, mut command: Command) -> Worker {
        let log = folder.join("log");
        let _ = fs::remove_file(&log);
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Worker { child, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for the line "ready" of the JSON log; gives the address it names.
    pub fn address(&mut self) -> String {
        until("the worker's address", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the worker ended with {status}: {}", self.log());
            }
            let log = self.log();
            let (_, rest) = log.split_once("\"listen\":\"")?;
            rest.split_once('"').map(|(address, _)| address.to_owned())
        })
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let told = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the worker's end", || self.child.try_wait().unwrap())
    }

    /// Runs to its end; the log of a run that ends otherwise is in the message.
    pub fn ends_with(mut self, code: i32) -> String {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{}", self.log());
        self.log()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own: (status, body).
pub fn http(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no status line"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

pub fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    http(address, "GET", path, "", b"")
}

/// A batch of CloudEvents: true once it was acknowledged.
pub fn post(address: &str, events: &[String]) -> bool {
    let body = format!("[{}]", events.join(","));
    let headers = "content-type: application/cloudevents-batch+json\r\n";
    matches!(http(address, "POST", "/v1/events", headers, body.as_bytes()), Ok((202, _)))
}

/// Random numbers that replay: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
