//! Moments.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment: microseconds since 1970-01-01T00:00:00Z. The store tells the time; everybody else is handed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

impl Time {
    /// Year -9999 and 9999, the ends of what RFC 3339 and `jiff` can say in microseconds.
    pub const MIN: Time = Time(-377_705_023_201_000_000);
    pub const MAX: Time = Time(253_402_207_200_000_000);

    /// From milliseconds since the epoch (Athenz's `published`); `None` outside of what a calendar can say.
    pub fn from_ms(ms: i64) -> Option<Time> {
        ms.checked_mul(1_000).map(Time).filter(|t| (Time::MIN..=Time::MAX).contains(t))
    }

    /// From RFC 3339 text with an offset, as CloudEvents and ZMS write it; digits below a microsecond are cut. Nothing else
    /// of ISO 8601: what one program reads generously, the next one reads otherwise.
    pub fn parse(text: &str) -> Option<Time> {
        let (moment, rest) = text.split_at_checked("2026-11-25T10:00:00".len())?;
        let fits = |(have, want): (u8, u8)| match want {
            b'0' => have.is_ascii_digit(),
            b'T' => matches!(have, b'T' | b't' | b' '),
            _ => have == want,
        };
        if !moment.bytes().zip(*b"0000-00-00T00:00:00").all(fits) {
            return None;
        }
        let (digits, offset) = match rest.strip_prefix('.') {
            Some(fraction) => {
                let end = fraction.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
                fraction.split_at_checked(end)?
            }
            None => ("0", rest),
        };
        let is_offset = match offset.as_bytes() {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', h1, h2, b':', m1, m2] => {
                [h1, h2, m1, m2].iter().all(|d| d.is_ascii_digit()) && &offset[1..3] < "24" && &offset[4..6] < "60"
            }
            _ => false,
        };
        if !is_offset {
            return None;
        }
        // As most of them come; a moment before 1970 would be rounded away from it, not cut.
        if digits.len() <= 6 || &moment[..4] > "1970" && digits.len() <= 9 {
            return text.parse::<jiff::Timestamp>().ok().map(Time::from);
        }
        let plain = format!("{moment}.{}{offset}", &digits[..6]);
        plain.parse::<jiff::Timestamp>().ok().map(Time::from)
    }

    pub fn plus(self, by: Duration) -> Time {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Time(self.0.saturating_add(micros).min(Time::MAX.0))
    }

    pub fn minus(self, by: Duration) -> Time {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Time(self.0.saturating_sub(micros).max(Time::MIN.0))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub fn timestamp(self) -> jiff::Timestamp {
        let inside = self.clamp(Time::MIN, Time::MAX);
        jiff::Timestamp::from_microsecond(inside.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(t: jiff::Timestamp) -> Time {
        // Nanoseconds reach up to a second further than microseconds.
        Time(t.as_microsecond()).min(Time::MAX)
    }
}

/// RFC 3339 in UTC with six digits of a second, always: as text these times stand in the order of time.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.timestamp())
    }
}
