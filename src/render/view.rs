//! What templates see. Ready strings and lists only: an absent text is `""`, which `{{#if}}` takes for false; so strict
//! mode finds every misspelt name, and no `null` renders as nothing.

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Mail {
    /// The subject line that owlpost suggests.
    pub subject: String,
    /// What waits, in a few words: `3 approvals, 2 expiries`.
    pub title: String,
    /// What the first item asks, for the preview line of a mail client.
    pub preheader: String,
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
    /// One or two words: `Approval`, `Expiry`.
    pub label: String,
    /// `ask`, `good`, `bad`, `warn` or `info`: a colour.
    pub tone: String,
    /// A whole sentence that names who and what.
    pub headline: String,
    /// `24 Nov`; `""` without a deadline.
    pub due: String,
    /// `Tue 24 Nov 2026, 11:00 CET (in 2 days)`; `""` without a deadline.
    pub due_full: String,
    pub facts: Vec<Fact>,
    /// What somebody wrote: a reason.
    pub quote: String,
    pub quote_by: String,
    /// Something the reader should know before acting.
    pub note: String,
    pub links: Vec<Link>,
    /// The event's data with every text made harmless and bounded, for templates of custom types.
    pub data: serde_json::Value,
}

#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Link {
    pub label: String,
    /// `http` or `https`, percent-encoded.
    pub url: String,
}
