//! An SES endpoint on loopback, as far as owlpost uses SES: `SendEmail`, `GetAccount`, `GetEmailIdentity` and
//! `GetConfigurationSet` of API version 2, and STS's `GetCallerIdentity`. It keeps every mail that it takes, holds callers
//! to a rate, and fails as told: for `demo --ses`, and for the tests of what no emulator can do.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// SES takes 40 MB; ours is never that large.
const BODY_MAX_BYTES: usize = 41 * 1024 * 1024;

/// What the next `SendEmail` comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing is wrong: the mail is taken and answered.
    Take,
    /// Refused, as SES says it: HTTP status, code, message.
    Refuse(u16, &'static str, &'static str),
    /// The mail is taken and the connection closed without an answer.
    LoseReply,
    /// The connection is closed before anything is taken.
    Close,
    /// The mail is taken; the answer comes after so long.
    Hang(Duration),
    /// The mail is taken; the answer is a page of something else.
    Garbage,
    /// The mail is taken; the answer is this status.
    TakeAndFail(u16),
}

/// The account, as `GetAccount` tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Account {
    pub per_second: f64,
    /// -1: without a bound.
    pub per_day: f64,
    /// What others sent in the last 24 hours.
    pub external: f64,
    pub sending: bool,
    pub production: bool,
    /// The sender's identity is verified.
    pub verified: bool,
    /// SES has shut the account down.
    pub shut_down: bool,
    /// `None`: there is no such configuration set; `Some(false)`: it sends nothing.
    pub configuration_set: Option<bool>,
    /// `GetAccount` fails.
    pub away: bool,
    /// Refuse what comes faster than `per_second` in any second, and more than `per_day`.
    pub enforced: bool,
}

impl Default for Account {
    fn default() -> Account {
        Account {
            per_second: 14.0,
            per_day: 50_000.0,
            external: 0.0,
            sending: true,
            production: true,
            verified: true,
            shut_down: false,
            configuration_set: Some(true),
            away: false,
            enforced: true,
        }
    }
}

/// A mail that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub message_id: String,
    /// The tags `owlpost-digest` and `owlpost-attempt`.
    pub digest: String,
    pub attempt: u32,
    pub from: String,
    pub to: String,
    pub reply_to: Option<String>,
    pub subject: String,
    pub html: String,
    pub text: String,
    pub headers: Vec<(String, String)>,
    /// Of content `raw`: the whole message.
    pub raw: Option<Vec<u8>>,
    pub configuration_set: Option<String>,
    pub identity_arn: Option<String>,
}

#[derive(Default)]
struct State {
    account: Account,
    faults: VecDeque<Fault>,
    taken: Vec<Taken>,
    /// When calls came, refused ones too; the last second's, for the rate.
    calls: Vec<Instant>,
    accepted_at: VecDeque<Instant>,
    refused_for_rate: u64,
    /// Mails are counted only, as a benchmark wants it.
    forgetful: bool,
    count: u64,
}

/// A running endpoint; it ends when this is dropped.
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// Listens on any free port of this machine.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(account: Account) -> io::Result<Endpoint> {
        Endpoint::on("127.0.0.1:0", account).await
    }

    /// # Errors
    /// The address can't be listened on.
    pub async fn on(listen: &str, account: Account) -> io::Result<Endpoint> {
        let socket = TcpListener::bind(listen).await?;
        let address = socket.local_addr()?;
        let state = Arc::new(Mutex::new(State { account, ..State::default() }));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = socket.accept().await else { continue };
                // An answer is small: it must not wait for more.
                let _ = stream.set_nodelay(true);
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Endpoint { address, state, server })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next calls of `SendEmail` come to these, one each; then mails are taken again.
    pub fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state).faults.extend(faults);
    }

    pub fn set(&self, change: impl FnOnce(&mut Account)) {
        change(&mut lock(&self.state).account);
    }

    /// From now on mails are counted, not kept.
    pub fn forget_mails(&self) {
        lock(&self.state).forgetful = true;
    }

    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.state).taken.clone()
    }

    /// How many mails were taken.
    pub fn count(&self) -> u64 {
        lock(&self.state).count
    }

    /// How many calls of `SendEmail` came.
    pub fn calls(&self) -> Vec<Instant> {
        lock(&self.state).calls.clone()
    }

    pub fn refused_for_rate(&self) -> u64 {
        lock(&self.state).refused_for_rate
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each change is whole when a lock is let go.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// hyper closes the connection without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let path = request.uri().path().to_owned();
    let body = to_bytes(Body::new(request.into_body()), BODY_MAX_BYTES).await.map_err(|_| Closed)?;
    if path == "/v2/email/outbound-emails" {
        return send(&state, &body).await;
    }
    let account = lock(&state).account;
    let sent = lock(&state).accepted_at.len() as f64;
    Ok(match path.as_str() {
        "/v2/email/account" if account.away => refused(500, "InternalFailure", "try again"),
        "/v2/email/account" => told(&json!({
            "EnforcementStatus": if account.shut_down { "SHUTDOWN" } else { "HEALTHY" },
            "ProductionAccessEnabled": account.production,
            "SendingEnabled": account.sending, "DedicatedIpAutoWarmupEnabled": false,
            "SendQuota": {
                "Max24HourSend": account.per_day, "MaxSendRate": account.per_second,
                "SentLast24Hours": sent + account.external,
            },
        })),
        _ if path.starts_with("/v2/email/identities/") => {
            told(&json!({"IdentityType": "DOMAIN", "VerifiedForSendingStatus": account.verified}))
        }
        _ if path.starts_with("/v2/email/configuration-sets/") => match account.configuration_set {
            None => refused(404, "NotFoundException", "There is no such configuration set."),
            Some(sends) => told(&json!({
                "ConfigurationSetName": path.rsplit('/').next(), "SendingOptions": {"SendingEnabled": sends},
            })),
        },
        "/" => caller(),
        _ => refused(404, "NotFoundException", "this endpoint knows only what owlpost asks"),
    })
}

async fn send(state: &Mutex<State>, body: &[u8]) -> Result<Response<Body>, Closed> {
    let (fault, slow) = {
        let mut state = lock(state);
        let now = Instant::now();
        state.calls.push(now);
        (state.faults.pop_front(), state.too_much(now))
    };
    match &fault {
        Some(Fault::Refuse(status, code, message)) => return Ok(refused(*status, code, message)),
        Some(Fault::Close) => return Err(Closed),
        _ => {}
    }
    if let Some(refusal) = slow {
        return Ok(refusal);
    }
    let Ok(id) = lock(state).take(body) else {
        return Ok(refused(400, "BadRequestException", "the request is not what SendEmail takes"));
    };
    match fault {
        Some(Fault::LoseReply) => Err(Closed),
        Some(Fault::Garbage) => Ok(page()),
        Some(Fault::TakeAndFail(status)) => Ok(refused(status, "InternalFailure", "something broke")),
        Some(Fault::Hang(time)) => {
            tokio::time::sleep(time).await;
            Ok(told(&json!({"MessageId": id})))
        }
        _ => Ok(told(&json!({"MessageId": id}))),
    }
}

impl State {
    /// What SES says to a call above the account's quota.
    fn too_much(&mut self, now: Instant) -> Option<Response<Body>> {
        let account = self.account;
        if !account.sending {
            return Some(refused(400, "SendingPausedException", "Email sending is disabled for this account."));
        }
        if !account.enforced {
            return None;
        }
        let second = Duration::from_secs(1);
        let recent = self.accepted_at.iter().rev().take_while(|at| now.duration_since(**at) < second).count();
        if recent as f64 >= account.per_second {
            self.refused_for_rate += 1;
            return Some(refused(429, "TooManyRequestsException", "Maximum sending rate exceeded."));
        }
        let day = self.accepted_at.len() as f64 + account.external;
        if account.per_day >= 0.0 && day >= account.per_day {
            return Some(refused(400, "LimitExceededException", "Daily message quota exceeded"));
        }
        None
    }

    fn take(&mut self, body: &[u8]) -> Result<String, ()> {
        self.count += 1;
        self.accepted_at.push_back(Instant::now());
        let id = format!("0102019a{:08x}-demo-000000", self.count);
        if self.forgetful {
            return Ok(id);
        }
        let request: Value = serde_json::from_slice(body).map_err(|_| ())?;
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let tag = |name: &str| {
            let tags = request["EmailTags"].as_array();
            let tag = tags.into_iter().flatten().find(|t| t["Name"] == name);
            tag.and_then(|t| t["Value"].as_str()).unwrap_or_default().to_owned()
        };
        let some = |pointer: &str| Some(text(pointer)).filter(|t| !t.is_empty());
        let raw = some("/Content/Raw/Data").map(|data| base64::engine::general_purpose::STANDARD.decode(data));
        let headers = request.pointer("/Content/Simple/Headers").and_then(Value::as_array);
        let header = |h: &Value| Some((h["Name"].as_str()?.to_owned(), h["Value"].as_str()?.to_owned()));
        self.taken.push(Taken {
            message_id: id.clone(),
            digest: tag("owlpost-digest"),
            attempt: tag("owlpost-attempt").parse().unwrap_or_default(),
            from: text("/FromEmailAddress"),
            to: text("/Destination/ToAddresses/0"),
            reply_to: some("/ReplyToAddresses/0"),
            subject: text("/Content/Simple/Subject/Data"),
            html: text("/Content/Simple/Body/Html/Data"),
            text: text("/Content/Simple/Body/Text/Data"),
            headers: headers.into_iter().flatten().filter_map(header).collect(),
            raw: raw.transpose().map_err(|_| ())?,
            configuration_set: some("/ConfigurationSetName"),
            identity_arn: some("/FromEmailAddressIdentityArn"),
        });
        Ok(id)
    }
}

fn told(value: &Value) -> Response<Body> {
    response(200, "application/json", value.to_string())
}

/// As SES puts it: the code in a header and in the body.
fn refused(status: u16, code: &str, message: &str) -> Response<Body> {
    let mut response = response(status, "application/json", json!({"__type": code, "message": message}).to_string());
    if let Ok(code) = code.parse() {
        response.headers_mut().insert("x-amzn-errortype", code);
    }
    response
}

fn page() -> Response<Body> {
    response(200, "text/html", "<html><body>It works!</body></html>".into())
}

fn caller() -> Response<Body> {
    let xml = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
               <Arn>arn:aws:sts::000000000000:assumed-role/owlpost/demo</Arn><UserId>AROA:demo</UserId>\
               <Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
    response(200, "text/xml", xml.into())
}

fn response(status: u16, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
