//! Statements of SQLite alone: keys and subjects stand in two tables each, the young and the old (`young.rs`); the views
//! `event_key` and `subject` are both of them.

pub const LITE_EVENT_BY_KEY: &str =
    "SELECT e.no, e.received_at FROM event_key k CROSS JOIN event e ON e.no = k.no WHERE k.key = ?1";
/// Two statements and no `INSERT … SELECT`, which keeps a copy of each page that it changes until it has ended.
pub const LITE_IN_OLD_KEY: &str = "SELECT 1 FROM old_key WHERE key = ?1";
pub const LITE_ADD_KEY: &str = "INSERT INTO young_key (key, no) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";
pub const LITE_ADD_EVENT: &str = "INSERT INTO event (no, key, source, id, kind, ver, effect, topic, topic2, date, deadline, \
     expiry, received_at, subject_key, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
/// Of an event that is about to leave, or to take another.
pub const LITE_DROP_YOUNG_KEY: &str = "DELETE FROM young_key WHERE key = (SELECT key FROM event WHERE no = ?1)";
pub const LITE_DROP_OLD_KEY: &str = "DELETE FROM old_key WHERE key = (SELECT key FROM event WHERE no = ?1)";

pub const LITE_SAVE_DIGEST: &str = "INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, \
     deadline, token, until, attempts, waited_us, address, opened_at, closed_at, lane, tail, tail_items) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
pub const LITE_UPDATE_DIGEST: &str = "UPDATE digest SET state = ?2, priority = ?3, due_at = ?4, open = ?5, first_at = ?6, \
     last_at = ?7, deadline = ?8, token = ?9, until = ?10, attempts = ?11, waited_us = ?12, address = ?13, \
     closed_at = ?14, tail = ?15, tail_items = ?16 WHERE no = ?1";
/// The same where only what no index holds has changed: indexes of `state` and `due_at` stay untouched.
pub const LITE_UPDATE_WINDOW: &str = "UPDATE digest SET open = ?2, first_at = ?3, last_at = ?4, deadline = ?5, \
     attempts = ?6, waited_us = ?7, address = ?8, token = ?9, closed_at = ?10, tail = ?11, tail_items = ?12 WHERE no = ?1";

pub const LITE_ADD_ITEM: &str = "INSERT INTO item (event_no, mailbox_no, digest_no, state, reason, urgency, settled_at, behind) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (event_no, mailbox_no) DO NOTHING";
/// The rest of `books/tail.rs`.
pub const LITE_SETTLE_IN_TAIL: &str = "UPDATE item SET state = ?3, reason = ?4, left_before = ?5, settled_at = ?6, digest_no = ?7 \
     WHERE event_no = ?1 AND mailbox_no = ?2";
pub const LITE_BEHIND: &str = "SELECT behind FROM item WHERE event_no = ?1 AND mailbox_no = ?2";
/// Of an event's items.
pub const LITE_TAILS_OF_EVENT: &str = "SELECT DISTINCT digest_no FROM item WHERE event_no = ?1 AND behind IS NOT NULL";
pub const LITE_PLACE_ITEM: &str =
    "UPDATE item SET digest_no = ?3, behind = NULL WHERE event_no = ?1 AND mailbox_no = ?2";

/// Changes when another connection has committed.
pub const LITE_OTHERS: &str = "PRAGMA data_version";
pub const LITE_IN_OLD_SUBJECT: &str = "SELECT 1 FROM old_subject WHERE topic = ?1";
pub const LITE_ADD_SUBJECT: &str = "INSERT INTO young_subject (topic, head, swept, latest_ver, latest_no, latest_date, \
     before_ver, before_no, before_date, closer_ver, closer_no, lone) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
     ?12) ON CONFLICT (topic) DO NOTHING";
pub const LITE_SAVE_SUBJECT: &str = "INSERT OR REPLACE INTO young_subject (topic, head, swept, latest_ver, latest_no, \
     latest_date, before_ver, before_no, before_date, closer_ver, closer_no, lone) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
pub const LITE_DROP_YOUNG_SUBJECT: &str = "DELETE FROM young_subject WHERE topic = ?1";
pub const LITE_DROP_OLD_SUBJECT: &str = "DELETE FROM old_subject WHERE topic = ?1";

/// What of this runs for every event: each must find its rows by an index (`tests/store`).
pub const LITE_HOT: &[&str] = &[
    LITE_EVENT_BY_KEY,
    LITE_IN_OLD_KEY,
    LITE_IN_OLD_SUBJECT,
    LITE_DROP_YOUNG_KEY,
    LITE_DROP_OLD_KEY,
    LITE_BEHIND,
    LITE_TAILS_OF_EVENT,
    LITE_AGE_KEYS.young,
    LITE_AGE_KEYS.old,
    LITE_AGE_SUBJECTS.young,
    LITE_AGE_SUBJECTS.old,
];

/// What is from ?1 to before ?2 moves on, in the order of the pages that it comes to.
pub struct LiteAge {
    /// Which are young.
    pub young: &'static str,
    pub insert: &'static str,
    pub delete: &'static str,
    /// Which are old.
    pub old: &'static str,
}

pub const LITE_AGE_KEYS: LiteAge = LiteAge {
    young: "SELECT key FROM young_key WHERE key >= ?1 AND key < ?2",
    insert: "INSERT INTO old_key (key, no) SELECT key, no FROM young_key WHERE key >= ?1 AND key < ?2 ORDER BY key",
    delete: "DELETE FROM young_key WHERE key >= ?1 AND key < ?2",
    old: "SELECT key FROM old_key WHERE key >= ?1 AND key < ?2",
};
pub const LITE_AGE_SUBJECTS: LiteAge = LiteAge {
    young: "SELECT topic FROM young_subject WHERE topic >= ?1 AND topic < ?2",
    insert: "INSERT OR REPLACE INTO old_subject SELECT * FROM young_subject WHERE topic >= ?1 AND topic < ?2 ORDER BY topic",
    delete: "DELETE FROM young_subject WHERE topic >= ?1 AND topic < ?2",
    old: "SELECT topic FROM old_subject WHERE topic >= ?1 AND topic < ?2",
};
