//! What templates see. Ready strings and lists only: an absent text is `""`, which `{{#if}}` takes for false; so strict
//! mode finds every misspelt name, and no `null` renders as nothing.

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Mail {
    /// The subject line that owlpost suggests.
    pub subject: String,
    /// What waits and where: `3 approvals, 2 expiries in sports`.
    pub title: String,
    /// For the line that a mail client shows beside the subject: what the subject does not say.
    pub preheader: String,
    /// The earliest deadline of several items, `Tue 24 Nov 2026, 11:00 CET (in 2 days)`, else `""`.
    pub deadline: String,
    /// `"yes"` if it tells more than one thing.
    pub several: String,
    /// `"yes"` if anything in it needs the reader.
    pub asks: String,
    pub recipient: Recipient,
    pub product: String,
    /// `handled` on the route that tells what somebody else settled.
    pub route: String,
    /// `"yes"` on the route `handled`, else `""`.
    pub handled: String,
    /// Counts by kind, in the order of the mail.
    pub counts: Vec<Count>,
    /// Told in full, most urgent first.
    pub items: Vec<Item>,
    /// Told in one line each, since the mail would get too large.
    pub rows: Vec<Item>,
    /// How many are told in short form or counted only, in a sentence; `""` if none.
    pub shortened: String,
    /// Further open items that come with the next mail, in a sentence; `""` if none.
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
    pub of: String,
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
    pub asks: String,
    /// A heading, on the first item that asks and the first that tells, in a mail that has both.
    pub section: String,
    /// One or two words: `Approval`, `Expiry`.
    pub label: String,
    /// `ask`, `good`, `bad`, `warn` or `info`: a class.
    pub tone: String,
    /// The tone as a colour on white, `#0b4bb3`.
    pub ink: String,
    /// A whole sentence that names who and what.
    pub headline: String,
    /// `24 Nov`; `""` without a deadline, or if the headline says it.
    pub due: String,
    /// `in 2 days`; `""` without a deadline.
    pub due_in: String,
    /// `Tue 24 Nov 2026, 11:00 CET (in 2 days)`; `""` without a deadline, or if a fact says it.
    pub due_full: String,
    pub facts: Vec<Fact>,
    /// What somebody wrote: a reason.
    pub quote: String,
    pub quote_by: String,
    /// Something the reader should know before acting.
    pub note: String,
    /// What to do or see in Athenz, and where; both `""` without `templates.ui_url`. The URL is `http` or `https`,
    /// percent-encoded.
    pub action: String,
    pub url: String,
    /// The event's data with every text made harmless and bounded, for templates of custom types.
    pub data: serde_json::Value,
}

#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}
