//! What intake reads ahead from PostgreSQL, many rows a question, so that the rules find it here. Nobody else can change
//! it meanwhile: it was read under the locks of its subjects and mailboxes. SQLite reads each when it is asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::accept::OPENS;
use super::super::notices::HANDLED;
use super::super::sql;
use super::super::subject::{Mark, Subject, TopicMap, TopicSet, topic};
use super::digests::Digest;
use super::{Books, Item, Mailbox};
use crate::model::{Time, Topic};
use crate::store::Result;
use crate::store::rules::tx::{Column, Row, params};

/// Open items that are held at once while topics are swept: some megabytes. (A single event's are held whatever they are.)
const WALK_MAX: i64 = 20_000;

/// An event in the chain of a topic.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Link {
    pub opens: bool,
    pub mark: Mark,
    pub prev: i64,
}

impl Link {
    pub fn read(row: &Row<'_>, no: i64, of: &Topic) -> Result<Link> {
        let first = topic(row, 1)? == Some(*of);
        Ok(Link {
            opens: row.get::<i64>(0)? == OPENS,
            mark: Mark { ver: row.get(4)?, no, date: row.get(5)? },
            prev: row.get::<Option<i64>>(if first { 2 } else { 3 })?.unwrap_or(0),
        })
    }
}

/// The rank of a person's highest dated opener, by recipient.
type Owns = HashMap<String, Option<(i64, i64)>>;

#[derive(Default)]
pub(in crate::store) struct Fetched {
    pub subjects: RefCell<TopicMap<Option<Subject>>>,
    /// What this transaction has made of them, and has not written yet.
    pub unsaved: RefCell<BTreeMap<Topic, Subject>>,
    pub owns: RefCell<TopicMap<Owns>>,
    pub links: HashMap<(i64, Topic), Link>,
    /// Open items of events that are walked over now.
    pub items: HashMap<i64, Vec<Item>>,
    /// Open items of events that later twins have replaced for some people, by these.
    pub replaced: HashMap<i64, HashMap<String, Vec<Item>>>,
    /// Id and source of events that share their time with another of their topic.
    pub ties: RefCell<HashMap<i64, (String, String)>>,
    /// Who was told in these topics, and of which rank.
    pub told: RefCell<TopicMap<Vec<(String, i64)>>>,
}

impl Fetched {
    fn openers(&self) -> impl Iterator<Item = i64> {
        self.links.iter().filter(|(_, link)| link.opens).map(|((no, _), _)| *no)
    }
}

/// (route, recipient), and the zone that is known of them now.
pub(in crate::store::rules) type Wanted<'w> = BTreeMap<(&'w str, &'w str), Option<&'w str>>;

impl Books<'_> {
    /// Locks the mailboxes of new items, of what later twins replace (`replaced`), and those that a sweep of these topics will come
    /// to or tell, in one order; reads their windows and how much is open for their recipients.
    pub fn fetch_mailboxes(
        &mut self,
        wanted: &Wanted<'_>,
        replaced: &[(i64, &str)],
        stirred: &[(Topic, Subject)],
    ) -> Result<()> {
        let mut numbers: BTreeSet<i64> = BTreeSet::new();
        let told = self.fetch_told(stirred)?;
        let named = || wanted.keys().copied().chain(told.iter().map(|who| (HANDLED, who.as_str())));
        let recipients = Column::texts(named().map(|(_, who)| who));
        let routes = Column::texts(named().map(|(route, _)| route));
        let number = |row: &Row<'_>| row.get::<i64>(0);
        numbers
            .extend(self.tx.prepare_cached(sql::PG_MAILBOXES_BY_NAME)?.query_map(params![recipients, routes], number)?);
        if !stirred.is_empty() {
            self.fetch_chains(stirred)?;
            let openers = Column::ints(self.fetched.openers());
            numbers.extend(self.tx.prepare_cached(sql::PG_MAILBOXES_TO_SWEEP)?.query_map([openers], number)?);
        }
        if !replaced.is_empty() {
            let of = params![Column::ints(replaced.iter().map(|r| r.0)), Column::texts(replaced.iter().map(|r| r.1))];
            numbers.extend(self.tx.prepare_cached(sql::PG_MAILBOXES_TO_REPLACE)?.query_map(of, number)?);
        }
        let found = self.tx.prepare_cached(sql::PG_MAILBOXES)?.query_map([Column::ints(numbers)], read_mailbox)?;
        for (no, mailbox) in found {
            self.know(no, mailbox, wanted)?;
        }
        self.add_mailboxes(wanted)?;
        self.fetch_digests_of(named().map(|(_, who)| who).collect())
    }

    /// Makes those of these mailboxes that are not known; one that another replica has made meanwhile is known then.
    fn add_mailboxes(&mut self, wanted: &Wanted<'_>) -> Result<bool> {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|((route, who), _)| !self.kept.numbers.get(*route).is_some_and(|of| of.contains_key(*who)))
            .collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let of = params![
            Column::texts(missing.iter().map(|((_, who), _)| *who)),
            Column::texts(missing.iter().map(|((route, _), _)| *route)),
            Column::Texts(missing.iter().map(|(_, zone)| **zone).collect()),
        ];
        for (no, mailbox) in self.tx.prepare_cached(sql::PG_ADD_MAILBOXES)?.query_map(of, read_mailbox)? {
            self.know(no, mailbox, wanted)?;
        }
        Ok(true)
    }

    /// The mailboxes of notices to these people, with their windows.
    pub fn make_mailboxes_to_tell(&mut self, people: &BTreeSet<&str>) -> Result<()> {
        let known = self.kept.numbers.get(HANDLED);
        let missing: Vec<&str> =
            people.iter().copied().filter(|who| !known.is_some_and(|of| of.contains_key(*who))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let of = params![Column::texts(missing.iter().copied()), HANDLED];
        let zones = self
            .tx
            .prepare_cached(sql::PG_ZONES)?
            .query_map(of, |row| Ok((row.get::<String>(0)?, row.get::<Option<String>>(1)?)))?;
        let zones: HashMap<String, Option<String>> = zones.into_iter().collect();
        let zone = |who: &str| zones.get(who).and_then(Option::as_deref);
        let wanted: Wanted<'_> = missing.into_iter().map(|who| ((HANDLED, who), zone(who))).collect();
        self.add_mailboxes(&wanted)?;
        self.fetch_digests_of(people.iter().copied().filter(|who| !self.kept.open.contains_key(*who)).collect())
    }

    /// Who was told in these topics, under their locks; gives those whom their new closers tell.
    fn fetch_told(&mut self, stirred: &[(Topic, Subject)]) -> Result<BTreeSet<String>> {
        let closers: TopicMap<i64> = stirred
            .iter()
            .filter_map(|(topic, subject)| Some((*topic, subject.closer.filter(|(_, no)| self.is_new_event(*no))?.0)))
            .collect();
        if closers.is_empty() {
            return Ok(BTreeSet::new());
        }
        let topics = Column::blobs(closers.keys().map(|topic| &topic.0));
        let told = self
            .tx
            .prepare_cached(sql::PG_TOLD)?
            .query_map([topics], |row| Ok((Topic(row.get(0)?), (row.get::<String>(1)?, row.get::<i64>(2)?))))?;
        let mut by_topic: TopicMap<Vec<_>> = closers.keys().map(|topic| (*topic, vec![])).collect();
        let mut people = BTreeSet::new();
        for (topic, (who, ver)) in told {
            if closers.get(&topic).is_some_and(|closer| ver < *closer) {
                people.insert(who.clone());
            }
            by_topic.entry(topic).or_default().push((who, ver));
        }
        self.fetched.told = RefCell::new(by_topic);
        Ok(people)
    }

    /// The windows of the mailboxes that are known, and what is open for these people by any route: a window each, and one sum
    /// of all else that waits, however much that is. No join: that would be planned, while the tables are empty, as a walk over
    /// all that is open.
    fn fetch_digests_of(&mut self, recipients: BTreeSet<&str>) -> Result<()> {
        let of = Column::texts(recipients.iter().copied());
        let mut find = self.tx.prepare_cached(sql::PG_MAILBOXES_OF_RECIPIENTS)?;
        let owners: HashMap<i64, String> =
            find.query_map([of], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect();
        self.kept.open.extend(recipients.into_iter().map(|recipient| (recipient.to_owned(), 0)));
        let unknown: BTreeSet<i64> =
            self.kept.mailboxes.keys().filter(|no| !self.kept.windows.contains_key(no)).copied().collect();
        self.kept.windows.extend(unknown.iter().map(|mailbox| (*mailbox, None)));
        let of = Column::ints(unknown.iter().chain(owners.keys().filter(|no| !unknown.contains(no))).copied());
        self.tx.prepare_cached(sql::PG_WINDOWS)?.each([&of], |row| {
            let digest = Digest::read(row)?;
            if let Some(open) = owners.get(&digest.mailbox).and_then(|owner| self.kept.open.get_mut(owner)) {
                *open += digest.open;
            }
            if unknown.contains(&digest.mailbox) {
                self.kept.windows.insert(digest.mailbox, Some(digest.no));
                self.kept.digests.entry(digest.no).or_insert(digest);
            }
            Ok(true)
        })?;
        let of = Column::ints(owners.keys().copied());
        self.tx.prepare_cached(sql::PG_OPEN_OF_BUSY)?.each([of], |row| {
            if let Some(open) = owners.get(&row.get(0)?).and_then(|owner| self.kept.open.get_mut(owner)) {
                *open += row.get::<i64>(1)?;
            }
            Ok(true)
        })
    }

    fn know(&mut self, no: i64, mut mailbox: Mailbox, wanted: &Wanted<'_>) -> Result<()> {
        let zone = wanted.get(&(mailbox.route.as_str(), mailbox.recipient.as_str())).copied().flatten();
        if zone.is_some() && zone != mailbox.zone.as_deref() {
            self.tx.prepare_cached(sql::SAVE_ZONE)?.later(params![no, zone])?;
            mailbox.zone = zone.map(str::to_owned);
        }
        self.kept.numbers.entry(mailbox.route.clone()).or_default().insert(mailbox.recipient.clone(), no);
        self.kept.mailboxes.insert(no, mailbox);
        Ok(())
    }

    /// The texts that decide between these ranks and the marks of their subjects, where the times are equal.
    pub fn fetch_ties(&mut self, ranks: &[(Topic, Mark)]) -> Result<()> {
        let subjects = self.fetched.subjects.borrow();
        let tied = ranks.iter().flat_map(|(topic, mark)| {
            let known = subjects.get(topic).copied().flatten();
            let marks = known.map(|s| [Some(s.latest), s.before].map(|m| m.map(|m| (m.ver, m.no))));
            let closer = known.and_then(|s| s.closer);
            let all = marks.into_iter().flatten().flatten().chain(closer);
            all.filter(|(ver, _)| *ver == mark.ver).map(|(_, no)| no).collect::<Vec<_>>()
        });
        let tied: BTreeSet<i64> = tied.collect();
        drop(subjects);
        if tied.is_empty() {
            return Ok(());
        }
        let found = self.tx.prepare_cached(sql::PG_TIES)?.query_map([Column::ints(tied)], |row| {
            Ok((row.get::<i64>(0)?, (row.get::<String>(1)?, row.get::<String>(2)?)))
        })?;
        self.fetched.ties.borrow_mut().extend(found);
        Ok(())
    }

    /// What these people have in these topics.
    pub fn fetch_owns(&mut self, of: &[(Topic, &str)]) -> Result<()> {
        if of.is_empty() {
            return Ok(());
        }
        let topics = Column::blobs(of.iter().map(|(topic, _)| &topic.0));
        let people = Column::texts(of.iter().map(|(_, who)| *who));
        let found = self.tx.prepare_cached(sql::PG_STANDINGS)?.query_map(params![topics, people], |row| {
            let own = row.get::<Option<i64>>(2)?.zip(row.get::<Option<i64>>(3)?);
            Ok((Topic(row.get(0)?), row.get::<String>(1)?, own))
        })?;
        let mut owns = self.fetched.owns.borrow_mut();
        for (topic, who) in of {
            owns.entry(*topic).or_default().insert((*who).to_owned(), None);
        }
        for (topic, who, own) in found {
            owns.entry(topic).or_default().insert(who, own);
        }
        Ok(())
    }

    /// The chains that a sweep of these topics will walk: their subjects are locked, so that nobody adds to them.
    fn fetch_chains(&mut self, stirred: &[(Topic, Subject)]) -> Result<()> {
        let of = params![
            Column::blobs(stirred.iter().map(|(topic, _)| &topic.0)),
            Column::ints(stirred.iter().map(|(_, s)| s.head)),
            Column::ints(stirred.iter().map(|(_, s)| s.swept)),
        ];
        let found = self.tx.prepare_cached(sql::PG_CHAINS)?.query_map(of, |row| {
            let no: i64 = row.get(1)?;
            let mark = Mark { ver: row.get(4)?, no, date: row.get(5)? };
            let opens = row.get::<i64>(2)? == OPENS;
            Ok(((no, Topic(row.get(0)?)), Link { opens, mark, prev: row.get::<Option<i64>>(3)?.unwrap_or(0) }))
        })?;
        self.fetched.links.extend(found);
        Ok(())
    }

    /// Parts these topics so that the open items of each part are few enough to be held at once: what a decision withdraws may be
    /// many times what it says.
    pub fn walks(&self, stirred: Vec<Topic>) -> Result<Vec<Vec<Topic>>> {
        if !self.tx.is_postgres() || stirred.is_empty() {
            return Ok(vec![stirred]);
        }
        let openers = Column::ints(self.fetched.openers().collect::<BTreeSet<_>>());
        let count = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
        let counts: HashMap<i64, i64> =
            self.tx.prepare_cached(sql::PG_COUNT_OPEN)?.query_map([openers], count)?.into_iter().collect();
        let mut by_topic: TopicMap<i64> = TopicMap::default();
        for ((no, topic), _) in self.fetched.links.iter().filter(|(_, link)| link.opens) {
            *by_topic.entry(*topic).or_default() += counts.get(no).copied().unwrap_or(0);
        }
        let (mut parts, mut items) = (vec![vec![]], 0);
        for topic in stirred {
            items += by_topic.get(&topic).copied().unwrap_or(0);
            match parts.last_mut().filter(|part| part.is_empty() || items <= WALK_MAX) {
                Some(part) => part.push(topic),
                None => {
                    items = by_topic.get(&topic).copied().unwrap_or(0);
                    parts.push(vec![topic]);
                }
            }
        }
        Ok(parts)
    }

    /// The open items of the events in the chains of these topics, and their digests.
    pub fn fetch_walks(&mut self, topics: &[Topic]) -> Result<()> {
        let of: TopicSet = topics.iter().copied().collect();
        let openers = self.fetched.links.iter().filter(|((_, topic), link)| link.opens && of.contains(topic));
        let openers: BTreeSet<i64> = openers.map(|((no, _), _)| *no).collect();
        self.fetched.items = openers.iter().map(|no| (*no, vec![])).collect();
        if openers.is_empty() {
            return Ok(());
        }
        let found = self.tx.prepare_cached(sql::PG_OPEN_OF_EVENTS)?.query_map([Column::ints(openers)], Item::read)?;
        self.fetch_homes(&found)?;
        for item in found {
            self.fetched.items.entry(item.event_no).or_default().push(item);
        }
        // What is not locked is read again when it is needed, under its lock.
        let locked = &self.kept.mailboxes;
        self.fetched.items.retain(|_, items| items.iter().all(|item| locked.contains_key(&item.mailbox)));
        Ok(())
    }

    /// (event, its topic, a person): a later twin has replaced it for them. Their open items of it. (For each person once: a second
    /// look would find an item here as it was.)
    pub fn fetch_replaced(&mut self, all: &[(i64, Topic, &str)]) -> Result<()> {
        let of: BTreeMap<i64, Topic> = all.iter().map(|(no, topic, _)| (*no, *topic)).collect();
        let found = self.tx.prepare_cached(sql::PG_LINKS)?.query_map([Column::ints(of.keys().copied())], |row| {
            let (no, topic) = (row.get::<i64>(6)?, of.get(&row.get(6)?).copied());
            Ok(topic.map(|topic| Ok(((no, topic), Link::read(row, no, &topic)?))))
        })?;
        self.fetched.links.extend(found.into_iter().flatten().collect::<Result<Vec<_>>>()?);
        let pairs = params![Column::ints(all.iter().map(|one| one.0)), Column::texts(all.iter().map(|one| one.2))];
        let open = self
            .tx
            .prepare_cached(sql::PG_OPEN_OF_PEOPLE)?
            .query_map(pairs, |row| Ok((Item::read(row)?, row.get::<String>(5)?)))?;
        self.fetch_homes(&open.iter().map(|(item, _)| *item).collect::<Vec<_>>())?;
        let mut replaced: HashMap<i64, HashMap<String, Vec<Item>>> = HashMap::new();
        for (no, _, who) in all {
            replaced.entry(*no).or_default().entry((*who).to_owned()).or_default();
        }
        for (item, who) in open.into_iter().filter(|(item, _)| self.kept.mailboxes.contains_key(&item.mailbox)) {
            replaced.entry(item.event_no).or_default().entry(who).or_default().push(item);
        }
        self.fetched.replaced = replaced;
        Ok(())
    }

    /// The digests that these items are in.
    fn fetch_homes(&mut self, items: &[Item]) -> Result<()> {
        let homes: BTreeSet<i64> =
            items.iter().filter_map(|item| item.digest).filter(|no| !self.kept.digests.contains_key(no)).collect();
        self.read_digests(&homes)
    }

    pub fn forget_walks(&mut self) {
        self.fetched.links.clear();
        self.fetched.items.clear();
        self.fetched.replaced.clear();
        self.fetched.told.borrow_mut().clear();
    }
}

pub(super) fn read_mailbox(row: &Row<'_>) -> Result<(i64, Mailbox)> {
    let previous_at = row.get::<Option<i64>>(4)?.map(Time);
    Ok((row.get(0)?, Mailbox { recipient: row.get(1)?, route: row.get(2)?, zone: row.get(3)?, previous_at }))
}
