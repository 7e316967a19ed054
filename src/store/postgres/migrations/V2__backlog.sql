-- What an autoscaler asks (KEDA's `postgresql` trigger: "SELECT due FROM owlpost_keda_backlog"): how much there is to do
-- now, or will be before a replica that starts now is ready. Always one row with a number. What can't leave is not counted,
-- or the replicas would never go to zero: digests of paused routes, and dead letters where nothing forwards them.
-- Each count ends at 5,000 and reads a partial index, so that it costs the same at any size. (Only while routes are paused
-- it goes through what is due of them; let the scaler's role have a statement_timeout.)
-- A function under the view: the scaler's role needs no right on the tables, and the plan stays at the indexes.
CREATE FUNCTION owlpost_backlog() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
SET jit = off SET enable_seqscan = off AS $$
WITH clock AS (
    SELECT CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint) + 30000000 AS soon
)
SELECT
    -- Windows and retries: each priority by itself, as the index has them.
    (SELECT count(*) FROM (
        SELECT 1 FROM (
            SELECT mailbox_no FROM digest WHERE state IN (0, 4) AND priority = 0 AND due_at <= (SELECT soon FROM clock)
            UNION ALL
            SELECT mailbox_no FROM digest WHERE state IN (0, 4) AND priority = 1 AND due_at <= (SELECT soon FROM clock)
            UNION ALL
            SELECT mailbox_no FROM digest WHERE state IN (0, 4) AND priority = 2 AND due_at <= (SELECT soon FROM clock)
        ) AS waiting
        WHERE NOT EXISTS (SELECT 1 FROM pause) OR NOT EXISTS (
            SELECT 1 FROM mailbox m JOIN pause s ON s.route IN ('*', m.route) WHERE m.no = waiting.mailbox_no
        )
        LIMIT 5000
    ) AS leaving)
    -- Leases and doubts that end.
    + (SELECT count(*) FROM (
        SELECT 1 FROM digest d WHERE d.state IN (2, 3, 5) AND d.until <= (SELECT soon FROM clock) LIMIT 5000
    ) AS ending)
    -- Dead letters on their way to a broker.
    + (SELECT count(*) FROM (
        SELECT 1 FROM dead_letter WHERE discarded_at IS NULL AND forwarded_at IS NULL AND forward_error IS NULL
        AND EXISTS (SELECT 1 FROM condition WHERE part = 'forwarding') LIMIT 5000
    ) AS inputs)
    + (SELECT count(*) FROM (
        SELECT 1 FROM item WHERE state = 5 AND forwarded_at IS NULL AND forward_error IS NULL
        AND EXISTS (SELECT 1 FROM condition WHERE part = 'forwarding') LIMIT 5000
    ) AS items)
$$;
-- It runs with its owner's rights: no table of the caller's may stand before the store's.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION owlpost_backlog() SET search_path = %I, pg_temp', current_schema());
END $$;
CREATE VIEW owlpost_keda_backlog AS SELECT owlpost_backlog() AS due;
