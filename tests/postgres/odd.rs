//! Servers and databases that are set up in odd ways, and transactions that lose.

use std::sync::Arc;

use owlpost::model::{KEY_BYTES, Receipt};
use owlpost::store::{
    Begun, Command, Delivery as _, Desk as _, Intake as _, Opening, Page, Query, Rows, StoreError, Upkeep as _,
};

use crate::postgres::{Database, PASSWORD, Server, Value};
use crate::process::{Random, until};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};
use crate::traffic::{Traffic, accepted, intent};

/// What a database may say to those that say nothing themselves.
const ODD: &[(&str, &str)] = &[
    ("TimeZone", "'Pacific/Chatham'"),
    ("DateStyle", "'SQL, DMY'"),
    ("IntervalStyle", "'sql_standard'"),
    ("standard_conforming_strings", "off"),
    ("escape_string_warning", "on"),
    ("backslash_quote", "off"),
    ("bytea_output", "'escape'"),
    ("extra_float_digits", "-15"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("quote_all_identifiers", "on"),
    ("lc_messages", "'C'"),
    ("lc_numeric", "'POSIX'"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "'5s'"),
    ("lock_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'1ms'"),
    ("deadlock_timeout", "'10ms'"),
    ("enable_indexscan", "off"),
    ("enable_sort", "off"),
    ("default_toast_compression", "'pglz'"),
    ("search_path", "own, public"),
];

/// In Turkish, where texts are compared and changed in other ways than elsewhere, and with all of [`ODD`].
fn odd() -> Database {
    let server = Server::shared();
    let database = server.database(None);
    let admin = server.admin("postgres");
    // Version 14 has only the languages of its system.
    let icu = admin.rows("SELECT current_setting('server_version_num')::int >= 150000") == [[Value::Int(1)]];
    let turkish = if icu { "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'" } else { "" };
    admin.run(&format!("DROP DATABASE {}", database.name));
    admin.run(&format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8' {turkish}",
        database.name
    ));
    // The table of another application, which has a name of ours.
    database.admin().run("CREATE SCHEMA own; CREATE TABLE public.event (of_somebody_else int)");
    for (name, value) in ODD {
        admin.run(&format!("ALTER DATABASE {} SET {name} = {value}", database.name));
    }
    database
}

/// A database or a role may say that commits need not reach the disk; what was acknowledged or begun has to.
#[test]
fn what_is_acknowledged_survives_a_crash_whatever_a_database_says() {
    let server = Server::shared();
    let database = server.database(None);
    server.admin("postgres").run(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.name));
    let store = open(database.url());
    database.admin().run(
        "CREATE FUNCTION durable() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF current_setting('synchronous_commit') = 'off' THEN RAISE EXCEPTION 'a crash would lose this'; END IF; \
         RETURN NEW; END $$; \
         CREATE TRIGGER durable BEFORE INSERT OR UPDATE ON event FOR EACH ROW EXECUTE FUNCTION durable(); \
         CREATE TRIGGER durable BEFORE INSERT OR UPDATE ON digest FOR EACH ROW EXECUTE FUNCTION durable(); \
         CREATE TRIGGER durable BEFORE INSERT OR UPDATE ON attempt FOR EACH ROW EXECUTE FUNCTION durable()",
    );
    let receipts = accept(&store, vec![news("e1", "user.ann")]).unwrap();
    assert_eq!(receipts, [Receipt::Accepted]);
    assert_eq!(runtime().block_on(store.claim(NOW, &ask())).unwrap().len(), 1);
}

#[test]
fn nothing_depends_on_how_a_database_is_set_up() {
    let database = odd();
    let store = open(database.url());
    let names = ["o'neil", "back\\slash\\'", "İıIi", "zoë", "%_", "\u{1f989}", "NULL", "{a,\"b\"}", "nul\0"];
    let entries = || names.iter().enumerate().map(|(i, who)| news(format!("İd-{who}-{i}"), who)).collect::<Vec<_>>();
    let receipts = accept(&store, entries()).unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Accepted), "{receipts:?}");
    assert!(accept(&store, entries()).unwrap().iter().all(|receipt| *receipt == Receipt::Duplicate));
    runtime().block_on(async {
        let leased = store.claim(NOW, &ask()).await.unwrap();
        let mut found: Vec<_> = leased.iter().map(|leased| leased.recipient.replace('\u{fffd}', "\0")).collect();
        let mut told: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        found.sort();
        told.sort();
        assert_eq!(found, told);
        let begun = store.begin(NOW, Arc::new(leased.iter().map(intent).collect())).await.unwrap();
        let mails = begun.into_iter().map(|begun| match begun {
            Begun::Send(mail) => accepted(mail.attempt),
            other => panic!("it may leave, not {other:?}"),
        });
        store.learn(NOW, Arc::new(mails.collect())).await.unwrap();
        for command in [Command::Pause { route: None }, Command::Resume { route: None }] {
            store.act(NOW, &command).await.unwrap();
        }
        store.expire(NOW, false).await.unwrap();
        store.purge(NOW).await.unwrap();
        store.compact(NOW).await.unwrap();
        store.gauges(NOW).await.unwrap();
        for query in [
            Query::Status { now: NOW },
            Query::Ledger { since: None, recipient: Some("İıIi".into()) },
            Query::Why { id: "İd-o'neil-0".into(), now: NOW },
            Query::Digests { state: None, route: None, now: NOW },
        ] {
            let rows = store.read(&query, Page { after: i64::MIN, limit: 100 }).await.unwrap();
            if let Rows::Ledger { rows, .. } = &rows {
                assert_eq!(rows.len(), 1, "{rows:?}");
            }
        }
    });
    assert_eq!(verified(&store)["delivered"], names.len() as u64);
    let admin = database.admin();
    assert_eq!(admin.rows("SELECT due FROM owlpost_keda_backlog"), [[Value::Int(0)]]);
    assert_eq!(admin.rows("SELECT count(*) FROM public.event"), [[Value::Int(0)]]);
}

/// A text holds no NUL there: two names that become one are for nobody to sort out in the middle of a batch, and whoever gives the
/// batch must hear that the same will be said next time.
#[test]
fn two_names_that_become_one_are_refused_together_and_taken_alone() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    let names = || vec![news("e1", "user.a\0"), news("e2", "user.a\u{fffd}")];
    assert!(matches!(accept(&store, names()), Err(StoreError::Broken(_))));
    for one in names() {
        assert_eq!(accept(&store, vec![one]).unwrap(), [Receipt::Accepted]);
    }
}

/// Transactions of a worker are READ COMMITTED, whatever the database says: its rules lock before they look.
#[test]
fn workers_do_not_fail_each_other_where_serializable_is_the_default() {
    let database = Server::shared().database(None);
    let admin = database.admin();
    admin.run(&format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name));
    let stores: Vec<_> = (0..4).map(|_| try_open(settings(database.url(), Opening::Worker)).unwrap()).collect();
    std::thread::scope(|scope| {
        for (i, store) in stores.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..40 {
                    accept(store, vec![news(format!("{i}-{n}"), "ann"), news(format!("b{i}-{n}"), "bob")]).unwrap();
                }
            });
        }
    });
    assert_eq!(verified(&stores[0])["items"], 4 * 40 * 2);
}

#[test]
fn a_search_path_that_leads_nowhere_is_told() {
    let database = Server::shared().database(None);
    let admin = database.admin();
    admin.run(&format!("ALTER DATABASE {} SET search_path = nowhere", database.name));
    match try_open(settings(database.url(), Opening::Worker)) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("search_path"), "{why}"),
        other => panic!("it opened: {:?}", other.err()),
    }
}

/// Every third transaction, wherever it is: both are worth another try at once, and nobody hears of it.
#[test]
fn transactions_that_lose_are_begun_anew() {
    for lost in ["40001", "40P01"] {
        let database = Server::shared().database(None);
        let store = open(database.url());
        let admin = database.admin();
        admin.run(&format!(
            "CREATE SEQUENCE turn; CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF coalesce(current_setting('lose.turn', true), '') = '' THEN \
             PERFORM set_config('lose.turn', CAST(nextval('turn') AS text), true); \
             IF currval('turn') % 3 = 0 THEN RAISE 'somebody was quicker' USING ERRCODE = '{lost}'; END IF; \
             END IF; RETURN NULL; END $$"
        ));
        for (table, event) in [("event", "INSERT"), ("digest", "UPDATE"), ("attempt", "INSERT OR UPDATE")] {
            admin.run(&format!(
                "CREATE TRIGGER lose AFTER {event} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION lose()"
            ));
        }
        let traffic = Traffic::new();
        traffic.around(std::slice::from_ref(&store), || traffic.goes_on(100));
        assert_eq!(*traffic.said.lock().unwrap(), Default::default());
        assert_eq!(traffic.compare(&store), 0);
        // Again and again: the call fails, and may be repeated.
        admin.run(&format!(
            "CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'somebody was quicker' USING ERRCODE = '{lost}'; END $$"
        ));
        let result = accept(&store, vec![news("n", "ann")]);
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
}

/// Two who wait for each other: the server ends the worker's transaction, which is done anew.
#[test]
fn a_deadlock_with_somebody_else_costs_a_turn() {
    let database = Server::shared().database(None);
    // The worker looks first, so that it is the one that gives way.
    database.admin().run(&format!("ALTER DATABASE {} SET deadlock_timeout = '20ms'", database.name));
    let store = open(database.url());
    accept(&store, vec![news("a", "ann"), news("b", "bob")]).unwrap();
    let other = database.admin();
    other.run("SET deadlock_timeout = '60s'");
    let lock = |who: &str| other.run(&format!("SELECT 1 FROM mailbox WHERE recipient = '{who}' FOR UPDATE"));
    other.run("BEGIN");
    lock("bob");
    let look = database.admin();
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| accept(&store, vec![news("a2", "ann"), news("b2", "bob")]));
        until("a worker that waits for bob", || {
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            (look.rows(waits) != [[Value::Int(0)]]).then_some(())
        });
        lock("ann");
        other.run("COMMIT");
        taken.join().unwrap().unwrap();
    });
    let seen = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()";
    until("the server's count", || (look.rows(seen) == [[Value::Int(1)]]).then_some(()));
    assert_eq!(verified(&store)["items"], 4);
}

/// Somebody's report runs for hours: nothing waits for it, and nothing is lost to it.
#[test]
fn a_long_transaction_of_somebody_else_holds_up_nothing() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    accept(&store, vec![news("n", "ann")]).unwrap();
    let other = database.admin();
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE event, item, digest, mailbox IN ACCESS SHARE MODE");
    let before = other.rows("SELECT count(*) FROM item");
    let traffic = Traffic::new();
    traffic.around(std::slice::from_ref(&store), || {
        traffic.goes_on(50);
        runtime().block_on(async {
            store.purge(NOW).await.unwrap();
            store.compact(NOW).await.unwrap();
            store.replan(NOW, 0, 100).await.unwrap();
        });
        traffic.goes_on(50);
    });
    assert_eq!(other.rows("SELECT count(*) FROM item"), before);
    other.run("COMMIT");
    assert_eq!(*traffic.said.lock().unwrap(), Default::default());
}

/// Another version's bug, or somebody's hand: what can't be done is told, and done no further time.
#[test]
fn a_row_that_is_always_in_the_way_is_no_race() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    let admin = database.admin();
    // As if each attempt were there already.
    admin.run(
        "CREATE UNIQUE INDEX only_one ON attempt ((1)); \
         INSERT INTO attempt (digest_no, n, begun_at, outcome, free) VALUES (-1, 1, 0, 2, 0)",
    );
    accept(&store, vec![news("n1", "ann")]).unwrap();
    let leased = runtime().block_on(store.claim(NOW, &ask())).unwrap();
    // It is this mail's trouble, and no reason to try the same for ever.
    let begun = runtime().block_on(store.begin(NOW, Arc::new(leased.iter().map(intent).collect()))).unwrap();
    assert_eq!(begun, [Begun::Lost]);
    admin.run("CREATE UNIQUE INDEX one_event ON event ((1))");
    let result = runtime().block_on(store.accept(NOW, Arc::new(vec![news("n2", "ann")])));
    assert!(matches!(&result, Err(StoreError::Broken(why)) if why.contains("one_event")), "{result:?}");
}

/// Longer ones are refused at the door; what comes by another way is told once, and is no reason to try for ever.
#[test]
fn the_longest_names_of_events_fit_into_the_indexes() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    // Nothing that could be compressed.
    let mut random = Random(1);
    let mut name = |bytes: usize| (0..bytes).map(|_| char::from(33 + random.below(90) as u8)).collect::<String>();
    let longest = name(KEY_BYTES);
    accept(&store, vec![news(name(KEY_BYTES), &longest)]).unwrap();
    let result = accept(&store, vec![news("n", &name(2 * KEY_BYTES))]);
    assert!(matches!(result, Err(StoreError::Broken(_))), "{result:?}");
    assert_eq!(verified(&store)["items"], 1);
}

#[test]
fn connections_that_are_cut_at_random_cost_no_mail() {
    let database = Server::shared().database(None);
    let workers: Vec<_> = (0..2).map(|_| open(database.url())).collect();
    let traffic = Traffic::new();
    let admin = Server::shared().admin("postgres");
    traffic.around(&workers, || {
        for _ in 0..30 {
            traffic.goes_on(10);
            admin.run(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND random() < 0.5",
                database.name
            ));
        }
    });
    until("a connection that is not cut", || runtime().block_on(workers[0].next_due(&ask())).ok());
    traffic.compare(&workers[0]);
}

#[test]
fn a_pool_smaller_than_the_tasks_delivers_as_well() {
    let database = Server::shared().database(None);
    let mut few = settings(database.url(), Opening::Worker);
    few.pool = 1;
    let store = try_open(few).unwrap();
    runtime().block_on(store.account(NOW, Default::default(), None)).unwrap();
    let traffic = Traffic::new();
    // Eight tasks and their looks at one connection.
    traffic.around(&[(); 4].map(|()| store.clone()), || traffic.goes_on(200));
    assert_eq!(*traffic.said.lock().unwrap(), Default::default());
    assert_eq!(traffic.compare(&store), 0);
}

/// A role whose own settings are odd as well: those of the role win over those of the database.
#[test]
fn a_role_that_may_wait_for_nothing_still_migrates_and_works() {
    let database = Server::shared().database(None);
    let role = format!("hasty_{}", database.name);
    database.admin().run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT ALL ON DATABASE {} TO {role}; GRANT ALL ON SCHEMA public TO {role}; \
         ALTER ROLE {role} SET statement_timeout = '400ms'; ALTER ROLE {role} SET lock_timeout = '1ms'; \
         ALTER ROLE {role} SET idle_in_transaction_session_timeout = '1ms'",
        database.name
    ));
    // One step of a migration takes its time, as on a large store.
    database.admin().run(
        "CREATE FUNCTION slow_down() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); END $$; \
         CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION slow_down()",
    );
    let mine = database.url().replace("owlpost@", &format!("{role}@"));
    let store = try_open(settings(mine, Opening::Worker)).unwrap();
    accept(&store, vec![news("n", "ann")]).unwrap();
    assert_eq!(verified(&store)["items"], 1);
}
