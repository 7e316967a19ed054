//! The events of the day: what a real ZMS handed out, and what was written for what it does not show.

use std::time::Duration;

use serde_json::{Value, json};

use crate::model::Time;
use crate::span::Span;

/// What a ZMS 1.12.46 handed to its notification plugin; a field `at` was added to each line by the recorder.
const NOTIFICATIONS: &str = include_str!("zms/notifications.jsonl");
/// What the same ZMS published about changed objects, for the same acts.
const CHANGES: &str = include_str!("zms/domain-changes.jsonl");
const MORNING: &str = include_str!("morning.ndjson");
const AFTERNOON: &str = include_str!("afternoon.ndjson");

/// When the samples were recorded (2026-11-22T07:45:30Z): their times are moved by what has passed since.
const RECORDED: Time = Time(1_795_333_530_000_000);

/// A file of events, one a line.
pub struct Feed {
    pub name: &'static str,
    pub what: &'static str,
    pub text: String,
}

/// The morning: real samples, written events, and a bulk change.
pub fn morning(now: Time) -> Vec<Feed> {
    // The night before, as ZMS does it.
    let begin = now.minus(Duration::from_secs(9 * 3_600));
    vec![
        feed("1-zms-notifications.ndjson", "a real ZMS's notifications", NOTIFICATIONS, &|v| moved(v, begin)),
        feed("2-zms-changes.ndjson", "its domain changes", CHANGES, &|v| moved(v, begin)),
        feed("3-written.ndjson", "written CloudEvents", MORNING, &|v| told(v, now)),
        Feed { name: "4-sync-job.ndjson", what: "a sync job's bulk change", text: bulk(begin) },
    ]
}

pub fn afternoon(now: Time) -> Feed {
    feed("5-afternoon.ndjson", "what is new", AFTERNOON, &|v| told(v, now))
}

fn feed(name: &'static str, what: &'static str, lines: &str, change: &dyn Fn(&mut Value)) -> Feed {
    let mut text = String::new();
    for line in lines.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(mut value) => {
                change(&mut value);
                text.push_str(&value.to_string());
            }
            // The broken one is sent as it is.
            Err(_) => text.push_str(line),
        }
        text.push('\n');
    }
    Feed { name, what, text }
}

/// A recorded line, as if ZMS had written it at `begin`: times stand alone, in the `;` and `|` columns, and in `published`.
fn moved(value: &mut Value, begin: Time) {
    let by_us = begin.0 - RECORDED.0;
    match value {
        Value::Object(map) => {
            // The recorder's, not Athenz's.
            map.remove("at");
            if let Some(ms) = map.get("published").and_then(Value::as_i64) {
                map.insert("published".into(), json!(ms + by_us / 1_000));
            }
            map.values_mut().for_each(|v| moved(v, begin));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| moved(v, begin)),
        Value::String(text) => {
            let column = |c: &str| Time::parse(c).map_or_else(|| c.to_owned(), |t| athenz(Time(t.0 + by_us)));
            let row = |r: &str| r.split(';').map(column).collect::<Vec<_>>().join(";");
            *text = text.split('|').map(row).collect::<Vec<_>>().join("|");
        }
        _ => {}
    }
}

/// Athenz writes times with milliseconds.
fn athenz(time: Time) -> String {
    time.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `"@-8h40m"` and `"@+3d"` become times before and after `now`.
fn told(value: &mut Value, now: Time) {
    match value {
        Value::Object(map) => map.values_mut().for_each(|v| told(v, now)),
        Value::Array(list) => list.iter_mut().for_each(|v| told(v, now)),
        Value::String(text) => {
            let span = |rest: &str| rest.parse::<Span>().ok().map(|s| s.0);
            let time = match text.split_at_checked(2) {
                Some(("@-", rest)) => span(rest).map(|s| now.minus(s)),
                Some(("@+", rest)) => span(rest).map(|s| now.plus(s)),
                _ => None,
            };
            if let Some(time) = time {
                *text = time.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            }
        }
        _ => {}
    }
}

/// 200 messages of a job that writes 40 roles of the domain `media`, five members each, in ten minutes.
fn bulk(begin: Time) -> String {
    let line = |n: u64| {
        let published = begin.plus(Duration::from_secs(2 * 3_600 + 3 * n));
        let message = json!({
            "domainName": "media", "messageId": format!("sync-{n:03}"), "published": published.0 / 1_000,
            "objectType": "ROLE", "objectName": format!("team-{:02}", n % 40 + 1), "apiName": "putmembership",
        });
        format!("{message}\n")
    };
    (0..200).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_900_000_000_000_000);

    #[test]
    fn no_time_of_the_samples_stays_where_it_was() {
        let all: String = morning(NOW).into_iter().chain([afternoon(NOW)]).map(|f| f.text).collect();
        assert!(!all.contains("2026-") && !all.contains("\"@"), "NOW is in 2030");
        assert!(!all.contains("\"at\":"));
    }

    #[test]
    fn recorded_lines_keep_everything_but_their_times() {
        let feed = &morning(NOW)[0];
        assert_eq!(feed.text.lines().count(), NOTIFICATIONS.lines().count());
        let line = feed.text.lines().find(|l| l.contains("tools.notifier")).unwrap();
        let recorded = NOTIFICATIONS.lines().find(|l| l.contains("tools.notifier")).unwrap();
        let columns = |line: &str| -> Vec<String> {
            let row = line.split(['|', '"']).find(|row| row.contains("tools.notifier")).unwrap();
            row.split(';').map(str::to_owned).collect()
        };
        let (told, before) = (columns(line), columns(recorded));
        let notes = "ask+in+%23sports%2C+%3Cb%3Eplease%3C%2Fb%3E";
        assert_eq!((told.len(), told[4].as_str()), (5, notes), "{line}");
        assert_eq!((&told[..3], &told[4..]), (&before[..3], &before[4..]));
        let begin = NOW.minus(Duration::from_secs(9 * 3_600));
        let expected = Time(Time::parse(&before[3]).unwrap().0 + begin.0 - RECORDED.0);
        assert_eq!(Time::parse(&told[3]), Some(expected), "moved by what has passed since the recording");
    }

    #[test]
    fn only_the_broken_line_is_broken() {
        let broken = |text: &str| text.lines().filter(|l| serde_json::from_str::<Value>(l).is_err()).count();
        assert_eq!(broken(&morning(NOW)[2].text), 1);
        assert_eq!(broken(&afternoon(NOW).text), 0);
    }
}
