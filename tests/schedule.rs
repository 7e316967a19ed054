//! When a digest is due: the tables of `config/cadence.md`, and what holds for every cadence and every window.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use owlpost::model::{Time, Window};
use owlpost::schedule::{Cadence, Calendar, Plan};
use owlpost::span::Span;
use proptest::prelude::*;

const NONE: [&str; 0] = [];
const OFFICE: [&str; 5] = ["mon", "tue", "wed", "thu", "fri"];

fn cadence(text: &str) -> Cadence {
    toml::from_str::<Row>(&format!("cadence = {{ {text} }}")).unwrap().cadence
}

#[derive(serde::Deserialize)]
struct Row {
    cadence: Cadence,
}

fn plan(text: &str) -> Plan {
    let calendar = Calendar::new("UTC", &OFFICE, &["2026-12-25", "2026-12-28"]).unwrap();
    cadence(text).compile(&calendar).unwrap()
}

fn time(text: &str) -> Time {
    Time::parse(text).unwrap_or_else(|| panic!("{text}"))
}

fn window(first: &str) -> Window {
    Window { first_at: time(first), last_at: time(first), items: 1, deadline: None, previous_at: None }
}

// ---- the page ----

/// The rows of all tables whose header has these columns, cells trimmed and without backquotes.
fn rows(columns: &[&str]) -> Vec<Vec<String>> {
    let page = include_str!("../config/cadence.md");
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').strip_suffix('|').unwrap_or(line);
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let mut found = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if !line.starts_with('|') {
            inside = false;
        } else if cells(line) == columns {
            inside = true;
        } else if inside && !line.starts_with("| ---") {
            found.push(cells(line));
        }
    }
    found
}

/// `Mon 10:00` or `next Mon 10:00` of the week of 1 June 2026, in Berlin.
fn in_week(text: &str) -> Time {
    let (weeks, text) = text.strip_prefix("next ").map_or((0, text), |rest| (1, rest));
    let (day, clock) = text.split_once(' ').unwrap();
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().position(|d| *d == day).unwrap();
    let date = jiff::civil::date(2026, 6, 1) + (weeks * 7 + i64::try_from(day).unwrap()).days();
    let local: DateTime = format!("{date}T{clock}").parse().unwrap();
    Time::from(local.in_tz("Europe/Berlin").unwrap().timestamp())
}

#[test]
fn the_page_shows_what_a_recipient_sees_in_a_week() {
    let rows = rows(&["cadence", "items come", "previous mail", "deadline", "the mail is due"]);
    assert!(rows.len() >= 30, "only {} rows found", rows.len());
    for row in rows {
        let items: Vec<Time> = row[1].split(", ").map(in_week).collect();
        let some = |cell: &str| (!cell.is_empty()).then(|| in_week(cell));
        let window = Window {
            first_at: items[0],
            last_at: *items.last().unwrap(),
            items: items.len() as u32,
            previous_at: some(&row[2]),
            deadline: some(&row[3]),
        };
        let due = plan(&row[0]).due(Some("Europe/Berlin"), &window);
        assert_eq!(due, in_week(&row[4]), "{row:?}: due {}", due.timestamp().in_tz("Europe/Berlin").unwrap());
    }
}

#[test]
fn the_page_shows_what_clock_changes_do() {
    let rows = rows(&["zone", "cadence", "item comes", "the mail is due"]);
    assert!(rows.len() >= 13, "only {} rows found", rows.len());
    for row in rows {
        let due = plan(&row[1]).due(Some(&row[0]), &window(&row[2]));
        assert_eq!(due, time(&row[3]), "{row:?}: due {due}");
    }
}

#[test]
fn every_field_is_on_the_page() {
    let page = rows(&["field", "value", "in words"]);
    let serde_json::Value::Object(fields) = serde_json::to_value(Cadence::default()).unwrap() else { panic!() };
    assert_eq!(page.len(), fields.len());
    for field in fields.keys() {
        assert!(page.iter().any(|row| row[0] == *field), "{field}");
    }
}

// ---- single cases ----

#[test]
fn workdays_leave_out_weekends_and_holidays_and_named_days_do_not() {
    // Thursday, 24 December 2026; the 25th (Friday) and the 28th (Monday) are holidays.
    let eve = window("2026-12-24T12:00:00Z");
    let due = |days: &str| plan(&format!("at = \"09:00\", days = {days}")).due(None, &eve);
    assert_eq!(due(r#"["workdays"]"#), time("2026-12-29T09:00:00Z"));
    assert_eq!(due(r#"["mon"]"#), time("2026-12-28T09:00:00Z"));
    assert_eq!(due(r#"["workdays", "sat"]"#), time("2026-12-26T09:00:00Z"));
}

#[test]
fn a_daily_mail_stays_daily_although_mails_leave_late_and_clocks_change() {
    let plan = plan(r#"at = "09:00", at_most_every = "1d""#);
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let mut previous = time("2026-03-20T08:00:07Z");
    for _ in 0..20 {
        let first_at = previous.plus(Duration::from_secs(3_600));
        let window = Window { first_at, last_at: first_at, items: 1, deadline: None, previous_at: Some(previous) };
        let due = plan.due(Some("Europe/Berlin"), &window);
        let (from, to) = (zone.to_datetime(previous.timestamp()), zone.to_datetime(due.timestamp()));
        assert_eq!(to.date(), from.date().tomorrow().unwrap());
        assert_eq!(to.time(), jiff::civil::time(9, 0, 0, 0));
        previous = due.plus(Duration::from_secs(7));
    }
}

#[test]
fn a_mail_that_left_long_after_its_slot_starts_the_gap_when_it_left() {
    let plan = plan(r#"at = "09:00, 12:00, 15:00", at_most_every = "4h""#);
    let due = |previous: &str| {
        plan.due(None, &Window { previous_at: Some(time(previous)), ..window("2026-06-01T11:30:00Z") })
    };
    assert_eq!(due("2026-06-01T09:00:09Z"), time("2026-06-01T15:00:00Z"));
    assert_eq!(due("2026-06-01T11:20:00Z"), time("2026-06-02T09:00:00Z"));
}

#[test]
fn a_gap_counts_from_a_previous_mail_that_left_after_the_items_came() {
    let window = Window { previous_at: Some(time("2026-06-01T10:00:05Z")), ..window("2026-06-01T10:00:01Z") };
    assert_eq!(plan(r#"at_most_every = "1h""#).due(None, &window), time("2026-06-01T11:00:05Z"));
}

#[test]
fn an_item_that_comes_as_the_skipped_hour_ends_still_gets_the_slot_of_the_day_before() {
    // Nuuk's clocks go from 23:00 to midnight, so 23:30 is the very moment at which the next day begins.
    let moment = "2026-03-29T00:00:00-01:00";
    assert_eq!(plan(r#"at = "23:30""#).due(Some("America/Nuuk"), &window(moment)), time(moment));
}

#[test]
fn a_calendar_of_holidays_alone_ends_at_the_end_of_time() {
    let all: Vec<String> =
        (0..5_000).map(|n| (jiff::civil::date(9986, 4, 20) + (n as i64).days()).to_string()).collect();
    let calendar = Calendar::new("UTC", &["mon", "tue", "wed", "thu", "fri", "sat", "sun"], &all).unwrap();
    let plan = cadence(r#"at = "09:00", days = ["workdays"]"#).compile(&calendar).unwrap();
    let due = plan.due(None, &window("9986-05-01T00:00:00Z"));
    assert!(due > time("9999-12-01T00:00:00Z"), "{due}");
}

#[test]
fn a_calendar_names_everything_that_is_wrong_with_it() {
    let found =
        Calendar::new("Moon/Base", &["mon", "Montag"], &["2026-12-25", "25.12.2026", "2026-02-30"]).unwrap_err().0;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("zone: \"Moon/Base\""));
    assert!(found[1].starts_with("workdays: \"Montag\""));
    assert!(found[2].starts_with("holidays: \"25.12.2026\""));
    assert!(Calendar::new("UTC", &NONE, &NONE).unwrap_err().0[0].starts_with("workdays: name"));
}

#[test]
fn a_cadence_names_everything_that_is_wrong_with_it() {
    for (text, says) in [
        (r#"at = "9:00""#, "at: \"9:00\" is not a time of day"),
        (r#"at = "24:00""#, "at: \"24:00\" is not a time of day"),
        (r#"at = "09:00,""#, "at: \"\" is not a time of day"),
        (r#"at = "+9:00""#, "at: \"+9:00\" is not a time of day"),
        (r#"at = "09:00", days = ["Mon"]"#, "days: \"Mon\" is not a day"),
        (r#"at = "09:00", days = []"#, "days: name at least one day"),
        (r#"days = ["mon"]"#, "days: has no effect without `at`"),
        (r#"at_latest = "1h""#, "at_latest: has no effect without `quiet_for`"),
        (r#"quiet_for = "2h", at_latest = "1h""#, "at_latest: 1h is shorter than quiet_for = 2h"),
        (r#"quiet_for = "1m", first_after = "2h", at_latest = "1h""#, "at_latest: 1h is shorter than first_after"),
        (r#"first_after = "1h", max_items = 0"#, "max_items: must be at least 1"),
        (r#"at = "09:00", max_items = 5"#, "max_items: has no effect without"),
    ] {
        let found = cadence(text).problems();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(says), "{text}: {found:?}");
        assert_eq!(cadence(text).compile(&Calendar::default()).unwrap_err().0, found);
    }
    assert_eq!(cadence(r#"at = "9", days = [], max_items = 0"#).problems().len(), 3);
    for text in ["", r#"quiet_for = "5m""#, r#"at = "15:00,09:00, 09:00", days = ["workdays", "sat"]"#] {
        assert_eq!(cadence(text).problems(), NONE, "{text}");
    }
}

#[test]
fn the_ends_of_time_are_moments_like_all_others() {
    for end in [Time::MIN, Time::MAX] {
        assert_eq!(Time::from(end.timestamp()), end);
    }
    assert_eq!(Time::from(Timestamp::MAX), Time::MAX);
    // Nothing is due in the year 10000, so the wait ends never, and not in 1970.
    let endless = plan(r#"quiet_for = "36500d", at = "00:00""#);
    assert_eq!(endless.due(Some("Australia/Lord_Howe"), &window("9985-09-27T19:43:49Z")), Time::MAX);
}

#[test]
fn a_zone_is_looked_up_fast_enough_for_every_digest() {
    let plan = plan(r#"at = "09:00", days = ["workdays"], at_most_every = "1d""#);
    let window = Window { previous_at: Some(time("2026-06-01T07:00:03Z")), ..window("2026-06-05T10:00:00Z") };
    let began = std::time::Instant::now();
    for n in 0..10_000 {
        let zone = ["Europe/Berlin", "America/New_York", "Moon/Base", "Asia/Kolkata"][n % 4];
        std::hint::black_box(plan.due(Some(zone), &window));
    }
    let each = began.elapsed() / 10_000;
    eprintln!("{each:?} a due time");
    // Unoptimised and on a busy machine; it is a few microseconds.
    assert!(each < Duration::from_millis(1), "{each:?}");
}

// ---- properties ----

fn any_zone() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![
        None,
        Some("Europe/Berlin"),
        Some("America/New_York"),
        Some("Australia/Lord_Howe"),
        Some("Asia/Kolkata"),
        Some("Pacific/Apia"),
        Some("America/Nuuk"),
        Some("America/Sao_Paulo"),
        Some("Africa/Casablanca"),
        Some("Moon/Base"),
        Some(""),
        Some("../../etc/passwd"),
    ])
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![0u64..3_600_000, 0u64..20 * 86_400_000, Just(100 * 365 * 86_400_000)]
        .prop_map(|ms| Span(Duration::from_millis(ms)))
}

fn any_cadence() -> impl Strategy<Value = Cadence> {
    let at = prop::option::of(prop::collection::vec((0u8..24, 0u8..60), 1..4));
    let days = prop::option::of(prop::collection::vec(
        prop::sample::select(vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun", "workdays"]),
        1..4,
    ));
    let spans = (
        prop::option::of(span()),
        prop::option::of(span()),
        prop::option::of(span()),
        prop::option::of(span()),
        prop::option::of(span()),
    );
    (spans, at, days, prop::option::of(1u32..6)).prop_map(|((first, quiet, latest, gap, before), at, days, max)| {
        let at = at.map(|times| times.iter().map(|(h, m)| format!("{h:02}:{m:02}")).collect::<Vec<_>>().join(","));
        Cadence {
            first_after: first,
            quiet_for: quiet,
            at_latest: quiet.and(latest).map(|l| l.max(quiet.unwrap_or_default()).max(first.unwrap_or_default())),
            at_most_every: gap,
            days: at.as_ref().and(days).map(|days| days.into_iter().map(String::from).collect()),
            at,
            max_items: first.or(quiet).and(max),
            before_deadline: before,
        }
    })
}

/// The years 1990 to 2060, so that windows meet clock changes, or any time at all.
fn any_time() -> impl Strategy<Value = Time> {
    prop_oneof![
        8 => (631_152_000_000_000i64..2_840_140_800_000_000).prop_map(Time),
        1 => (Time::MIN.0..=Time::MAX.0).prop_map(Time),
        1 => prop::sample::select(vec![Time::MIN, Time::MAX, Time(0)]),
    ]
}

fn near(base: Time) -> impl Strategy<Value = Time> {
    (-40 * 86_400_000_000i64..40 * 86_400_000_000)
        .prop_map(move |by| Time((base.0 + by).clamp(Time::MIN.0, Time::MAX.0)))
}

fn any_window() -> impl Strategy<Value = Window> {
    any_time().prop_flat_map(|first_at| {
        let other = || prop::option::of(prop_oneof![8 => near(first_at), 1 => any_time()]);
        (near(first_at), 1u32..8, other(), other()).prop_map(move |(last, items, deadline, previous_at)| Window {
            first_at,
            last_at: last.max(first_at),
            items,
            deadline,
            previous_at,
        })
    })
}

/// The window after one more item that came later.
fn grown(window: Window, by_us: u64) -> Window {
    Window { last_at: window.last_at.plus(Duration::from_micros(by_us)), items: window.items + 1, ..window }
}

fn compiled(cadence: &Cadence) -> Plan {
    let calendar = Calendar::new("UTC", &OFFICE, &["2026-12-25", "2027-01-01"]).unwrap();
    cadence.compile(&calendar).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_due_time_never_passes_a_deadline_unless_the_first_item_came_after_it(
        c in any_cadence(), w in any_window(), zone in any_zone(),
    ) {
        let due = compiled(&c).due(zone, &w);
        if let Some(deadline) = w.deadline {
            let limit = c.before_deadline.map_or(deadline, |before| deadline.minus(before.0));
            prop_assert!(due <= limit.max(w.first_at), "{due} after {limit}");
        }
    }

    #[test]
    fn a_due_time_is_never_before_the_first_item(c in any_cadence(), w in any_window(), zone in any_zone()) {
        prop_assert!(compiled(&c).due(zone, &w) >= w.first_at);
    }

    #[test]
    fn a_later_item_never_delays_a_digest_that_does_not_slide(
        c in any_cadence(), w in any_window(), by in 0u64..86_400_000_000, zone in any_zone(),
    ) {
        let plan = compiled(&Cadence { quiet_for: None, at_latest: None, max_items: None, ..c });
        prop_assert_eq!(plan.due(zone, &grown(w, by)), plan.due(zone, &w));
    }

    #[test]
    fn a_full_digest_is_not_delayed_past_the_time_it_would_have_without_a_maximum(
        c in any_cadence(), w in any_window(), zone in any_zone(),
    ) {
        let without = compiled(&Cadence { max_items: None, ..c.clone() });
        prop_assert!(compiled(&c).due(zone, &w) <= without.due(zone, &w));
    }

    #[test]
    fn without_times_of_day_a_full_digest_is_due_by_its_last_item_or_its_gap(c in any_cadence(), w in any_window()) {
        let c = Cadence { at: None, days: None, ..c };
        if c.max_items.is_some_and(|max| w.items >= max) {
            let gap_ends = w.previous_at.zip(c.at_most_every).map_or(Time::MIN, |(p, gap)| p.plus(gap.0));
            prop_assert!(compiled(&c).due(None, &w) <= w.last_at.max(gap_ends));
        }
    }

    #[test]
    fn a_sliding_digest_is_never_later_than_at_latest(c in any_cadence(), w in any_window(), zone in any_zone()) {
        let c = Cadence { at: None, days: None, at_most_every: None, ..c };
        if let Some(latest) = c.at_latest {
            prop_assert!(compiled(&c).due(zone, &w) <= w.first_at.plus(latest.0).max(w.first_at));
        }
    }

    #[test]
    fn the_gap_is_kept_unless_a_deadline_forces(c in any_cadence(), w in any_window(), zone in any_zone()) {
        let w = Window { deadline: None, ..w };
        let due = compiled(&c).due(zone, &w);
        if let (Some(gap), Some(previous)) = (c.at_most_every, w.previous_at) {
            if c.at.is_none() {
                prop_assert!(due >= previous.plus(gap.0));
            } else if due < Time::MAX {
                // On the recipient's clock, less the hour by which a mail may leave after its slot. A slot that the
                // clocks skip stands there as the time after the gap, so nothing is lost.
                let tz = zone.and_then(|z| TimeZone::get(z).ok()).unwrap_or(TimeZone::UTC);
                let from = tz.to_datetime(previous.timestamp());
                let least = from.saturating_add(jiff::SignedDuration::try_from(gap.0.saturating_sub(
                    Duration::from_secs(3_600).min(gap.0 / 2))).unwrap());
                prop_assert!(tz.to_datetime(due.timestamp()) >= least, "{from} {least} {due}");
            }
        }
    }

    #[test]
    fn a_mail_with_times_of_day_is_due_at_one_of_them_on_a_day_that_counts(
        c in any_cadence(), w in any_window(), zone in any_zone(),
    ) {
        let (Some(at), true) = (&c.at, w.deadline.is_none()) else { return Ok(()) };
        let due = compiled(&c).due(zone, &w);
        prop_assume!(due < Time::MAX && due > w.first_at);
        let tz = zone.and_then(|z| TimeZone::get(z).ok()).unwrap_or(TimeZone::UTC);
        let local = tz.to_datetime(due.timestamp());
        let named = at.split(',').any(|t| format!("{}:00", t) == local.time().strftime("%H:%M:%S").to_string());
        // Otherwise it must be the first moment after the clocks were put forward.
        let before = tz.to_offset(due.minus(Duration::from_micros(1)).timestamp());
        let jumped = tz.to_offset(due.timestamp()) > before;
        prop_assert!(named || jumped, "{local} for {at}");
        if let (Some(days), true) = (&c.days, named) {
            let day = local.date().strftime("%a").to_string().to_lowercase();
            let work = OFFICE.contains(&day.as_str())
                && !["2026-12-25", "2027-01-01"].contains(&local.date().to_string().as_str());
            prop_assert!(days.contains(&day) || (work && days.iter().any(|d| d == "workdays")), "{local} for {days:?}");
        }
    }

    #[test]
    fn a_due_time_is_the_first_that_fits(c in any_cadence(), w in any_window(), zone in any_zone()) {
        // An item that came at the due time itself, with no waits, would be due then.
        let w = Window { deadline: None, ..w };
        let due = compiled(&c).due(zone, &w);
        let c = Cadence { first_after: None, quiet_for: None, at_latest: None, max_items: None, ..c };
        let again = Window { first_at: due, last_at: due, items: 1, ..w };
        prop_assert_eq!(compiled(&c).due(zone, &again), due);
    }

    #[test]
    fn a_deadline_never_makes_a_digest_later(
        c in any_cadence(), w in any_window(), deadline in any_time(), zone in any_zone(),
    ) {
        let plan = compiled(&c);
        let earliest = w.deadline.map_or(deadline, |d| d.min(deadline));
        let with = Window { deadline: Some(earliest), ..w };
        prop_assert!(plan.due(zone, &with) <= plan.due(zone, &w));
    }

    #[test]
    fn the_same_window_is_due_at_the_same_time(c in any_cadence(), w in any_window(), zone in any_zone()) {
        prop_assert_eq!(compiled(&c).due(zone, &w), compiled(&c).due(zone, &w));
    }

    #[test]
    fn any_window_at_all_has_an_answer(
        c in any_cadence(), first: i64, last: i64, items: u32, deadline: Option<i64>, previous: Option<i64>, zone: Option<String>,
    ) {
        let w = Window {
            first_at: Time(first), last_at: Time(last), items,
            deadline: deadline.map(Time), previous_at: previous.map(Time),
        };
        let due = compiled(&c).due(zone.as_deref(), &w);
        prop_assert!(due >= w.first_at);
    }

    #[test]
    fn any_text_in_a_cadence_is_refused_or_compiled(at: String, day: String) {
        let c = Cadence { at: Some(at), days: Some(vec![day]), ..Cadence::default() };
        prop_assert_eq!(c.compile(&Calendar::default()).is_ok(), c.problems().is_empty());
    }
}

#[test]
fn next_slots_agree_with_a_search_minute_by_minute() {
    // An oracle that walks the year: the first minute whose local time is the slot's, or that a gap put past it.
    for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Casablanca"] {
        let tz = TimeZone::get(name).unwrap();
        for at in ["00:00", "00:15", "01:30", "02:00", "02:15", "02:30", "03:00", "23:30"] {
            let plan = plan(&format!("at = \"{at}\""));
            let slot: jiff::civil::Time = at.parse().unwrap();
            let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let end: Timestamp = "2026-12-31T00:00:00Z".parse().unwrap();
            let mut due = plan.due(Some(name), &window(&now.to_string()));
            let mut highest = tz.to_datetime(now).checked_sub(1.minute()).unwrap();
            while now < end {
                let local = tz.to_datetime(now);
                // The clocks reach or jump over the slot for the first time.
                let reached = [highest.date(), local.date()].iter().any(|date| {
                    let wanted = date.to_datetime(slot);
                    highest < wanted && wanted <= local
                });
                if reached {
                    assert_eq!(Time::from(now), due, "{name} {at}");
                    due = plan.due(Some(name), &window(&(now + 1.minute()).to_string()));
                }
                highest = highest.max(local);
                now += 1.minute();
            }
        }
    }
}
