//! Every problem in configuration, routes and templates, at once.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::output::{clean, tell};
use super::{Failure, Outcome, live};
use crate::app;
use crate::clock::SystemClock;
use crate::config::{self, Config, DirectoryKind, Problem, Reading, Severity, SourceKind, TemplatesConfig};
use crate::directory::FileDirectory;
use crate::mailer::Finding;
use crate::model::Priority;
use crate::render;
use crate::source::file::FileSource;

/// Every problem in configuration, routes and templates, at once
#[derive(clap::Args)]
pub struct Args {
    /// Also reaches the brokers, the store and the mail server, and says who AWS takes this process for; sends nothing
    #[arg(long)]
    live: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was read, or what is wrong with it.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    files: Vec<String>,
    problems: Vec<Problem>,
    sources: Vec<Source>,
    routes: Vec<Route>,
    directories: Vec<Directory>,
    /// What `--live` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Vec<Finding>>,
}

#[derive(Serialize)]
struct Source {
    name: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
}

#[derive(Serialize)]
struct Route {
    name: String,
    priority: Priority,
    template: String,
    types: Vec<String>,
}

#[derive(Serialize)]
struct Directory {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    rules: usize,
}

/// Exit 0 if there is nothing but warnings, else 2; 1 if only `--live` found something wrong.
pub fn run(args: Args, files: &[PathBuf]) -> Outcome {
    let read = config::look(files, config::environment());
    // Said at the key that says how far they may be apart.
    let mut wrong_clock = read.warning(&["delivery", "clock_error"], "");
    let mut checked = checked(files, read);
    if args.live && checked.ok {
        let live = live::probe(&super::load(files)?)?;
        if let Some(why) = live.clock {
            wrong_clock.message = format!("clock_error: {why}");
            checked.problems.push(wrong_clock);
        }
        checked.live = Some(live.found);
    }
    let well = checked.live.iter().flatten().all(|found| found.ok);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&checked);
        json.map_err(|error| Failure::failed(format!("the result is no JSON: {error}")))? + "\n"
    } else {
        human(&checked)
    };
    tell(&text)?;
    Ok(match (checked.ok, well) {
        (false, _) => ExitCode::from(2),
        (true, false) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
    })
}

fn checked(files: &[PathBuf], read: Reading) -> Checked {
    let mut files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() {
        files.push("config/local.toml (built in)".to_owned());
    }
    let mut problems = read.problems.clone();
    problems.extend(inputs(&read));
    problems.extend(if read.has_errors() { templates(&fit(&read.config)) } else { templates(&read.config) });
    problems.extend(people(&read));
    if problems.iter().all(|problem| problem.severity == Severity::Warning) {
        problems.extend(app::unusable(&read.config, Arc::new(SystemClock::new())).map(|why| read.error(&[], why)));
    }
    problems.sort_by_key(|problem| problem.severity);
    let config = read.config;
    Checked {
        ok: problems.iter().all(|problem| problem.severity == Severity::Warning),
        files,
        problems,
        sources: config.sources.into_iter().map(source).collect(),
        routes: config.routes.into_iter().map(route).collect(),
        directories: config.directories.into_iter().map(directory).collect(),
        live: None,
    }
}

/// A configuration with errors, in which only templates and routes can be wrong: the rest has been told.
fn fit(config: &Config) -> Config {
    let templates = TemplatesConfig { ui_url: None, ..config.templates.clone() };
    Config { routes: config.routes.clone(), templates, ..Config::default() }
}

/// Files that a source would read, in the words of the worker that can't.
fn inputs(read: &Reading) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, section) in read.config.sources.iter().enumerate().filter(|(_, s)| s.kind == SourceKind::File) {
        let Some(path) = section.path.as_ref().filter(|p| !p.as_os_str().is_empty() && p.as_os_str() != "-") else {
            continue;
        };
        // A named pipe waits for its writer.
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            continue;
        }
        if let Err(why) = FileSource::open(&section.name, path, 1) {
            problems.push(read.error(&["source", &n.to_string(), "path"], why.to_string()));
        }
    }
    problems
}

/// What is wrong with the templates, built in and overridden; tried with every sample.
fn templates(config: &Config) -> Vec<Problem> {
    let Err(found) = app::try_renderer(config) else { return Vec::new() };
    let problem = |p: render::Problem| Problem {
        file: p.file.map_or_else(|| "templates".to_owned(), |file| file.display().to_string()),
        line: p.line.unwrap_or(0),
        column: p.column.unwrap_or(0),
        severity: Severity::Error,
        message: p.message,
    };
    found.into_iter().map(problem).collect()
}

/// What is wrong with the directories' files: a file that can't be used, and entries that the worker leaves out.
fn people(read: &Reading) -> Vec<Problem> {
    let mut problems = Vec::new();
    let files = read.config.directories.iter().filter(|d| d.kind == DirectoryKind::File);
    for path in files.filter_map(|d| d.path.as_ref()).filter(|p| !p.as_os_str().is_empty()) {
        let file = path.display().to_string();
        let problem = |severity, why: &str| {
            let (line, column, message) = placed(why);
            Problem { file: file.clone(), line, column, severity, message: message.to_owned() }
        };
        match FileDirectory::open(path) {
            Ok(read) => problems.extend(read.problems().iter().map(|why| problem(Severity::Warning, why))),
            Err(why) => {
                let why = why.to_string();
                // It begins with the path, as the problem does.
                let told = why.strip_prefix(&file).map_or(&*why, |rest| rest.trim_start_matches([':', ' ']));
                problems.push(problem(Severity::Error, told));
            }
        }
    }
    problems
}

/// Takes the place from the front of a text: `line 3, column 5: …`, or `line 3: …`, which is its first column.
fn placed(text: &str) -> (usize, usize, &str) {
    let found = || {
        let (place, message) = text.strip_prefix("line ")?.split_once(": ")?;
        let (line, column) = place.split_once(", column ").unwrap_or((place, "1"));
        Some((line.parse().ok()?, column.parse().ok()?, message))
    };
    found().unwrap_or((0, 0, text))
}

fn source(source: config::SourceConfig) -> Source {
    let kind = source.kind.as_str();
    Source { name: source.name, kind, path: source.path, topics: source.topics }
}

fn route(route: crate::route::RouteConfig) -> Route {
    Route { name: route.name, priority: route.priority, template: route.template, types: route.types }
}

fn directory(directory: config::DirectoryConfig) -> Directory {
    let kind = match directory.kind {
        DirectoryKind::Rules => "rules",
        DirectoryKind::File => "file",
        DirectoryKind::Zms => "zms",
    };
    Directory { name: directory.name, kind, path: directory.path, rules: directory.rules.len() }
}

fn human(checked: &Checked) -> String {
    let (red, yellow, green, bold) = (
        anstyle::AnsiColor::Red.on_default().bold(),
        anstyle::AnsiColor::Yellow.on_default(),
        anstyle::AnsiColor::Green.on_default().bold(),
        anstyle::Style::new().bold(),
    );
    let mut out = String::new();
    // Writing into a String never fails.
    for problem in &checked.problems {
        let style = if problem.severity == Severity::Error { red } else { yellow };
        let _ =
            writeln!(out, "{style}{}{style:#} {problem}", if problem.severity == Severity::Error { "✗" } else { "!" });
    }
    let errors = checked.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        let _ = writeln!(out, "{red}{errors} {}{red:#}", if errors == 1 { "problem" } else { "problems" });
        return out;
    }
    let _ = writeln!(out, "{green}✓{green:#} {}", checked.files.join(", "));
    let _ = writeln!(out, "{bold}sources{bold:#}");
    for source in &checked.sources {
        let path = source.path.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
        let topics: String = source.topics.iter().map(|topic| format!(" {topic}")).collect();
        let _ = writeln!(out, "  {:<16} {}{path}{topics}", source.name, source.kind);
    }
    let _ = writeln!(out, "{bold}routes{bold:#}");
    for route in &checked.routes {
        let priority = match route.priority {
            Priority::Urgent => "urgent",
            Priority::Normal => "normal",
            Priority::Bulk => "bulk",
        };
        let _ = writeln!(out, "  {:<16} {priority:<7} {:<13} {}", route.name, route.template, route.types.join(", "));
    }
    let _ = writeln!(out, "{bold}directories{bold:#}");
    for directory in &checked.directories {
        let what = match &directory.path {
            Some(path) => path.display().to_string(),
            None => format!("{} {}", directory.rules, if directory.rules == 1 { "rule" } else { "rules" }),
        };
        let _ = writeln!(out, "  {:<16} {} {what}", directory.name.as_deref().unwrap_or("-"), directory.kind);
    }
    if let Some(live) = &checked.live {
        let _ = writeln!(out, "{bold}live{bold:#}");
        for found in live {
            let (style, mark) = if found.ok { (green, "✓") } else { (red, "✗") };
            let _ = writeln!(out, "  {style}{mark}{style:#} {}", clean(&found.what));
        }
    }
    out
}
