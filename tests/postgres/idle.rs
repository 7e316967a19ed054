//! `run --until-idle` on a store that others use: it sees its own work through, and what is nobody's any more; what is in
//! another worker's hands it leaves there.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use owlpost::model::Time;
use owlpost::store::postgres::Postgres;
use owlpost::store::{ANSWERS_FIRST, Answer, Ask, Begun, Delivery as _, Evidence, Learned, Opening, Upkeep as _};

use crate::failover::configure;
use crate::postgres::{Database, Server, Value};
use crate::process::{Worker, until};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open};
use crate::traffic::intent;

/// The next mail is in a call of this worker; gives its recipient, and the answer that nobody knows.
fn in_a_call(store: &Postgres, now: Time) -> (String, Evidence) {
    let leased = runtime().block_on(store.claim(now, &Ask { limit: 1, ..ask() })).unwrap();
    let begun = runtime().block_on(store.begin(now, Arc::new(leased.iter().map(intent).collect()))).unwrap();
    let [Begun::Send(mail)] = &begun[..] else { panic!("it may leave: {begun:?}") };
    let answer = Answer::Ambiguous { detail: "no answer in time".into() };
    (leased[0].recipient.clone(), Evidence { attempt: mail.attempt, answer })
}

#[test]
fn a_run_to_the_end_ends_its_own_doubts_and_no_other_workers() {
    let database = Server::shared().database(None);
    let one = open(database.url());
    let two = try_open(settings(database.url(), Opening::Worker)).unwrap();
    accept(&one, vec![news("n1", "ann"), news("n2", "bob")]).unwrap();
    for store in [&one, &two] {
        let (_, nobody_knows) = in_a_call(store, NOW);
        assert_eq!(runtime().block_on(store.under_way(NOW)).unwrap(), 1);
        assert_eq!(runtime().block_on(store.learn(NOW, Arc::new(vec![nobody_knows]))).unwrap(), [Learned::Settled]);
        assert_eq!(runtime().block_on(store.under_way(NOW)).unwrap(), 1);
    }
    let look = database.admin();
    let in_doubt = || look.rows("SELECT count(*) FROM digest WHERE state = 5")[0][0].clone();
    assert_eq!(in_doubt(), Value::Int(2));
    assert_eq!(runtime().block_on(two.end_own_doubts(NOW)).unwrap().doubts_ended, 1);
    assert_eq!(runtime().block_on(two.expire(NOW, true)).unwrap().doubts_ended, 0, "the other one's");
    assert_eq!(in_doubt(), Value::Int(1));
    let under_way = |store: &Postgres, now| runtime().block_on(store.under_way(now)).unwrap();
    assert_eq!((under_way(&one, NOW), under_way(&two, NOW)), (1, 0));
    // When its time is over, it is anybody's.
    let over = NOW.plus(Duration::from_secs(61));
    assert_eq!((under_way(&one, over), under_way(&two, over)), (1, 1));
    assert_eq!(runtime().block_on(two.expire(over, true)).unwrap().doubts_ended, 1);
    assert_eq!((under_way(&one, over), under_way(&two, over)), (0, 0));
}

/// A folder for a worker on this store.
fn with_nothing_to_take_in(database: &Database) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &database.url());
    let file = folder.path().join("owlpost.toml");
    let text =
        fs::read_to_string(&file).unwrap().replace("kind = \"http\"", "kind = \"file\"\npath = \"nothing.ndjson\"");
    fs::write(&file, text + "[delivery]\ndoubt_grace = \"2h\"\n").unwrap();
    fs::write(folder.path().join("nothing.ndjson"), "").unwrap();
    folder
}

/// As while a batch of intake, or windows that are planned anew, have their mailboxes.
#[test]
fn a_run_to_the_end_does_not_take_a_lock_of_a_moment_for_the_end() {
    let database = Server::shared().database(None);
    accept(&open(database.url()), vec![news("n1", "user.ann"), news("n2", "user.bob")]).unwrap();
    let (admin, other) = (database.admin(), database.admin());
    other.run("BEGIN; SELECT no FROM mailbox WHERE recipient = 'user.bob' FOR UPDATE");
    let folder = with_nothing_to_take_in(&database);
    let mut worker = Worker::start(folder.path(), &["--until-idle", "-c", "owlpost.toml"]);
    let settled = || admin.rows("SELECT count(*) FROM item WHERE state >= 2")[0][0].clone();
    until("the other one's mail", || (settled() == Value::Int(1)).then_some(()));
    // It lives, a while after a look in vain.
    let asked = "SELECT (extract(epoch FROM max(query_start)) * 1000000)::int8 FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let last_asked = || match admin.rows(asked)[0][0] {
        Value::Int(us) => us,
        ref other => panic!("not a time: {other:?}"),
    };
    let first = last_asked();
    until("another look", || (last_asked() > first + 200_000 || !worker.is_running()).then_some(()));
    other.run("ROLLBACK");
    worker.ends_with(0);
    assert_eq!(settled(), Value::Int(2));
}

/// The real worker: beside another one's doubt, and after a dead one.
#[test]
fn a_run_to_the_end_leaves_others_what_is_theirs_and_ends_what_is_nobodys() {
    let database = Server::shared().database(None);
    let other = open(database.url());
    accept(&other, vec![news("n1", "ann"), news("n2", "bob")]).unwrap();
    // Of a worker that lives: a doubt whose time is not over. Of one that died long ago: a call.
    let (alive, nobody_knows) = in_a_call(&other, NOW);
    runtime().block_on(other.learn(NOW, Arc::new(vec![nobody_knows]))).unwrap();
    let (dead, _) = in_a_call(&other, NOW);
    let admin = database.admin();
    admin.run("UPDATE digest SET until = (extract(epoch FROM clock_timestamp()) * 1000000)::int8 + 3600000000 WHERE state = 5");
    let folder = with_nothing_to_take_in(&database);
    let begun = std::time::Instant::now();
    let log = Worker::start(folder.path(), &["--until-idle", "-c", "owlpost.toml"]).ends_with(1);
    assert!(log.contains("1 item is still open") && log.contains("another worker's hands"), "{log}");
    assert!(begun.elapsed() >= ANSWERS_FIRST, "whoever has its answer comes first");
    let state = |who: &str| {
        let item = "SELECT i.state FROM item i JOIN mailbox m ON m.no = i.mailbox_no WHERE m.recipient";
        admin.rows(&format!("{item} = '{who}'"))[0][0].clone()
    };
    assert_eq!(
        (state(&alive), state(&dead)),
        (Value::Int(1), Value::Int(5)),
        "in doubt, and dead: nobody of that name"
    );
}
