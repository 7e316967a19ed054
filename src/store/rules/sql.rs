//! Every statement that the worker runs, by name, in the words that both databases know. States and reasons are the
//! numbers of `model.rs`.
//!
//! What stands in `/*pg: … */` is said to PostgreSQL alone: there transactions run side by side, so what is read to be
//! changed is locked as it is read. A mailbox's row is the lock of all its digests and their items, and is taken first.

mod many;
mod postgres;
mod sqlite;
mod upkeep;
pub use many::*;
pub use postgres::*;
pub use sqlite::*;
pub use upkeep::*;

pub const META: &str = "SELECT store_id, next_event, next_digest, next_letter, mails_sent FROM meta";
pub const SAVE_META: &str = "UPDATE meta SET next_event = ?1, next_digest = ?2, next_letter = ?3, mails_sent = ?4";

// ---- events and subjects
/// Somebody asks again with the very same text after it stopped counting as a copy: the older one steps aside.
pub const RENAME_EVENT: &str = "UPDATE event SET key = ?2, id = ?3 WHERE no = ?1";
pub const LINK_EVENT: &str = "UPDATE event SET prev = ?2, prev2 = ?3 WHERE no = ?1";
pub const EVENT_MARK: &str = "SELECT ver, effect, topic, topic2, date FROM event WHERE no = ?1";
pub const EVENT_TIE: &str = "SELECT id, source FROM event WHERE no = ?1";
pub const EVENT_CHAIN: &str = "SELECT effect, topic, prev, prev2, ver, date FROM event WHERE no = ?1";
pub const EVENT_DATA: &str = "SELECT data FROM event WHERE no = ?1";
pub const CLOSING: &str = "SELECT no, ver, data FROM event WHERE no = ?1";
pub const EVENT_TIMES: &str = "SELECT deadline, ver FROM event WHERE no = ?1";

pub const SUBJECT: &str = "SELECT head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, before_date, \
     closer_ver, closer_no, lone FROM subject WHERE topic = ?1 /*pg: FOR UPDATE*/";

/// Whoever has an item of event ?2 has it as their own of this topic: nobody has one yet.
pub const STAND_ALL: &str = "INSERT INTO standing (topic, recipient, own_ver, own_no) SELECT DISTINCT /*pg: CAST(*/?1/*pg: AS bytea)*/, \
     m.recipient, e.ver, e.no FROM event e CROSS JOIN item i ON i.event_no = e.no CROSS JOIN mailbox m ON m.no = i.mailbox_no \
     WHERE e.no = ?2 ON CONFLICT (topic, recipient) DO UPDATE SET own_ver = excluded.own_ver, own_no = excluded.own_no";
pub const STANDING: &str = "SELECT own_ver, own_no, told_ver FROM standing WHERE topic = ?1 AND recipient = ?2";
pub const SAVE_OWN: &str = "INSERT INTO standing (topic, recipient, own_ver, own_no) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (topic, recipient) DO UPDATE SET own_ver = excluded.own_ver, own_no = excluded.own_no";
pub const SAVE_TOLD: &str = "INSERT INTO standing (topic, recipient, told_ver) VALUES (?1, ?2, ?3) \
     ON CONFLICT (topic, recipient) DO UPDATE SET told_ver = CASE WHEN \
     standing.told_ver < excluded.told_ver THEN standing.told_ver ELSE excluded.told_ver END";
pub const SET_TOLD: &str = "UPDATE standing SET told_ver = ?3 WHERE topic = ?1 AND recipient = ?2";
pub const TOLD: &str = "SELECT recipient FROM standing WHERE topic = ?1 AND told_ver < ?2 ORDER BY recipient";
pub const DROP_STANDING: &str = "DELETE FROM standing WHERE topic = ?1";

pub const ASKED: &str = "SELECT names FROM asked WHERE event_no = ?1 AND route = ?2";
pub const ADD_ASKED: &str = "INSERT INTO asked (event_no, route, names, except_for) VALUES (?1, ?2, ?3, ?4)";

// ---- mailboxes and digests
pub const MAILBOX_BY_NAME: &str = "SELECT no, zone, previous_at FROM mailbox WHERE recipient = ?1 AND route = ?2 \
     /*pg: FOR UPDATE*/";
pub const MAILBOX: &str = "SELECT recipient, route, zone, previous_at FROM mailbox WHERE no = ?1 /*pg: FOR UPDATE*/";
/// If another replica has made it meanwhile: that one.
pub const ADD_MAILBOX: &str = "INSERT INTO mailbox (recipient, route, zone) VALUES (?1, ?2, ?3) \
     ON CONFLICT (recipient, route) DO UPDATE SET zone = coalesce(excluded.zone, mailbox.zone) \
     RETURNING no, zone, previous_at";
/// Of a route that knows it: the one that was mailed last.
pub const ZONE_OF: &str = "SELECT zone FROM mailbox WHERE recipient = ?1 AND route <> ?2 AND zone IS NOT NULL \
     ORDER BY previous_at DESC NULLS LAST";
pub const SAVE_ZONE: &str = "UPDATE mailbox SET zone = ?2 WHERE no = ?1";
pub const SAVE_PREVIOUS: &str = "UPDATE mailbox SET previous_at = ?2 WHERE no = ?1";
/// Sums of sums: a join would be planned, while the tables are empty, as a walk over all open digests.
pub const OPEN_OF_RECIPIENT: &str = "SELECT CAST(coalesce(sum((SELECT coalesce(sum(open), 0) FROM digest WHERE \
     mailbox_no = m.no AND state IN (0, 1)) + (SELECT coalesce(sum(open), 0) FROM digest WHERE mailbox_no = m.no AND \
     state IN (2, 3, 4, 5))), 0) AS bigint) FROM mailbox m WHERE m.recipient = ?1";
/// And which of them takes items, and whether it leaves by itself and no call has listed it.
pub const OPEN_OF_MAILBOX: &str = "SELECT no, open, 1, state = 0 FROM digest WHERE mailbox_no = ?1 AND state IN (0, 1) UNION ALL \
     SELECT no, open, 0, state IN (2, 4) AND attempts = 0 FROM digest WHERE mailbox_no = ?1 AND state IN (2, 3, 4, 5)";

pub const DIGEST: &str = "SELECT no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, \
     until, attempts, waited_us, address, opened_at, closed_at, lane FROM digest WHERE no = ?1";
pub const DIGEST_TO_CHANGE: &str = "SELECT d.no, d.mailbox_no, d.state, d.priority, d.due_at, d.open, d.first_at, d.last_at, \
     d.deadline, d.token, d.until, d.attempts, d.waited_us, d.address, d.opened_at, d.closed_at, d.lane, /*pg: NULL AS*/ tail, /*pg: CAST(0 AS bigint) AS*/ tail_items \
     FROM /*pg: mailbox m JOIN*/ digest d /*pg: ON m.no = d.mailbox_no*/ WHERE d.no = ?1 /*pg: FOR UPDATE OF m, d*/";
pub const WINDOW: &str = "SELECT no FROM digest WHERE mailbox_no = ?1 AND state IN (0, 1)";
/// A claim passes over what another transaction has in its hands; it is there the next time. What it locks are mailboxes: a
/// digest may have changed just before, so that it is looked at again under the lock.
macro_rules! claimable {
    ($which:literal, $order:literal) => {
        claimable!("d.no", $which, $order)
    };
    ($columns:literal, $which:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM /*pg: mailbox m JOIN*/ digest d /*pg: ON m.no = d.mailbox_no*/ WHERE ",
            $which,
            $order,
            " /*pg: FOR UPDATE OF m, d SKIP LOCKED*/"
        )
    };
}
pub const DUE: &str = claimable!(
    "d.state IN (0, 4) AND d.priority = ?1 AND d.due_at <= ?2 AND d.due_at >= ?4",
    " ORDER BY d.due_at LIMIT ?3"
);
/// Lanes behind lane ?2 (a lane is a domain), how many were looked at with each, and whether something of it is due: each
/// costs one look at the index, however much waits in it.
pub const LANES: &str = "WITH RECURSIVE walk(lane, n) AS (SELECT (SELECT min(lane) FROM digest WHERE state IN (0, 4) \
     AND lane <> 0 AND priority = ?1 AND lane > ?2), 1 UNION ALL SELECT (SELECT min(d.lane) FROM digest d \
     WHERE d.state IN (0, 4) AND d.lane <> 0 AND d.priority = ?1 AND d.lane > walk.lane), n + 1 FROM walk \
     WHERE walk.lane IS NOT NULL AND n < ?4) SELECT lane, n, (SELECT min(d.due_at) FROM digest d WHERE d.state IN (0, 4) \
     AND d.lane <> 0 AND d.priority = ?1 AND d.lane = walk.lane) <= ?3 FROM walk WHERE lane IS NOT NULL ORDER BY n";
pub const DUE_OF_LANE: &str = "SELECT no FROM digest WHERE state IN (0, 4) AND lane <> 0 AND priority = ?1 AND lane = ?2 \
     AND due_at <= ?3 ORDER BY due_at LIMIT ?4";
/// `run --until-idle`: windows, and what was released and never called, whatever their time; retries when their wait is over.
pub const ANY_DUE: &str = claimable!(
    "d.state IN (0, 4) AND d.priority = ?1 AND (d.state = 0 OR d.attempts = 0 OR d.due_at <= ?2)",
    " ORDER BY d.due_at LIMIT ?3"
);
/// While some routes are paused: what is due, and whether its route is paused. Only looked at: most of it stays. With one due
/// time a walk goes on by number (a comparison of pairs would read all of that time again), then by due time; or it goes back
/// from what became due last.
macro_rules! due_or_paused {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT d.no, d.due_at, EXISTS (SELECT 1 FROM mailbox b JOIN pause p ON p.route = b.route \
             WHERE b.no = d.mailbox_no) FROM digest d WHERE ",
            $which,
            $order
        )
    };
}
pub const DUE_AT: &str =
    due_or_paused!("d.state IN (0, 4) AND d.priority = ?1 AND d.due_at = ?2 AND d.no > ?3", " ORDER BY d.no LIMIT ?4");
pub const DUE_AFTER: &str = due_or_paused!(
    "d.state IN (0, 4) AND d.priority = ?1 AND d.due_at > ?2 AND d.due_at <= ?3",
    " ORDER BY d.due_at, d.no LIMIT ?4"
);
pub const LAST_DUE: &str = due_or_paused!(
    "d.state IN (0, 4) AND d.priority = ?1 AND d.due_at <= ?2",
    " ORDER BY d.due_at DESC, d.no DESC LIMIT ?3"
);
pub const ANY_DUE_UNPAUSED: &str = claimable!(
    "d.state IN (0, 4) AND d.priority = ?1 AND (d.state = 0 OR d.attempts = 0 OR d.due_at <= ?2) \
     AND NOT EXISTS (SELECT 1 FROM mailbox b JOIN pause p ON p.route = b.route WHERE b.no = d.mailbox_no)",
    " ORDER BY d.due_at LIMIT ?3"
);
/// The same, only looked at; and the first retry after that.
macro_rules! left {
    ($what:literal, $which:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM digest d WHERE d.state IN (0, 4) AND d.priority = ?1 AND ",
            $which,
            " AND NOT EXISTS (SELECT 1 FROM pause WHERE route = '*') \
             AND NOT EXISTS (SELECT 1 FROM mailbox b JOIN pause p ON p.route = b.route WHERE b.no = d.mailbox_no)"
        )
    };
}
pub const LEFT_DUE: &str = concat!(left!("1", "(d.state = 0 OR d.attempts = 0 OR d.due_at <= ?2)"), " LIMIT 1");
pub const LEFT_RETRY: &str = left!("min(d.due_at)", "d.state = 4 AND d.attempts > 0 AND d.due_at > ?2");
pub const NEXT_DUE: &str = "SELECT min(due_at) FROM digest WHERE state IN (0, 4) AND priority = ?1 AND due_at >= ?2";
pub const NEXT_RETRY: &str =
    "SELECT min(due_at) FROM digest WHERE state IN (0, 4) AND priority = ?1 AND state = 4 AND attempts > 0";
pub const ANY_WINDOW: &str = "SELECT 1 FROM digest WHERE state IN (0, 4) AND priority = ?1 AND attempts = 0 LIMIT 1";
/// Only looked up: subjects are locked before mailboxes, and which they are is known by the digests.
pub const ENDED: &str =
    "SELECT no FROM digest WHERE state IN (2, 3, 5) AND until <= ?1 AND until >= ?3 ORDER BY until LIMIT ?2";
pub const DOUBTS: &str = "SELECT no FROM digest WHERE state IN (2, 3, 5) AND state = 5 ORDER BY until LIMIT ?1";
/// Only looked at: which of them were given too long.
pub const DOUBTS_AND_ROUTES: &str = "SELECT d.no, d.until, m.route FROM digest d JOIN mailbox m ON m.no = d.mailbox_no \
     WHERE d.state IN (2, 3, 5) AND d.state = 5";
pub const NEXT_UNTIL: &str = "SELECT min(until) FROM digest WHERE state IN (2, 3, 5) AND until >= ?1";
pub const BUSY: &str = "SELECT no, state FROM digest WHERE state IN (2, 3, 5) LIMIT ?1";
pub const HELD_BY_OTHERS: &str = "SELECT no FROM digest WHERE state IN (2, 3, 5) AND state IN (2, 3)";
pub const SHORTEN_WAITS: &str = "UPDATE digest SET due_at = ?2 WHERE state IN (0, 4) AND priority = ?1 AND due_at > ?2 AND state = 4 AND attempts > 0";
/// Never called, and due later than ?2: given back or released by a clock that was ahead, or the rest of what was released.
pub const NOT_CALLED_AFTER: &str = "SELECT no FROM digest WHERE state IN (0, 4) AND priority = ?1 AND due_at > ?2 AND state = 4 \
     AND attempts = 0 LIMIT ?3";
/// By mailbox, so that the partial index bounds the walk, however many digests are closed.
pub const WINDOWS_AFTER: &str = "SELECT mailbox_no, no FROM digest WHERE state IN (0, 1) AND mailbox_no > ?1 \
     ORDER BY mailbox_no LIMIT ?2";

// ---- items
pub const SETTLE_ITEM: &str = "UPDATE item SET state = ?3, reason = ?4, left_before = ?5, settled_at = ?6 \
     WHERE event_no = ?1 AND mailbox_no = ?2";
pub const MOVE_ITEM: &str = "UPDATE item SET digest_no = ?3 WHERE event_no = ?1 AND mailbox_no = ?2";
pub const REOPEN_ITEM: &str = "UPDATE item SET state = 0, reason = NULL, left_before = NULL, settled_at = NULL, \
     forwarded_at = NULL, forward_error = NULL, digest_no = ?3 WHERE event_no = ?1 AND mailbox_no = ?2";
pub const ITEM: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item \
     WHERE event_no = ?1 AND mailbox_no = ?2";
pub const OPEN_OF_EVENT: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item \
     WHERE event_no = ?1 AND state IN (0, 1)";
pub const ITEMS_OF_PERSON: &str = "SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, i.left_before FROM mailbox m \
     CROSS JOIN item i ON i.event_no = ?1 AND i.mailbox_no = m.no WHERE m.recipient = ?2";
pub const OPEN_ITEMS: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item \
     WHERE digest_no = ?1 AND state IN (0, 1)";
/// What somebody else has stays in the window.
pub const URGENT_ITEMS: &str = "SELECT event_no, mailbox_no, urgency FROM item WHERE digest_no = ?1 AND state = 0 \
     ORDER BY urgency LIMIT ?2 /*pg: FOR UPDATE SKIP LOCKED*/";
/// Of those that are as urgent as each other, the first ?3 by rank. (All of them are read; it is asked only if they are more than fit
/// into the mail.)
pub const URGENT_BY_RANK: &str = "SELECT i.event_no FROM item i CROSS JOIN event e ON e.no = i.event_no WHERE i.digest_no = ?1 \
     AND i.state = 0 AND i.urgency = ?2 ORDER BY e.ver, e.id, e.source LIMIT ?3 /*pg: FOR UPDATE OF i SKIP LOCKED*/";
pub const FIRST_URGENCY: &str = "SELECT min(urgency) FROM item WHERE digest_no = ?1 AND state = 0";
/// What attempt ?2 of digest ?1 listed.
pub const LISTED: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item WHERE digest_no = ?1 \
     AND (left_before IS NULL OR left_before > ?2) UNION SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, \
     i.left_before FROM relisted r CROSS JOIN item i ON i.event_no = r.event_no AND i.mailbox_no = r.mailbox_no \
     WHERE r.digest_no = ?1 AND (r.left_before IS NULL OR r.left_before > ?2)";
/// Outcomes of the attempts that listed an item.
pub const TRIES_OF_ITEM: &str = "SELECT a.digest_no, a.n, a.outcome FROM attempt a WHERE a.digest_no = ?3 \
     AND a.n < coalesce(?4, 9223372036854775807) UNION ALL SELECT a.digest_no, a.n, a.outcome FROM relisted r \
     JOIN attempt a ON a.digest_no = r.digest_no AND a.n < coalesce(r.left_before, 9223372036854775807) \
     WHERE r.event_no = ?1 AND r.mailbox_no = ?2";
pub const ADD_RELISTED: &str = "INSERT INTO relisted (digest_no, event_no, mailbox_no, left_before) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO NOTHING";
pub const AUDIENCES: &str = "SELECT i.event_no, a.names, a.except_for FROM item i JOIN asked a ON a.event_no = i.event_no \
     AND a.route = ?2 WHERE i.digest_no = ?1 AND i.state = 0";
pub const CONTENTS: &str = "SELECT e.no, e.source, e.id, e.kind, e.ver, e.deadline, e.subject_key, e.data FROM item i \
     JOIN event e ON e.no = i.event_no WHERE i.digest_no = ?1 AND i.state = 0 ORDER BY i.urgency, e.ver, e.id, e.source";
pub const EXPIRED_ITEMS: &str = "SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, i.left_before FROM item i \
     JOIN event e ON e.no = i.event_no WHERE i.digest_no = ?1 AND i.state = 0 AND e.expiry <= ?2";

// ---- attempts
pub const ADD_ATTEMPT: &str = "INSERT INTO attempt (digest_no, n, begun_at, outcome, free) VALUES (?1, ?2, ?3, 0, 0)";
pub const ATTEMPT: &str = "SELECT outcome FROM attempt WHERE digest_no = ?1 AND n = ?2";
pub const SETTLE_ATTEMPT: &str = "UPDATE attempt SET outcome = ?3, free = ?4, settled_at = ?5, \
     message_id = coalesce(?6, message_id), detail = ?7 WHERE digest_no = ?1 AND n = ?2";
pub const NOTE_ATTEMPT: &str = "UPDATE attempt SET detail = ?3 WHERE digest_no = ?1 AND n = ?2";
pub const LAST_BEGUN: &str = "SELECT max(begun_at) FROM attempt WHERE digest_no = ?1";
pub const FIRST_BEGUN: &str = "SELECT digest_no, begun_at FROM attempt WHERE digest_no = ?1 AND n = 1";
pub const BURNED: &str = "SELECT count(*) FROM attempt WHERE digest_no = ?1 AND free = 0";

// ---- the account's quota
pub const QUOTA: &str = "SELECT per_second, per_day, burst, urgent_reserve, external, tat, factor, slowed_at, full_until, \
     asked_at FROM quota WHERE account = ?1";
pub const QUOTA_TO_CHANGE: &str = "SELECT per_second, per_day, burst, urgent_reserve, external, tat, factor, slowed_at, \
     full_until, asked_at FROM quota WHERE account = ?1 /*pg: FOR UPDATE*/";
pub const SAVE_TERMS: &str = "INSERT INTO quota (account, per_second, per_day, burst, urgent_reserve, external, asked_at, tat, \
     factor, slowed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1.0, ?8) ON CONFLICT (account) DO UPDATE SET \
     per_second = excluded.per_second, per_day = excluded.per_day, burst = excluded.burst, \
     urgent_reserve = excluded.urgent_reserve, external = excluded.external, asked_at = excluded.asked_at";
pub const SAVE_QUOTA: &str =
    "UPDATE quota SET tat = ?2, factor = ?3, slowed_at = ?4, full_until = ?5 WHERE account = ?1";
pub const DAY_HAS_ROOM: &str = "UPDATE quota SET full_until = NULL WHERE account = ?1";
pub const USE_SHARES: &str = "INSERT INTO quota_use (account, minute, n) VALUES (?1, ?2, ?3) \
     ON CONFLICT (account, minute) DO UPDATE SET n = quota_use.n + excluded.n";
pub const USED_SHARES: &str =
    "SELECT CAST(coalesce(sum(n), 0) AS bigint) FROM quota_use WHERE account = ?1 AND minute >= ?2";
pub const FORGET_SHARES: &str = "DELETE FROM quota_use WHERE minute < ?1";
/// Every lease and every call holds a share of the day.
pub const RESERVED: &str = "SELECT count(*) FROM digest WHERE state IN (2, 3, 5) AND state < 5 AND until >= ?1";

// ---- ledger, gates, dead letters
pub const ADD_DELTA: &str = "INSERT INTO ledger_delta (state, n) VALUES (?1, ?2)";
pub const COUNTS: &str = "SELECT state, CAST(sum(n) AS bigint) FROM (SELECT state, n FROM ledger_total UNION ALL \
     SELECT state, n FROM ledger_delta) AS counted GROUP BY state";
pub const ROLL_UP: &str = "INSERT INTO ledger_total (state, n) SELECT state, sum(n) FROM ledger_delta WHERE true GROUP BY state \
     ON CONFLICT (state) DO UPDATE SET n = ledger_total.n + excluded.n";
pub const ADD_PURGED: &str = "INSERT INTO ledger_total (state, n, purged) VALUES (?1, 0, ?2) \
     ON CONFLICT (state) DO UPDATE SET purged = ledger_total.purged + excluded.purged";
pub const PURGED: &str = "SELECT state, purged FROM ledger_total";
pub const CLEAR_DELTAS: &str = "DELETE FROM ledger_delta";
pub const PAUSED: &str = "SELECT route FROM pause";
pub const IS_SUPPRESSED: &str = "SELECT 1 FROM suppression WHERE address = ?1";
pub const ADD_LETTER: &str = "INSERT INTO dead_letter (no, key, source, position, reason, detail, first_at, last_at, count, \
     bytes, sha256, headers, body, broker_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1, ?8, ?9, ?10, ?11, ?12) \
     ON CONFLICT (key) DO UPDATE SET count = dead_letter.count + 1, last_at = excluded.last_at, position = excluded.position, \
     reason = excluded.reason, detail = excluded.detail, broker_id = excluded.broker_id, discarded_at = NULL";
/// Not `IS NULL`: the index of what is not discarded would be walked through for one number.
pub const DISCARD_LETTER: &str =
    "UPDATE dead_letter SET discarded_at = ?2 WHERE no = ?1 AND coalesce(discarded_at, 0) = 0";
pub const SUPPRESS: &str =
    "INSERT INTO suppression (address, reason, since) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
pub const UNSUPPRESS: &str = "DELETE FROM suppression WHERE address = ?1";
pub const PAUSE: &str = "INSERT INTO pause (route, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
pub const RESUME: &str = "DELETE FROM pause WHERE route = ?1";
pub const IS_HELD: &str = "SELECT 1 FROM digest WHERE no = ?1 AND state = 1";
pub const HELD: &str = "SELECT d.no FROM digest d JOIN mailbox m ON m.no = d.mailbox_no WHERE d.state = 1 \
     AND (CAST(?1 AS text) IS NULL OR m.route = ?1) ORDER BY d.no LIMIT ?2";

// ---- forwarding
/// Refused inputs that nobody has confirmed, oldest first: at most ?1.
pub const UNFORWARDED_INPUTS: &str = "SELECT no, source, position, reason, detail, first_at, count, bytes, broker_id, sha256, \
     headers, body FROM dead_letter WHERE discarded_at IS NULL AND forwarded_at IS NULL AND forward_error IS NULL \
     ORDER BY no LIMIT ?1";
/// Dead items likewise, with what the last attempt of their digest said.
pub const UNFORWARDED_ITEMS: &str = "SELECT i.event_no, i.mailbox_no, i.reason, i.settled_at, e.source, e.id, e.kind, e.ver, \
     e.received_at, e.subject_key, e.data, m.recipient, m.route, (SELECT a.detail FROM attempt a \
     WHERE a.digest_no = i.digest_no ORDER BY a.n DESC LIMIT 1) \
     FROM item i CROSS JOIN event e ON e.no = i.event_no CROSS JOIN mailbox m ON m.no = i.mailbox_no \
     WHERE i.state = 5 AND i.forwarded_at IS NULL AND i.forward_error IS NULL ORDER BY i.event_no, i.mailbox_no LIMIT ?1";
pub const FORWARDED_INPUT: &str = "UPDATE dead_letter SET forwarded_at = ?2, forward_error = ?3 WHERE no = ?1";
/// One that was replayed meanwhile is another death when it dies again.
pub const FORWARDED_ITEM: &str = "UPDATE item SET forwarded_at = ?3, forward_error = ?4 WHERE event_no = ?1 \
     AND mailbox_no = ?2 AND state = 5";
pub const COUNT_UNFORWARDED: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM dead_letter WHERE discarded_at IS NULL \
     AND forwarded_at IS NULL AND forward_error IS NULL LIMIT ?1) AS inputs) + (SELECT count(*) FROM (SELECT 1 FROM item \
     WHERE state = 5 AND forwarded_at IS NULL AND forward_error IS NULL LIMIT ?1) AS items)";

// ---- how the worker's parts are
/// What was not told again for a while is gone: its worker ended, or does not have it any more.
pub const CLEAR_CONDITIONS: &str = "DELETE FROM condition WHERE at < ?1";
pub const ADD_CONDITION: &str = "INSERT INTO condition (part, name, state, detail, lag, since, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (part, name) DO UPDATE SET state = excluded.state, detail = excluded.detail, lag = excluded.lag, \
     since = excluded.since, at = excluded.at";
pub const CONDITIONS: &str = "SELECT name, state, detail, lag, since, at FROM condition WHERE part = ?1 ORDER BY name";

/// The turn to ask the account: free if an answer did not come in time (before ?3), or is old (before ?4).
pub const TAKE_TURN: &str = "INSERT INTO condition (part, name, state, detail, since, at) VALUES ('account', ?1, 'asking', '', ?2, ?2) \
     ON CONFLICT (part, name) DO UPDATE SET state = excluded.state, since = excluded.since, at = excluded.at \
     WHERE condition.since > ?5 OR condition.since <= CASE condition.state WHEN 'asking' THEN CAST(?3 AS bigint) ELSE CAST(?4 AS bigint) END";
pub const TURN: &str = "SELECT state, since FROM condition WHERE part = 'account' AND name = ?1";
pub const END_TURN: &str =
    "UPDATE condition SET state = 'ready', at = ?2 WHERE part = 'account' AND name = ?1 AND since = ?3";

/// The turn to plan all windows as ?1: free if who has it said nothing since ?3, or was done before ?4, or if somebody planned
/// otherwise since it was begun, or if that was after ?5.
pub const TAKE_PLANNING: &str = "INSERT INTO condition (part, name, state, detail, since, at) VALUES ('planning', ?1, 'planning', '', ?2, ?2) \
     ON CONFLICT (part, name) DO UPDATE SET state = excluded.state, since = excluded.since, at = excluded.at \
     WHERE condition.at > ?5 OR condition.at < CASE condition.state WHEN 'planning' THEN CAST(?3 AS bigint) ELSE CAST(?4 AS bigint) END \
     OR EXISTS (SELECT 1 FROM condition AS other WHERE other.part = 'planning' AND other.name <> ?1 AND other.at >= condition.since)";
pub const PLANNING: &str = "SELECT state, since FROM condition WHERE part = 'planning' AND name = ?1";
pub const KEEP_PLANNING: &str =
    "UPDATE condition SET state = ?3, at = ?2 WHERE part = 'planning' AND name = ?1 AND since = ?4";

/// What runs for every event, mail or turn: each must find its rows by an index (`tests/store`).
pub const HOT: &[&str] = &[
    EVENT_CHAIN,
    SUBJECT,
    STANDING,
    TOLD,
    MAILBOX_BY_NAME,
    OPEN_OF_RECIPIENT,
    OPEN_OF_MAILBOX,
    DIGEST,
    WINDOW,
    DUE,
    LANES,
    DUE_OF_LANE,
    DUE_AT,
    DUE_AFTER,
    LAST_DUE,
    OLDEST_OR_PAUSED,
    NEWEST_OR_PAUSED,
    NEXT_DUE,
    NEXT_RETRY,
    ENDED,
    DOUBTS,
    NEXT_UNTIL,
    ITEM,
    OPEN_OF_EVENT,
    ITEMS_OF_PERSON,
    OPEN_ITEMS,
    URGENT_ITEMS,
    FIRST_URGENCY,
    LISTED,
    TRIES_OF_ITEM,
    AUDIENCES,
    EXPIRED_ITEMS,
    ATTEMPT,
    BURNED,
    IS_SUPPRESSED,
    QUOTA,
    USED_SHARES,
    RESERVED,
    HELD,
    EVENTS_AFTER,
    OPEN_OR_YOUNG,
    DIGESTS_AFTER,
    IS_LISTED,
    DROP_ITEMS,
    DROP_RELISTED,
    LAST_BEGUN,
    FIRST_BEGUN,
    DROP_ATTEMPTS,
    DROP_LETTERS,
    DROP_MAILBOXES,
    UNFORWARDED_INPUTS,
    UNFORWARDED_ITEMS,
    FORWARDED_INPUT,
    FORWARDED_ITEM,
    ZONE_OF,
    WINDOWS_AFTER,
    SHORTEN_WAITS,
    NOT_CALLED_AFTER,
];
