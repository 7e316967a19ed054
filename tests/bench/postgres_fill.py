"""Fills a store with any number of digests in seconds: one event goes in through the worker, and its rows are copied.

Each copy is its own event, topic, person and digest, with what follows from its due time; `owlpost status --verify` finds
nothing wrong with the result. Copies have their numbers in the order they are made.
"""

import datetime
import time

import events
import postgres

HOUR_US = 3_600_000_000
CHUNK = 500_000
# A prime: multiplied by it, numbers below any smaller count change places, and none is lost.
PRIME = 2_654_435_761

ROUTE = """
[[directory]]
kind = "rules"
rules = [{ principal = "user.{name}", address = "{name}@example.com" }]
[recipients]
allowed_domains = ["example.com"]
[[route]]
name = "expiries"
types = ["io.athenz.membership.expiring.v1"]
template = "expiries"
cadence = { first_after = "400d", before_deadline = "1h" }
[log]
format = "json"
level = "warn"
"""

PERSON = "'p' || lpad(n::text, 9, '0')"
CLONED = f"replace(replace({{column}}, 'p0000000', {PERSON}), 'team0.', 'team' || n % 300 || '.')"
HASH = "substr(sha256(convert_to('{what}', 'UTF8') || int8send(n)), 1, {size})"

# One row of `made` for each copy: its number, when it came in and when it is due.
EVENTS = f"""
INSERT INTO event (no, key, source, id, kind, ver, effect, topic, date, deadline, received_at, subject_key, data)
SELECT n, {HASH.format(what="key", size=24)}, e.source, 'x' || n, e.kind, came * 2, e.effect, {HASH.format(what="topic", size=16)},
       due + {HOUR_US}, due + {HOUR_US}, came, {CLONED.format(column="e.subject_key")}, {CLONED.format(column="e.data")}
FROM made, event e WHERE e.no = (SELECT min(no) FROM event) ORDER BY n;
INSERT INTO subject (topic, head, swept, latest_ver, latest_no, latest_date, lone)
SELECT {HASH.format(what="topic", size=16)}, n, 0, came * 2, n, due + {HOUR_US}, n FROM made;
"""

OPEN = EVENTS + f"""
INSERT INTO mailbox (no, recipient, route) OVERRIDING SYSTEM VALUE SELECT n, 'user.' || {PERSON}, 'expiries' FROM made;
INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, attempts, waited_us,
                    opened_at, lane)
SELECT n, n, 0, 1, due, 1, came, came, due + {HOUR_US}, 0, 0, 0, came, 1 + n % 50 FROM made ORDER BY n;
INSERT INTO item (event_no, mailbox_no, digest_no, state, urgency) SELECT n, n, n, 0, due + {HOUR_US} FROM made ORDER BY n;
"""

# Settled a minute after they came, 20 items a mail, to 10,000 people in turn.
ITEMS_A_MAIL, PEOPLE, MINUTE_US = 20, 10_000, 60_000_000
OF_DIGEST = f"{{base}} + (n - {{base}}) / {ITEMS_A_MAIL}"
OF_MAILBOX = f"{{base}} + (n - {{base}}) / {ITEMS_A_MAIL} % {PEOPLE}"
SETTLED = EVENTS + f"""
INSERT INTO mailbox (no, recipient, route, previous_at) OVERRIDING SYSTEM VALUE
SELECT {OF_MAILBOX}, 'user.' || 'p' || lpad(({OF_MAILBOX})::text, 9, '0'), 'expiries', max(came) + {MINUTE_US}
FROM made GROUP BY 1 ON CONFLICT (no) DO UPDATE SET previous_at = excluded.previous_at;
INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, deadline, token, attempts, waited_us,
                    address, opened_at, closed_at)
SELECT {OF_DIGEST}, min({OF_MAILBOX}), 6, 1, max(came), 0, min(came), max(came), min(due) + {HOUR_US}, 1, 1, 0,
       'p' || lpad(min({OF_MAILBOX})::text, 9, '0') || '@example.com', min(came), max(came) + {MINUTE_US}
FROM made GROUP BY 1 ORDER BY 1;
INSERT INTO attempt (digest_no, n, begun_at, outcome, free, settled_at, message_id)
SELECT {OF_DIGEST}, 1, max(came), 2, 0, max(came) + {MINUTE_US}, '<owlpost.bench-' || {OF_DIGEST} || '@example.com>'
FROM made GROUP BY 1 ORDER BY 1;
INSERT INTO item (event_no, mailbox_no, digest_no, state, urgency, left_before, settled_at)
SELECT n, {OF_MAILBOX}, {OF_DIGEST}, 2, due + {HOUR_US}, 2, came + {MINUTE_US} FROM made ORDER BY n;
INSERT INTO standing (topic, recipient, told_ver)
SELECT {HASH.format(what="topic", size=16)}, 'user.' || 'p' || lpad(({OF_MAILBOX})::text, 9, '0'), came * 2 FROM made;
"""


def micros(moment):
    return int(moment.timestamp() * 1_000_000)


def seed(pg, args, database):
    """An empty store with the one event whose rows are copied; it is due in a year."""
    bench, path = pg.bench, pg.folder.parent / "seed.ndjson"
    now = datetime.datetime.now(datetime.timezone.utc)
    events.write_expiries(path, 1, now, now + datetime.timedelta(days=365), 1)
    pg.fresh(database)
    port = bench.free_port()
    made = postgres.config(pg, f"pg-{database}-seed", database, postgres.FILE.format(path=path) + postgres.DISCARD + ROUTE, port=port)
    child = bench.start(args.binary, made, "intake")
    try:
        bench.wait_ready(port, child, 60)
        by = time.monotonic() + 30
        while bench.total(bench.metrics(port), "owlpost_events_total") < 1:
            if time.monotonic() > by:
                raise bench.Failed("the first event did not come in")
            time.sleep(0.05)
    finally:
        bench.end(child)


def copies(pg, database, statements, n, came, due, state):
    """`came`, `due`: microseconds of copy `i`, as SQL. Indexes are as a running store has them: analysed and vacuumed."""
    base = int(pg.number(database, """SELECT 1 + greatest((SELECT max(no) FROM event), (SELECT max(no) FROM mailbox),
                                                         (SELECT max(no) FROM digest))"""))
    for first in range(0, n, CHUNK):
        last = min(first + CHUNK, n) - 1
        pg.run(database, f"""
            SET synchronous_commit = off; SET work_mem = '64MB';
            BEGIN;
            CREATE TEMP TABLE made AS
                SELECT {base} + i AS n, {came} AS came, {due} AS due FROM generate_series({first}::bigint, {last}) AS i;
            ANALYZE made;
            {statements.replace("{base}", str(base))}
            COMMIT;""")
    top = base + n
    pg.run(database, f"""
        INSERT INTO ledger_delta (state, n) VALUES ({state}, {n});
        SELECT setval('event_no', {top + 16384}), setval('digest_no', {top}),
               setval(pg_get_serial_sequence('mailbox', 'no'), {top});
        VACUUM (ANALYZE) event, subject, standing, mailbox, digest, item, attempt;""")


def opened(pg, database, n, due_from, span_us, shuffled=False):
    """So many open digests, one item each, due from `due_from` on (microseconds), evenly over `span_us`."""
    place = f"(i * {PRIME} % {n})" if shuffled else "i"
    came = micros(datetime.datetime.now(datetime.timezone.utc)) - HOUR_US
    copies(pg, database, OPEN, n, f"{came}::bigint", f"{due_from} + {place} * {span_us} / {n}", 0)


def settled(pg, database, n, oldest_us, span_us):
    """So many delivered items, evenly from `oldest_us` on, over `span_us`."""
    came = f"{oldest_us} + i * {span_us // n}"
    copies(pg, database, SETTLED, n, came, f"{came} + {24 * HOUR_US}", 2)
