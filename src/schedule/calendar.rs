//! The default time zone, the workdays and the holidays: section `[schedule]`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Problems;
use super::slots::{DayMask, parse_weekday};
use crate::zone;

/// The configured default zone, the days people work, and the days they do not although they would.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    pub(super) workdays: DayMask,
    pub(super) holidays: Arc<BTreeSet<Date>>,
}

/// 100 years with 50 holidays each. It bounds the search for a workday, see [`super::slots`].
const HOLIDAYS_MAX: usize = 5_000;

impl Calendar {
    /// `zone` is an IANA name (`Europe/Berlin`), `workdays` are `mon` to `sun`, `holidays` are dates (`2026-12-25`), on
    /// which `days = ["workdays"]` does not count. All problems at once, each begins with the key's name.
    pub fn new(zone: &str, workdays: &[impl AsRef<str>], holidays: &[impl AsRef<str>]) -> Result<Calendar, Problems> {
        let mut problems = Vec::new();
        let found = zone::find(zone);
        if found.is_none() {
            problems.push(format!("zone: {zone:?} is not a time zone; expected an IANA name, e.g. \"Europe/Berlin\""));
        }
        let mut mask = DayMask::default();
        for day in workdays {
            match parse_weekday(day.as_ref()) {
                Some(weekday) => mask.add(weekday),
                None => problems.push(format!("workdays: {:?} is not a day; expected mon to sun", day.as_ref())),
            }
        }
        if workdays.is_empty() {
            problems.push("workdays: name at least one day, e.g. \"mon\"".into());
        }
        if holidays.len() > HOLIDAYS_MAX {
            problems.push(format!("holidays: {} dates; at most {HOLIDAYS_MAX}", holidays.len()));
        }
        let mut dates = BTreeSet::new();
        for holiday in holidays.iter().take(HOLIDAYS_MAX) {
            match parse_date(holiday.as_ref()) {
                Some(date) => _ = dates.insert(date),
                None => problems
                    .push(format!("holidays: {:?} is not a date; expected e.g. \"2026-12-25\"", holiday.as_ref())),
            }
        }
        match found {
            Some(zone) if problems.is_empty() => Ok(Calendar { zone, workdays: mask, holidays: Arc::new(dates) }),
            _ => Err(Problems(problems)),
        }
    }

    /// The recipient's zone; the default if there is none or nobody knows it.
    pub(super) fn zone(&self, name: Option<&str>) -> TimeZone {
        name.and_then(zone::find).unwrap_or_else(|| self.zone.clone())
    }
}

impl Default for Calendar {
    /// UTC, Monday to Friday, no holidays.
    fn default() -> Calendar {
        let mut workdays = DayMask::default();
        ["mon", "tue", "wed", "thu", "fri"].into_iter().filter_map(parse_weekday).for_each(|day| workdays.add(day));
        Calendar { zone: TimeZone::UTC, workdays, holidays: Arc::default() }
    }
}

/// Only `YYYY-MM-DD`: jiff alone would also read a date out of a longer text.
fn parse_date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}
