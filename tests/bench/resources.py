"""What a pod has to be given: memory and CPU of one worker that has nothing to do, that keeps a million open digests of which
none is due, and that sends them all as fast as it can. On SQLite, and on PostgreSQL, where KEDA's question is asked as well."""

import contextlib
import datetime
import re
import time

import events
import postgres
import postgres_fill
import postgres_server

# The chart's values.yaml, in MB: requests.memory and limits.memory of a worker.
REQUEST_MB, LIMIT_MB = 64, 256
# Filling, looking at what rests, and what either may take longer on a slower machine.
REST_S, SPARE_S = 20, 20

HTTP = """
[[source]]
name = "events"
kind = "http"
"""

SQLITE = """
[store]
url = "sqlite:{path}"
[http]
listen = "127.0.0.1:{port}"
"""


def rss_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024


@contextlib.contextmanager
def worker(bench, args, made, port, role="all"):
    child = bench.start(args.binary, made, role)
    try:
        bench.wait_ready(port, child, 60)
        yield child
    finally:
        bench.end(child)


def watched(bench, child, seconds):
    """Highest memory and mean CPU of so many seconds."""
    before, most, by = bench.cpu_s(child.pid), 0.0, time.monotonic() + seconds
    while (left := by - time.monotonic()) > 0:
        if child.poll() is not None:
            raise bench.Failed(f"the worker ended with exit {child.returncode}")
        most = max(most, rss_mb(child.pid))
        time.sleep(min(0.2, left))
    return most, (bench.cpu_s(child.pid) - before) / seconds


def told(report, what, most, cpu, bound):
    report(f"{what}: memory, CPU", f"{most:.0f} MB, {cpu * 1000:.0f}m", f"< {bound} MB", most < bound)


def idle(bench, args, made, port):
    with worker(bench, args, made, port) as child:
        return watched(bench, child, REST_S)


def loaded(bench, args, report, what, made, port, due_from):
    """A full store, before and after all of it is due (seconds since 1970)."""
    with worker(bench, args, made, port) as child:
        if time.time() + REST_S > due_from:
            raise bench.Failed("the store was not full in time; take fewer --windows")
        most, cpu = watched(bench, child, REST_S)
        told(report, f"{what}, {args.windows:,} open digests, none due", most, cpu, REQUEST_MB * 2)
        yield "resting"
        time.sleep(max(due_from - time.time(), 0))
        most, cpu = watched(bench, child, args.seconds)
        sent = bench.total(bench.metrics(port), "owlpost_mails_total")
        told(report, f"{what}, all due, {sent / args.seconds:,.0f} mails/s", most, cpu, LIMIT_MB * 3 // 4)
        yield "working"


def on_sqlite(bench, args, folder, report):
    path, port = folder / "resources.db", bench.free_port()
    made = folder / "resources.toml"

    def config(sources):
        made.write_text(SQLITE.format(path=path, port=port) + sources + postgres.DISCARD + postgres_fill.ROUTE)
        return made

    told(report, "SQLite, nothing to do", *idle(bench, args, config(HTTP), port), REQUEST_MB)
    lines = folder / "resources.ndjson"
    now = datetime.datetime.now(datetime.timezone.utc)
    due_from = time.time() + REST_S + 2 * SPARE_S + args.windows / 10_000
    expiry = datetime.datetime.fromtimestamp(due_from + 3_600, datetime.timezone.utc)
    # All at one moment.
    events.write_expiries(lines, args.windows, now - datetime.timedelta(minutes=1), expiry, args.windows)
    with worker(bench, args, config(postgres.FILE.format(path=lines)), port, "intake") as child:
        while bench.total(bench.metrics(port), "owlpost_events_total") < args.windows:
            if child.poll() is not None or time.time() + REST_S > due_from:
                raise bench.Failed("the store was not full in time; take fewer --windows")
            time.sleep(0.2)
    lines.unlink()
    for _ in loaded(bench, args, report, "SQLite", config(HTTP), port, due_from):
        pass


def on_postgres(bench, args, folder, report):
    with postgres_server.server(bench, folder) as pg:
        postgres_fill.seed(pg, args, "resources")
        port = bench.free_port()
        text = HTTP + postgres.DISCARD + postgres_fill.ROUTE
        made = postgres.config(pg, "pg-resources", "resources", text, port=port)
        told(report, "PostgreSQL, nothing to do", *idle(bench, args, made, port), REQUEST_MB)
        due_us = postgres.due_in(args.windows) + (REST_S + SPARE_S) * 1_000_000
        postgres_fill.opened(pg, "resources", args.windows, due_us, 1_000_000)
        view = lambda: pg.median_ms("resources", "SELECT due FROM owlpost_keda_backlog")
        for moment in loaded(bench, args, report, "PostgreSQL", made, port, due_us / 1e6):
            took = view()
            report(f"  KEDA's question then, median of 21 ({moment})", f"{took:.2f} ms", "< 5 ms", took < 5)


def measure(bench, args, folder, report):
    on_sqlite(bench, args, folder, report)
    on_postgres(bench, args, folder, report)
