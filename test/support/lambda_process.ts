/** Built functions, each in a process of its own that stays, as Lambda keeps it between invocations. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { unzipSync } from "fflate";

import { buildLambdas } from "../../lambdas/build.ts";

/** What Lambda's own program does: one event after the other, results and errors as JSON. */
const RUN = `
  const { handler } = await import(process.argv[1]);
  const now = Date.now;
  process.on("message", async ({ id, event, time_ms, ahead_ms }) => {
    Date.now = () => now() + ahead_ms;
    const began = performance.now();
    const context = { getRemainingTimeInMillis: () => time_ms - (performance.now() - began) };
    const told = await handler(event, context).then(
      (result) => ({ result: JSON.parse(JSON.stringify(result ?? null)) }),
      (error) => ({ error: String(error?.message ?? error) }),
    );
    process.send({ id, ...told, took_ms: performance.now() - began });
  });
  process.send({ id: "ready" });
`;

/** As the template sets it. */
const TIMEOUT_MS = 30_000;

export interface Invocation {
  result?: unknown;
  /** Of the error that the function threw. */
  error?: string;
  /** Lambda bills this, in whole milliseconds. */
  took_ms: number;
}

export interface LambdaProcess {
  /** At another time than now, if told so. */
  invoke(event: unknown, at_ms?: number): Promise<Invocation>;
  stop(): Promise<void>;
}

export type LambdaName = "restore_requested" | "restore_completed";

/** The bundles, unpacked below `directory`, where nothing of our node_modules can be found. */
export async function unpackLambdas(directory: string): Promise<void> {
  for (const { path } of await buildLambdas(join(directory, "zips"))) {
    const name = /([^/\\]+)\.zip$/.exec(path)?.[1] ?? "";
    await mkdir(join(directory, name));
    for (const [file, bytes] of Object.entries(unzipSync(readFileSync(path)))) {
      await writeFile(join(directory, name, file), bytes);
    }
  }
}

/** With only what Lambda would set in its environment, and `env`. */
export async function startLambda(
  directory: string,
  name: LambdaName,
  env: Record<string, string>,
  onLog: (line: string) => void = () => undefined,
): Promise<LambdaProcess> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", RUN, join(directory, name, `${name}.mjs`)],
    {
      cwd: join(directory, name),
      env: { NODE_OPTIONS: "--enable-source-maps", ...env },
      stdio: ["ignore", "pipe", "inherit", "ipc"],
    },
  );
  child.stdout?.on("data", (chunk) => onLog(String(chunk)));
  const closed = once(child, "close");
  await answerOf(child, "ready");
  let invocations = 0;
  return {
    invoke(event, at_ms = Date.now()) {
      const id = ++invocations;
      const answer = answerOf(child, id);
      child.send({ id, event, time_ms: TIMEOUT_MS, ahead_ms: at_ms - Date.now() });
      return answer;
    },
    async stop() {
      child.kill("SIGKILL");
      await closed;
    },
  };
}

function answerOf(child: ChildProcess, id: unknown): Promise<Invocation> {
  return new Promise((resolve, reject) => {
    const fall = (): void => reject(new Error("the function's process ended"));
    const hear = (answer: Invocation & { id: unknown }): void => {
      if (answer.id !== id) return;
      child.off("message", hear).off("exit", fall);
      resolve(answer);
    };
    child.on("message", hear).on("exit", fall);
  });
}
