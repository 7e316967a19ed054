"""Sends what happened to one access request to an SQS queue, with boto3 and the CloudEvents SDK.

Region and credentials come as for every AWS tool.
SQS_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/owlpost-events python sqs.py 4711 user.joe
"""

import os
import sys
from datetime import datetime, timezone

import boto3
from botocore.config import Config
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

SOURCE = "access-desk/python-sqs"


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
    asked = {
        "domain": "sports",
        "collection": {"kind": "role", "name": "writers"},
        "member": member,
        "change": "add",
        "requester": member,
    }
    # The id names what happened, so it is the same when this runs again. Left out, the SDK would draw a new one each time.
    requested = event(
        f"{request}-requested", "io.athenz.membership.requested.v1", {**asked, "recipients": ["user.alice"]}
    )
    decided = event(
        f"{request}-decided",
        "io.athenz.membership.decided.v1",
        {**asked, "decision": "approve", "actor": "user.alice", "recipients": [member]},
    )
    # The body of each message is a structured event; up to 10 messages a call. A FIFO queue wants besides, of each,
    # MessageGroupId (such as the domain) and MessageDeduplicationId (such as source and id).
    entries = [
        {"Id": str(n), "MessageBody": JSONFormat().write(event).decode()} for n, event in enumerate((requested, decided))
    ]
    # Throttling, 5xx and lost connections are repeated by the client.
    sqs = boto3.client("sqs", config=Config(retries={"mode": "standard", "max_attempts": 8}))
    answer = sqs.send_message_batch(QueueUrl=os.environ["SQS_QUEUE_URL"], Entries=entries)
    # The call succeeds although single messages of it failed.
    if failed := answer.get("Failed"):
        raise RuntimeError(f"SQS did not take {failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
