//! Names and ports that nobody else on the machine has.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::process::{Random, until};

/// No two of a machine's test runs get the same: process, moment, counter.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() % 100_000_000;
    format!("{prefix}-{}-{moment}-{n}", std::process::id())
}

/// Ports that nobody listens at. Below the range that the kernel draws from for connections (from 32,768 on): there a
/// client that keeps knocking at a stopped server's port would one day be given that very port, and talk to itself.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let mut random = Random(u64::from(moment) ^ (u64::from(std::process::id()) << 32));
    let mut held = Vec::new();
    let mut draw = || {
        until("a free port", || {
            let port = 20_000 + u16::try_from(random.below(12_000)).unwrap();
            // Held until all are found, so that no two are the same.
            held.push(TcpListener::bind(("127.0.0.1", port)).ok()?);
            Some(port)
        })
    };
    std::array::from_fn(|_| draw())
}
