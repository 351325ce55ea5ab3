/** Rows as a test wants them, aged where time matters, and two connections that meet. */
import { randomUUID } from "node:crypto";

import type { Pool, PoolClient, QueryResultRow } from "pg";
import { expect } from "vitest";

import { waitFor } from "./database.ts";
import { BUCKET, JANE } from "./thaw.ts";

export const JOHN = "AKIAJOHN000000000001";
/** The quiet window and the longest wait, as every call here passes them. */
export const WAITS = ["120 seconds", "900 seconds"];

const UNITS = { seconds: 1, minutes: 60, hours: 3600, days: 86_400 };
const seconds = (age: string): number => {
  const [count, unit] = age.split(" ");
  return Number(count) * UNITS[unit as keyof typeof UNITS];
};
/** ago("2 hours"): what happened then. */
export const ago = (age: string): Date => new Date(Date.now() - seconds(age) * 1000);
/** ahead("7 days"): what will happen then. */
export const ahead = (age: string): Date => new Date(Date.now() + seconds(age) * 1000);

// oxlint-disable-next-line typescript/no-explicit-any -- what a test expects, it asserts.
export type Row = Record<string, any>;
export type State = "not_started" | "pending" | "restored" | "failed" | "closed";
export const STATES: State[] = ["not_started", "pending", "restored", "failed", "closed"];

/** A row of each state, an hour old; a restored one has 7 days to go. */
const STATE_COLUMNS = (): Record<State, Row> => ({
  not_started: { status: "not_started" },
  pending: {
    status: "pending",
    accepted_at: ago("1 hours"),
    storage_class: "GLACIER",
    pinned_version_id: "",
  },
  restored: {
    status: "restored",
    accepted_at: ago("5 hours"),
    storage_class: "GLACIER",
    pinned_version_id: "",
    restore_expires_at: ahead("7 days"),
  },
  failed: {
    status: "failed",
    failure_code: "object_not_found",
    failure_message: "The file is no longer there.",
  },
  closed: {
    status: "restored",
    status_at: ago("3 days"),
    accepted_at: ago("4 days"),
    restore_expires_at: ago("1 days"),
    closed_at: ago("1 days"),
  },
});

type Client = Pool | PoolClient;

export async function query<R extends QueryResultRow = Row>(
  client: Client,
  text: string,
  values: unknown[] = [],
): Promise<R[]> {
  return (await client.query<R>(text, values)).rows;
}

export async function one<R extends QueryResultRow = Row>(
  client: Client,
  text: string,
  values: unknown[] = [],
): Promise<R> {
  const rows = await query<R>(client, text, values);
  expect(rows).toHaveLength(1);
  return rows[0] as R;
}

export async function insertRow(client: Client, table: string, values: Row): Promise<Row> {
  const columns = Object.keys(values);
  const places = columns.map((_, index) => `$${index + 1}`);
  return one(
    client,
    `insert into ${table} (${columns.join()}) values (${places.join()}) returning *`,
    Object.values(values),
  );
}

export const insertRestore = (client: Client, state: State, more: Row = {}): Promise<Row> =>
  insertRow(client, "restores", {
    id: randomUUID(),
    s3_bucket: BUCKET,
    s3_key: "film.mov",
    status_at: ago("1 hours"),
    created_at: ago("1 hours"),
    ...STATE_COLUMNS()[state],
    ...more,
  });

/** A reader of that restore: Jane, whose address is known and whose windows are over, unless told otherwise. */
export async function insertRequest(client: Client, restore: Row, more: Row = {}): Promise<Row> {
  const request = {
    id: randomUUID(),
    access_key_id: JANE,
    email: "jane@example.com",
    user_resolved: true,
    requested_at: ago("1 hours"),
    last_read_at: ago("1 hours"),
    ...more,
  };
  const columns = Object.keys(request);
  return one(
    client,
    `insert into restore_requests (restore_id, s3_bucket, s3_key, version_id, restore_status, status_at, ${columns.join()})
     select id, s3_bucket, s3_key, version_id, status, status_at, ${columns.map((_, index) => `$${index + 2}`).join()}
       from restores where id = $1 returning *`,
    [restore["id"], ...Object.values(request)],
  );
}

/** A restore in that state with Jane as its reader. */
export async function insertRead(
  client: Client,
  state: State,
  more: { restore?: Row; request?: Row } = {},
): Promise<{ restore: Row; request: Row }> {
  const restore = await insertRestore(client, state, more.restore);
  return { restore, request: await insertRequest(client, restore, more.request) };
}

/** The map knows whose that access key is. */
export const know = (
  client: Client,
  access_key_id: string,
  email = "jane@example.com",
  more: Row = {},
): Promise<Row> => insertRow(client, "aws_key_user_map", { access_key_id, email, ...more });

/** Its reader has heard what became of it; the mail. */
export async function tell(client: Client, request: Row): Promise<Row> {
  const notification = await insertNotification(client, { status: "sent", sent_at: ago("30 minutes") });
  await client.query(
    "update restore_requests set post_notification_id = $2, post_notified = true where id = $1",
    [request["id"], notification["id"]],
  );
  return notification;
}

export const insertNotification = (client: Client, more: Row = {}): Promise<Row> =>
  insertRow(client, "notifications", {
    id: randomUUID(),
    kind: "post",
    email: "jane@example.com",
    body: "{}",
    ...more,
  });

/** Seals what that person is due to hear as server/worker/mails.ts does, in the caller's transaction; returns how many restores. */
export async function sealMail(
  client: Client,
  id: string,
  kind: "pre" | "post",
  person: string,
): Promise<number> {
  const { announced } = await one<{ announced: number }>(
    client,
    "select announced from seal_page($1, $2, $3, $4, $5)",
    [id, kind, person, ...WAITS],
  );
  if (announced > 0) await insertNotification(client, { id, kind, email: person });
  return announced;
}

/** Claims a mail that is due if it may be sent just now: takes a turn in Resend's pace, as server/worker/mails.ts does. */
export async function claimInTurn(client: Client, kind: "pre" | "post"): Promise<Row[]> {
  const { wait_ms } = await one(client, "select take_mail_turn($1, null, '0') as wait_ms", [kind]);
  return wait_ms === 0 ? query(client, "select * from claim_notifications($1, 1)", [kind]) : [];
}

export interface Answer {
  read_id: string;
  request_id: string;
  duplicate: boolean;
}

/** A failed read of film.mov by Jane just now, unless told otherwise. */
export const aRead = (more: Row = {}): Row => ({
  id: randomUUID(),
  s3_bucket: BUCKET,
  s3_key: "film.mov",
  access_key_id: JANE,
  event_id: randomUUID(),
  event_time: new Date(),
  ...more,
});

export const requestRestores = (client: Client, ...reads: Row[]): Promise<Answer[]> =>
  query<Answer & QueryResultRow>(client, "select * from request_restores($1, $2)", [
    JSON.stringify(reads),
    WAITS,
  ]);

/** One read; its answer. */
export async function read(client: Client, more: Row = {}): Promise<Answer> {
  const answers = await requestRestores(client, aRead(more));
  expect(answers).toHaveLength(1);
  return answers[0] as Answer;
}

export const restores = (client: Client): Promise<Row[]> =>
  query(client, "select * from restores order by created_at, id");
export const requests = (client: Client): Promise<Row[]> =>
  query(client, "select * from restore_requests order by requested_at, access_key_id, principal");
export const requestsOf = (client: Client, restore: Row): Promise<Row[]> =>
  query(client, "select * from restore_requests where restore_id = $1 order by access_key_id", [
    restore["id"],
  ]);
export const reload = (client: Client, restore: Row): Promise<Row> =>
  one(client, "select * from restores where id = $1", [restore["id"]]);

/** The jobs, as "task +seconds until it may run", in order. */
export async function nudges(client: Client): Promise<string[]> {
  const rows = await query(
    client,
    `select task_identifier || ' +' || round(extract(epoch from run_at - created_at)) as nudge
       from graphile_worker.jobs order by task_identifier, run_at`,
  );
  return rows.map((row) => row["nudge"] as string);
}

export const NOTIFY_NUDGES = (kind: "pre" | "post"): string[] => [
  `${kind}_notify +120`,
  `${kind}_notify +900`,
];

export async function forgetNudges(client: Client): Promise<void> {
  await client.query("delete from graphile_worker._private_jobs");
}

/** Everything there is: two that are equal have nothing between them. */
export async function everything(client: Client): Promise<Row> {
  const rows: Row = {};
  for (const table of ["restores", "restore_requests", "notifications", "announcements", "mail_gate"]) {
    rows[table] = await query(client, `select t.* from ${table} t order by t::text`);
  }
  rows["jobs"] = await query(client, "select task_identifier, run_at from graphile_worker.jobs order by id");
  return rows;
}

/** Whether somebody waits for a lock in this database. */
export async function isWaitedFor(pool: Pool): Promise<boolean> {
  const waiting =
    "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
  return (await query(pool, waiting)).length > 0;
}

/**
 * Does `first` in a transaction, lets `second` run into it, and goes on (with `last`, then the commit) only when
 * `second` waits.
 */
export async function whileUncommitted<T>(
  pool: Pool,
  first: (client: PoolClient) => Promise<unknown>,
  second: () => Promise<T>,
  last?: (client: PoolClient) => Promise<unknown>,
): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await first(client);
    let settled = false;
    const waiting = second().finally(() => (settled = true));
    waiting.catch(() => undefined);
    await waitFor("the second to wait for the first", async () => settled || isWaitedFor(pool));
    expect(settled, "the second did not wait").toBe(false);
    await last?.(client);
    await client.query("commit");
    return await waiting;
  } finally {
    client.release(true);
  }
}
