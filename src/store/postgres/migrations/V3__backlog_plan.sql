-- A bitmap of all that is due is made before the first of it is counted: with a million due digests it costs a hundred
-- times what the bounded walk along the index does. The planner preferred it once it had looked at a large table.
ALTER FUNCTION owlpost_backlog() SET enable_bitmapscan = off;
