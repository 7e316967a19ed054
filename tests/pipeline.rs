//! The real loops on real SQLite in virtual time: weeks of office days in seconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::civil::{Weekday, date};
use jiff::tz::TimeZone;
use owlpost::app::{Parts, renderer};
use owlpost::clock::{Clock, VirtualClock};
use owlpost::config::{self, Config};
use owlpost::deliver::{Deliver, Patience};
use owlpost::ingest::{self, Bounds};
use owlpost::mailer::capture::CaptureMailer;
use owlpost::model::{DigestState, Email, ItemState, Receipt, Time};
use owlpost::phase::Phase;
use owlpost::source::{Ack, Batch, Health, Message, Room, Source, SourceError};
use owlpost::store::sqlite::Opening;
use owlpost::store::{Gauges, Intake, Store, Upkeep as _};
use owlpost::upkeep::{Rhythm, Upkeep};
use owlpost::vitals::Vitals;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Hands out each message at its moment; what comes before the start of this life was taken by an earlier one.
struct Script {
    /// Moment and JSON, in order.
    events: Vec<(Time, String)>,
    next: usize,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Source for Script {
    fn name(&self) -> &str {
        "script"
    }

    async fn next(&mut self, _room: Room) -> Result<Option<Batch>, SourceError> {
        let Some((at, json)) = self.events.get(self.next) else { return std::future::pending().await };
        tokio::time::sleep(at.since(self.clock.now())).await;
        self.next += 1;
        let message = Message {
            position: format!("line {}", self.next),
            broker_id: None,
            headers: vec![],
            body: json.clone().into_bytes(),
            time: None,
        };
        Ok(Some(Batch { messages: vec![message], ack: Ack { batch: self.next as u64, epoch: 0 } }))
    }

    async fn ack(&mut self, _ack: Ack, receipts: &[Vec<Receipt>]) {
        assert_eq!(receipts, [[Receipt::Accepted]], "every event of the script is new and good");
    }

    async fn refuse(&mut self, ack: Ack, _retry_in: Duration) {
        panic!("batch {} was refused", ack.batch);
    }

    async fn stop(&mut self, _by: Instant) {}

    fn health(&self) -> Health {
        Health::Ready
    }
}

struct Office {
    folder: tempfile::TempDir,
    mailer: Arc<CaptureMailer>,
    /// What a test adds to the configuration.
    more: String,
}

impl Office {
    fn new() -> Office {
        let folder = tempfile::tempdir().unwrap();
        let people = r#"
            [[people]]
            principal = "user.alice"
            address = "alice@example.com"
            zone = "Europe/Berlin"
            [[people]]
            principal = "user.joe"
            address = "joe@example.com"
            zone = "America/New_York"
        "#;
        std::fs::write(folder.path().join("people.toml"), people).unwrap();
        Office { folder, mailer: Arc::new(CaptureMailer::new()), more: String::new() }
    }

    fn config(&self, cadence: &str) -> Config {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let text = format!(
            r#"
            [store]
            url = "sqlite:{}"
            [recipients]
            allowed_domains = ["example.com"]
            [[source]]
            name = "script"
            kind = "file"
            path = "-"
            [[directory]]
            kind = "file"
            path = "{}"
            [schedule]
            holidays = ["2026-10-30"]
            [[route]]
            name = "reviews"
            types = ["io.athenz.membership.review_due.v1"]
            template = "reviews"
            cadence = {{ {cadence} }}
            {}
            "#,
            path("owlpost.db").display(),
            path("people.toml").display(),
            self.more,
        );
        std::fs::write(path("owlpost.toml"), text).unwrap();
        config::load(&[path("owlpost.toml")], std::iter::empty()).unwrap_or_else(|p| panic!("{p:?}"))
    }

    /// Runs the worker from one moment to another, with the events that fall in between; then it is dropped where it is.
    fn live(&self, cadence: &str, from: Time, to: Time, events: &[(Time, String)]) -> Gauges {
        let config = self.config(cadence);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(VirtualClock::starting_at(from));
            let parts = Parts::new(&config, clock.clone(), false).unwrap();
            let store = Arc::new(parts.open_sqlite(&config, Opening::Worker).unwrap());
            let all: Arc<dyn Store> = store.clone();
            let (vitals, wake, stop) = (Vitals::new(), Arc::new(Notify::new()), CancellationToken::new());
            let (_phase, phases) = watch::channel(Phase::Normal);
            let events = events.iter().filter(|(at, _)| (from..to).contains(at)).cloned().collect();
            let intake = ingest::run(
                Box::new(Script { events, next: 0, clock: clock.clone() }),
                Arc::new(parts.pipeline(&config, "script", "script")),
                store.clone() as Arc<dyn Intake>,
                Bounds::default(),
                vitals.clone(),
                wake.clone(),
                stop.clone(),
            );
            let deliver = Arc::new(Deliver {
                quota: None,
                store: all.clone(),
                mailer: self.mailer.clone(),
                directory: parts.directory.clone(),
                renderer: Arc::new(renderer(&config).unwrap()),
                policies: parts.policies.clone(),
                clock: clock.clone(),
                allowed_domains: config.recipients.allowed_domains.clone(),
                patience: Patience {
                    in_flight: 16,
                    lease: Duration::from_secs(90),
                    send_within: Duration::from_secs(15),
                    call_timeout: Duration::from_secs(10),
                    drain: Duration::from_secs(20),
                    look_every: Duration::from_secs(3_600),
                    look_again: Duration::from_secs(1),
                    directory_age: Duration::from_secs(10),
                    throttle_max: Duration::from_secs(3_600),
                },
            });
            let delivery = deliver.run(vitals.clone(), wake.clone(), phases.clone(), stop.clone());
            let rhythm = Rhythm { look_every: Duration::from_secs(3_600), ..Rhythm::default() };
            let upkeep = Upkeep { store: all, clock: clock.clone(), rhythm }.run(vitals, wake, phases, stop.clone());
            tokio::select! {
                biased;
                end = intake => panic!("{end:?}"),
                end = delivery => panic!("{end:?}"),
                end = upkeep => panic!("{end:?}"),
                () = tokio::time::sleep(to.since(from)) => {}
            }
            store.gauges(clock.now()).await.unwrap()
        })
    }

    fn mails(&self) -> Vec<Email> {
        self.mailer.sent().into_iter().map(|(_, mail)| mail).collect()
    }
}

fn at(text: &str) -> Time {
    Time::parse(text).unwrap()
}

/// A review that is due in half a year, reported at this moment to both.
fn review(n: usize, at: Time) -> (Time, String) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"r{n}","source":"zms","type":"io.athenz.membership.review_due.v1","time":"{at}",
        "data":{{"domain":"sports","collection":{{"kind":"role","name":"role{n}"}},"member":"user.zoe",
        "review_by":"2027-06-01T00:00:00Z","recipients":["user.alice","user.joe"]}}}}"#
    );
    (at, event)
}

/// Every `hours`, day and night, weekends too.
fn reviews(from: Time, to: Time, hours: u64) -> Vec<(Time, String)> {
    let mut all = Vec::new();
    let mut moment = from.plus(Duration::from_secs(120));
    while moment < to {
        all.push(review(all.len(), moment));
        moment = moment.plus(Duration::from_secs(hours * 3_600));
    }
    all
}

fn listed(mails: &[Email], to: &str) -> Vec<String> {
    let mut names = Vec::new();
    for mail in mails.iter().filter(|m| m.to == to) {
        let mut of_mail: Vec<String> = mail
            .text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| {
                word.strip_prefix("role").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
            .map(str::to_owned)
            .collect();
        of_mail.sort();
        of_mail.dedup();
        names.extend(of_mail);
    }
    names
}

#[test]
fn a_month_of_office_days_brings_one_mail_each_at_nine_local_time_over_the_end_of_summer_time() {
    let office = Office::new();
    let (from, to) = (at("2026-10-05T00:00:00Z"), at("2026-11-07T00:00:00Z"));
    let events = reviews(from, to, 5);
    let gauges = office.live(r#"at = "09:00", days = ["workdays"]"#, from, to, &events);
    let mails = office.mails();
    for (who, zone) in [("alice@example.com", "Europe/Berlin"), ("joe@example.com", "America/New_York")] {
        let zone = TimeZone::get(zone).unwrap();
        let mut days = Vec::new();
        for mail in mails.iter().filter(|m| m.to == who) {
            let local = mail.date.timestamp().to_zoned(zone.clone());
            let minute = (local.hour(), local.minute());
            assert_eq!(minute, (9, 0), "{who} at {local}");
            days.push(local.date());
        }
        let workdays: Vec<_> = date(2026, 10, 5)
            .series(jiff::Span::new().days(1))
            .take_while(|d| *d < date(2026, 11, 7))
            .filter(|d| !matches!(d.weekday(), Weekday::Saturday | Weekday::Sunday) && *d != date(2026, 10, 30))
            .collect();
        assert_eq!(days, workdays, "{who}: one mail each office day, none on weekends and on the holiday");
        let told = listed(&mails, who);
        let unique: std::collections::BTreeSet<&String> = told.iter().collect();
        assert_eq!(unique.len(), told.len(), "{who}: nothing is told twice");
    }
    assert_eq!(gauges.item(ItemState::Delivered) + gauges.item(ItemState::Pending), 2 * events.len() as u64);
    assert!(gauges.item(ItemState::Pending) <= 2 * 10, "only what came since the last morning waits");
}

#[test]
fn a_changed_cadence_moves_due_times_and_neither_repeats_nor_loses_anything() {
    let office = Office::new();
    let (from, change, to) = (at("2026-10-05T00:00:00Z"), at("2026-10-08T12:30:00Z"), at("2026-10-12T00:00:00Z"));
    let events = reviews(from, to, 3);
    office.live(r#"at = "09:00""#, from, change, &events);
    let before = office.mails().len();
    assert_eq!(before, 4 + 3, "Berlin had four mornings, New York three");
    let gauges = office.live(r#"first_after = "30m""#, change, to, &events);
    let mails = office.mails();
    let first = &mails[before];
    assert!(
        first.date.since(change) < Duration::from_secs(60),
        "what had waited for the morning leaves at the restart"
    );
    for who in ["alice@example.com", "joe@example.com"] {
        let told = listed(&mails, who);
        let unique: std::collections::BTreeSet<&String> = told.iter().collect();
        assert_eq!(unique.len(), told.len(), "{who}: nothing is told twice");
        assert_eq!(told.len(), events.len(), "{who}: nothing is lost");
    }
    assert_eq!(gauges.item(ItemState::Delivered), 2 * events.len() as u64);
}

#[test]
fn a_restart_in_the_middle_of_a_window_changes_nothing() {
    let (from, to) = (at("2026-10-05T00:00:00Z"), at("2026-10-07T00:00:00Z"));
    let events = reviews(from, to, 1);
    // Never at the minute of an event: what comes at the very moment of a mail may be in it or in the next.
    let cadence = r#"first_after = "111m", at_most_every = "229m""#;
    let (whole, broken) = (Office::new(), Office::new());
    whole.live(cadence, from, to, &events);
    let mut now = from;
    for minutes in [61, 7, 300, 1, 59, 700, 13, 400] {
        let next = now.plus(Duration::from_secs(minutes * 60 + 1)).min(to);
        broken.live(cadence, now, next, &events);
        now = next;
    }
    broken.live(cadence, now, to, &events);
    let seen = |office: &Office| -> Vec<(String, Time, String)> {
        let minute = |t: Time| Time(t.0 / 60_000_000 * 60_000_000);
        let mut mails: Vec<_> = office.mails().into_iter().map(|m| (m.to, minute(m.date), m.subject)).collect();
        // Two mails that are due at the same moment leave side by side.
        mails.sort();
        mails
    };
    assert!(seen(&whole).len() > 20);
    assert_eq!(seen(&whole), seen(&broken));
}

#[test]
fn a_clock_that_jumps_makes_mails_late_or_early_and_loses_none() {
    let office = Office::new();
    let from = at("2026-10-05T00:00:00Z");
    let events = reviews(from, at("2026-10-06T00:00:00Z"), 1);
    let cadence = r#"first_after = "30m""#;
    office.live(cadence, from, at("2026-10-05T10:00:30Z"), &events);
    // A day ahead, then back to where it was: windows, leases and gaps of the future must not hold anything for ever.
    office.live(cadence, at("2026-10-06T10:00:30Z"), at("2026-10-06T10:05:00Z"), &[]);
    let rest: Vec<_> = events.iter().filter(|(t, _)| *t > at("2026-10-05T10:00:30Z")).cloned().collect();
    let gauges = office.live(cadence, at("2026-10-05T10:00:31Z"), at("2026-10-07T12:00:00Z"), &rest);
    assert_eq!(gauges.item(ItemState::Delivered), 2 * events.len() as u64, "{gauges:?}");
    assert_eq!(gauges.digest(DigestState::Gathering), 0);
    let told = listed(&office.mails(), "alice@example.com");
    let unique: std::collections::BTreeSet<&String> = told.iter().collect();
    assert_eq!((told.len(), unique.len()), (events.len(), events.len()), "each once");
}

#[test]
fn a_template_that_fails_on_one_item_buries_that_item_and_sends_the_others() {
    let mut office = Office::new();
    let own = office.folder.path().join("mails/tickets");
    std::fs::create_dir_all(&own).unwrap();
    for (name, text) in [
        ("subject.hbs", "{{counts.[0].n}} tickets"),
        (
            "body.txt.hbs",
            "{{#each items}}ticket {{data.ticket}}\n{{/each}}{{#each rows}}{{headline}}{{/each}}{{shortened}}",
        ),
        (
            "body.html.hbs",
            "<p>{{#each items}}{{data.ticket}} {{/each}}{{#each rows}}{{headline}}{{/each}}{{shortened}}</p>",
        ),
    ] {
        std::fs::write(own.join(name), text).unwrap();
    }
    office.more = format!(
        r#"
        [[route]]
        name = "tickets"
        types = ["com.example.ticket"]
        template = "tickets"
        audience = ["user.alice"]
        cadence = {{ first_after = "5m" }}
        [templates]
        dir = "{}"
        "#,
        office.folder.path().join("mails").display()
    );
    let from = at("2026-10-05T00:00:00Z");
    let ticket = |n: u64, data: &str| {
        let moment = from.plus(Duration::from_secs(60 + n));
        let json = format!(
            r#"{{"specversion":"1.0","id":"t{n}","source":"desk","type":"com.example.ticket","time":"{moment}","data":{data}}}"#
        );
        (moment, json)
    };
    let events = [ticket(1, r#"{"ticket":"T-1"}"#), ticket(2, r#"{"tocket":"T-2"}"#), ticket(3, r#"{"ticket":"T-3"}"#)];
    let gauges = office.live(r#"first_after = "5m""#, from, from.plus(Duration::from_secs(3_600)), &events);
    let mails = office.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].text.trim(), "ticket T-1\nticket T-3");
    assert_eq!((gauges.item(ItemState::Delivered), gauges.item(ItemState::Dead)), (2, 1), "{gauges:?}");
}

#[test]
fn a_recipient_with_too_many_open_items_gets_no_more_of_them_and_nobody_else_is_held_up() {
    let mut office = Office::new();
    office.more = "[limits]\nopen_items_per_recipient = 10\n".into();
    let from = at("2026-10-05T00:00:00Z");
    let events: Vec<_> = (0..30u64).map(|n| review(n as usize, from.plus(Duration::from_secs(60 + n)))).collect();
    let gauges = office.live(r#"first_after = "1h""#, from, from.plus(Duration::from_secs(7_200)), &events);
    assert_eq!((gauges.item(ItemState::Delivered), gauges.item(ItemState::Dead)), (20, 40), "{gauges:?}");
    assert_eq!(listed(&office.mails(), "alice@example.com").len(), 10);
}
