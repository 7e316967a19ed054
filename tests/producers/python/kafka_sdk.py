"""Sends what happened to one access request to Kafka, with the CloudEvents SDK: one event binary, one structured.

KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
    python kafka_sdk.py 4711 user.joe
"""

import os
import sys
from datetime import datetime, timezone

from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer

SOURCE = "access-desk/python-kafka-sdk"

SETTINGS = {
    "bootstrap.servers": os.environ["KAFKA_BROKERS"],
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": os.environ["KAFKA_USER"],
    "sasl.password": os.environ["KAFKA_PASSWORD"],
    "ssl.ca.location": os.environ["KAFKA_CA"],
    # Every replica in sync has it, and a retry neither repeats nor reorders.
    "acks": "all",
    "enable.idempotence": True,
    # Keys are hashed as Java's client does, so that a topic's producers agree on the partition.
    "partitioner": "murmur2_random",
    # How long a message is tried before its delivery is reported as failed.
    "delivery.timeout.ms": 120_000,
}


def event(event_id, event_type, data):
    attributes = {
        "id": event_id,
        "source": SOURCE,
        "type": event_type,
        "time": datetime.now(timezone.utc),
        "datacontenttype": "application/json",
        # The SDK makes it the message's key. Same key, same partition: the events of one domain stay in order.
        "partitionkey": data["domain"],
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
    failed = []

    def delivered(error, message):
        if error is not None:
            failed.append(str(error))

    producer = Producer(SETTINGS)
    for message in (kafka.to_binary_event(requested), kafka.to_structured_event(decided)):
        producer.produce(
            os.environ["KAFKA_TOPIC"],
            key=message.key,
            value=message.value,
            headers=message.headers,
            on_delivery=delivered,
        )
    # `produce` only queues: an event is there when its delivery was reported without an error.
    if (left := producer.flush(150)) or failed:
        raise RuntimeError(f"{left} events not confirmed, failed: {failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
