-- The whole schema. Times are microseconds since 1970 (UTC); states and reasons are the numbers of `model.rs`.
-- `no` numbers are ours and rise; texts of the outside world stand once, in `event` and `mailbox`.

-- One row: who this store is, and the numbers that are next. Numbers are never used twice, not even after a purge.
CREATE TABLE meta (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    store_id     INTEGER NOT NULL,          -- 32 random bits: the first half of every digest id
    next_event   INTEGER NOT NULL,
    next_digest  INTEGER NOT NULL,
    next_letter  INTEGER NOT NULL,
    mails_sent   INTEGER NOT NULL
) STRICT;

-- What happened. `key` is the dedupe key: 8 bytes of a hash of the id (so that an id is found in all sources), then
-- 16 bytes of a hash of (source, id). `ver` is time * 2 + (1 if it closes): the first two parts of the rank.
CREATE TABLE event (
    no           INTEGER PRIMARY KEY,
    key          BLOB    NOT NULL UNIQUE,
    source       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    ver          INTEGER NOT NULL,
    effect       INTEGER NOT NULL,          -- 0 informs, 1 opens, 2 closes, 3 dropped at the door
    topic        BLOB,                      -- what it opens or closes ...
    topic2       BLOB,                      -- ... and the second topic of `renewed` and `removed`
    date         INTEGER,                   -- twins share it (lifecycle: "wave")
    prev         INTEGER,                   -- the event of `topic` that arrived before this one: a chain, no index
    prev2        INTEGER,                   -- the same of `topic2`
    deadline     INTEGER,
    expiry       INTEGER,
    received_at  INTEGER NOT NULL,
    subject_key  TEXT,
    data         TEXT    NOT NULL
) STRICT;

-- A row a topic: the marks of lifecycle.md. Ranks are compared by `ver`, then by the event rows' id and source.
CREATE TABLE subject (
    topic        BLOB    PRIMARY KEY,
    head         INTEGER NOT NULL,          -- the event that arrived last
    swept        INTEGER NOT NULL,          -- in the chain, this event and all behind it have final items only; 0: none
    latest_ver   INTEGER NOT NULL,          -- the highest rank
    latest_no    INTEGER NOT NULL,
    latest_date  INTEGER,
    before_ver   INTEGER,                   -- the highest rank of another wave than the latest one's
    before_no    INTEGER,
    before_date  INTEGER,
    closer_ver   INTEGER,                   -- the highest closing rank
    closer_no    INTEGER
) STRICT, WITHOUT ROWID;

-- A person's standing in a topic: the rank of their highest dated opener (twins), and the lowest rank they were, or
-- may have been, told of ("already handled").
CREATE TABLE standing (
    topic        BLOB    NOT NULL,
    recipient    TEXT    NOT NULL,
    own_ver      INTEGER,
    own_no       INTEGER,
    told_ver     INTEGER,
    PRIMARY KEY (topic, recipient)
) STRICT, WITHOUT ROWID;

-- Whom an event asked by a route, where that can change until the mail leaves (roles and groups).
CREATE TABLE asked (
    event_no     INTEGER NOT NULL,
    route        TEXT    NOT NULL,
    names        TEXT    NOT NULL,          -- JSON array of references
    except_for   TEXT,                      -- nobody approves their own request
    PRIMARY KEY (event_no, route)
) STRICT, WITHOUT ROWID;

-- A recipient of a route. `previous_at`: when their last digest began to be sent.
CREATE TABLE mailbox (
    no           INTEGER PRIMARY KEY,
    recipient    TEXT    NOT NULL,
    route        TEXT    NOT NULL,
    zone         TEXT,
    previous_at  INTEGER,
    UNIQUE (recipient, route)
) STRICT;

CREATE TABLE digest (
    no           INTEGER PRIMARY KEY,
    mailbox_no   INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,          -- gathering: the window ends; waiting: the retry is due
    open         INTEGER NOT NULL,          -- its items that are pending or in doubt
    first_at     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL,
    deadline     INTEGER,
    token        INTEGER NOT NULL,          -- rises with every claim: the fence
    until        INTEGER,                   -- leased, sending: the lease ends; in_doubt: the doubt ends
    attempts     INTEGER NOT NULL,
    waited_us    INTEGER NOT NULL,          -- sum of the waits after counted failures
    address      TEXT,                      -- where the last attempt went
    opened_at    INTEGER NOT NULL,
    closed_at    INTEGER
) STRICT;
-- One unfrozen digest a recipient and route.
CREATE UNIQUE INDEX digest_window ON digest (mailbox_no) WHERE state IN (0, 1);
CREATE INDEX digest_busy ON digest (mailbox_no) WHERE state IN (2, 3, 4, 5);
CREATE INDEX digest_due ON digest (priority, due_at) WHERE state IN (0, 4);
CREATE INDEX digest_until ON digest (until) WHERE state IN (2, 3, 5);
CREATE INDEX digest_held ON digest (no) WHERE state = 1;

-- The ledger's unit. `urgency`: the deadline, or far behind all deadlines the event's time. `left_before`: the first
-- attempt of its digest that does not list it.
CREATE TABLE item (
    event_no     INTEGER NOT NULL,
    mailbox_no   INTEGER NOT NULL,
    digest_no    INTEGER,
    state        INTEGER NOT NULL,
    reason       INTEGER,
    urgency      INTEGER NOT NULL,
    left_before  INTEGER,
    settled_at   INTEGER,
    PRIMARY KEY (event_no, mailbox_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_digest ON item (digest_no, state, urgency) WHERE digest_no IS NOT NULL;
CREATE INDEX item_dead ON item (event_no) WHERE state = 5;

-- Where a replayed item was listed before: only replay copies.
CREATE TABLE relisted (
    digest_no    INTEGER NOT NULL,
    event_no     INTEGER NOT NULL,
    mailbox_no   INTEGER NOT NULL,
    left_before  INTEGER,
    PRIMARY KEY (digest_no, event_no, mailbox_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX relisted_item ON relisted (event_no, mailbox_no);

-- Written before the call. `outcome`: 0 unknown, 1 refused, 2 accepted, 3 failed. `free`: known to be throttled or
-- never called, so it burns nothing.
CREATE TABLE attempt (
    digest_no    INTEGER NOT NULL,
    n            INTEGER NOT NULL,
    begun_at     INTEGER NOT NULL,
    outcome      INTEGER NOT NULL,
    free         INTEGER NOT NULL,
    settled_at   INTEGER,
    message_id   TEXT,
    detail       TEXT,
    PRIMARY KEY (digest_no, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_message ON attempt (message_id) WHERE message_id IS NOT NULL;

-- The counts of the ledger: rows are only added, in the transaction of the change; upkeep rolls them up.
CREATE TABLE ledger_delta (
    no           INTEGER PRIMARY KEY,
    state        INTEGER NOT NULL,
    n            INTEGER NOT NULL
) STRICT;
CREATE TABLE ledger_total (
    state        INTEGER PRIMARY KEY,
    n            INTEGER NOT NULL
) STRICT;

-- Refused input, by its bytes.
CREATE TABLE dead_letter (
    no           INTEGER PRIMARY KEY,
    key          BLOB    NOT NULL UNIQUE,   -- hash of (source, SHA-256 of the bytes)
    source       TEXT    NOT NULL,
    position     TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    detail       TEXT    NOT NULL,
    first_at     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL,
    count        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    sha256       BLOB    NOT NULL,
    headers      TEXT    NOT NULL,          -- JSON array of pairs
    body         BLOB    NOT NULL,
    discarded_at INTEGER,
    forwarded_at INTEGER
) STRICT;
CREATE INDEX dead_letter_open ON dead_letter (last_at) WHERE discarded_at IS NULL;

-- Who must not be mailed (bounces, complaints, by hand), and which routes are stopped (`*`: all).
CREATE TABLE suppression (
    address      TEXT    PRIMARY KEY,
    reason       TEXT    NOT NULL,
    since        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE pause (
    route        TEXT    PRIMARY KEY,
    since        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
