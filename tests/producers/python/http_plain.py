"""Sends what happened to one access request to owlpost over HTTP, with requests: structured, binary and as a batch.

OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… python http_plain.py 4711 user.joe
"""

import json
import os
import sys
from datetime import datetime, timezone

import requests
from urllib3.util.retry import Retry

SOURCE = "access-desk/python-http-plain"


def session():
    """Repeats what may go better the next time, as Retry-After says; a POST may be repeated, since its ids stay."""
    retry = Retry(
        total=8,
        allowed_methods={"POST"},
        status_forcelist={408, 429, 502, 503, 504},
        backoff_factor=0.5,
        respect_retry_after_header=True,
    )
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=retry))
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    session.headers["Authorization"] = f"Bearer {os.environ['OWLPOST_TOKEN']}"
    return session


def post(session, headers, body):
    answer = session.post(f"{os.environ['OWLPOST_URL']}/v1/events", headers=headers, data=body, timeout=(5, 30))
    if answer.status_code != 202:  # 400, 401, 413, 415: the same again would be refused again
        raise RuntimeError(f"owlpost refused the request: {answer.status_code} {answer.text}")
    if rejected := answer.json()["rejected"]:  # the others of the batch are stored
        raise RuntimeError(f"owlpost refused events: {rejected}")


def event(event_id, event_type, data):
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": event_type,
        "time": datetime.now(timezone.utc).isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }


def main(request, member):
    writers = {"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": member}
    asked = {**writers, "change": "add", "requester": member}
    # The id names what happened, so it is the same when this runs again.
    requested = event(
        f"{request}-requested", "io.athenz.membership.requested.v1", {**asked, "recipients": ["user.alice"]}
    )
    decided = event(
        f"{request}-decided",
        "io.athenz.membership.decided.v1",
        {**asked, "decision": "approve", "actor": "user.alice", "recipients": [member]},
    )
    added = event(f"{request}-added", "io.athenz.membership.added.v1", {**writers, "recipients": [member]})
    oncall = event(f"{request}-oncall", "com.example.oncall.started.v1", {"team": "sports", "recipients": [member]})

    with session() as http:
        # Structured: the event is one JSON document.
        post(http, {"Content-Type": "application/cloudevents+json"}, json.dumps(requested))
        # Binary: attributes are headers, the body is the data alone.
        headers = {f"ce-{name}": decided[name] for name in ("specversion", "id", "source", "type", "time")}
        post(http, {**headers, "Content-Type": decided["datacontenttype"]}, json.dumps(decided["data"]))
        # Batch: several events in one request, up to 10,000 and 8 MiB.
        post(http, {"Content-Type": "application/cloudevents-batch+json"}, json.dumps([added, oncall]))


if __name__ == "__main__":
    main(*sys.argv[1:])
