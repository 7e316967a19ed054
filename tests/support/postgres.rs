//! PostgreSQL as a child process of the test, and databases in it that are one test's alone.
//!
//! The server takes connections on 127.0.0.1 alone, with a password (SCRAM), as any server would. It refuses to run as
//! root; then it runs as the user that its package has made.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

#[path = "ports.rs"]
mod ports;

use crate::process::{PATIENCE, until};
pub use ports::{free_ports, unique};

pub const USER: &str = "owlpost";
pub const PASSWORD: &str = "of-the-tests";

/// Small; time and language are nobody's in particular, so that nothing depends on them by accident.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "100"),
    ("shared_buffers", "64MB"),
    ("password_encryption", "scram-sha-256"),
    ("log_timezone", "Pacific/Chatham"),
    ("timezone", "Pacific/Chatham"),
];

/// For tests about rules, not about the disk.
const NO_DISK: &[(&str, &str)] = &[("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];

/// Its reader sees the end of its input when the owner has ended, be it by SIGKILL: then it cleans up. Signals to the
/// whole process group (Ctrl-C) are for the others. QUIT ends the server with all its processes, at once.
const GUARD: &str = r#"trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in $(seq 300); do
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || { [ -d "$0/disk" ] && umount "$0/disk" 2>/dev/null; rm -rf "$0" 2>/dev/null; break; }
    sleep 0.1
done"#;

/// A server with its data; both are gone when this is dropped, or when the process that owns it has ended in any way.
pub struct Server {
    folder: PathBuf,
    port: u16,
    running: Mutex<Option<Child>>,
    guard: Option<Child>,
}

impl Server {
    /// The one that the tests of this binary share: databases are theirs alone, faults are not to be made here.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Server::start(NO_DISK))
    }

    /// One of the test's own, which may be killed. `settings`: on top of the usual ones.
    pub fn start(settings: &[(&str, &str)]) -> Server {
        let folder = tempfile::Builder::new().prefix("owlpost-postgres-").tempdir().unwrap().keep();
        Server::start_in(folder, settings, &[])
    }

    /// With this certificate; connections in clear are taken as well.
    pub fn start_with_tls(cert: &Path, key: &Path) -> Server {
        let folder = tempfile::Builder::new().prefix("owlpost-postgres-").tempdir().unwrap().keep();
        let at = |name: &str| folder.join(name);
        for (from, name) in [(cert, "cert.pem"), (key, "key.pem")] {
            fs::copy(from, at(name)).unwrap();
            // The server takes no key that others can read.
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
            own(&at(name));
        }
        let (cert, key) = (at("cert.pem").display().to_string(), at("key.pem").display().to_string());
        Server::start_in(folder, &[("ssl", "on"), ("ssl_cert_file", &cert), ("ssl_key_file", &key)], &[])
    }

    /// A copy that follows, and can be read.
    pub fn standby(&self) -> Server {
        let folder = tempfile::Builder::new().prefix("owlpost-postgres-").tempdir().unwrap().keep();
        own(&folder);
        let from = format!("host=127.0.0.1 port={} user={USER} password={PASSWORD}", self.port);
        let made = server_command("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-d", &from, "-D"])
            .arg(folder.join("data"))
            .output()
            .expect("PostgreSQL is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::copy(self.folder.join("settings.conf"), folder.join("settings.conf")).unwrap();
        own(&folder.join("settings.conf"));
        Server::run(folder)
    }

    /// `options`: of `initdb`. A `disk` that is mounted in the folder goes with it.
    pub fn start_in(folder: PathBuf, settings: &[(&str, &str)], options: &[&str]) -> Server {
        let mut text = String::new();
        for (name, value) in SETTINGS.iter().chain(settings) {
            text += &format!("{name} = '{value}'\n");
        }
        fs::write(folder.join("password"), PASSWORD).unwrap();
        own(&folder);
        own(&folder.join("password"));
        let made = server_command("initdb")
            .args(["--auth=scram-sha-256", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--pwfile"])
            .arg(folder.join("password"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(options)
            .output()
            .expect("PostgreSQL is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(folder.join("settings.conf"), text).unwrap();
        own(&folder.join("settings.conf"));
        let main = folder.join("data/postgresql.conf");
        fs::write(&main, fs::read_to_string(&main).unwrap() + "include '../settings.conf'\n").unwrap();
        Server::run(folder)
    }

    /// With the data and the settings of this folder.
    fn run(folder: PathBuf) -> Server {
        let guard = Command::new("sh").args(["-c", GUARD]).arg(&folder).stdin(Stdio::piped()).spawn();
        let guard = Some(guard.expect("sh is installed"));
        let mut server = Server { folder, port: 0, running: Mutex::new(None), guard };
        let mut why = String::new();
        // Somebody else may take a port between its being found free and being bound.
        for _ in 0..3 {
            [server.port] = free_ports();
            match server.try_start() {
                Ok(()) => return server,
                Err(told) => why = told,
            }
        }
        panic!("{why}");
    }

    /// On the same data and port; waits until it takes connections.
    pub fn restart(&self) {
        // A killed server's processes may be about to end, and hold its memory until then.
        until("the server after its end", || match self.try_start() {
            Err(why) if why.contains("still in use") => None,
            result => Some(result),
        })
        .unwrap();
    }

    fn try_start(&self) -> Result<(), String> {
        let mut running = self.running();
        assert!(running.is_none(), "it runs already");
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = server_command("postgres");
        command.arg("-D").arg(self.folder.join("data")).args(["-c", &format!("port={}", self.port)]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("PostgreSQL is installed");
        let by = std::time::Instant::now() + PATIENCE;
        // A stranger at the port would not know the password.
        while let Err(why) = Admin::connect(&self.config("postgres")).map(drop) {
            if child.try_wait().unwrap().is_some() || std::time::Instant::now() > by {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the server does not start: {why}; its log:\n{}", self.log()));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        *running = Some(child);
        Ok(())
    }

    /// A standby becomes a primary; waits until it is one.
    pub fn promote(&self) {
        let data = self.folder.join("data");
        let done = server_command("pg_ctl").args(["promote", "--wait", "-D"]).arg(data).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// It ended by itself: waits for that, and for its processes.
    pub fn has_ended(&self) {
        let mut running = self.running();
        let child = running.as_mut().expect("it was running");
        until("the server's own end", || child.try_wait().unwrap());
        *running = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data, its settings, its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of the last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(&self) {
        self.end("KILL");
    }

    /// As an operator does it: connections are cut, what is committed is flushed.
    pub fn stop(&self) {
        self.end("INT");
    }

    /// SIGSTOP to all of its processes: as a machine that froze, or lost its disk. The kernel goes on taking connections.
    pub fn freeze(&self) -> Frozen {
        let main = self.running().as_ref().expect("it runs").id();
        // First the one that would begin more.
        let mut frozen = Frozen { processes: vec![] };
        frozen.stop(main);
        processes_of(main).into_iter().for_each(|process| frozen.stop(process));
        frozen
    }

    fn end(&self, signal: &str) {
        let Some(mut child) = self.running().take() else { return };
        let told = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(told.success());
        child.wait().unwrap();
        // A killed server's processes end when they see that it is gone; until then its memory is in use.
        until("the end of the server's processes", || Admin::connect(&self.config("postgres")).is_err().then_some(()));
    }

    /// Of a superuser.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).password(PASSWORD).dbname(database);
        config.connect_timeout(PATIENCE);
        config
    }

    /// `store.url` without a password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn admin(&self, database: &str) -> Admin {
        Admin::connect(&self.config(database)).unwrap()
    }

    /// A fresh one; a copy of `template`, or empty.
    pub fn database(&'static self, template: Option<&str>) -> Database {
        let name = unique("t").replace('-', "_");
        let of = template.unwrap_or("template0");
        self.admin("postgres").run(&format!("CREATE DATABASE {name} TEMPLATE {of}"));
        Database { server: self, name }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard ends it and removes the folder, so that both ends are the same.
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // The guard waits for the end of a child that this process must have seen.
            if let Some(mut child) = self.running().take() {
                let _ = child.wait();
            }
            let _ = guard.wait();
        }
    }
}

/// Until it is dropped, the server does nothing.
pub struct Frozen {
    processes: Vec<u32>,
}

impl Frozen {
    /// Some of a server's processes alone.
    pub fn processes(which: impl IntoIterator<Item = u32>) -> Frozen {
        let mut frozen = Frozen { processes: vec![] };
        which.into_iter().for_each(|process| frozen.stop(process));
        frozen
    }

    fn stop(&mut self, process: u32) {
        if signal("STOP", process) {
            self.processes.push(process);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.processes {
            signal("CONT", *process);
        }
    }
}

fn signal(name: &str, process: u32) -> bool {
    Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success()
}

fn processes_of(parent: u32) -> Vec<u32> {
    let of = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // Behind the name, which may hold anything: state, parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|process| of(*process) == Some(parent)).collect()
}

/// One test's database, dropped with everybody's connections to it.
pub struct Database {
    server: &'static Server,
    pub name: String,
}

impl Database {
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn admin(&self) -> Admin {
        self.server.admin(&self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Ok(admin) = Admin::connect(&self.server.config("postgres")) {
            admin.run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// A connection that is waited for: what a test asks of a database beside the store. Not for use inside a runtime.
pub struct Admin {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl Admin {
    pub fn connect(config: &Config) -> Result<Admin, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            // Its end is seen by the client.
            drop(tokio::spawn(connection));
            Ok(client)
        })?;
        Ok(Admin { runtime, client })
    }

    /// Any number of statements.
    pub fn run(&self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    pub fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    pub fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let rows = self.runtime.block_on(self.client.query(sql, &[])).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        rows.iter().map(|row| (0..row.len()).map(|i| value(row, i)).collect()).collect()
    }
}

fn value(row: &tokio_postgres::Row, i: usize) -> Value {
    let int = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
    match row.columns()[i].type_() {
        kind if *kind == Type::INT8 => int(row.get(i)),
        kind if *kind == Type::INT4 => int(row.get::<_, Option<i32>>(i).map(i64::from)),
        kind if *kind == Type::INT2 => int(row.get::<_, Option<i16>>(i).map(i64::from)),
        kind if *kind == Type::BOOL => int(row.get::<_, Option<bool>>(i).map(i64::from)),
        _ => row.get::<_, Option<String>>(i).map_or(Value::Null, Value::Text),
    }
}

/// The distribution's newest.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|v| Some((v.file_name().to_str()?.parse::<u32>().ok()?, v.path()))).max();
    newest.map_or_else(PathBuf::new, |(_, path)| path.join("bin"))
}

/// As a user who may run a server.
fn server_command(program: &str) -> Command {
    let mut command = Command::new(programs().join(program));
    if let Some((uid, gid)) = other_user() {
        command.uid(uid).gid(gid);
    }
    // The caller's folder may be closed to that user.
    command.current_dir("/");
    command
}

/// (uid, gid) to run the server as; `None`: as ourselves.
pub fn other_user() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> Option<u32> {
        let told = Command::new("id").args(args).output().ok()?;
        String::from_utf8_lossy(&told.stdout).trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?))
}

/// Gives it to the user that the servers run as.
pub fn own(path: &Path) {
    if let Some((uid, gid)) = other_user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}
