//! The configuration: files and environment become one checked [`Config`], or a list of everything that is wrong with
//! them, each with file, line and column.
//!
//! Files -> [`tree`] (values with places) -> [`merge`] (later wins, environment, `${…}`) -> [`read`] (types and unknown
//! keys) -> [`validate`] (what the values mean together). Every step goes on after a problem, so that all show at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod dead_letters;
mod mailer;
mod merge;
mod nearest;
mod read;
mod sections;
mod source;
mod tree;
mod validate;

pub use dead_letters::DeadLettersConfig;
pub use mailer::{MailerConfig, MailerKind, SesContent, SmtpTls};
pub use nearest::did_you_mean;
pub use sections::{
    AddressRule, Allowance, DeliveryConfig, DirectoryConfig, DirectoryKind, HttpConfig, LimitsConfig, QuotaConfig,
    RecipientsConfig, ScheduleConfig, Secret, StoreAuth, StoreConfig, TemplatesConfig,
};
pub use source::{GroupProtocol, Property, SourceConfig, SourceKind};

use crate::route::RouteConfig;
pub use crate::telemetry::{LogConfig, LogFormat};

/// What applies without a file, and how the problems in it are named.
pub const LOCAL: &str = include_str!("../config/local.toml");
const LOCAL_NAME: &str = "config/local.toml (built in)";

/// The route that tells those who had been asked that somebody else was quicker. Always there, after all others.
pub const HANDLED: &str = "handled";
const HANDLED_ROUTE: &str = r#"
[[route]]
name = "handled"
template = "decisions"
cadence = { first_after = "15m" }
"#;

/// Nobody reads more at once, and finding them stays quick.
pub const PROBLEMS_MAX: usize = 2_000;

/// Everything that can be set. Defaults are those of `config/owlpost.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Tells several Athenz installations apart; part of every subject.
    pub realm: String,
    pub http: HttpConfig,
    pub store: StoreConfig,
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
    pub dead_letters: DeadLettersConfig,
    pub mailer: MailerConfig,
    pub quota: QuotaConfig,
    pub recipients: RecipientsConfig,
    #[serde(rename = "directory")]
    pub directories: Vec<DirectoryConfig>,
    #[serde(rename = "route")]
    pub routes: Vec<RouteConfig>,
    pub templates: TemplatesConfig,
    pub limits: LimitsConfig,
    pub delivery: DeliveryConfig,
    pub schedule: ScheduleConfig,
    pub log: LogConfig,
    /// What is allowed but probably not meant.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// What is wrong, where, and what to do about it. Holds no value of a file: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// As given on the command line, or the name of the environment variable.
    pub file: String,
    /// From 1; 0: the whole file, or a variable.
    pub line: usize,
    /// From 1, in characters; 0 as above.
    pub column: usize,
    pub severity: Severity,
    pub message: String,
}

impl Problem {
    fn new(at: &tree::At, severity: Severity, message: impl Into<String>) -> Problem {
        Problem { file: at.file.to_string(), line: at.line, column: at.column, severity, message: message.into() }
    }

    fn error(at: &tree::At, message: impl Into<String>) -> Problem {
        Problem::new(at, Severity::Error, message)
    }

    fn warning(at: &tree::At, message: impl Into<String>) -> Problem {
        Problem::new(at, Severity::Warning, message)
    }
}

/// `FILE:LINE:COLUMN: message`, as editors and terminals make a link of.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        let what = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, ": {what}{}", self.message)
    }
}

/// What could be read, and everything that is wrong with it: enough to look further, not to work with.
pub struct Reading {
    pub config: Config,
    /// Errors before warnings, each in the order of its file; at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// There was something to build [`Reading::config`] on.
    whole: bool,
    root: tree::Node,
}

impl Reading {
    pub fn has_errors(&self) -> bool {
        !self.whole || self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// An error at the place of a value, for those who find out more about it.
    pub fn error(&self, path: &[&str], message: impl Into<String>) -> Problem {
        Problem::error(self.root.locate(path), message)
    }

    /// The same of what works and should be looked at.
    pub fn warning(&self, path: &[&str], message: impl Into<String>) -> Problem {
        Problem::warning(self.root.locate(path), message)
    }
}

/// Reads and checks the configuration. No file: the built-in [`LOCAL`]. Of several files, later ones win. `env` is the
/// process's environment, for `OWLPOST__SECTION__KEY` and `${NAME}`.
///
/// # Errors
/// Every problem of every file at once.
pub fn load(files: &[PathBuf], env: impl Iterator<Item = (String, String)>) -> Result<Config, Vec<Problem>> {
    let read = look(files, env);
    if read.has_errors() {
        return Err(read.problems);
    }
    Ok(Config { warnings: read.problems, ..read.config })
}

/// As [`load`], for `check`: also what can be read of a configuration with errors.
pub fn look(files: &[PathBuf], env: impl Iterator<Item = (String, String)>) -> Reading {
    let mut problems = Vec::new();
    let env: BTreeMap<String, String> = env.collect();
    let nodes: Vec<tree::Node> = if files.is_empty() {
        tree::parse(LOCAL_NAME, LOCAL, &mut problems).into_iter().collect()
    } else {
        files.iter().filter_map(|path| tree::read(path, &mut problems)).collect()
    };
    // What stands in a file that can't be read is not missing, it is unknown: its absence proves nothing.
    let complete = problems.is_empty();
    let first =
        nodes.first().map_or_else(|| tree::At { file: LOCAL_NAME.into(), line: 0, column: 0 }, |node| node.at.clone());
    let mut root = tree::Node::table(first);
    for node in nodes {
        merge::duplicates(&node, &mut problems);
        merge::merge(&mut root, node);
    }
    if let Some(handled) = tree::parse("built in", HANDLED_ROUTE, &mut problems) {
        merge::merge_under(&mut root, handled);
    }
    merge::overrides(&mut root, &env, &mut problems);
    merge::expand(&mut root, &env, &mut problems);
    // Again: the environment may have changed names.
    merge::duplicates(&root, &mut problems);
    let config = read::read::<Config>(&mut root, &mut problems);
    if let (Some(config), true) = (&config, complete) {
        validate::validate(config, &root, &mut problems);
    }
    let (whole, config) = (config.is_some(), config.unwrap_or_default());
    Reading { config, problems: in_order(problems, files), whole, root }
}

/// The process's environment, for [`load`]. Bytes that are no UTF-8 become U+FFFD, so that no variable is passed over.
/// A text from elsewhere with `${NAME}` and `${file:PATH}` filled in, as in a file of the configuration.
///
/// # Errors
/// Each piece that is not there.
pub fn filled_in(text: &str, env: impl Iterator<Item = (String, String)>) -> Result<String, String> {
    merge::expanded(text, &env.collect()).map_err(|wrong| wrong.join("; "))
}

pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// The JSON Schema of the configuration, for editors and for `schema config`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

fn in_order(mut problems: Vec<Problem>, files: &[PathBuf]) -> Vec<Problem> {
    let place = |p: &Problem| files.iter().position(|f| f.as_os_str() == p.file.as_str()).unwrap_or(files.len());
    problems.sort_by_cached_key(|p| (p.severity, place(p), p.clone()));
    problems.dedup();
    if problems.len() > PROBLEMS_MAX {
        problems.truncate(PROBLEMS_MAX - 1);
        if let Some(last) = problems.last().cloned() {
            problems.push(Problem { message: "there are more problems; these first".into(), ..last });
        }
    }
    problems
}
