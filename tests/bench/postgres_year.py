"""A store that is a year old: what is settled must not slow down what is due; and what the purge takes."""

import shutil
import subprocess
import time

import postgres
import postgres_fill
import postgres_server

DAY_US = 86_400_000_000
# What an item takes on the disk with its event, marks and indexes, and what is needed beside them.
ITEM_BYTES, SPARE_BYTES = 1_200, 6 << 30
STEP_MAX_S = 3_600


def measure(bench, args, folder, report):
    need = args.year * ITEM_BYTES + SPARE_BYTES
    if shutil.disk_usage(folder).free < need:
        raise bench.Failed(f"{need / 2**30:.0f} GB of disk are needed; take fewer --year, or another --dir")
    with postgres_server.server(bench, folder) as pg:
        for database, what in [("empty", "beside nothing"), ("year", f"beside {args.year:,} settled items")]:
            postgres_fill.seed(pg, args, database)
            if database == "year":
                fill(args, pg, database, report)
            found = postgres.claim(bench, args, pg, database, args.digests, 1, True)
            postgres.report_claim(report, f"{what}, in random order", args.digests, found, 15_000)
            n = args.seconds * bench.PER_SECOND
            found = postgres.due(bench, args, pg, database, n, args.seconds)
            postgres.report_due(bench, report, what, args.seconds, n, found)
            if database != "year":
                pg.drop(database)
        purge(bench, args, pg, "year", report)


def fill(args, pg, database, report):
    """A year and a bit, evenly; the first `--purge` of it is older than 365 days, by a day at least."""
    began, now = time.monotonic(), postgres.now_us()
    old = min(args.purge, args.year)
    postgres_fill.settled(pg, database, old, now - 380 * DAY_US, 10 * DAY_US)
    if args.year > old:
        postgres_fill.settled(pg, database, args.year - old, now - 364 * DAY_US, 360 * DAY_US)
    size = pg.number(database, f"SELECT pg_database_size('{database}')")
    report(f"a store of {args.year:,} settled items, filled by SQL in {time.monotonic() - began:.0f} s",
           f"{size / 2**30:.1f} GB", "", True)


def purge(bench, args, pg, database, report):
    """By one worker that has nothing else to do: what is still due waits."""
    text = postgres.DISCARD + postgres_fill.ROUTE
    made = postgres.config(pg, "pg-pause", database, text)
    subprocess.run([args.binary, "pause", "-c", made], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    old = min(args.purge, args.year)
    items = pg.number(database, "SELECT count(*) FROM item")
    server = pg.cpu_s()
    with postgres.workers(bench, args, pg, database, text, 1, retention="365d") as [(child, port)]:
        began = time.monotonic()
        while (gone := bench.metrics(port)["owlpost_purged_items_total"]) < old:
            if time.monotonic() - began > STEP_MAX_S or child.poll() is not None:
                raise bench.Failed(f"the purge deleted {gone:.0f} items of {old}")
            time.sleep(0.1)
        took = time.monotonic() - began
        ours, server = bench.cpu_s(child.pid), pg.cpu_s() - server
    left = pg.number(database, "SELECT count(*) FROM item")
    if items - left != old:
        raise bench.Failed(f"the purge left {left:.0f} items of {items:.0f}, {old} were to go")
    postgres.counts(pg, database)
    report(f"purge of {old:,} items older than the retention", f"{old / took:,.0f} items/s", "", True)
    report("  our CPU, the server's CPU an item", f"{ours / old * 1e6:.0f} us, {server / old * 1e6:.0f} us", "", True)
