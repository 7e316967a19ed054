//! Connections that are cut while batches are on their way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::postgres::{Database, Server};

/// Cuts all connections of the database each time that `work` says that more was taken: wherever the batches are just then, and at
/// most once for each, so that they go on.
pub fn with_cuts(database: &Database, work: impl FnOnce(&AtomicUsize)) {
    let (taken, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (taken, ended) = (&taken, Ended(&ended));
        let is_ended = ended.0;
        scope.spawn(move || {
            let admin = Server::shared().admin("postgres");
            let cut =
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", database.name);
            let mut seen = 0;
            while !is_ended.load(Ordering::Relaxed) {
                let now = taken.load(Ordering::Relaxed);
                if now > seen {
                    seen = now;
                    admin.run(&cut);
                }
                std::thread::yield_now();
            }
        });
        work(taken);
        drop(ended);
    });
}

/// Says so also if the work has failed: nobody would end else.
struct Ended<'e>(&'e AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
