/** Readers whom CloudTrail names by no key and no ARN: those of other accounts, and people of IAM Identity Center. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { searchOf } from "../../server/pages/search.ts";
import { test } from "../support/database.ts";
import { admitReads, policy } from "../support/cost.ts";
import {
  ago,
  insertRequest,
  insertRestore,
  insertRow,
  know,
  one,
  query,
  read,
  requestRestores,
  aRead,
  type Row,
  WAITS,
} from "../support/rows.ts";
import { JANE } from "../support/thaw.ts";

const USER = "AIDACKCEVSQ6C2EXAMPLE";
const ROLE = "AROACKCEVSQ6C2EXAMPLE";
const OTHERS = "444455556666";
const foreign = (principal_id: string, more: Row = {}): Row => ({
  access_key_id: "",
  account_id: OTHERS,
  principal_id,
  ...more,
});
const map = (pool: Pool, principal: string, email: string): Promise<Row> =>
  insertRow(pool, "aws_principal_user_map", { principal, email });
const resolveAll = async (pool: Pool, trusted: string[] = []): Promise<void> => {
  for (;;) {
    const { touched } = await one(pool, "select resolve_requests(1000, $1, $2) as touched", [WAITS, trusted]);
    if (touched === 0) return;
  }
};
const readers = (pool: Pool): Promise<Row[]> =>
  query(pool, "select reader, email, resolved_by::text from restore_requests order by reader");

describe("readers of one object without key and ARN", () => {
  test("are told apart by principal id, else by account, else not at all", async ({ pool }) => {
    for (const one of [
      foreign(USER),
      foreign(`${ROLE}:jane`),
      foreign(`${ROLE}:john`),
      foreign(""),
      foreign("", { account_id: "" }),
      foreign("", { account_id: "" }),
    ])
      await read(pool, one);
    expect((await readers(pool)).map(({ reader }) => reader)).toEqual(
      ["", OTHERS, USER, `${ROLE}:jane`, `${ROLE}:john`].toSorted(),
    );
  });

  test("are counted when they read again, also in one batch", async ({ pool }) => {
    await requestRestores(pool, aRead(foreign(USER)), aRead(foreign(USER)), aRead(foreign(`${ROLE}:x`)));
    await read(pool, foreign(USER));
    expect(
      await query(pool, "select principal_id, account_id, read_count from restore_requests order by 1"),
    ).toEqual([
      { principal_id: USER, account_id: OTHERS, read_count: 3 },
      { principal_id: `${ROLE}:x`, account_id: OTHERS, read_count: 1 },
    ]);
  });

  test("start nothing by a late delivery, also where the release before has told nobody apart", async ({
    pool,
  }) => {
    const closed = await insertRestore(pool, "closed", { closed_at: ago("1 hours") });
    await insertRequest(pool, closed, foreign(USER));
    const late = { event_time: ago("2 hours") };
    expect((await read(pool, foreign(USER, late))).duplicate).toBe(true);
    expect(await query(pool, "select from restores where closed_at is null")).toEqual([]);

    await pool.query("alter table restore_requests disable trigger derive_reader");
    await pool.query("update restore_requests set principal_id = '', reader = ''");
    expect((await read(pool, foreign("", late))).duplicate).toBe(true);
    expect((await read(pool, foreign(`${ROLE}:jane`, late))).duplicate).toBe(true);
    expect(await query(pool, "select from restores where closed_at is null")).toEqual([]);
  });

  test("have the name that their other columns give, whoever writes the row", async ({ pool }) => {
    const restore = await insertRestore(pool, "pending");
    const inserted = await insertRequest(pool, restore, foreign(USER, { reader: "somebody else" }));
    expect(inserted["reader"]).toBe(USER);
    const changed = "update restore_requests set access_key_id = $1, reader = 'x' returning reader";
    expect(await one(pool, changed, [JANE])).toEqual({ reader: JANE });
    expect(await one(pool, changed, [""])).toEqual({ reader: USER });
    const arn = "arn:aws:iam::111122223333:user/jane";
    expect(await one(pool, `update restore_requests set principal = '${arn}' returning reader`)).toEqual({
      reader: arn,
    });
  });

  test("move along with their ids when a restore begins anew", async ({ pool }) => {
    const failed = await insertRestore(pool, "failed");
    await insertRequest(pool, failed, foreign(USER, { on_behalf_of: "u-1" }));
    await query(pool, "select retry_restore($1)", [failed["id"]]);
    expect(
      await query(
        pool,
        "select reader, principal_id, on_behalf_of from restore_requests q join restores r on r.id = q.restore_id where r.closed_at is null",
      ),
    ).toEqual([{ reader: USER, principal_id: USER, on_behalf_of: "u-1" }]);
  });

  test("that are locked are named, each by its own name", async ({ pool }) => {
    await read(pool, foreign(USER));
    await read(pool, foreign(`${ROLE}:x`));
    const [mine, other] = [aRead(foreign(USER)), aRead(foreign(`${ROLE}:x`))];
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query("select from restore_requests where reader = $1 for update", [USER]);
      const locked = await query(pool, "select id from locked_reads($1) id", [JSON.stringify([mine, other])]);
      expect(locked).toEqual([{ id: mine["id"] }]);
    } finally {
      client.release(true);
    }
  });
});

describe("the maps", () => {
  test("name a user, a session and all sessions of a role by IAM's ids, the session first", async ({
    pool,
  }) => {
    await map(pool, USER, "user@example.com");
    await map(pool, `${ROLE}:*`, "role@example.com");
    await map(pool, `${ROLE}:jane`, "jane@example.com");
    for (const id of [USER, `${ROLE}:jane`, `${ROLE}:john`, "AROACKCEVSQ6C2EXAMPL2:john"])
      await read(pool, foreign(id));
    expect(
      await query(pool, "select principal_id, email, resolved_by::text from restore_requests order by 1"),
    ).toEqual([
      { principal_id: USER, email: "user@example.com", resolved_by: "principal_id" },
      { principal_id: "AROACKCEVSQ6C2EXAMPL2:john", email: null, resolved_by: null },
      { principal_id: `${ROLE}:jane`, email: "jane@example.com", resolved_by: "principal_id" },
      { principal_id: `${ROLE}:john`, email: "role@example.com", resolved_by: "principal_id" },
    ]);
  });

  test("by key and ARN come first, by principal id before the session's name", async ({ pool }) => {
    const principal = "arn:aws:sts::111122223333:assumed-role/R/s@example.com";
    const find = async (): Promise<Row> =>
      one(pool, "select email, resolved_by::text from find_person($1, $2, '', '{example.com}', $3)", [
        JANE,
        principal,
        `${ROLE}:s@example.com`,
      ]);
    expect(await find()).toEqual({ email: "s@example.com", resolved_by: "session_name" });
    await map(pool, `${ROLE}:*`, "id@example.com");
    expect(await find()).toEqual({ email: "id@example.com", resolved_by: "principal_id" });
    await map(pool, "arn:aws:sts::111122223333:assumed-role/R/*", "arn@example.com");
    expect(await find()).toEqual({ email: "arn@example.com", resolved_by: "principal_prefix" });
    await know(pool, JANE, "key@example.com");
    expect(await find()).toEqual({ email: "key@example.com", resolved_by: "access_key" });
  });

  test("reach readers who were unknown, once they name them", async ({ pool }) => {
    await read(pool, foreign(`${ROLE}:jane`));
    await resolveAll(pool);
    await query(pool, "select * from import_users($1)", [
      JSON.stringify([{ id: ROLE, email: "role@example.com" }]),
    ]);
    await resolveAll(pool);
    expect(await readers(pool)).toEqual([
      { reader: `${ROLE}:jane`, email: "role@example.com", resolved_by: "principal_id" },
    ]);
    expect(await query(pool, "select email, resolved_by from who_reads($1)", [`${ROLE}:x`])).toEqual([
      { email: "role@example.com", resolved_by: "principal_id" },
    ]);
    await query(pool, "select remove_user($1)", [ROLE]);
    expect(await query(pool, "select from who_reads($1)", [`${ROLE}:x`])).toEqual([]);
  });
});

describe("the session name of another account", () => {
  const JANES = `${ROLE}:jane@example.com`;
  test.for([
    ["an address of a listed account and domain", JANES, OTHERS, ["example.com", OTHERS], "jane@example.com"],
    [
      "the name of a federated user",
      `${OTHERS}:jane@example.com`,
      OTHERS,
      ["example.com", OTHERS],
      "jane@example.com",
    ],
    ["an account that is not listed", JANES, OTHERS, ["example.com"], null],
    ["only another account that is listed", JANES, OTHERS, ["example.com", "999999999999"], null],
    ["another domain", JANES, OTHERS, ["example.org", OTHERS], null],
    ["no account that is told", JANES, "", ["example.com", OTHERS], null],
    ["no address", `${ROLE}:jane`, OTHERS, ["example.com", OTHERS], null],
  ] as const)("%s", async ([, id, account_id, trusted, email], { pool }) => {
    await query(pool, "select * from request_restores($1, $2, $3)", [
      JSON.stringify([aRead(foreign(id, { account_id }))]),
      WAITS,
      trusted,
    ]);
    await resolveAll(pool, [...trusted]);
    expect(await readers(pool)).toEqual([
      { reader: id, email, resolved_by: email === null ? null : "session_name" },
    ]);
  });
});

describe("what it costs", () => {
  test("a role's sessions in another account are one payer, and a policy finds them by the role's id", async ({
    pool,
  }) => {
    await policy(pool, "ignore", { s3_bucket: "*", principal: `${ROLE}:*` });
    const [ignored, other] = await requestRestores(
      pool,
      aRead(foreign(`${ROLE}:jane@example.com`)),
      aRead(foreign("AROACKCEVSQ6C2EXAMPL2:x")),
    );
    expect(ignored?.request_id).toBeNull();
    expect(other?.request_id).not.toBeNull();
    await pool.query("delete from policies; delete from restore_requests; delete from restores");

    await pool.query("select set_limit('person', null, null, 'day', null, 100)");
    await admitReads(pool, 3, (n) => foreign(`${ROLE}:session-${n}`, { principal: "" }));
    expect(await query(pool, "select distinct payer from restores")).toEqual([{ payer: ROLE }]);
  });

  test.for([
    [ROLE, `${ROLE}:*`, ROLE],
    [`${ROLE}:*`, `${ROLE}:*`, ROLE],
    [`${ROLE}:Jane@Example.com`, `${ROLE}:Jane@Example.com`, ROLE],
    [USER, USER, USER],
  ] as const)("--by %s is understood", async ([by, principal, payer], { pool }) => {
    await query(pool, "select set_policy('b', '', $1, 'hold')", [by]);
    expect(await query(pool, "select principal from policy_list")).toEqual([{ principal }]);
    expect(
      await one(pool, "select reader, problem, payer, action from check_read('b', 'k', $1)", [by]),
    ).toEqual({ reader: principal, problem: null, payer, action: "hold" });
    await query(pool, "select remove_policy('b', '', $1)", [by]);
    expect(await query(pool, "select from policies")).toEqual([]);
  });
});

describe("operators", () => {
  test("find what a reader of another account read, by the whole id or its beginning", async ({ pool }) => {
    await read(pool, foreign(`${ROLE}:jane@example.com`));
    const { request_id } = await read(pool, foreign(`${ROLE}:john`));
    expect(
      await query(pool, "select id from find_by_reader(array[$1], null, 10) id", [`${ROLE}:john`]),
    ).toEqual([{ id: request_id }]);
    expect(await query(pool, "select name from readers_like($1) name", [`${ROLE}:`])).toEqual([
      { name: `${ROLE}:jane@example.com` },
      { name: `${ROLE}:john` },
    ]);
    // What the search box of the pages makes of it.
    for (const [q, of] of [
      [`${ROLE}:john`, "reader"],
      [`${ROLE}:jane@example.com`, "reader"],
      [`${ROLE}:*`, "reader_prefix"],
      [USER, "reader"],
      ["jane@example.com", "address"],
    ] as const)
      expect(searchOf(q), q).toEqual({ kind: "reads", of, text: q.replace(/\*$/, "") });
  });

  test("erase a person from principal ids, maps by them, and what the identity store told", async ({
    pool,
  }) => {
    await map(pool, `${ROLE}:jane@example.com`, "jane@example.com");
    await insertRow(pool, "identity_store_users", {
      subject: `user/${randomUUID()}`,
      store: "d-1234567890",
      is_wanted: false,
      answer: "found",
      email: "Jane@example.com",
      answered_at: new Date(),
    });
    const { subject } = await one(pool, "select subject from identity_store_users");
    const restore = await insertRestore(pool, "pending");
    const more = { email: null, user_resolved: true };
    await insertRequest(pool, restore, foreign(`${ROLE}:jane@example.com`, more));
    await insertRequest(pool, restore, {
      ...more,
      access_key_id: "ASIA1",
      on_behalf_of: String(subject).slice("user/".length),
    });
    await insertRequest(pool, restore, {
      access_key_id: "",
      principal: "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_R_1/jane.d",
      principal_id: `${ROLE}:jane.d`,
      email: "jane@example.com",
      resolved_by: "identity_store",
    });
    await insertRequest(pool, restore, foreign(`${ROLE}:john`, more));
    let rows: number;
    do rows = (await one(pool, "select erase_person('jane@example.com') as rows"))["rows"] as number;
    while (rows > 0);

    const left = await query(
      pool,
      "select reader, principal, principal_id, on_behalf_of, email from restore_requests order by reader",
    );
    expect(JSON.stringify(left)).not.toMatch(/jane|"on_behalf_of":"[^"]/i);
    expect(left.map(({ reader }) => String(reader))).toEqual(
      expect.arrayContaining([
        "ASIA1",
        `${ROLE}:john`,
        expect.stringMatching(/AROA.*:erased-/),
        expect.stringMatching(/^arn:.*\/erased-/),
      ]),
    );
    expect(await query(pool, "select from identity_store_users")).toEqual([]);
    expect(await query(pool, "select from aws_principal_user_map")).toEqual([]);
  });
});
