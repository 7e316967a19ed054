//! A wire to a server on loopback that can be cut at the moment of a commit, or fall silent.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    Nothing,
    /// The next commit does not reach the server.
    BeforeCommit,
    /// The next commit reaches it, and its answer nobody.
    AfterCommit,
    /// Connections are taken, and nothing is said on them, nor passed on. (Also on those that there are.)
    Silent,
}

#[derive(Clone)]
pub struct Wire {
    port: u16,
    cut: Arc<AtomicU8>,
    /// So many commits go through before.
    before: Arc<AtomicU8>,
    turns: Arc<AtomicUsize>,
}

const COMMIT: &[u8] = b"COMMIT\0";

impl Wire {
    /// Its threads end with the test's process.
    pub fn to(server: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Wire { port, cut: Arc::default(), before: Arc::default(), turns: Arc::default() };
        let (cut, before, turns) = (wire.cut.clone(), wire.before.clone(), wire.turns.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (cut, before, turns) = (cut.clone(), before.clone(), turns.clone());
                std::thread::spawn(move || {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                        carry(client, server, cut, before, turns);
                    }
                });
            }
        });
        wire
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn cut(&self, cut: Cut) {
        self.cut_after(0, cut);
    }

    /// How often something was said to the server: about once for each answer that was waited for.
    pub fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    /// Not at the next commit, but at one after it.
    pub fn cut_after(&self, commits: u8, cut: Cut) {
        self.before.store(commits, Ordering::SeqCst);
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// It was cut as it was told to.
    pub fn has_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::Nothing as u8
    }
}

fn carry(client: TcpStream, server: TcpStream, cut: Arc<AtomicU8>, before: Arc<AtomicU8>, turns: Arc<AtomicUsize>) {
    let once = |cut: &AtomicU8, what: Cut| {
        cut.compare_exchange(what as u8, Cut::Nothing as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    let wait = |cut: &AtomicU8| {
        while cut.load(Ordering::SeqCst) == Cut::Silent as u8 {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    };
    let lost = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (loses, silent) = (lost.clone(), cut.clone());
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            wait(&silent);
            turns.fetch_add(1, Ordering::SeqCst);
            let is_commit = bytes[..n].windows(COMMIT.len()).any(|w| w == COMMIT);
            let goes_through = |left: u8| left.checked_sub(1);
            if is_commit && before.fetch_update(Ordering::SeqCst, Ordering::SeqCst, goes_through).is_err() {
                if once(&silent, Cut::BeforeCommit) {
                    break;
                }
                loses.fetch_or(once(&silent, Cut::AfterCommit), Ordering::SeqCst);
            }
            if to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
    let (mut from, mut to) = (server, client);
    let mut bytes = [0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        wait(&cut);
        if lost.load(Ordering::SeqCst) || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
