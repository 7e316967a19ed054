//! Renders a mail from sample or given events.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::output::tell;
use super::{Failure, Outcome, browser};
use crate::app;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::decode::{Decoded, Decoder, Limits, Settings};
use crate::mailer::mime;
use crate::model::{Contents, Data, Event, Listed, Time};
use crate::render::{Renderer, samples};
use crate::route::Router;
use crate::source::Message;

/// Renders a mail from sample or given events: subject, text, sizes
#[derive(clap::Args)]
pub struct Args {
    /// approvals, decisions, expiries, reviews, changes, certificates, health, digest, or one of your own [default: all]
    template: Option<String>,
    /// Events to render instead of the samples, in any form that a worker takes: JSON, an array or NDJSON; "-" is stdin
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Writes .html, .txt and .eml of each mail into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Shows the HTML in a browser; without --out, from a folder of its own among the system's temporary files
    #[arg(long)]
    open: bool,
    /// Prints a JSON array, an object a mail
    #[arg(long)]
    json: bool,
}

/// A mail lists so many items; of more events the first ones are shown, and the subject says so.
const LISTED_MAX: usize = 50;

/// More than 50 events of a mebibyte is no preview.
const EVENTS_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The reserved route that tells what somebody else settled.
const HANDLED: &str = "handled";

pub fn run(args: Args, config: &[PathBuf]) -> Outcome {
    let config = super::load(config)?;
    let renderer = app::renderer(&config)
        .map_err(|problems| Failure::usage(format!("the templates can't be used:\n{problems}")))?;
    let now = SystemClock::new().now();
    if let Some(name) = args.template.as_deref().filter(|t| !renderer.templates().iter().any(|known| known == t)) {
        let known = renderer.templates().join(", ");
        return Err(Failure::usage(format!("there is no template {name:?}; there are {known}")));
    }
    let given = args.events.as_deref().map(|path| read_events(path, &config, now)).transpose()?;
    let (mut printed, mut pages) = (Vec::new(), Vec::new());
    let out = args.out.clone().or_else(|| args.open.then(|| std::env::temp_dir().join("owlpost-preview")));
    for (name, template, contents) in plan(&args, &renderer, given, now) {
        let mail = renderer.render(&contents, &template).map_err(|e| Failure::failed(format!("{name}: {e}")))?;
        let whole = mime::message(&mail, contents.attempt).map_err(|e| Failure::failed(format!("{name}: {e}")))?;
        let mut files = Vec::new();
        if let Some(dir) = &out {
            for (ending, bytes) in [("html", mail.html.as_bytes()), ("txt", mail.text.as_bytes()), ("eml", &whole)] {
                files.push(write(dir, &format!("{name}.{ending}"), bytes)?);
            }
            pages.push(dir.join(format!("{name}.html")));
        }
        if args.json {
            printed.push(serde_json::json!({
                "name": name, "template": template, "subject": mail.subject, "items": contents.items.len(),
                "html_bytes": mail.html.len(), "text_bytes": mail.text.len(), "mail_bytes": whole.len(),
                "html": mail.html, "text": mail.text, "files": files,
            }));
        } else {
            let (html, text) = (mail.html.len(), mail.text.len());
            let head = format!("── {name}: {} bytes (HTML {html}, text {text})", whole.len());
            tell(&format!("{head}\nSubject: {}\n\n{}\n", mail.subject, mail.text))?;
            tell(&files.iter().map(|file| format!("wrote {file}\n")).collect::<String>())?;
        }
    }
    if args.json {
        tell(&format!("{:#}\n", Value::Array(printed)))?;
    }
    if args.open {
        pages.iter().try_for_each(|page| browser::open(page))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to render: name of the files, template, contents.
fn plan(args: &Args, renderer: &Renderer, given: Option<Vec<Listed>>, now: Time) -> Vec<(String, String, Contents)> {
    let sample = |template: &str| given.clone().unwrap_or_else(|| samples::for_template(template));
    let one = |name: &str, template: &str, route: &str, mut items: Vec<Listed>| {
        let open_total = items.len() as u64;
        items.truncate(LISTED_MAX);
        let sample = samples::contents(items, route);
        // The samples have a day of their own, so that they always read the same.
        let at = if given.is_some() { now } else { sample.at };
        let contents = Contents { open_total, at, ..sample };
        (name.to_owned(), template.to_owned(), contents)
    };
    if let Some(template) = &args.template {
        return vec![one(template, template, template, sample(template))];
    }
    if given.is_some() {
        return vec![one("digest", "digest", "digest", sample("digest"))];
    }
    let mut plan: Vec<_> = renderer.templates().iter().map(|t| one(t, t, t, sample(t))).collect();
    plan.push(one(HANDLED, "decisions", HANDLED, sample("decisions")));
    plan
}

/// Events from a file or stdin, as the worker's front door reads them; most urgent first.
fn read_events(path: &Path, config: &Config, now: Time) -> Result<Vec<Listed>, Failure> {
    let shown = path.display();
    let input: std::io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin()))
    } else {
        fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut body = Vec::new();
    let read = input.and_then(|input| input.take(EVENTS_MAX_BYTES + 1).read_to_end(&mut body));
    read.map_err(|e| Failure::failed(format!("{shown}: {e}")))?;
    if body.len() as u64 > EVENTS_MAX_BYTES {
        return Err(Failure::failed(format!("{shown}: more than {EVENTS_MAX_BYTES} bytes; give fewer events")));
    }
    // One JSON text (an event or an array of them) or, if it is not one, a line an event.
    let lines = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err();
    let kind = if lines { "application/x-ndjson" } else { "application/json" };
    let message = Message {
        broker_id: None,
        position: shown.to_string(),
        time: None,
        headers: vec![("content-type".into(), kind.into())],
        body,
    };
    let source = "preview".to_owned();
    let settings =
        Settings { source: source.clone(), origin: source, realm: config.realm.clone(), limits: Limits::default() };
    let router = Router::new(&config.routes, &config.realm).map_err(|faults| {
        Failure::usage(faults.iter().map(|(_, f)| f.message.as_str()).collect::<Vec<_>>().join("\n"))
    })?;
    let mut events = Vec::new();
    for decoded in Decoder::new(settings).decode(&message, now) {
        match decoded {
            // With the subject that a route gives it.
            Decoded::Event(event) => events.push(listed(events.len() as i64 + 1, router.route(*event).event, now)),
            Decoded::Refused(no) => {
                return Err(Failure::failed(format!("{}: {}: {}", no.position, no.reason.as_str(), no.detail)));
            }
            Decoded::Twin | Decoded::Tombstone => {}
        }
    }
    if events.is_empty() {
        return Err(Failure::failed(format!("{shown}: no events in it")));
    }
    Ok(samples::in_order(events))
}

fn listed(event_number: i64, event: Event, now: Time) -> Listed {
    let data = Data::shown(event.data.as_str());
    Listed {
        event_number,
        source: event.source,
        id: event.id,
        kind: event.kind,
        time: event.time.unwrap_or(now),
        deadline: event.deadline,
        subject_key: event.subject_key,
        data: data.members,
        data_cut: data.cut,
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<String, Failure> {
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, bytes))
        .map_err(|e| Failure::failed(format!("can't write {}: {e}; name another folder with --out", path.display())))?;
    Ok(path.display().to_string())
}
