/** The routes as they are, on a Postgres that answers at once: what HTTP and validation alone cost. */
import type pg from "pg";

import { listen } from "../../server/http/listen.ts";
import { createLog } from "../../server/log.ts";
import { testApp } from "../support/app.ts";

const pool = {
  query: ({ values }: { values: [string] }) => {
    const reads = JSON.parse(values[0]) as { id: string }[];
    return Promise.resolve({
      rows: reads.map(({ id }) => ({ read_id: id, request_id: id, duplicate: false })),
    });
  },
} as unknown as pg.Pool;

const app = testApp(pool, { log: createLog("info") });
const { port } = await listen(app.fetch, { HOST: "127.0.0.1", PORT: 0 });
console.log(JSON.stringify({ msg: "server ready", port }));
