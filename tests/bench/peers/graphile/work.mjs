// graphile-worker beside the PostgreSQL store: takes in jobs with a key each, all once more, and runs each once.
//
//   node work.mjs URL COUNT    prints {"taken":S,"again":S,"ran":S}, in seconds
//
// Its own job keys hold only while a job waits, so a table remembers them, in the transaction that adds the jobs.

import { makeWorkerUtils, run, Logger } from "graphile-worker";
import pg from "pg";

const [connectionString, count] = [process.argv[2], Number(process.argv[3])];
const BATCH = 1_000;
const TAKERS = 2;

const TAKE = `
  WITH fresh AS (INSERT INTO seen SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING key),
  specs AS (SELECT array_agg(json_populate_record(null::graphile_worker.job_spec,
    json_build_object('identifier', 'job', 'payload', json_build_object('key', key)))) AS list, count(*) AS n FROM fresh)
  SELECT n::int, (SELECT count(*) FROM graphile_worker.add_jobs(list)) AS added FROM specs WHERE n > 0`;

const seconds = (from) => (performance.now() - from) / 1_000;

async function takeIn(pool, wanted) {
  let [next, fresh] = [0, 0];
  const taker = async () => {
    while (next < count) {
      const first = next;
      next += BATCH;
      const keys = Array.from({ length: Math.min(BATCH, count - first) }, (_, i) => `job-${first + i}`);
      const { rows } = await pool.query(TAKE, [keys]);
      fresh += rows[0]?.n ?? 0;
    }
  };
  await Promise.all(Array.from({ length: TAKERS }, taker));
  if (fresh !== wanted) throw new Error(`${fresh} jobs are new, not ${wanted}`);
}

async function runAll(pool) {
  const keys = new Set();
  let [ran, last] = [0, null];
  const all = new Promise((resolve) => (last = resolve));
  const job = async ({ key }) => {
    keys.add(key);
    if (++ran === count) last();
  };
  const runner = await run({
    // Its local queue and batches of completions: the fastest of its own settings.
    preset: { worker: { connectionString, concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0 } },
    logger: new Logger(() => () => {}),
    noHandleSignals: true,
    taskList: { job },
  });
  await all;
  // What has run is written down when this returns.
  await runner.stop();
  const left = (await pool.query("SELECT count(*)::int AS n FROM graphile_worker._private_jobs")).rows[0].n;
  if (ran !== count || keys.size !== count || left !== 0)
    throw new Error(`${ran} jobs ran, of ${keys.size} keys, and ${left} are left of ${count}`);
}

const pool = new pg.Pool({ connectionString, max: TAKERS });
const utils = await makeWorkerUtils({ connectionString, logger: new Logger(() => () => {}) });
await utils.migrate();
await utils.release();
await pool.query("CREATE TABLE seen (key text PRIMARY KEY)");

const took = {};
for (const [name, work] of [
  ["taken", () => takeIn(pool, count)],
  ["again", () => takeIn(pool, 0)],
  ["ran", () => runAll(pool)],
]) {
  const from = performance.now();
  await work();
  took[name] = seconds(from);
}
console.log(JSON.stringify(took));
await pool.end();
