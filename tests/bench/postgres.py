"""PostgreSQL: the same work in a store that many workers share, with the server on the same machine, fsync and all."""

import contextlib
import datetime
import subprocess
import time

import events
import postgres_fill
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


CLAIM = """
[delivery]
in_flight = {in_flight}
"""

# Into any store: a hundred thousand digests take some ten seconds.
FILL_PER_SECOND, FILL_S = 8_000, 20


def now_us():
    return int(time.time() * 1_000_000)


def due_in(n):
    """When copies that are made from now on may be due: they must all be there by then."""
    return now_us() + (FILL_S + n // FILL_PER_SECOND) * 1_000_000


def stop(bench, children):
    """All at once, each with one signal: a second one would cut its sends off."""
    for child in children:
        if child.poll() is None:
            child.send_signal(bench.signal.SIGTERM)
    for child in children:
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def workers(bench, args, pg, database, text, n, role="deliver", **more):
    """So many that are ready: (child, port) each. They get SIGTERM at the end."""
    running = []
    try:
        for i in range(n):
            port = bench.free_port()
            made = config(pg, f"pg-{database}-{i}", database, text, port=port, **more)
            running.append((bench.start(args.binary, made, role), port))
        for child, port in running:
            bench.wait_ready(port, child, 60)
        yield running
    finally:
        stop(bench, [child for child, _ in running])


def delivered(bench, running):
    return sum(bench.metrics(port)['owlpost_mails_total{mailer="discard",outcome="delivered"}'] for _, port in running)


def claim(bench, args, pg, database, n, count, shuffled):
    """Fills in `n` digests that are all due at once, and sends them."""
    due_from = due_in(n)
    postgres_fill.opened(pg, database, n, due_from, 100_000, shuffled)
    return sent(bench, args, pg, database, n, due_from, count)


def sent(bench, args, pg, database, n, due_from, count):
    """Has so many workers send the `n` digests that are due from then on; gives what the store recorded."""
    text = DISCARD + CLAIM.format(in_flight=args.claim_in_flight) + postgres_fill.ROUTE
    with workers(bench, args, pg, database, text, count) as running:
        if now_us() > due_from:
            raise bench.Failed(f"{database}: not full in time, or the workers were not ready; take fewer")
        time.sleep(max(0, due_from - now_us()) / 1e6)
        transactions, server, logged = pg.transactions(database), pg.cpu_s(), pg.logged()
        sampler = postgres_server.LockSampler(pg, database)
        by = time.monotonic() + bench.STEP_MAX_S
        while delivered(bench, running) < n:
            if time.monotonic() > by or any(child.poll() is not None for child, _ in running):
                raise bench.Failed(f"{database}: not all digests were sent")
            time.sleep(0.1)
        waiting, server = sampler.share(), pg.cpu_s() - server
        ours = sum(bench.cpu_s(child.pid) for child, _ in running)
    found = pg.row(database, f"""
        SELECT count(*) AS sent, count(DISTINCT digest_no) AS digests, max(n) AS attempts,
               (max(settled_at) - min(begun_at)) / 1e6 AS seconds FROM attempt WHERE begun_at >= {due_from} AND outcome = 2""")
    if (found["sent"], found["digests"], found["attempts"]) != (n, n, 1):
        raise bench.Failed(f"{database}: of {n} digests the store has {found}")
    counts(pg, database)
    waits = pg.long_lock_waits_ms(database, logged)
    return {"rate": n / max(found["seconds"], 1e-6), "waiting": waiting, "waits": waits, "server": server / n, "ours": ours / n,
            "transactions": pg.transactions(database) - transactions}


def report_claim(report, what, n, found, target):
    report(f"{n:,} digests due now {what}", f"{found['rate']:,.0f} digests/s", f">= {target:,}", found["rate"] >= target)
    report("  our CPU, the server's CPU a digest", f"{found['ours'] * 1e6:.0f} us, {found['server'] * 1e6:.0f} us", "", True)
    waits, transactions = found["waits"], found["transactions"]
    # Fewer than one in a hundred waited longer: that is the 99th percentile.
    report(f"  waited over {postgres_server.LOCK_MS} ms for a lock (longest {max(waits, default=0):.0f} ms)",
           f"{len(waits)} of {transactions:,.0f}", "< 1 in 100", len(waits) < transactions / 100)
    report("  of the connections at work, those seen waiting for a lock", f"{found['waiting']:.1%}", "", True)


def measure_claim(bench, args, folder, report):
    alone = None
    with postgres_server.server(bench, folder) as pg:
        for shuffled, order, target in [(False, "in creation order", 30_000), (True, "in random order", 15_000)]:
            for count in (1, 4):
                database = f"claim_{order.split()[1]}_{count}"
                postgres_fill.seed(pg, args, database)
                found = claim(bench, args, pg, database, args.digests, count, shuffled)
                alone = alone or found["rate"]
                report_claim(report, f"{order}, workers: {count}", args.digests, found, target)
                pg.drop(database)
        held(bench, args, pg, alone, report)


def held(bench, args, pg, alone, report):
    """The same beside a transaction that is older than all of it: no dead entry of an index can be removed meanwhile."""
    postgres_fill.seed(pg, args, "claim_held")
    due_from = due_in(args.digests)
    postgres_fill.opened(pg, "claim_held", args.digests, due_from, 100_000)
    with pg.old_transaction("claim_held"):
        rate = sent(bench, args, pg, "claim_held", args.digests, due_from, 1)["rate"]
    pg.drop("claim_held")
    report(f"{args.digests:,} digests due now in creation order, beside a transaction that is older",
           f"{rate:,.0f} digests/s", "half as many", rate >= alone / 2)


SES = """
[mailer]
kind = "ses"
region = "eu-west-1"
endpoint_url = "http://127.0.0.1:{port}"
"""

# Workers are replaced one by one, as a Deployment does it: the new one has been ready for a while before the old one goes.
TURN_S, OVERLAP_S = 4, 1


def quota(bench, args, pg, database, rate, count, seconds):
    """`count` workers that come and go for so many seconds; gives the record of the server that they send to."""
    tool = bench.Tool(args, "ses", rate, 10_000_000, 1)
    text = SES.format(port=tool.port) + CLAIM.format(in_flight=args.in_flight * 4) + postgres_fill.ROUTE
    running, came = [], 0

    def come():
        nonlocal came
        port, came = bench.free_port(), came + 1
        made = config(pg, f"pg-{database}-{came}", database, text, port=port)
        running.append(bench.start(args.binary, made, "deliver"))
        bench.wait_ready(port, running[-1], 60)

    try:
        for _ in range(count):
            come()
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0:
            time.sleep(min(TURN_S, left))
            if left > TURN_S:
                come()
                time.sleep(OVERLAP_S)
                stop(bench, [running.pop(0)])
    finally:
        stop(bench, running)
        found = tool.record()
        tool.end()
    left = pg.number(database, f"SELECT count(*) FROM digest WHERE state <> 6 AND due_at <= {now_us()}")
    if left == 0:
        raise bench.Failed(f"{database}: no work was waiting at the end")
    attempts = pg.number(database, "SELECT count(*) FROM attempt WHERE outcome = 2")
    if attempts != found["taken"]:
        raise bench.Failed(f"{database}: the server took {found['taken']} mails, the store says {attempts:.0f}")
    return found


def measure_quota(bench, args, folder, report):
    bench.os.environ.update(bench.KEYS)
    with postgres_server.server(bench, folder) as pg:
        for rate in args.rates:
            for count in args.workers:
                database = f"quota_{rate}_{count}"
                postgres_fill.seed(pg, args, database)
                # Starting and stopping the workers takes time too, and mails leave meanwhile.
                n = int(rate * (args.quota_seconds + 20 + 3 * count)) + 100
                postgres_fill.opened(pg, database, n, now_us() - n, n)
                found = quota(bench, args, pg, database, rate, count, args.quota_seconds)
                seconds = max(found["seconds"], 1e-9)
                used, refused = found["taken"] / seconds / rate, found["refused"] / max(found["calls"], 1)
                report(f"quota of {rate:,}/s, workers that come and go: {count}, {seconds:.0f} s: used", f"{used:.2%}",
                       ">= 99 %", used >= 0.99)
                report("  refused by a server that counts each second", f"{found['refused']} of {found['calls']:,}",
                       "< 1 in 1,000", refused < 0.001)
                late = pg.number(database, "SELECT count(*) FROM attempt WHERE free = 1")
                report("  begun, and too late for their permits", f"{late:,.0f}", "", True)
                bounds = [1 + rate * (length + 0.2) for length in (0.1, 1.0, 10.0)]
                report("  most calls in any 0.1 s, 1 s, 10 s", " ".join(map(str, found["worst"])),
                       "<= " + " ".join(str(int(b)) for b in bounds),
                       all(most <= bound for most, bound in zip(found["worst"], bounds)))
                pg.drop(database)


def due(bench, args, pg, database, n, seconds):
    """One worker at `n` open digests of which PER_SECOND are due each second, for so many seconds."""
    per_second = bench.PER_SECOND
    due_from = due_in(n)
    postgres_fill.opened(pg, database, n, due_from, n * 1_000_000 // per_second)
    text = DISCARD + CLAIM.format(in_flight=args.in_flight) + postgres_fill.ROUTE
    peak, view = 0.0, None
    with workers(bench, args, pg, database, text, 1) as [(child, port)]:
        if now_us() > due_from:
            raise bench.Failed(f"{database}: not full in time; take fewer --windows")
        until, server = due_from / 1e6 + seconds, pg.cpu_s()
        while (left := until - time.time()) > 0:
            if child.poll() is not None:
                raise bench.Failed(f"the worker ended with exit {child.returncode}")
            peak = bench.peak_mb(child.pid, peak)
            if view is None and left < seconds / 2:
                view = pg.median_ms(database, "SELECT * FROM owlpost_keda_backlog")
            time.sleep(min(0.5, left))
        found = bench.metrics(port)
        cpu, server = bench.cpu_s(child.pid), pg.cpu_s() - server
    return {"found": found, "peak": peak, "view": view, "cpu": cpu, "server": server}


def report_due(bench, report, what, seconds, n, found):
    began, p99, share = bench.lateness(found["found"])
    wanted = min(seconds * bench.PER_SECOND, n)
    kept_up = wanted - began <= bench.PER_SECOND
    report(f"{what}, {bench.PER_SECOND:,} due each second, {seconds} s: lateness p99", f"<= {p99:g} s", "< 1 s", p99 <= 1.0 and kept_up)
    report("  sent", f"{began:,.0f} of {wanted:,}", "", kept_up)
    report("  within 0.1 s, 0.5 s, 1 s", " ".join(f"{share(le):.1%}" for le in ("0.1", "0.5", "1")), "", True)
    report("  the backlog view meanwhile, median of 21", f"{found['view']:.2f} ms", "< 5 ms", found["view"] < 5)
    report("  CPU of the worker, of the server", f"{found['cpu'] / seconds:.2f}, {found['server'] / seconds:.2f} cores", "", True)
    report("  peak RSS of the worker", f"{found['peak']:.0f} MB", "< 96", found["peak"] < 96)


def measure_due(bench, args, folder, report):
    with postgres_server.server(bench, folder) as pg:
        postgres_fill.seed(pg, args, "due")
        found = due(bench, args, pg, "due", args.windows, args.seconds)
        report_due(bench, report, f"PostgreSQL, {args.windows:,} open digests", args.seconds, args.windows, found)
