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

/// Changes when another connection has committed.
pub const LITE_OTHERS: &str = "PRAGMA data_version";
pub const LITE_IN_OLD_SUBJECT: &str = "SELECT 1 FROM old_subject WHERE topic = ?1";
pub const LITE_ADD_SUBJECT: &str = "INSERT INTO young_subject (topic, head, swept, latest_ver, latest_no, latest_date, \
     closer_ver, closer_no, lone) VALUES (?1, ?2, 0, ?3, ?2, ?4, ?5, ?6, ?7) ON CONFLICT (topic) DO NOTHING";
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
