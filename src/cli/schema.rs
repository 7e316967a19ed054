//! JSON Schemas of the configuration and of events.

use std::process::ExitCode;

use super::output::tell;
use super::{Failure, Outcome};

/// JSON Schemas of the configuration and of events
#[derive(clap::Args)]
pub struct Args {
    /// Which of them
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// Of a configuration file
    Config,
    /// Of an event's data, by type
    Event,
}

pub fn run(args: Args) -> Outcome {
    let text = match args.what {
        What::Config => format!("{:#}\n", crate::config::schema().to_value()),
        What::Event => event_schema()?,
    };
    tell(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn event_schema() -> Result<String, Failure> {
    Ok(crate::decode::EVENT_SCHEMA.to_owned())
}
