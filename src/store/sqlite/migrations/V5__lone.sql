-- Most topics have one dated opener and no second: then its items say who has one, and `standing` holds no row for each
-- of them. NULL: the rows are written, as they were before.
ALTER TABLE subject ADD COLUMN lone INTEGER;
