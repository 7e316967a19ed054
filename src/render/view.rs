//! What templates see. Ready strings and lists only: an absent text is `""`, which `{{#if}}` takes for false; so strict
//! mode finds every misspelt name, and no `null` renders as nothing.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Debug, Serialize)]
pub struct Mail {
    /// The subject line that owlpost suggests.
    pub subject: String,
    /// What waits and where: `3 approvals, 2 expiries in sports`.
    pub title: String,
    /// For the line that a mail client shows beside the subject: what the subject does not say.
    pub preheader: String,
    /// The earliest deadline of several items, `Tue 24 Nov, 11:00 CET (in 2 days)`, else `""`.
    pub deadline: String,
    /// `"yes"` if it tells more than one thing.
    pub several: &'static str,
    /// `"yes"` if anything in it needs the reader.
    pub asks: &'static str,
    pub recipient: Recipient,
    pub product: String,
    /// `handled` on the route that tells what somebody else settled.
    pub route: String,
    /// `"yes"` on the route `handled`, else `""`.
    pub handled: &'static str,
    /// Counts by kind, in the order of the mail.
    pub counts: Vec<Count>,
    /// Told in full, most urgent first.
    pub items: Vec<Item>,
    /// Told in one line each, since the mail would get too large.
    pub rows: Vec<Item>,
    /// How many are told in short form or counted only, in a sentence; `""` if none.
    pub shortened: String,
    /// Further open items that come with the next mails, in a sentence; `""` if none.
    pub more: String,
    /// Where to see everything; `""` without `templates.ui_url`.
    pub ui_url: String,
    /// Names the zone of all times.
    pub zone: String,
    /// Why this person got the mail.
    pub why: String,
    /// The address of those who run it (`mailer.reply_to`), and a link to it; `""` without one.
    pub contact: String,
    pub contact_url: String,
    /// Where to stop mails of this route: `templates.unsubscribe` on a route that is optional, else `""`.
    pub unsubscribe: String,
    pub digest: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Recipient {
    pub principal: String,
    pub language: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Count {
    pub n: u64,
    /// `approvals`
    pub of: &'static str,
    /// `3 approvals`
    pub text: String,
}

/// One thing that is asked or told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Item {
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `"yes"` if it needs the reader; what only tells comes after all that ask.
    pub asks: &'static str,
    /// A heading, on the first item that asks and the first that tells, in a mail that has both.
    pub section: &'static str,
    /// The HTML element of the headline: `h3` in a mail with sections, else `h2`.
    pub heading: &'static str,
    /// One or two words: `Approval`, `Expiry`.
    pub label: &'static str,
    /// `ask`, `good`, `bad`, `warn` or `info`: a class.
    pub tone: &'static str,
    /// The tone as a colour on white, `#0b4bb3`.
    pub ink: &'static str,
    /// A whole sentence that names who and what.
    pub headline: String,
    /// Where in the headline the date starts that must not be cut off; 0: nowhere.
    #[serde(skip)]
    pub(super) date_at: usize,
    /// Its deadline, or what its data names as its end, is past.
    #[serde(skip)]
    pub(super) overdue: bool,
    /// `24 Nov`; `""` without a deadline, or if the headline says it.
    pub due: String,
    /// `in 2 days`, or with its verb, `ends in 2 days`; `""` without a deadline.
    pub due_in: String,
    /// `Tue 24 Nov, 11:00 CET (in 2 days)`; `""` without a deadline, or if a fact says it.
    pub due_full: String,
    pub facts: Vec<Fact>,
    /// What somebody wrote: a reason.
    pub quote: String,
    pub quote_by: String,
    /// Something the reader should know before acting.
    pub note: &'static str,
    /// What to do or see in Athenz, and where; both `""` without `templates.ui_url`. The URL is `http` or `https`,
    /// percent-encoded.
    pub action: &'static str,
    pub url: String,
    /// The event's data with every text made harmless and bounded, for templates of custom types.
    pub data: Value,
}

#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    pub name: Cow<'static, str>,
    pub value: Cow<'static, str>,
}

impl Item {
    /// The headline: what, and by when.
    pub(super) fn says(&mut self, what: String, by: String) {
        self.date_at = if by.is_empty() { 0 } else { what.len() };
        self.headline = what + &by;
    }

    /// The headline without the date at its end, and the date.
    pub(super) fn parts(&self) -> (&str, &str) {
        match self.date_at {
            0 => (&self.headline, ""),
            at => self.headline.split_at_checked(at).unwrap_or((&self.headline, "")),
        }
    }
}

/// Something that a template can name: what it would be in JSON, without making any.
#[derive(Clone, Copy)]
pub enum Seen<'a> {
    Text(&'a str),
    Number(u64),
    Mail(&'a Mail),
    Recipient(&'a Recipient),
    Count(&'a Count),
    Item(&'a Item),
    Fact(&'a Fact),
    Counts(&'a [Count]),
    Items(&'a [Item]),
    Facts(&'a [Fact]),
    Json(&'a Value),
}

impl<'a> Seen<'a> {
    /// `None`: there is no such name here. A test compares the names with what serde writes.
    pub fn field(self, name: &str) -> Option<Seen<'a>> {
        Some(match self {
            Seen::Mail(mail) => match name {
                "subject" => Seen::Text(&mail.subject),
                "title" => Seen::Text(&mail.title),
                "preheader" => Seen::Text(&mail.preheader),
                "deadline" => Seen::Text(&mail.deadline),
                "several" => Seen::Text(mail.several),
                "asks" => Seen::Text(mail.asks),
                "recipient" => Seen::Recipient(&mail.recipient),
                "product" => Seen::Text(&mail.product),
                "route" => Seen::Text(&mail.route),
                "handled" => Seen::Text(mail.handled),
                "counts" => Seen::Counts(&mail.counts),
                "items" => Seen::Items(&mail.items),
                "rows" => Seen::Items(&mail.rows),
                "shortened" => Seen::Text(&mail.shortened),
                "more" => Seen::Text(&mail.more),
                "ui_url" => Seen::Text(&mail.ui_url),
                "zone" => Seen::Text(&mail.zone),
                "why" => Seen::Text(&mail.why),
                "contact" => Seen::Text(&mail.contact),
                "contact_url" => Seen::Text(&mail.contact_url),
                "unsubscribe" => Seen::Text(&mail.unsubscribe),
                "digest" => Seen::Text(&mail.digest),
                _ => return None,
            },
            Seen::Recipient(person) => match name {
                "principal" => Seen::Text(&person.principal),
                "language" => Seen::Text(&person.language),
                _ => return None,
            },
            Seen::Count(count) => match name {
                "n" => Seen::Number(count.n),
                "of" => Seen::Text(count.of),
                "text" => Seen::Text(&count.text),
                _ => return None,
            },
            Seen::Item(item) => match name {
                "type" => Seen::Text(&item.kind),
                "asks" => Seen::Text(item.asks),
                "section" => Seen::Text(item.section),
                "heading" => Seen::Text(item.heading),
                "label" => Seen::Text(item.label),
                "tone" => Seen::Text(item.tone),
                "ink" => Seen::Text(item.ink),
                "headline" => Seen::Text(&item.headline),
                "due" => Seen::Text(&item.due),
                "due_in" => Seen::Text(&item.due_in),
                "due_full" => Seen::Text(&item.due_full),
                "facts" => Seen::Facts(&item.facts),
                "quote" => Seen::Text(&item.quote),
                "quote_by" => Seen::Text(&item.quote_by),
                "note" => Seen::Text(item.note),
                "action" => Seen::Text(item.action),
                "url" => Seen::Text(&item.url),
                "data" => Seen::Json(&item.data),
                _ => return None,
            },
            Seen::Fact(fact) => match name {
                "name" => Seen::Text(&fact.name),
                "value" => Seen::Text(&fact.value),
                _ => return None,
            },
            Seen::Json(value) => match value.as_object()?.get(name)? {
                Value::String(text) => Seen::Text(text),
                other => Seen::Json(other),
            },
            Seen::Text(_) | Seen::Number(_) | Seen::Counts(_) | Seen::Items(_) | Seen::Facts(_) => return None,
        })
    }
}
