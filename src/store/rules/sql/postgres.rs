//! Statements of PostgreSQL alone: counters are sequences, mails are counted by rows, between two statements others may
//! write, and one statement takes any number of rows.

use super::*;

pub const PG_META: &str =
    "SELECT store_id, 0, 0, 0, CAST(mails_sent + (SELECT coalesce(sum(n), 0) FROM mail_delta) AS bigint) FROM meta";
pub const ADD_MAILS: &str = "INSERT INTO mail_delta (n) VALUES (?1)";
pub const EVENT_BLOCK: &str = "SELECT nextval('event_no')";
pub const DIGEST_NUMBERS: &str = "SELECT nextval('digest_no') FROM generate_series(1, CAST(?1 AS bigint))";
pub const LETTER_NUMBER: &str = "SELECT nextval('letter_no')";
/// One statement: what is added while it runs stays for the next one.
pub const PG_ROLL_UP: &str = "WITH gone AS (DELETE FROM ledger_delta RETURNING state, n) INSERT INTO ledger_total (state, n) \
     SELECT state, sum(n) FROM gone GROUP BY state ORDER BY state \
     ON CONFLICT (state) DO UPDATE SET n = ledger_total.n + excluded.n";
pub const PG_ROLL_UP_MAILS: &str = "WITH gone AS (DELETE FROM mail_delta RETURNING n) UPDATE meta SET mails_sent = mails_sent \
     + (SELECT coalesce(sum(n), 0) FROM gone)";
/// These, and those of what digests list or have listed: before mailboxes, by topic. What left before the first attempt of its
/// digest was told to nobody.
pub const PG_SUBJECTS_OF_DIGESTS: &str = "SELECT head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, before_date, closer_ver, \
     closer_no, lone, topic FROM subject WHERE topic = ANY(CAST(?2 AS bytea[]) || ARRAY(SELECT e.topic FROM item i JOIN event e ON e.no = \
     i.event_no WHERE i.digest_no = ANY(CAST(?1 AS bigint[])) AND e.topic IS NOT NULL AND coalesce(i.left_before, \
     2) > 1 UNION SELECT e.topic FROM relisted r JOIN event e ON e.no = r.event_no WHERE r.digest_no = \
     ANY(CAST(?1 AS bigint[])) AND e.topic IS NOT NULL)) ORDER BY topic FOR UPDATE";
/// These, and those of digests.
pub const PG_MAILBOXES_OF_DIGESTS: &str = "SELECT no, recipient, route, zone, previous_at FROM mailbox WHERE no = ANY(CAST(?2 AS bigint[]) || \
     ARRAY(SELECT mailbox_no FROM digest WHERE no = ANY(CAST(?1 AS bigint[])))) ORDER BY no FOR UPDATE";
/// Those of these that nobody has.
pub const PG_FREE_MAILBOXES: &str = "SELECT no, recipient, route, zone, previous_at FROM mailbox WHERE no = ANY(CAST(?1 AS bigint[])) \
     ORDER BY no FOR UPDATE SKIP LOCKED";
/// Digests alone, whatever else their mailboxes have.
pub const PG_DIGESTS_ALONE: &str = "SELECT no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, until, attempts, \
     waited_us, address, opened_at, closed_at, lane FROM digest WHERE no = ANY(CAST(?1 AS bigint[]))";
/// The same with their mailboxes: a claim has locked both.
pub const PG_CLAIMED: &str = "SELECT d.no, d.mailbox_no, d.state, d.priority, d.due_at, d.open, d.first_at, d.last_at, d.deadline, d.token, \
     d.until, d.attempts, d.waited_us, d.address, d.opened_at, d.closed_at, d.lane, m.recipient, m.route, m.zone, m.previous_at \
     FROM digest d JOIN mailbox m ON m.no = d.mailbox_no WHERE d.no = ANY(CAST(?1 AS bigint[]))";
/// As [`WINDOWS_AFTER`], with all that a plan depends on.
pub const PG_WINDOWS_AFTER: &str = "SELECT d.no, d.mailbox_no, d.state, d.priority, d.due_at, d.open, d.first_at, d.last_at, d.deadline, \
     d.token, d.until, d.attempts, d.waited_us, d.address, d.opened_at, d.closed_at, d.lane, m.recipient, m.route, m.zone, \
     m.previous_at FROM digest d JOIN mailbox m ON m.no = d.mailbox_no WHERE d.state IN (0, 1) AND d.mailbox_no > ?1 \
     ORDER BY d.mailbox_no LIMIT ?2";
pub const PG_ENDS_SOON: &str = "SELECT no FROM digest WHERE state IN (2, 3, 5) AND state = 3 AND until > ?1 AND until <= ?2 \
     ORDER BY until LIMIT ?3";
/// Of these leases: those that are not over. (Each by its number, however many are busy.)
pub const PG_UNDER_WAY: &str = "SELECT d.no, d.state FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS bigint[])) AS u(no, token) \
     JOIN digest d ON d.no = u.no AND d.token = u.token WHERE d.state IN (2, 3, 5)";
/// What an answer changes, as far as a mailbox does not lock it already: who makes an index, or has an item's row, keeps answers
/// out as well.
pub const PG_HOLD_TABLES: &str =
    "LOCK TABLE item, attempt, digest, standing, mail_delta, ledger_delta, quota_use IN ROW EXCLUSIVE MODE";
pub const PG_HOLD_DIGESTS: &str = "SELECT no FROM digest WHERE no = ANY(CAST(?1 AS bigint[])) ORDER BY no FOR UPDATE";
pub const PG_HOLD_ITEMS: &str = "SELECT event_no FROM item WHERE digest_no = ANY(CAST(?1 AS bigint[])) \
     ORDER BY event_no, mailbox_no FOR UPDATE";
pub const PG_HOLD_RELISTED: &str = "SELECT i.event_no FROM relisted r JOIN item i ON i.event_no = r.event_no AND \
     i.mailbox_no = r.mailbox_no WHERE r.digest_no = ANY(CAST(?1 AS bigint[])) ORDER BY i.event_no, i.mailbox_no FOR UPDATE OF i";
pub const PG_HOLD_ATTEMPTS: &str =
    "SELECT n FROM attempt WHERE digest_no = ANY(CAST(?1 AS bigint[])) ORDER BY digest_no, n FOR UPDATE";
/// Of those to whom these digests' items go, in the topics of their events.
pub const PG_HOLD_STANDINGS: &str = "SELECT s.told_ver FROM item i JOIN event e ON e.no = i.event_no JOIN mailbox m ON \
     m.no = i.mailbox_no JOIN standing s ON s.topic = e.topic AND s.recipient = m.recipient \
     WHERE i.digest_no = ANY(CAST(?1 AS bigint[])) ORDER BY s.topic, s.recipient FOR UPDATE OF s";
/// All digests of mailboxes that are not closed: each once, without a sort.
pub const PG_DIGESTS: &str = "SELECT no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, until, attempts, \
     waited_us, address, opened_at, closed_at, lane FROM digest WHERE mailbox_no = ANY(CAST(?1 AS bigint[])) AND state IN (0, 1) \
     UNION ALL SELECT no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, until, \
     attempts, waited_us, address, opened_at, closed_at, lane FROM digest WHERE mailbox_no = ANY(CAST(?1 AS bigint[])) \
     AND state IN (2, 3, 4, 5)";
pub const PG_ITEMS_OF_DIGESTS: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item WHERE digest_no = ANY(CAST(?1 AS \
     bigint[])) AND coalesce(left_before, 2) > 1 UNION SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, \
     i.left_before FROM relisted r JOIN item i ON i.event_no = r.event_no AND i.mailbox_no = r.mailbox_no WHERE \
     r.digest_no = ANY(CAST(?1 AS bigint[]))";
/// (Two conditions on lists would be tried in all their combinations.)
pub const PG_RELISTED: &str = "SELECT r.digest_no, r.event_no, r.mailbox_no, r.left_before FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS \
     bigint[])) AS u(event_no, mailbox_no) JOIN relisted r ON r.event_no = u.event_no AND r.mailbox_no = u.mailbox_no";
pub const PG_FIRST_BEGUN: &str =
    "SELECT digest_no, begun_at FROM attempt WHERE digest_no = ANY(CAST(?1 AS bigint[])) AND n = 1";
pub const PG_ATTEMPTS: &str = "SELECT digest_no, n, outcome FROM attempt WHERE digest_no = ANY(CAST(?1 AS bigint[]))";
pub const PG_EVENTS: &str = "SELECT no, ver, effect, topic, topic2, date, deadline, expiry FROM event WHERE no = ANY(CAST(?1 AS \
     bigint[]))";
/// What mails would list now, with all that a begin asks of it. Large data is asked for one by one, as all rows of an answer
/// stand in memory together.
pub const PG_CONTENTS: &str = "SELECT e.no, e.source, e.id, e.kind, e.ver, e.deadline, e.subject_key, \
     CASE WHEN octet_length(e.data) <= 16384 THEN e.data END, i.digest_no, i.mailbox_no, \
     i.left_before, e.effect, e.topic, e.topic2, e.date, e.expiry, octet_length(e.data) > 16384 FROM item i JOIN event e ON e.no = i.event_no WHERE \
     i.digest_no = ANY(CAST(?1 AS bigint[])) AND i.state = 0 ORDER BY i.urgency, e.ver, e.id, e.source";
/// Of digests, each with its route.
pub const PG_AUDIENCES: &str = "SELECT i.event_no, a.names, a.except_for, i.digest_no FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS \
     text[])) AS u(digest_no, route) JOIN item i ON i.digest_no = u.digest_no AND i.state = 0 JOIN asked a ON \
     a.event_no = i.event_no AND a.route = u.route";
/// Of events: whom each route asked, as named then ...
pub const PG_ASKED: &str = "SELECT event_no, route, names FROM asked WHERE event_no = ANY(CAST(?1 AS bigint[]))";
/// ... and who has an item of them by which route.
pub const PG_WHO_HAS: &str = "SELECT i.event_no, m.recipient, m.route FROM item i JOIN mailbox m ON m.no = i.mailbox_no \
     WHERE i.event_no = ANY(CAST(?1 AS bigint[]))";
pub const PG_SUPPRESSED: &str = "SELECT address FROM suppression WHERE address = ANY(CAST(?1 AS text[]))";
pub const PG_TOLD: &str = "SELECT topic, recipient, told_ver FROM standing WHERE topic = ANY(CAST(?1 AS bytea[])) AND told_ver IS NOT \
     NULL ORDER BY recipient";
/// How many items each of these events has, and whether all are final and were settled before ?2.
pub const PG_OVER_AND_OLD: &str = "SELECT event_no, count(*), bool_and(state >= 2 AND coalesce(settled_at, 0) < ?2) FROM item \
     WHERE event_no = ANY(CAST(?1 AS bigint[])) GROUP BY event_no";
/// The same by state, of those that nobody has: what a purge is about to delete, nobody changes meanwhile.
pub const PG_LOCK_ITEMS_TO_PURGE: &str = "SELECT event_no, state, count(*), bool_and(state >= 2 AND coalesce(settled_at, 0) < ?2) FROM (SELECT \
     event_no, state, settled_at FROM item WHERE event_no = ANY(CAST(?1 AS bigint[])) FOR UPDATE SKIP LOCKED) AS mine \
     GROUP BY event_no, state";
/// Those of these that nobody has.
pub const PG_LOCK_EVENTS_TO_PURGE: &str =
    "SELECT no FROM event WHERE no = ANY(CAST(?1 AS bigint[])) FOR UPDATE SKIP LOCKED";
pub const PG_EVENTS_TO_PURGE: &str = "SELECT no, ver, received_at, topic, topic2, prev, prev2 FROM event \
     WHERE no = ANY(CAST(?1 AS bigint[]))";
/// Of digests those that no item names and nobody has. (`OFFSET 0`: as in [`DROP_MAILBOXES`].)
pub const PG_UNLISTED: &str = "SELECT d.no FROM digest d WHERE d.no = ANY(CAST(?1 AS bigint[])) AND NOT EXISTS (SELECT 1 FROM item \
     WHERE digest_no = d.no OFFSET 0) AND NOT EXISTS (SELECT 1 FROM relisted WHERE digest_no = d.no OFFSET 0) FOR UPDATE SKIP LOCKED";
/// Those of these that nobody has; and those that are there.
pub const PG_FREE_SUBJECTS: &str = "SELECT head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, before_date, \
     closer_ver, closer_no, lone, topic FROM subject WHERE topic = ANY(CAST(?1 AS bytea[])) ORDER BY topic FOR UPDATE SKIP LOCKED";
pub const PG_KNOWN_SUBJECTS: &str = "SELECT topic FROM subject WHERE topic = ANY(CAST(?1 AS bytea[]))";
/// Who changes the open items of an event, or those of a person, has their mailboxes.
pub const PG_LOCK_MAILBOXES_OF_EVENT: &str = "SELECT no FROM mailbox WHERE no = ANY(ARRAY(SELECT mailbox_no \
     FROM item WHERE event_no = ?1 AND state IN (0, 1))) ORDER BY no FOR UPDATE";
pub const PG_LOCK_MAILBOXES_OF_PERSON: &str = "SELECT no FROM mailbox WHERE no = ANY(ARRAY(SELECT m.no FROM mailbox m \
     JOIN item i ON i.event_no = ?1 AND i.mailbox_no = m.no WHERE m.recipient = ?2 AND i.state IN (0, 1))) ORDER BY no FOR UPDATE";

/// What is made durable with the next commit that is waited for.
pub const PG_DURABLE_LATER: &str = "SET LOCAL synchronous_commit = off";
pub const PG_WITHOUT_SORT: &str = "SET LOCAL enable_sort = off";
pub const PG_WITH_SORT: &str = "SET LOCAL enable_sort = on";

// ---- PostgreSQL alone: many rows at once
/// Columns side by side in the list: behind `FROM`, all their rows would be written down first.
pub const PG_ADD_EVENTS: &str = "INSERT INTO event (no, key, source, id, kind, ver, effect, topic, topic2, date, deadline, expiry, \
     received_at, subject_key, data, prev, prev2) SELECT unnest(CAST(?1 AS bigint[])), unnest(CAST(?2 AS bytea[])), unnest(CAST(?3 AS \
     text[])), unnest(CAST(?4 AS text[])), unnest(CAST(?5 AS text[])), unnest(CAST(?6 AS bigint[])), unnest(CAST(?7 AS \
     bigint[])), unnest(CAST(?8 AS bytea[])), unnest(CAST(?9 AS bytea[])), unnest(CAST(?10 AS bigint[])), unnest(CAST(?11 AS \
     bigint[])), unnest(CAST(?12 AS bigint[])), CAST(?13 AS bigint), unnest(CAST(?14 AS text[])), unnest(CAST(?15 AS text[])), \
     unnest(CAST(?16 AS bigint[])), unnest(CAST(?17 AS bigint[])) ON CONFLICT (key) DO NOTHING RETURNING no";
pub const PG_EVENT_BY_KEY: &str = "SELECT no, received_at FROM event WHERE key = ?1";
pub const PG_SAVE_SUBJECT: &str = "INSERT INTO subject (topic, head, swept, latest_ver, latest_no, latest_date, before_ver, \
     before_no, before_date, closer_ver, closer_no, lone) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
     ON CONFLICT (topic) DO UPDATE SET head = excluded.head, swept = excluded.swept, latest_ver = excluded.latest_ver, \
     latest_no = excluded.latest_no, latest_date = excluded.latest_date, before_ver = excluded.before_ver, \
     before_no = excluded.before_no, before_date = excluded.before_date, closer_ver = excluded.closer_ver, \
     closer_no = excluded.closer_no, lone = excluded.lone";
pub const PG_DROP_SUBJECT: &str = "DELETE FROM subject WHERE topic = ?1";
/// Which of these keys are known.
pub const PG_KNOWN_KEYS: &str = "SELECT key FROM event WHERE key = ANY(CAST(?1 AS bytea[]))";
pub const PG_ADD_SUBJECTS: &str = "INSERT INTO subject (topic, head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, \
     before_date, closer_ver, closer_no, lone) SELECT unnest(CAST(?1 AS bytea[])), unnest(CAST(?2 AS bigint[])), 0, \
     unnest(CAST(?3 AS bigint[])), unnest(CAST(?4 AS bigint[])), unnest(CAST(?5 AS bigint[])), unnest(CAST(?6 AS bigint[])), \
     unnest(CAST(?7 AS bigint[])), unnest(CAST(?8 AS bigint[])), unnest(CAST(?9 AS bigint[])), unnest(CAST(?10 AS bigint[])), \
     unnest(CAST(?11 AS bigint[])) ON CONFLICT (topic) DO NOTHING RETURNING topic";
/// The last event of each, as of now: nothing is locked.
pub const PG_HEADS: &str = "SELECT topic, head FROM subject WHERE topic = ANY(CAST(?1 AS bytea[]))";
pub const PG_SUBJECTS: &str = "SELECT head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, before_date, closer_ver, closer_no, lone, topic FROM subject WHERE topic = ANY(CAST(?1 AS bytea[])) ORDER BY topic FOR UPDATE";
/// Of digests that were only looked at, the first ?2 that nobody has; no more are locked.
pub const PG_LOCK_DUE: &str = "SELECT d.no FROM unnest(CAST(?1 AS bigint[])) WITH ORDINALITY AS u(no, place) JOIN digest d \
     ON d.no = u.no JOIN mailbox m ON m.no = d.mailbox_no ORDER BY u.place LIMIT ?2 FOR UPDATE OF m, d SKIP LOCKED";
/// Whether ?3 digests are due, in anybody's hands or none's.
pub const PG_CROWDED: &str = "SELECT count(*) FROM (SELECT 1 FROM digest WHERE state IN (0, 4) AND priority = ?1 AND due_at <= ?2 \
     AND due_at >= ?4 ORDER BY due_at LIMIT ?3) AS due";
/// The first that lives, and how long the server looked for it, in microseconds.
pub const PG_FIRST_DUE: &str = "SELECT min(due_at), CAST(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000 AS \
     bigint) FROM digest WHERE state IN (0, 4) AND priority = ?1";
pub const PG_FIRST_UNTIL: &str = "SELECT min(until), CAST(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000 AS \
     bigint) FROM digest WHERE state IN (2, 3, 5)";
/// As [`LANES`], with one look at the index a lane: its first digest says both which lane it is and when it is due. Nothing is
/// due before ?5, and what is dead before it is passed over in the index.
pub const PG_LANES: &str = "WITH RECURSIVE walk(lane, due_at, n) AS ((SELECT lane, due_at, 1 FROM digest WHERE state IN (0, 4) \
     AND lane <> 0 AND priority = ?1 AND lane > ?2 AND due_at >= ?5 ORDER BY lane, due_at LIMIT 1) UNION ALL SELECT one.lane, one.due_at, n + 1 \
     FROM walk, LATERAL (SELECT d.lane, d.due_at FROM digest d WHERE d.state IN (0, 4) AND d.lane <> 0 AND d.priority = ?1 \
     AND d.lane > walk.lane AND d.due_at >= ?5 ORDER BY d.lane, d.due_at LIMIT 1) AS one WHERE n < ?4) \
     SELECT lane, n, due_at <= ?3, due_at, CAST(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000 AS bigint) \
     FROM walk ORDER BY n";
/// Of known lanes, each with where it begins: what its first digest is due at. (Lane and time are compared together, which only
/// the index of lanes can do: by the index of due times alone, each lane would cost all that is due.)
pub const PG_FIRST_OF_LANES: &str = "SELECT u.lane, (SELECT d.due_at FROM digest d WHERE d.state IN (0, 4) AND d.lane <> 0 AND \
     d.priority = ?1 AND (d.lane, d.due_at) >= (u.lane, u.due_from) AND d.lane <= u.lane ORDER BY d.lane, d.due_at LIMIT 1) \
     FROM unnest(CAST(?2 AS bigint[]), CAST(?3 AS bigint[])) AS u(lane, due_from)";
/// Of each of these lanes the first so many, as [`PG_CLAIMED`], and no digest that another claim has in its hands.
pub const PG_DUE_OF_LANES: &str = "SELECT one.* FROM unnest(CAST(?2 AS bigint[]), CAST(?5 AS bigint[])) AS u(lane, due_from) JOIN LATERAL \
     (SELECT d.no, d.mailbox_no, d.state, d.priority, d.due_at, d.open, d.first_at, d.last_at, d.deadline, d.token, \
     d.until, d.attempts, d.waited_us, d.address, d.opened_at, d.closed_at, d.lane, m.recipient, m.route, m.zone, m.previous_at \
     FROM mailbox m JOIN digest d ON m.no = d.mailbox_no WHERE d.state IN (0, 4) AND d.lane <> 0 AND \
     d.priority = ?1 AND (d.lane, d.due_at) >= (u.lane, u.due_from) AND (d.lane, d.due_at) <= (u.lane, CAST(?3 AS bigint)) \
     ORDER BY d.lane, d.due_at LIMIT ?4 FOR UPDATE OF m, d SKIP LOCKED) AS one ON true";
pub const PG_TIES: &str = "SELECT no, id, source FROM event WHERE no = ANY(CAST(?1 AS bigint[]))";
pub const PG_STANDINGS: &str = "SELECT s.topic, s.recipient, s.own_ver, s.own_no FROM unnest(CAST(?1 AS bytea[]), CAST(?2 AS text[])) AS \
     u(topic, recipient) JOIN standing s ON s.topic = u.topic AND s.recipient = u.recipient";
pub const PG_MAILBOXES_BY_NAME: &str = "SELECT m.no FROM unnest(CAST(?1 AS text[]), CAST(?2 AS text[])) AS u(recipient, route) JOIN mailbox m ON \
     m.recipient = u.recipient AND m.route = u.route";
/// Where events have open items.
pub const PG_MAILBOXES_TO_SWEEP: &str =
    "SELECT DISTINCT mailbox_no FROM item WHERE event_no = ANY(CAST(?1 AS bigint[])) AND state IN (0, 1)";
/// From the head of each topic back to what everything behind is final.
pub const PG_CHAINS: &str = "WITH RECURSIVE chain AS (SELECT topic, no, swept FROM unnest(CAST(?1 AS bytea[]), CAST(?2 AS bigint[]), \
     CAST(?3 AS bigint[])) AS u(topic, no, swept) UNION ALL SELECT c.topic, CASE WHEN e.topic = c.topic THEN \
     e.prev ELSE e.prev2 END, c.swept FROM chain c JOIN event e ON e.no = c.no WHERE c.no <> c.swept) SELECT \
     c.topic, e.no, e.effect, CASE WHEN e.topic = c.topic THEN e.prev ELSE e.prev2 END, e.ver, e.date FROM chain \
     c JOIN event e ON e.no = c.no WHERE c.no <> c.swept";
/// As [`EVENT_CHAIN`], of many.
pub const PG_LINKS: &str =
    "SELECT effect, topic, prev, prev2, ver, date, no FROM event WHERE no = ANY(CAST(?1 AS bigint[]))";
/// Where these people have open items of these events, pair by pair.
pub const PG_MAILBOXES_TO_REPLACE: &str = "SELECT i.mailbox_no FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS text[])) AS u(no, recipient) \
     JOIN mailbox m ON m.recipient = u.recipient JOIN item i ON i.event_no = u.no AND i.mailbox_no = m.no WHERE i.state IN (0, 1)";
/// And which those are.
pub const PG_OPEN_OF_PEOPLE: &str = "SELECT i.event_no, i.mailbox_no, i.digest_no, i.state, i.left_before, u.recipient FROM \
     unnest(CAST(?1 AS bigint[]), CAST(?2 AS text[])) AS u(no, recipient) JOIN mailbox m ON m.recipient = u.recipient \
     JOIN item i ON i.event_no = u.no AND i.mailbox_no = m.no WHERE i.state IN (0, 1)";
/// As [`CLOSING`], of many.
pub const PG_CLOSINGS: &str = "SELECT no, ver, data FROM event WHERE no = ANY(CAST(?1 AS bigint[]))";
/// The zone of each of these people by the route that mailed them last, of those that know it.
pub const PG_ZONES: &str = "SELECT u.recipient, (SELECT m.zone FROM mailbox m WHERE m.recipient = u.recipient AND m.route <> ?2 \
     AND m.zone IS NOT NULL ORDER BY m.previous_at DESC NULLS LAST LIMIT 1) FROM unnest(CAST(?1 AS text[])) AS u(recipient)";
pub const PG_MAILBOXES: &str = "SELECT no, recipient, route, zone, previous_at FROM mailbox WHERE no = ANY(CAST(?1 AS bigint[])) ORDER BY no \
     FOR UPDATE";
pub const PG_ADD_MAILBOXES: &str = "INSERT INTO mailbox (recipient, route, zone) SELECT recipient, route, zone FROM unnest(CAST(?1 AS text[]), \
     CAST(?2 AS text[]), CAST(?3 AS text[])) AS u(recipient, route, zone) ON CONFLICT (recipient, route) DO \
     UPDATE SET zone = coalesce(excluded.zone, mailbox.zone) RETURNING no, recipient, route, zone, previous_at";
pub const PG_WINDOWS: &str = "SELECT no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, until, attempts, \
     waited_us, address, opened_at, closed_at, lane FROM digest WHERE mailbox_no = ANY(CAST(?1 AS bigint[])) AND state \
     IN (0, 1)";
/// What is open in their other digests that are not closed.
pub const PG_OPEN_OF_BUSY: &str = "SELECT mailbox_no, CAST(sum(open) AS bigint) FROM digest WHERE mailbox_no = \
     ANY(CAST(?1 AS bigint[])) AND state IN (2, 3, 4, 5) GROUP BY mailbox_no";
pub const PG_MAILBOXES_OF_RECIPIENTS: &str =
    "SELECT no, recipient FROM mailbox WHERE recipient = ANY(CAST(?1 AS text[]))";
pub const PG_ITEMS_OF_EVENTS: &str = "SELECT event_no, mailbox_no FROM item WHERE event_no = ANY(CAST(?1 AS bigint[]))";
pub const PG_OPEN_OF_EVENTS: &str = "SELECT event_no, mailbox_no, digest_no, state, left_before FROM item WHERE event_no = ANY(CAST(?1 AS \
     bigint[])) AND state IN (0, 1)";
pub const PG_COUNT_OPEN: &str = "SELECT event_no, count(*) FROM item WHERE event_no = ANY(CAST(?1 AS bigint[])) AND state IN (0, 1) \
     GROUP BY event_no";
pub const PG_ADD_ITEM: &str = "INSERT INTO item (event_no, mailbox_no, digest_no, state, reason, urgency, settled_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (event_no, mailbox_no) DO NOTHING";
pub const PG_ADD_ITEMS: &str = "INSERT INTO item (event_no, mailbox_no, digest_no, state, reason, urgency, settled_at) SELECT \
     unnest(CAST(?1 AS bigint[])), unnest(CAST(?2 AS bigint[])), unnest(CAST(?3 AS bigint[])), unnest(CAST(?4 AS bigint[])), \
     unnest(CAST(?5 AS bigint[])), unnest(CAST(?6 AS bigint[])), unnest(CAST(?7 AS bigint[]))";
pub const PG_FIRST_URGENCIES: &str = "SELECT u.no, (SELECT min(urgency) FROM item WHERE digest_no = u.no AND state = 0) \
     FROM unnest(CAST(?1 AS bigint[])) AS u(no)";
pub const PG_SAVE_DIGESTS: &str = "INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, \
     until, attempts, waited_us, address, opened_at, closed_at, lane) SELECT * FROM unnest(CAST(?1 AS bigint[]), \
     CAST(?2 AS bigint[]), CAST(?3 AS bigint[]), CAST(?4 AS bigint[]), CAST(?5 AS bigint[]), CAST(?6 AS \
     bigint[]), CAST(?7 AS bigint[]), CAST(?8 AS bigint[]), CAST(?9 AS bigint[]), CAST(?10 AS bigint[]), CAST(?11 \
     AS bigint[]), CAST(?12 AS bigint[]), CAST(?13 AS bigint[]), CAST(?14 AS text[]), CAST(?15 AS bigint[]), \
     CAST(?16 AS bigint[]), CAST(?17 AS bigint[]))";
pub const PG_UPDATE_DIGESTS: &str = "UPDATE digest d SET state = u.state, priority = u.priority, due_at = u.due_at, open = u.open, first_at = \
     u.first_at, last_at = u.last_at, deadline = u.deadline, token = u.token, until = u.until, attempts = \
     u.attempts, waited_us = u.waited_us, address = u.address, closed_at = u.closed_at FROM unnest(CAST(?1 AS \
     bigint[]), CAST(?2 AS bigint[]), CAST(?3 AS bigint[]), CAST(?4 AS bigint[]), CAST(?5 AS bigint[]), CAST(?6 \
     AS bigint[]), CAST(?7 AS bigint[]), CAST(?8 AS bigint[]), CAST(?9 AS bigint[]), CAST(?10 AS bigint[]), \
     CAST(?11 AS bigint[]), CAST(?12 AS bigint[]), CAST(?13 AS bigint[]), CAST(?14 AS text[]), CAST(?15 AS \
     bigint[]), CAST(?16 AS bigint[]), CAST(?17 AS bigint[])) AS u(no, mailbox_no, state, priority, due_at, open, first_at, last_at, \
     deadline, token, until, attempts, waited_us, address, opened_at, closed_at, lane) WHERE d.no = u.no";

/// What intake changes of windows.
pub const PG_UPDATE_WINDOWS: &str = "UPDATE digest d SET priority = u.priority, due_at = u.due_at, open = u.open, first_at = \
     u.first_at, last_at = u.last_at, deadline = u.deadline FROM (SELECT unnest(CAST(?1 AS bigint[])) AS no, unnest(CAST(?2 AS \
     bigint[])) AS priority, unnest(CAST(?3 AS bigint[])) AS due_at, unnest(CAST(?4 AS bigint[])) AS open, unnest(CAST(?5 AS \
     bigint[])) AS first_at, unnest(CAST(?6 AS bigint[])) AS last_at, unnest(CAST(?7 AS bigint[])) AS deadline) AS u WHERE d.no = \
     u.no";
/// What a claim, a begin and a settlement change of digests.
pub const PG_MOVE_DIGESTS: &str = "UPDATE digest d SET state = u.state, due_at = u.due_at, open = u.open, token = u.token, \
     until = u.until, attempts = u.attempts, address = u.address, closed_at = u.closed_at FROM (SELECT unnest(CAST(?1 AS \
     bigint[])) AS no, unnest(CAST(?2 AS bigint[])) AS state, unnest(CAST(?3 AS bigint[])) AS due_at, unnest(CAST(?4 AS bigint[])) \
     AS open, unnest(CAST(?5 AS bigint[])) AS token, unnest(CAST(?6 AS bigint[])) AS until, unnest(CAST(?7 AS bigint[])) AS \
     attempts, unnest(CAST(?8 AS text[])) AS address, unnest(CAST(?9 AS bigint[])) AS closed_at) AS u WHERE d.no = u.no";

/// What runs for every batch: each row is found by a value of its index (`tests/store`).
pub fn hot_of_many() -> Vec<&'static str> {
    let read = [
        PG_DIGESTS,
        PG_DIGESTS_ALONE,
        PG_CLAIMED,
        PG_MAILBOXES_OF_DIGESTS,
        PG_FREE_MAILBOXES,
        PG_SUBJECTS_OF_DIGESTS,
        PG_ITEMS_OF_DIGESTS,
        PG_RELISTED,
        PG_ATTEMPTS,
        PG_FIRST_BEGUN,
        PG_EVENTS,
        PG_CONTENTS,
        PG_AUDIENCES,
        PG_ASKED,
        PG_WHO_HAS,
        PG_DUE_OF_LANES,
        PG_LANES,
        PG_CROWDED,
        PG_FIRST_DUE,
        PG_FIRST_UNTIL,
        PG_FIRST_OF_LANES,
        PG_WINDOWS_AFTER,
        PG_HOLD_DIGESTS,
        PG_HOLD_ITEMS,
        PG_HOLD_RELISTED,
        PG_HOLD_ATTEMPTS,
        PG_HOLD_STANDINGS,
        PG_KNOWN_KEYS,
        PG_SUBJECTS,
        PG_HEADS,
        PG_TIES,
        PG_STANDINGS,
        PG_MAILBOXES,
        PG_MAILBOXES_BY_NAME,
        PG_WINDOWS,
        PG_OPEN_OF_BUSY,
        PG_MAILBOXES_OF_RECIPIENTS,
        PG_ITEMS_OF_EVENTS,
        PG_OPEN_OF_EVENTS,
        PG_COUNT_OPEN,
        PG_MAILBOXES_TO_REPLACE,
        PG_OPEN_OF_PEOPLE,
        PG_ZONES,
        PG_CLOSINGS,
        PG_LINKS,
        PG_FIRST_URGENCIES,
        PG_UPDATE_DIGESTS,
        PG_UPDATE_WINDOWS,
        PG_MOVE_DIGESTS,
        PG_OVER_AND_OLD,
        PG_LOCK_ITEMS_TO_PURGE,
        PG_EVENTS_TO_PURGE,
        PG_LOCK_EVENTS_TO_PURGE,
        PG_UNLISTED,
        PG_FREE_SUBJECTS,
        PG_KNOWN_SUBJECTS,
    ];
    read.into_iter().chain(MANY.iter().map(|known| known.many)).collect()
}
