//! What became of the day, read as an operator's command would: from the store's desk, and from the mails in the outbox.

use std::collections::BTreeMap;
use std::fs;

use super::folder::Folder;
use crate::app::{AppError, Parts};
use crate::cli::Failure;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::model::Time;
use crate::store::desk::{LedgerRow, Status, Verified};
use crate::store::{Desk, Opening, Page, Query, Rows};

/// Far above what the demo makes: a ledger that does not end must not keep it from ending.
const PAGES_MAX: usize = 100;

pub struct Books {
    pub status: Status,
    pub verified: Verified,
    pub ledger: Vec<LedgerRow>,
    /// By person, then by when their first item came.
    pub mails: Vec<Mail>,
}

/// A digest that left.
pub struct Mail {
    pub recipient: String,
    pub address: String,
    pub route: String,
    pub digest: String,
    pub items: usize,
    pub subject: String,
    pub sent_at: Time,
    /// When its first item was accepted.
    began_at: String,
    /// Names of its files in the outbox, without their ending.
    pub file: String,
    pub html_bytes: u64,
}

impl Books {
    /// Opens the store beside nobody, and closes it again.
    ///
    /// # Errors
    /// Failed: the store or the outbox can't be read.
    pub async fn read(config: &Config, folder: &Folder) -> Result<Books, Failure> {
        let parts = Parts::new(config, std::sync::Arc::new(SystemClock::new()), true)?;
        let store = parts.open_store(config, Opening::Operator).await?.store;
        let Rows::Status(status) = ask(&*store, &Query::Status { now: parts.clock.now() }, Page::FIRST).await? else {
            return Err(odd());
        };
        let Rows::Verified(verified) = ask(&*store, &Query::Verify, Page::FIRST).await? else { return Err(odd()) };
        let (mut ledger, mut page) = (Vec::new(), Page::FIRST);
        for _ in 0..PAGES_MAX {
            let Rows::Ledger { rows, next } =
                ask(&*store, &Query::Ledger { since: None, recipient: None }, page).await?
            else {
                return Err(odd());
            };
            ledger.extend(rows);
            let Some(after) = next else { break };
            page.after = after;
        }
        let mails = mails(&ledger, folder)?;
        Ok(Books { status: *status, verified: *verified, ledger, mails })
    }

    /// Items in a final state by reason, the most frequent first: `decided 5, replaced 1`.
    pub fn reasons(&self, state: &str) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in self.ledger.iter().filter(|row| row.state == state) {
            *counts.entry(row.reason.as_deref().unwrap_or("")).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().filter(|(reason, _)| !reason.is_empty()).collect();
        counts.sort_by_key(|(reason, n)| (std::cmp::Reverse(*n), *reason));
        counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join(", ")
    }

    /// The mail that told somebody of an event.
    pub fn mail_of(&self, id: &str, recipient: &str) -> Option<&Mail> {
        let told = |r: &&LedgerRow| r.id == id && r.recipient == recipient && r.state == "delivered";
        let digest = self.ledger.iter().find(told)?.digest.as_deref()?;
        self.mails.iter().find(|mail| mail.digest == digest)
    }

    pub fn has(&self, id: &str, recipient: &str, route: &str, state: &str) -> bool {
        self.ledger.iter().any(|r| r.id == id && r.recipient == recipient && r.route == route && r.state == state)
    }
}

/// How many mails were sent so far.
pub async fn mails_sent(store: &(impl Desk + ?Sized)) -> Result<u64, Failure> {
    match ask(store, &Query::Status { now: SystemClock::new().now() }, Page::FIRST).await? {
        Rows::Status(status) => Ok(status.mails.sent),
        _ => Err(odd()),
    }
}

async fn ask(store: &(impl Desk + ?Sized), query: &Query, page: Page) -> Result<Rows, Failure> {
    Ok(store.read(query, page).await.map_err(AppError::from)?)
}

fn odd() -> Failure {
    Failure::failed("the store answered something else than it was asked")
}

fn mails(ledger: &[LedgerRow], folder: &Folder) -> Result<Vec<Mail>, Failure> {
    let outbox = folder.shown("outbox");
    let failed = |e: std::io::Error| Failure::failed(format!("{outbox}: {e}"));
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for entry in fs::read_dir(folder.at("outbox")).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        // `<digest>.<attempt>.html`
        if let Some(stem) = name.strip_suffix(".html")
            && let Some((digest, _)) = stem.rsplit_once('.')
        {
            files.insert(digest.to_owned(), stem.to_owned());
        }
    }
    let mut mails: BTreeMap<&str, Mail> = BTreeMap::new();
    for row in ledger.iter().filter(|row| row.state == "delivered") {
        let Some((digest, file)) = row.digest.as_deref().and_then(|d| files.get_key_value(d)) else { continue };
        if let Some(mail) = mails.get_mut(digest.as_str()) {
            mail.items += 1;
            mail.began_at = row.accepted_at.clone().min(std::mem::take(&mut mail.began_at));
            continue;
        }
        let html = fs::read_to_string(folder.at("outbox").join(format!("{file}.html"))).map_err(failed)?;
        let mail = Mail {
            recipient: row.recipient.clone(),
            address: row.address.clone().unwrap_or_default(),
            route: row.route.clone(),
            digest: digest.clone(),
            items: 1,
            subject: subject(&html),
            sent_at: row.settled_at.as_deref().and_then(Time::parse).unwrap_or_default(),
            began_at: row.accepted_at.clone(),
            file: file.clone(),
            html_bytes: html.len() as u64,
        };
        mails.insert(digest, mail);
    }
    let mut mails: Vec<Mail> = mails.into_values().collect();
    // Mails leave side by side: by what is in them they stand in the same order every time.
    mails.sort_by(|a, b| (&a.recipient, &a.began_at, &a.route).cmp(&(&b.recipient, &b.began_at, &b.route)));
    Ok(mails)
}

/// A mail's page has its subject as its title, escaped as [`handlebars::html_escape`] does.
fn subject(html: &str) -> String {
    let title = html.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).map_or("", |(t, _)| t);
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#x60;", "`"), ("&#x3D;", "="), ("&amp;", "&")]
        .into_iter()
        .fold(title.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_as_it_was_written() {
        for text in ["3 approvals in sports", "a < b & \"c\" = 'd' `e`", "&lt;"] {
            let html = format!("<html><title>{}</title></html>", handlebars::html_escape(text));
            assert_eq!(subject(&html), text);
        }
        assert_eq!(subject("no title"), "");
    }
}
