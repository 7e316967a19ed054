//! The local times at which mails leave: `at` with `days`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time as Clock, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// A mail an hour is the most that times of day are good for; more is a gap (`at_most_every`).
const TIMES_MAX: usize = 24;

/// A set of weekdays, a bit each, Monday first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DayMask(u8);

impl DayMask {
    pub(super) fn add(&mut self, day: Weekday) {
        self.0 |= 1 << day.to_monday_zero_offset();
    }

    pub(super) fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

/// What `days` says, before it meets a calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Days {
    /// Days that count in any case, holidays too.
    pub(super) named: DayMask,
    /// `workdays`: the calendar's, without its holidays.
    pub(super) workdays: bool,
}

pub(super) fn parse_weekday(text: &str) -> Option<Weekday> {
    Some(match text {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        _ => return None,
    })
}

pub(super) fn parse_days(days: &[String]) -> Result<Days, String> {
    let mut found = Days::default();
    if days.is_empty() {
        return Err("name at least one day, or leave it out for every day".into());
    }
    for day in days {
        match parse_weekday(day) {
            Some(weekday) => found.named.add(weekday),
            None if day == "workdays" => found.workdays = true,
            None => return Err(format!("{day:?} is not a day; expected mon to sun, or workdays")),
        }
    }
    Ok(found)
}

/// `"09:00"` or `"09:00, 15:00"`, in any order; sorted and each once.
pub(super) fn parse_times(text: &str) -> Result<Vec<Clock>, String> {
    let mut times = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let time = parse_time(part).ok_or_else(|| {
            format!("{part:?} is not a time of day; expected 00:00 to 23:59, e.g. \"09:00\" or \"09:00, 15:00\"")
        })?;
        times.push(time);
    }
    times.sort();
    times.dedup();
    if times.len() > TIMES_MAX {
        return Err(format!("{} times of day; at most {TIMES_MAX}", times.len()));
    }
    Ok(times)
}

fn parse_time(text: &str) -> Option<Clock> {
    let (hour, minute) = text.split_once(':')?;
    let two = |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<i8>().ok()).flatten();
    Clock::new(two(hour)?, two(minute)?, 0, 0).ok()
}

/// `at` and `days` with the calendar's workdays and holidays.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// Sorted, never empty.
    pub(super) times: Vec<Clock>,
    /// `None`: every day.
    pub(super) days: Option<Days>,
    pub(super) workdays: DayMask,
    pub(super) holidays: Arc<BTreeSet<Date>>,
}

impl Slots {
    fn counts(&self, date: Date) -> bool {
        let day = date.weekday();
        self.days.is_none_or(|days| {
            days.named.has(day) || (days.workdays && self.workdays.has(day) && !self.holidays.contains(&date))
        })
    }

    /// The first slot at or after `earliest` whose local time is at or after `local` (if given). `None`: there is none
    /// before the end of the calendar (year 9999).
    ///
    /// A slot that the clocks skip is the first moment after the gap; one that they show twice is the first of the two; a
    /// day that a zone skips altogether (Apia, 30 December 2011) has none. So slots never go back while dates go on, and
    /// the first one that fits is the earliest.
    pub(super) fn next(&self, zone: &TimeZone, earliest: Timestamp, local: Option<DateTime>) -> Option<Timestamp> {
        // A slot of the day before can still come if the gap that swallowed it ends after midnight.
        let here = zone.to_datetime(earliest).date();
        let mut date = here.yesterday().unwrap_or(here);
        if let Some(local) = local {
            date = date.max(local.date());
        }
        for _ in 0..self.days_max() {
            if self.counts(date) {
                for time in &self.times {
                    let slot = date.to_datetime(*time);
                    if local.is_some_and(|l| slot < l) {
                        continue;
                    }
                    match resolve(zone, slot) {
                        Some(at) if at >= earliest => return Some(at),
                        _ => {}
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last slot at or before `moment`, as the local clock calls it, if that clock has moved on by less than `within`.
    pub(super) fn just_passed(&self, zone: &TimeZone, moment: Timestamp, within: SignedDuration) -> Option<DateTime> {
        let here = zone.to_datetime(moment);
        for date in [Some(here.date()), here.date().yesterday().ok()].into_iter().flatten() {
            if !self.counts(date) {
                continue;
            }
            for time in self.times.iter().rev() {
                let slot = date.to_datetime(*time);
                if here.duration_since(slot) < within && resolve(zone, slot).is_some_and(|at| at <= moment) {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// How many days may have to be looked at: each holiday can spoil one day of its week, and a zone skips a day at most
    /// once in its history; a week before and after for good measure.
    fn days_max(&self) -> usize {
        7 * (self.holidays.len() + 4)
    }
}

/// The moment at which the zone's clocks show `slot`. `None`: the day does not exist there, or lies outside of what a
/// [`Timestamp`] can say.
fn resolve(zone: &TimeZone, slot: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(slot);
    let AmbiguousOffset::Gap { before, after } = ambiguous.offset() else {
        // For a fold, "compatible" is the first of the two.
        return ambiguous.compatible().ok();
    };
    // The gap lies between what the two offsets make of the slot.
    let (low, high) = (after.to_timestamp(slot).ok()?, before.to_timestamp(slot).ok()?);
    let end = zone.following(low).next().map_or(high, |transition| transition.timestamp().min(high));
    let gap_starts = before.to_datetime(end);
    let day_starts = slot.date().to_datetime(Clock::midnight());
    let day_exists = after.to_datetime(end).date() == slot.date() || gap_starts > day_starts;
    day_exists.then_some(end)
}
