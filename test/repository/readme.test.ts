/** The README is run, not believed. */
import { readFileSync } from "node:fs";

import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import { BUCKET, JANE, requestBody, startThaw } from "../support/thaw.ts";

const ROOT = `${import.meta.dirname}/../..`;
const readme = readFileSync(`${ROOT}/README.md`, "utf8");

const sqlOf = (line: string): string => /^ {4}psql "\$DATABASE_URL" -c "(.*)"$/.exec(line)?.[1] ?? "";
const psqlLines = readme
  .split("\n")
  .map(sqlOf)
  .filter((sql) => sql !== "");

describe("README", () => {
  test("every psql line runs on a database with work in it", async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    await thaw.know(JANE, "jane@example.com");
    const { body } = await thaw.post("/restore/request", requestBody("a.bin"));
    await thaw.pool.query(`
      update restores set status = 'failed', status_at = now(), failure_code = 'object_not_found', failure_message = 'Gone.';
      insert into notifications (id, kind, email, body, status, failure_message)
        values ('00000000-0000-4000-8000-000000000001', 'post', 'jane@example.com', '{}', 'failed', 'refused')`);
    expect(psqlLines.length).toBeGreaterThanOrEqual(8);
    for (const sql of psqlLines) {
      const id = sql.includes("resend_notification")
        ? "00000000-0000-4000-8000-000000000001"
        : (body as { id: string }).id;
      await thaw.pool.query(sql.replace("$ID", id));
    }
    const { rows } = await thaw.pool.query("select s3_bucket, status from restores order by created_at");
    expect(rows).toEqual([
      { s3_bucket: BUCKET, status: "failed" },
      { s3_bucket: BUCKET, status: "not_started" },
    ]);
    await thaw.stop();
  });

  test("names every setting of config.ts, and none that is not there", () => {
    const table = readme.slice(readme.indexOf("### Configuration"), readme.indexOf("### The secret"));
    const named = new Set([...table.matchAll(/`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*)`/g)].map((match) => match[1]));
    const config = readFileSync(`${ROOT}/server/config.ts`, "utf8");
    const known = new Set([...config.matchAll(/^ {2}([A-Z][A-Z0-9_]+):/gm)].map((match) => match[1]));
    for (const lambdas of ["THAW_URL", "RESTORE_SECRET_ARN"]) named.delete(lambdas);
    expect([...named].toSorted()).toEqual([...known].toSorted());
  });

  test("names every npm script that people use, and each one exists", () => {
    const { scripts } = JSON.parse(readFileSync(`${ROOT}/package.json`, "utf8")) as {
      scripts: Record<string, string>;
    };
    const named = [...readme.matchAll(/npm (?:run )?([a-z:]+)/g)]
      .map((match) => match[1])
      .filter((name) => name !== "ci");
    for (const name of named) expect([...Object.keys(scripts), "brings"]).toContain(name);
    for (const name of Object.keys(scripts)) expect(named).toContain(name);
  });

  test("its picture shows the five tasks and every state", async ({ pool }) => {
    const picture = readme.slice(readme.indexOf("## The life of a restore"), readme.indexOf("## Promises"));
    const { rows } = await pool.query<{ state: string }>(
      "select unnest(enum_range(null::restore_status))::text as state",
    );
    for (const { state } of rows) expect(picture).toContain(state);
    for (const task of [
      "resolve_users",
      "trigger_restores",
      "pre_notify",
      "post_notify",
      "poll_pending_restores",
    ]) {
      expect(picture).toContain(task);
    }
  });
});
