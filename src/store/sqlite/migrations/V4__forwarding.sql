-- Dead letters on their way to a broker: what it has confirmed, and what it will never take. Dead items likewise; a replay
-- clears both columns.
ALTER TABLE dead_letter ADD COLUMN broker_id TEXT;      -- the broker's own name of the message (`topic/partition/offset`)
ALTER TABLE dead_letter ADD COLUMN forward_error TEXT;
ALTER TABLE item ADD COLUMN forwarded_at INTEGER;
ALTER TABLE item ADD COLUMN forward_error TEXT;
CREATE INDEX dead_letter_unforwarded ON dead_letter (no)
    WHERE discarded_at IS NULL AND forwarded_at IS NULL AND forward_error IS NULL;
CREATE INDEX item_unforwarded ON item (event_no) WHERE state = 5 AND forwarded_at IS NULL AND forward_error IS NULL;

-- How the parts of the running worker are, for commands beside it: a row a part, all of them written anew by the worker.
CREATE TABLE condition (
    part         TEXT    NOT NULL,          -- `source`, `forwarding`
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL,          -- `ready`, `down`, `ended`
    detail       TEXT    NOT NULL,          -- why it is down
    lag          INTEGER,                   -- messages that wait in front of a source; NULL: nobody knows
    since        INTEGER NOT NULL,          -- it is in this state since then ...
    at           INTEGER NOT NULL,          -- ... and was last looked at then
    PRIMARY KEY (part, name)
) STRICT, WITHOUT ROWID;
