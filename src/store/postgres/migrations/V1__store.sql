-- The whole schema, with the tables and columns of the SQLite store, so that one set of statements serves both. Times are
-- microseconds since 1970 (UTC); states and reasons are the numbers of `model.rs`; texts are compared as bytes, whatever
-- the database's language. Everything is bigint, so that a bound value has one type everywhere.

-- One row: who this store is. (SQLite also counts here; here counters are sequences, and mails are counted by rows that
-- are only added: no row that every transaction writes.)
CREATE TABLE meta (
    one          bigint PRIMARY KEY CHECK (one = 1),
    store_id     bigint NOT NULL,           -- 32 random bits: the first half of every digest id
    mails_sent   bigint NOT NULL
);
CREATE TABLE mail_delta (
    no           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    n            bigint NOT NULL
);

-- Numbers are never used twice, not even after a purge. A transaction that takes in events draws one block of them.
CREATE SEQUENCE event_no AS bigint INCREMENT 16384;
CREATE SEQUENCE digest_no AS bigint;
CREATE SEQUENCE letter_no AS bigint;

-- What happened. `key` is the dedupe key: 8 bytes of a hash of the id (so that an id is found in all sources), then
-- 16 bytes of a hash of (source, id). `ver` is time * 2 + (1 if it closes): the first two parts of the rank.
CREATE TABLE event (
    no           bigint PRIMARY KEY,
    key          bytea  NOT NULL UNIQUE,
    source       text   COLLATE "C" NOT NULL,
    id           text   COLLATE "C" NOT NULL,
    kind         text   COLLATE "C" NOT NULL,
    ver          bigint NOT NULL,
    effect       bigint NOT NULL,           -- 0 informs, 1 opens, 2 closes, 3 dropped at the door
    topic        bytea,                     -- what it opens or closes ...
    topic2       bytea,                     -- ... and the second topic of `renewed` and `removed`
    date         bigint,                    -- twins share it (lifecycle: "wave")
    prev         bigint,                    -- the event of `topic` that arrived before this one: a chain, no index
    prev2        bigint,                    -- the same of `topic2`
    deadline     bigint,
    expiry       bigint,
    received_at  bigint NOT NULL,
    subject_key  text   COLLATE "C",
    data         text   COLLATE "C" NOT NULL
);

-- A row a topic: the marks of lifecycle.md. Ranks are compared by `ver`, then by the event rows' id and source.
CREATE TABLE subject (
    topic        bytea  PRIMARY KEY,
    head         bigint NOT NULL,           -- the event that arrived last
    swept        bigint NOT NULL,           -- in the chain, this event and all behind it have final items only; 0: none
    latest_ver   bigint NOT NULL,           -- the highest rank
    latest_no    bigint NOT NULL,
    latest_date  bigint,
    before_ver   bigint,                    -- the highest rank of another wave than the latest one's
    before_no    bigint,
    before_date  bigint,
    closer_ver   bigint,                    -- the highest closing rank
    closer_no    bigint,
    lone         bigint                     -- the topic's one dated opener: then `standing` holds no row for its people
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- A person's standing in a topic: the rank of their highest dated opener (twins), and the lowest rank they were, or
-- may have been, told of ("already handled").
CREATE TABLE standing (
    topic        bytea  NOT NULL,
    recipient    text   COLLATE "C" NOT NULL,
    own_ver      bigint,
    own_no       bigint,
    told_ver     bigint,
    PRIMARY KEY (topic, recipient)
);

-- Whom an event asked by a route, where that can change until the mail leaves (roles and groups).
CREATE TABLE asked (
    event_no     bigint NOT NULL,
    route        text   COLLATE "C" NOT NULL,
    names        text   COLLATE "C" NOT NULL,  -- JSON array of references
    except_for   text   COLLATE "C",           -- nobody approves their own request
    PRIMARY KEY (event_no, route)
);

-- A recipient of a route; its row is the lock of all its digests and their items. `previous_at`: when their last digest
-- began to be sent.
CREATE TABLE mailbox (
    no           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient    text   COLLATE "C" NOT NULL,
    route        text   COLLATE "C" NOT NULL,
    zone         text   COLLATE "C",
    previous_at  bigint,
    UNIQUE (recipient, route)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

CREATE TABLE digest (
    no           bigint PRIMARY KEY,
    mailbox_no   bigint NOT NULL,
    state        bigint NOT NULL,
    priority     bigint NOT NULL,
    due_at       bigint NOT NULL,           -- gathering: the window ends; waiting: the retry is due
    open         bigint NOT NULL,           -- its items that are pending or in doubt
    first_at     bigint NOT NULL,
    last_at      bigint NOT NULL,
    deadline     bigint,
    token        bigint NOT NULL,           -- rises with every claim: the fence
    until        bigint,                    -- leased, sending: the lease ends; in_doubt: the doubt ends
    attempts     bigint NOT NULL,
    waited_us    bigint NOT NULL,           -- sum of the waits after counted failures
    address      text   COLLATE "C",        -- where the last attempt went
    opened_at    bigint NOT NULL,
    closed_at    bigint
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
-- One unfrozen digest a recipient and route. No two indexes have one predicate: the planner would take either for either.
CREATE UNIQUE INDEX digest_window ON digest (mailbox_no) WHERE state IN (0, 1);
CREATE INDEX digest_busy ON digest (mailbox_no) WHERE state IN (2, 3, 4, 5);
CREATE INDEX digest_due ON digest (priority, due_at, no) WHERE state IN (0, 4);
CREATE INDEX digest_until ON digest (until) WHERE state IN (2, 3, 5);
CREATE INDEX digest_held ON digest (no) WHERE state = 1;
CREATE INDEX digest_closed ON digest (mailbox_no) WHERE state = 6;

-- The ledger's unit. `urgency`: the deadline, or far behind all deadlines the event's time. `left_before`: the first
-- attempt of its digest that does not list it.
CREATE TABLE item (
    event_no      bigint NOT NULL,
    mailbox_no    bigint NOT NULL,
    digest_no     bigint,
    state         bigint NOT NULL,
    reason        bigint,
    urgency       bigint NOT NULL,
    left_before   bigint,
    settled_at    bigint,
    forwarded_at  bigint,
    forward_error text   COLLATE "C",
    PRIMARY KEY (event_no, mailbox_no)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX item_digest ON item (digest_no, state, urgency) WHERE digest_no IS NOT NULL;
CREATE INDEX item_dead ON item (event_no, mailbox_no) WHERE state = 5;
CREATE INDEX item_alone ON item (mailbox_no) WHERE digest_no IS NULL;
CREATE INDEX item_unforwarded ON item (event_no, mailbox_no)
    WHERE state = 5 AND forwarded_at IS NULL AND forward_error IS NULL;

-- Where a replayed item was listed before: only replay copies.
CREATE TABLE relisted (
    digest_no    bigint NOT NULL,
    event_no     bigint NOT NULL,
    mailbox_no   bigint NOT NULL,
    left_before  bigint,
    PRIMARY KEY (digest_no, event_no, mailbox_no)
);
CREATE INDEX relisted_item ON relisted (event_no, mailbox_no);

-- Written before the call. `outcome`: 0 unknown, 1 refused, 2 accepted, 3 failed. `free`: known to be throttled or
-- never called, so it burns nothing.
CREATE TABLE attempt (
    digest_no    bigint NOT NULL,
    n            bigint NOT NULL,
    begun_at     bigint NOT NULL,
    outcome      bigint NOT NULL,
    free         bigint NOT NULL,
    settled_at   bigint,
    message_id   text   COLLATE "C",
    detail       text   COLLATE "C",
    PRIMARY KEY (digest_no, n)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX attempt_message ON attempt (message_id) WHERE message_id IS NOT NULL;

-- The counts of the ledger: rows are only added, in the transaction of the change; upkeep rolls them up. `purged`: what
-- left with a purge, so that the ledger still knows how many there were.
CREATE TABLE ledger_delta (
    no           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state        bigint NOT NULL,
    n            bigint NOT NULL
);
CREATE TABLE ledger_total (
    state        bigint PRIMARY KEY,
    n            bigint NOT NULL,
    purged       bigint NOT NULL DEFAULT 0
);

-- Refused input, by its bytes.
CREATE TABLE dead_letter (
    no            bigint PRIMARY KEY,
    key           bytea  NOT NULL UNIQUE,   -- hash of (source, SHA-256 of the bytes)
    source        text   COLLATE "C" NOT NULL,
    position      text   COLLATE "C" NOT NULL,
    reason        text   COLLATE "C" NOT NULL,
    detail        text   COLLATE "C" NOT NULL,
    first_at      bigint NOT NULL,
    last_at       bigint NOT NULL,
    count         bigint NOT NULL,
    bytes         bigint NOT NULL,
    sha256        bytea  NOT NULL,
    headers       text   COLLATE "C" NOT NULL,  -- JSON array of pairs
    body          bytea  NOT NULL,
    broker_id     text   COLLATE "C",           -- the broker's own name of the message (`topic/partition/offset`)
    discarded_at  bigint,
    forwarded_at  bigint,
    forward_error text   COLLATE "C"
);
CREATE INDEX dead_letter_open ON dead_letter (last_at) WHERE discarded_at IS NULL;
CREATE INDEX dead_letter_age ON dead_letter (last_at);
CREATE INDEX dead_letter_unforwarded ON dead_letter (no)
    WHERE discarded_at IS NULL AND forwarded_at IS NULL AND forward_error IS NULL;

-- Who must not be mailed (bounces, complaints, by hand), and which routes are stopped (`*`: all).
CREATE TABLE suppression (
    address      text   COLLATE "C" PRIMARY KEY,
    reason       text   COLLATE "C" NOT NULL,
    since        bigint NOT NULL
);
CREATE TABLE pause (
    route        text   COLLATE "C" PRIMARY KEY,
    since        bigint NOT NULL
);

-- A row a sending account (`ses/eu-west-1`): what it may send, and where its rate and its day stand. All who send from
-- this store share it. NULL: without a bound.
CREATE TABLE quota (
    account        text   COLLATE "C" PRIMARY KEY,
    per_second     double precision,
    per_day        bigint,
    burst          bigint NOT NULL,
    urgent_reserve double precision NOT NULL,
    external       bigint NOT NULL,         -- what others sent in 24 hours, when the account was last asked
    asked_at       bigint NOT NULL,
    tat            bigint NOT NULL,         -- GCRA: the theoretical arrival time of the next call
    factor         double precision NOT NULL, -- the part of the rate left when the server last said "too fast" ...
    slowed_at      bigint NOT NULL,         -- ... and when that was
    full_until     bigint                   -- the server said that the day's quota is used up
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- Shares of the day that are used, by the minute of their settlement. What is claimed and not settled is counted from the
-- digests themselves.
CREATE TABLE quota_use (
    account        text   COLLATE "C" NOT NULL,
    minute         bigint NOT NULL,
    n              bigint NOT NULL,
    PRIMARY KEY (account, minute)
) WITH (fillfactor = 50);

-- How the parts of the running worker are, for commands beside it: a row a part, all of them written anew by the worker.
CREATE TABLE condition (
    part         text   COLLATE "C" NOT NULL,  -- `source`, `forwarding`
    name         text   COLLATE "C" NOT NULL,
    state        text   COLLATE "C" NOT NULL,  -- `ready`, `down`, `ended`
    detail       text   COLLATE "C" NOT NULL,  -- why it is down
    lag          bigint,                       -- messages that wait in front of a source; NULL: nobody knows
    since        bigint NOT NULL,              -- it is in this state since then ...
    at           bigint NOT NULL,              -- ... and was last looked at then
    PRIMARY KEY (part, name)
);
