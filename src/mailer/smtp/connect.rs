//! Connections: how one is opened, protected and logged in, and when an idle one is still good.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Noop, Rset};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::{Finding, SendError, is_tls, without_addresses};
use super::answer::{self, Step};
use super::{Settings, Tls};

/// Servers close what is idle after some minutes (RFC 5321: 5), SES after 10 s of silence at the earliest.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// A certificate file is some certificates; more is another file.
const CA_MAX_BYTES: u64 = 1024 * 1024;

/// The best first; PLAIN and LOGIN send the password, and only over TLS or on loopback.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

pub struct Connected {
    pub smtp: AsyncSmtpConnection,
    /// It has been in the pool: a failure now may be that of an idle connection.
    pub used: bool,
    /// In the middle of a mail, or of no use: whoever gave up on it leaves it so, and nobody gets it again.
    pub busy: bool,
}

impl Connected {
    /// Ends the dialogue of a mail that was refused; `false`: the connection is of no use.
    pub async fn reset(&mut self, by: Instant) -> bool {
        matches!(tokio::time::timeout_at(by, self.smtp.command(Rset)).await, Ok(Ok(_)))
    }
}

/// Opens connections for the pool.
pub struct Dialler {
    settings: Settings,
    port: u16,
    hello: ClientId,
    starttls: Option<TlsParameters>,
    implicit: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialler {
    /// # Errors
    /// The host is none, or the certificate file can't be used, in words.
    pub fn new(settings: Settings) -> Result<Dialler, String> {
        let port = settings.port.unwrap_or(match settings.tls {
            Tls::Starttls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        });
        let extra = extra(&settings)?;
        let (mut starttls, mut implicit) = (None, None);
        match settings.tls {
            Tls::Starttls => starttls = Some(parameters(&settings, &extra)?),
            Tls::Implicit => implicit = Some(connector(&settings, &extra)?),
            Tls::None => {}
        }
        // `localhost` in brackets as an address literal: this process has no name that a server could look up.
        Ok(Dialler { port, hello: ClientId::default(), starttls, implicit, settings })
    }

    async fn open(&self) -> Result<Connected, (Step, SendError)> {
        let fail = |step| move |e: lettre::transport::smtp::Error| (step, answer::class(step, &e));
        let unreached = |e: io::Error| {
            let host = &self.settings.host;
            (Step::Greeting, SendError::Unreachable(format!("smtp: can't reach {host}:{}: {e}", self.port)))
        };
        let tcp = TcpStream::connect((self.settings.host.as_str(), self.port)).await.map_err(unreached)?;
        // Nagle's algorithm waits 40 ms for an answer in the middle of each mail.
        tcp.set_nodelay(true).map_err(unreached)?;
        let stream: Box<dyn AsyncTokioStream> = match &self.implicit {
            None => Box::new(tcp),
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await.map_err(|e| (Step::Tls, handshake(&e)))?;
                Box::new(Secured(tls))
            }
        };
        let mut smtp =
            AsyncSmtpConnection::connect_with_transport(stream, &self.hello).await.map_err(fail(Step::Greeting))?;
        if let Some(parameters) = &self.starttls {
            if !smtp.can_starttls() {
                let why = "the server offers no STARTTLS; set mailer.tls = \"implicit\" if its port speaks TLS at once";
                return Err((Step::Tls, SendError::Halted(format!("smtp: {why}"))));
            }
            smtp.starttls(parameters.clone(), &self.hello).await.map_err(|e| {
                let class = if is_tls(&e) { refused(&answer::words(&e)) } else { answer::class(Step::Tls, &e) };
                (Step::Tls, class)
            })?;
        }
        if let Some((user, password)) = &self.settings.login {
            if smtp.server_info().get_auth_mechanism(&MECHANISMS).is_none() {
                let why = "the server offers no login (PLAIN or LOGIN) here, but mailer.username is set";
                return Err((Step::Login, SendError::Halted(format!("smtp: {why}"))));
            }
            let credentials = Credentials::new(user.clone(), password.clone());
            smtp.auth(&MECHANISMS, &credentials).await.map_err(fail(Step::Login))?;
        }
        Ok(Connected { smtp, used: false, busy: false })
    }

    /// Greeting, TLS and login, each told for itself.
    pub async fn probe(&self) -> Vec<Finding> {
        let to = format!("{}:{}", self.settings.host, self.port);
        let within = self.settings.call_timeout;
        let opened = tokio::time::timeout(within, self.open()).await;
        let (failed, why) = match &opened {
            Ok(Ok(_)) => (None, String::new()),
            Ok(Err((step, error))) => (Some(*step), error.to_string()),
            Err(_) => (Some(Step::Greeting), format!("no answer within {} s", within.as_secs())),
        };
        let tls = match self.settings.tls {
            Tls::Starttls => "STARTTLS",
            Tls::Implicit => "TLS from the first byte",
            Tls::None => "no TLS, on this machine",
        };
        let login = match &self.settings.login {
            Some(_) => "the login is accepted".to_owned(),
            None => "no login".to_owned(),
        };
        let mut found = Vec::new();
        for (step, what) in
            [(Step::Greeting, format!("{to} answers")), (Step::Tls, tls.to_owned()), (Step::Login, login)]
        {
            if failed == Some(step) {
                found.push(Finding { ok: false, what: format!("smtp: {to}: {why}") });
                return found;
            }
            // TLS from the first byte comes before the greeting.
            if !(failed == Some(Step::Tls) && step == Step::Greeting && self.implicit.is_some()) {
                found.push(Finding { ok: true, what: format!("smtp: {what}") });
            }
        }
        if let Ok(Ok(mut connected)) = opened {
            let _ = connected.smtp.quit().await;
        }
        found
    }
}

impl Manager for Dialler {
    type Type = Connected;
    type Error = SendError;

    async fn create(&self) -> Result<Connected, SendError> {
        self.open().await.map_err(|(_, error)| error)
    }

    async fn recycle(&self, connected: &mut Connected, metrics: &Metrics) -> RecycleResult<SendError> {
        let idle = metrics.last_used();
        if connected.busy || connected.smtp.has_broken() {
            return Err(RecycleError::message("broken"));
        }
        if idle > IDLE_MAX && connected.smtp.command(Noop).await.is_err() {
            return Err(RecycleError::message("closed while idle"));
        }
        Ok(())
    }
}

fn handshake(error: &io::Error) -> SendError {
    if is_tls(error) { refused(&error.to_string()) } else { SendError::Unreachable(format!("smtp TLS: {error}")) }
}

/// The handshake ended by one side's decision: that does not heal by itself.
fn refused(why: &str) -> SendError {
    SendError::Halted(without_addresses(&format!(
        "smtp TLS: {why}; the certificate must name mailer.host and be signed by one that the system or mailer.ca_file \
         trusts"
    )))
}

/// The certificates of `mailer.ca_file`, DER.
fn extra(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = &settings.ca_file else { return Ok(vec![]) };
    let told = |why: String| format!("mailer.ca_file: {}: {why}", path.display());
    let bytes = std::fs::metadata(path).map_err(|e| told(e.to_string()))?.len();
    if bytes > CA_MAX_BYTES {
        return Err(told(format!("{bytes} bytes: not a file of certificates")));
    }
    let pem = std::fs::read(path).map_err(|e| told(e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|e| told(format!("not PEM: {e}")))?;
    if found.is_empty() { Err(told("holds no certificate (-----BEGIN CERTIFICATE-----)".into())) } else { Ok(found) }
}

fn parameters(settings: &Settings, extra: &[CertificateDer<'static>]) -> Result<TlsParameters, String> {
    let mut builder = TlsParametersBuilder::new(settings.host.clone()).certificate_store(CertificateStore::Default);
    for der in extra {
        let certificate = Certificate::from_der(der.to_vec()).map_err(|e| format!("mailer.ca_file: {e}"))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|e| format!("mailer: TLS can't be set up: {e}"))
}

fn connector(
    settings: &Settings,
    extra: &[CertificateDer<'static>],
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let mut roots = rustls::RootCertStore::empty();
    // A certificate of the system's that can't be read is passed over: the others may do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for der in extra {
        roots.add(der.clone()).map_err(|e| format!("mailer.ca_file: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("mailer: TLS can't be set up: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(settings.host.clone()).map_err(|e| format!("mailer.host: {e}"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// TLS from the first byte: lettre takes any stream that knows its peer.
#[derive(Debug)]
struct Secured(TlsStream<TcpStream>);

impl AsyncTokioStream for Secured {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
