//! The SES mailer: the real SDK against an endpoint that answers as SES does, and as nothing should. `tests/run ses_server`
//! speaks to an SES emulator as well.

use std::sync::Once;
use std::time::Duration;

use owlpost::aws::Identity;
use owlpost::cli::demo::endpoint::{Account, Endpoint, Fault};
use owlpost::mailer::ses::{SesMailer, Settings};
use owlpost::mailer::{Mailer, SendError};
use owlpost::model::{AttemptId, DigestId, Email, Share, Time};
use tokio::time::Instant;

/// The SDK takes credentials from the environment; these are nobody's.
fn credentials() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: every test calls this first, and nothing of these tests reads the environment besides.
        unsafe {
            std::env::set_var("AWS_ACCESS_KEY_ID", "test");
            std::env::set_var("AWS_SECRET_ACCESS_KEY", "test");
            std::env::set_var("AWS_EC2_METADATA_DISABLED", "true");
        }
    });
}

fn settings(url: &str) -> Settings {
    Settings {
        identity: Identity { region: Some("eu-west-1".into()), ..Identity::default() },
        endpoint_url: Some(url.into()),
        identity_arn: None,
        configuration_set: None,
        raw: false,
        from: "Athenz <access@example.com>".into(),
        call_timeout: Duration::from_secs(5),
    }
}

async fn mailer(endpoint: &Endpoint) -> SesMailer {
    credentials();
    SesMailer::connect(settings(&endpoint.url())).await
}

/// Without a rate, which other tests are about.
async fn endpoint() -> Endpoint {
    Endpoint::start(Account { enforced: false, ..Account::default() }).await.unwrap()
}

fn attempt(number: u32) -> AttemptId {
    AttemptId { digest: DigestId { store: 0x1f2e_3d4c, number: 200 }, number }
}

fn mail() -> Email {
    Email {
        from: "Athenz – Zugänge <access@example.com>".into(),
        reply_to: Some("team@example.com".into()),
        to: "alice@example.com".into(),
        subject: "3 approvals in sports – today".into(),
        html: "<p>Grüße</p>\n".into(),
        text: "Grüße\n".into(),
        headers: vec![
            ("Message-ID".into(), "<owlpost.1f2e3d4c-5k@example.com>".into()),
            ("References".into(), "<owlpost.thread.x@example.com>".into()),
            ("X-Owlpost-Digest".into(), "1f2e3d4c-5k".into()),
            ("Auto-Submitted".into(), "auto-generated".into()),
        ],
        date: Time::parse("2026-11-22T08:00:00Z").unwrap(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn send(mailer: &SesMailer) -> Result<String, SendError> {
    mailer.send(&mail(), attempt(2), soon()).await
}

#[tokio::test]
async fn a_mail_goes_with_its_tags_headers_set_and_identity() {
    let endpoint = endpoint().await;
    credentials();
    let arn = "arn:aws:ses:eu-west-1:111122223333:identity/example.com";
    let mailer = SesMailer::connect(Settings {
        configuration_set: Some("owlpost".into()),
        identity_arn: Some(arn.into()),
        ..settings(&endpoint.url())
    })
    .await;
    let id = send(&mailer).await.unwrap();
    let taken = endpoint.taken().remove(0);
    assert_eq!(id, taken.message_id);
    assert_eq!((taken.digest.as_str(), taken.attempt), (attempt(2).digest.to_string().as_str(), 2));
    assert_eq!((taken.to.as_str(), taken.reply_to.as_deref()), ("alice@example.com", Some("team@example.com")));
    assert!(taken.from.is_ascii() && taken.from.ends_with("<access@example.com>"), "{}", taken.from);
    assert_eq!((taken.subject.as_str(), taken.text.as_str()), ("3 approvals in sports – today", "Grüße\n"));
    assert_eq!(taken.html, "<p>Grüße</p>\n");
    assert_eq!((taken.configuration_set.as_deref(), taken.identity_arn.as_deref()), (Some("owlpost"), Some(arn)));
    let names: Vec<&str> = taken.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["References", "X-Owlpost-Digest", "Auto-Submitted"], "SES sets Message-ID itself");
}

#[tokio::test]
async fn raw_content_is_our_own_message_to_the_byte() {
    let endpoint = endpoint().await;
    credentials();
    let mailer = SesMailer::connect(Settings { raw: true, ..settings(&endpoint.url()) }).await;
    send(&mailer).await.unwrap();
    let taken = endpoint.taken().remove(0);
    assert_eq!(taken.raw.unwrap(), owlpost::mailer::mime::message(&mail(), attempt(2)).unwrap());
}

/// The table of SES's answers.
#[tokio::test]
async fn each_answer_of_ses_says_what_becomes_of_the_mail() {
    let endpoint = endpoint().await;
    let mailer = mailer(&endpoint).await;
    for (status, code, message, wanted) in [
        (429, "TooManyRequestsException", "Maximum sending rate exceeded.", "second"),
        (400, "ThrottlingException", "Maximum sending rate exceeded.", "second"),
        (400, "ThrottlingException", "Daily message quota exceeded.", "day"),
        (400, "LimitExceededException", "Daily message quota exceeded", "day"),
        (400, "AccountSuspendedException", "", "halted"),
        (400, "SendingPausedException", "Email sending is disabled", "halted"),
        (400, "MailFromDomainNotVerifiedException", "", "halted"),
        (404, "NotFoundException", "Configuration set <owlpost> does not exist", "halted"),
        (403, "AccessDeniedException", "not authorized to perform ses:SendEmail", "halted"),
        (403, "ExpiredTokenException", "The security token included in the request is expired", "halted"),
        (403, "InvalidClientTokenId", "", "halted"),
        (403, "SignatureDoesNotMatch", "", "halted"),
        (400, "MessageRejected", "Email address is not verified. …: access@example.com", "halted"),
        (400, "MessageRejected", "Email address is not verified. …: alice@example.com", "permanent"),
        (400, "MessageRejected", "bad content", "permanent"),
        (400, "BadRequestException", "Missing final '@domain'", "permanent"),
        (500, "InternalFailure", "", "ambiguous"),
        (503, "ServiceUnavailable", "", "ambiguous"),
    ] {
        let calls = endpoint.calls().len();
        endpoint.then([Fault::Refuse(status, code, message)]);
        let error = send(&mailer).await.unwrap_err();
        let got = match &error {
            SendError::NotCalled(_) => "not called",
            SendError::Retryable(_) => "retryable",
            SendError::Unreachable(_) => "unreachable",
            SendError::Throttled { share: Share::Second, .. } => "second",
            SendError::Throttled { share: Share::Day, .. } => "day",
            SendError::Halted(_) => "halted",
            SendError::Permanent(_) => "permanent",
            SendError::Ambiguous(_) => "ambiguous",
        };
        assert_eq!(got, wanted, "{status} {code} {message}: {error:?}");
        assert!(!error.to_string().contains("alice@"), "no address in what is logged: {error}");
        assert_eq!(endpoint.calls().len(), calls + 1, "the SDK tries nothing again: {code}");
    }
    assert!(send(&mailer).await.is_ok(), "and then all is well");
}

#[tokio::test]
async fn an_answer_that_does_not_come_leaves_doubt_and_no_second_call() {
    let endpoint = endpoint().await;
    credentials();
    let mailer =
        SesMailer::connect(Settings { call_timeout: Duration::from_millis(500), ..settings(&endpoint.url()) }).await;
    for fault in
        [Fault::LoseReply, Fault::Close, Fault::Garbage, Fault::TakeAndFail(502), Fault::Hang(Duration::from_secs(5))]
    {
        let calls = endpoint.calls().len();
        endpoint.then([fault.clone()]);
        let answer = send(&mailer).await;
        // Garbage is an answer of a kind: SES took it, though its id can't be read.
        let doubt = matches!(answer, Err(SendError::Ambiguous(_)));
        assert!(doubt, "{fault:?}: {answer:?}");
        assert_eq!(endpoint.calls().len(), calls + 1, "{fault:?}");
    }
    assert!(send(&mailer).await.is_ok());
}

#[tokio::test]
async fn what_is_not_reached_was_not_sent() {
    let endpoint = endpoint().await;
    let mailer = mailer(&endpoint).await;
    drop(endpoint);
    // The listener ends with its task, which is aborted by the drop.
    tokio::task::yield_now().await;
    let answer = send(&mailer).await;
    assert!(matches!(&answer, Err(SendError::Unreachable(why)) if why.contains("reach")), "{answer:?}");
}

#[tokio::test]
async fn an_address_that_ses_does_not_take_is_never_sent() {
    let endpoint = endpoint().await;
    let mailer = mailer(&endpoint).await;
    for to in ["\"a b\"@example.com", "jürgen@example.com", "alice@example.com\r\nBcc: x@y.z", "alice"] {
        let answer = mailer.send(&Email { to: to.into(), ..mail() }, attempt(1), soon()).await;
        assert!(matches!(answer, Err(SendError::Permanent(_))), "{to}: {answer:?}");
    }
    assert!(endpoint.calls().is_empty());
    mailer.send(&Email { to: "ann@bücher.example".into(), ..mail() }, attempt(1), soon()).await.unwrap();
    assert_eq!(endpoint.taken()[0].to, "ann@xn--bcher-kva.example");
}

#[tokio::test]
async fn the_account_says_what_it_may_send_and_whether_it_may_at_all() {
    let endpoint = endpoint().await;
    let mailer = mailer(&endpoint).await;
    endpoint.set(|a| a.external = 120.0);
    send(&mailer).await.unwrap();
    let account = mailer.account().await.unwrap().unwrap();
    assert_eq!((account.per_second, account.per_day, account.sent_24h), (14.0, Some(50_000), 121));
    assert_eq!(account.stopped, None);
    endpoint.set(|a| (a.per_day, a.sending) = (-1.0, false));
    let account = mailer.account().await.unwrap().unwrap();
    assert!(account.per_day.is_none() && account.stopped.is_some());
    endpoint.set(|a| a.away = true);
    assert!(mailer.account().await.is_err());
}

#[tokio::test]
async fn a_look_at_the_account_names_identity_sandbox_quota_and_sender() {
    let endpoint = Endpoint::start(Account { production: false, ..Account::default() }).await.unwrap();
    let mailer = mailer(&endpoint).await;
    let found = mailer.probe().await;
    let told: Vec<&str> = found.iter().map(|f| f.what.as_str()).collect();
    for words in ["region eu-west-1", "SANDBOX", "14 a second, 50000 in 24 hours", "identity (example.com) is verified"]
    {
        assert!(told.iter().any(|t| t.contains(words)), "{words}: {told:?}");
    }
    endpoint.set(|a| a.sending = false);
    assert!(mailer.probe().await.iter().any(|f| !f.ok && f.what.contains("switched off")));
}

#[tokio::test]
async fn a_look_at_the_account_says_what_is_missing_and_what_to_do() {
    let endpoint = endpoint().await;
    credentials();
    let with_set = Settings { configuration_set: Some("access".into()), ..settings(&endpoint.url()) };
    let mailer = SesMailer::connect(with_set).await;
    let found = async |words: &str| mailer.probe().await.into_iter().find(|f| f.what.contains(words));
    assert!(found("configuration set access is there").await.is_some_and(|f| f.ok));
    type Change = fn(&mut Account);
    let missing: [(Change, &str); 4] = [
        (|a| a.configuration_set = None, "configuration set access: NotFoundException"),
        (|a| a.configuration_set = Some(false), "switched off for configuration set access"),
        (|a| a.verified = false, "verify it in this region"),
        (|a| a.shut_down = true, "SHUTDOWN"),
    ];
    for (change, words) in missing {
        endpoint.set(change);
        let told = found(words).await;
        assert!(told.as_ref().is_some_and(|f| !f.ok), "{words}: {:?}", mailer.probe().await);
        endpoint.set(|a| *a = Account { enforced: false, ..Account::default() });
    }
}

#[tokio::test]
async fn without_a_region_no_mail_leaves_and_the_reason_is_told() {
    credentials();
    // A region of this machine's environment would be found.
    if std::env::var_os("AWS_REGION").is_some() || std::env::var_os("AWS_DEFAULT_REGION").is_some() {
        return;
    }
    let mailer = SesMailer::connect(Settings { identity: Identity::default(), ..settings("http://127.0.0.1:9") }).await;
    let answer = send(&mailer).await;
    assert!(matches!(&answer, Err(SendError::Halted(why)) if why.contains("mailer.region")), "{answer:?}");
    assert!(mailer.probe().await.iter().any(|f| !f.ok && f.what.contains("mailer.region")));
}
