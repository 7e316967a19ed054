//! Statements of the looks into a store's file from outside, in the columns of the first schema.

pub use crate::store::rules::QUOTA;

pub const OUTCOME_TABLES: &str = "SELECT count(*) = 3 FROM sqlite_schema WHERE name IN ('event', 'item', 'mailbox')";
/// Whether keys stand in tables of their own, as they do from schema 7 on.
pub const HAS_KEYS: &str = "SELECT count(*) = 1 FROM sqlite_schema WHERE name = 'event_key'";
pub const EVENTS_BY_KEY: &str = "SELECT e.no, e.key, e.source, e.id FROM (SELECT key, no FROM event_key WHERE key > ?1 \
     ORDER BY key LIMIT ?2) k CROSS JOIN event e ON e.no = k.no ORDER BY k.key";
pub const EVENTS_BY_KEY_BEFORE: &str = "SELECT no, key, source, id FROM event WHERE key > ?1 ORDER BY key LIMIT ?2";
pub const OUTCOMES_OF_EVENT: &str = "SELECT m.route, m.recipient, i.state, i.reason FROM item i \
     JOIN mailbox m ON m.no = i.mailbox_no WHERE i.event_no = ?1";

pub const HAS_QUOTA: &str = "SELECT count(*) = 1 FROM sqlite_schema WHERE name = 'quota'";
pub const SUPPRESSED_AFTER: &str =
    "SELECT address, reason FROM suppression WHERE address > ?1 ORDER BY address LIMIT ?2";

/// What the one row of `meta` says.
pub const NUMBERS: &str = "SELECT store_id, next_event, next_digest, next_letter, mails_sent FROM meta";
