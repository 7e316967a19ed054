//! The SMTP mailer against a real SMTP server (aiosmtpd, `tests/servers/smtp_sink.py`) with STARTTLS, TLS and logins, and
//! against servers that break off where no real one does. `tests/run smtp` sets the server up.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use owlpost::mailer::smtp::{Settings, SmtpMailer, Tls};
use owlpost::mailer::{Mailer, SendError};
use owlpost::model::{AttemptId, DigestId, Email, Share, Time};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

#[path = "support/process.rs"]
mod process;
#[path = "support/sink.rs"]
mod sink;

use sink::{Sink, certificates};

fn attempt(number: u32) -> AttemptId {
    AttemptId { digest: DigestId { store: 0x1f2e_3d4c, number: 200 }, number }
}

fn mail(to: &str) -> Email {
    Email {
        from: "Athenz <access@example.com>".into(),
        reply_to: None,
        to: to.into(),
        subject: "3 approvals in sports".into(),
        html: "<p>Grüße</p>\n".into(),
        text: ".\nGrüße\n.. and dots\n".into(),
        headers: vec![
            ("Message-ID".into(), "<owlpost.1f2e3d4c-5k@example.com>".into()),
            ("X-Owlpost-Digest".into(), "1f2e3d4c-5k".into()),
        ],
        date: Time::parse("2026-11-22T08:00:00Z").unwrap(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn settings(port: u16, tls: Tls) -> Settings {
    Settings {
        host: "localhost".into(),
        port: Some(port),
        tls,
        ca_file: None,
        login: None,
        call_timeout: Duration::from_secs(5),
        connections: 4,
    }
}

async fn send(mailer: &SmtpMailer, mail: &Email) -> Result<String, SendError> {
    mailer.send(mail, attempt(1), soon()).await
}

#[tokio::test]
async fn a_mail_arrives_over_every_kind_of_connection_and_with_a_login() {
    let tls = certificates();
    let sink = Sink::start(&["--user", "owlpost", "--password", "s3cret"], Some(&tls));
    let login = Some(("owlpost".to_owned(), "s3cret".to_owned()));
    for (kind, name) in [(Tls::Starttls, "starttls"), (Tls::Implicit, "implicit"), (Tls::None, "plain")] {
        let ca_file = (kind != Tls::None).then(|| tls.ca.clone());
        let settings = Settings { login: login.clone(), ca_file, ..settings(sink.port(name), kind) };
        let mailer = SmtpMailer::new(settings).unwrap();
        let id = send(&mailer, &mail(&format!("{name}@example.com"))).await.unwrap();
        assert!(id.starts_with("SINK"), "the server's own id: {id}");
        let found: Vec<String> = mailer.probe().await.into_iter().map(|f| format!("{} {}", f.ok, f.what)).collect();
        assert!(found.iter().all(|f| f.starts_with("true ")), "{found:?}");
    }
    let mails = sink.mails();
    assert_eq!(mails.len(), 3);
    for mail in &mails {
        assert_eq!(mail["from"], "access@example.com");
        assert_eq!(mail["user"], "owlpost");
        let raw = base64::engine::general_purpose::STANDARD.decode(mail["raw"].as_str().unwrap()).unwrap();
        let raw = String::from_utf8(raw).unwrap();
        assert!(raw.contains("X-Owlpost-Digest: 1f2e3d4c-5k\r\n") && raw.contains("Message-ID: <owlpost."), "{raw}");
    }
    assert_eq!(mails.iter().filter(|m| m["tls"] == true).count(), 1, "aiosmtpd knows STARTTLS only as TLS");
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let sink = Sink::start(&[], None);
    let mailer = SmtpMailer::new(settings(sink.port("plain"), Tls::None)).unwrap();
    for n in 0..5 {
        send(&mailer, &mail(&format!("p{n}@example.com"))).await.unwrap();
    }
    let peers: std::collections::BTreeSet<u64> = sink.mails().iter().map(|m| m["peer"].as_u64().unwrap()).collect();
    assert_eq!(peers.len(), 1, "one connection served all");
}

#[tokio::test]
async fn each_answer_of_each_step_says_what_becomes_of_the_mail() {
    let sink = Sink::start(&["--size", "20000"], None);
    let mailer = SmtpMailer::new(settings(sink.port("plain"), Tls::None)).unwrap();
    let class = async |mail: Email| match send(&mailer, &mail).await {
        Ok(_) => "accepted",
        Err(SendError::NotCalled(_)) => "not called",
        Err(SendError::Retryable(_)) => "retryable",
        Err(SendError::Unreachable(_)) => "unreachable",
        Err(SendError::Throttled { share: Share::Second, .. }) => "throttled",
        Err(SendError::Throttled { share: Share::Day, .. }) => "day",
        Err(SendError::Halted(_)) => "halted",
        Err(SendError::Permanent(_)) => "permanent",
        Err(SendError::Ambiguous(_)) => "ambiguous",
    };
    for (to, wanted) in [
        ("r451.a@example.com", "retryable"),
        ("r550.a@example.com", "permanent"),
        ("d451.a@example.com", "retryable"),
        ("d554.a@example.com", "permanent"),
        ("451.a@example.com", "retryable"),
        ("550.a@example.com", "permanent"),
        ("454.a@example.com", "throttled"),
        ("454day.a@example.com", "day"),
        ("close.a@example.com", "retryable"),
        ("421.a@example.com", "retryable"),
        ("drop.a@example.com", "ambiguous"),
        ("ann@example.com", "accepted"),
    ] {
        assert_eq!(class(mail(to)).await, wanted, "{to}");
        assert_eq!(class(mail("next@example.com")).await, "accepted", "the one after {to} is not held up");
    }
    let from = |from: &str| Email { from: from.into(), ..mail("ann@example.com") };
    assert_eq!(class(from("m451.x@example.com")).await, "retryable");
    assert_eq!(class(from("m550.x@example.com")).await, "halted", "a sender that may not send concerns every mail");
    let large = Email { html: "x".repeat(60_000), ..mail("ann@example.com") };
    assert_eq!(class(large).await, "permanent");
    for to in ["\"a b\"@example.com", "ann@exa mple.com"] {
        assert_eq!(class(mail(to)).await, "permanent", "{to}");
    }
    assert_eq!(class(mail("ann@bücher.example")).await, "accepted");
    assert!(sink.mails().iter().any(|m| m["to"][0] == "ann@xn--bcher-kva.example"));
}

/// The caller gives up: that is the doubt which it records. What the server says later is the answer to that mail, and the
/// next one must not take it for its own.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_the_next_mails() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mailer = SmtpMailer::new(settings(socket.local_addr().unwrap().port(), Tls::None)).unwrap();
    let (waits, seen) = tokio::sync::oneshot::channel();
    let (given_up, late) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut first, _) = socket.accept().await.unwrap();
        dialogue(&mut first).await;
        waits.send(()).unwrap();
        late.await.unwrap();
        // Whoever takes this connection again finds an answer that looks like an acceptance at every step.
        let _ = first.write_all(b"250 2.0.0 queued as LATE01\r\n250 ok\r\n250 ok\r\n354 ok\r\n").await;
        let (mut second, _) = socket.accept().await.unwrap();
        dialogue(&mut second).await;
        let _ = second.write_all(b"250 2.0.0 queued as NEXT01\r\n").await;
        std::future::pending::<()>().await;
    });
    let slow = mail("ann@example.com");
    tokio::select! {
        answer = send(&mailer, &slow) => panic!("{answer:?}"),
        _ = seen => {}
    }
    given_up.send(()).unwrap();
    assert_eq!(send(&mailer, &mail("bob@example.com")).await, Ok("NEXT01".into()));
}

/// Up to the end of a mail, whose answer is up to the caller.
async fn dialogue(stream: &mut tokio::net::TcpStream) {
    let mut lines = tokio::io::BufReader::new(stream);
    lines.get_mut().write_all(b"220 hello\r\n").await.unwrap();
    let (mut line, mut in_data) = (String::new(), false);
    while lines.read_line(&mut line).await.unwrap() > 0 {
        if in_data && line == ".\r\n" {
            return;
        }
        if !in_data {
            in_data = line == "DATA\r\n";
            let answer = if in_data { "354 go on\r\n" } else { "250 ok\r\n" };
            lines.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
        line.clear();
    }
}

/// Whoever waits for the call gives it up after its time, and has to doubt it then.
#[tokio::test]
async fn a_server_that_hangs_before_the_end_of_a_mail_leaves_no_doubt() {
    let hangs: [&'static [&'static str]; 5] = [
        &[],
        &["220 hello"],
        &["220 hello", "250 sink"],
        &["220 hello", "250 sink", "250 ok"],
        &["220 hello", "250 sink", "250 ok", "250 ok"],
    ];
    for script in hangs {
        let call_timeout = Duration::from_millis(400);
        let settings = Settings { call_timeout, ..settings(scripted(script).await, Tls::None) };
        let mailer = SmtpMailer::new(settings).unwrap();
        let answer = tokio::time::timeout(call_timeout, send(&mailer, &mail("ann@example.com"))).await;
        // Before the first mail there is none that could be at fault.
        let fits = match script.len() {
            0 | 1 => matches!(answer, Ok(Err(SendError::Unreachable(_)))),
            _ => matches!(answer, Ok(Err(SendError::Retryable(_)))),
        };
        assert!(fits, "{script:?}: {answer:?}");
    }
    let to_the_end = scripted(&["220 hello", "250 sink", "250 ok", "250 ok", "354 go on"]).await;
    let call_timeout = Duration::from_secs(2);
    let mailer = SmtpMailer::new(Settings { call_timeout, ..settings(to_the_end, Tls::None) }).unwrap();
    let answer = tokio::time::timeout(call_timeout, send(&mailer, &mail("ann@example.com"))).await;
    assert!(answer.is_err(), "{answer:?}: the caller has to doubt this one");
}

/// A permit of the account's rate is for its moment; a connection may take longer to open.
#[tokio::test]
async fn a_mail_whose_moment_passed_while_its_connection_was_opened_is_not_begun() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mailer = SmtpMailer::new(settings(socket.local_addr().unwrap().port(), Tls::None)).unwrap();
    let by = Instant::now() + Duration::from_millis(50);
    tokio::spawn(async move {
        let (mut only, _) = socket.accept().await.unwrap();
        tokio::time::sleep_until(by + Duration::from_millis(1)).await;
        dialogue(&mut only).await;
        let _ = only.write_all(b"250 2.0.0 queued as FIRST1\r\n").await;
        std::future::pending::<()>().await;
    });
    let late = mailer.send(&mail("ann@example.com"), attempt(1), by).await;
    assert!(matches!(late, Err(SendError::NotCalled(_))), "{late:?}");
    // The same connection.
    assert_eq!(send(&mailer, &mail("ann@example.com")).await, Ok("FIRST1".into()));
}

#[tokio::test]
async fn a_wrong_password_and_an_untrusted_certificate_halt_and_say_so() {
    let tls = certificates();
    let sink = Sink::start(&["--user", "owlpost", "--password", "s3cret"], Some(&tls));
    let wrong = Some(("owlpost".to_owned(), "guess".to_owned()));
    let told = async |settings: Settings| {
        let mailer = SmtpMailer::new(settings).unwrap();
        let found = mailer.probe().await;
        let bad: Vec<&str> = found.iter().filter(|f| !f.ok).map(|f| f.what.as_str()).collect();
        assert_eq!(bad.len(), 1, "{found:?}");
        match send(&mailer, &mail("ann@example.com")).await {
            Err(SendError::Halted(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let port = sink.port("starttls");
    let trusted = || Settings { ca_file: Some(tls.ca.clone()), ..settings(port, Tls::Starttls) };
    let why = told(Settings { login: wrong, ..trusted() }).await;
    assert!(why.contains("535") && !why.contains("guess"), "{why}");
    // A login that is missing shows only where a mail begins.
    let mailer = SmtpMailer::new(trusted()).unwrap();
    let answer = send(&mailer, &mail("ann@example.com")).await;
    assert!(matches!(&answer, Err(SendError::Halted(why)) if why.contains("530")), "{answer:?}");
    let why = told(settings(port, Tls::Starttls)).await;
    assert!(why.contains("certificate"), "{why}");
    let why = told(settings(sink.port("implicit"), Tls::Implicit)).await;
    assert!(why.contains("certificate"), "{why}");
    let why = told(Settings { host: "127.0.0.1".into(), ..trusted() }).await;
    assert!(why.contains("certificate"), "the certificate names localhost only: {why}");
    let why = told(Settings { ca_file: Some(tls.ca.clone()), ..settings(sink.port("plain"), Tls::Starttls) }).await;
    assert!(why.contains("STARTTLS"), "{why}");
    assert!(sink.mails().is_empty());
}

#[test]
fn a_certificate_file_that_is_none_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let why =
        |file: PathBuf| SmtpMailer::new(Settings { ca_file: Some(file), ..settings(1, Tls::Starttls) }).err().unwrap();
    assert!(why(file.clone()).contains("ca.pem"));
    fs::write(&file, "nothing").unwrap();
    assert!(why(file).contains("BEGIN CERTIFICATE"));
}

/// Speaks line by line: an answer for each line that comes, `!` closes the connection.
async fn scripted(script: &'static [&'static str]) -> u16 {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            tokio::spawn(async move {
                let mut line = vec![0; 4096];
                for (n, said) in script.iter().enumerate() {
                    if n > 0 && stream.read(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if *said == "!" {
                        return;
                    }
                    let _ = stream.write_all(format!("{said}\r\n").as_bytes()).await;
                }
                // Says nothing more.
                let _ = stream.read(&mut line).await;
                std::future::pending::<()>().await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_greeting_that_is_none_means_that_nothing_was_sent() {
    for (script, wanted) in [
        (&["421 too busy"][..], "unreachable"),
        (&["554 no service for you"], "halted"),
        (&["!"], "unreachable"),
        (&["220 hello", "!"], "unreachable"),
        (&["HTTP/1.1 400 Bad Request"], "unreachable"),
        (&["220 hello", "250 sink", "250 ok", "!"], "retryable"),
        (&["220 hello", "250 sink", "250 ok", "250 ok", "354 go on", "!"], "ambiguous"),
    ] {
        let mailer = SmtpMailer::new(settings(scripted(script).await, Tls::None)).unwrap();
        let got = match send(&mailer, &mail("ann@example.com")).await {
            Err(SendError::Retryable(_)) => "retryable",
            Err(SendError::Unreachable(_)) => "unreachable",
            Err(SendError::Halted(_)) => "halted",
            Err(SendError::Ambiguous(_)) => "ambiguous",
            other => panic!("{script:?}: {other:?}"),
        };
        assert_eq!(got, wanted, "{script:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mailer = SmtpMailer::new(settings(nobody, Tls::None)).unwrap();
    let refused = send(&mailer, &mail("ann@example.com")).await;
    assert!(matches!(&refused, Err(SendError::Unreachable(why)) if why.contains("reach")), "{refused:?}");
}

#[tokio::test]
async fn a_refusal_before_the_first_mail_halts_and_trouble_that_passes_does_not() {
    const STARTTLS: &str = "250-sink\r\n250 STARTTLS";
    const AUTH: &str = "250-sink\r\n250 AUTH PLAIN LOGIN";
    let scripts: [(&'static [&'static str], Tls, &str); 8] = [
        (&["220 hello", "451 not now", "451 not now", "221 bye"], Tls::None, "unreachable"),
        (&["220 hello", "554 not you", "554 not you", "221 bye"], Tls::None, "halted"),
        (&["220 hello", STARTTLS, "454 4.7.0 TLS not available", "221 bye"], Tls::Starttls, "unreachable"),
        (&["220 hello", STARTTLS, "554 5.7.3 no TLS for you", "221 bye"], Tls::Starttls, "halted"),
        (&["220 hello", STARTTLS, "!"], Tls::Starttls, "unreachable"),
        (&["220 hello", AUTH, "454 4.7.0 Temporary authentication failure", "221 bye"], Tls::None, "unreachable"),
        (&["220 hello", AUTH, "535 5.7.8 Authentication credentials invalid", "221 bye"], Tls::None, "halted"),
        (&["220 hello", AUTH, "!"], Tls::None, "unreachable"),
    ];
    for (script, tls, wanted) in scripts {
        let login = script.contains(&AUTH).then(|| ("owlpost".to_owned(), "s3cret".to_owned()));
        let mailer = SmtpMailer::new(Settings { login, ..settings(scripted(script).await, tls) }).unwrap();
        let answer = send(&mailer, &mail("ann@example.com")).await;
        let got = match &answer {
            Err(SendError::Retryable(_)) => "retryable",
            Err(SendError::Unreachable(_)) => "unreachable",
            Err(SendError::Halted(_)) => "halted",
            other => panic!("{script:?}: {other:?}"),
        };
        assert_eq!(got, wanted, "{script:?}: {answer:?}");
        assert!(!format!("{answer:?}").contains("in time"), "{script:?}: {answer:?}");
        assert!(!format!("{answer:?}").contains("s3cret"), "{answer:?}");
    }
}

/// Servers close what is idle; the mail that finds out goes over a new connection.
#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_mail() {
    let port =
        scripted(&["220 hello", "250 sink", "250 ok", "250 ok", "354 go on", "250 2.0.0 queued as A1B2C3", "!"]).await;
    let mailer = SmtpMailer::new(settings(port, Tls::None)).unwrap();
    for _ in 0..3 {
        assert!(send(&mailer, &mail("ann@example.com")).await.is_ok());
    }
}
