//! `owlpost publish`, the real program, against a worker that is scripted.

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;

/// Status, `Retry-After`, body.
type Scripted = (u16, &'static str, &'static str);

#[derive(Clone, Default)]
struct Script {
    /// Empty: 202, all accepted.
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    bodies: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let token = parts.headers.get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
    script.tokens.lock().unwrap().push(token);
    let body = String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    let events = body.lines().count();
    script.bodies.lock().unwrap().push(body);
    let all = format!("{{\"accepted\":{events},\"duplicates\":0,\"dropped\":0,\"rejected\":[]}}");
    let (status, retry_after, body) = match script.answers.lock().unwrap().pop_front() {
        None => (202, "", all),
        Some((status, retry_after, body)) => (status, retry_after, body.to_owned()),
    };
    let mut response = Response::builder().status(status);
    if !retry_after.is_empty() {
        response = response.header("retry-after", retry_after);
    }
    response.body(Body::from(body)).unwrap()
}

/// The scripted worker, and what it runs on.
fn serve(script: &Script) -> (String, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/events", post(answer)).with_state(script.clone());
    runtime.spawn(async move { axum::serve(listener, app).await });
    (url, runtime)
}

/// Runs `publish` with `input` on stdin.
fn publish(script: &Script, args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let (url, _runtime) = serve(script);
    told(run(&[&["--to", &url], args].concat(), input))
}

fn run(args: &[&str], input: &[u8]) -> Output {
    fed(Command::new(env!("CARGO_BIN_EXE_owlpost")).arg("publish").args(args).env("OWLPOST_TOKEN", "t0ken"), input)
}

fn fed(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn event(id: usize) -> String {
    format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"test\",\"type\":\"t\"}}")
}

#[test]
fn many_events_arrive_in_their_order_in_bounded_batches_with_the_token() {
    let script = Script::default();
    let input: String = (0..1_200).map(|n| event(n) + "\n").collect();
    let (code, out, err) = publish(&script, &[], input.as_bytes());
    assert_eq!((code, &*out), (Some(0), "1200 accepted, 0 duplicates, 0 rejected\n"), "{err}");
    let bodies = script.bodies.lock().unwrap();
    assert_eq!(bodies.concat(), input);
    assert!(bodies.iter().all(|b| b.lines().count() <= 500));
    assert!(script.tokens.lock().unwrap().iter().all(|t| t == "Bearer t0ken"));
}

#[test]
fn a_worker_that_is_full_or_away_is_asked_again() {
    let script = Script::default();
    *script.answers.lock().unwrap() = [(429, "0", ""), (503, "0", "")].into();
    let (code, out, err) = publish(&script, &["--json"], event(1).as_bytes());
    assert_eq!(code, Some(0), "{err}");
    let sum: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        sum,
        serde_json::json!({"accepted": 1, "duplicates": 0, "dropped": 0, "rejected": [], "rejected_total": 0})
    );
    assert_eq!(script.bodies.lock().unwrap().len(), 3);
}

#[test]
fn a_worker_that_stays_away_is_given_up() {
    let script = Script::default();
    *script.answers.lock().unwrap() = vec![(503, "0", ""); 100].into();
    let (code, out, err) = publish(&script, &[], event(1).as_bytes());
    assert_eq!(code, Some(1));
    assert!(err.contains("gave up after 10 tries"), "{err}");
    assert!(out.starts_with("0 accepted"), "{out}");
    assert_eq!(script.bodies.lock().unwrap().len(), 10);
}

#[test]
fn each_rejection_is_told_with_file_line_and_reason_and_the_exit_is_1() {
    let script = Script::default();
    let rejected = r#"{"accepted":0,"duplicates":1,"dropped":0,"rejected":[{"index":1,"reason":"in_the_future","detail":"time is ahead"}]}"#;
    script.answers.lock().unwrap().push_back((202, "", rejected));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n{{\"id\":1}}\n\n{}\n", event(1), event(2))).unwrap();
    let (code, out, _) = publish(&script, &[file.path().to_str().unwrap()], b"");
    assert_eq!(code, Some(1));
    let name = file.path().display();
    assert!(out.contains(&format!("{name} line 2 (event 1): rejected: ")), "{out}");
    assert!(out.contains(&format!("{name} line 4 (event 2): rejected: in_the_future: time is ahead")), "{out}");
    assert!(out.ends_with("0 accepted, 1 duplicates, 2 rejected\n"), "{out}");
}

#[test]
fn a_batch_too_large_for_the_worker_is_split() {
    let script = Script::default();
    script.answers.lock().unwrap().push_back((413, "", ""));
    let input = format!("[{},{},{}]", event(1), event(2), event(3));
    let (code, out, _) = publish(&script, &[], input.as_bytes());
    assert_eq!((code, &*out), (Some(0), "3 accepted, 0 duplicates, 0 rejected\n"));
    let sizes: Vec<usize> = script.bodies.lock().unwrap().iter().map(|b| b.lines().count()).collect();
    assert_eq!(sizes, [3, 2, 1]);
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do_and_never_with_the_token() {
    let script = Script::default();
    script.answers.lock().unwrap().push_back((401, "", "{}"));
    let (code, _, err) = publish(&script, &[], event(1).as_bytes());
    assert_eq!(code, Some(1));
    assert!(err.contains("OWLPOST_TOKEN") && !err.contains("t0ken"), "{err}");

    // Port 1 (tcpmux): nobody listens there, and no test is given it.
    let (code, _, err) = told(run(&["--to", "http://127.0.0.1:1/v1/events"], event(1).as_bytes()));
    assert_eq!(code, Some(1));
    assert!(err.contains("is a worker running there"), "{err}");

    for (args, word) in [
        (&["--to", "kafka://broker/events"][..], "HOST:PORT"),
        (&["--to", "kafka://broker:9092"], "names no topic"),
        (&["--to", "kafka://me:secret@broker:9092/events"], "HOST:PORT"),
        (&["--to", "kafka://broker:9092/events", "--property", "sasl.usernme=me"], "sasl.username"),
        (&["--to", "kafka://broker:9092/events", "--property", "acks=1"], "all replicas"),
        (&["--to", "kafka://broker:9092/events", "--property", "sasl.password=${NO_SUCH}"], "NO_SUCH"),
        (&["--to", "http://127.0.0.1:1", "--binary"], "kafka://"),
    ] {
        let (code, _, err) = told(run(args, b""));
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(word) && !err.contains("secret"), "{args:?}: {err}");
    }

    let (code, _, err) = told(run(&["no-such-file.ndjson"], b""));
    assert_eq!(code, Some(1));
    assert!(err.contains("no-such-file.ndjson"), "{err}");
}

#[test]
fn a_broken_first_line_costs_the_others_nothing() {
    let script = Script::default();
    let input = format!("{{\"id\":\n{}\n{}\n", event(1), event(2));
    let (code, out, _) = publish(&script, &[], input.as_bytes());
    assert_eq!(code, Some(1));
    assert!(out.starts_with("stdin line 1 (event 0): rejected: "), "{out}");
    assert!(out.ends_with("2 accepted, 0 duplicates, 1 rejected\n"), "{out}");
}

#[test]
fn without_a_url_the_worker_of_the_configuration_is_meant_and_only_it_gets_its_token() {
    let script = Script::default();
    let (url, _runtime) = serve(&script);
    let listen = url.trim_start_matches("http://").split('/').next().unwrap();
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[http]\nlisten = \"{listen}\"\ntoken = \"of-the-worker\"\n")).unwrap();
    let config = file.path().to_str().unwrap();
    let publish = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
        command.args(["publish", "-c", config]).args(args).env_remove("OWLPOST_TOKEN").env_remove("OWLPOST_CONFIG");
        told(fed(&mut command, event(1).as_bytes()))
    };
    let (code, _, err) = publish(&[]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = publish(&["--to", &url]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(*script.tokens.lock().unwrap(), ["Bearer of-the-worker", ""]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_sum_that_cannot_be_written_is_a_failure() {
    let script = Script::default();
    let (url, _runtime) = serve(&script);
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.args(["publish", "--to", &url]).stdout(full);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(event(1).as_bytes()).unwrap();
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot write"), "{err}");
}

#[test]
fn with_no_validate_the_worker_decides() {
    let script = Script::default();
    let (code, _, _) = publish(&script, &["--no-validate"], b"{}\n");
    assert_eq!(code, Some(0));
    assert_eq!(script.bodies.lock().unwrap().concat(), "{}\n");
}
