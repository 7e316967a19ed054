//! Posting batches to a worker, again where it says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::input::Item;
use super::{BATCH_EVENTS, Sum};
use crate::cli::Failure;

/// With a wait of some seconds each: a worker that restarts is back by then, one that stays away is a failure.
const TRIES: u32 = 10;
/// No `Retry-After` makes wait longer.
const WAIT_MAX: Duration = Duration::from_secs(60);
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// Above what a worker takes for a request, at worst (75 s).
const REQUEST_WITHIN: Duration = Duration::from_secs(90);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An answer lists at most one rejection an event, of some 200 bytes.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where to publish.
///
/// # Errors
/// Usage: no URL, or one of a broker.
pub(super) fn target(text: &str) -> Result<Url, Failure> {
    let expected = "expected http://host:port/v1/events, https://…, kafka://host:port/topic or sqs://name";
    let mut url = Url::parse(text).map_err(|e| Failure::usage(format!("--to: no URL ({e}): {expected}")))?;
    match url.scheme() {
        "http" | "https" => {
            if url.path() == "/" {
                url.set_path("/v1/events");
            }
            Ok(url)
        }
        _ => Err(Failure::usage(format!("--to: {expected}"))),
    }
}

/// The URL of a worker on this machine that listens there.
///
/// # Errors
/// Usage: its port is any that is free, so nobody knows it.
pub(super) fn at_listener(listen: &str) -> Result<String, Failure> {
    let mut place = listen.to_owned();
    if let Ok(mut address) = listen.parse::<SocketAddr>() {
        // Every address of this machine: one of them is loopback.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        if address.port() == 0 {
            return Err(Failure::usage("http.listen has port 0, any that is free: name the worker's with --to URL"));
        }
        place = address.to_string();
    }
    Ok(format!("http://{place}/v1/events"))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) struct Poster {
    client: reqwest::Client,
    url: Url,
    authorization: Option<HeaderValue>,
    /// Halved when the worker says that a body is too large.
    batch_events: usize,
    /// A worker has answered: it may be restarting if it does not now. If it never did, the URL is wrong.
    answered: bool,
}

/// What the worker made of a batch.
enum Told {
    Counts(Value),
    TooLarge,
}

impl Poster {
    pub(super) fn new(url: Url, token: Option<&str>) -> Result<Poster, Failure> {
        let authorization = token
            .map(|token| HeaderValue::from_str(&format!("Bearer {token}")))
            .transpose()
            .map_err(|_| Failure::failed("the token holds a line break or another character that no header can"))?;
        let mut client = reqwest::Client::builder();
        if is_loopback(&url) {
            // A proxy's loopback is another machine's.
            client = client.no_proxy();
        }
        let client = client
            .user_agent(concat!("owlpost/", env!("CARGO_PKG_VERSION")))
            // A token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(REQUEST_WITHIN)
            .build()
            .map_err(|e| Failure::failed(format!("can't make an HTTP client: {e}")))?;
        Ok(Poster { client, url, authorization, batch_events: BATCH_EVENTS, answered: false })
    }

    /// Posts all items, in their order, and adds up what became of them. No items: no request.
    pub(super) async fn post(&mut self, items: Vec<Item>, sum: &mut Sum) -> Result<(), Failure> {
        let mut rest = &items[..];
        while !rest.is_empty() {
            // Both sides are at most the length.
            let (now, later) = rest.split_at(self.batch_events.min(rest.len()));
            match self.request(now).await? {
                Told::Counts(counts) => {
                    add(sum, now, &counts);
                    rest = later;
                }
                Told::TooLarge => {
                    if let [only] = now {
                        sum.reject(only, "too_large: longer than the worker's http.body_max_bytes".to_owned());
                        rest = later;
                    } else {
                        self.batch_events = now.len().div_ceil(2);
                    }
                }
            }
        }
        Ok(())
    }

    /// One batch, until it is answered for good.
    async fn request(&mut self, items: &[Item]) -> Result<Told, Failure> {
        let mut body = Vec::with_capacity(items.iter().map(|i| i.body.len() + 1).sum());
        for item in items {
            body.extend_from_slice(&item.body);
            body.push(b'\n');
        }
        let mut last = String::new();
        for _ in 0..TRIES {
            let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson");
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let wait = match request.body(body.clone()).send().await {
                Ok(response) => {
                    self.answered = true;
                    let status = response.status();
                    match status {
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                            last = format!("it answered {status}");
                            retry_after(&response)
                        }
                        StatusCode::PAYLOAD_TOO_LARGE => return Ok(Told::TooLarge),
                        _ => return self.read(response).await.map(Told::Counts),
                    }
                }
                // What was stored is known by its id, if it has one.
                Err(e) if self.answered => {
                    last = why(&e);
                    WAIT_DEFAULT
                }
                Err(e) => {
                    let why = why(&e);
                    return Err(Failure::failed(format!(
                        "{}: {why}; is a worker running there (owlpost run)?",
                        self.place()
                    )));
                }
            };
            tokio::time::sleep(wait).await;
        }
        Err(Failure::failed(format!(
            "{}: gave up after {TRIES} tries: {last}. What was accepted stays; {}",
            self.place(),
            super::AGAIN
        )))
    }

    /// 202, or 400 with counts.
    async fn read(&self, mut response: reqwest::Response) -> Result<Value, Failure> {
        let status = response.status();
        let failed = |what: &str| Failure::failed(format!("{}: {what}", self.place()));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(&why(&e)))? {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(failed("its answer is too long for a worker's"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match status {
            StatusCode::ACCEPTED | StatusCode::BAD_REQUEST if answer["accepted"].is_u64() => Ok(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(failed("it wants another token; set OWLPOST_TOKEN or --token-file to its http.token"))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(failed(&format!(
                "it answered {status}; does the URL end in /v1/events, and has it a source of kind http?"
            ))),
            _ => {
                let told: String =
                    answer["error"].as_str().unwrap_or("").chars().filter(|c| !c.is_control()).take(200).collect();
                Err(failed(&format!("it answered {status} {told}")))
            }
        }
    }

    /// The URL without what may be secret in it.
    fn place(&self) -> String {
        let port = self.url.port().map_or_else(String::new, |p| format!(":{p}"));
        format!("{}://{}{port}{}", self.url.scheme(), self.url.host_str().unwrap_or_default(), self.url.path())
    }
}

fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        // The innermost says what it is: nobody listens, or TLS is spoken to what has none.
        let mut inner: &dyn std::error::Error = error;
        while let Some(source) = inner.source() {
            inner = source;
        }
        format!("can't connect: {inner}")
    } else {
        "the connection broke".to_owned()
    }
}

/// Whole seconds; a date is not worth reading, since clocks differ.
fn retry_after(response: &reqwest::Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
    seconds.map_or(WAIT_DEFAULT, Duration::from_secs).min(WAIT_MAX)
}

/// Adds the worker's counts to ours; it names what it rejects by its line in the batch, and the row if it has some.
fn add(sum: &mut Sum, items: &[Item], counts: &Value) {
    let number = |key: &str| counts[key].as_u64().unwrap_or(0);
    let rejected = counts["rejected"].as_array().map(Vec::as_slice).unwrap_or_default();
    sum.accepted += number("accepted");
    sum.duplicates += number("duplicates");
    sum.dropped += number("dropped");
    for rejection in rejected {
        let mut reason = rejection["reason"].as_str().unwrap_or("no reason given").to_owned();
        if let Some(detail) = rejection["detail"].as_str() {
            reason = format!("{reason}: {detail}");
        }
        if let Some(row) = rejection["row"].as_u64() {
            reason = format!("row {row}: {reason}");
        }
        let at = rejection["index"].as_u64().and_then(|i| usize::try_from(i).ok());
        match at.and_then(|at| items.get(at)) {
            Some(item) => sum.reject(item, reason),
            None => {
                let (Some(first), Some(last)) = (items.first(), items.last()) else { continue };
                sum.reject(first, format!("{reason} (this or a later line, up to {} line {})", last.file, last.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_this_machine_is_reached_where_it_listens() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/v1/events"),
            ("0.0.0.0:80", "http://127.0.0.1:80/v1/events"),
            ("[::]:9000", "http://[::1]:9000/v1/events"),
            ("localhost:8080", "http://localhost:8080/v1/events"),
        ] {
            assert_eq!(at_listener(listen).unwrap(), url);
        }
        assert_eq!(at_listener("127.0.0.1:0").unwrap_err().code, 2);
    }

    #[test]
    fn a_worker_has_a_url_of_http() {
        assert_eq!(target("http://localhost:8080").unwrap().path(), "/v1/events");
        assert_eq!(target("https://owlpost.example.com/in/v1/events").unwrap().path(), "/in/v1/events");
        for (url, word) in [("ftp://host/", "expected http"), ("events.ndjson", "no URL")] {
            let failure = target(url).unwrap_err();
            assert_eq!(failure.code, 2, "{url}");
            assert!(failure.message.contains(word), "{}", failure.message);
        }
    }
}
