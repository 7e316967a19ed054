//! A disk that is full: nothing is lost, and the worker goes on by itself when there is space again.

use crate::postgres::{Database, Server, SmallDisk};
use crate::process::until;
use crate::store::{open, runtime};
use crate::traffic::Traffic;
use owlpost::store::Delivery as _;

fn server(what: SmallDisk, mib: u32) -> Option<&'static Server> {
    let server = Server::start_on_a_small_disk(what, mib, &[("fsync", "on"), ("restart_after_crash", "off")]);
    if server.is_none() {
        eprintln!("only root can make a small disk: not tried here");
    }
    server.map(|server| &*Box::leak(Box::new(server)))
}

fn full(traffic: &Traffic) {
    until("a full disk", || {
        let said = traffic.said.lock().unwrap();
        said.iter().any(|why| why.contains("free some space")).then_some(())
    });
}

#[test]
fn tables_that_can_not_grow_are_told_and_taken_up_again() {
    let Some(server) = server(SmallDisk::Tables, 64) else { return };
    let database: Database = server.database(None);
    server.admin("postgres").run(&format!("ALTER DATABASE {} SET TABLESPACE small", database.name));
    let store = open(database.url());
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&store), || {
        traffic.goes_on(50);
        server.fill_the_disk();
        full(&traffic);
        server.free_the_disk();
        traffic.goes_on(200);
    });
    assert_eq!(traffic.compare(&store), 0, "a call that fails for want of space has done nothing");
}

/// Worse: the server can't say what it did, and ends.
#[test]
fn a_server_that_ends_as_its_log_can_not_grow_has_everything_that_was_acknowledged() {
    let Some(server) = server(SmallDisk::Log, 24) else { return };
    let database = server.database(None);
    let store = open(database.url());
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&store), || {
        traffic.goes_on(50);
        server.fill_the_disk();
        server.has_ended();
        server.free_the_disk();
        server.restart();
        traffic.goes_on(200);
    });
    until("a connection", || runtime().block_on(store.next_due(&crate::store::ask())).ok());
    traffic.compare(&store);
}
