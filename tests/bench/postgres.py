"""PostgreSQL: the same work in a store that many workers share, with the server on the same machine, fsync and all."""

import contextlib
import datetime
import subprocess
import time

import events
import postgres_server

STORE = """
[store]
url = "{url}"
password = "{password}"
retention = "{retention}"
[http]
listen = "127.0.0.1:{port}"
"""

FILE = """
[[source]]
name = "bench"
kind = "file"
path = "{path}"
"""

DISCARD = """
[mailer]
kind = "discard"
"""


def config(pg, name, database, text, port=0, retention="3650d"):
    """A worker's, on one of the server's databases."""
    path = pg.folder.parent / f"{name}.toml"
    head = STORE.format(url=pg.url(database), password=pg.password, port=port, retention=retention)
    path.write_text(head + text)
    return path


def counts(pg, database):
    """As `counts` of the SQLite store: what is there, after a look whether it balances."""
    found = pg.row(database, """
        SELECT (SELECT count(*) FROM event) AS events, (SELECT count(*) FROM item) AS items,
               (SELECT count(*) FROM item WHERE state = 3) AS withdrawn,
               (SELECT count(*) FROM item WHERE state IN (0, 1)) AS open_items,
               (SELECT coalesce(sum(open), 0) FROM digest) AS open_in_digests,
               (SELECT coalesce(json_object_agg(state, n), '{}') FROM (
                   SELECT state, sum(n) AS n FROM (SELECT state, n FROM ledger_total UNION ALL
                   SELECT state, n FROM ledger_delta) AS l GROUP BY state HAVING sum(n) <> 0) AS l) AS ledger,
               (SELECT coalesce(json_object_agg(state, n), '{}') FROM (
                   SELECT state, count(*) AS n FROM item GROUP BY state) AS i) AS rows""")
    if found["ledger"] != found["rows"]:
        raise pg.bench.Failed(f"{database}: the ledger says {found['ledger']}, the rows {found['rows']}")
    if found["open_in_digests"] != found["open_items"]:
        raise pg.bench.Failed(f"{database}: {found['open_in_digests']} open items in digests, {found['open_items']} by state")
    return {name: found[name] for name in ("events", "items", "withdrawn")}


def measure_intake(bench, args, folder, report):
    path = folder / "postgres.ndjson"
    expected = events.write_mixed(path, args.events, bench.midnight() - datetime.timedelta(days=2), bench.RECIPIENTS)
    with postgres_server.server(bench, folder) as pg:
        pg.fresh("mixed")
        # The braces of HELD are doubled for `format`.
        made = config(pg, "pg-mixed", "mixed", FILE.format(path=path) + DISCARD + bench.HELD.format())
        for what, target in [("into PostgreSQL, 10 % copies", 50_000), ("the same again, nothing changes", 100_000)]:
            server_before = pg.cpu_s()
            took, ours, peak = bench.kafka.through(bench, args, made)
            server = pg.cpu_s() - server_before
            rate = args.events / took
            report(f"{args.events:,} events {what}", f"{rate:,.0f} events/s", f">= {target:,}", rate >= target)
            us = lambda seconds: f"{seconds / args.events * 1e6:.1f}"
            report("  our CPU, the server's CPU an event", f"{us(ours)} us, {us(server)} us", "", True)
            report("  peak RSS", f"{peak:.0f} MB", "< 128", peak < 128)
            found = counts(pg, "mixed")
            if found != expected:
                raise bench.Failed(f"the store has {found}, the file means {expected}")
        size = pg.number("mixed", "SELECT pg_database_size('mixed')") / 2**20
        report("  store", f"{size:.0f} MB", "", True)
    path.unlink()
