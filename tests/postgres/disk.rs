//! A disk that is full: nothing is lost, and the worker goes on by itself when there is space again.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use owlpost::store::Delivery as _;

use crate::postgres::{Server, own};
use crate::process::until;
use crate::store::{ask, open, runtime};
use crate::traffic::Traffic;

/// A server's folder with a small disk in it.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None`: nobody but root can mount one.
    fn make(mib: u32) -> Option<SmallDisk> {
        let folder = tempfile::Builder::new().prefix("owlpost-postgres-").tempdir().unwrap().keep();
        let disk = folder.join("disk");
        fs::create_dir(&disk).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            fs::remove_dir_all(&folder).unwrap();
            eprintln!("no small disk can be mounted here: not tried");
            return None;
        }
        let made = SmallDisk { folder };
        fs::create_dir(made.place()).unwrap();
        own(made.place().as_ref());
        Some(made)
    }

    /// What the server keeps there.
    fn place(&self) -> String {
        self.folder.join("disk/small").display().to_string()
    }

    fn server(&self, options: &[&str]) -> &'static Server {
        // That it has ended is to be seen, and not to be mended by itself.
        let settings = [("fsync", "on"), ("restart_after_crash", "off")];
        Box::leak(Box::new(Server::start_in(self.folder.clone(), &settings, options)))
    }

    /// Takes all that is left of it.
    fn fill(&self) {
        let mut file = fs::File::create(self.folder.join("disk/filler")).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.folder.join("disk/filler")).unwrap();
    }
}

#[test]
fn tables_that_can_not_grow_are_told_and_taken_up_again() {
    let Some(disk) = SmallDisk::make(64) else { return };
    let server = disk.server(&[]);
    let database = server.database(None);
    let admin = server.admin("postgres");
    admin.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.place()));
    admin.run(&format!("ALTER DATABASE {} SET TABLESPACE small", database.name));
    let store = open(database.url());
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&store), || {
        traffic.goes_on(50);
        disk.fill();
        until("a full disk", || {
            let said = traffic.said.lock().unwrap();
            said.iter().any(|why| why.contains("free some space")).then_some(())
        });
        disk.free();
        traffic.goes_on(200);
    });
    assert_eq!(traffic.compare(&store), 0, "a call that fails for want of space has done nothing");
}

/// Worse: the server can't say what it did, and ends.
#[test]
fn a_server_that_ends_as_its_log_can_not_grow_has_everything_that_was_acknowledged() {
    let Some(disk) = SmallDisk::make(24) else { return };
    let server = disk.server(&["--wal-segsize=1", "--waldir", &disk.place()]);
    let database = server.database(None);
    let store = open(database.url());
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&store), || {
        traffic.goes_on(50);
        disk.fill();
        server.has_ended();
        disk.free();
        server.restart();
        traffic.goes_on(200);
    });
    until("a connection", || runtime().block_on(store.next_due(&ask())).ok());
    traffic.compare(&store);
}
