"""Sends what happened to one access request to owlpost over HTTP, with the CloudEvents SDK: structured, binary, batch.

OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… python http_sdk.py 4711 user.joe
"""

import os
import sys
from datetime import datetime, timezone

import requests
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from urllib3.util.retry import Retry

SOURCE = "access-desk/python-http-sdk"


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


def post(session, message):
    url = f"{os.environ['OWLPOST_URL']}/v1/events"
    answer = session.post(url, headers=message.headers, data=message.body, timeout=(5, 30))
    if answer.status_code != 202:  # 400, 401, 413, 415: the same again would be refused again
        raise RuntimeError(f"owlpost refused the request: {answer.status_code} {answer.text}")
    if rejected := answer.json()["rejected"]:  # the others of the batch are stored
        raise RuntimeError(f"owlpost refused events: {rejected}")


def event(event_id, event_type, data):
    attributes = {
        "id": event_id,
        "source": SOURCE,
        "type": event_type,
        "time": datetime.now(timezone.utc),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes, data)


def main(request, member):
    writers = {"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": member}
    asked = {**writers, "change": "add", "requester": member}
    # The id names what happened, so it is the same when this runs again. Left out, the SDK would draw a new one each time.
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

    with session() as client:
        post(client, http.to_structured_event(requested))
        post(client, http.to_binary_event(decided))
        # The SDK writes single events; a batch is a JSON array of them, up to 10,000 and 8 MiB.
        body = b"[" + b",".join(JSONFormat().write(event) for event in (added, oncall)) + b"]"
        post(client, http.HTTPMessage({"content-type": "application/cloudevents-batch+json"}, body))


if __name__ == "__main__":
    main(*sys.argv[1:])
