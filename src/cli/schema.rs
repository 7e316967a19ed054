//! JSON Schemas of the configuration and of events.

use std::io::Write;
use std::process::ExitCode;

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
    anstream::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::failed(format!("the schema can't be written: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn event_schema() -> Result<String, Failure> {
    Ok(crate::decode::EVENT_SCHEMA.to_owned())
}
