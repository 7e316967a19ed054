//! Upkeep: what is purged, and what is counted for gauges.

pub const EVENTS_AFTER: &str = "SELECT no, ver, received_at, topic, topic2, prev, prev2 FROM event WHERE no > ?1 \
     ORDER BY no LIMIT ?2";
pub const EVENT_TO_PURGE: &str = "SELECT no, ver, received_at, topic, topic2, prev, prev2 FROM event WHERE no = ?1";
pub const OPEN_OR_YOUNG: &str = "SELECT 1 FROM item WHERE event_no = ?1 AND (state < 2 OR settled_at >= ?2) LIMIT 1";
pub const STATES_OF_EVENT: &str = "SELECT state, count(*) FROM item WHERE event_no = ?1 GROUP BY state";
pub const DROP_ITEMS: &str = "DELETE FROM item WHERE event_no = ?1";
pub const DROP_RELISTED: &str = "DELETE FROM relisted WHERE event_no = ?1";
pub const DROP_ASKED: &str = "DELETE FROM asked WHERE event_no = ?1";
pub const DROP_EVENT: &str = "DELETE FROM event WHERE no = ?1";
pub const DIGESTS_AFTER: &str = "SELECT no, opened_at, CASE state WHEN 6 THEN closed_at END FROM digest WHERE no > ?1 \
     ORDER BY no LIMIT ?2";
pub const IS_LISTED: &str = "SELECT 1 FROM item WHERE digest_no = ?1 UNION ALL SELECT 1 FROM relisted WHERE digest_no = ?1 \
     LIMIT 1";
pub const DROP_ATTEMPTS: &str = "DELETE FROM attempt WHERE digest_no = ?1";
pub const DROP_DIGEST: &str = "DELETE FROM digest WHERE no = ?1";
pub const DROP_LETTERS: &str = "DELETE FROM dead_letter WHERE no IN (SELECT no FROM dead_letter WHERE last_at < ?1 LIMIT ?2 /*pg: FOR UPDATE SKIP LOCKED*/)";
/// The last of the next mailboxes after ?1, and how many they are.
pub const MAILBOXES_AFTER: &str =
    "SELECT max(no), count(*) FROM (SELECT no FROM mailbox WHERE no > ?1 ORDER BY no LIMIT ?2) AS page";
macro_rules! unused_mailboxes {
    ($verb:literal, $end:literal) => {
        concat!(
            $verb,
            "no > ?1 AND no <= ?2 AND coalesce(previous_at, 0) < ?3 \
             AND NOT EXISTS (SELECT 1 FROM digest WHERE mailbox_no = mailbox.no AND state IN (0, 1) /*pg: OFFSET 0*/) \
             AND NOT EXISTS (SELECT 1 FROM digest WHERE mailbox_no = mailbox.no AND state IN (2, 3, 4, 5) /*pg: OFFSET 0*/) \
             AND NOT EXISTS (SELECT 1 FROM digest WHERE mailbox_no = mailbox.no AND state = 6 /*pg: OFFSET 0*/) \
             AND NOT EXISTS (SELECT 1 FROM item WHERE mailbox_no = mailbox.no AND digest_no IS NULL AND state > 1 /*pg: OFFSET 0*/)",
            $end
        )
    };
}
/// Mailboxes from ?1 to ?2 that nothing refers to, and whose last digest began before ?3. An item that is in a digest
/// keeps that digest, so that only those in none are looked for. (`OFFSET 0`: each is looked up, whatever the planner
/// thinks of tables that it has not seen yet.)
pub const DROP_MAILBOXES: &str = unused_mailboxes!("DELETE FROM mailbox WHERE ", "");
/// A capped count by the partial index that holds the state.
pub fn count_state(state: crate::model::DigestState) -> String {
    use crate::model::DigestState::{Gathering, Held, Waiting};
    let (index, within) = match state {
        Held => ("digest_held", "state = 1"),
        Gathering => ("digest_window", "state IN (0, 1) AND state = 0"),
        Waiting => ("digest_busy", "state IN (2, 3, 4, 5) AND state = 4"),
        _ => ("digest_until", "until >= ?2 AND state IN (2, 3, 5)"),
    };
    let n = state as i64;
    format!(
        "SELECT count(*) FROM (SELECT 1 FROM digest INDEXED BY {index} WHERE {within} AND state = {n} LIMIT ?1) AS capped"
    )
}
pub const COUNT_DUE: &str = "SELECT count(*) FROM (SELECT 1 FROM digest WHERE state IN (0, 4) AND priority = ?1 \
     AND due_at <= ?2 AND due_at >= ?4 LIMIT ?3) AS capped";
pub const OLDEST_DUE: &str =
    "SELECT min(due_at) FROM digest WHERE state IN (0, 4) AND priority = ?1 AND due_at <= ?2 AND due_at >= ?3";
/// While some routes are paused: due times from either end, and whether each is of a paused route. Only looked at: unlike
/// [`DUE_AFTER`], nothing is locked.
macro_rules! looked_at {
    ($order:literal) => {
        concat!(
            "SELECT d.due_at, EXISTS (SELECT 1 FROM mailbox b JOIN pause p ON p.route = b.route WHERE b.no = d.mailbox_no) \
             FROM digest d WHERE d.state IN (0, 4) AND d.priority = ?1 AND d.due_at <= ?2 AND d.due_at >= ?4 ORDER BY d.due_at",
            $order,
            " LIMIT ?3"
        )
    };
}
pub const OLDEST_OR_PAUSED: &str = looked_at!("");
pub const NEWEST_OR_PAUSED: &str = looked_at!(" DESC");
pub const OPEN_LETTERS: &str =
    "SELECT count(*) FROM (SELECT 1 FROM dead_letter WHERE discarded_at IS NULL LIMIT ?1) AS capped";

pub const PG_LOCK_UNUSED_MAILBOXES: &str =
    unused_mailboxes!("SELECT no FROM mailbox WHERE ", " ORDER BY no FOR UPDATE SKIP LOCKED");
