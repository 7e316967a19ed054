//! Sending inside the quota: the real loops on real SQLite in virtual time, against an account that keeps count itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use owlpost::account::{AccountWatch, Wanted};
use owlpost::app::{Parts, renderer};
use owlpost::clock::{Clock, VirtualClock};
use owlpost::config::{self, Config};
use owlpost::deliver::{AccountGate, Deliver, Patience};
use owlpost::ingest;
use owlpost::mailer::{Account, Finding, Mailer, MessageId, SendError};
use owlpost::model::{AttemptId, DigestState, Email, ItemState, Share, Time};
use owlpost::phase::Phase;
use owlpost::quota::SLOT;
use owlpost::source::Message;
use owlpost::store::desk::PartRow;
use owlpost::store::sqlite::{Opening, Sqlite};
use owlpost::store::{Command, Desk as _, Gauges, Page, Query, Rows, Store, Upkeep as _};
use owlpost::upkeep::{Rhythm, Upkeep};
use owlpost::vitals::Vitals;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

#[path = "support/away.rs"]
mod away;

use away::Away;

const START: Time = Time(1_795_000_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A sending account: its bounds, and everything that was called.
struct Books {
    per_second: f64,
    per_day: u64,
    /// What another application sends, at once, at this moment.
    external: Vec<(Duration, u64)>,
    away: bool,
    stopped: Option<&'static str>,
    /// Every mail is answered with this.
    trouble: Option<SendError>,
    /// Mails to this address are.
    forbidden: Option<String>,
    /// Whose mails always come to a doubt.
    broken: Option<String>,
    /// Each fifth call reaches nobody.
    every_fifth_fails: bool,
    /// Moments since the start, and the mail's digest; refused ones too.
    calls: Vec<(Duration, AttemptId)>,
    sent: Vec<(Duration, AttemptId)>,
    sent_to: Vec<String>,
    refused_for_rate: u64,
    /// In a call now, and at most.
    lines: (usize, usize),
    /// How long a call takes that begins now.
    takes: Duration,
}

/// The same, as a mailer.
struct SesLike {
    books: Mutex<Books>,
    begin: Instant,
    /// The account counts when it is asked, and its answer comes so much later.
    answers_in: Duration,
}

impl SesLike {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }
}

impl Books {
    fn sent_24h(&self, now: Duration) -> u64 {
        let inside = |at: Duration| at <= now && now - at < DAY;
        let ours = self.sent.iter().filter(|(at, _)| inside(*at)).count() as u64;
        ours + self.external.iter().filter(|(at, _)| inside(*at)).map(|(_, n)| n).sum::<u64>()
    }
}

#[async_trait]
impl Mailer for SesLike {
    fn kind(&self) -> &'static str {
        "ses"
    }

    async fn send(&self, mail: &Email, tag: AttemptId, by: Instant) -> Result<MessageId, SendError> {
        assert!(Instant::now() <= by, "a call starts in its slot or not at all");
        let takes = self.books().takes;
        let answer = {
            let mut books = self.books();
            let now = self.begin.elapsed();
            books.calls.push((now, tag));
            books.lines.0 += 1;
            books.lines.1 = books.lines.1.max(books.lines.0);
            let second = books.sent.iter().rev().take_while(|(at, _)| now - *at < Duration::from_secs(1)).count();
            if let Some(trouble) = &books.trouble {
                Err(trouble.clone())
            } else if books.every_fifth_fails && books.calls.len().is_multiple_of(5) {
                Err(SendError::Unreachable("reset".into()))
            } else if books.broken.as_ref() == Some(&mail.to) {
                Err(SendError::Ambiguous("HTTP 500".into()))
            } else if books.forbidden.as_ref() == Some(&mail.to) {
                Err(SendError::Halted("AccessDeniedException".into()))
            } else if second as f64 >= books.per_second {
                books.refused_for_rate += 1;
                Err(SendError::Throttled { reason: "too fast".into(), share: Share::Second })
            } else if books.sent_24h(now) >= books.per_day {
                Err(SendError::Throttled { reason: "day".into(), share: Share::Day })
            } else {
                books.sent.push((now, tag));
                books.sent_to.push(mail.to.clone());
                Ok(format!("m-{tag}"))
            }
        };
        sleep(takes).await;
        self.books().lines.0 -= 1;
        answer
    }

    async fn account(&self) -> Result<Option<Account>, SendError> {
        let answer = {
            let books = self.books();
            if books.away {
                return Err(SendError::Retryable("away".into()));
            }
            Account {
                per_second: books.per_second,
                per_day: Some(books.per_day),
                sent_24h: books.sent_24h(self.begin.elapsed()),
                stopped: books.stopped.map(str::to_owned),
            }
        };
        sleep(self.answers_in).await;
        Ok(Some(answer))
    }

    async fn probe(&self) -> Vec<Finding> {
        vec![]
    }

    fn gives_evidence(&self) -> bool {
        false
    }
}

/// A worker of the account, with its store.
struct Office {
    config: Config,
    parts: Parts,
    store: Arc<Sqlite>,
    mailer: Arc<SesLike>,
    clock: Arc<dyn Clock>,
    /// As `run --until-idle` at its end: the worker ends when nothing can leave.
    flushing: bool,
    in_flight: usize,
    /// As the delivery loop sees the store.
    seen: Arc<Away>,
    /// Of the delivery loop alone.
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

impl Office {
    /// Within a paused runtime.
    fn open(per_second: f64, per_day: u64) -> Office {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owlpost.toml");
        let text = format!(
            r#"
            [store]
            url = "sqlite:{}"
            [mailer]
            kind = "ses"
            [recipients]
            allowed_domains = ["example.com"]
            [delivery]
            attempts_max = 2
            [[source]]
            name = "events"
            kind = "http"
            [[directory]]
            kind = "rules"
            rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
            [[route]]
            name = "news"
            types = ["com.example.news"]
            audience = ["{{{{data.to}}}}"]
            [[route]]
            name = "alarms"
            types = ["com.example.alarm"]
            audience = ["{{{{data.to}}}}"]
            priority = "urgent"
            [[route]]
            name = "later"
            types = ["com.example.later"]
            audience = ["{{{{data.to}}}}"]
            cadence = {{ first_after = "10s" }}
            "#,
            folder.path().join("owlpost.db").display()
        );
        std::fs::write(&path, text).unwrap();
        let config = config::load(&[path], std::iter::empty()).unwrap_or_else(|p| panic!("{p:?}"));
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::starting_at(START));
        let parts = Parts::new(&config, clock.clone(), false).unwrap();
        let store = Arc::new(parts.open_sqlite(&config, Opening::Worker).unwrap());
        let books = Books {
            per_second,
            per_day,
            external: vec![],
            away: false,
            stopped: None,
            trouble: None,
            forbidden: None,
            broken: None,
            every_fifth_fails: false,
            calls: vec![],
            sent: vec![],
            sent_to: vec![],
            refused_for_rate: 0,
            lines: (0, 0),
            takes: Duration::from_millis(20),
        };
        let seen = Arc::new(Away::new(store.clone()));
        let answers_in = Duration::ZERO;
        let mailer = Arc::new(SesLike { books: Mutex::new(books), begin: Instant::now(), answers_in });
        Office {
            config,
            parts,
            store,
            mailer,
            clock,
            flushing: false,
            in_flight: 64,
            seen,
            stop: CancellationToken::new(),
            folder,
        }
    }

    /// One event each, for so many people: each is a mail of its own, due at once.
    async fn events(&self, kind: &str, people: std::ops::Range<usize>) {
        self.events_of("sports", kind, people).await;
    }

    /// The same, of a domain.
    async fn events_of(&self, domain: &str, kind: &str, people: std::ops::Range<usize>) {
        let lines: Vec<String> = people
            .map(|n| {
                format!(
                    r#"{{"specversion":"1.0","id":"{kind}{n}","source":"test","type":"com.example.{kind}","data":{{"domain":"{domain}","to":"user.p{n}"}}}}"#
                )
            })
            .collect();
        let message = Message {
            broker_id: None,
            position: "test".into(),
            time: None,
            headers: vec![("content-type".into(), "application/x-ndjson".into())],
            body: lines.join("\n").into_bytes(),
        };
        let pipeline = Arc::new(self.parts.pipeline(&self.config, "events", "test"));
        ingest::replay_input(&pipeline, &*self.store, message).await.unwrap();
    }

    /// Runs the worker while `story` goes on; at its end the worker is dropped where it is.
    async fn work(&self, story: impl Future<Output = ()>) -> Gauges {
        let gate = || AccountGate { pace: Arc::default(), ask: Arc::default(), heard: Arc::default() };
        let (quota, vitals, wake, stop) = (gate(), Vitals::new(), Arc::new(Notify::new()), CancellationToken::new());
        let store: Arc<dyn Store> = self.store.clone();
        let wanted = Wanted { per_second: None, per_day: None, burst: 1, urgent_reserve: 0.1 };
        let watch_account = AccountWatch {
            store: store.clone(),
            mailer: self.mailer.clone(),
            clock: self.clock.clone(),
            pace: quota.pace.clone(),
            heard: quota.heard.clone(),
            wanted,
        };
        let account = watch_account.run(vitals.clone(), wake.clone(), quota.ask.clone(), stop.clone());
        let deliver = Arc::new(Deliver {
            store: self.seen.clone(),
            mailer: self.mailer.clone(),
            directory: self.parts.directory.clone(),
            renderer: Arc::new(renderer(&self.config).unwrap()),
            policies: self.parts.policies.clone(),
            clock: self.clock.clone(),
            allowed_domains: vec!["example.com".into()],
            patience: Patience {
                in_flight: self.in_flight,
                lease: Duration::from_secs(90),
                send_within: Duration::from_secs(15),
                call_timeout: Duration::from_secs(10),
                drain: Duration::from_secs(20),
                look_every: Duration::from_secs(1),
                look_again: Duration::from_secs(1),
                directory_age: Duration::from_secs(10),
                throttle_max: Duration::from_secs(3_600),
            },
            quota: Some(quota),
        });
        let (_phase, phases) = watch::channel(if self.flushing { Phase::Flushing } else { Phase::Normal });
        let delivery = deliver.run(vitals.clone(), wake.clone(), phases.clone(), self.stop.clone());
        let upkeep =
            Upkeep { store, clock: self.clock.clone(), rhythm: Rhythm::default() }.run(vitals, wake, phases, stop);
        tokio::select! {
            biased;
            end = account => panic!("{end:?}"),
            end = delivery => assert!(self.flushing && end.is_ok(), "{end:?}"),
            end = upkeep => panic!("{end:?}"),
            () = story => {}
        }
        self.store.gauges(self.clock.now()).await.unwrap()
    }

    /// As `owlpost status` tells of it.
    async fn status_of_mailer(&self) -> PartRow {
        match self.store.read(&Query::Status { now: self.clock.now() }, Page::FIRST).await.unwrap() {
            Rows::Status(mut status) => status.mailers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn sent(&self) -> usize {
        self.mailer.books().sent.len()
    }

    async fn act(&self, command: Command) {
        self.store.act(self.clock.now(), &command).await.unwrap();
    }
}

fn virtually(story: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story());
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The most calls in any window of this length, and what the bound allows.
fn worst_window(calls: &[(Duration, AttemptId)], length: Duration, rate: f64) -> (usize, f64) {
    let most = calls
        .iter()
        .enumerate()
        .map(|(i, (from, _))| calls[i..].iter().take_while(|(at, _)| *at - *from <= length).count())
        .max()
        .unwrap_or(0);
    (most, 1.0 + rate * (length + SLOT).as_secs_f64())
}

#[test]
fn a_rate_is_used_and_never_passed() {
    for (rate, minutes) in [(14.0, 1), (1.0, 5), (120.0, 1)] {
        virtually(async || {
            let office = Office::open(rate, 1_000_000);
            let wanted = (rate * 60.0 * minutes as f64) as usize;
            office.events("news", 0..wanted + 100).await;
            office.work(sleep(seconds(60 * minutes))).await;
            let books = office.mailer.books();
            let used = books.sent.len() as f64 / wanted as f64;
            assert!(used >= 0.99, "{rate}/s: {used}");
            assert_eq!(books.refused_for_rate, 0, "{rate}/s");
            for length in [Duration::ZERO, Duration::from_millis(100), seconds(1), seconds(10)] {
                let (most, bound) = worst_window(&books.calls, length, rate);
                assert!(most as f64 <= bound, "{rate}/s: {most} calls in {length:?}, at most {bound}");
            }
        });
    }
}

/// One by one, each would be three transactions; together they are a few, and nobody notices when his mail leaves.
#[test]
fn what_becomes_due_and_is_answered_one_by_one_gathers_for_a_moment() {
    virtually(async || {
        let office = Office::open(10_000.0, 1_000_000);
        for n in 0..200 {
            office.events("later", n..n + 1).await;
            sleep(Duration::from_millis(2)).await;
        }
        office.work(sleep(seconds(12))).await;
        assert_eq!(office.sent(), 200);
        let file = rusqlite::Connection::open(office.folder.path().join("owlpost.db")).unwrap();
        let asked = "SELECT count(DISTINCT begun_at), count(DISTINCT settled_at), max(begun_at - due_at), max(settled_at - begun_at) \
                     FROM attempt JOIN digest ON no = digest_no";
        let read = |row: &rusqlite::Row<'_>| Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
        let [begins, settlements, latest_us, longest_us] = file.query_row(asked, (), read).unwrap();
        assert!((5..=25).contains(&begins), "{begins} begins in 0.4 s");
        assert!((3..=15).contains(&settlements), "{settlements} settlements in 0.4 s");
        assert!(latest_us <= 60_000 && longest_us <= 100_000, "{latest_us} us late, settled after {longest_us} us");
    });
}

/// What was answered waits for it, and so does what could begin.
#[test]
fn a_store_that_is_away_is_asked_less_and_less_and_nothing_is_sent_twice() {
    virtually(async || {
        let office = Office::open(10.0, 1_000_000);
        office.events("news", 0..100).await;
        let story = async {
            sleep(seconds(2)).await;
            office.seen.set(true);
            sleep(seconds(30)).await;
            office.seen.set(false);
            sleep(seconds(15)).await;
        };
        office.work(story).await;
        let refused = office.seen.refused();
        assert!((5..=20).contains(&refused), "asked {refused} times in half a minute");
        let books = office.mailer.books();
        let people: std::collections::BTreeSet<&String> = books.sent_to.iter().collect();
        assert_eq!((books.sent.len(), people.len()), (100, 100));
    });
}

#[test]
fn a_domain_with_much_to_send_does_not_keep_another_waiting() {
    virtually(async || {
        let office = Office::open(10.0, 1_000_000);
        office.events_of("big", "news", 0..300).await;
        sleep(seconds(1)).await;
        office.events_of("small", "news", 300..303).await;
        office.work(sleep(seconds(5))).await;
        let books = office.mailer.books();
        let small = (300..303).filter(|n| books.sent_to.contains(&format!("p{n}@example.com"))).count();
        assert!(books.sent_to.len() < 60 && small == 3, "{small} of 3, among {} mails", books.sent_to.len());
    });
}

/// A kill at the end of its patience would make doubts of them.
#[test]
fn at_a_stop_one_call_that_hangs_keeps_no_answer_of_the_others_out_of_the_store() {
    virtually(async || {
        let office = Office::open(10_000.0, 1_000_000);
        office.mailer.books().takes = seconds(9);
        office.events("news", 0..1).await;
        let story = async {
            sleep(seconds(1)).await;
            office.mailer.books().takes = seconds(2);
            office.events("news", 1..6).await;
            sleep(seconds(2)).await;
            office.stop.cancel();
            sleep(seconds(2)).await;
            assert_eq!(office.mailer.books().lines.0, 1, "the first call still hangs");
        };
        let gauges = office.work(story).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Delivered)), (6, 5));
    });
}

/// What waits for its moment is begun and in no call; when its moment comes, a server that is slow has no more than that.
#[test]
fn no_more_calls_are_in_flight_than_configured_and_no_mail_is_lost_by_it() {
    virtually(async || {
        let mut office = Office::open(50.0, 1_000_000);
        office.in_flight = 4;
        office.mailer.books().takes = seconds(1);
        office.events("news", 0..60).await;
        let gauges = office.work(sleep(seconds(30))).await;
        let books = office.mailer.books();
        assert_eq!(books.lines.1, 4);
        assert_eq!((books.sent.len(), books.calls.len(), gauges.item(ItemState::Delivered)), (60, 60, 60));
    });
}

#[test]
fn a_day_that_runs_out_in_the_middle_ends_the_sending_and_urgent_mail_has_its_reserve() {
    virtually(async || {
        let office = Office::open(50.0, 100);
        office.events("news", 0..150).await;
        let gauges = office
            .work(async {
                sleep(seconds(600)).await;
                assert_eq!(office.sent(), 90, "a tenth is kept for what is urgent");
                office.events("alarm", 0..20).await;
                sleep(seconds(600)).await;
                assert_eq!(office.sent(), 100);
                sleep(DAY).await;
                sleep(seconds(600)).await;
            })
            .await;
        let books = office.mailer.books();
        assert_eq!(books.sent.len(), 170, "the next day has room again");
        assert_eq!(books.calls.len(), 170, "nothing was tried that could not leave");
        assert_eq!((gauges.item(ItemState::Dead), gauges.item(ItemState::Pending)), (0, 0));
    });
}

#[test]
fn another_application_that_eats_the_quota_burns_no_attempt() {
    virtually(async || {
        let office = Office::open(50.0, 1_000);
        // Between two looks at the account, so that the server is the first to say so.
        office.mailer.books().external.push((seconds(70), 980));
        office
            .work(async {
                sleep(seconds(75)).await;
                office.events("news", 0..60).await;
                sleep(seconds(3_600)).await;
            })
            .await;
        assert_eq!(office.sent(), 20, "what was left of the day");
        let gauges = office.work(sleep(DAY + seconds(1_200))).await;
        assert_eq!(office.sent(), 60);
        assert_eq!(gauges.item(ItemState::Dead), 0, "being throttled kills nothing");
        let books = office.mailer.books();
        assert!(books.calls.len() < 400, "it is not tried all the time: {}", books.calls.len());
    });
}

#[test]
fn an_account_that_answers_slowly_is_not_sent_beyond_its_day() {
    virtually(async || {
        let mut office = Office::open(5.0, 1_000);
        Arc::get_mut(&mut office.mailer).unwrap().answers_in = seconds(10);
        office.mailer.books().external.push((Duration::ZERO, 500));
        office.events("news", 0..600).await;
        office.work(sleep(seconds(400))).await;
        assert_eq!(office.sent(), 400, "500 are another application's, and a tenth is kept for what is urgent");
    });
}

/// What is stored of the others is as old as the last worker.
#[test]
fn a_worker_that_starts_asks_the_account_before_it_sends() {
    virtually(async || {
        let mut office = Office::open(5.0, 1_000);
        office.work(sleep(seconds(60))).await;
        sleep(seconds(3_600)).await;
        office.mailer.books().external.push((seconds(3_600), 880));
        Arc::get_mut(&mut office.mailer).unwrap().answers_in = seconds(9);
        office.events("news", 0..100).await;
        office.work(sleep(seconds(300))).await;
        assert_eq!(office.sent(), 20, "others sent 880, and a tenth is kept for what is urgent");
    });
}

#[test]
fn an_account_that_does_not_answer_holds_the_mail_at_first_and_later_does_not() {
    virtually(async || {
        let office = Office::open(50.0, 1_000);
        office.mailer.books().away = true;
        office.events("news", 0..10).await;
        office
            .work(async {
                sleep(seconds(300)).await;
                assert_eq!(office.sent(), 0, "nobody knows what may leave");
                office.mailer.books().away = false;
                sleep(seconds(60)).await;
                assert_eq!(office.sent(), 10);
                office.mailer.books().away = true;
                sleep(seconds(300)).await;
                office.events("news", 10..20).await;
                sleep(seconds(60)).await;
                assert_eq!(office.sent(), 20, "what was last known holds");
            })
            .await;
        // A restart knows it from the store.
        office.events("news", 20..30).await;
        office.work(sleep(seconds(60))).await;
        assert_eq!(office.sent(), 30);
    });
}

#[test]
fn a_pause_in_the_middle_of_a_burst_stops_it_and_burns_nothing() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        office.events("news", 0..400).await;
        let gauges = office
            .work(async {
                sleep(seconds(5)).await;
                office.act(Command::Pause { route: None }).await;
                let paused_at = office.mailer.begin.elapsed();
                sleep(seconds(600)).await;
                let late = office.mailer.books().calls.iter().filter(|(at, _)| *at > paused_at + SLOT + SLOT).count();
                assert_eq!(late, 0, "only what had begun still left");
                assert!((80..130).contains(&office.sent()), "{}", office.sent());
                office.act(Command::Resume { route: None }).await;
                sleep(seconds(60)).await;
            })
            .await;
        assert_eq!(office.sent(), 400);
        assert_eq!(gauges.item(ItemState::Delivered), 400);
        let mut attempts = BTreeMap::new();
        office.mailer.books().calls.iter().for_each(|(_, tag)| *attempts.entry(tag.digest.number).or_insert(0) += 1);
        assert!(attempts.values().all(|n| *n == 1), "one call a mail");
    });
}

#[test]
fn a_suspended_account_and_credentials_that_expire_burn_no_attempt_and_heal() {
    for (trouble, stopped) in [
        (SendError::Halted("AccountSuspendedException".into()), Some("suspended")),
        (SendError::Halted("ExpiredTokenException".into()), None),
    ] {
        virtually(async || {
            let office = Office::open(20.0, 10_000);
            office.events("news", 0..200).await;
            let gauges = office
                .work(async {
                    sleep(seconds(2)).await;
                    (office.mailer.books().trouble, office.mailer.books().stopped) = (Some(trouble.clone()), stopped);
                    sleep(seconds(1_800)).await;
                    let calls = office.mailer.books().calls.len();
                    assert!(calls < 200, "it is tried now and then, not all the time: {calls}");
                    let told = office.status_of_mailer().await;
                    let words = told.detail.clone().unwrap_or_default();
                    assert!(
                        told.state == "down" && (words.contains("uspended") || words.contains("Expired")),
                        "{told:?}"
                    );
                    (office.mailer.books().trouble, office.mailer.books().stopped) = (None, None);
                    sleep(seconds(300)).await;
                })
                .await;
            assert_eq!(office.sent(), 200);
            assert_eq!(office.status_of_mailer().await.state, "ready");
            assert_eq!(gauges.item(ItemState::Dead), 0, "attempts_max is 2, and nothing was burned");
        });
    }
}

#[test]
fn an_account_that_does_not_say_what_it_may_send_is_told_of() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        office.mailer.books().away = true;
        office.events("news", 0..1).await;
        office
            .work(async {
                sleep(seconds(60)).await;
                let told = office.status_of_mailer().await;
                assert!(
                    told.state == "down" && told.detail.as_ref().is_some_and(|w| w.contains("account")),
                    "{told:?}"
                );
                office.mailer.books().away = false;
                sleep(seconds(60)).await;
                assert_eq!((office.status_of_mailer().await.state.as_str(), office.sent()), ("ready", 1));
            })
            .await;
    });
}

/// No mail is at fault, and an hour is longer than all attempts of one together.
#[test]
fn a_server_that_can_not_be_reached_for_an_hour_burns_nothing_and_is_asked_now_and_then() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        let gauges = office
            .work(async {
                office.mailer.books().trouble = Some(SendError::Unreachable("connection refused".into()));
                office.events("news", 0..100).await;
                sleep(seconds(3_600)).await;
                let calls = office.mailer.books().calls.len();
                assert!((40..150).contains(&calls), "{calls} calls in an hour");
                office.mailer.books().trouble = None;
                sleep(seconds(90)).await;
                assert_eq!(office.sent(), 100);
            })
            .await;
        assert_eq!((gauges.item(ItemState::Delivered), gauges.item(ItemState::Dead)), (100, 0));
    });
}

/// Each of these doubts burns an attempt, and may become a second mail: they end with the first ones.
#[test]
fn a_server_that_answers_with_errors_for_an_hour_burns_little_and_is_asked_now_and_then() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        let gauges = office
            .work(async {
                office.mailer.books().trouble = Some(SendError::Ambiguous("HTTP 500".into()));
                office.events("news", 0..100).await;
                sleep(seconds(3_600)).await;
                let calls = office.mailer.books().calls.len();
                assert!((60..100).contains(&calls), "{calls} calls in an hour");
                office.mailer.books().trouble = None;
                sleep(seconds(90)).await;
                assert_eq!(office.sent(), 100);
            })
            .await;
        assert_eq!(gauges.item(ItemState::Dead), 0, "attempts_max is 2");
        assert_eq!(gauges.item(ItemState::Delivered), 100);
    });
}

/// The calls that hang when it is shut end one after the other, long after the server is well again.
#[test]
fn what_calls_say_that_began_before_an_outage_was_seen_makes_it_no_longer() {
    virtually(async || {
        let office = Office::open(5.0, 10_000);
        let gauges = office
            .work(async {
                office.mailer.books().trouble = Some(SendError::Ambiguous("hangs".into()));
                office.mailer.books().takes = seconds(9);
                office.events("news", 0..100).await;
                // The 16th has ended; the last one that began before that ends nine seconds later.
                sleep(Duration::from_millis(12_300)).await;
                (office.mailer.books().trouble, office.mailer.books().takes) = (None, Duration::from_millis(20));
                sleep(Duration::from_millis(11_700)).await;
                assert!(office.sent() > 5, "{} have left", office.sent());
                sleep(seconds(90)).await;
            })
            .await;
        assert_eq!((office.sent(), gauges.item(ItemState::Delivered)), (100, 100));
    });
}

/// A mail that no server can take, for whatever reason, is nobody else's.
#[test]
fn one_mail_that_always_comes_to_a_doubt_stops_no_other() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        office.mailer.books().broken = Some("p0@example.com".into());
        office.events("news", 0..1).await;
        let gauges = office
            .work(async {
                sleep(seconds(120)).await;
                office.events("news", 1..400).await;
                sleep(seconds(40)).await;
            })
            .await;
        assert_eq!((office.sent(), gauges.item(ItemState::Delivered)), (399, 399));
        assert_eq!(gauges.item(ItemState::Dead), 1);
    });
}

/// A server may take no more connections than so many.
#[test]
fn one_connection_that_fails_among_others_stops_nothing() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        office.mailer.books().every_fifth_fails = true;
        office.events("news", 0..400).await;
        let gauges = office.work(sleep(seconds(40))).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Delivered)), (400, 400));
    });
}

/// One mail that is refused in the words in which an account refuses all of them.
#[test]
fn a_recipient_who_is_forbidden_does_not_keep_the_others_waiting_for_ever() {
    virtually(async || {
        let office = Office::open(20.0, 10_000);
        office.mailer.books().forbidden = Some("p0@example.com".into());
        office.events("news", 0..1).await;
        let gauges = office
            .work(async {
                for n in 1..600 {
                    sleep(seconds(1)).await;
                    office.events("news", n..n + 1).await;
                }
                sleep(seconds(300)).await;
            })
            .await;
        assert_eq!((office.sent(), gauges.item(ItemState::Delivered)), (599, 599));
        assert_eq!(gauges.item(ItemState::Dead), 1, "attempts_max is 2");
        let books = office.mailer.books();
        let halts = books.calls.len() - books.sent.len();
        assert_eq!(halts, 3, "one halts all, for a minute; two are the mail's own attempts");
        let longest = books.sent.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap();
        assert!(longest < seconds(65), "{longest:?} without a mail");
        let pauses = books.sent.windows(2).filter(|two| two[1].0 - two[0].0 > seconds(10)).count();
        assert!(pauses <= 1, "{pauses} times nobody got mail");
    });
}

/// Those that have a permit for a moment that has not come yet hear of it, too.
#[test]
fn an_account_that_is_suspended_is_called_no_more_by_those_that_wait() {
    virtually(async || {
        let office = Office::open(200.0, 10_000);
        office.events("news", 0..200).await;
        office.mailer.books().trouble = Some(SendError::Halted("AccountSuspendedException".into()));
        office.work(sleep(seconds(50))).await;
        let calls = office.mailer.books().calls.len();
        assert!((1..=6).contains(&calls), "{calls} calls; an answer takes 20 ms, which four mails leave in");
    });
}

#[test]
fn a_run_to_the_end_waits_for_the_account_and_not_for_ever_for_a_mailer_that_takes_nothing() {
    virtually(async || {
        let mut office = Office::open(50.0, 1_000);
        office.flushing = true;
        office.events("news", 0..10).await;
        office.mailer.books().away = true;
        let back = async {
            sleep(seconds(12)).await;
            office.mailer.books().away = false;
            std::future::pending().await
        };
        office.work(back).await;
        assert_eq!(office.sent(), 10, "not to know what may leave is not the end");

        office.events("news", 10..20).await;
        office.mailer.books().trouble = Some(SendError::Halted("suspended".into()));
        let gauges = office.work(std::future::pending()).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Pending)), (10, 10), "it ends, and says what is left");
    });
}

/// The mails of the day before leave the day while those of this one are sent: they count once.
#[test]
fn a_run_of_each_day_at_the_same_time_sends_all() {
    virtually(async || {
        let mut office = Office::open(1.0, 200);
        office.flushing = true;
        for day in 0..3 {
            sleep((DAY * day).saturating_sub(office.mailer.begin.elapsed())).await;
            office.events("news", day as usize * 80..(day as usize + 1) * 80).await;
            let gauges = office.work(std::future::pending()).await;
            assert_eq!((office.sent(), gauges.item(ItemState::Pending)), (80 * (day as usize + 1), 0), "day {day}");
        }
    });
}

#[test]
fn a_run_to_the_end_does_not_wait_for_ever_for_an_account_that_never_answered() {
    virtually(async || {
        let mut office = Office::open(50.0, 1_000);
        office.flushing = true;
        office.events("news", 0..10).await;
        office.mailer.books().away = true;
        let gauges = office.work(std::future::pending()).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Pending)), (0, 10));
    });
}

#[test]
fn a_run_to_the_end_waits_for_a_retry_whatever_is_paused() {
    virtually(async || {
        let mut office = Office::open(50.0, 1_000);
        office.act(Command::Pause { route: Some("alarms".into()) }).await;
        office.events("alarm", 0..1).await;
        office.events("news", 0..3).await;
        office.mailer.books().trouble = Some(SendError::Retryable("try again".into()));
        office.flushing = true;
        let mended = async {
            while office.mailer.books().calls.len() < 3 {
                sleep(Duration::from_millis(10)).await;
            }
            office.mailer.books().trouble = None;
            std::future::pending().await
        };
        let gauges = office.work(mended).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Pending)), (3, 1));
    });
}

/// The upkeep loop ends doubts beside this one: what it gives back is due at once, and no claim has seen it yet.
#[test]
fn a_run_to_the_end_sends_what_was_in_doubt_when_it_looked_last() {
    virtually(async || {
        let mut office = Office::open(50.0, 1_000);
        office.events("news", 0..10).await;
        office.mailer.books().trouble = Some(SendError::Ambiguous("cut off".into()));
        let in_doubt = async || office.store.gauges(office.clock.now()).await.unwrap().digest(DigestState::InDoubt);
        let all_in_doubt = async {
            while in_doubt().await < 10 {
                sleep(seconds(1)).await;
            }
        };
        office.work(all_in_doubt).await;
        office.mailer.books().trouble = None;
        office.flushing = true;
        office.seen.end_doubts_after_claims();
        let gauges = office.work(std::future::pending()).await;
        assert_eq!((office.sent(), gauges.item(ItemState::Pending)), (10, 0));
    });
}
