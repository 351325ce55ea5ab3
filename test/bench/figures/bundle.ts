/** Events through the built function and the server: batches of ten against one invocation per event. */
import { mkdtemp, rm } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { isObject } from "../../../lambdas/fields.ts";
import { startLambda, unpackLambdas, type LambdaProcess } from "../../support/lambda_process.ts";
import { SECRET } from "../../support/thaw.ts";
import { median, type Result } from "../table.ts";
import type { World } from "../world.ts";

/** MaximumConcurrency's default in template.yaml. */
const AT_ONCE = 5;
const SECONDS = 5;
const ROUNDS = 3;
/** There and back, as from a Lambda to a machine in another Region nearby. */
const ROUND_TRIP_MS = 20;

const FIXTURE: unknown = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../fixtures/get_iam_user.json"), "utf8"),
);

let serial = 0;
/** A read of a file of its own. */
function message(): Record<string, unknown> {
  const event = structuredClone(FIXTURE);
  const detail = isObject(event) ? event["detail"] : undefined;
  if (!isObject(detail) || !isObject(detail["requestParameters"])) throw new Error("another fixture");
  const id = String(serial++);
  detail["requestParameters"]["key"] = `films/${id}.mov`;
  detail["eventID"] = `event-${id}`;
  return { messageId: id, eventSource: "aws:sqs", body: JSON.stringify(event) };
}

interface Rate {
  per_second: number;
  billed_ms: number;
}

async function rateOf(functions: LambdaProcess[], batch_size: number): Promise<Rate> {
  const began = performance.now();
  let events = 0;
  let billed_ms = 0;
  await Promise.all(
    functions.map(async (one) => {
      while (performance.now() - began < SECONDS * 1000) {
        const { error, took_ms } = await one.invoke({ Records: Array.from({ length: batch_size }, message) });
        if (error !== undefined) throw new Error(error);
        events += batch_size;
        billed_ms += Math.ceil(took_ms);
      }
    }),
  );
  return { per_second: (events * 1000) / (performance.now() - began), billed_ms: billed_ms / events };
}

/** Passes everything on, half of the round trip later. */
async function farAway(url: string): Promise<{ url: string; close: () => void }> {
  const sockets = new Set<Socket>();
  const late = (from: Socket, to: Socket): void => {
    sockets.add(from);
    from.on("error", () => undefined);
    from.on("data", (chunk) => setTimeout(() => to.write(chunk), ROUND_TRIP_MS / 2));
    from.on("close", () => setTimeout(() => to.destroy(), ROUND_TRIP_MS / 2));
  };
  const server = createServer((near) => {
    const far = connect(Number(new URL(url).port), "127.0.0.1");
    late(near, far);
    late(far, near);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function compare(directory: string, url: string, where: string): Promise<Result[]> {
  const functions = await Promise.all(
    Array.from({ length: AT_ONCE }, () =>
      startLambda(directory, "restore_requested", { THAW_URL: url, RESTORE_SECRET: SECRET }),
    ),
  );
  try {
    const rates: Record<"batches" | "single", Rate[]> = { batches: [], single: [] };
    await rateOf(functions, 10);
    for (let round = 0; round < ROUNDS; round++) {
      rates.batches.push(await rateOf(functions, 10));
      rates.single.push(await rateOf(functions, 1));
    }
    const of = (way: "batches" | "single", name: keyof Rate): number =>
      median(rates[way].map((rate) => rate[name]));
    const [batches, single] = [of("batches", "per_second"), of("single", "per_second")];
    const [billed, billedSingle] = [of("batches", "billed_ms"), of("single", "billed_ms")];
    return [
      {
        number: 18,
        figure: `events through five functions, batches of ten, Thaw ${where}`,
        value: batches,
        unit: "/s",
        against: "one invocation per event",
        peer: single,
        ratio: batches / single,
        goal: ">= 1",
        met: batches >= single,
      },
      {
        number: 18,
        figure: "the same: milliseconds billed per event",
        value: billed,
        unit: "ms",
        against: "one invocation per event",
        peer: billedSingle,
        ratio: billed / billedSingle,
        goal: "<= 0.5",
        met: billed <= 0.5 * billedSingle,
      },
    ];
  } finally {
    await Promise.all(functions.map((one) => one.stop()));
  }
}

export async function bundle(world: World): Promise<Result[]> {
  const directory = await mkdtemp(join(tmpdir(), "thaw-bench-bundle-"));
  const { url: databaseUrl } = await world.newDatabase();
  const server = await world.server(databaseUrl);
  const far = await farAway(server.url);
  try {
    await unpackLambdas(directory);
    return [
      ...(await compare(directory, server.url, "beside them")),
      ...(await compare(directory, far.url, `${ROUND_TRIP_MS} ms away`)),
    ];
  } finally {
    far.close();
    await server.stop();
    await rm(directory, { recursive: true });
  }
}
