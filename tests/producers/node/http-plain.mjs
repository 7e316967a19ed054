// Sends what happened to one access request to owlpost over HTTP, with fetch: structured, binary and as a batch.
//   OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… node http-plain.mjs 4711 user.joe
import { setTimeout as sleep } from "node:timers/promises";

const source = "access-desk/node-http-plain";

// May go better the next time. Any other answer would be the same again.
const AGAIN = new Set([408, 429, 502, 503, 504]);

// Eight attempts at most, as far apart as Retry-After says; repeating is safe, since the ids stay.
async function post(headers, body) {
  for (let attempt = 1; ; attempt++) {
    let seconds = Math.min(2 ** attempt, 60);
    // fetch of Node.js 20 may wait for ever if the connection is lost at once, and AbortSignal.timeout would let Node end.
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error("no answer in time")), 10_000);
    try {
      const answer = await fetch(`${process.env.OWLPOST_URL}/v1/events`, {
        method: "POST",
        headers: { ...headers, Authorization: `Bearer ${process.env.OWLPOST_TOKEN}` },
        body: JSON.stringify(body),
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

async function send(headers, body) {
  const { rejected } = await post(headers, body);
  // The others of the batch are stored.
  if (rejected.length > 0) throw new Error(`owlpost refused events: ${JSON.stringify(rejected)}`);
}

const [request, member] = process.argv.slice(2);
const writers = { domain: "sports", collection: { kind: "role", name: "writers" }, member };
const asked = { ...writers, change: "add", requester: member };
const event = (id, type, data) => ({
  specversion: "1.0", id, source, type, time: new Date().toISOString(), datacontenttype: "application/json", data,
});

// The id names what happened, so it is the same when this runs again.
const requested = event(`${request}-requested`, "io.athenz.membership.requested.v1", {
  ...asked, recipients: ["user.alice"],
});
const decided = event(`${request}-decided`, "io.athenz.membership.decided.v1", {
  ...asked, decision: "approve", actor: "user.alice", recipients: [member],
});
const added = event(`${request}-added`, "io.athenz.membership.added.v1", { ...writers, recipients: [member] });
const oncall = event(`${request}-oncall`, "com.example.oncall.started.v1", { team: "sports", recipients: [member] });

// Structured: the event is one JSON document.
await send({ "Content-Type": "application/cloudevents+json" }, requested);
// Binary: attributes are headers, the body is the data alone.
const { data, datacontenttype, ...attributes } = decided;
const headers = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]));
await send({ ...headers, "Content-Type": datacontenttype }, data);
// Batch: several events in one request, up to 10,000 and 8 MiB.
await send({ "Content-Type": "application/cloudevents-batch+json" }, [added, oncall]);
