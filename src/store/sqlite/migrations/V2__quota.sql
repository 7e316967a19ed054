-- A row a sending account (`ses/eu-west-1`): what it may send, and where its rate and its day stand. All who send from
-- this store share it. NULL: without a bound.
CREATE TABLE quota (
    account        TEXT    PRIMARY KEY,
    per_second     REAL,
    per_day        INTEGER,
    burst          INTEGER NOT NULL,
    urgent_reserve REAL    NOT NULL,
    external       INTEGER NOT NULL,        -- what others sent in 24 hours, when the account was last asked
    asked_at       INTEGER NOT NULL,
    tat            INTEGER NOT NULL,        -- GCRA: the theoretical arrival time of the next call
    factor         REAL    NOT NULL,        -- the part of the rate that was left when the server last said "too fast" ...
    slowed_at      INTEGER NOT NULL,        -- ... and when that was
    full_until     INTEGER                  -- the server said that the day's quota is used up
) STRICT, WITHOUT ROWID;

-- Shares of the day that are used, by the minute of their settlement. What is claimed and not settled is counted from the
-- digests themselves.
CREATE TABLE quota_use (
    account        TEXT    NOT NULL,
    minute         INTEGER NOT NULL,
    n              INTEGER NOT NULL,
    PRIMARY KEY (account, minute)
) STRICT, WITHOUT ROWID;
