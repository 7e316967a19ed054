//! The real binary against an SES that answers what no emulator does: too fast, paused, suspended, out of credentials,
//! broken, garbage, nothing, or a mail taken and its reply lost. Each answer ends in the state that the lifecycle names, and
//! burns an attempt only where the mail was at fault. Judged by the store, and by what the endpoint was asked.

use std::fs;
use std::path::Path;
use std::time::Duration;

use owlpost::cli::demo::endpoint::{Account, Endpoint, Fault};
use owlpost::model::{DigestState, ItemState};
use rusqlite::{Connection, OpenFlags};

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/process.rs"]
mod process;

use certificates::certificates;
use process::{Worker, owlpost, post, until};

/// The route buries a doubt, but not before the test has seen it.
fn config(folder: &Path, endpoint_url: &str, call_timeout: &str) {
    let text = format!(
        r#"
        [store]
        url = "sqlite:owlpost.db"
        [http]
        listen = "127.0.0.1:0"
        [[source]]
        name = "events"
        kind = "http"
        [mailer]
        kind = "ses"
        region = "eu-west-1"
        endpoint_url = "{}"
        [recipients]
        allowed_domains = ["example.com"]
        [delivery]
        call_timeout = "{call_timeout}"
        doubt_grace = "1h"
        [[directory]]
        kind = "rules"
        rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
        [[route]]
        name = "requests"
        types = ["com.example.request"]
        audience = ["{{{{data.to}}}}"]
        on_in_doubt = "bury"
        [log]
        format = "json"
        "#,
        endpoint_url
    );
    fs::write(folder.join("owlpost.toml"), text).unwrap();
}

fn run(folder: &Path) -> Worker {
    run_with(folder, &[])
}

fn run_with(folder: &Path, more: &[(&str, &Path)]) -> Worker {
    let mut command = owlpost(folder);
    command.args(["run", "-c", "owlpost.toml"]);
    command.envs(more.iter().copied());
    command.envs([
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    Worker::spawn(folder, command)
}

/// Item, digest, and whether the first attempt is known and burned: as soon as it has come to an answer.
fn ended(folder: &Path) -> Option<(ItemState, DigestState, bool)> {
    let conn = Connection::open_with_flags(folder.join("owlpost.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    conn.query_row(
        "SELECT i.state, d.state, a.free FROM item i JOIN digest d ON d.no = i.digest_no JOIN attempt a \
         ON a.digest_no = d.no AND a.n = 1 WHERE d.state <> 3",
        [],
        |row| {
            let (item, digest, free): (i64, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((ItemState::from_number(item).unwrap(), DigestState::from_number(digest).unwrap(), !free))
        },
    )
    .ok()
}

#[test]
fn every_answer_of_ses_ends_where_the_lifecycle_says_and_burns_only_what_the_mail_did() {
    use DigestState::{Closed, InDoubt, Waiting};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let waits = (ItemState::Pending, Waiting, false);
    let dead = (ItemState::Dead, Closed, true);
    let doubt = (ItemState::InDoubt, InDoubt, true);
    let cases = [
        (Fault::Refuse(429, "TooManyRequestsException", "Maximum sending rate exceeded."), waits, 0),
        (Fault::Refuse(400, "LimitExceededException", "Daily message quota exceeded"), waits, 0),
        (Fault::Refuse(400, "SendingPausedException", "Sending is paused."), waits, 0),
        (Fault::Refuse(400, "AccountSuspendedException", "Suspended."), waits, 0),
        (Fault::Refuse(400, "MailFromDomainNotVerifiedException", "Not verified."), waits, 0),
        (Fault::Refuse(403, "ExpiredTokenException", "The security token is expired"), waits, 0),
        (Fault::Refuse(400, "MessageRejected", "Bad content"), dead, 0),
        (Fault::Refuse(400, "BadRequestException", "Message is too large"), dead, 0),
        (Fault::Refuse(500, "InternalFailure", "Try again"), doubt, 0),
        (Fault::TakeAndFail(503), doubt, 1),
        (Fault::LoseReply, doubt, 1),
        (Fault::Garbage, doubt, 1),
        (Fault::Close, doubt, 0),
        (Fault::Hang(Duration::from_secs(120)), doubt, 1),
    ];
    for (fault, wanted, taken) in cases {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = runtime.block_on(Endpoint::start(Account::default())).unwrap();
        // Only the first call: what waits is called again, and a doubt is not.
        endpoint.then([fault.clone()]);
        if wanted == waits {
            // And finds the account paused, so that it goes on waiting however slow this machine is.
            endpoint.set(|account| account.sending = false);
        }
        // Only who waits for nothing waits briefly: a loaded machine may take a second for any of the others.
        let patience = if matches!(fault, Fault::Hang(_)) { "1s" } else { "10s" };
        config(folder.path(), &endpoint.url(), patience);
        let mut worker = run(folder.path());
        let address = worker.address();
        let event =
            r#"{"specversion":"1.0","id":"e1","source":"t","type":"com.example.request","data":{"to":"user.ann"}}"#;
        until("an acknowledgement", || post(&address, &[event.to_owned()]).then_some(()));
        let got = until("the end of the attempt", || ended(folder.path()));
        assert_eq!(got, wanted, "{fault:?}: {}", worker.log());
        assert_eq!(endpoint.taken().len(), taken, "{fault:?}");
        assert!(wanted == waits || endpoint.calls().len() == 1, "{fault:?}: a second call");
        assert!(!worker.log().contains("@example.com"), "{fault:?}: an address in the log: {}", worker.log());
        worker.kill();
    }
}

/// What is known must not become a doubt because the store is away in the worker's last moments: the mail would be sent again.
#[test]
fn what_was_answered_is_stored_though_the_store_is_away_at_the_stop() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = runtime.block_on(Endpoint::start(Account::default())).unwrap();
    endpoint.then([Fault::Hang(Duration::from_secs(3))]);
    config(folder.path(), &endpoint.url(), "10s");
    let mut worker = run(folder.path());
    let address = worker.address();
    let event = r#"{"specversion":"1.0","id":"e1","source":"t","type":"com.example.request","data":{"to":"user.ann"}}"#;
    until("an acknowledgement", || post(&address, &[event.to_owned()]).then_some(()));
    until("a mail that is taken and not answered", || (endpoint.taken().len() == 1).then_some(()));
    let somebody = Connection::open(folder.path().join("owlpost.db")).unwrap();
    somebody.execute_batch("BEGIN IMMEDIATE").unwrap();
    worker.signal("TERM");
    // Whoever of the two waited for the store first says so, after ten seconds; the answer came after three.
    let away = ["answers are kept", "upkeep could not use the store"];
    until("a store that is away", || away.iter().any(|told| worker.log().contains(told)).then_some(()));
    drop(somebody);
    worker.ends_with(0);
    let got = ended(folder.path());
    assert_eq!(got, Some((ItemState::Delivered, DigestState::Closed, true)));
    assert_eq!(endpoint.taken().len(), 1);
}

/// Reads a whole request over TLS, says so of each mail until its input ends, and answers with what is no record of TLS.
const BREAKS: &str = r#"
import os, re, socket, ssl, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    plain, _ = listener.accept()
    try:
        client = context.wrap_socket(plain, server_side=True)
        read = b""
        while b"\r\n\r\n" not in read:
            read += client.recv(65536)
        head, body = read.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1]) if head.startswith(b"POST") else 0
        while len(body) < length:
            body += client.recv(65536)
        if length:
            print("mail", flush=True)
        os.write(client.fileno(), b"\x17\x03\x03\x00\x20" + os.urandom(32))
        client.close()
    except (OSError, ssl.SSLError):
        plain.close()
"#;

/// It was written and may have been taken: sent again, it would be two mails where one was promised.
#[test]
fn tls_that_breaks_after_the_request_leaves_doubt_and_a_certificate_that_is_not_trusted_burns_nothing() {
    use std::io::{BufRead as _, BufReader};
    let tls = certificates();
    let mut server = std::process::Command::new("python3")
        .args(["-c", BREAKS])
        .args([&tls.cert, &tls.key])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = format!("https://localhost:{}", said.next().unwrap().unwrap());
    let trusted = [("SSL_CERT_FILE", tls.ca.as_path())];
    let doubt = (ItemState::InDoubt, DigestState::InDoubt, true);
    let waits = (ItemState::Pending, DigestState::Waiting, false);
    for (trusts, wanted) in [(&trusted[..], doubt), (&[], waits)] {
        let folder = tempfile::tempdir().unwrap();
        config(folder.path(), &url, "10s");
        let text = fs::read_to_string(folder.path().join("owlpost.toml")).unwrap();
        // What the account may send nobody can ask there.
        fs::write(folder.path().join("owlpost.toml"), text + "[quota]\nper_second = 10\nper_day = 100\n").unwrap();
        let mut worker = run_with(folder.path(), trusts);
        let address = worker.address();
        let event =
            r#"{"specversion":"1.0","id":"e1","source":"t","type":"com.example.request","data":{"to":"user.ann"}}"#;
        until("an acknowledgement", || post(&address, &[event.to_owned()]).then_some(()));
        let got = until("the end of the attempt", || ended(folder.path()));
        assert_eq!(got, wanted, "{}", worker.log());
        worker.kill();
    }
    drop(server.stdin.take());
    server.wait().unwrap();
    assert_eq!(said.map_while(Result::ok).collect::<Vec<_>>(), ["mail"]);
}

/// No call was made, so there is nothing to doubt: on a route that buries doubts each would be a mail that is lost.
#[test]
fn a_token_service_that_never_answers_leaves_no_doubt_and_burns_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = runtime.block_on(Endpoint::start(Account::default())).unwrap();
    config(folder.path(), &endpoint.url(), "2s");
    let text = fs::read_to_string(folder.path().join("owlpost.toml")).unwrap();
    fs::write(folder.path().join("owlpost.toml"), text + "[quota]\nper_second = 10\nper_day = 100\n").unwrap();
    // It takes connections, and that is all.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(folder.path().join("token"), "a.b.c").unwrap();
    let mut command = owlpost(folder.path());
    command.args(["run", "-c", "owlpost.toml"]);
    command.envs([
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/owlpost"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL_STS", &format!("http://{}", hangs.local_addr().unwrap())),
    ]);
    let mut worker = Worker::spawn(folder.path(), command);
    let address = worker.address();
    let events: Vec<String> = (0..8)
        .map(|n| {
            format!(r#"{{"specversion":"1.0","id":"e{n}","source":"t","type":"com.example.request","data":{{"to":"user.p{n}"}}}}"#)
        })
        .collect();
    until("an acknowledgement", || post(&address, &events).then_some(()));
    let conn = Connection::open_with_flags(folder.path().join("owlpost.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = |what: &str| -> i64 {
        conn.query_row(&format!("SELECT count(*) FROM {what}"), (), |row| row.get(0)).unwrap_or_default()
    };
    until("all answers", || (count("attempt WHERE outcome > 0") + count("item WHERE state <> 0") >= 8).then_some(()));
    assert_eq!(count("attempt WHERE outcome = 1 AND free = 1"), 8, "{}", worker.log());
    assert_eq!((count("item WHERE state = 0"), endpoint.calls().len()), (8, 0));
    assert!(worker.log().contains("no AWS credentials"), "{}", worker.log());
    worker.kill();
}

/// The SDK would end the whole worker over it, intake and all.
#[test]
fn a_key_with_a_line_break_holds_the_mail_and_its_reason_is_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = runtime.block_on(Endpoint::start(Account::default())).unwrap();
    config(folder.path(), &endpoint.url(), "10s");
    let text = fs::read_to_string(folder.path().join("owlpost.toml")).unwrap();
    fs::write(folder.path().join("owlpost.toml"), text + "[quota]\nper_second = 10\nper_day = 100\n").unwrap();
    let with_keys = |arguments: &[&str]| {
        let mut command = owlpost(folder.path());
        command.args(arguments).args(["-c", "owlpost.toml"]);
        let keys = [("AWS_ACCESS_KEY_ID", "AKIATEST\n"), ("AWS_SECRET_ACCESS_KEY", "test")];
        command.envs(keys).env("AWS_EC2_METADATA_DISABLED", "true");
        command
    };
    let mut worker = Worker::spawn(folder.path(), with_keys(&["run"]));
    let address = worker.address();
    let event = r#"{"specversion":"1.0","id":"e1","source":"t","type":"com.example.request","data":{"to":"user.ann"}}"#;
    until("an acknowledgement", || post(&address, &[event.to_owned()]).then_some(()));
    let got = until("the end of the attempt", || ended(folder.path()));
    assert_eq!(got, (ItemState::Pending, DigestState::Waiting, false), "{}", worker.log());
    assert!(worker.is_running() && endpoint.calls().is_empty());
    assert!(worker.log().contains("the access key id has blanks or a line break"), "{}", worker.log());
    assert!(!worker.log().contains("AKIATEST"), "{}", worker.log());
    worker.kill();
    let checked = with_keys(&["check", "--live"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("the access key id has blanks or a line break"), "{said}");
}
