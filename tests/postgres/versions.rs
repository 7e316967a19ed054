//! Two versions on one store: an older one goes on while a newer one migrates, and neither takes the other's for its own.

use std::time::{Duration, Instant};

use owlpost::store::{Ask, Delivery as _, Opening, StoreError};

use crate::failover::configure;
use crate::postgres::{Admin, Database, PASSWORD, Server, Value};
use crate::process::{Worker, until};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};
use crate::traffic::Traffic;

const NEWEST: i64 = 4;

fn unusable(database: &Database, migrate: bool, opening: Opening) -> String {
    let mut asked = settings(database.url(), opening);
    asked.migrate = migrate;
    match try_open(asked) {
        Err(StoreError::Unusable(why)) => why,
        other => panic!("it opened: {:?}", other.err()),
    }
}

fn newest(admin: &Admin) -> i64 {
    match admin.rows("SELECT max(version) FROM refinery_schema_history")[0][0] {
        Value::Int(version) => version,
        ref other => panic!("not a version: {other:?}"),
    }
}

/// As it was before the autoscaler's view.
fn make_older(admin: &Admin) {
    assert_eq!(newest(admin), NEWEST, "this undoes all but the first migration: say here how the newest is undone");
    admin.run(
        "DROP VIEW owlpost_keda_backlog; DROP FUNCTION owlpost_backlog; \
         DELETE FROM refinery_schema_history WHERE version > 1",
    );
}

#[test]
fn an_older_schema_is_migrated_while_a_worker_runs_on_it() {
    let database = Server::shared().database(None);
    let older = open(database.url());
    let admin = database.admin();
    make_older(&admin);
    for opening in [Opening::Worker, Opening::Operator] {
        let why = unusable(&database, false, opening);
        assert!(why.contains("older than this owlpost") && why.contains("`owlpost migrate`"), "{why}");
    }
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&older), || {
        traffic.goes_on(50);
        let newer = try_open(settings(database.url(), Opening::Worker)).unwrap();
        assert_eq!(newest(&admin), NEWEST);
        traffic.goes_on(50);
        accept(&newer, vec![news("0-0-0", "p0")]).unwrap();
    });
    assert_eq!(*traffic.said.lock().unwrap(), Default::default(), "the older one noticed nothing");
    traffic.compare(&older);
    assert!(admin.try_run("SELECT due FROM owlpost_keda_backlog").is_ok());
}

/// Somebody's long transaction is in the way: the migration waits for its end, and nobody waits behind the migration.
#[test]
fn a_migration_that_has_to_wait_lets_all_others_go_on_and_says_who_is_in_its_way() {
    let database = Server::shared().database(None);
    let older = open(database.url());
    let admin = database.admin();
    make_older(&admin);
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &database.url());
    let other = database.admin();
    other.run("BEGIN; SET LOCAL application_name = 'long-report'; SELECT count(*) FROM digest");
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&older), || {
        traffic.goes_on(50);
        let mut newer = Worker::start(folder.path(), &["-c", "owlpost.toml"]);
        let log =
            until("a migration that waits", || Some(newer.log()).filter(|log| log.contains("the migration waits for")));
        assert!(log.contains("table digest") && log.contains("long-report"), "{log}");
        // Through some of its tries.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let before = Instant::now();
            traffic.goes_on(50);
            assert!(before.elapsed() < Duration::from_secs(3), "it was held up for {:?}", before.elapsed());
        }
        assert!(newest(&admin) < NEWEST);
        other.run("ROLLBACK");
        newer.address();
        assert_eq!(newest(&admin), NEWEST);
        traffic.goes_on(50);
        newer.signal("TERM");
        newer.ends_with(0);
    });
    assert_eq!(*traffic.said.lock().unwrap(), Default::default(), "the older one noticed nothing");
}

/// What a later version's migrations may do: add columns, tables and indexes.
#[test]
fn a_worker_goes_on_while_a_later_version_migrates_and_no_other_of_its_version_begins() {
    let database = Server::shared().database(None);
    let older = open(database.url());
    let admin = database.admin();
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&older), || {
        traffic.goes_on(50);
        for table in ["event", "item", "digest", "mailbox", "subject", "attempt", "quota", "meta"] {
            // A migration does not wait with everybody behind it: it tries again.
            until("the table for a moment", || {
                let add = format!("SET lock_timeout = '200ms'; ALTER TABLE {table} ADD COLUMN later bigint DEFAULT 7");
                admin.try_run(&add).ok()
            });
        }
        admin.run("CREATE INDEX CONCURRENTLY later ON item (later)");
        admin.run(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) \
             VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
        );
        traffic.goes_on(50);
    });
    assert_eq!(*traffic.said.lock().unwrap(), Default::default());
    traffic.compare(&older);
    for opening in [Opening::Worker, Opening::Operator] {
        for migrate in [true, false] {
            let why = unusable(&database, migrate, opening);
            assert!(why.contains("version 999") && why.contains("use the owlpost that wrote it"), "{why}");
        }
    }
}

/// What V4 adds a version before it does not know: it leaves `lane` at its default. Its digests and those of the new version
/// leave all the same, whoever claims them, and also while more is due than one claim takes.
#[test]
fn a_version_without_lanes_and_one_with_them_share_a_store() {
    let database = Server::shared().database(None);
    let newer = open(database.url());
    let admin = database.admin();
    let role = format!("older_{}", database.name);
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}; \
         CREATE FUNCTION without_lanes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF current_user = '{role}' THEN NEW.lane = 0; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER without_lanes BEFORE INSERT ON digest FOR EACH ROW EXECUTE FUNCTION without_lanes()"
    ));
    let mut asked = settings(database.url().replace("owlpost@", &format!("{role}@")), Opening::Worker);
    asked.migrate = false;
    let older = try_open(asked).unwrap();
    let traffic = Traffic::new();
    traffic.around(&[older.clone(), newer.clone()], || {
        traffic.goes_on(400);
        until("digests of both", || {
            (admin.rows("SELECT bool_or(lane = 0) AND bool_or(lane <> 0) FROM digest") == [[Value::Int(1)]])
                .then_some(())
        });
    });
    assert_eq!(*traffic.said.lock().unwrap(), Default::default());
    traffic.compare(&newer);
    // A crowd, and each version meets the other's digests in it.
    for (n, store) in [&older, &newer].into_iter().enumerate() {
        accept(store, (0..150).map(|i| news(format!("crowd-{n}-{i}"), &format!("{n}-{i}"))).collect()).unwrap();
    }
    let few = Ask { limit: 10, ..ask() };
    let mut taken = 0;
    for store in [&older, &newer].into_iter().cycle().take(30) {
        let leased = runtime().block_on(store.claim(NOW, &few)).unwrap();
        assert_eq!(leased.len(), 10, "after {taken}");
        taken += leased.len();
    }
    assert_eq!(taken, 300);
    assert_eq!(runtime().block_on(newer.claim(NOW, &few)).unwrap(), []);
}

#[test]
fn a_pending_migration_is_for_the_owner_of_the_tables() {
    let database = Server::shared().database(None);
    accept(&open(database.url()), vec![news("n", "ann")]).unwrap();
    let admin = database.admin();
    make_older(&admin);
    let role = format!("few_{}", database.name);
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}; REVOKE INSERT, UPDATE, DELETE ON refinery_schema_history FROM {role}"
    ));
    match try_open(settings(database.url().replace("owlpost@", &format!("{role}@")), Opening::Worker)) {
        Err(StoreError::Unusable(why)) => {
            assert!(why.contains("permission denied") && why.contains("`owlpost migrate` as the owner"), "{why}");
        }
        other => panic!("it opened: {:?}", other.err()),
    }
    assert_eq!(newest(&admin), 1, "nothing was done by halves");
    // Its owner may, and then it may begin.
    assert_eq!(verified(&open(database.url()))["items"], 1);
    let mut asked = settings(database.url().replace("owlpost@", &format!("{role}@")), Opening::Worker);
    asked.migrate = false;
    assert_eq!(verified(&try_open(asked).unwrap())["items"], 1);
}

/// Another program's tables are in the way: the way out is not a migration.
#[test]
fn another_programs_tables_and_history_are_told_as_such() {
    let tables = Server::shared().database(None);
    tables.admin().run("CREATE TABLE event (id int)");
    let history = Server::shared().database(None);
    history.admin().run(&format!(
        "CREATE TABLE refinery_schema_history (version int, name text, applied_on text, checksum text); \
         INSERT INTO refinery_schema_history SELECT n, 'orders', '2030-01-01T00:00:00Z', '1' FROM generate_series(1, {NEWEST}) n"
    ));
    for database in [tables, history] {
        let why = unusable(&database, true, Opening::Worker);
        assert!(why.contains("of its own") && !why.contains("owlpost migrate"), "{why}");
    }
}
