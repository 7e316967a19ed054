//! A compiled cadence.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::slots::{Slots, parse_days, parse_times};
use super::{Cadence, Calendar, Problems};
use crate::model::{Time, Window};

/// When the digests of one route are due.
#[derive(Clone, Debug)]
pub struct Plan {
    first_after: Duration,
    quiet_for: Duration,
    at_latest: Option<Duration>,
    at_most_every: Option<Duration>,
    slots: Option<Slots>,
    max_items: Option<u32>,
    before_deadline: Duration,
    calendar: Calendar,
}

/// With `at`, a digest that leaves up to so long after a slot counts as having left at the slot. Without it, mails that
/// leave seconds after 09:00 would make `at = "09:00"` with `at_most_every = "1d"` skip every other day. Half the gap, if
/// that is shorter.
const SLOT_LATENESS: Duration = Duration::from_secs(3_600);

impl Plan {
    pub(super) fn new(cadence: &Cadence, calendar: &Calendar) -> Result<Plan, Problems> {
        let slots = match &cadence.at {
            None => None,
            Some(at) => Some(Slots {
                times: parse_times(at).map_err(|problem| Problems(vec![problem]))?,
                days: (cadence.days.as_deref().map(parse_days).transpose())
                    .map_err(|problem| Problems(vec![problem]))?,
                workdays: calendar.workdays,
                holidays: calendar.holidays.clone(),
            }),
        };
        let span = |span: Option<crate::span::Span>| span.map(|s| s.0);
        Ok(Plan {
            first_after: span(cadence.first_after).unwrap_or_default(),
            quiet_for: span(cadence.quiet_for).unwrap_or_default(),
            at_latest: span(cadence.at_latest),
            at_most_every: span(cadence.at_most_every),
            slots,
            max_items: cadence.max_items,
            before_deadline: span(cadence.before_deadline).unwrap_or_default(),
            calendar: calendar.clone(),
        })
    }

    /// When a digest with this window is due; `zone` is the recipient's IANA time zone, and `None` or a text that is none
    /// means the default of `[schedule]`. "At once" is `window.first_at`. In this order:
    ///
    /// 1. `first_after` and `quiet_for` have both passed (`quiet_for` no later than `at_latest` after the first item);
    ///    `max_items` items end both at the time of the last item.
    /// 2. `at_most_every` has passed since the previous digest.
    /// 3. The next slot of `at`, so late or later. With `at`, step 2 is measured on the recipient's clock, where a day has
    ///    24 hours whatever the clocks do, from the slot the previous digest left at.
    /// 4. No later than the deadline (less `before_deadline`), whatever 1 to 3 say, and never before the first item.
    ///
    /// Any window has an answer; one that lies past the year 9999 is [`Time::MAX`].
    pub fn due(&self, zone: Option<&str>, window: &Window) -> Time {
        let first_at = window.first_at.clamp(Time::MIN, Time::MAX);
        let last_at = window.last_at.clamp(first_at, Time::MAX);

        let quiet_end = last_at.plus(self.quiet_for);
        let mut ready = first_at.plus(self.first_after);
        if self.quiet_for > Duration::ZERO {
            ready = ready.max(self.at_latest.map_or(quiet_end, |latest| quiet_end.min(first_at.plus(latest))));
        }
        if self.max_items.is_some_and(|max| window.items >= max) {
            ready = ready.min(last_at);
        }

        // It may be later than the last item: items come while the previous digest is being retried.
        let previous = window.previous_at.map(|p| p.clamp(Time::MIN, Time::MAX));
        let planned = match &self.slots {
            None => match (self.at_most_every, previous) {
                (Some(gap), Some(previous)) => ready.max(previous.plus(gap)),
                _ => ready,
            },
            Some(slots) => {
                let zone = self.calendar.zone(zone);
                let local =
                    self.at_most_every.zip(previous).map(|(gap, previous)| gap_ends(slots, &zone, previous, gap));
                slots.next(&zone, ready.timestamp(), local).map_or(Time::MAX, Time::from)
            }
        };

        let limit = window.deadline.map_or(Time::MAX, |d| d.clamp(Time::MIN, Time::MAX).minus(self.before_deadline));
        planned.min(limit).max(window.first_at)
    }
}

/// When the gap is over, as the recipient's clock says it.
fn gap_ends(slots: &Slots, zone: &TimeZone, previous: Time, gap: Duration) -> DateTime {
    let signed = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
    let moment = previous.timestamp();
    let slot = slots.just_passed(zone, moment, signed(SLOT_LATENESS.min(gap / 2)));
    slot.unwrap_or_else(|| zone.to_datetime(moment)).saturating_add(signed(gap))
}
