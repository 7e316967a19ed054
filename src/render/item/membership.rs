//! What happens to a membership, in words: requests, decisions, ends and reviews, and what is so now.

use super::{Reader, capital, fact, fact_if};
use crate::model::Listed;
use crate::render::data;
use crate::render::kind::Kind;
use crate::render::text;
use crate::render::view::Item;

/// One event about one membership, with the names cleaned; the raw ones are for links.
struct Membership {
    member: String,
    requester: Option<String>,
    actor: Option<String>,
    /// `sports:role.writers`
    place: String,
    removes: bool,
    own: bool,
    /// The member reads this mail.
    you: bool,
}

impl Membership {
    /// The member as the subject of a sentence, and the verb that fits: the reader is `you`, and named all the same.
    fn with_verb(&self, theirs: &str, yours: &str) -> String {
        if self.you { format!("you ({}) {yours}", self.member) } else { format!("{} {theirs}", self.member) }
    }

    fn request(&self) -> String {
        if self.removes {
            format!("the request to remove {} from {}", self.member, self.place)
        } else {
            format!("the request for {} to join {}", self.member, self.place)
        }
    }
}

impl Reader<'_> {
    pub(super) fn requested(&self, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let who = m.requester.clone().unwrap_or_else(|| m.member.clone());
        item.headline = match (m.removes, m.own) {
            (false, true) => format!("{} asks to join {}", m.member, m.place),
            (false, false) => format!("{who} asks to add {} to {}", m.member, m.place),
            (true, true) => format!("{} asks to leave {}", m.member, m.place),
            (true, false) => format!("{who} asks to remove {} from {}", m.member, m.place),
        };
        fact(item, "Asked", self.dated(listed.time));
        if !m.removes {
            match self.when(listed, "expires_at") {
                Some(end) => {
                    item.note = "Athenz drops the requested end when you approve: to keep it, enter it again.";
                    fact(item, "Requested end", end);
                }
                None => fact(item, "Requested end", "none asked for"),
            }
        }
        self.quote(listed, who, item);
        self.link(item, "Decide in Athenz", listed, |domain| {
            Some(format!("/workflow/domain?domain={}", text::url_part(domain)))
        });
    }

    pub(super) fn decided(&self, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let approved = match data::raw(&listed.data, "decision").as_deref() {
            Some("approve" | "approved") => Some(true),
            Some("reject" | "rejected") => Some(false),
            _ => None,
        };
        let (word, label) = match approved {
            Some(true) => ("approved", "Approved"),
            Some(false) => ("rejected", "Rejected"),
            None => ("decided", "Decided"),
        };
        let place = &m.place;
        let what = match (approved, m.removes) {
            (Some(true), false) => format!("{} now in {place}", m.with_verb("is", "are")),
            (Some(true), true) => format!("{} no longer in {place}", m.with_verb("is", "are")),
            (Some(false), false) => format!("{} not join {place}", m.with_verb("does", "do")),
            (Some(false), true) => format!("{} in {place}", m.with_verb("stays", "stay")),
            (None, false) => format!("the request of {} for {place}", m.member),
            (None, true) => format!("the request to remove {} from {place}", m.member),
        };
        item.headline = self.settled_words(word, m.actor.as_deref(), &what);
        item.label = label;
        item.tone = if approved == Some(false) { "bad" } else { "good" };
        fact_if(item, "Asked by", m.requester.filter(|_| !m.own));
        fact(item, "Decided", self.dated(listed.time));
        if approved == Some(true) && !m.removes {
            fact_if(item, "Ends", self.when(listed, "expires_at"));
        }
        self.quote(listed, m.actor.unwrap_or_default(), item);
        self.link_to_collection(item, listed);
    }

    /// Withdrawn, renewed, removed, added: something that is so now.
    pub(super) fn settled(&self, kind: Kind, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let end = data::time(&listed.data, "expires_at").or_else(|| data::time(&listed.data, "review_by"));
        let until = end.map(|t| format!(", now until {}", self.zone.day(t, self.now))).unwrap_or_default();
        let lapsed = data::raw(&listed.data, "outcome").is_some_and(|o| o == "lapsed");
        let place = &m.place;
        let (word, what) = match kind {
            Kind::Withdrawn if lapsed => ("lapsed", m.request()),
            Kind::Withdrawn => ("withdrawn", m.request()),
            Kind::Renewed => ("renewed", format!("{} in {place}{until}", m.with_verb("stays", "stay"))),
            Kind::Removed => ("removed", format!("{} no longer in {place}", m.with_verb("is", "are"))),
            _ => ("added", format!("{} now in {place}{until}", m.with_verb("is", "are"))),
        };
        item.headline = self.settled_words(word, m.actor.as_deref(), &what);
        fact_if(item, "Asked by", m.requester.clone().filter(|_| kind == Kind::Withdrawn && !m.own));
        fact(item, capital(word), self.dated(listed.time));
        if let Some(end) = end {
            fact(item, "Ends", self.zone.moment(end, self.now));
        }
        self.quote(listed, m.actor.or(m.requester).unwrap_or_default(), item);
        self.link_to_collection(item, listed);
    }

    /// `Approved by user.alice: …`, or `Already approved by user.alice: …` to those who had been asked.
    fn settled_words(&self, word: &str, actor: Option<&str>, what: &str) -> String {
        let by = actor.map(|a| format!(" by {a}")).unwrap_or_default();
        if self.handled { format!("Already {word}{by}: {what}") } else { format!("{}{by}: {what}", capital(word)) }
    }

    pub(super) fn ending(&self, kind: Kind, listed: &Listed, item: &mut Item) {
        let m = self.membership(listed);
        let review = kind == Kind::ReviewDue;
        let when = if review {
            data::time(&listed.data, "review_by").or_else(|| data::time(&listed.data, "review_at"))
        } else {
            data::time(&listed.data, "expires_at")
        }
        .or(listed.deadline);
        let past = when.is_some_and(|t| t < self.now);
        let what = match (review, m.you) {
            (true, true) => format!("Your membership in {} needs a review", m.place),
            (true, false) => format!("{} in {} needs a review", m.member, m.place),
            (false, true) => format!("Your access to {}", m.place),
            (false, false) => format!("{}: access to {}", m.member, m.place),
        };
        let by = match when.map(|t| self.zone.day(t, self.now)) {
            None if review => String::new(),
            None => " ends soon".into(),
            Some(day) => match (review, past) {
                (true, false) => format!(" by {day}"),
                (true, true) => format!(", due since {day}"),
                (false, false) => format!(" ends on {day}"),
                (false, true) => format!(" ended on {day}"),
            },
        };
        item.says(what, by);
        if m.you {
            fact(item, "Member", format!("{} (you)", m.member));
        }
        if let Some(when) = when {
            let name = match (review, past) {
                (true, _) => "Review by",
                (false, false) => "Ends",
                (false, true) => "Ended",
            };
            fact(item, name, self.dated(when));
            item.due_in = self.until(if review { ["due", "was due"] } else { ["ends", "ended"] }, when);
            // The headline and the fact say it already.
            item.due.clear();
            item.due_full.clear();
        }
        item.note = match (review, m.you, past) {
            (true, true, _) => "Ask an administrator to review it, or say that you no longer need it.",
            (true, false, _) => "Confirm that the member still needs it, or remove them.",
            (false, true, false) => "Still needed? Ask an administrator of the domain to extend it in time.",
            (false, false, false) => "Still needed? Extend it in time; without that, the access ends by itself.",
            (false, true, true) => "Still needed? Ask to join again, or ask an administrator of the domain.",
            (false, false, true) => "Still needed? Give it a new end date; if not, remove the member.",
        };
        for key in ["notes", "details"] {
            fact_if(item, "Notes", data::raw(&listed.data, key).map(|n| text::prose(&n, self.bounds.prose_bytes)));
        }
        self.link_to_collection(item, listed);
    }

    pub(super) fn reminder(&self, listed: &Listed, item: &mut Item) {
        let kind = data::raw(&listed.data, "collection.kind").or_else(|| data::raw(&listed.data, "kind"));
        item.headline = match kind.as_deref() {
            Some("group") => "Requests to join groups wait for your decision",
            Some("role") => "Requests to join roles wait for your decision",
            _ => "Requests wait for your decision",
        }
        .into();
        item.note = "Athenz does not say which ones in its reminder; its inbox lists them.";
        fact(item, "Reminded", self.dated(listed.time));
        if let Some(ui) = self.ui_url {
            item.action = "Open the inbox in Athenz";
            item.url = format!("{ui}/workflow/admin");
        }
    }

    fn membership(&self, listed: &Listed) -> Membership {
        let raw_member = data::raw(&listed.data, "member");
        let raw_requester = data::raw(&listed.data, "requester");
        let domain = self.or_unknown(listed, &["domain"], "domain");
        let place = match self.field(listed, "collection.name") {
            Some(name) => {
                let kind = self.field(listed, "collection.kind").unwrap_or_else(|| "role".into());
                format!("{domain}:{kind}.{name}")
            }
            None => domain,
        };
        Membership {
            own: raw_requester.is_none() || raw_requester == raw_member,
            you: raw_member.as_deref() == Some(self.principal),
            member: self.or_unknown(listed, &["member"], "member"),
            requester: raw_requester.map(|r| text::name(&r, self.bounds.name_bytes)),
            actor: self.field(listed, "actor"),
            place,
            removes: data::raw(&listed.data, "change").is_some_and(|c| c == "delete"),
        }
    }

    /// Athenz UI: `<ui>/domain/<d>/role/<r>/members` (NotificationConverterCommon), and its page `review`.
    fn link_to_collection(&self, item: &mut Item, listed: &Listed) {
        let is_review = Kind::of(&listed.kind) == Kind::ReviewDue;
        // Nobody extends or reviews their own membership.
        let is_reader = data::raw(&listed.data, "member").as_deref() == Some(self.principal);
        let label = match Kind::of(&listed.kind) {
            Kind::ReviewDue if !is_reader => "Review in Athenz",
            Kind::Expiring if !is_reader => "Extend in Athenz",
            _ => "Open in Athenz",
        };
        self.link(item, label, listed, |domain| {
            let kind = data::raw(&listed.data, "collection.kind").filter(|k| k == "role" || k == "group")?;
            let name = data::raw(&listed.data, "collection.name").filter(|n| n.len() <= self.bounds.name_bytes)?;
            let page = if is_review { "review" } else { "members" };
            Some(format!("/domain/{}/{kind}/{}/{page}", text::url_part(domain), text::url_part(&name)))
        });
    }
}
