// Sends what happened to one access request to an SQS queue, with the AWS SDK and the CloudEvents SDK.
// Region and credentials come as for every AWS tool.
//   SQS_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/owlpost-events node sqs.mjs 4711 user.joe
import { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import { CloudEvent } from "cloudevents";

const source = "access-desk/node-sqs";

const [request, member] = process.argv.slice(2);
const asked = {
  domain: "sports", collection: { kind: "role", name: "writers" }, member, change: "add", requester: member,
};

// The id names what happened, so it is the same when this runs again. Left out, the SDK would draw a new one each time.
const requested = new CloudEvent({
  id: `${request}-requested`, source, type: "io.athenz.membership.requested.v1", datacontenttype: "application/json",
  data: { ...asked, recipients: ["user.alice"] },
});
const decided = new CloudEvent({
  id: `${request}-decided`, source, type: "io.athenz.membership.decided.v1", datacontenttype: "application/json",
  data: { ...asked, decision: "approve", actor: "user.alice", recipients: [member] },
});

// The body of each message is a structured event; up to 10 messages a call. A FIFO queue wants besides, of each,
// MessageGroupId (such as the domain) and MessageDeduplicationId (such as source and id).
const Entries = [requested, decided].map((event, n) => ({ Id: String(n), MessageBody: event.toString() }));

// Throttling, 5xx and lost connections are repeated by the client.
const sqs = new SQSClient({ maxAttempts: 8 });
const { Failed } = await sqs.send(new SendMessageBatchCommand({ QueueUrl: process.env.SQS_QUEUE_URL, Entries }));
// The call succeeds although single messages of it failed.
if (Failed?.length) throw new Error(`SQS did not take ${JSON.stringify(Failed)}`);
