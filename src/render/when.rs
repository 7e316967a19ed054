//! Moments as a reader sees them: in their own zone, with the zone named.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;

use crate::model::Time;

/// The zone that a mail speaks in.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    /// IANA name, e.g. `Europe/Berlin`.
    pub name: String,
}

impl Zone {
    /// The bundled time zone database knows this name.
    pub fn known(name: &str) -> Option<Zone> {
        let zone = TimeZone::get(name).ok()?;
        let name = zone.iana_name().unwrap_or("UTC").to_owned();
        Some(Zone { zone, name })
    }

    pub fn utc() -> Zone {
        Zone { zone: TimeZone::UTC, name: "UTC".into() }
    }

    /// On the zone's clock, and what that clock is called then: `CET`.
    fn local(&self, t: Time) -> (DateTime, String) {
        let moment = t.timestamp();
        let there = self.zone.to_offset_info(moment);
        (there.offset().to_datetime(moment), there.abbreviation().to_owned())
    }

    fn year(&self, t: Time) -> i16 {
        self.zone.to_datetime(t.timestamp()).year()
    }

    /// `Tue 24 Nov 2026, 11:00 CET`
    pub fn full(&self, t: Time) -> String {
        let (there, clock) = self.local(t);
        words(there, Some(there.year()), &clock)
    }

    /// `Tue 24 Nov, 11:00 CET`, and with its year where that is not the year of `now`.
    pub fn moment(&self, t: Time, now: Time) -> String {
        let (there, clock) = self.local(t);
        words(there, Some(there.year()).filter(|year| *year != self.year(now)), &clock)
    }

    /// `24 Nov`; with the time, `24 Nov, 11:00`, if that is less than a day from `now`, and with its year where that is
    /// not the year of `now`.
    pub fn day(&self, t: Time, now: Time) -> String {
        let there = self.zone.to_datetime(t.timestamp());
        let mut out = format!("{} {}", there.day(), month(there));
        // Writing to a String cannot fail.
        if there.year() != self.year(now) {
            let _ = write!(out, " {}", there.year());
        }
        let span = if t >= now { t.since(now) } else { now.since(t) };
        if span < DAY {
            let _ = write!(out, ", {:02}:{:02}", there.hour(), there.minute());
        }
        out
    }
}

/// Of a moment that is nearer than this the time of day matters as much as the date.
const DAY: Duration = Duration::from_secs(86_400);

/// By hand, and without a `Zoned`: a mail of 20 items has 60 dates, and they were a good part of its rendering.
fn words(there: DateTime, year: Option<i16>, clock: &str) -> String {
    let year = year.map(|year| format!(" {year}")).unwrap_or_default();
    let (day, hour, minute) = (there.day(), there.hour(), there.minute());
    format!("{} {day} {}{year}, {hour:02}:{minute:02} {clock}", weekday(there), month(there))
}

fn weekday(day: DateTime) -> &'static str {
    match day.weekday() {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}

fn month(day: DateTime) -> &'static str {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    MONTHS.get(day.month().unsigned_abs() as usize - 1).copied().unwrap_or_default()
}

/// How far away, in words that stay true for the day: `in 3 days`, `in 5 hours`, `2 days ago`.
pub fn distance(t: Time, now: Time) -> String {
    let (span, past) = if t >= now { (t.since(now), false) } else { (now.since(t), true) };
    let hours = span.as_secs() / 3_600;
    let words = match hours {
        0 => "less than an hour".to_owned(),
        1..48 => super::text::counted(hours, "hour", "hours"),
        // Beyond two years the date says it better.
        48..17_520 => super::text::counted(hours / 24, "day", "days"),
        _ => return String::new(),
    };
    if past { format!("{words} ago") } else { format!("in {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::parse(text).unwrap()
    }

    #[test]
    fn a_moment_is_told_in_the_readers_zone() {
        let berlin = Zone::known("Europe/Berlin").unwrap();
        let now = at("2026-11-22T00:00:00Z");
        assert_eq!(berlin.full(at("2026-07-01T22:30:00Z")), "Thu 2 Jul 2026, 00:30 CEST");
        assert_eq!(berlin.moment(at("2026-07-01T22:30:00Z"), now), "Thu 2 Jul, 00:30 CEST");
        assert_eq!(berlin.moment(at("2027-07-01T08:03:00Z"), now), "Thu 1 Jul 2027, 10:03 CEST");
        assert_eq!(berlin.day(at("2026-11-24T08:03:00Z"), now), "24 Nov");
        assert_eq!(berlin.day(at("2026-11-22T08:03:00Z"), now), "22 Nov, 09:03");
        assert_eq!(berlin.day(at("2026-12-31T23:30:00Z"), at("2026-11-22T00:00:00Z")), "1 Jan 2027");
        assert!(Zone::known("Nowhere/Land").is_none());
    }

    #[test]
    fn the_ends_of_the_calendar_are_told_too() {
        let kiritimati = Zone::known("Pacific/Kiritimati").unwrap();
        for t in [Time::MIN, Time::MAX, Time(i64::MIN), Time(i64::MAX), at("0000-01-01T00:00:00Z")] {
            assert!(!kiritimati.full(t).is_empty() && !kiritimati.moment(t, Time(0)).is_empty());
            assert!(!kiritimati.day(t, Time(0)).is_empty());
            distance(t, Time(0));
        }
    }
}
