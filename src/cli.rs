//! The commands: one file each. Data goes to stdout, logs and progress to stderr.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

pub mod browser;
pub mod check;
pub mod dead_letters;
pub mod demo;
pub mod digests;
pub mod ledger;
pub mod live;
pub mod migrate;
pub mod open;
pub mod output;
pub mod pause;
pub mod preview;
pub mod publish;
pub mod run;
pub mod schema;
pub mod shadow;
pub mod since;
pub mod status;
mod store;
pub mod suppressions;
pub mod table;
pub mod why;

/// Configuration files, where the command line names none.
const CONFIG: &str = "OWLPOST_CONFIG";

#[derive(Parser)]
#[command(name = "owlpost", version, about, max_term_width = 120)]
pub struct Cli {
    /// Configuration file; repeatable, later files win. Without one: those of OWLPOST_CONFIG (with ':' between them), else
    /// the built-in local.toml.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Check(check::Args),
    Publish(publish::Args),
    Preview(preview::Args),
    Status(status::Args),
    Why(why::Args),
    Ledger(ledger::Args),
    DeadLetters(dead_letters::Args),
    Digests(digests::Args),
    Suppressions(suppressions::Args),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Migrate(migrate::Args),
    Store(store::Args),
    Schema(schema::Args),
}

/// Why a command ended badly: what happened, where, what to do. Exit 1, or 2 for wrong usage or configuration.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }

    /// The store answered another question than was asked: a defect of owlpost.
    pub fn unexpected() -> Failure {
        Failure::failed("the store gave an answer of another kind; this is a defect, please report it")
    }
}

pub type Outcome = Result<ExitCode, Failure>;

/// Runs the command and turns a failure into one line on stderr and its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = if cli.config.is_empty() { of_environment(std::env::var_os(CONFIG)) } else { cli.config };
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args, &config),
        Command::Check(args) => check::run(args, &config),
        Command::Publish(args) => publish::run(args, &config),
        Command::Preview(args) => preview::run(args, &config),
        Command::Status(args) => status::run(args, &config),
        Command::Why(args) => why::run(args, &config),
        Command::Ledger(args) => ledger::run(args, &config),
        Command::DeadLetters(args) => dead_letters::run(args, &config),
        Command::Digests(args) => digests::run(args, &config),
        Command::Suppressions(args) => suppressions::run(args, &config),
        Command::Pause(args) => pause::pause(args, &config),
        Command::Resume(args) => pause::resume(args, &config),
        Command::Migrate(args) => migrate::run(args, &config),
        Command::Store(args) => store::run(args, &config),
        Command::Schema(args) => schema::run(args),
    };
    outcome.unwrap_or_else(|failure| {
        anstream::eprintln!("owlpost: {}", failure.message);
        ExitCode::from(failure.code)
    })
}

/// Set and empty is as good as not set.
fn of_environment(value: Option<OsString>) -> Vec<PathBuf> {
    let all = value.unwrap_or_default();
    std::env::split_paths(&all).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The configuration, or all that is wrong with it (exit 2).
///
/// # Errors
/// Every problem, a line each.
pub fn load(files: &[PathBuf]) -> Result<Config, Failure> {
    let config = config::load(files, config::environment()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(format!("the configuration has problems:\n{}", lines.join("\n")))
    })?;
    Ok(config)
}

/// Two workers are enough for what is not waiting; blocking threads carry store calls and file writes, and are bounded
/// by the sends in flight.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("no threads to run on: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_names_no_file_and_others_name_several() {
        let files = |value: &str| of_environment(Some(value.into()));
        assert_eq!((of_environment(None).len(), files("").len(), files(":").len()), (0, 0, 0));
        assert_eq!(files("a.toml:b.toml"), [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
    }

    #[test]
    fn a_file_of_the_command_line_may_have_a_colon_in_its_name() {
        let cli = Cli::try_parse_from(["owlpost", "-c", "a:b.toml", "status"]).unwrap();
        assert_eq!(cli.config, [PathBuf::from("a:b.toml")]);
    }
}
