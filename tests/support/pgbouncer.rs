//! PgBouncer in transaction mode before a test's server, on 127.0.0.1: few connections, taken in turn, so that no two
//! transactions of a client meet the same one for long.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::Config;

use crate::postgres::{Admin, PASSWORD, Server, USER, free_ports, other_user, own};
use crate::process::{PATIENCE, until};

/// Its reader sees the end of its input when the test has ended, in whatever way.
const GUARD: &str = r#"trap '' INT TERM HUP
"$0" -q "$1/pgbouncer.ini" >"$1/log" 2>&1 &
read -r _
kill -KILL $! 2>/dev/null
wait
rm -rf "$1" 2>/dev/null"#;

pub struct PgBouncer {
    port: u16,
    guard: Child,
}

impl PgBouncer {
    /// `connections` to each database of the server.
    pub fn before(server: &Server, connections: u32) -> PgBouncer {
        let folder = tempfile::Builder::new().prefix("owlpost-pgbouncer-").tempdir().unwrap().keep();
        let [port] = free_ports();
        fs::write(folder.join("users"), format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {connections}\nserver_round_robin = 1\nquery_wait_timeout = 30\n",
            server.port(),
            folder.join("users").display(),
        );
        fs::write(folder.join("pgbouncer.ini"), settings).unwrap();
        for path in [folder.clone(), folder.join("users"), folder.join("pgbouncer.ini")] {
            own(&path);
        }
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD]).arg(program()).arg(&folder).current_dir("/").stdin(Stdio::piped());
        // It refuses to run as root, as the server does.
        if let Some((uid, gid)) = other_user() {
            guard.uid(uid).gid(gid);
        }
        let guard = guard.spawn().expect("sh is installed");
        let pooler = PgBouncer { port, guard };
        until(&format!("PgBouncer, whose log is {}", folder.join("log").display()), || {
            Admin::connect(&pooler.config("postgres")).ok()
        });
        pooler
    }

    /// `store.url` of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).password(PASSWORD).dbname(database);
        config.connect_timeout(PATIENCE);
        config
    }

    pub fn admin(&self, database: &str) -> Admin {
        Admin::connect(&self.config(database)).unwrap()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Distributions put it where only root looks.
fn program() -> PathBuf {
    let usual = Path::new("/usr/sbin/pgbouncer");
    if usual.exists() { usual.to_owned() } else { PathBuf::from("pgbouncer") }
}
