// Sends what happened to one access request to owlpost over HTTP, with the CloudEvents SDK: structured, binary, batch.
//   OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… node http-sdk.mjs 4711 user.joe
import { setTimeout as sleep } from "node:timers/promises";
import { CloudEvent, HTTP } from "cloudevents";

const source = "access-desk/node-http-sdk";

// May go better the next time. Any other answer would be the same again.
const AGAIN = new Set([408, 429, 502, 503, 504]);

// Eight attempts at most, as far apart as Retry-After says; repeating is safe, since the ids stay.
async function post({ headers, body }) {
  for (let attempt = 1; ; attempt++) {
    let seconds = Math.min(2 ** attempt, 60);
    // fetch of Node.js 20 may wait for ever if the connection is lost at once, and AbortSignal.timeout would let Node end.
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error("no answer in time")), 10_000);
    try {
      const answer = await fetch(`${process.env.OWLPOST_URL}/v1/events`, {
        method: "POST",
        headers: { ...headers, Authorization: `Bearer ${process.env.OWLPOST_TOKEN}` },
        body,
        signal: late.signal,
      });
      const text = await answer.text();
      if (answer.status === 202) return JSON.parse(text);
      // 400, 401, 413, 415, or eight times the same.
      if (!AGAIN.has(answer.status) || attempt === 8) {
        throw Object.assign(new Error(`owlpost refused the request: ${answer.status} ${text}`), { final: true });
      }
      seconds = Number(answer.headers.get("retry-after")) || seconds;
    } catch (error) {
      if (error.final || attempt === 8) throw error;
    } finally {
      clearTimeout(timer);
    }
    await sleep(seconds * 1000);
  }
}

async function send(message) {
  const { rejected } = await post(message);
  // The others of the batch are stored.
  if (rejected.length > 0) throw new Error(`owlpost refused events: ${JSON.stringify(rejected)}`);
}

const [request, member] = process.argv.slice(2);
const writers = { domain: "sports", collection: { kind: "role", name: "writers" }, member };
const asked = { ...writers, change: "add", requester: member };

// The id names what happened, so it is the same when this runs again. Left out, the SDK would draw a new one each time.
const requested = new CloudEvent({
  id: `${request}-requested`, source, type: "io.athenz.membership.requested.v1", datacontenttype: "application/json",
  data: { ...asked, recipients: ["user.alice"] },
});
const decided = new CloudEvent({
  id: `${request}-decided`, source, type: "io.athenz.membership.decided.v1", datacontenttype: "application/json",
  data: { ...asked, decision: "approve", actor: "user.alice", recipients: [member] },
});
const added = new CloudEvent({
  id: `${request}-added`, source, type: "io.athenz.membership.added.v1", datacontenttype: "application/json",
  data: { ...writers, recipients: [member] },
});
const oncall = new CloudEvent({
  id: `${request}-oncall`, source, type: "com.example.oncall.started.v1", datacontenttype: "application/json",
  data: { team: "sports", recipients: [member] },
});

await send(HTTP.structured(requested));
await send(HTTP.binary(decided));
// The SDK writes single events; a batch is a JSON array of them, up to 10,000 and 8 MiB.
await send({ headers: { "content-type": "application/cloudevents-batch+json" }, body: JSON.stringify([added, oncall]) });
