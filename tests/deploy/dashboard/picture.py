#!/usr/bin/env python3
"""Makes deploy/grafana/owlpost.png: the dashboard over minutes of a real worker, from a real Prometheus.

    picture.py target/release/owlpost --dir DIR [--out deploy/grafana/owlpost.png] [--minutes 7]

Needs what `tests/run bench` and `tests/run deploy` set up, and Chromium. DIR gets all else, among it dashboard.html with every
row; the picture has the first three. Events come over HTTP, Kafka and SQS; mails go to a stand-in for SES on loopback, which
is away for a while, and later suspended. Prometheus looks each two seconds, and its alerts wait a tenth of their time.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import life

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(HERE.parent.parent / "bench"))

import kafka  # noqa: E402
import run as bench  # noqa: E402

SCRAPE_S = 2
KEYS = {**bench.KEYS, "AWS_REGION": "elasticmq"}

CONFIG = """
[store]
url = "sqlite:{dir}/owlpost.db"
[http]
listen = "127.0.0.1:{port}"
[log]
format = "json"
[[source]]
name = "http"
kind = "http"
[[source]]
name = "topic"
kind = "kafka"
brokers = ["127.0.0.1:{kafka}"]
topics = ["events"]
group = "owlpost"
[[source]]
name = "queue"
kind = "sqs"
queue = "events"
endpoint_url = "{sqs}"
[dead_letters]
forward_to = "sqs://letters"
region = "elasticmq"
endpoint_url = "{sqs}"
[mailer]
kind = "ses"
region = "eu-west-1"
endpoint_url = "http://127.0.0.1:{ses}"
from = "Athenz <access@example.com>"
[recipients]
allowed_domains = ["example.com"]
[[directory]]
kind = "rules"
rules = [{{ principal = "user.{{name}}", address = "{{name}}@example.com" }}]
[[route]]
name = "approvals"
types = ["com.example.asked"]
priority = "urgent"
cadence = {{ first_after = "5s" }}
[[route]]
name = "news"
types = ["com.example.told", "com.example.news"]
cadence = {{ first_after = "20s", at_most_every = "1m" }}
[[route]]
name = "held"
types = ["com.example.held"]
hold = true
"""

SCRAPES = """
global: {{scrape_interval: {scrape}s, evaluation_interval: {scrape}s}}
rule_files: [rules.yaml]
scrape_configs:
- job_name: mail/owlpost
  static_configs: [{{targets: ['127.0.0.1:{port}'], labels: {{namespace: mail, pod: owlpost-0, instance: owlpost-0}}}}]
"""


@contextlib.contextmanager
def prometheus(args, port):
    """Looks at the worker; its rules are ours."""
    program = shutil.which("prometheus") or str(args.binary.parent.parent / "servers/prometheus/usr/bin/prometheus")
    rules = (ROOT / "deploy/prometheus/owlpost.rules.yaml").read_text().replace("interval: 30s", f"interval: {SCRAPE_S}s")
    seconds = {"m": 60, "h": 3600, "d": 86400}
    tenth = lambda found: f"for: {int(found[1]) * seconds[found[2]] // 10}s"
    (args.dir / "rules.yaml").write_text(re.sub(r"for: (\d+)([mhd])", tenth, rules))
    (args.dir / "prometheus.yml").write_text(SCRAPES.format(scrape=SCRAPE_S, port=port))
    address = f"127.0.0.1:{bench.free_port()}"
    words = ["--config.file=prometheus.yml", "--storage.tsdb.path=series", f"--web.listen-address={address}"]
    with open(args.dir / "prometheus.log", "wb") as log:
        child = subprocess.Popen([program, *words], cwd=args.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        bench.end(child)


def publish(args, to, count, first):
    """So many events, as a producer brings them to a broker."""
    lines = "".join(json.dumps(life.event(first + n)) + "\n" for n in range(count))
    subprocess.run([args.binary, "publish", "--to", to], input=lines, text=True, check=True, stdout=subprocess.DEVNULL)


def live(args, account, worker, config, topic, queue):
    """Until the time is over, in parts of the whole: what the picture shows happens at the same places of any length."""
    owlpost = lambda *words: subprocess.run([args.binary, *words, "-c", config], check=True, stdout=subprocess.DEVNULL)
    todo = [
        (0.12, lambda: publish(args, topic, 400, 1_000_000)),
        (0.16, lambda: [life.post(worker, b"{%d" % n, "application/cloudevents+json") for n in range(5)]),
        (0.22, lambda: account.feels("broken")),
        (0.24, lambda: account.feels("away")),
        (0.34, lambda: publish(args, queue, 300, 2_000_000)),
        (0.40, lambda: account.feels("well")),
        (0.46, lambda: account.feels("strict")),
        (0.50, lambda: account.feels("well")),
        (0.62, lambda: account.feels("paused")),
        (0.74, lambda: account.feels("well")),
        (0.86, lambda: owlpost("pause", "--route", "news")),
        (0.91, lambda: owlpost("resume", "--route", "news")),
        (0.93, lambda: publish(args, topic, 200, 1_000_300)),
    ]
    began, n = time.monotonic(), 0.0
    while (now := time.monotonic() - began) < args.minutes * 60:
        while todo and now >= todo[0][0] * args.minutes * 60:
            todo.pop(0)[1]()
        count = int(n + life.rate(now)) - int(n)
        batch = [life.event(int(n) + place) for place in range(count)]
        n += life.rate(now)
        # A producer that is not sure sends its batch again.
        for _ in range(2 if int(n) % 9 == 0 else 1):
            life.post(worker, json.dumps(batch).encode())
        time.sleep(max(0.0, 1 - (time.monotonic() - began - now)))


def shoot(page, picture):
    size = re.search(r"<body style=\"width:(\d+)px;height:(\d+)px", page.read_text())
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size[1]},{size[2]}",
             f"--screenshot={picture}", page.as_uri()]
    subprocess.run(["chromium", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def draw(args, server, name, *words):
    page = args.dir / name
    command = [sys.executable, HERE / "draw.py", ROOT / "deploy/grafana/owlpost.json", server, page, "--minutes",
               str(args.minutes), "--scrape", str(SCRAPE_S), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return page


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "deploy/grafana/owlpost.png")
    parser.add_argument("--minutes", type=float, default=7)
    args = parser.parse_args()
    args.binary, args.dir = args.binary.absolute(), args.dir.absolute()
    args.tools = str(args.binary.parent / "examples/bench-tools")
    args.dir.mkdir(parents=True)
    os.environ.update(KEYS)
    account, port = life.Account(), bench.free_port()
    with bench.elasticmq(args, args.dir) as sqs, kafka.broker(bench, args, args.dir) as broker:
        broker.topic("events")
        # For those who publish to a queue by its name.
        os.environ["AWS_ENDPOINT_URL_SQS"] = sqs
        for queue in ("events", "letters"):
            subprocess.run([args.tools, "sqs-fill", sqs, queue, "0"], check=True)
        config = bench.config(args.dir, "owlpost", CONFIG, port=port, kafka=broker.port, sqs=sqs, ses=account.port)
        with open(args.dir / "owlpost.log", "wb") as log, prometheus(args, port) as server:
            child = subprocess.Popen([args.binary, "run", "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                bench.wait_ready(port, child, 60)
                live(args, account, f"http://127.0.0.1:{port}", config, f"kafka://127.0.0.1:{broker.port}/events",
                     "sqs://events")
                draw(args, server, "dashboard.html")
                shoot(draw(args, server, "first.html", "--rows", "3", "--width", "1280"), args.out.absolute())
            finally:
                bench.end(child)


if __name__ == "__main__":
    main()
