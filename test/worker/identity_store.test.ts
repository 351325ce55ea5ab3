/** resolve_users and IAM Identity Center's identity store. */
import type { JobHelpers } from "graphile-worker";
import type { Pool } from "pg";
import { beforeEach, describe, expect } from "vitest";

import { createIdentityStore } from "../../server/identity_store.ts";
import { createLog } from "../../server/log.ts";
import { createDatabase } from "../../server/postgres/rows.ts";
import { closeTasks, countsOf, openTasks, type WorkerContext } from "../../server/worker/task.ts";
import resolveUsers from "../../tasks/resolve_users.ts";
import { startIdentityStoreStandIn, type IdentityStoreStandIn } from "../stand_ins/identity_store.ts";
import { test as base } from "../support/database.ts";
import { forgetNudges, JOHN, know, one, query, read, type Row } from "../support/rows.ts";

const SSO = "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Reader_0123456789abcdef";

const test = base.extend<{ store: IdentityStoreStandIn }>({
  // oxlint-disable-next-line no-empty-pattern
  store: async ({}, use) => {
    const store = await startIdentityStoreStandIn();
    await use(store);
    await store.close();
  },
});

beforeEach(() => {
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: "AKIATHAW000000000001", AWS_SECRET_ACCESS_KEY: "secret" });
});

let workers = 0;

/** A worker's run of the task, as graphile-worker starts it; returns what its log line says. */
async function run(
  pool: Pool,
  store: IdentityStoreStandIn | undefined,
  more: { id?: string; stop?: AbortSignal } = {},
): Promise<Record<string, number>> {
  const worker_id = `worker ${workers++}`;
  const client = store && {
    ...createIdentityStore({
      IDENTITY_STORE_ID: more.id ?? store.id,
      IDENTITY_STORE_REGION: "eu-west-1",
      AWS_ENDPOINT_URL_IDENTITYSTORE: store.url,
    }),
  };
  openTasks({
    worker_id,
    db: createDatabase(pool),
    identity_store: client,
    settings: { SESSION_EMAIL_DOMAINS: ["example.com"], SESSION_ACCOUNTS: [] },
    debounce: { quiet: "120 seconds", max_wait: "900 seconds" },
    log: createLog("silent"),
  } as unknown as WorkerContext);
  const job = { locked_by: worker_id, task_identifier: "resolve_users" };
  const abortSignal = more.stop ?? new AbortController().signal;
  try {
    await resolveUsers({}, { job, abortSignal } as unknown as JobHelpers);
    return countsOf(job).did ?? {};
  } finally {
    closeTasks(worker_id);
    client?.destroy?.();
  }
}

let keys = 0;
/** A read by a session of Identity Center, with a temporary key of its own. */
const readAs = (pool: Pool, session: string, more: Row = {}): Promise<unknown> =>
  read(pool, {
    s3_key: `file ${keys++}`,
    access_key_id: `ASIA${keys}`,
    principal: `${SSO}/${session}`,
    ...more,
  });
const readBy = (pool: Pool, on_behalf_of: string): Promise<unknown> =>
  readAs(pool, "", { principal: "arn:aws:sts::111122223333:assumed-role/Athena/x", on_behalf_of });
const people = (pool: Pool): Promise<Row[]> =>
  query(pool, "select email, resolved_by::text from restore_requests order by requested_at");
const asked = (pool: Pool): Promise<Row[]> =>
  query(pool, "select subject, answer, email, is_wanted from identity_store_users order by subject");
/** As if so much time had passed since the store was asked. */
const later = (pool: Pool, age: string): Promise<Row[]> =>
  query(
    pool,
    `with gate as (update identity_store_gate set closed_until = closed_until - $1::interval),
          look as (update second_look set started_at = started_at - $1::interval)
     update identity_store_users set ask_after = ask_after - $1::interval, answered_at = answered_at - $1::interval,
       failing_since = failing_since - $1::interval`,
    [age],
  );

describe("whom nothing else names", () => {
  test("the identity store names, by user id and by the user name that a session has", async ({
    pool,
    store,
  }) => {
    const jane = store.add({ UserName: "jane", Emails: [{ Value: "jane@example.net", Primary: true }] });
    store.add({ UserName: "john", Emails: [{ Value: "john@example.net" }] });
    await readBy(pool, jane);
    await readAs(pool, "john");
    await readAs(pool, "john");
    await read(pool, {
      access_key_id: "",
      s3_key: "by an identity",
      principal: `arn:aws:identitystore:::user/${jane}`,
    });

    expect(await run(pool, store)).toEqual({ looked_up: 8, identity_found: 2 });

    const found = { resolved_by: "identity_store" };
    expect(await people(pool)).toEqual([
      { email: "jane@example.net", ...found },
      { email: "john@example.net", ...found },
      { email: "john@example.net", ...found },
      { email: "jane@example.net", ...found },
    ]);
    // Once per person; of a user name first the id.
    expect(store.calls.map(({ operation, of }) => `${operation} ${of}`).toSorted()).toEqual(
      [`DescribeUser ${jane}`, `DescribeUser ${store.users[1]?.UserId}`, "GetUserId john"].toSorted(),
    );
    // Their next reads are known at once.
    await readAs(pool, "john");
    expect((await people(pool)).at(-1)).toEqual({ email: "john@example.net", ...found });
  });

  test("is not asked about where a map or the session's name says it, nor without a store", async ({
    pool,
    store,
  }) => {
    await know(pool, JOHN, "john@example.com");
    await readAs(pool, "john", { access_key_id: JOHN });
    await readAs(pool, "jane@example.com");
    await readAs(pool, "bob");
    await run(pool, undefined);
    expect(await asked(pool)).toEqual([]);
    await pool.query("update second_look set started_at = '-infinity'");
    await run(pool, store);
    expect(store.calls.map(({ of }) => of)).toEqual(["bob"]);
  });

  test("is asked about by the name that a session of Identity Center has, and by no other", async ({
    pool,
    store,
  }) => {
    // Anybody who may assume another role chooses such a name.
    await readAs(pool, "", { principal: "arn:aws:sts::111122223333:assumed-role/Other/jane" });
    await readAs(pool, "", { principal: "arn:aws:iam::111122223333:user/AWSReservedSSO_x/jane" });
    await readAs(pool, "", { principal: "", principal_id: "AROACKCEVSQ6C2EXAMPLE:jane" });
    await run(pool, store);
    expect(store.calls).toEqual([]);
  });

  test("is told by the first address that mail can reach, the primary before others", async ({
    pool,
    store,
  }) => {
    for (const [UserName, Emails, UserStatus] of [
      ["primary", [{ Value: "second@example.net" }, { Value: "primary@example.net", Primary: true }]],
      ["usable", [{ Value: "jane@corp", Primary: true }, { Value: "jane@example.net" }]],
      ["unusable", [{ Value: "not an address" }, { Value: "" }]],
      ["empty", undefined],
      ["left", [{ Value: "left@example.net", Primary: true }], "DISABLED"],
    ] as const) {
      store.add({
        UserName,
        ...(Emails && { Emails: [...Emails] }),
        ...(UserStatus && { UserStatus }),
      });
      await readAs(pool, UserName);
    }
    await readAs(pool, "nobody");
    await readBy(pool, "no id at all");
    await run(pool, store);
    expect((await asked(pool)).map(({ subject, answer, email }) => [subject, answer, email])).toEqual([
      ["name/empty", "no_address", null],
      ["name/left", "disabled", null],
      ["name/nobody", "not_found", null],
      ["name/primary", "found", "primary@example.net"],
      ["name/unusable", "no_address", null],
      ["name/usable", "found", "jane@example.net"],
      ["user/no id at all", "not_found", null],
    ]);
  });
});

describe("an answer", () => {
  test("that there is nobody is remembered for a day, whoever reads meanwhile", async ({ pool, store }) => {
    await readAs(pool, "jane");
    await run(pool, store);
    await readAs(pool, "jane");
    await later(pool, "23 hours");
    await run(pool, store);
    expect(store.calls).toHaveLength(1);

    store.add({ UserName: "jane", Emails: [{ Value: "jane@example.net" }] });
    await later(pool, "2 hours");
    await run(pool, store);
    expect((await people(pool)).map(({ email }) => email)).toEqual(["jane@example.net", "jane@example.net"]);
  });

  test("is asked for again after a day, so that a changed address is followed", async ({ pool, store }) => {
    const jane = store.add({ UserName: "jane", Emails: [{ Value: "old@example.net" }] });
    await readBy(pool, jane);
    await run(pool, store);
    Object.assign(store.users[0] ?? {}, { Emails: [{ Value: "new@example.net" }] });
    await readBy(pool, jane);
    await later(pool, "25 hours");
    await run(pool, store);
    // Nobody who is unknown waits for it.
    expect(store.calls).toHaveLength(1);
    await readBy(pool, jane);
    await run(pool, store);
    expect((await people(pool)).map(({ email }) => email)).toEqual([
      "old@example.net",
      "old@example.net",
      "new@example.net",
    ]);
  });

  test("of before is used while the store fails, for a week", async ({ pool, store }) => {
    const jane = store.add({ UserName: "jane", Emails: [{ Value: "jane@example.net" }] });
    await readBy(pool, jane);
    await run(pool, store);
    await later(pool, "2 days");
    store.fault = "internal";
    await readBy(pool, jane);
    await run(pool, store);
    expect((await people(pool)).at(-1)).toEqual({ email: "jane@example.net", resolved_by: "identity_store" });
    await later(pool, "6 days");
    await readBy(pool, jane);
    await run(pool, store);
    expect((await people(pool)).at(-1)).toEqual({ email: null, resolved_by: null });
  });

  test("of another store is not used for this one", async ({ pool, store }) => {
    store.add({ UserName: "jane", Emails: [{ Value: "jane@example.net" }] });
    await readAs(pool, "jane");
    await run(pool, store, { id: "d-0000000000" });
    // A store that is not there is trouble, and says nothing about Jane.
    expect(await one(pool, "select failure_code, failures from identity_store_gate")).toEqual({
      failure_code: "ResourceNotFoundException",
      failures: 1,
    });
    await later(pool, "5 minutes");
    await run(pool, store);
    expect(await people(pool)).toEqual([{ email: "jane@example.net", resolved_by: "identity_store" }]);
    expect(await one(pool, "select failure_code, failures from identity_store_gate")).toEqual({
      failure_code: "",
      failures: 0,
    });
  });

  test("is forgotten when nobody has read for a month", async ({ pool, store }) => {
    await readAs(pool, "jane");
    await run(pool, store);
    await pool.query("delete from restore_requests");
    await later(pool, "32 days");
    await readAs(pool, "john");
    await run(pool, store);
    expect((await asked(pool)).map(({ subject }) => subject)).toEqual(["name/john"]);
  });
});

describe("a store that fails", () => {
  test.for([
    ["throttled", "ThrottlingException"],
    ["denied", "AccessDeniedException"],
    ["internal", "InternalServerException"],
    ["reset", "ECONNRESET"],
  ] as const)("(%s) is left alone for a while, then asked on", async ([fault, code], { pool, store }) => {
    for (let person = 0; person < 30; person++) {
      store.add({ UserName: `p${person}`, Emails: [{ Value: `p${person}@example.net` }] });
      await readAs(pool, `p${person}`);
    }
    store.fault = fault;
    await forgetNudges(pool);
    await run(pool, store);
    // No more than were under way.
    expect(store.calls.length).toBeLessThanOrEqual(4);
    expect(
      await one(pool, "select failures, failure_code, closed_until > now() as shut from identity_store_gate"),
    ).toEqual({
      failures: 1,
      failure_code: code,
      shut: true,
    });
    expect(
      await query(
        pool,
        "select from graphile_worker.jobs where task_identifier = 'resolve_users' and run_at > now()",
      ),
    ).toHaveLength(1);
    const before = store.calls.length;
    store.fault = null;
    await later(pool, "-1 minute");
    await run(pool, store);
    expect(store.calls).toHaveLength(before);

    await later(pool, "10 minutes");
    await run(pool, store);
    expect(await query(pool, "select from restore_requests where email is null")).toEqual([]);
  });

  test("for one person alone keeps nobody else waiting", async ({ pool, store }) => {
    store.fault = "internal";
    store.fault_of = "a";
    for (const name of ["a", ...Array.from({ length: 30 }, (_, n) => `p${n}`)]) {
      store.add({ UserName: name, Emails: [{ Value: `${name}@example.net` }] });
      await readAs(pool, name);
    }
    const opens = (): Promise<unknown> =>
      pool.query("update identity_store_gate set closed_until = '-infinity'");
    await run(pool, store);
    // It has failed for an hour by now.
    await pool.query(
      "update identity_store_users set failing_since = now() - interval '1 hour', ask_after = now() where failing_since is not null",
    );
    await opens();
    await run(pool, store);
    await opens();
    await run(pool, store);
    expect(await query(pool, "select principal from restore_requests where email is null")).toEqual([
      { principal: `${SSO}/a` },
    ]);
    expect(await one(pool, "select failures from identity_store_gate")).toEqual({ failures: 0 });
    // The mended store is asked about them, too.
    store.fault = null;
    await later(pool, "5 minutes");
    await run(pool, store);
    expect(await query(pool, "select from restore_requests where email is null")).toEqual([]);
  });

  test("waits twice as long each time, five minutes at most", async ({ pool }) => {
    expect(
      await query(
        pool,
        "select extract(epoch from identity_backoff(n))::int as s from unnest(array[1, 2, 3, 8, 9, 100]) n",
      ),
    ).toEqual([2, 4, 8, 256, 300, 300].map((s) => ({ s })));
  });

  test("(hang) holds up no reader whom the map knows, and is given up in seconds", async ({
    pool,
    store,
  }) => {
    store.fault = "hang";
    await readAs(pool, "jane");
    await readAs(pool, "later", { access_key_id: JOHN });
    await know(pool, JOHN, "john@example.com");
    const running = run(pool, store);
    await expect
      .poll(async () => (await people(pool)).map(({ email }) => email), { timeout: 20_000 })
      .toEqual([null, "john@example.com"]);
    await expect.poll(() => store.calls.length, { timeout: 20_000 }).toBe(1);
    // A page of the server, at the same time.
    await readAs(pool, "again", { access_key_id: JOHN });
    expect((await people(pool)).at(-1)?.["email"]).toBe("john@example.com");
    expect(await running).toMatchObject({ identity_trouble: 1 });
    expect(await one(pool, "select failure_code from identity_store_gate")).toEqual({
      failure_code: "TimeoutError",
    });
  });

  test("gives its people back when the worker stops", async ({ pool, store }) => {
    store.fault = "hang";
    await readAs(pool, "jane");
    const stop = new AbortController();
    const running = run(pool, store, { stop: stop.signal });
    await expect.poll(() => store.calls.length, { timeout: 20_000 }).toBe(1);
    stop.abort();
    await running;
    expect(await one(pool, "select failures from identity_store_gate")).toEqual({ failures: 0 });
    expect(
      await query(
        pool,
        "select from identity_store_users where is_wanted and claim_id is null and ask_after <= now()",
      ),
    ).toHaveLength(1);
  });
});

describe("two workers", () => {
  test("ask about each person once", async ({ pool, store }) => {
    for (let person = 0; person < 40; person++) {
      store.add({ UserName: `p${person}`, Emails: [{ Value: `p${person}@example.net` }] });
      await readAs(pool, `p${person}`);
    }
    await Promise.all([run(pool, store), run(pool, store), run(pool, store)]);
    await run(pool, store);
    expect(store.calls.filter(({ operation }) => operation === "GetUserId")).toHaveLength(40);
    expect(new Set(store.calls.map(({ of }) => of)).size).toBe(80);
    expect(await query(pool, "select from restore_requests where email is null")).toEqual([]);
  });

  test("of which one died: the other asks when the lease is over, and the dead one's answer does not count", async ({
    pool,
    store,
  }) => {
    store.add({ UserName: "jane", Emails: [{ Value: "jane@example.net" }] });
    await readAs(pool, "jane");
    await query(pool, "select resolve_requests(10, '{}', '{}', $1)", [store.id]);
    const dead = await one(pool, "select subject, claim_id from claim_identities($1, 10)", [store.id]);
    await run(pool, store);
    expect(store.calls).toEqual([]);
    await later(pool, "61 seconds");
    await run(pool, store);
    await query(pool, "select note_identities($1)", [
      JSON.stringify([{ ...dead, answer: "found", email: "stale@example.net" }]),
    ]);
    expect(await asked(pool)).toEqual([
      { subject: "name/jane", answer: "found", email: "jane@example.net", is_wanted: false },
    ]);
  });
});

test("an erased person is not found there again, whoever named them before", async ({ pool, store }) => {
  store.add({ UserName: "jane", Emails: [{ Value: "jane@example.com" }] });
  await pool.query("insert into aws_principal_user_map (principal, email) values ($1, 'jane@example.com')", [
    `${SSO}/jane`,
  ]);
  await readAs(pool, "jane");
  await run(pool, store);
  expect(await people(pool)).toEqual([{ email: "jane@example.com", resolved_by: "principal" }]);
  while (Number((await one(pool, "select erase_person('jane@example.com') as rows"))["rows"]) > 0);
  await pool.query("update second_look set started_at = '-infinity'");
  await run(pool, store);
  expect(await people(pool)).toEqual([{ email: null, resolved_by: null }]);
});

test("an address that Postgres refuses is none, and harms no other answer", async ({ pool, store }) => {
  await readAs(pool, "a");
  await readAs(pool, "b");
  await query(pool, "select resolve_requests(10, '{}', '{}', $1)", [store.id]);
  const [a, b] = await query(pool, "select subject, claim_id from claim_identities($1, 10) order by 1", [
    store.id,
  ]);
  await query(pool, "select note_identities($1)", [
    JSON.stringify([
      { ...a, answer: "found", email: "a@example.net, b@example.net" },
      { ...b, answer: "found", email: "b@example.net" },
    ]),
  ]);
  expect((await asked(pool)).map(({ answer, email }) => [answer, email])).toEqual([
    ["no_address", null],
    ["found", "b@example.net"],
  ]);
});
