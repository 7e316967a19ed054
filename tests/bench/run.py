#!/usr/bin/env python3
"""Measures the whole program, release build, against the figures it must reach. Called by `tests/run bench`.

    run.py BINARY --dir DIR [--only intake,again,kafka,due,pg,pg_claim,pg_due,pg_peers,pg_quota,pg_year,sqs,ses,smtp,render,
           quota,resources,ready,size] [--events N] [--windows N] [--digests N] [--jobs N] [--mails N] [--seconds N] …

Without --only everything but pg_quota and pg_year, which take long. The steps of PostgreSQL (pg…) start a server of their own
under DIR, with fsync, 512 MB of shared buffers and the rest as it comes, and stop it at their end.

intake  a file of --events lines (10 % copies, 1,000 recipients) until every event is durable, deduplicated and in a
        digest: `run --until-idle` on routes that hold, so that nothing is rendered or sent. The clock runs from exec to
        exit, so the start, the last checkpoint and the close are in it. The store is compared with the generator's counts.
again   the same file into the same store: nothing may change.
due     --windows open digests, 1,000 of them due each second, to a mailer that only counts; lateness as the worker's
        own histogram gives it, over --seconds.
kafka   the same lines published to a topic of 6 partitions, then read into an empty store, and again by another group;
        our CPU is the kernel's count of the worker. Then one of two consumers is killed.
pg      as `intake` and `again`, into PostgreSQL with fsync on the same machine; its CPU is that of all its processes.
pg_claim    --digests digests in PostgreSQL, all due at once, in creation order and in random order of their due times, to a
        mailer that only counts, by 1 and by 4 workers; from the first call to the last settlement, as the store has
        recorded them. Lock waits of more than 10 ms are those that the server logs. Then once more beside a transaction
        that is older than all of it, against the first of them.
pg_due  as `due`, in PostgreSQL; the backlog view is asked 21 times while the worker is at work.
pg_peers    --jobs jobs with a key each into graphile-worker (Node.js), River (Go) and owlpost on one server: taken in, all once
        more, and each run once; all durable and deduplicated. The peers are fetched into DIR/peers on first use.
pg_quota    14, 500 and 2,000/s (--rates) for --quota-seconds by 1, 2, 4 and 8 workers (--workers) that come and go, against an
        endpoint that refuses what comes faster in any second.
pg_year     pg_claim (one worker, random order) and pg_due for --seconds, in an empty store and in one of --year settled items;
        then the purge of the --purge oldest of them. 10,000,000 want 18 GB of disk.
sqs     --messages messages of an SQS server (ElasticMQ) into the store, against a bare loop of receive and batch delete with
        the same SDK, 8 tasks: best of two turns each. The worker's clock runs from exec until all are committed.
ses     --mails mails of one item each through the SES client to an endpoint on loopback that only counts, as the endpoint
        counts them, from its first call to its last.
smtp    the same through SMTP, pooled, to a server that only counts (no TLS).
render  a 20-item digest, HTML and text, on one core, in a loop.
quota   14/s and 500/s for --seconds with work waiting, against an endpoint that refuses what comes faster in any second.
resources   memory and CPU of one worker that has nothing to do, with --windows open digests of which none is due, and while
        it sends them all to a mailer that only counts, for --seconds: on SQLite and on PostgreSQL, where KEDA's question is
        asked in between. What deploy/README.md and the chart's requests and limits say.
ready   from exec until /readyz says 200, median of 11.
size    of the binary.

Peak memory is the kernel's VmHWM. Exit 1 if a figure is not reached or a count is wrong.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import events
import kafka
import peers
import postgres
import postgres_year
import resources

HERE = pathlib.Path(__file__).resolve().parent
RECIPIENTS = 1_000
PER_SECOND = 1_000
# Limits in which a step must end; a slower machine misses its figure long before.
STEP_MAX_S = 600

# Every type of the generated lines has a route, and nothing leaves.
HELD = """
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["io.athenz.membership.requested.v1"]
template = "approvals"
priority = "urgent"
hold = true
[[route]]
name = "decisions"
types = ["io.athenz.membership.decided.v1"]
template = "decisions"
hold = true
[[route]]
name = "expiries"
types = ["io.athenz.membership.expiring.v1"]
template = "expiries"
hold = true
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
template = "changes"
priority = "bulk"
hold = true
[log]
format = "json"
level = "warn"
"""

MIXED = """
[store]
url = "sqlite:{dir}/mixed.db"
[[source]]
name = "bench"
kind = "file"
path = "{dir}/mixed.ndjson"
[http]
listen = "127.0.0.1:0"
[mailer]
kind = "discard"
""" + HELD

DUE = """
[store]
url = "sqlite:{dir}/due.db"
{sources}
[http]
listen = "127.0.0.1:{port}"
[mailer]
kind = "discard"
[delivery]
in_flight = {in_flight}
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "expiries"
types = ["io.athenz.membership.expiring.v1"]
template = "expiries"
cadence = {{ first_after = "60d", before_deadline = "1h" }}
[log]
format = "json"
level = "warn"
"""

SQS = """
[store]
url = "sqlite:{dir}/sqs.db"
[[source]]
name = "bench"
kind = "sqs"
queue = "{queue}"
endpoint_url = "{url}"
[http]
listen = "127.0.0.1:{port}"
[mailer]
kind = "discard"
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "news"
types = ["com.example.news"]
template = "digest"
hold = true
[log]
format = "json"
level = "warn"
"""

READY = """
[store]
url = "sqlite:{dir}/ready.db"
[http]
listen = "127.0.0.1:{port}"
[[source]]
name = "events"
kind = "http"
[mailer]
kind = "discard"
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "changes"
types = ["io.athenz.domain.changed.v1"]
[log]
level = "error"
"""


MAILS = """
[store]
url = "sqlite:{dir}/{db}.db"
[http]
listen = "127.0.0.1:{port}"
[[source]]
name = "bench"
kind = "file"
path = "{dir}/mails.ndjson"
[mailer]
{mailer}
[quota]
{quota}
[recipients]
allowed_domains = ["example.com"]
[delivery]
in_flight = {in_flight}
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "expiries"
types = ["io.athenz.membership.expiring.v1"]
template = "expiries"
[log]
format = "json"
level = "warn"
"""


class Failed(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def peak_mb(pid, so_far):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return so_far
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return max(so_far, int(found[1]) / 1024) if found else so_far


def run_to_end(binary, config):
    """Runs `run --until-idle`; gives (seconds, peak MB). Exit 1 is right: what is held stays open."""
    began = time.monotonic()
    child = subprocess.Popen([binary, "run", "--until-idle", "-c", config], stdin=subprocess.DEVNULL)
    peak = 0.0
    try:
        while child.poll() is None:
            peak = peak_mb(child.pid, peak)
            if time.monotonic() - began > STEP_MAX_S:
                raise Failed(f"{config.name}: not at its end after {STEP_MAX_S} s")
            time.sleep(0.01)
        took = time.monotonic() - began
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode not in (0, 1):
        raise Failed(f"{config.name}: exit {child.returncode}")
    return took, peak


def counts(db):
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as conn:
        one = lambda q: conn.execute(q).fetchone()[0]
        found = {
            "events": one("SELECT count(*) FROM event"),
            "items": one("SELECT count(*) FROM item"),
            "withdrawn": one("SELECT count(*) FROM item WHERE state = 3"),
        }
        ledger = dict(
            conn.execute(
                "SELECT state, sum(n) FROM (SELECT state, n FROM ledger_total UNION ALL SELECT state, n FROM "
                "ledger_delta) GROUP BY state"
            ).fetchall()
        )
        rows = dict(conn.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall())
        if {s: n for s, n in ledger.items() if n} != rows:
            raise Failed(f"{db}: the ledger says {ledger}, the rows {rows}")
        open_in_digests = one("SELECT coalesce(sum(open), 0) FROM digest")
        if open_in_digests != rows.get(0, 0) + rows.get(1, 0):
            raise Failed(f"{db}: {open_in_digests} open items in digests, {rows} items by state")
        return found


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {k: float(v) for k, v in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def total(found, name):
    return sum(v for k, v in found.items() if k == name or k.startswith(name + "{"))


def wait_ready(port, child, limit_s, step_s=0.0005):
    by = time.monotonic() + limit_s
    while time.monotonic() < by:
        if child.poll() is not None:
            raise Failed(f"the worker ended with exit {child.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(step_s)
    raise Failed(f"not ready after {limit_s} s")


def start(binary, config, role="all"):
    return subprocess.Popen([binary, "run", "--role", role, "-c", config], stdin=subprocess.DEVNULL)


def end(child):
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def config(folder, name, text, **values):
    path = folder / f"{name}.toml"
    path.write_text(text.format(dir=folder, **values))
    return path


def midnight():
    return datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def bench_intake(args, folder, report):
    path = folder / "mixed.ndjson"
    base = midnight() - datetime.timedelta(days=2)
    expected = events.write_mixed(path, args.events, base, RECIPIENTS)
    size = path.stat().st_size
    made = config(folder, "mixed", MIXED)
    if "intake" in args.only:
        for old in folder.glob("mixed.db*"):
            old.unlink()
    took, peak = run_to_end(args.binary, made)
    what = f"{args.events:,} events of {size // args.events} bytes, 10 % copies"
    report(what, f"{args.events / took:,.0f} events/s", ">= 50,000", args.events / took >= 50_000)
    report("  peak RSS", f"{peak:.0f} MB", "< 128", peak < 128)
    found = counts(folder / "mixed.db")
    if found != expected:
        raise Failed(f"the store has {found}, the file means {expected}")
    report("  store", f"{(folder / 'mixed.db').stat().st_size / 2**20:.0f} MB", "", True)
    if "again" in args.only:
        before = found
        took, peak = run_to_end(args.binary, made)
        if counts(folder / "mixed.db") != before:
            raise Failed("the same file again changed the store")
        report("the same file again, nothing changes", f"{args.events / took:,.0f} events/s", ">= 100,000",
               args.events / took >= 100_000)
        report("  peak RSS", f"{peak:.0f} MB", "< 128", peak < 128)
    if not args.keep:
        path.unlink()


def bench_kafka(args, folder, report):
    kafka.measure(sys.modules[__name__], args, folder, report)


def bench_pg(args, folder, report):
    postgres.measure_intake(sys.modules[__name__], args, folder, report)


def bench_pg_claim(args, folder, report):
    postgres.measure_claim(sys.modules[__name__], args, folder, report)


def bench_pg_quota(args, folder, report):
    postgres.measure_quota(sys.modules[__name__], args, folder, report)


def bench_pg_due(args, folder, report):
    postgres.measure_due(sys.modules[__name__], args, folder, report)


def bench_pg_year(args, folder, report):
    postgres_year.measure(sys.modules[__name__], args, folder, report)


def bench_pg_peers(args, folder, report):
    peers.measure(sys.modules[__name__], args, folder, report)


def lateness(found):
    """Of a worker's metrics: how many digests it began, their 99th percentile, and the share within a bucket."""
    name = "owlpost_digest_lateness_seconds"
    sent = found[f"{name}_count"]
    share = lambda le: found[f'{name}_bucket{{le="{le}"}}'] / max(sent, 1)
    buckets = sorted((float(k.split('"')[1]), v) for k, v in found.items()
                     if k.startswith(f"{name}_bucket") and "Inf" not in k)
    return sent, next((le for le, v in buckets if v >= 0.99 * sent), float("inf")), share


def bench_due(args, folder, report):
    for old in folder.glob("due.db*"):
        old.unlink()
    port = free_port()
    source = f'[[source]]\nname = "bench"\nkind = "file"\npath = "{folder}/due.ndjson"'
    intake = config(folder, "due-intake", DUE, port=port, sources=source, in_flight=args.in_flight)
    deliver = config(folder, "due", DUE, port=port, sources="", in_flight=args.in_flight)
    # Nothing is due before the store is full: generating and taking them in may take this long.
    lead = datetime.timedelta(seconds=30 + args.windows / 4_000)
    now = datetime.datetime.now(datetime.timezone.utc)
    due_from = now + lead
    events.write_expiries(folder / "due.ndjson", args.windows, now - datetime.timedelta(minutes=1),
                          due_from + datetime.timedelta(hours=1), PER_SECOND)
    child = start(args.binary, intake, "intake")
    try:
        wait_ready(port, child, 30)
        while total(metrics(port), "owlpost_events_total") < args.windows:
            if datetime.datetime.now(datetime.timezone.utc) > due_from - datetime.timedelta(seconds=5):
                raise Failed("the store was not full in time; take fewer --windows")
            time.sleep(0.2)
    finally:
        end(child)
    (folder / "due.ndjson").unlink()
    child = start(args.binary, deliver, "deliver")
    peak = 0.0
    try:
        wait_ready(port, child, 30)
        until = due_from + datetime.timedelta(seconds=args.seconds)
        while (now := datetime.datetime.now(datetime.timezone.utc)) < until:
            if child.poll() is not None:
                raise Failed(f"the worker ended with exit {child.returncode}")
            peak = peak_mb(child.pid, peak)
            time.sleep(min(1.0, (until - now).total_seconds()))
        found = metrics(port)
        cpu = cpu_s(child.pid)
    finally:
        end(child)
    sent, p99, share = lateness(found)
    open_left = args.windows - sent
    missing = args.seconds * PER_SECOND - sent
    report(f"{args.windows:,} open digests, {PER_SECOND:,} due each second, {args.seconds} s: lateness p99",
           f"<= {p99:g} s", "< 1 s", p99 <= 1.0 and missing <= PER_SECOND)
    report("  sent", f"{sent:,.0f} of {args.seconds * PER_SECOND:,}", "", missing <= PER_SECOND)
    report("  within 0.1 s, 0.5 s, 1 s", f"{share('0.1'):.1%} {share('0.5'):.1%} {share('1'):.1%}", "", True)
    report("  CPU", f"{cpu / max(args.seconds, 1):.2f} cores", "", True)
    report("  peak RSS", f"{peak:.0f} MB", "< 64", peak < 64)
    assert open_left >= 0


class Tool:
    """One of tests/bench/tools.rs: serves until `record` is asked for."""

    def __init__(self, args, *words):
        self.child = subprocess.Popen([args.tools, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = json.loads(self.child.stdout.readline())["port"]

    def record(self):
        self.child.stdin.close()
        found = json.loads(self.child.stdout.readline())
        self.child.wait()
        return found

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}


def mails(folder, count):
    now = datetime.datetime.now(datetime.timezone.utc)
    events.write_expiries(folder / "mails.ndjson", count, now - datetime.timedelta(minutes=1),
                          now + datetime.timedelta(days=3), PER_SECOND)


def bench_mails(args, folder, report):
    mails(folder, args.mails)
    unbounded = "per_second = 1000000\nper_day = 1000000000"
    for name, target, words, mailer in [
        ("ses", 3_000, ("ses", 1e9, -1, 0), 'kind = "ses"\nregion = "eu-west-1"\nendpoint_url = "http://127.0.0.1:{port}"'),
        ("smtp", 1_500, ("smtp",), 'kind = "smtp"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"'),
    ]:
        if name not in args.only:
            continue
        tool = Tool(args, *words)
        try:
            made = config(folder, name, MAILS, db=name, port=0, quota=unbounded, in_flight=args.in_flight * 4,
                          mailer=mailer.format(port=tool.port))
            os.environ.update(KEYS)
            took, peak = run_to_end(args.binary, made)
            found = tool.record()
        finally:
            tool.end()
        if found["taken"] != args.mails:
            raise Failed(f"{name}: {found['taken']} mails arrived of {args.mails}")
        rate = found["taken"] / max(found["seconds"], 1e-9)
        report(f"{args.mails:,} mails of one item each through {name}", f"{rate:,.0f} mails/s", f">= {target:,}", rate >= target)
        report("  peak RSS", f"{peak:.0f} MB", "", True)


def bench_quota(args, folder, report):
    for rate in (14, 500):
        mails(folder, int(rate * args.seconds * 1.3) + 100)
        tool = Tool(args, "ses", rate, 10_000_000, 1)
        port = free_port()
        made = config(folder, f"quota{rate}", MAILS, db=f"quota{rate}", port=port,
                      mailer=f'kind = "ses"\nregion = "eu-west-1"\nendpoint_url = "http://127.0.0.1:{tool.port}"',
                      quota="", in_flight=args.in_flight * 4)
        os.environ.update(KEYS)
        child = start(args.binary, made)
        try:
            wait_ready(port, child, 30)
            time.sleep(args.seconds)
        finally:
            end(child)
            found = tool.record()
            tool.end()
        used = found["taken"] / max(found["seconds"], 1e-9) / rate
        report(f"quota of {rate}/s, {found['seconds']:.0f} s with work waiting: used", f"{used:.2%}", ">= 99 %", used >= 0.99)
        share = found["refused"] / max(found["calls"], 1)
        report("  refused by a server that counts each second", f"{found['refused']} of {found['calls']:,}", "< 1 in 1,000",
               share < 0.001)
        bounds = [1 + rate * (length + 0.2) for length in (0.1, 1.0, 10.0)]
        ok = all(most <= bound for most, bound in zip(found["worst"], bounds))
        report("  most calls in any 0.1 s, 1 s, 10 s", " ".join(map(str, found["worst"])),
               "<= " + " ".join(f"{b:.0f}" for b in bounds), ok)


@contextlib.contextmanager
def elasticmq(args, folder):
    """The URL of an SQS server of our own, whose jars tests/run has fetched."""
    libs = pathlib.Path(args.binary).parent.parent / "servers" / "elasticmq" / "libs"
    if not libs.is_dir():
        raise Failed(f"{libs} is missing; tests/run bench fetches it")
    port = free_port()
    made = folder / "elasticmq.conf"
    made.write_text(
        f'include classpath("application.conf")\n'
        f'node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}\n'
        f'generate-node-address = false\nrest-stats {{ enabled = false }}\n'
        f'rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {port}, sqs-limits = strict }}\n'
    )
    java = ["java", "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", f"-Dconfig.file={made}", "-cp", f"{libs}/*",
            "org.elasticmq.server.Main"]
    with open(folder / "elasticmq.log", "wb") as log:
        child = subprocess.Popen(java, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        by = time.monotonic() + 60
        while "=== ElasticMQ server" not in (folder / "elasticmq.log").read_text():
            if child.poll() is not None or time.monotonic() > by:
                raise Failed("ElasticMQ did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


def bench_sqs(args, folder, report):
    """A bare loop and the worker take turns on the same server, so that it is warm, or busy, for both."""
    count, rates = args.messages, {"loop": [], "worker": []}
    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "elasticmq",
                   "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ.update(environment)
    with elasticmq(args, folder) as url:
        for turn in range(4):
            queue, worker = f"bench-{turn}", turn % 2
            subprocess.run([args.tools, "sqs-fill", url, queue, str(count)], check=True)
            if not worker:
                made = subprocess.run([args.tools, "sqs-loop", url, queue, "8"], capture_output=True, check=True)
                found = json.loads(made.stdout)
                if found["taken"] != count:
                    raise Failed(f"the loop took {found['taken']} of {count}")
                rates["loop"].append(count / found["seconds"])
                continue
            port = free_port()
            for old in folder.glob("sqs.db*"):
                old.unlink()
            child = start(args.binary, config(folder, "sqs", SQS, port=port, queue=queue, url=url), "intake")
            try:
                began = time.monotonic()
                by = began + 600
                wait_ready(port, child, 30)
                while total(metrics(port), "owlpost_events_total") < count:
                    if time.monotonic() > by:
                        raise Failed("the worker did not take all messages in 10 minutes")
                    time.sleep(0.02)
                rates["worker"].append(count / (time.monotonic() - began))
            finally:
                end(child)
            if counts(folder / "sqs.db")["events"] != count:
                raise Failed("the store has not every event once")
    loop, worker = max(rates["loop"]), max(rates["worker"])
    report(f"{count:,} messages of SQS, a bare loop of 8 tasks", f"{loop:,.0f}/s", "", True)
    report("  the worker, start included, to the store's commit", f"{worker:,.0f}/s", ">= 90 %", worker >= 0.9 * loop)


def bench_render(args, _folder, report):
    found = json.loads(subprocess.run([args.tools, "render", "5"], capture_output=True, check=True).stdout)
    report("20-item digest, HTML and text, rendered on a core", f"{found['per_second']:,.0f}/s", ">= 5,000",
           found["per_second"] >= 5_000)
    report("  of so many bytes", f"{found['bytes']:,}", "", True)


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_resources(args, folder, report):
    resources.measure(sys.modules[__name__], args, folder, report)


def bench_ready(args, folder, report):
    took = []
    for _ in range(11):
        port = free_port()
        made = config(folder, "ready", READY, port=port)
        began = time.monotonic()
        child = start(args.binary, made)
        try:
            wait_ready(port, child, 30)
            took.append(time.monotonic() - began)
        finally:
            end(child)
    median = statistics.median(took) * 1000
    report("exec to ready, median of 11", f"{median:.0f} ms (longest {max(took) * 1000:.0f})", "< 100 ms", median < 100)


def bench_size(args, _folder, report):
    size = os.stat(args.binary).st_size / 2**20
    report("release binary", f"{size:.1f} MB", "< 40 MB", size < 40)


def fsync_ms(folder):
    took = []
    path = folder / "fsync"
    with open(path, "wb") as out:
        for _ in range(50):
            out.write(bytes(4096))
            out.flush()
            began = time.monotonic()
            os.fsync(out.fileno())
            took.append(time.monotonic() - began)
    path.unlink()
    return statistics.median(took) * 1000


def machine(folder):
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
    return (
        f"{os.cpu_count()} x {cpu[1] if cpu else 'unknown CPU'}, {memory:.0f} GiB, Linux {os.uname().release}, {kind}, "
        f"fsync of 4 KiB {fsync_ms(folder):.2f} ms, load {os.getloadavg()[0]:.1f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="a folder on a real disk; emptied at the end")
    steps = "intake,again,kafka,due,pg,pg_claim,pg_due,pg_peers,sqs,ses,smtp,render,quota,resources,ready,size"
    parser.add_argument("--only", default=steps, type=lambda s: s.split(","))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--mails", type=int, default=50_000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--digests", type=int, default=200_000)
    parser.add_argument("--claim-in-flight", type=int, default=512)
    numbers = lambda s: [int(n) for n in s.split(",")]
    parser.add_argument("--quota-seconds", type=int, default=20)
    parser.add_argument("--rates", type=numbers, default=[14, 500, 2_000])
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--year", type=int, default=10_000_000, help="settled items of a store that is a year old")
    parser.add_argument("--purge", type=int, default=100_000, help="of them, older than the retention")
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--jobs-per-second", type=int, default=5_000, help="the least rate at which they come in")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.tools = str(pathlib.Path(args.binary).parent / "examples" / "bench-tools")
    folder = args.dir.resolve() / f"owlpost-bench-{os.getpid()}"
    folder.mkdir(parents=True)
    missed = 0

    def report(what, figure, target, reached):
        nonlocal missed
        missed += not reached
        verdict = "" if not target and reached else ("reached" if reached else "MISSED")
        print(f"{what:<78} {figure:>24} {target:>12} {verdict}", flush=True)

    try:
        print(machine(folder), flush=True)
        steps = [({"intake", "again"}, bench_intake), ({"kafka"}, bench_kafka), ({"due"}, bench_due), ({"pg"}, bench_pg),
                 ({"pg_claim"}, bench_pg_claim), ({"pg_quota"}, bench_pg_quota), ({"pg_due"}, bench_pg_due),
                 ({"pg_peers"}, bench_pg_peers), ({"pg_year"}, bench_pg_year), ({"sqs"}, bench_sqs),
                 ({"ses", "smtp"}, bench_mails), ({"render"}, bench_render), ({"quota"}, bench_quota),
                 ({"resources"}, bench_resources), ({"ready"}, bench_ready), ({"size"}, bench_size)]
        for names, step in steps:
            if names & set(args.only):
                try:
                    step(args, folder, report)
                except Failed as why:
                    missed += 1
                    print(f"{'/'.join(sorted(names))}: {why}", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
