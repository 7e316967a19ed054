//! A proxy in front of an SQS server that makes the faults which emulators don't have: refusals, lost replies, entries of a
//! batch that fail.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Bodies are at most SQS's 10 messages of 1 MiB, and their JSON.
const BODY_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug)]
pub enum Fault {
    /// The server is not asked.
    Answer {
        status: u16,
        code: &'static str,
    },
    /// The server is asked, and its reply never arrives.
    LoseReply,
    Delay(Duration),
    /// The first so many entries of a batch fail; the server gets the others.
    FailEntries {
        entries: usize,
        code: &'static str,
        ours: bool,
    },
}

struct Planned {
    action: &'static str,
    fault: Fault,
    times: usize,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Planned>,
    calls: BTreeMap<String, usize>,
}

pub struct Proxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Proxy {
    /// Forwards to `to`, `http://127.0.0.1:PORT`.
    pub fn start(to: &str) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let (to, shared) = (to.to_owned(), Arc::clone(&plan));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(socket).unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (to, plan, client) = (to.clone(), Arc::clone(&shared), client.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (to, plan, client) = (to.clone(), Arc::clone(&plan), client.clone());
                        async move { answer(&to, &plan, &client, request.map(Body::new)).await }
                    });
                    // An error of the service closes the connection without a reply, which is what is wanted.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Proxy { url, plan, runtime: Some(runtime) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next `times` calls of `action` (`ReceiveMessage`) have this fault.
    pub fn plan(&self, action: &'static str, fault: Fault, times: usize) {
        lock(&self.plan).faults.push(Planned { action, fault, times });
    }

    /// No faults from here on.
    pub fn heal(&self) {
        lock(&self.plan).faults.clear();
    }

    /// How many calls of `action` came, with or without a fault.
    pub fn calls(&self, action: &str) -> usize {
        lock(&self.plan).calls.get(action).copied().unwrap_or(0)
    }
}

fn lock(plan: &Mutex<Plan>) -> std::sync::MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(plan: &Mutex<Plan>, action: &str) -> Option<Fault> {
    let mut plan = lock(plan);
    *plan.calls.entry(action.to_owned()).or_default() += 1;
    let planned = plan.faults.iter_mut().find(|p| p.action == action && p.times > 0)?;
    planned.times -= 1;
    Some(planned.fault.clone())
}

async fn answer(
    to: &str,
    plan: &Mutex<Plan>,
    client: &reqwest::Client,
    request: Request<Body>,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.map_err(io::Error::other)?.to_vec();
    let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let action = target.rsplit('.').next().unwrap_or_default().to_owned();
    match take(plan, &action) {
        None => forward(to, client, &parts.uri.to_string(), &parts.headers, body).await,
        Some(Fault::Answer { status, code }) => Ok(refusal(status, code)),
        Some(Fault::LoseReply) => {
            forward(to, client, &parts.uri.to_string(), &parts.headers, body).await?;
            Err(io::Error::other("the reply is lost"))
        }
        Some(Fault::Delay(by)) => {
            tokio::time::sleep(by).await;
            forward(to, client, &parts.uri.to_string(), &parts.headers, body).await
        }
        Some(Fault::FailEntries { entries, code, ours }) => {
            let mut asked: Value = serde_json::from_slice(&body)?;
            let all = asked["Entries"].as_array_mut().ok_or_else(|| io::Error::other("no batch"))?;
            let rest = all.split_off(entries.min(all.len()));
            let failed: Vec<Value> = std::mem::replace(all, rest)
                .iter()
                .map(|e| json!({"Id": e["Id"], "SenderFault": ours, "Code": code, "Message": "planned"}))
                .collect();
            let mut told = json!({"Successful": [], "Failed": []});
            if !all.is_empty() {
                let body = serde_json::to_vec(&asked)?;
                let reply = forward(to, client, &parts.uri.to_string(), &parts.headers, body).await?;
                told = serde_json::from_slice(&to_bytes(reply.into_body(), BODY_MAX).await.map_err(io::Error::other)?)?;
            }
            let mut all_failed = told["Failed"].as_array().cloned().unwrap_or_default();
            all_failed.extend(failed);
            told["Failed"] = all_failed.into();
            Ok(reply(200, serde_json::to_vec(&told)?))
        }
    }
}

async fn forward(
    to: &str,
    client: &reqwest::Client,
    uri: &str,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<Response<Body>, io::Error> {
    let path = uri.strip_prefix("http://").map_or(uri, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let mut request = client.post(format!("{to}{path}"));
    for (name, value) in headers.iter().filter(|(n, _)| !matches!(n.as_str(), "host" | "content-length" | "expect")) {
        request = request.header(name, value);
    }
    let answer = request.body(body).send().await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let query_error = answer.headers().get("x-amzn-query-error").cloned();
    let mut reply = reply(status, answer.bytes().await.map_err(io::Error::other)?.to_vec());
    if let Some(value) = query_error {
        reply.headers_mut().insert("x-amzn-query-error", value);
    }
    Ok(reply)
}

fn reply(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response = response.header("x-amzn-requestid", "planned");
    response.body(Body::from(body)).unwrap_or_else(|e: axum::http::Error| panic!("{e}"))
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "planned"});
    reply(status, body.to_string().into_bytes())
}
