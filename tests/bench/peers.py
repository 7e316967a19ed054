"""Side by side with two job queues on PostgreSQL: take in jobs with a key each, once more, and run each once.

graphile-worker (Node.js) remembers keys in a table beside it; River (Go) has unique jobs. All three commit what they took
in, and what ran. A job of owlpost is a digest of one event for one person: it is looked up, rendered and recorded as sent.
"""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import time

import events
import postgres
import postgres_fill
import postgres_server

HERE = pathlib.Path(__file__).resolve().parent / "peers"
STEP_MAX_S = 600
WORDS = {"taken": "taken in", "again": "the same again", "ran": "each run once"}


def fetched(bench, args, name, tool, files, commands):
    """The folder in which a peer is ready to run: made once, and again when what names its versions changes."""
    kept, source = args.dir.resolve() / "peers" / name, HERE / name
    sources = sorted(p for p in source.iterdir() if p.suffix in files)
    if kept.is_dir() and all((kept / p.name).exists() and (kept / p.name).read_bytes() == p.read_bytes() for p in sources):
        return kept
    if shutil.which(tool) is None:
        raise bench.Failed(f"{tool} is missing; tests/run bench installs it")
    shutil.rmtree(kept, ignore_errors=True)
    making = kept.with_name(f"{name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for path in sources:
        shutil.copy(path, making)
    for command, more in commands:
        made = subprocess.run(command, cwd=making, env={**os.environ, **more}, capture_output=True, text=True)
        if made.returncode:
            raise bench.Failed(f"{name}: {' '.join(command)}: {made.stderr.strip()[-500:]}")
    making.rename(kept)
    return kept


def graphile(bench, args):
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    kept = fetched(bench, args, "graphile", "npm", (".json", ".mjs"), [(npm, {})])
    return ["node", str(kept / "work.mjs")]


def river(bench, args):
    # What is fetched stays writable: it is to be deleted like anything else.
    go = {"GOFLAGS": "-modcacherw -mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    kept = fetched(bench, args, "river", "go", (".mod", ".sum", ".go"), [(["go", "build", "-o", "river", "."], go)])
    return [str(kept / "river")]


def peer(bench, args, pg, name, command):
    pg.fresh(name)
    made = subprocess.run([*command, pg.url(name), str(args.jobs)], capture_output=True, text=True,
                          env=pg.environment(), timeout=STEP_MAX_S)
    if made.returncode:
        raise bench.Failed(f"{name}: {made.stderr.strip()[-500:]}")
    pg.drop(name)
    return json.loads(made.stdout)


def taken_in(bench, args, pg, database, path):
    """From the start of the process until the last commit."""
    port = bench.free_port()
    text = postgres.FILE.format(path=path) + postgres.DISCARD + postgres_fill.ROUTE
    made = postgres.config(pg, f"pg-{database}-intake", database, text, port=port)
    began = time.monotonic()
    child = bench.start(args.binary, made, "intake")
    try:
        bench.wait_ready(port, child, 60)
        while bench.total(bench.metrics(port), "owlpost_events_total") < args.jobs:
            if time.monotonic() - began > STEP_MAX_S:
                raise bench.Failed("not all events were taken in")
            time.sleep(0.01)
        return time.monotonic() - began
    finally:
        postgres.stop(bench, [child])


def ours(bench, args, pg):
    pg.fresh("owlpost")
    path = pg.folder.parent / "peers.ndjson"
    now = datetime.datetime.now(datetime.timezone.utc)
    # Due an hour before their deadlines, all at once, when both intakes are over.
    due = now + datetime.timedelta(seconds=20 + 2 * args.jobs / args.jobs_per_second)
    events.write_expiries(path, args.jobs, now, due + datetime.timedelta(hours=1), args.jobs * 10)
    took = {"taken": taken_in(bench, args, pg, "owlpost", path), "again": taken_in(bench, args, pg, "owlpost", path)}
    found = postgres.sent(bench, args, pg, "owlpost", args.jobs, postgres_fill.micros(due), 1)
    return {**took, "ran": args.jobs / found["rate"]}


def measure(bench, args, folder, report):
    # Before the server starts: compiling takes the whole machine.
    commands = {"graphile-worker": graphile(bench, args), "River": river(bench, args)}
    with postgres_server.server(bench, folder) as pg:
        best = {}
        for name, command in commands.items():
            found = peer(bench, args, pg, name.replace("-", "_").lower(), command)
            for what in WORDS:
                rate = args.jobs / found[what]
                best[what] = max(best.get(what, 0), rate)
                report(f"{args.jobs:,} jobs with a key each, {name}: {WORDS[what]}", f"{rate:,.0f} jobs/s", "", True)
        for what, seconds in ours(bench, args, pg).items():
            rate = args.jobs / seconds
            report(f"{args.jobs:,} events and digests, owlpost: {WORDS[what]}", f"{rate:,.0f}/s", f"> {best[what]:,.0f}",
                   rate > best[what])
