-- What joins a window stands in its tail first, each item with the event of the one before it: the index of a digest's items,
-- of which a batch of intake would change nearly every page, gets them when the digest leaves. Until then `digest_no` is NULL,
-- and the digest is the mailbox's window.
ALTER TABLE digest ADD COLUMN tail INTEGER;     -- the event of the last one; NULL: there is none
ALTER TABLE digest ADD COLUMN tail_items INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item ADD COLUMN behind INTEGER;     -- the event of the one before it; 0: it is the first; NULL: it is in no tail
DROP INDEX item_alone;
CREATE INDEX item_alone ON item (mailbox_no) WHERE digest_no IS NULL AND state > 1;
-- Each item with its digest.
CREATE VIEW placed_item AS SELECT event_no, mailbox_no, coalesce(digest_no, CASE WHEN behind IS NOT NULL THEN (SELECT no
    FROM digest WHERE digest.mailbox_no = item.mailbox_no AND digest.state IN (0, 1)) END) AS digest_no, state, reason, urgency, left_before,
    settled_at, forwarded_at, forward_error FROM item;
