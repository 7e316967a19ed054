//! Moments as a reader sees them: in their own zone, with the zone named.

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

    fn local(&self, t: Time) -> jiff::Zoned {
        t.timestamp().to_zoned(self.zone.clone())
    }

    /// `Tue 24 Nov 2026, 11:00 CET`
    pub fn moment(&self, t: Time) -> String {
        self.local(t).strftime("%a %-d %b %Y, %H:%M %Z").to_string()
    }

    /// `24 Nov`, and with its year where that is not the year of `now`.
    pub fn day(&self, t: Time, now: Time) -> String {
        let (then, today) = (self.local(t), self.local(now));
        let form = if then.year() == today.year() { "%-d %b" } else { "%-d %b %Y" };
        then.strftime(form).to_string()
    }
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
        assert_eq!(berlin.moment(at("2026-07-01T22:30:00Z")), "Thu 2 Jul 2026, 00:30 CEST");
        assert_eq!(berlin.day(at("2026-12-31T23:30:00Z"), at("2026-11-22T00:00:00Z")), "1 Jan 2027");
        assert!(Zone::known("Nowhere/Land").is_none());
    }

    #[test]
    fn the_ends_of_the_calendar_are_told_too() {
        let kiritimati = Zone::known("Pacific/Kiritimati").unwrap();
        for t in [Time::MIN, Time::MAX, Time(i64::MIN), Time(i64::MAX), at("0000-01-01T00:00:00Z")] {
            assert!(!kiritimati.moment(t).is_empty());
            assert!(!kiritimati.day(t, Time(0)).is_empty());
            distance(t, Time(0));
        }
    }
}
