/** The zips that are deployed, run as Lambda runs them: alone, in a process of their own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { buildLambdas } from "../../lambdas/build.ts";
import { unpackLambdas } from "../support/lambda_process.ts";

const SECRET = "the-secret-of-these-tests-0123456789";
const NAMES = ["restore_completed", "restore_requested"];

/** What Lambda's own program does, on one event from standard input. */
const RUN = `
  const { handler } = await import(process.argv[1]);
  const { text } = await import("node:stream/consumers");
  const context = { getRemainingTimeInMillis: () => 30_000 };
  await handler(JSON.parse(await text(process.stdin)), context);
`;

let directory = "";
const zipOf = (name: string): Uint8Array => readFileSync(join(directory, "zips", `${name}.zip`));

beforeAll(async () => {
  // Away from the checkout: nothing of its node_modules can be found from here.
  directory = await mkdtemp(join(tmpdir(), "thaw-bundle-"));
  await unpackLambdas(directory);
});
afterAll(() => rm(directory, { recursive: true }));

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

async function invoke(name: string, fixture: string, env: NodeJS.ProcessEnv): Promise<Outcome> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", RUN, join(directory, name, `${name}.mjs`)],
    // Only what Lambda would set: no PATH, nothing of the test runner's.
    { cwd: join(directory, name), env: { NODE_OPTIONS: "--enable-source-maps", ...env } },
  );
  child.stdin.end(readFileSync(join(import.meta.dirname, "../fixtures", `${fixture}.json`)));
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { code: Number(code), stdout, stderr };
}

interface Received {
  path: string | undefined;
  secret: unknown;
  body: unknown;
}

async function thaw(): Promise<{ url: string; received: Received[] }> {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const secret = request.headers["x-restore-secret"];
      received.push({ path: request.url, secret, body: JSON.parse(body) });
      response.end(JSON.stringify({ ok: true, id: "1", duplicate: false, updated: 1 }));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("It listens on no port.");
  return { url: `http://127.0.0.1:${address.port}`, received };
}

describe("a bundle", () => {
  test.each([
    ["restore_requested", "get_iam_user", "/restore/request"],
    ["restore_completed", "eventbridge_completed", "/restore/completed"],
  ])("%s calls Thaw", async (name, fixture, path) => {
    const { url, received } = await thaw();
    const outcome = await invoke(name, fixture, { THAW_URL: url, RESTORE_SECRET: SECRET });

    expect(outcome).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(outcome.stdout)).toMatchObject({ lambda: name, outcome: "sent" });
    expect(received).toEqual([
      {
        path,
        secret: SECRET,
        body: expect.objectContaining({ s3_bucket: "my-archive", s3_key: "reports/2019/summary.pdf" }),
      },
    ]);
  });

  test("names the line of the source in its errors", async () => {
    const outcome = await invoke("restore_requested", "get_iam_user", { RESTORE_SECRET: SECRET });

    expect(outcome.code).toBe(1);
    const line = Number(/lambdas\/urls\.ts:(\d+)/.exec(outcome.stderr)?.[1]);
    const source = readFileSync(join(import.meta.dirname, "../../lambdas/urls.ts"), "utf8");
    expect(source.split("\n")[line - 1]).toContain("is missing or no URL");
    expect(outcome.stderr).toMatch(/lambdas\/deliver\.ts:\d+/);
    expect(outcome.stdout + outcome.stderr).not.toContain(SECRET);
  });

  test("is one module and its source map, and small", () => {
    for (const name of NAMES) {
      const zip = zipOf(name);
      expect(Object.keys(unzipSync(zip))).toEqual([`${name}.mjs`, `${name}.mjs.map`]);
      expect(zip.length).toBeLessThan(50_000);
    }
  });

  test("imports nothing but Node's own modules", () => {
    for (const name of NAMES) {
      const code = readFileSync(join(directory, name, `${name}.mjs`), "utf8");
      const imported = [...code.matchAll(/^import .*?from "([^"]+)"/gm)].map((match) => match[1]);
      expect(imported).toEqual(["node:http", "node:https", "node:timers/promises"]);
      expect(code).not.toMatch(/\brequire\(|\bimport\(/);
    }
  });

  test("has the same bytes whenever and wherever it is built", async () => {
    const { TZ } = process.env;
    onTestFinished(() => {
      if (TZ === undefined) delete process.env["TZ"];
      else process.env["TZ"] = TZ;
    });
    process.env["TZ"] = "Pacific/Auckland";
    const built = await buildLambdas(join(directory, "second", "deeper"));

    expect((await readdir(join(directory, "second", "deeper"))).toSorted()).toEqual(
      NAMES.map((name) => `${name}.zip`),
    );
    for (const { path, size_bytes } of built) {
      const name = NAMES.find((name) => path.endsWith(`${name}.zip`)) ?? "";
      const bytes = readFileSync(path);
      expect(bytes.equals(zipOf(name)), name).toBe(true);
      expect(bytes).toHaveLength(size_bytes);
    }
  });
});
