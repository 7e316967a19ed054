-- What left with a purge, by state: the ledger still knows how many there were.
ALTER TABLE ledger_total ADD COLUMN purged INTEGER NOT NULL DEFAULT 0;

-- For the purge: letters by their age, and whether anything refers to a mailbox.
CREATE INDEX dead_letter_age ON dead_letter (last_at);
CREATE INDEX digest_closed ON digest (mailbox_no) WHERE state = 6;
CREATE INDEX item_alone ON item (mailbox_no) WHERE digest_no IS NULL;
