//! Signing in to RDS with an AWS identity: tokens come over TLS to a real server, which asks somebody else about them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use owlpost::aws::rds::Signer;
use owlpost::store::postgres::{Access, Password, Settings};
use owlpost::store::{Opening, StoreError};

use crate::certificates::{Certificates, certificates};
use crate::ldap;
use crate::postgres::{Database, Server, Value, own};
use crate::process::{owlpost, until};
use crate::store::{accept, news, settings, try_open, verified};

/// 15 November 2023, 00:00:00 UTC.
const START: u64 = 1_700_006_400;

/// What came as passwords of this role, and whether the next is taken.
#[derive(Default)]
struct Seen {
    tokens: Mutex<Vec<String>>,
    refuses: Mutex<Option<String>>,
}

impl Seen {
    fn distinct(&self) -> Vec<String> {
        let mut all = self.tokens.lock().unwrap().clone();
        all.dedup();
        all
    }
}

/// A server behind TLS that takes tokens of a role, which owns the database.
struct Rds {
    server: &'static Server,
    certificates: Certificates,
    database: Database,
    role: String,
    seen: Arc<Seen>,
}

fn rds() -> Rds {
    let certificates = certificates();
    let server: &'static Server = Box::leak(Box::new(Server::start_with_tls(&certificates.cert, &certificates.key)));
    let database = server.database(None);
    let role = format!("iam_{}", database.name);
    let seen = Arc::new(Seen::default());
    let port = {
        let (seen, place) = (seen.clone(), format!("localhost:{}/?Action=connect&DBUser={role}&", server.port()));
        ldap::start(move |token| {
            seen.tokens.lock().unwrap().push(token.to_owned());
            let refused = seen.refuses.lock().unwrap().as_ref().is_some_and(|part| token.contains(part));
            token.starts_with(&place) && token.contains("%2Feu-west-1%2Frds-db%2Faws4_request") && !refused
        })
    };
    let admin = database.admin();
    admin.run(&format!("CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}", database.name));
    let rules = server.folder().join("data/pg_hba.conf");
    let before = std::fs::read_to_string(&rules).unwrap();
    let rule = format!("hostssl all {role} 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"cn=\"");
    std::fs::write(&rules, format!("{rule}\n{before}")).unwrap();
    own(&rules);
    admin.run("SELECT pg_reload_conf()");
    until("the server's new rules", || {
        let there = admin.rows("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'ldap' AND error IS NULL");
        (there == [[Value::Int(1)]]).then_some(())
    });
    Rds { server, certificates, database, role, seen }
}

impl Rds {
    fn url(&self) -> String {
        format!("postgres://{}@localhost:{}/{}", self.role, self.server.port(), self.database.name)
    }

    /// By AWS's clock of the test.
    fn settings(&self, clock: &'static AtomicU64) -> Settings {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session".into()), None, "test");
        let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed));
        let access = Access {
            url: self.url(),
            password: Password::Iam(Signer::new(credentials, "eu-west-1", now)),
            ca_file: Some(self.certificates.ca.clone()),
            transaction_pooler: false,
        };
        Settings { access, ..settings(String::new(), Opening::Worker) }
    }

    fn connected(&self) -> Vec<Vec<Value>> {
        let of = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{}' ORDER BY pid", self.role);
        self.database.admin().rows(&of)
    }

    fn cut(&self) {
        let of = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", self.role);
        self.database.admin().run(&of);
    }
}

#[test]
fn new_connections_take_a_new_token_and_old_ones_live_on() {
    let rds = rds();
    let clock: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(START)));
    let store = try_open(rds.settings(clock)).unwrap();
    accept(&store, vec![news("n1", "ann")]).unwrap();
    let first = rds.seen.distinct();
    assert_eq!(first.len(), 1, "one token serves connections that are made at once");
    assert!(first[0].contains("&X-Amz-Date=20231115T000000Z&X-Amz-Expires=900&"), "{}", first[0]);
    assert!(first[0].contains("&X-Amz-Security-Token=session"), "{}", first[0]);

    // The token has ended; nobody asks those that are connected for another one.
    clock.store(START + 1_000, Ordering::Relaxed);
    *rds.seen.refuses.lock().unwrap() = Some("X-Amz-Date=20231115T000000Z".into());
    let before = rds.connected();
    accept(&store, vec![news("n2", "ann")]).unwrap();
    // The connection that looked at the schema may only now be gone.
    let after = rds.connected();
    assert!(!after.is_empty() && after.iter().all(|pid| before.contains(pid)), "{after:?}, {before:?}");
    assert_eq!(rds.seen.distinct(), first);

    rds.cut();
    until("a connection with a new token", || accept(&store, vec![news("n3", "ann")]).ok());
    let both = rds.seen.distinct();
    assert_eq!(both.len(), 2, "the ended one is not tried again");
    assert!(both[1].contains("&X-Amz-Date=20231115T001640Z&"), "{}", both[1]);
    assert_eq!(verified(&store)["items"], 3);
}

#[test]
fn a_refused_token_is_told_with_what_to_grant_and_without_it() {
    let rds = rds();
    let clock: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(START)));
    *rds.seen.refuses.lock().unwrap() = Some("X-Amz".into());
    match try_open(rds.settings(clock)) {
        Err(StoreError::Unavailable(why)) => {
            assert!(why.contains("rds_iam") && why.contains("rds-db:connect"), "{why}");
            assert!(!why.contains("X-Amz") && !why.contains("Action="), "{why}");
        }
        other => panic!("it opened: {:?}", other.err()),
    }
}

#[test]
fn a_token_goes_to_a_verified_server_only() {
    let rds = rds();
    let clock: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(START)));
    let mut clear = rds.settings(clock);
    clear.access.url += "?sslmode=disable";
    assert!(matches!(try_open(clear), Err(StoreError::Unusable(why)) if why.contains("verified server")));
    // Without a word about TLS, on loopback: nobody who is not verified gets it.
    let mut stranger = rds.settings(clock);
    stranger.access.ca_file = None;
    assert!(matches!(try_open(stranger), Err(StoreError::Unavailable(why)) if why.contains("certificate")));
    assert_eq!(rds.seen.distinct(), [""; 0]);
}

/// The real binary, with credentials as it finds them everywhere.
#[test]
fn a_worker_signs_in_with_the_credentials_of_its_environment() {
    let rds = rds();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[store]\nurl = {:?}\nauth = \"iam\"\nregion = \"eu-west-1\"\nca_file = {:?}\n[mailer]\nkind = \"outbox\"\n",
        rds.url(),
        rds.certificates.ca
    );
    std::fs::write(folder.path().join("owlpost.toml"), config).unwrap();
    let run = |args: &[&str]| {
        let mut command = owlpost(folder.path());
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "a-secret-key");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("RUST_LOG", "debug");
        let done = command.args(["-c", "owlpost.toml"]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert!(!said.contains("X-Amz-Signature") && !said.contains("a-secret-key"), "{said}");
        said
    };
    run(&["migrate"]);
    let said = run(&["check", "--live"]);
    assert!(said.contains("can be read"), "{said}");
    assert!(rds.seen.distinct().iter().all(|token| token.contains("X-Amz-Credential=AKIDEXAMPLE%2F")));
}
