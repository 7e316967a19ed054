//! A store that can't be had says why, and what to do.

use owlpost::store::postgres::Password;
use owlpost::store::{Delivery as _, Desk as _, Intake as _, Opening, Page, Query, StoreError};

use crate::postgres::{Admin, PASSWORD, Server};
use crate::process::until;
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};

fn refused(result: Result<std::sync::Arc<owlpost::store::postgres::Postgres>, StoreError>) -> StoreError {
    match result {
        Err(why) => why,
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn who_we_are_and_where_we_go_must_be_known() {
    let database = Server::shared().database(None);
    let mut wrong = settings(database.url(), Opening::Worker);
    wrong.access.password = Password::Fixed("a-wrong-one".into());
    let mut without = settings(database.url(), Opening::Worker);
    without.access.password = Password::None;
    let nobody = settings(database.url().replace("owlpost@", "nobody@"), Opening::Worker);
    let nowhere = settings(Server::shared().url("no_such_database"), Opening::Worker);
    // Nothing can listen on port 1 of an unprivileged server.
    let away = settings("postgres://owlpost@127.0.0.1:1/owlpost".into(), Opening::Worker);
    for (asked, advice, lasting) in [
        (away, "is the server up", false),
        (wrong, "store.password", false),
        (without, "store.password", false),
        (nobody, "the user of store.url", false),
        (nowhere, "create the database", true),
    ] {
        let why = refused(try_open(asked));
        let said = why.to_string();
        assert!(said.contains(advice) && said.contains("127.0.0.1"), "{said}");
        assert!(!said.contains("a-wrong-one") && !said.contains(PASSWORD), "{said}");
        assert_eq!(matches!(why, StoreError::Unusable(_)), lasting, "{said}");
    }
}

#[test]
fn a_schema_that_is_not_there_is_for_its_owner_to_make() {
    let database = Server::shared().database(None);
    let role = format!("few_{}", database.name);
    database.admin().run(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"));
    let asked = |migrate| {
        let mut asked = settings(database.url().replace("owlpost@", &format!("{role}@")), Opening::Worker);
        asked.migrate = migrate;
        refused(try_open(asked)).to_string()
    };
    let why = asked(true);
    assert!(why.contains("permission denied") && why.contains("`owlpost migrate` as the owner"), "{why}");
    let why = asked(false);
    assert!(why.contains("no schema") && why.contains("`owlpost migrate`"), "{why}");
    // Made, and without rights on it.
    drop(open(database.url()));
    let why = asked(true);
    assert!(why.contains("the role needs rights"), "{why}");
}

#[test]
fn a_server_without_a_free_connection_names_both_ends_of_the_pool() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let role = format!("one_{}", database.name);
    database.admin().run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let mut config = Server::shared().config(&database.name);
    config.user(&role);
    let _kept = Admin::connect(&config).unwrap();
    let why = refused(try_open(settings(database.url().replace("owlpost@", &format!("{role}@")), Opening::Operator)));
    assert!(why.to_string().contains("store.connections"), "{why}");
}

/// A real one, which is promoted in the end.
#[test]
fn a_standby_can_be_read_and_takes_over_when_it_is_promoted() {
    let primary: &'static Server = Box::leak(Box::new(Server::start(&[])));
    let database = primary.database(None);
    let before = open(database.url());
    accept(&before, vec![news("n1", "ann")]).unwrap();
    let standby: &'static Server = Box::leak(Box::new(primary.standby()));
    let url = standby.url(&database.name);

    let reading = try_open(settings(url.clone(), Opening::Operator)).unwrap();
    assert_eq!(verified(&reading)["pending"], 1);
    runtime().block_on(reading.read(&Query::Status { now: NOW }, Page::FIRST)).unwrap();
    let why = refused(try_open(settings(url.clone(), Opening::Worker)));
    assert!(matches!(why, StoreError::Unavailable(_)) && why.to_string().contains("must name the primary"), "{why}");
    let why = runtime().block_on(reading.claim(NOW, &ask())).unwrap_err();
    assert!(matches!(why, StoreError::Unavailable(_)) && why.to_string().contains("must name the primary"), "{why}");

    primary.kill();
    standby.admin("postgres").run("SELECT pg_promote()");
    let after = until("the promoted server", || try_open(settings(url.clone(), Opening::Worker)).ok());
    let batch = || std::sync::Arc::new(vec![news("n1", "ann"), news("n2", "ann")]);
    let receipts = runtime().block_on(after.accept(NOW, batch())).unwrap();
    assert_eq!(receipts, [owlpost::model::Receipt::Duplicate, owlpost::model::Receipt::Accepted]);
    assert_eq!(verified(&after)["pending"], 2);
}
