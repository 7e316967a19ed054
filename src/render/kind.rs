//! The types of `events.md`, as a mail sorts, counts and labels them.

/// A tone as a colour, dark enough for small text on white (at least 6:1).
pub fn ink(tone: &str) -> &'static str {
    match tone {
        "ask" => "#0b4bb3",
        "good" => "#12613c",
        "bad" => "#a3221a",
        "warn" => "#7a4d00",
        _ => "#4a5565",
    }
}

/// How a type is counted and labelled. In the order of a subject: what asks before what tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Requested,
    Expiring,
    ReviewDue,
    Reminder,
    Certificate,
    Zts,
    Decided,
    Withdrawn,
    Renewed,
    Removed,
    Added,
    DomainChanged,
    Other,
}

impl Kind {
    pub fn of(event_type: &str) -> Kind {
        match event_type {
            "io.athenz.membership.requested.v1" => Kind::Requested,
            "io.athenz.membership.decided.v1" => Kind::Decided,
            "io.athenz.membership.withdrawn.v1" => Kind::Withdrawn,
            "io.athenz.membership.expiring.v1" => Kind::Expiring,
            "io.athenz.membership.review_due.v1" => Kind::ReviewDue,
            "io.athenz.membership.renewed.v1" => Kind::Renewed,
            "io.athenz.membership.removed.v1" => Kind::Removed,
            "io.athenz.membership.added.v1" => Kind::Added,
            "io.athenz.membership.reminder.v1" => Kind::Reminder,
            "io.athenz.domain.changed.v1" => Kind::DomainChanged,
            "io.athenz.certificate.unrefreshed.v1" => Kind::Certificate,
            "io.athenz.zts.unhealthy.v1" => Kind::Zts,
            _ => Kind::Other,
        }
    }

    /// One and many of it, as a subject counts them.
    pub fn nouns(self) -> (&'static str, &'static str) {
        match self {
            Kind::Requested => ("approval", "approvals"),
            Kind::Decided => ("decision", "decisions"),
            Kind::Withdrawn => ("withdrawal", "withdrawals"),
            Kind::Expiring => ("expiry", "expiries"),
            Kind::ReviewDue => ("review", "reviews"),
            Kind::Renewed => ("renewal", "renewals"),
            Kind::Removed => ("removal", "removals"),
            Kind::Added => ("new membership", "new memberships"),
            Kind::Reminder => ("reminder", "reminders"),
            Kind::DomainChanged => ("change", "changes"),
            Kind::Certificate => ("certificate", "certificates"),
            Kind::Zts => ("health alert", "health alerts"),
            Kind::Other => ("notice", "notices"),
        }
    }

    /// One or two words for a reader, and a tone for a colour.
    pub fn label_and_tone(self) -> (&'static str, &'static str) {
        match self {
            Kind::Requested => ("Approval", "ask"),
            Kind::Decided => ("Decision", "info"),
            Kind::Withdrawn => ("Withdrawn", "info"),
            Kind::Expiring => ("Expiry", "warn"),
            Kind::ReviewDue => ("Review", "ask"),
            Kind::Renewed => ("Renewed", "good"),
            Kind::Removed => ("Removed", "info"),
            Kind::Added => ("Added", "good"),
            Kind::Reminder => ("Reminder", "ask"),
            Kind::DomainChanged => ("Change", "info"),
            Kind::Certificate => ("Certificate", "bad"),
            Kind::Zts => ("Health", "bad"),
            Kind::Other => ("Notice", "info"),
        }
    }

    /// Needs the reader; the others only tell.
    pub fn asks(self) -> bool {
        self <= Kind::Zts
    }

    /// Types that only tell: of several about one subject the last one stands for all. A decision is not among them, as
    /// a second one on the same subject answers another request.
    pub fn collapses(self) -> bool {
        matches!(self, Kind::DomainChanged | Kind::Added | Kind::Reminder | Kind::Other)
    }
}
