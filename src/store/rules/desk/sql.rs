//! Every statement of the operator's desk, by name. Listings come in the order of a number that pages continue after;
//! `CROSS JOIN` keeps SQLite at that order.

/// What [`super::rows::ItemRow`] reads.
macro_rules! item_rows {
    ($which:literal) => {
        item_rows!("placed_item i"; $which)
    };
    ($($from:expr),+; $which:literal) => {
        concat!(
            "SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, i.reason, i.left_before, i.settled_at, e.source, \
             e.id, e.kind, e.subject_key, e.received_at, m.recipient, m.route, d.address, CAST(length(e.data) AS bigint) FROM ",
            $($from,)+
            " CROSS JOIN event e ON e.no = i.event_no CROSS JOIN mailbox m ON m.no = i.mailbox_no \
             LEFT JOIN digest d ON d.no = i.digest_no ",
            $which
        )
    };
}

// ---- the ledger
/// After event ?1, accepted or settled since ?2, of recipient ?3: ?4 at most.
pub const LEDGER: &str = item_rows!(
    "WHERE i.event_no > ?1 AND (CAST(?3 AS text) IS NULL OR i.mailbox_no IN (SELECT no FROM mailbox WHERE recipient = ?3)) \
     AND (CAST(?2 AS bigint) IS NULL OR e.received_at >= ?2 OR i.settled_at >= ?2) ORDER BY i.event_no, i.mailbox_no LIMIT ?4"
);
pub const ITEM_OF: &str = item_rows!("WHERE i.event_no = ?1 AND i.mailbox_no = ?2");
pub const ITEMS_OF_EVENT: &str = item_rows!("WHERE i.event_no = ?1 ORDER BY i.mailbox_no LIMIT ?2");
/// A recipient's last items, newest first: a walk back over the items, since nothing on the hot path needs an index.
pub const ITEMS_OF_RECIPIENT: &str = item_rows!(
    "WHERE i.mailbox_no IN (SELECT no FROM mailbox WHERE recipient = ?1) ORDER BY i.event_no DESC, i.mailbox_no DESC LIMIT ?2"
);
/// The items in the tails of those digests (SQLite, `books/tail.rs`): each names the event of the one before it.
macro_rules! tail {
    ($columns:literal, $which:literal) => {
        concat!(
            "(WITH RECURSIVE tail (event_no, mailbox_no, digest_no, behind) AS (SELECT i.event_no, i.mailbox_no, i.digest_no, \
             i.behind FROM digest w CROSS JOIN item i ON i.event_no = w.tail AND i.mailbox_no = w.mailbox_no WHERE ",
            $which,
            " UNION SELECT i.event_no, i.mailbox_no, i.digest_no, i.behind FROM tail t CROSS JOIN item i \
             ON i.event_no = t.behind AND i.mailbox_no = t.mailbox_no) SELECT ",
            $columns,
            " FROM tail)"
        )
    };
}
macro_rules! items_of_digest {
    ($($more:expr)?) => {
        item_rows!(
            "(SELECT event_no, mailbox_no FROM item WHERE digest_no = ?1 UNION SELECT event_no, mailbox_no FROM relisted \
             WHERE digest_no = ?1",
            $(" UNION SELECT event_no, mailbox_no FROM ", $more,)?
            ") k CROSS JOIN placed_item i ON i.event_no = k.event_no AND i.mailbox_no = k.mailbox_no";
            "WHERE k.event_no > ?2 ORDER BY k.event_no LIMIT ?3"
        )
    };
}
/// What is or was in digest ?1, after event ?2. A digest has one mailbox, so an event is in it once.
pub const PG_ITEMS_OF_DIGEST: &str = items_of_digest!();
pub const LITE_ITEMS_OF_DIGEST: &str = items_of_digest!(tail!("event_no, mailbox_no", "w.no = ?1"));
/// What attempt ?2 of digest ?1 listed.
pub const ITEMS_OF_ATTEMPT: &str = item_rows!(
    "(SELECT event_no, mailbox_no FROM item WHERE digest_no = ?1 AND (left_before IS NULL OR left_before > ?2) \
     UNION SELECT event_no, mailbox_no FROM relisted WHERE digest_no = ?1 \
     AND (left_before IS NULL OR left_before > ?2)) k \
     CROSS JOIN placed_item i ON i.event_no = k.event_no AND i.mailbox_no = k.mailbox_no";
    "ORDER BY k.event_no LIMIT ?3"
);
pub const DEAD_ITEMS: &str = item_rows!(
    "WHERE i.state = 5 AND i.event_no > ?1 AND (CAST(?2 AS bigint) IS NULL OR i.reason = ?2) \
     AND (CAST(?3 AS text) IS NULL OR e.source = ?3) AND (CAST(?4 AS bigint) IS NULL OR i.settled_at >= ?4) ORDER BY i.event_no, i.mailbox_no LIMIT ?5"
);

// ---- attempts
/// Those that listed item (?1, ?2), which is in digest ?3 and left it before attempt ?4; the newest ?5.
pub const ATTEMPTS_OF_ITEM: &str = "SELECT a.digest_no, a.n, a.begun_at, a.outcome, a.settled_at, a.message_id, a.detail \
     FROM attempt a WHERE a.digest_no = ?3 AND a.n < coalesce(?4, 9223372036854775807) \
     UNION ALL SELECT a.digest_no, a.n, a.begun_at, a.outcome, a.settled_at, a.message_id, a.detail FROM relisted r \
     JOIN attempt a ON a.digest_no = r.digest_no AND a.n < coalesce(r.left_before, 9223372036854775807) \
     WHERE r.event_no = ?1 AND r.mailbox_no = ?2 ORDER BY 3 DESC, 2 DESC LIMIT ?5";
/// The last attempt with outcome ?3 of digest ?1, of those before ?2 ...
pub const SETTLED_BY: &str = "SELECT digest_no, n, begun_at, outcome, settled_at, message_id, detail FROM attempt \
     WHERE digest_no = ?1 AND n < coalesce(?2, 9223372036854775807) AND outcome = ?3 ORDER BY n DESC LIMIT 1";
/// ... and of those digests that item (?1, ?2) was in before it was replayed.
pub const SETTLED_BEFORE: &str = "SELECT a.digest_no, a.n, a.begun_at, a.outcome, a.settled_at, a.message_id, a.detail \
     FROM relisted r JOIN attempt a ON a.digest_no = r.digest_no AND a.n < coalesce(r.left_before, 9223372036854775807) \
     WHERE r.event_no = ?1 AND r.mailbox_no = ?2 AND a.outcome = ?3 ORDER BY a.begun_at DESC LIMIT 1";
pub const ATTEMPTS_OF_DIGEST: &str = "SELECT digest_no, n, begun_at, outcome, settled_at, message_id, detail FROM attempt \
     WHERE digest_no = ?1 ORDER BY n DESC LIMIT ?2";
pub const ATTEMPTS_OF_MESSAGE: &str = "SELECT digest_no, n, begun_at, outcome, settled_at, message_id, detail FROM attempt \
     WHERE message_id = ?1 ORDER BY digest_no, n LIMIT ?2";
/// Where an item was before it was replayed.
pub const RELISTED_OF_ITEM: &str =
    "SELECT digest_no FROM relisted WHERE event_no = ?1 AND mailbox_no = ?2 ORDER BY digest_no";
/// Refused mails were certainly not sent; an answer counts at its settlement, what nobody knows at its begin.
pub const USED_SINCE: &str = "SELECT count(*) FROM attempt WHERE outcome <> 1 AND coalesce(settled_at, begun_at) >= ?1";

// ---- digests
macro_rules! digest_rows {
    ($which:literal) => {
        concat!(
            "SELECT d.no, d.state, m.route, m.recipient, d.priority, \
             d.open + (SELECT count(*) FROM item i WHERE i.digest_no = d.no AND i.state > 1), d.open, d.due_at, d.until, d.attempts, \
             d.opened_at, d.closed_at, d.address FROM digest d CROSS JOIN mailbox m ON m.no = d.mailbox_no ",
            $which
        )
    };
}
/// After digest ?1, in state ?2 (or -1: not closed, -2: due at ?3), of route ?4.
pub const DIGESTS: &str = digest_rows!(
    "WHERE d.no > ?1 AND CASE CAST(?2 AS bigint) WHEN -1 THEN d.state <> 6 WHEN -2 THEN d.state IN (0, 4) AND d.due_at <= ?3 \
     ELSE d.state = ?2 END AND (CAST(?4 AS text) IS NULL OR m.route = ?4) ORDER BY d.no LIMIT ?5"
);
pub const DIGEST: &str = digest_rows!("WHERE d.no = ?1");

// ---- dead letters
/// After letter ?1, of reason ?2, source ?3, that came since ?4; with ?5 also discarded ones.
pub const LETTERS: &str = "SELECT no, source, position, reason, detail, first_at, count, bytes, forwarded_at, last_at, \
     discarded_at, forward_error FROM dead_letter WHERE no > ?1 AND (CAST(?2 AS text) IS NULL OR reason = ?2) \
     AND (CAST(?3 AS text) IS NULL OR source = ?3) AND (CAST(?4 AS bigint) IS NULL OR last_at >= ?4) \
     AND (CAST(?5 AS bigint) = 1 OR discarded_at IS NULL) ORDER BY no LIMIT ?6";
pub const LETTER: &str = "SELECT no, source, position, reason, detail, first_at, count, bytes, forwarded_at, last_at, \
     discarded_at, forward_error, sha256, headers, body FROM dead_letter WHERE no = ?1";
pub const ITEM_FORWARDED: &str = "SELECT forwarded_at, forward_error FROM item WHERE event_no = ?1 AND mailbox_no = ?2";

// ---- why
/// Of any source: ?1 and ?2 bound the keys that begin with the hash of the id.
pub const PG_EVENTS_BY_ID: &str = "SELECT no, source, id, kind, subject_key, received_at, ver, effect, topic, date \
     FROM event WHERE key >= ?1 AND key <= ?2 AND id = ?3 ORDER BY no LIMIT ?4";
pub const LITE_EVENTS_BY_ID: &str = "SELECT no, source, id, kind, subject_key, received_at, ver, effect, topic, date \
     FROM event WHERE no IN (SELECT no FROM event_key WHERE key >= ?1 AND key <= ?2) AND id = ?3 ORDER BY no LIMIT ?4";
pub const EVENT_NAME: &str = "SELECT source, id, kind, received_at FROM event WHERE no = ?1";
pub const SUBJECT_MARKS: &str =
    "SELECT latest_ver, latest_no, latest_date, closer_ver, closer_no FROM subject WHERE topic = ?1";
pub const IS_RECIPIENT: &str = "SELECT 1 FROM mailbox WHERE recipient = ?1 LIMIT 1";

// ---- status --verify; each gives what is wrong, at most ?1 rows
/// One scan, and nothing to sort: six sums.
pub const RECOUNT: &str = "SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), \
     count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4), \
     count(*) FILTER (WHERE state = 5) FROM item";
pub const HOMELESS_ITEMS: &str = "SELECT i.event_no, i.mailbox_no, i.state, i.digest_no, d.state FROM placed_item i \
     LEFT JOIN digest d ON d.no = i.digest_no WHERE i.state IN (0, 1) AND (d.no IS NULL OR d.state = 6) LIMIT ?1";
macro_rules! wrong_open {
    ($($more:expr)?) => {
        concat!(
            "SELECT no, open, found FROM (SELECT d.no, d.open, (SELECT count(*) FROM item i WHERE i.digest_no = d.no \
             AND i.state IN (0, 1))",
            $(" + ", $more,)?
            " AS found FROM digest d) AS counted WHERE open <> found LIMIT ?1"
        )
    };
}
pub const PG_WRONG_OPEN: &str = wrong_open!();
/// What was settled in the tail is in the index; and only windows have a tail.
pub const LITE_WRONG_OPEN: &str =
    wrong_open!(tail!("count(*) FILTER (WHERE digest_no IS NULL)", "w.no = d.no AND w.state IN (0, 1)"));
pub const TWO_WINDOWS: &str = "SELECT mailbox_no, count(*) FROM digest WHERE state IN (0, 1) \
     GROUP BY mailbox_no HAVING count(*) > 1 LIMIT ?1";
pub const DOUBTS_ELSEWHERE: &str = "SELECT i.event_no, i.mailbox_no, d.no, d.state FROM placed_item i JOIN digest d \
     ON d.no = i.digest_no WHERE i.state = 1 AND d.state NOT IN (5, 6) LIMIT ?1";
pub const DELIVERED_BY_NOTHING: &str = "SELECT i.event_no, i.mailbox_no, i.digest_no FROM item i WHERE i.state = 2 \
     AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.digest_no = i.digest_no AND a.outcome = 2 \
     AND a.n < coalesce(i.left_before, 9223372036854775807)) \
     AND NOT EXISTS (SELECT 1 FROM relisted r JOIN attempt a ON a.digest_no = r.digest_no AND a.outcome = 2 \
     AND a.n < coalesce(r.left_before, 9223372036854775807) \
     WHERE r.event_no = i.event_no AND r.mailbox_no = i.mailbox_no) LIMIT ?1";
pub const EMPTY_DIGESTS: &str = "SELECT no, state FROM digest WHERE open <= 0 AND state IN (0, 1, 4, 5) LIMIT ?1";

pub const SUPPRESSIONS: &str = "SELECT address, reason, since FROM suppression ORDER BY address LIMIT ?1 OFFSET ?2";
