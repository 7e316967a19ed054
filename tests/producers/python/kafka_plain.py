"""Sends what happened to one access request to Kafka, with confluent-kafka: one event binary, one structured.

KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
    python kafka_plain.py 4711 user.joe
"""

import json
import os
import sys
from datetime import datetime, timezone

from confluent_kafka import Producer

SOURCE = "access-desk/python-kafka-plain"

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


def main(request, member):
    asked = {
        "domain": "sports",
        "collection": {"kind": "role", "name": "writers"},
        "member": member,
        "change": "add",
        "requester": member,
    }
    failed = []

    def delivered(error, message):
        if error is not None:
            failed.append(str(error))

    producer = Producer(SETTINGS)
    # The key keeps the events of one domain in order: same key, same partition.
    key = asked["domain"]
    now = datetime.now(timezone.utc).isoformat()

    # Binary: attributes are headers, the value is the data alone.
    # The id names what happened, so it is the same when this runs again.
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{request}-requested",
        "ce_source": SOURCE,
        "ce_type": "io.athenz.membership.requested.v1",
        "ce_time": now,
        "content-type": "application/json",
    }
    value = json.dumps({**asked, "recipients": ["user.alice"]})
    producer.produce(os.environ["KAFKA_TOPIC"], key=key, value=value, headers=headers, on_delivery=delivered)

    # Structured: the value is the whole event, and the header content-type says so.
    decided = {
        "specversion": "1.0",
        "id": f"{request}-decided",
        "source": SOURCE,
        "type": "io.athenz.membership.decided.v1",
        "time": now,
        "data": {**asked, "decision": "approve", "actor": "user.alice", "recipients": [member]},
    }
    headers = {"content-type": "application/cloudevents+json; charset=UTF-8"}
    value = json.dumps(decided)
    producer.produce(os.environ["KAFKA_TOPIC"], key=key, value=value, headers=headers, on_delivery=delivered)

    # `produce` only queues: an event is there when its delivery was reported without an error.
    if (left := producer.flush(150)) or failed:
        raise RuntimeError(f"{left} events not confirmed, failed: {failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
