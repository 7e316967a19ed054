//! A server on the JVM as a child process: jars that `tests/run` has fetched, ports of this machine alone, readiness
//! by a line of its log, and nothing left behind however the test ends.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

#[path = "ports.rs"]
mod ports;

pub use ports::{free_ports, unique};

/// Where `tests/run` keeps the jars of `name`.
pub fn jars(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let libs = target.join("servers").join(name).join("libs");
    assert!(libs.is_dir(), "{} is missing; tests/run fetches it: tests/run brokers", libs.display());
    libs
}

/// A JVM and its folder; both are gone when this is dropped, or when the process that owns it has ended in any way.
pub struct Server {
    folder: PathBuf,
    jars: PathBuf,
    args: Vec<String>,
    ready: &'static str,
    running: Mutex<Option<Child>>,
    guard: Option<Child>,
}

/// Its reader sees the end of its input when the owner has ended, be it by SIGKILL: then it cleans up. Signals to the
/// whole process group (Ctrl-C) are for the others. A killed JVM may write for a moment longer.
const GUARD: &str = r#"trap '' INT TERM HUP
read -r _
pid=$(cat "$0/pid" 2>/dev/null) && kill -9 "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$0" 2>/dev/null
    [ -e "$0" ] || { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; } || break
    sleep 0.1
done"#;

impl Server {
    /// In `folder`, which becomes the server's own; started by [`Server::start`], ready when its log says `ready`.
    pub fn new(folder: PathBuf, jars: PathBuf, args: &[&str], ready: &'static str) -> Server {
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is installed");
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Server { folder, jars, args, ready, running: Mutex::new(None), guard: Some(guard) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `java` with the server's jars; small, and quick to start.
    pub fn java(&self) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            // Its own folder too, for a class of the test's.
            .arg(format!("{}:.", self.jars.join("*").display()))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Starts it (again) and waits until it is ready.
    ///
    /// # Errors
    /// It has ended instead: the end of its log.
    pub fn start(&self) -> Result<(), String> {
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(running.is_none(), "it runs already");
        let log = self.log_path();
        let file = File::create(&log).unwrap();
        let mut command = self.java();
        command.args(&self.args).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().expect("java is installed");
        fs::write(self.folder.join("pid"), child.id().to_string()).unwrap();
        let by = std::time::Instant::now() + crate::process::PATIENCE;
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(self.ready) {
                *running = Some(child);
                return Ok(());
            }
            let ended = child.try_wait().unwrap();
            if ended.is_some() || std::time::Instant::now() > by {
                let _ = child.kill();
                let _ = child.wait();
                fs::remove_file(self.folder.join("pid")).unwrap();
                let how =
                    ended.map_or_else(|| "was not ready in time".to_owned(), |status| format!("ended ({status})"));
                return Err(format!("the server {how}; its log ends:\n{}", tail(&text)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Of the last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(&self) {
        let child = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(mut child) = child {
            child.kill().unwrap();
            child.wait().unwrap();
            fs::remove_file(self.folder.join("pid")).unwrap();
        }
    }

    /// `STOP`: it hangs, and its connections stay. `CONT`: it goes on.
    pub fn signal(&self, name: &str) {
        let running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pid = running.as_ref().expect("it runs").id();
        let told = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // The guard removes the folder, so that both ends are the same.
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// The last lines, without those that only print the settings.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with('\t')).collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
