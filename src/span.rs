//! Durations as people write them: `"90s"`, `"2m"`, `"1h"`, `"1d"`, `"250ms"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in configuration: whole units, one or several of them (`"1h30m"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// 100 years: nothing that owlpost waits for is longer, and sums of it never overflow a [`crate::model::Time`].
const MAX_MS: u64 = 100 * 365 * 86_400_000;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a duration: expected a whole number and a unit (ms, s, m, h, d, w), at most 100 years, e.g. \"90s\" or \"1h30m\""
)]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(NotASpan);
        }
        let mut total_ms = 0u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(NotASpan)?;
            let number: u64 = rest[..digits].parse().map_err(|_| NotASpan)?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let unit_ms = UNITS.iter().find(|(u, _)| *u == &rest[..letters]).ok_or(NotASpan)?.1;
            rest = &rest[letters..];
            total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or(NotASpan)?;
        }
        if total_ms > MAX_MS { Err(NotASpan) } else { Ok(Span(Duration::from_millis(total_ms))) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, size) = UNITS.iter().rev().skip(1).find(|(_, s)| ms >= *s && ms % s == 0).unwrap_or(&UNITS[1]);
        if ms % size == 0 { write!(f, "{}{unit}", ms / size) } else { write!(f, "{ms}ms") }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_reads() {
        for (text, ms) in [("90s", 90_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("250ms", 250)] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_millis(), ms);
        }
        assert_eq!("1h30m".parse::<Span>().unwrap().to_string(), "90m");
        assert_eq!("90d".parse::<Span>().unwrap().to_string(), "90d");
        assert_eq!("0s".parse::<Span>().unwrap().to_string(), "0s");
        assert_eq!("1500ms".parse::<Span>().unwrap().to_string(), "1500ms");
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "90", "s", "1.5h", "-1s", "1 h", "1y", "99999999999999999999s", "101w52w9999999w"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
    }
}
