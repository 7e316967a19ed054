//! What commands write: data on stdout, everything else on stderr.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Outcome};
use crate::model::Time;

/// Why writing stopped.
pub enum Stop {
    /// The reader went away (`| head`): nothing is wrong.
    Closed,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(Failure::failed(format!("cannot write: {e}"))),
        }
    }
}

pub type Written<T = ()> = Result<T, Stop>;

/// Buffered stdout. Colours only where a terminal shows them and nobody said `NO_COLOR`.
pub struct Out<W: Write = io::StdoutLock<'static>> {
    writer: BufWriter<W>,
    colour: bool,
}

impl Out {
    pub fn stdout() -> Out {
        let stdout = io::stdout();
        let colour = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Out { writer: BufWriter::new(stdout.lock()), colour }
    }
}

impl<W: Write> Out<W> {
    #[cfg(test)]
    pub fn plain(writer: W) -> Out<W> {
        Out { writer: BufWriter::new(writer), colour: false }
    }

    /// One line of human text, as it stands: what came from outside was passed through [`clean`].
    pub fn line(&mut self, text: &str) -> Written {
        Ok(writeln!(self.writer, "{}", text.trim_end())?)
    }

    /// A line that heads others.
    pub fn heading(&mut self, text: &str) -> Written {
        let text = text.trim_end();
        if self.colour {
            let bold = anstyle::Style::new().bold();
            return Ok(writeln!(self.writer, "{bold}{text}{bold:#}")?);
        }
        self.line(text)
    }

    /// Text with its own line ends and colours, which are left out where none are shown.
    pub fn styled(&mut self, text: &str) -> Written {
        if self.colour {
            return Ok(self.writer.write_all(text.as_bytes())?);
        }
        Ok(write!(self.writer, "{}", anstream::adapter::strip_str(text))?)
    }

    /// One JSON value on one line.
    pub fn json(&mut self, value: &impl Serialize) -> Written {
        serde_json::to_writer(&mut self.writer, value).map_err(io::Error::from)?;
        Ok(self.writer.write_all(b"\n")?)
    }

    pub fn flush(&mut self) -> Written {
        Ok(self.writer.flush()?)
    }
}

/// Runs what writes to stdout, to the last byte. A reader who went away ends it quietly.
pub fn written(work: impl FnOnce(&mut Out) -> Written<ExitCode>) -> Outcome {
    let mut out = Out::stdout();
    let done = work(&mut out).and_then(|code| out.flush().map(|()| code));
    match done {
        Ok(code) => Ok(code),
        Err(Stop::Closed) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failed(failure)) => {
            // What was found until then is data too.
            let _ = out.flush();
            Err(failure)
        }
    }
}

/// One text, coloured or not, to stdout. Nobody who reads it (any more) is no failure.
///
/// # Errors
/// It can't be written: a full disk.
pub fn tell(text: &str) -> Result<(), Failure> {
    written(|out| out.styled(text).map(|()| ExitCode::SUCCESS)).map(drop)
}

/// A remark for people, on stderr.
pub fn note(text: &str) {
    anstream::eprintln!("{text}");
}

/// Text from outside, for a terminal: control characters and what turns the writing direction show as escapes.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        let turns =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// RFC 3339 in UTC to the second, for people; JSON has all digits.
pub fn seconds(at: &str) -> String {
    match Time::parse(at) {
        Some(time) => format!("{:.0}", Time(time.0 - time.0.rem_euclid(1_000_000)).timestamp()),
        None => clean(at),
    }
}

/// `-` for what is not there.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|t| !t.is_empty()).map_or_else(|| "-".into(), clean)
}

pub fn seconds_or_dash(at: Option<&str>) -> String {
    at.map_or_else(|| "-".into(), seconds)
}

/// `1 item`, `2 items`.
pub fn counted(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_steers_a_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{9b}c\u{202e}d\r\n"), "a\\u{1b}[31mb\\u{9b}c\\u{202e}d\\r\\n");
        assert_eq!(clean("Zoë – 日本"), "Zoë – 日本");
    }

    #[test]
    fn times_for_people_end_at_the_second() {
        assert_eq!(seconds("2026-11-22T10:53:09.123456Z"), "2026-11-22T10:53:09Z");
        assert_eq!(seconds("1969-12-31T23:59:59.5Z"), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn a_reader_who_went_away_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out::plain(Gone);
        let done = out.json(&"x".repeat(100_000)).and_then(|()| out.flush());
        assert!(matches!(done, Err(Stop::Closed)));
    }
}
