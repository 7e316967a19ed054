//! The listener: `/livez`, `/readyz`, `/metrics`, and the router of the http source (`POST /v1/events`).
//!
//! Everything a client can hold is bounded: connections, header size and time, the time of a request, the age of a
//! connection. A client that sends or reads slowly costs its own seat for a while, and nobody else anything (`http/seats.rs`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::source::Health;
use crate::vitals::Vitals;
use seats::{Seat, Seats};

mod seats;

/// What a listener puts up with. The defaults are meant for everybody; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections; more wait in the kernel's backlog until one ends, or has been without a request for long. Each costs about
    /// 10 KB and a file descriptor.
    pub connections: usize,
    /// From the end of one request to the end of the next one's headers, so it also ends idle connections: later than load balancers
    /// and proxies do, most of which keep them for a minute, and answer 502 for a request that meets a close. (Who sends nothing has
    /// to go earlier if seats are wanted.)
    pub headers_within: Duration,
    /// From the headers to the answer; above what reading a body (30 s) and waiting for a commit (30 s) may take.
    pub request_within: Duration,
    /// Then a connection is closed after its current request, so that clients spread over replicas.
    pub connection_age: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: 1_024,
            headers_within: Duration::from_secs(75),
            request_within: Duration::from_secs(75),
            connection_age: Duration::from_secs(300),
        }
    }
}

/// Request line and headers; ours have some 20 headers of some 100 bytes.
const HEADERS_MAX_BYTES: usize = 64 * 1024;
/// After a failed `accept` (no file descriptors left): long enough not to burn a core, short enough to be unnoticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// `http.listen` can't be used; in words, with the address and what to do.
    #[error("http.listen: {0}")]
    Listen(String),
}

/// A bound port that does not answer yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    bounds: Bounds,
}

impl Listener {
    /// Takes the port, so that a second worker fails at its start.
    ///
    /// # Errors
    /// The address is none, in use, not this machine's, or not allowed.
    pub async fn bind(listen: &str) -> Result<Listener, HttpError> {
        let socket = TcpListener::bind(listen).await.map_err(|e| HttpError::Listen(why_not(listen, &e)))?;
        Listener::on(socket)
    }

    /// On a socket that somebody else opened.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn on(socket: TcpListener) -> Result<Listener, HttpError> {
        let address = socket.local_addr().map_err(|e| HttpError::Listen(e.to_string()))?;
        Ok(Listener { socket, address, bounds: Bounds::default() })
    }

    #[must_use]
    pub fn with(self, bounds: Bounds) -> Listener {
        Listener { bounds, ..self }
    }

    /// The real address, also where the configured port is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`; then takes no new connection, lets requests finish for at most `drain`, and ends the rest.
    pub async fn serve(self, app: Router, stop: CancellationToken, drain: Duration) {
        let seats = Seats::new(self.bounds.connections);
        let desk = Desk { seats: Arc::clone(&seats), bounds: self.bounds };
        let app = app.layer(from_fn_with_state(desk, attend));
        let mut connections = JoinSet::new();
        let mut comes = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                seat = seats.take(), if comes.is_some() => if let Some(stream) = comes.take() {
                    connections.spawn(converse(stream, app.clone(), self.bounds, stop.clone(), seat));
                },
                accepted = accept(&self.socket), if comes.is_none() => comes = accepted,
            }
        }
        drop(comes);
        drop(self.socket);
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(drain, all_ended).await.is_err() {
            tracing::warn!(requests = connections.len(), "stopping without answering the requests that are left");
            connections.shutdown().await;
        }
    }
}

fn why_not(address: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there (a second owlpost?); stop it, or choose another port (0: the system chooses)"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; 0.0.0.0 means all it has",
        io::ErrorKind::PermissionDenied => "not allowed; ports below 1024 need a privilege, choose a higher one",
        io::ErrorKind::InvalidInput => "expected an address and a port, e.g. \"127.0.0.1:8080\"",
        _ => return format!("can't listen on {address}: {error}"),
    };
    format!("can't listen on {address}: {advice}")
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        tracing::error!("a bug: an HTTP connection panicked; the others go on");
    }
}

/// Cancel-safe: a dropped call has taken nothing.
async fn accept(socket: &TcpListener) -> Option<TcpStream> {
    match socket.accept().await {
        Ok((stream, _)) => {
            // Answers are small: don't wait for more of them. It only costs time if it can't be set.
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            // A connection that is gone already is everyday life; no descriptors left is not, but heals by itself.
            if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                tracing::warn!(%error, "can't take a new HTTP connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// One connection until it ends, which it does at the latest one request after its age.
async fn converse(stream: TcpStream, app: Router, bounds: Bounds, stop: CancellationToken, seat: Seat) {
    let seat = Arc::new(seat);
    let answers = {
        let seat = Arc::clone(&seat);
        service_fn(move |request| {
            let (seat, app) = (Arc::clone(&seat), app.clone());
            seat.works();
            async move {
                let response = TowerToHyperService::new(app).call(request).await;
                seat.waits();
                response
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.headers_within)
        .max_buf_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), answers);
    let mut connection = std::pin::pin!(connection);
    // Errors are the client's: it left, it was slow, it sent garbage (hyper has answered 400).
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        () = seat.has_to_go() => true,
        () = stop.cancelled() => false,
        () = tokio::time::sleep(bounds.connection_age) => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        // A client that does not read its answer would hold the seat for ever.
        tokio::select! {
            _ = tokio::time::timeout(bounds.request_within, connection) => {}
            () = seat.has_to_go() => {}
        }
    }
}

#[derive(Clone)]
struct Desk {
    seats: Arc<Seats>,
    bounds: Bounds,
}

/// Around every request: its time, its count, and no keep-alive where seats run short.
async fn attend(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    // Probes come every few seconds, and a replica that is not ready says so: nobody's request was refused.
    let is_probe = matches!(request.uri().path(), "/livez" | "/readyz");
    let mut response = match tokio::time::timeout(desk.bounds.request_within, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "took too long\n").into_response(),
    };
    if desk.seats.free() < desk.bounds.connections / 4 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if !is_probe {
        metrics::http_request(response.status().as_u16());
    }
    response
}

#[derive(Clone)]
struct Probes {
    vitals: Vitals,
    recorder: metrics::Recorder,
}

/// All that the listener answers. `events`: the http source's router, or an empty one.
pub fn router(vitals: Vitals, recorder: metrics::Recorder, events: Router) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .with_state(Probes { vitals, recorder })
        .merge(events)
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "not found; there are /v1/events, /livez, /readyz and /metrics\n")
        })
}

async fn livez(State(probes): State<Probes>) -> Response {
    let silent = probes.vitals.silent();
    if silent.is_empty() {
        return "ok\n".into_response();
    }
    let lines: String = silent
        .iter()
        .map(|(name, quiet)| format!("the {name} loop has not turned for {} s\n", quiet.as_secs()))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

/// `{"ready":bool,"reasons":[…],"sources":{name: "ready" | "ended" | "down: why"}}`. A source that is down beside others
/// that work is a reason, and the answer is 200 all the same: taken off its service, the worker would take nothing at all.
async fn readyz(State(probes): State<Probes>) -> Response {
    let readiness = probes.vitals.readiness();
    let ready = readiness.ready;
    let sources: serde_json::Map<String, serde_json::Value> = readiness
        .sources
        .into_iter()
        .map(|(name, health)| {
            let told = match health {
                Health::Ready => "ready".to_owned(),
                Health::Ended => "ended".to_owned(),
                Health::Down(why) => format!("down: {why}"),
            };
            (name, told.into())
        })
        .collect();
    let body = serde_json::json!({ "ready": ready, "reasons": readiness.reasons, "sources": sources });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn exposition(State(probes): State<Probes>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], probes.recorder.render()).into_response()
}
