//! Changes of one row, and the same for any number of rows as one statement of PostgreSQL.

use super::*;

/// A change of one row, and the same for many: its values come as columns, in the same order.
pub struct Many {
    pub one: &'static str,
    pub many: &'static str,
    pub table: &'static str,
    /// So many values at the front name the row.
    pub keys: usize,
    /// Said twice of one row, the last counts; else the two are two statements.
    pub last_counts: bool,
}

/// Changes of one row that are made for each event, item or mail.
pub fn many(one: &str) -> Option<&'static Many> {
    MANY.iter().find(|known| known.one == one)
}

/// Those that begin like this, for tests.
#[cfg(test)]
pub fn many_of<const N: usize>(begins: [&str; N]) -> [&'static str; N] {
    begins.map(|begin| MANY.iter().find(|known| known.one.starts_with(begin)).map_or("", |known| known.one))
}

/// `UPDATE table SET … FROM` the columns, by the first of them.
macro_rules! update_many {
    ($one:ident, $table:literal, $set:literal, ($($column:literal),*), $keys:literal, $row:literal) => {
        Many {
            one: $one,
            many: concat!("UPDATE ", $table, " AS t SET ", $set, " FROM ", columns!($($column),*), " WHERE ", $row),
            table: $table,
            keys: $keys,
            last_counts: true,
        }
    };
}
macro_rules! insert_many {
    ($one:ident, $table:literal, $into:literal, ($($column:literal),*), $keys:literal, $end:literal) => {
        Many {
            one: $one,
            many: concat!("INSERT INTO ", $table, " (", $into, " FROM ", columns!($($column),*), " ", $end),
            table: $table,
            keys: $keys,
            last_counts: false,
        }
    };
}
/// Deletes by one value each.
macro_rules! delete_many {
    ($one:ident, $table:literal, $key:literal, $type:literal) => {
        Many {
            one: $one,
            many: concat!("DELETE FROM ", $table, " WHERE ", $key, " = ANY(CAST(?1 AS ", $type, "[]))"),
            table: $table,
            keys: 1,
            last_counts: true,
        }
    };
}
/// `?1` to `?n` as the columns c1 to cn, side by side in the list of a `SELECT`: of an `unnest` of them all behind `FROM`, the
/// server writes the rows down first.
macro_rules! columns {
    ($first:literal $(, $rest:literal)*) => {
        concat!("(SELECT ", column!(1, $first), columns!(@ [2 3 4 5 6 7] $($rest)*), ") AS u")
    };
    (@ [$n:literal $($more:literal)*] $type:literal $($rest:literal)*) => {
        concat!(", ", column!($n, $type), columns!(@ [$($more)*] $($rest)*))
    };
    (@ [$($more:literal)*]) => {
        ""
    };
}
macro_rules! column {
    ($n:literal, $type:literal) => {
        concat!("unnest(CAST(?", $n, " AS ", $type, "[])) AS c", $n)
    };
}

pub(super) const MANY: &[Many] = &[
    update_many!(
        SETTLE_ITEM,
        "item",
        "state = c3, reason = c4, left_before = c5, settled_at = c6",
        ("bigint", "bigint", "bigint", "bigint", "bigint", "bigint"),
        2,
        "t.event_no = c1 AND t.mailbox_no = c2"
    ),
    update_many!(
        MOVE_ITEM,
        "item",
        "digest_no = c3",
        ("bigint", "bigint", "bigint"),
        2,
        "t.event_no = c1 AND t.mailbox_no = c2"
    ),
    update_many!(LINK_EVENT, "event", "prev = c2, prev2 = c3", ("bigint", "bigint", "bigint"), 1, "t.no = c1"),
    update_many!(SAVE_PREVIOUS, "mailbox", "previous_at = c2", ("bigint", "bigint"), 1, "t.no = c1"),
    insert_many!(
        ADD_ATTEMPT,
        "attempt",
        "digest_no, n, begun_at, outcome, free) SELECT c1, c2, c3, 0, 0",
        ("bigint", "bigint", "bigint"),
        2,
        ""
    ),
    // An answer after another keeps the other's message id, so both are made.
    Many {
        last_counts: false,
        ..update_many!(
            SETTLE_ATTEMPT,
            "attempt",
            "outcome = c3, free = c4, settled_at = c5, message_id = coalesce(c6, message_id), detail = c7",
            ("bigint", "bigint", "bigint", "bigint", "bigint", "text", "text"),
            2,
            "t.digest_no = c1 AND t.n = c2"
        )
    },
    insert_many!(
        ADD_ASKED,
        "asked",
        "event_no, route, names, except_for) SELECT c1, c2, c3, c4",
        ("bigint", "text", "text", "text"),
        2,
        ""
    ),
    insert_many!(
        SAVE_TOLD,
        "standing",
        "topic, recipient, told_ver) SELECT c1, c2, c3",
        ("bytea", "text", "bigint"),
        2,
        "ON CONFLICT (topic, recipient) DO UPDATE SET told_ver = CASE WHEN standing.told_ver < excluded.told_ver \
         THEN standing.told_ver ELSE excluded.told_ver END"
    ),
    insert_many!(
        STAND_ALL,
        "standing",
        "topic, recipient, own_ver, own_no) SELECT DISTINCT c1, m.recipient, e.ver, e.no",
        ("bytea", "bigint"),
        2,
        "JOIN event e ON e.no = c2 JOIN item i ON i.event_no = e.no JOIN mailbox m ON m.no = i.mailbox_no \
         ON CONFLICT (topic, recipient) DO UPDATE SET own_ver = excluded.own_ver, own_no = excluded.own_no"
    ),
    insert_many!(
        SAVE_OWN,
        "standing",
        "topic, recipient, own_ver, own_no) SELECT c1, c2, c3, c4",
        ("bytea", "text", "bigint", "bigint"),
        2,
        "ON CONFLICT (topic, recipient) DO UPDATE SET own_ver = excluded.own_ver, own_no = excluded.own_no"
    ),
    Many {
        one: PG_SAVE_SUBJECT,
        many: "INSERT INTO subject (topic, head, swept, latest_ver, latest_no, latest_date, before_ver, before_no, \
               before_date, closer_ver, closer_no, lone) SELECT unnest(CAST(?1 AS bytea[])), unnest(CAST(?2 AS bigint[])), \
               unnest(CAST(?3 AS bigint[])), unnest(CAST(?4 AS bigint[])), unnest(CAST(?5 AS bigint[])), unnest(CAST(?6 AS \
               bigint[])), unnest(CAST(?7 AS bigint[])), unnest(CAST(?8 AS bigint[])), unnest(CAST(?9 AS bigint[])), \
               unnest(CAST(?10 AS bigint[])), unnest(CAST(?11 AS bigint[])), unnest(CAST(?12 AS bigint[])) ON CONFLICT (topic) DO UPDATE SET head = excluded.head, swept = excluded.swept, \
               latest_ver = excluded.latest_ver, latest_no = excluded.latest_no, latest_date = excluded.latest_date, \
               before_ver = excluded.before_ver, before_no = excluded.before_no, before_date = excluded.before_date, \
               closer_ver = excluded.closer_ver, closer_no = excluded.closer_no, lone = excluded.lone",
        table: "subject",
        keys: 1,
        last_counts: true,
    },
    delete_many!(DROP_ITEMS, "item", "event_no", "bigint"),
    delete_many!(DROP_RELISTED, "relisted", "event_no", "bigint"),
    delete_many!(DROP_ASKED, "asked", "event_no", "bigint"),
    delete_many!(DROP_EVENT, "event", "no", "bigint"),
    delete_many!(DROP_STANDING, "standing", "topic", "bytea"),
    delete_many!(PG_DROP_SUBJECT, "subject", "topic", "bytea"),
    delete_many!(DROP_ATTEMPTS, "attempt", "digest_no", "bigint"),
    delete_many!(DROP_DIGEST, "digest", "no", "bigint"),
];
