"""Kafka: the whole way from a topic into the store, with the broker on the same machine."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import events

PARTITIONS = 6
SESSION_MS = 6_000

BROKER = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/kafka
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
"""

WORKER = """
[store]
url = "sqlite:{dir}/{db}.db"
[[source]]
name = "bench"
kind = "kafka"
brokers = ["127.0.0.1:{broker}"]
topics = ["{topic}"]
group = "{group}"
properties = {{ "session.timeout.ms" = {session_ms}, "heartbeat.interval.ms" = 1000 }}
[http]
listen = "127.0.0.1:{port}"
[mailer]
kind = "discard"
"""


class Broker:
    def __init__(self, tools, port):
        self.tools, self.port = tools, port

    def topic(self, name):
        subprocess.run([self.tools, "kafka-topic", f"127.0.0.1:{self.port}", name, str(PARTITIONS)], check=True)


@contextlib.contextmanager
def broker(bench, args, folder):
    """A broker of our own, whose jars tests/run has fetched."""
    libs = pathlib.Path(args.binary).parent.parent / "servers" / "kafka" / "libs"
    if not libs.is_dir():
        raise bench.Failed(f"{libs} is missing; tests/run bench fetches it")
    port, controller = bench.free_port(), bench.free_port()
    made = folder / "broker.properties"
    made.write_text(BROKER.format(port=port, controller=controller, folder=folder))
    storage = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format",
               "-t", "b3dscG9zdC1iZW5jaC0xNg", "-c", str(made)]
    subprocess.run(storage, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    one = Broker(args.tools, port)
    java = ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
            "-cp", f"{libs}/*", "kafka.Kafka", str(made)]
    log = folder / "broker.log"
    with open(log, "wb") as out:
        child = subprocess.Popen(java, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        by = time.monotonic() + 60
        while "Kafka Server started" not in log.read_text():
            if child.poll() is not None or time.monotonic() > by:
                raise bench.Failed("the broker did not start")
            time.sleep(0.05)
        yield one
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def make_offsets_topic(bench, args, one, folder):
    """The first group of a broker's life waits seconds for the topic of the offsets to be made: not ours to measure."""
    one.topic("before")
    path, made = folder / "before.ndjson", folder / "before.toml"
    events.write_expiries(path, 1, bench.midnight(), bench.midnight() + bench.datetime.timedelta(days=9), 1)
    publish(bench, args, one, "before", path)
    values = dict(dir=folder, broker=one.port, topic="before", session_ms=SESSION_MS, port=0, db="before", group="before")
    made.write_text((WORKER + bench.HELD).format(**values))
    through(bench, args, made)


def publish(bench, args, one, topic, path):
    """Gives the seconds it took."""
    began = time.monotonic()
    to = f"kafka://127.0.0.1:{one.port}/{topic}"
    subprocess.run([args.binary, "publish", "--to", to, str(path)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def through(bench, args, made):
    """`run --until-idle`; gives (seconds, CPU seconds, peak MB)."""
    before = os.times()
    took, peak = bench.run_to_end(args.binary, made)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return took, cpu, peak


def measure(bench, args, folder, report):
    path = folder / "kafka.ndjson"
    expected = events.write_mixed(path, args.events, bench.midnight() - bench.datetime.timedelta(days=2), bench.RECIPIENTS)
    with broker(bench, args, folder) as one:
        make_offsets_topic(bench, args, one, folder)
        one.topic("bench")
        took = publish(bench, args, one, "bench", path)
        report(f"{args.events:,} events published to Kafka", f"{args.events / took:,.0f} events/s", "", True)
        path.unlink()
        values = dict(dir=folder, broker=one.port, topic="bench", session_ms=SESSION_MS, port=0, db="kafka")
        for group, what, target in [("first", "from Kafka, 10 % copies", 40_000), ("again", "the same again", 100_000)]:
            made = folder / f"kafka-{group}.toml"
            made.write_text((WORKER + bench.HELD).format(group=group, **values))
            took, cpu, peak = through(bench, args, made)
            rate, us = args.events / took, cpu / args.events * 1e6
            report(f"{args.events:,} events {what}", f"{rate:,.0f} events/s", f">= {target:,}", rate >= target)
            bound = 22 if group == "first" else None
            report("  our CPU an event", f"{us:.1f} us", f"<= {bound} us" if bound else "", not bound or us <= bound)
            report("  peak RSS", f"{peak:.0f} MB", "< 128", peak < 128)
            found = bench.counts(folder / "kafka.db")
            if found != expected:
                raise bench.Failed(f"the store has {found}, the events mean {expected}")
        takeover(bench, args, folder, report, one)


def takeover(bench, args, folder, report, one):
    """Two workers share a topic; one is killed. How long until the other has what is in every partition?"""
    one.topic("takeover")
    values = dict(dir=folder, broker=one.port, topic="takeover", group="takeover", session_ms=SESSION_MS)
    workers = []
    try:
        for n in (0, 1):
            port = bench.free_port()
            made = folder / f"takeover{n}.toml"
            made.write_text((WORKER + bench.HELD).format(db=f"takeover{n}", port=port, **values))
            workers.append((bench.start(args.binary, made, "intake"), port))
        for child, port in workers:
            bench.wait_ready(port, child, 60)
        by = time.monotonic() + 60
        while any(bench.total(bench.metrics(port), "owlpost_source_partitions") != PARTITIONS / 2 for _, port in workers):
            if time.monotonic() > by:
                raise bench.Failed("the two workers did not share the partitions")
            time.sleep(0.1)
        path, count = folder / "takeover.ndjson", 3_000
        events.write_expiries(path, count, bench.midnight(), bench.midnight() + bench.datetime.timedelta(days=9), 10)
        workers[0][0].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        workers[0][0].wait()
        publish(bench, args, one, "takeover", path)
        while bench.total(bench.metrics(workers[1][1]), "owlpost_events_total") < count:
            if time.monotonic() - killed > 120:
                raise bench.Failed("the other worker did not take over in two minutes")
            time.sleep(0.05)
        took, bound = time.monotonic() - killed, SESSION_MS / 1000 + 5
        report("takeover after SIGKILL of one of two consumers", f"{took:.1f} s", f"<= {bound:.0f} s", took <= bound)
    finally:
        for child, _ in workers:
            bench.end(child)
