// Sends what happened to one access request to Kafka, with KafkaJS: one event binary, one structured.
//   KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
//     node kafka-plain.mjs 4711 user.joe
import { readFileSync } from "node:fs";
import { Kafka, Partitioners } from "kafkajs";

const source = "access-desk/node-kafka-plain";

const kafka = new Kafka({
  clientId: "access-desk",
  brokers: process.env.KAFKA_BROKERS.split(","),
  ssl: { ca: [readFileSync(process.env.KAFKA_CA)] },
  sasl: { mechanism: "scram-sha-512", username: process.env.KAFKA_USER, password: process.env.KAFKA_PASSWORD },
});

const [request, member] = process.argv.slice(2);
const asked = {
  domain: "sports", collection: { kind: "role", name: "writers" }, member, change: "add", requester: member,
};
const time = new Date().toISOString();

// The key keeps the events of one domain in order: same key, same partition.
const key = asked.domain;

// Binary: attributes are headers, the value is the data alone.
// The id names what happened, so it is the same when this runs again.
const requested = {
  key,
  headers: {
    ce_specversion: "1.0",
    ce_id: `${request}-requested`,
    ce_source: source,
    ce_type: "io.athenz.membership.requested.v1",
    ce_time: time,
    "content-type": "application/json",
  },
  value: JSON.stringify({ ...asked, recipients: ["user.alice"] }),
};

// Structured: the value is the whole event, and the header content-type says so.
const decided = {
  key,
  headers: { "content-type": "application/cloudevents+json; charset=UTF-8" },
  value: JSON.stringify({
    specversion: "1.0", id: `${request}-decided`, source, type: "io.athenz.membership.decided.v1", time,
    data: { ...asked, decision: "approve", actor: "user.alice", recipients: [member] },
  }),
};

const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
await producer.connect();
try {
  // Resolves when every replica in sync has both (acks -1 is "all"), and throws after the last retry.
  await producer.send({ topic: process.env.KAFKA_TOPIC, acks: -1, messages: [requested, decided] });
} finally {
  await producer.disconnect();
}
