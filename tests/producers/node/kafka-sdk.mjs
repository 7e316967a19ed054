// Sends what happened to one access request to Kafka, with the CloudEvents SDK: one event binary, one structured.
//   KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
//     node kafka-sdk.mjs 4711 user.joe
import { readFileSync } from "node:fs";
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, Partitioners } from "kafkajs";

const source = "access-desk/node-kafka-sdk";

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

// The id names what happened, so it is the same when this runs again. Left out, the SDK would draw a new one each time.
// The SDK makes partitionkey the message's key. Same key, same partition: the events of one domain stay in order.
const requested = new CloudEvent({
  id: `${request}-requested`, source, type: "io.athenz.membership.requested.v1", datacontenttype: "application/json",
  partitionkey: asked.domain,
  data: { ...asked, recipients: ["user.alice"] },
});
const decided = new CloudEvent({
  id: `${request}-decided`, source, type: "io.athenz.membership.decided.v1", datacontenttype: "application/json",
  partitionkey: asked.domain,
  data: { ...asked, decision: "approve", actor: "user.alice", recipients: [member] },
});

// In binary mode the SDK leaves the data an object and attributes that are not there undefined; KafkaJS wants text or bytes.
function binary(event) {
  const { key, headers, value } = Binding.binary(event);
  const there = Object.entries(headers).filter(([, text]) => text !== undefined);
  return { key, headers: Object.fromEntries(there), value: JSON.stringify(value) };
}

function structured(event) {
  const { key, headers, value } = Binding.structured(event);
  return { key, headers, value };
}

const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
await producer.connect();
try {
  // Resolves when every replica in sync has both (acks -1 is "all"), and throws after the last retry.
  await producer.send({ topic: process.env.KAFKA_TOPIC, acks: -1, messages: [binary(requested), structured(decided)] });
} finally {
  await producer.disconnect();
}
