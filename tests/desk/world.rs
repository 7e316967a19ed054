//! A real store file, fed through its traits, with times that the test chooses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use owlpost::model::{
    Arrival, Asked, AttemptId, Contents, Data, Effect, Entry, Event, Person, Priority, Receipt, Refused, RefusedReason,
    Time, Topic,
};
use owlpost::store::desk::{DeadLetterRow, DigestRow, History, LedgerRow, Status, Verified};
use owlpost::store::sqlite::{Opening, Settings, Sqlite};
use owlpost::store::{
    Answer, Ask, Begun, Command, Delivery, Desk, Evidence, Intake, Intent, Limits, Page, Policy, Query, Report, Rows,
    Rules, StoreError, Upkeep, Window,
};
use tempfile::TempDir;

/// 2026-11-22T09:00:00Z
pub const START: Time = Time(1_795_338_000_000_000);

pub fn after(seconds: u64) -> Time {
    START.plus(Duration::from_secs(seconds))
}

/// Windows of an hour; the route `held` waits for its release.
pub struct Hourly;

impl Policy for Hourly {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn rules(&self, route: &str) -> Rules {
        Rules {
            priority: if route == "urgent" { Priority::Urgent } else { Priority::Normal },
            hold: route == "held",
            max_listed: 50,
            attempts_max: 3,
            give_up_after: Duration::from_secs(86_400),
            resend_in_doubt: true,
            doubt_grace: Duration::from_secs(900),
        }
    }

    fn due(&self, _: &str, _: Option<&str>, window: &Window) -> Time {
        window.first_at.plus(Duration::from_secs(3_600))
    }

    fn plans(&self) -> String {
        String::new()
    }

    fn backoff(&self, _: &str, _: AttemptId, _: u32) -> Duration {
        Duration::from_secs(60)
    }
}

pub struct World {
    pub store: Sqlite,
    folder: TempDir,
}

impl World {
    pub fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            path: folder.path().join("owlpost.db"),
            opening: Opening::Worker,
            migrate: true,
            limits: Limits { open_items_per_recipient: 10_000, retention: Duration::from_secs(90 * 86_400) },
            policy: Arc::new(Hourly),
            account: None,
            young_events: 1,
        };
        World { store: Sqlite::open(settings, START).unwrap(), folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("owlpost.db")
    }

    /// A configuration that names the store.
    pub fn config(&self) -> PathBuf {
        let path = self.folder.path().join("owlpost.toml");
        let (store, outbox) = (self.path(), self.folder.path().join("outbox"));
        let text = format!("[store]\nurl = \"sqlite:{}\"\n[mailer]\ndir = \"{}\"\n", store.display(), outbox.display());
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What a defect, or somebody with a shell, could do to the file.
    pub fn sql(&self, statements: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(statements).unwrap();
    }

    pub async fn accept(&self, now: Time, entries: Vec<Entry>) -> Vec<Receipt> {
        self.store.accept(now, Arc::new(entries)).await.unwrap()
    }

    /// Claims and begins everything that is due.
    pub async fn begin(&self, now: Time) -> Vec<Contents> {
        let ask = Ask { limit: 100, lease: Duration::from_secs(90), everything: false };
        let mut intents = Vec::new();
        for leased in self.store.claim(now, &ask).await.unwrap() {
            intents.push(Intent {
                lease: leased.lease,
                recipient: person(&leased.recipient),
                domain_allowed: true,
                audiences: vec![],
                send_within: Duration::from_secs(15),
                lead: Duration::ZERO,
                waits: true,
            });
        }
        let begun = self.store.begin(now, Arc::new(intents)).await.unwrap();
        let contents = |b| if let Begun::Send(contents) = b { Some(*contents) } else { None };
        begun.into_iter().filter_map(contents).collect()
    }

    pub async fn learn(&self, now: Time, attempt: AttemptId, answer: Answer) {
        self.store.learn(now, Arc::new(vec![Evidence { attempt, answer }])).await.unwrap();
    }

    /// Sends everything that is due; the message ids are `m-<attempt>`.
    pub async fn send(&self, now: Time) -> Vec<Contents> {
        let mails = self.begin(now).await;
        for mail in &mails {
            let message_id = Some(format!("m-{}", mail.attempt));
            self.learn(now, mail.attempt, Answer::Accepted { message_id }).await;
        }
        mails
    }

    pub async fn end_doubts(&self, now: Time) {
        self.store.expire(now, true).await.unwrap();
    }

    pub async fn act(&self, now: Time, command: Command) -> Report {
        self.store.act(now, &command).await.unwrap()
    }

    pub async fn read(&self, query: Query) -> Rows {
        self.store.read(&query, Page::FIRST).await.unwrap()
    }

    pub async fn refuses(&self, query: Query) -> StoreError {
        self.store.read(&query, Page::FIRST).await.unwrap_err()
    }

    // ---- typed

    pub async fn status(&self, now: Time) -> Status {
        match self.read(Query::Status { now }).await {
            Rows::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub async fn verify(&self) -> Verified {
        match self.read(Query::Verify).await {
            Rows::Verified(verified) => *verified,
            other => panic!("{other:?}"),
        }
    }

    pub async fn why(&self, id: &str) -> Option<History> {
        match self.read(Query::Why { id: id.into(), now: after(3_600) }).await {
            Rows::Why(history) => history.map(|h| *h),
            other => panic!("{other:?}"),
        }
    }

    pub async fn ledger(&self, since: Option<Time>, recipient: Option<&str>) -> Vec<LedgerRow> {
        self.ledger_by(since, recipient, 1_000).await.concat()
    }

    /// In pages of `limit`.
    pub async fn ledger_by(&self, since: Option<Time>, recipient: Option<&str>, limit: u32) -> Vec<Vec<LedgerRow>> {
        let query = Query::Ledger { since, recipient: recipient.map(Into::into) };
        let (mut page, mut pages) = (Page { limit, ..Page::FIRST }, vec![]);
        loop {
            let Rows::Ledger { rows, next } = self.store.read(&query, page).await.unwrap() else { panic!() };
            pages.push(rows);
            let Some(after) = next else { return pages };
            assert!(after > page.after, "the cursor goes forward");
            page.after = after;
        }
    }

    pub async fn digests(&self, state: Option<&str>, route: Option<&str>, now: Time) -> Vec<DigestRow> {
        let (state, route) = (state.map(Into::into), route.map(Into::into));
        let (mut page, mut all) = (Page { limit: 2, ..Page::FIRST }, vec![]);
        let query = Query::Digests { state, route, now };
        loop {
            let Rows::Digests { rows, next } = self.store.read(&query, page).await.unwrap() else { panic!() };
            assert!(rows.len() <= 2);
            all.extend(rows);
            let Some(after) = next else { return all };
            page.after = after;
        }
    }

    pub async fn letters(&self, query: Query, limit: u32) -> Vec<DeadLetterRow> {
        let (mut page, mut all) = (Page { limit, ..Page::FIRST }, vec![]);
        loop {
            let Rows::DeadLetters { rows, next } = self.store.read(&query, page).await.unwrap() else { panic!() };
            all.extend(rows);
            let Some(after) = next else { return all };
            page.after = after;
        }
    }
}

pub fn person(principal: &str) -> Person {
    let name = principal.strip_prefix("user.").unwrap_or(principal);
    Person { principal: principal.into(), address: Some(format!("{name}@example.com")), zone: None, language: None }
}

/// An event on its way in.
pub struct Draft(Arrival);

/// Something that happened at `time` and touches no subject.
pub fn news(id: &str, time: Time) -> Draft {
    let event = Event {
        source: "zms".into(),
        id: id.into(),
        id_counts_for: None,
        kind: "io.athenz.domain.changed.v1".into(),
        time: Some(time),
        expiry: None,
        deadline: None,
        recipients: None,
        effect: Effect::Informs,
        subject_key: Some("domain/sports".into()),
        asker: None,
        domain: None,
        data: Data::of_text(r#"{"domain":"sports","secret":"not-for-the-desk"}"#),
    };
    Draft(Arrival::new(event, time))
}

impl Draft {
    pub fn of(mut self, source: &str) -> Draft {
        self.0.event.source = source.into();
        self
    }

    pub fn to(mut self, route: &str, people: &[&str]) -> Draft {
        self.0.asked.push(Asked {
            route: route.into(),
            references: people.iter().map(|p| (*p).into()).collect(),
            people: people.iter().map(|p| person(p).into()).collect(),
            except: None,
        });
        self
    }

    /// Names somebody whom the directory does not know.
    pub fn named_nobody(mut self, route: &str, reference: &str) -> Draft {
        let asked = Asked { route: route.into(), references: vec![reference.into()], people: vec![], except: None };
        self.0.asked.push(asked);
        self
    }

    pub fn opens(mut self, subject: &str) -> Draft {
        self.0.event.kind = "io.athenz.membership.requested.v1".into();
        self.0.event.subject_key = Some(subject.into());
        self.0.event.effect = Effect::Opens { topic: Topic::of(&[subject]), date: None };
        self
    }

    pub fn closes(mut self, subject: &str) -> Draft {
        self.0.event.kind = "io.athenz.membership.decided.v1".into();
        self.0.event.subject_key = Some(subject.into());
        self.0.event.effect = Effect::Closes { topics: vec![Topic::of(&[subject])] };
        self
    }

    pub fn expires(mut self, at: Time) -> Draft {
        self.0.event.expiry = Some(at);
        self
    }

    pub fn entry(self) -> Entry {
        Entry::Event(Box::new(self.0))
    }
}

/// Input that is refused; `text` decides whether it is the same again.
pub fn refused(source: &str, reason: RefusedReason, text: &str) -> Entry {
    use sha2::Digest;
    Entry::Refused(Box::new(Refused {
        source: source.into(),
        position: "events.ndjson line 3".into(),
        reason,
        detail: "data.member: expected a string, found a number (column 7)".into(),
        body: text.as_bytes()[..text.len().min(64 * 1024)].to_vec(),
        bytes: text.len() as u64,
        sha256: sha2::Sha256::digest(text.as_bytes()).into(),
        headers: vec![("content-type".into(), "application/json".into())],
        broker_id: None,
    }))
}

pub fn every_letter() -> Query {
    Query::DeadLetters { kind: None, reason: None, source: None, since: None, discarded: false }
}

/// What happened, in order.
pub fn whats(history: &History) -> Vec<&str> {
    history.history.iter().map(|step| step.what.as_str()).collect()
}
