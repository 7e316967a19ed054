//! What things come to: the values of labels.

/// What became of an event of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    Accepted,
    Duplicate,
    Dropped,
    Dead,
}

impl EventOutcome {
    pub const ALL: [EventOutcome; 4] =
        [EventOutcome::Accepted, EventOutcome::Duplicate, EventOutcome::Dropped, EventOutcome::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            EventOutcome::Accepted => "accepted",
            EventOutcome::Duplicate => "duplicate",
            EventOutcome::Dropped => "dropped",
            EventOutcome::Dead => "dead",
        }
    }
}

/// What a mailer's call, or the decision not to call, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    Delivered,
    Retryable,
    Throttled,
    Halted,
    Permanent,
    Ambiguous,
    NotCalled,
}

impl MailOutcome {
    pub const ALL: [MailOutcome; 7] = [
        MailOutcome::Delivered,
        MailOutcome::Retryable,
        MailOutcome::Throttled,
        MailOutcome::Halted,
        MailOutcome::Permanent,
        MailOutcome::Ambiguous,
        MailOutcome::NotCalled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            MailOutcome::Delivered => "delivered",
            MailOutcome::Retryable => "retryable",
            MailOutcome::Throttled => "throttled",
            MailOutcome::Halted => "halted",
            MailOutcome::Permanent => "permanent",
            MailOutcome::Ambiguous => "ambiguous",
            MailOutcome::NotCalled => "not_called",
        }
    }
}

/// What became of a dead letter that was sent to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterOutcome {
    /// Confirmed.
    Forwarded,
    /// It will never be taken.
    Refused,
    /// Not confirmed: sent again.
    Failed,
}

impl LetterOutcome {
    pub const ALL: [LetterOutcome; 3] = [LetterOutcome::Forwarded, LetterOutcome::Refused, LetterOutcome::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            LetterOutcome::Forwarded => "forwarded",
            LetterOutcome::Refused => "refused",
            LetterOutcome::Failed => "failed",
        }
    }
}

/// Whether calls to a mailer are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    Closed = 0,
    /// One mail at a time, to see whether it works again.
    Probing = 1,
    Open = 2,
}
