//! Every problem in configuration, routes and templates, at once.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::output::clean;
use super::{Failure, Outcome, live};
use crate::app;
use crate::config::{self, Config, DirectoryKind, Problem, Severity, SourceKind};
use crate::directory::FileDirectory;
use crate::mailer::Finding;
use crate::model::Priority;
use crate::render;

/// Every problem in configuration, routes and templates, at once
#[derive(clap::Args)]
pub struct Args {
    /// Also reaches the store and the mail server, and says who AWS takes this process for; sends nothing
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
    let mut checked = checked(files, config::load(files, config::environment()));
    if args.live && checked.ok {
        checked.live = Some(live::probe(&super::load(files)?)?);
    }
    let well = checked.live.iter().flatten().all(|found| found.ok);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&checked);
        json.map_err(|error| Failure::failed(format!("the result is no JSON: {error}")))? + "\n"
    } else {
        human(&checked)
    };
    anstream::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::failed(format!("the result can't be written: {error}")))?;
    Ok(match (checked.ok, well) {
        (false, _) => ExitCode::from(2),
        (true, false) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
    })
}

fn checked(files: &[PathBuf], loaded: Result<Config, Vec<Problem>>) -> Checked {
    let mut files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() {
        files.push("config/local.toml (built in)".to_owned());
    }
    let (config, problems) = match loaded {
        Ok(config) => {
            let mut problems = config.warnings.clone();
            problems.extend(templates(&config));
            problems.extend(people(&config));
            (config, problems)
        }
        Err(problems) => (Config::default(), problems),
    };
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
fn people(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let files = config.directories.iter().filter(|d| d.kind == DirectoryKind::File);
    for path in files.filter_map(|d| d.path.as_ref()) {
        let mut add = |severity, message| {
            problems.push(Problem { file: path.display().to_string(), line: 0, column: 0, severity, message });
        };
        match FileDirectory::open(path) {
            Ok(read) => read.problems().into_iter().for_each(|why| add(Severity::Warning, why)),
            Err(why) => {
                let why = why.to_string();
                // It begins with the path, as the problem does.
                let told = why.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&why);
                add(Severity::Error, told.to_owned());
            }
        }
    }
    problems
}

fn source(source: config::SourceConfig) -> Source {
    let kind = match source.kind {
        SourceKind::Http => "http",
        SourceKind::File => "file",
        SourceKind::Kafka => "kafka",
        SourceKind::Sqs => "sqs",
        SourceKind::Zms => "zms",
    };
    Source { name: source.name, kind, path: source.path }
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
        let _ = writeln!(out, "  {:<16} {}{path}", source.name, source.kind);
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
