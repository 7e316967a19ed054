//! Passwords, TLS, and the one number that an autoscaler sees. What roles may do: `tests/postgres_access.rs`.

use std::time::Duration;

use owlpost::store::postgres::Password;
use owlpost::store::{Delivery as _, Opening, StoreError};

use crate::certificates::certificates;
use crate::postgres::{Admin, PASSWORD, Server, Value};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open};

#[test]
fn a_wrong_password_is_told_without_it() {
    let database = Server::shared().database(None);
    let mut wrong = settings(database.url(), Opening::Operator);
    wrong.access.password = Password::Fixed("a-wrong-one".into());
    match try_open(wrong) {
        Err(StoreError::Unavailable(why)) => {
            assert!(why.contains("password") && !why.contains("a-wrong-one"), "{why}");
        }
        other => panic!("it opened: {:?}", other.err()),
    }
}

#[test]
fn tls_wants_the_right_authority_and_the_right_name() {
    let certificates = certificates();
    let server: &'static Server = Box::leak(Box::new(Server::start_with_tls(&certificates.cert, &certificates.key)));
    let database = server.database(None);
    let url = |host: &str, mode: &str| {
        format!("postgres://owlpost@{host}:{}/{}?sslmode={mode}", server.port(), database.name)
    };
    let open = |url: String, ca: bool| {
        let mut asked = settings(url, Opening::Operator);
        asked.access.ca_file = ca.then(|| certificates.ca.clone());
        try_open(asked)
    };
    assert!(open(url("localhost", "verify-full"), true).is_ok());
    assert!(open(url("localhost", "disable"), true).is_ok(), "on loopback, if it is said");
    for (host, ca, what) in [("localhost", false, "an unknown authority"), ("127.0.0.1", true, "another name")] {
        match open(url(host, "verify-full"), ca) {
            Err(StoreError::Unavailable(why)) => {
                assert!(why.contains("must name the host of store.url"), "{what}: {why}")
            }
            other => panic!("{what}: {:?}", other.err()),
        }
    }
    match open(url("localhost", "require"), true) {
        Err(StoreError::Unusable(why)) => assert!(why.contains("verify-full"), "{why}"),
        other => panic!("a name that is not looked at: {:?}", other.err()),
    }
}

#[test]
fn the_autoscaler_sees_what_is_due_and_nothing_else() {
    let database = Server::shared().database(None);
    let store = open(database.url());
    let role = format!("keda_{}", database.name);
    let admin = database.admin();
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON owlpost_keda_backlog TO {role}"
    ));
    let mut config = Server::shared().config(&database.name);
    config.user(&role);
    let keda = Admin::connect(&config).unwrap();
    let due = || match keda.rows("SELECT due FROM owlpost_keda_backlog")[0][0] {
        Value::Int(n) => n,
        ref other => panic!("not a number: {other:?}"),
    };
    assert_eq!(due(), 0);
    // `NOW` is long past for the server's clock, which the view asks.
    accept(&store, vec![news("n1", "ann"), news("n2", "bob")]).unwrap();
    assert_eq!(due(), 2);
    admin.run("INSERT INTO pause (route, since) VALUES ('tell', 0)");
    assert_eq!(due(), 0, "what can't leave wakes nobody");
    admin.run("UPDATE pause SET route = 'other'");
    assert_eq!(due(), 2);
    runtime().block_on(store.claim(NOW, &ask())).unwrap();
    assert_eq!(due(), 2, "leases that are over");
    admin.run("UPDATE digest SET until = CAST(extract(epoch FROM now() + interval '5 minutes') * 1000000 AS bigint)");
    assert_eq!(due(), 0, "leases that run");
    assert!(keda.try_run("SELECT * FROM event").is_err());
    let far = NOW.plus(Duration::from_secs(3_600 * 24 * 36_500));
    let window = far.0;
    admin.run(&format!("UPDATE digest SET state = 0, until = NULL, due_at = {window}"));
    assert_eq!(due(), 0, "what is due much later");
}
