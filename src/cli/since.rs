//! `--since`: a moment, or how long ago.

use std::str::FromStr;
use std::time::Duration;

use crate::model::Time;
use crate::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    At(Time),
    Ago(Duration),
}

impl Since {
    pub fn at(self, now: Time) -> Time {
        match self {
            Since::At(time) => time,
            Since::Ago(duration) => now.minus(duration),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a time (RFC 3339, e.g. 2026-11-22T09:00:00Z) or how long ago (e.g. 24h)")]
pub struct NotSince;

impl FromStr for Since {
    type Err = NotSince;

    fn from_str(text: &str) -> Result<Since, NotSince> {
        match (Time::parse(text), text.parse::<Span>()) {
            (Some(time), _) => Ok(Since::At(time)),
            (None, Ok(span)) => Ok(Since::Ago(span.0)),
            (None, Err(_)) => Err(NotSince),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_moment_or_how_long_ago() {
        let now = Time::parse("2026-11-22T12:00:00Z").unwrap();
        let noon = Time::parse("2026-11-21T12:00:00Z").unwrap();
        assert_eq!("24h".parse::<Since>().unwrap().at(now), noon);
        assert_eq!("2026-11-21T13:00:00+01:00".parse::<Since>().unwrap().at(now), noon);
        for text in ["yesterday", "24", "2026-11-21", ""] {
            assert_eq!(text.parse::<Since>(), Err(NotSince), "{text}");
        }
    }
}
