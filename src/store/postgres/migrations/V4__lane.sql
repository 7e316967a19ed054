-- What is due of one domain must not hold up all others: each digest stands in the lane of the domain of its first item (8
-- bytes of a hash of it, never 0; 0: from before this column, served by due time alone).
ALTER TABLE digest ADD COLUMN IF NOT EXISTS lane bigint NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS digest_lane ON digest (priority, lane, due_at, no) WHERE state IN (0, 4) AND lane <> 0;
