//! One suite for every mailer, then what only one of them promises.

use std::path::Path;
use std::time::Duration;

use owlpost::mailer::capture::{CaptureMailer, Script};
use owlpost::mailer::discard::DiscardMailer;
use owlpost::mailer::outbox::OutboxMailer;
use owlpost::mailer::{Mailer, SendError, mime};
use owlpost::model::{AttemptId, DigestId, Email, Time};
use tokio::time::Instant;

fn attempt(number: u32) -> AttemptId {
    AttemptId { digest: DigestId { store: 0x1f2e_3d4c, number: 200 }, number }
}

fn mail() -> Email {
    Email {
        from: "Athenz <access@example.com>".into(),
        reply_to: Some("access-team@example.com".into()),
        to: "alice@example.com".into(),
        subject: "user.joe asks to join sports:role.writers".into(),
        html: "<p>Grüße</p>\n".into(),
        text: "Grüße\n".into(),
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

/// What every mailer does the same way.
async fn keeps_the_rules_of_all_mailers(mailer: &dyn Mailer, kept: &dyn Fn() -> usize) {
    let name = mailer.kind();
    let too_late = Instant::now();
    tokio::time::advance(Duration::from_millis(1)).await;
    let late = mailer.send(&mail(), attempt(1), too_late).await;
    assert!(matches!(late, Err(SendError::NotCalled(_))), "{name}: {late:?}");

    for to in ["", "alice", "a b@example.com", "alice@example.com\r\nBcc: x@y.z", "alice@example.com, bob@example.com"]
    {
        let Err(SendError::Permanent(why)) = mailer.send(&Email { to: to.into(), ..mail() }, attempt(1), soon()).await
        else {
            panic!("{name} took the address {to:?}")
        };
        assert!(!why.contains("example.com"), "{name} tells the address: {why}");
    }
    for (key, value) in [("X-A", "a\r\nBcc: x@example.com"), ("X\nB", "b")] {
        let forged = Email { headers: vec![(key.into(), value.into())], ..mail() };
        assert!(matches!(mailer.send(&forged, attempt(1), soon()).await, Err(SendError::Permanent(_))), "{name}");
    }
    let forged = Email { subject: "a\r\nBcc: x@example.com".into(), ..mail() };
    assert!(matches!(mailer.send(&forged, attempt(1), soon()).await, Err(SendError::Permanent(_))), "{name}");
    assert_eq!(kept(), 0, "{name} kept a mail that it refused");

    let first = mailer.send(&mail(), attempt(1), soon()).await.unwrap();
    assert_eq!(first, "<owlpost.1f2e3d4c-5k@example.com>", "{name}");
    assert_eq!(kept(), 1, "{name}");
    assert!(mailer.probe().await.iter().all(|f| f.ok), "{name}");
    assert_eq!(mailer.account().await, Ok(None), "{name}");
    assert!(!mailer.gives_evidence(), "{name}");
}

/// ... and those that keep mails.
async fn the_same_attempt_twice_leaves_one_mail(mailer: &dyn Mailer, kept: &dyn Fn() -> usize) {
    mailer.send(&mail(), attempt(1), soon()).await.unwrap();
    assert_eq!(kept(), 1, "{}", mailer.kind());
    mailer.send(&mail(), attempt(2), soon()).await.unwrap();
    assert_eq!(kept(), 2, "{}", mailer.kind());
}

fn files(dir: &Path, ending: &str) -> usize {
    let Ok(listing) = std::fs::read_dir(dir) else { return 0 };
    listing.filter(|e| e.as_ref().unwrap().path().to_string_lossy().ends_with(ending)).count()
}

#[tokio::test(start_paused = true)]
async fn the_outbox_keeps_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mails");
    let mailer = OutboxMailer::new(&path);
    keeps_the_rules_of_all_mailers(&mailer, &|| files(&path, ".eml")).await;
    the_same_attempt_twice_leaves_one_mail(&mailer, &|| files(&path, ".eml")).await;
    assert_eq!(files(&path, ""), 4, "two .eml, two .html and nothing beside");
    assert_eq!(std::fs::read_to_string(path.join("1f2e3d4c-5k.1.html")).unwrap(), mail().html);
}

#[tokio::test(start_paused = true)]
async fn the_capture_keeps_the_rules() {
    let mailer = CaptureMailer::new();
    keeps_the_rules_of_all_mailers(&mailer, &|| mailer.sent().len()).await;
    the_same_attempt_twice_leaves_one_mail(&mailer, &|| mailer.sent().len()).await;
}

#[tokio::test(start_paused = true)]
async fn the_discarder_keeps_the_rules() {
    let mailer = DiscardMailer::new();
    keeps_the_rules_of_all_mailers(&mailer, &|| mailer.count() as usize).await;
}

#[tokio::test(start_paused = true)]
async fn a_scripted_answer_says_whether_the_mail_was_kept() {
    let mailer = CaptureMailer::new();
    mailer.then(Script::Refuse(SendError::Halted("suspended".into())));
    mailer.then(Script::KeepAndFail(SendError::Ambiguous("no answer".into())));
    assert!(matches!(mailer.send(&mail(), attempt(1), soon()).await, Err(SendError::Halted(_))));
    assert_eq!(mailer.sent().len(), 0);
    assert!(matches!(mailer.send(&mail(), attempt(2), soon()).await, Err(SendError::Ambiguous(_))));
    assert_eq!(mailer.sent()[0].0, attempt(2));
    mailer.send(&mail(), attempt(3), soon()).await.unwrap();
    assert_eq!((mailer.sent().len(), mailer.calls()), (2, 3));
}

#[tokio::test]
async fn an_outbox_that_cannot_write_burns_no_attempt_and_says_where_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "in the way").unwrap();
    let mailer = OutboxMailer::new(&path);
    let Err(SendError::Halted(why)) = mailer.send(&mail(), attempt(1), soon()).await else { panic!("not halted") };
    assert!(why.contains(&path.display().to_string()) && why.contains("mailer.dir"), "{why}");
    assert!(mailer.probe().await.iter().any(|f| !f.ok && f.what.contains("mailer.dir")));
}

/// `/dev/full` answers every write with ENOSPC: a link of the temporary file's name to it stands for a full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_burns_no_attempt_and_leaves_no_half_mail() {
    let dir = tempfile::tempdir().unwrap();
    let name = "1f2e3d4c-5k.1";
    std::os::unix::fs::symlink("/dev/full", dir.path().join(format!(".{name}.eml.part"))).unwrap();
    let mailer = OutboxMailer::new(dir.path());
    let Err(SendError::Halted(why)) = mailer.send(&mail(), attempt(1), soon()).await else { panic!("not halted") };
    assert!(why.contains("free some space"), "{why}");
    assert_eq!((files(dir.path(), ".eml"), files(dir.path(), ".part")), (0, 0));
    mailer.send(&mail(), attempt(1), soon()).await.unwrap();
    assert_eq!(files(dir.path(), ".eml"), 1);
}

#[test]
fn the_same_mail_and_attempt_give_the_same_bytes() {
    assert_eq!(mime::message(&mail(), attempt(1)).unwrap(), mime::message(&mail(), attempt(1)).unwrap());
}

#[test]
fn a_message_is_mime_with_both_parts_and_the_store_s_date() {
    let bytes = String::from_utf8(mime::message(&mail(), attempt(1)).unwrap()).unwrap();
    let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
    for line in [
        "From: Athenz <access@example.com>",
        "To: alice@example.com",
        "Reply-To: access-team@example.com",
        "Date: Sun, 22 Nov 2026 08:00:00 +0000",
        "MIME-Version: 1.0",
        "Message-ID: <owlpost.1f2e3d4c-5k@example.com>",
        "X-Owlpost-Digest: 1f2e3d4c-5k",
    ] {
        assert!(head.split("\r\n").any(|l| l == line), "{line} is not in\n{head}");
    }
    assert!(head.contains("multipart/alternative") && head.contains("boundary=\"=_owlpost_1f2e3d4c-5k.1\""));
    assert_eq!(body.matches("--=_owlpost_1f2e3d4c-5k.1\r\n").count(), 2);
    assert!(body.trim_end().ends_with("--=_owlpost_1f2e3d4c-5k.1--"));
    assert!(body.find("text/plain").unwrap() < body.find("text/html").unwrap(), "the best form comes last");
    assert!(bytes.is_ascii() && bytes.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
}

#[test]
fn a_value_that_forges_the_boundary_ends_no_part() {
    let text = "--=_owlpost_1f2e3d4c-5k.1--\n".to_owned();
    let bytes = String::from_utf8(mime::message(&Email { text, ..mail() }, attempt(1)).unwrap()).unwrap();
    assert!(bytes.contains("boundary=\"=_owlpost_1f2e3d4c-5k.1_\""), "{bytes}");
    let every: String = (0..80).map(|n| format!("--=_owlpost_1f2e3d4c-5k.1{}\n", "_".repeat(n))).collect();
    let bytes = String::from_utf8(mime::message(&Email { text: every, ..mail() }, attempt(1)).unwrap()).unwrap();
    assert!(bytes.contains("boundary=\"=_") && !bytes.contains("boundary=\"=_owlpost"));
}

#[test]
fn times_at_the_ends_of_the_calendar_make_a_date() {
    for date in [Time(i64::MIN), Time::MIN, Time(-1), Time(0), Time::MAX, Time(i64::MAX)] {
        mime::message(&Email { date, ..mail() }, attempt(1)).unwrap();
    }
}

#[test]
fn a_wrong_sender_concerns_every_mail() {
    let wrong = Email { from: "nobody".into(), ..mail() };
    assert!(matches!(mime::message(&wrong, attempt(1)), Err(SendError::Halted(why)) if why.contains("mailer.from")));
}
