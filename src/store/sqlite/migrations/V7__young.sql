-- What is looked up by a hash stands in two tables: `young_…` takes what is new, and from time to time a part of all hashes
-- moves on to `old_…`, in their order. A hash falls on any page: one large table alone would have almost as many pages to
-- write as events that come in.
CREATE TABLE young_key (
    key          BLOB    PRIMARY KEY,       -- an event's dedupe key: in one of the two
    no           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE old_key (
    key          BLOB    PRIMARY KEY,
    no           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO old_key (key, no) SELECT key, no FROM event ORDER BY key;
CREATE VIEW event_key AS SELECT key, no FROM young_key UNION ALL SELECT key, no FROM old_key;

-- The same table without the index of its keys.
CREATE TABLE event_with_index_elsewhere (
    no           INTEGER PRIMARY KEY,
    key          BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    ver          INTEGER NOT NULL,
    effect       INTEGER NOT NULL,
    topic        BLOB,
    topic2       BLOB,
    date         INTEGER,
    prev         INTEGER,
    prev2        INTEGER,
    deadline     INTEGER,
    expiry       INTEGER,
    received_at  INTEGER NOT NULL,
    subject_key  TEXT,
    data         TEXT    NOT NULL
) STRICT;
INSERT INTO event_with_index_elsewhere (no, key, source, id, kind, ver, effect, topic, topic2, date, prev, prev2, deadline,
    expiry, received_at, subject_key, data)
    SELECT no, key, source, id, kind, ver, effect, topic, topic2, date, prev, prev2, deadline, expiry, received_at,
    subject_key, data FROM event ORDER BY no;
DROP TABLE event;
ALTER TABLE event_with_index_elsewhere RENAME TO event;

-- A topic that has moved on and was marked again stands in both: the young row counts.
ALTER TABLE subject RENAME TO old_subject;
CREATE TABLE young_subject (
    topic        BLOB    PRIMARY KEY,
    head         INTEGER NOT NULL,
    swept        INTEGER NOT NULL,
    latest_ver   INTEGER NOT NULL,
    latest_no    INTEGER NOT NULL,
    latest_date  INTEGER,
    before_ver   INTEGER,
    before_no    INTEGER,
    before_date  INTEGER,
    closer_ver   INTEGER,
    closer_no    INTEGER,
    lone         INTEGER
) STRICT, WITHOUT ROWID;
CREATE VIEW subject AS SELECT * FROM young_subject
    UNION ALL SELECT * FROM old_subject WHERE NOT EXISTS (SELECT 1 FROM young_subject y WHERE y.topic = old_subject.topic);
