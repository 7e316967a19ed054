//! Logs: readable text on a terminal, one JSON object a line elsewhere; always to stderr, since data goes to stdout.

use std::fmt;
use std::io::IsTerminal;

use serde::{Deserialize, Deserializer};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `auto`: text on a terminal, JSON elsewhere.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives like `owlpost=info,hyper=warn`. `RUST_LOG` wins.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
}

impl LogConfig {
    /// What is wrong with `log.level`, in words, for `check`.
    pub fn problem(&self) -> Option<String> {
        filter(&self.level).err()
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A bare level means owlpost's own: nobody who asks for `debug` wants to read every crate's.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    // A word without a level would be taken for the name of a module, and `warning` would silence everything else.
    let is_clear = |word: &str| {
        word.trim().is_empty() || word.contains(['=', '[']) || is_level(word) || word.trim().starts_with("owlpost")
    };
    let directives = if is_level(level) { format!("owlpost={}", level.trim()) } else { level.to_owned() };
    let unclear = level.split(',').find(|word| !is_clear(word));
    EnvFilter::builder().parse(&directives).ok().filter(|_| unclear.is_none() && !level.trim().is_empty()).ok_or_else(
        || {
            format!(
                "log.level: {:?} is no level: expected error, warn, info, debug, trace, or e.g. \"info,owlpost=debug\"",
                unclear.unwrap_or(level)
            )
        },
    )
}

/// `RUST_LOG`, else `log.level`.
fn wanted(config: &LogConfig) -> Result<EnvFilter, String> {
    match std::env::var("RUST_LOG") {
        Ok(level) if !level.is_empty() => {
            filter(&level).map_err(|problem| problem.replacen("log.level", "RUST_LOG", 1))
        }
        _ => filter(&config.level),
    }
}

/// Starts logging into a file, as text, for a command whose terminal shows something else.
///
/// # Errors
/// As [`init`].
pub fn init_file(config: &LogConfig, file: std::fs::File) -> Result<(), String> {
    let builder = tracing_subscriber::fmt().with_env_filter(wanted(config)?).with_writer(std::sync::Mutex::new(file));
    // An error only says that logging had been started.
    let _ = builder.with_ansi(false).with_target(false).with_timer(TimeOfDay).compact().try_init();
    Ok(())
}

/// Starts logging. Later calls (tests) change nothing.
///
/// # Errors
/// `RUST_LOG` or `log.level` can't be read; in words, naming which.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = wanted(config)?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error only says that logging had been started.
    let _ = if json {
        builder.event_format(Json).try_init()
    } else {
        // https://no-color.org: set and not empty.
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        builder.with_ansi(colours).with_target(false).with_timer(TimeOfDay).compact().try_init()
    };
    Ok(())
}

/// Local time of day: who reads a terminal knows the date.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", jiff::Zoned::now().strftime("%H:%M:%S"))
    }
}

/// `{"ts","level","target","message","fields":{…}}`, one line each.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = serde_json::json!({
            "ts": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "level": event.metadata().level().as_str(),
            "target": event.metadata().target(),
            "message": fields.message,
            "fields": fields.others,
        });
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.others.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// A secret or an address: neither `{}` nor `{:?}` shows it. To use it, say [`Redacted::reveal`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    pub fn new(value: T) -> Redacted<T> {
        Redacted(value)
    }

    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Redacted<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Redacted<T>, D::Error> {
        T::deserialize(d).map(Redacted)
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Redacted<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_machine_reads_one_json_object_a_line_whatever_a_value_holds() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || out.clone()).event_format(Json).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(route = "a\nb\u{1b}[31m\"", count = 3, ok = true, "two\nlines");
            tracing::info!(name = %"x", "second");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["fields"], serde_json::json!({"route": "a\nb\u{1b}[31m\"", "count": 3, "ok": true}));
        assert!(lines[0]["ts"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert_eq!(lines[0]["target"], module_path!());
    }

    #[test]
    fn a_redacted_value_is_never_shown() {
        let token = Redacted::new("hunter2".to_owned());
        assert_eq!(format!("{token} {token:?} {:#?}", Some(&token)).matches("hunter2").count(), 0);
        assert_eq!(token.reveal(), "hunter2");
    }

    #[test]
    fn a_level_that_is_none_is_a_problem_that_names_the_key() {
        for level in ["info", "WARN", "owlpost=debug,hyper=warn", "owlpost::ingest=trace"] {
            assert_eq!(LogConfig { level: level.to_owned(), ..LogConfig::default() }.problem(), None, "{level}");
        }
        let problem = LogConfig { level: "owlpost=loud".to_owned(), ..LogConfig::default() }.problem().unwrap();
        assert!(problem.starts_with("log.level: "), "{problem}");
    }

    #[test]
    fn a_bare_level_is_about_owlpost_alone() {
        assert_eq!(filter("debug").unwrap().to_string(), "owlpost=debug");
    }
}
