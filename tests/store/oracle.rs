//! The promises, checked from outside after every step: from the rows, from the history of events, from the mails' fates.

use std::collections::{BTreeMap, BTreeSet};

use crate::events::{Does, Ev, To};
use crate::world::{Key, Mail, World};
use owlpost::store::Answer;

/// What really happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    Uncalled,
    Unsent,
    Sent,
    Bounced,
}

/// What the store was told of it, as a join: unknown < refused; unknown < accepted < failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Unknown,
    Refused,
    Accepted,
    Failed,
}

pub const PENDING: i64 = 0;
pub const IN_DOUBT: i64 = 1;
pub const DELIVERED: i64 = 2;
pub const WITHDRAWN: i64 = 3;
pub const SUPPRESSED: i64 = 4;
pub const DEAD: i64 = 5;

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: String,
    pub state: i64,
    pub reason: Option<i64>,
    pub digest: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DigestRow {
    pub mailbox: i64,
    pub state: i64,
    pub open: i64,
    pub attempts: i64,
    pub due_at: i64,
    pub until: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub items: BTreeMap<Key, Row>,
    pub digests: BTreeMap<i64, DigestRow>,
}

impl Snapshot {
    pub fn is_settled(&self) -> bool {
        self.items.values().all(|i| i.state > IN_DOUBT) && self.digests.values().all(|d| d.state == 6)
    }

    /// What stands in each window: the items' ids by recipient and route.
    pub fn windows(&self) -> BTreeMap<(String, String), BTreeSet<(String, String)>> {
        let mut windows: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ((id, source, who, route), row) in &self.items {
            if row.state == PENDING {
                windows.entry((who.clone(), route.clone())).or_default().insert((id.clone(), source.clone()));
            }
        }
        windows
    }
}

/// The state `to` may follow `from`; everything else is final.
fn may_follow(from: i64, to: i64) -> bool {
    match (from, to) {
        (PENDING | IN_DOUBT, _) => true,
        (DEAD | WITHDRAWN | SUPPRESSED, DELIVERED) | (DELIVERED, DEAD) => true,
        (DEAD, PENDING | WITHDRAWN) => true,
        _ => from == to,
    }
}

impl World {
    pub fn look(&self) -> Snapshot {
        let items = self.bench.rows(
            "SELECT e.id, e.source, m.recipient, m.route, i.state, i.reason, i.digest_no, i.event_no, i.mailbox_no FROM placed_item i \
             JOIN event e ON e.no = i.event_no JOIN mailbox m ON m.no = i.mailbox_no",
        );
        let digests = self.bench.rows("SELECT no, mailbox_no, state, open, attempts, due_at, until FROM digest");
        let item = |r: Vec<crate::bench::Cell>| {
            let row = Row {
                id: format!("it-{}-{}", r[7].int(), r[8].int()),
                state: r[4].int(),
                reason: r[5].maybe(),
                digest: r[6].maybe(),
            };
            ((r[0].text(), r[1].text(), r[2].text(), r[3].text()), row)
        };
        let digest = |r: Vec<crate::bench::Cell>| {
            let row = DigestRow {
                mailbox: r[1].int(),
                state: r[2].int(),
                open: r[3].int(),
                attempts: r[4].int(),
                due_at: r[5].int(),
                until: r[6].maybe(),
            };
            (r[0].int(), row)
        };
        Snapshot { items: items.into_iter().map(item).collect(), digests: digests.into_iter().map(digest).collect() }
    }

    /// The steps so far.
    pub fn story(&self) -> String {
        format!("after:\n  {}", self.trace.join("\n  "))
    }

    fn promise(&self, holds: bool, what: &str, about: impl std::fmt::Debug) {
        assert!(holds, "{what}: {about:?}\n{}", self.story());
    }

    pub fn event(&self, item: &Key) -> Option<&Ev> {
        self.history.iter().find(|e| e.id == item.0 && e.source == item.1)
    }

    /// Whether an item is over, from the whole history and without marks: what the promises mean.
    pub fn truly_over(&self, item: &Key, items: &BTreeMap<Key, Row>) -> bool {
        let Some(mine) = self.event(item).filter(|e| e.does == Does::Opens) else { return false };
        self.history.iter().any(|other| {
            let later = other.does != Does::Informs && other.rank() > mine.rank() && other.shares_topic(mine);
            let names = |k: &Key| k.0 == other.id && k.1 == other.source && k.2 == item.2;
            later
                && (other.does == Does::Closes
                    || other.date.is_none()
                    || other.date != mine.date
                    || items.keys().any(names))
        })
    }

    pub fn state(&self, id: &str, who: &str) -> i64 {
        let found: Vec<i64> =
            self.before.items.iter().filter(|(k, _)| k.0 == id && k.2 == who).map(|(_, r)| r.state).collect();
        assert_eq!(found.len(), 1, "one item of {id} for {who}\n{}", self.story());
        found[0]
    }

    pub fn key(&self, id: &str, who: &str) -> Key {
        self.before.items.keys().find(|k| k.0 == id && k.2 == who).expect("the item").clone()
    }

    /// Recipients of the notice "already handled", by the closing event.
    pub fn notices(&self) -> Vec<(String, String)> {
        self.before.items.keys().filter(|k| k.3 == "handled").map(|k| (k.0.clone(), k.2.clone())).collect()
    }

    fn listing<'w>(&'w self, item: &'w Key) -> impl Iterator<Item = &'w Mail> + 'w {
        self.mails.iter().filter(move |m| m.items.contains(item))
    }

    /// The store was told something about an attempt.
    pub fn heard(&mut self, attempt: owlpost::model::AttemptId, answer: &Answer) {
        let Some(mail) = self.mails.iter_mut().find(|m| m.attempt == attempt) else { return };
        let (known, free) = match answer {
            Answer::Accepted { .. } => (Known::Accepted, false),
            Answer::Failed { .. } => (Known::Failed, false),
            Answer::Retryable { .. } | Answer::Permanent { .. } => (Known::Refused, false),
            Answer::Throttled { .. } | Answer::NotCalled { .. } => (Known::Refused, true),
            Answer::Ambiguous { .. } => return,
        };
        match (mail.known, known) {
            (Known::Unknown, _) => (mail.known, mail.free) = (known, free),
            (Known::Accepted, Known::Failed) => mail.known = known,
            _ => {}
        }
    }

    /// A doubt ended and its items go again: each may be in one more mail.
    pub fn allow_resends(&mut self) {
        let now = self.look();
        if self.setup().resend {
            for (key, row) in &now.items {
                let doubted = self.before.items.get(key).is_some_and(|old| old.state == IN_DOUBT);
                if doubted && row.state == PENDING {
                    *self.may.entry(key.clone()).or_default() += 1;
                }
            }
        }
    }

    /// What must hold for a mail at the moment it begins.
    pub fn gate(&self, mail: &Mail) {
        let (setup, rows) = (self.setup(), self.look());
        let (n, digest) = (mail.attempt.number, mail.attempt.digest);
        self.promise(!mail.items.is_empty(), "no empty mail", mail.attempt);
        self.promise(mail.items.len() <= setup.max_listed as usize, "no mail lists more than max_listed", &mail.items);
        self.promise(!self.paused, "a pause stops sending", mail.attempt);
        let pending: BTreeSet<Key> = rows
            .items
            .iter()
            .filter(|(_, r)| r.digest == Some(digest.number) && r.state == PENDING)
            .map(|(k, _)| k.clone())
            .collect();
        self.promise(pending == mail.items, "the mail lists exactly what is pending in its digest", &mail.items);
        for item in &mail.items {
            self.promise(!self.truly_over(item, &rows.items), "no decided request in a mail", item);
            self.promise(!self.blocked.contains(&item.2), "nobody is mailed who should not be", item);
            self.promise(
                self.listing(item).all(|m| m.known != Known::Accepted),
                "no mail lists what is known to be delivered",
                item,
            );
            let event = self.event(item).expect("a mail lists what was accepted");
            if event.to == To::Role && event.does == Does::Opens {
                let asked =
                    |q: &String| rows.items.contains_key(&(item.0.clone(), item.1.clone(), q.clone(), item.3.clone()));
                self.promise(self.role.contains(&item.2), "the audience is the one at the flush", item);
                self.promise(self.role.iter().all(asked), "who joined is asked as well", item);
            }
            let replayed = self.may.contains_key(item);
            self.promise(
                replayed || self.listing(item).all(|m| m.attempt.digest == digest),
                "a digest keeps its id",
                item,
            );
        }
        let earlier: Vec<&Mail> = self.mails.iter().filter(|m| m.attempt.digest == digest).collect();
        self.promise(earlier.len() + 1 == n as usize, "attempts are numbered", mail.attempt);
        if let Some(last) = earlier.last() {
            self.promise(mail.items.is_subset(&last.items), "a retry lists nothing new", &mail.items);
        }
        let free = earlier.iter().filter(|m| m.free).count();
        self.promise(n as usize <= setup.attempts_max as usize + free, "attempts are bounded", mail.attempt);
    }

    /// Every promise about the rows, after every step.
    pub fn check(&mut self) {
        let now = self.look();
        self.check_counts(&now);
        self.check_digests(&now);
        self.check_items(&now);
        if !self.purged {
            self.check_notices(&now);
        }
        self.before = now;
    }

    /// `counts_with_change`: the ledger's counts are what a recount finds.
    fn check_counts(&self, now: &Snapshot) {
        let mut recount = [0; 6];
        now.items.values().for_each(|row| recount[row.state as usize] += 1);
        let at = self.now;
        let gauges = self.call(async |s| s.gauges(at).await).unwrap();
        self.promise(gauges.items == recount, "the counts are what a recount finds", (gauges.items, recount));
    }

    fn check_digests(&self, now: &Snapshot) {
        let mut open: BTreeMap<i64, i64> = BTreeMap::new();
        for row in now.items.values().filter(|r| r.state <= IN_DOUBT) {
            *open.entry(row.digest.expect("an open item has a digest")).or_default() += 1;
        }
        let mut windows = BTreeSet::new();
        for (no, d) in &now.digests {
            let items = open.remove(no).unwrap_or(0);
            self.promise(d.open == items, "a digest knows how many of its items are open", (no, d.open, items));
            self.promise(d.state != 6 || items == 0, "unsettled items sit in open digests", no);
            let may_be_empty = matches!(d.state, 2 | 3 | 6);
            self.promise(may_be_empty || items > 0, "an emptied digest is closed", (no, d));
            self.promise(d.state > 1 || windows.insert(d.mailbox), "one open window per recipient and route", no);
            self.promise(
                d.until.is_some() == matches!(d.state, 2 | 3 | 5),
                "what can end by time has a time at which it ends",
                (no, d),
            );
        }
        self.promise(open.is_empty(), "an item's digest is there", open);
    }

    fn check_items(&self, now: &Snapshot) {
        for (key, row) in &now.items {
            if let Some(old) = self.before.items.get(key) {
                self.promise(may_follow(old.state, row.state), "final is final", (key, old.state, row.state));
            }
            let home = row.digest.and_then(|no| now.digests.get(&no)).map(|d| d.state);
            self.promise(
                (row.state == IN_DOUBT) == (row.state <= IN_DOUBT && home == Some(5)),
                "doubt is a digest's",
                key,
            );
            let accepted = self.listing(key).any(|m| m.known == Known::Accepted);
            self.promise(
                (row.state == DELIVERED) == accepted,
                "delivered if and only if an accepted, unfailed attempt lists it",
                (key, row),
            );
            let sent = self.listing(key).filter(|m| matches!(m.truth, Truth::Sent | Truth::Bounced)).count();
            let most = 1 + self.may.get(key).copied().unwrap_or(0);
            self.promise(sent <= most as usize, "no item in two mails", (key, sent, most));
            let over = self.truly_over(key, &now.items);
            self.promise(
                row.state != WITHDRAWN || over || row.reason == Some(15) || key.3 == "handled",
                "withdrawn only if over",
                key,
            );
            if row.state == PENDING && home != Some(3) {
                self.promise(!over, "what is over waits in no digest", key);
            }
        }
        for mail in &self.mails {
            let calling = now.digests.get(&mail.attempt.digest.number).is_some_and(|d| {
                d.state == 3 && d.attempts == i64::from(mail.attempt.number) && mail.known == Known::Unknown
            });
            for row in mail.items.iter().filter(|_| calling).filter_map(|k| now.items.get(k)) {
                self.promise(row.state != WITHDRAWN, "withdrawn is not in a call", &mail.items);
            }
        }
        if !self.purged {
            for event in &self.history {
                let people: Vec<&String> = match &event.to {
                    To::People(names) => names.iter().collect(),
                    _ => vec![],
                };
                for (who, route) in people.iter().flat_map(|p| event.routes.iter().map(move |r| (*p, r))) {
                    let key = (event.id.clone(), event.source.clone(), who.clone(), route.clone());
                    self.promise(now.items.contains_key(&key), "what was accepted for somebody has an item", key);
                }
            }
        }
    }

    /// Notices go to exactly those who were or may have been told.
    fn check_notices(&self, now: &Snapshot) {
        let closers = |event: &Ev| -> Vec<&Ev> {
            let ends = |c: &&Ev| c.does == Does::Closes && c.shares_topic(event) && c.rank() > event.rank();
            self.history.iter().filter(ends).collect()
        };
        for (key, row) in now.items.iter().filter(|(k, r)| k.3 != "handled" && r.state > IN_DOUBT) {
            let Some(event) = self.event(key).filter(|e| e.does == Does::Opens) else { continue };
            let told = self.listing(key).any(|m| matches!(m.known, Known::Unknown | Known::Accepted));
            let by = closers(event);
            if told && !by.is_empty() {
                let heard = by.iter().any(|c| {
                    now.items.contains_key(&(c.id.clone(), c.source.clone(), key.2.clone(), "handled".into()))
                });
                self.promise(heard, "whoever was told hears that it is handled", (key, row));
            }
        }
        for key in now.items.keys().filter(|k| k.3 == "handled" && !self.before.items.contains_key(k)) {
            let closer = self.event(key).expect("a notice is about an event");
            let told = now.items.keys().filter(|k| k.2 == key.2 && k.3 != "handled").any(|k| {
                let asked = self
                    .event(k)
                    .is_some_and(|e| e.does == Does::Opens && e.shares_topic(closer) && e.rank() < closer.rank());
                asked && self.listing(k).any(|m| matches!(m.known, Known::Unknown | Known::Accepted))
            });
            self.promise(told, "notice only to the told", key);
        }
    }
}
