/**
 * All SQL of the pages. Each query reads a bounded number of rows by an index: counts are cut off, lists and searches go on from a
 * key. So a page costs the same at ten thousand rows and at ten million.
 */
import type { Pool, QueryResultRow } from "pg";

import { isTooSlow } from "../postgres/errors.ts";
import type { Cursor, ListQuery, ListState } from "./urls.ts";

/** Longer, and nobody waits for the page any more; and a report must not hold back vacuum. */
export const PAGES_QUERY_TIMEOUT_MS = 3_000;

/** Rows of one page of a list. */
export const PAGE_ROWS = 50;

/** Counts stop here: "10,000+" says as much. */
export const COUNT_LIMIT = 10_000;

/** Rows of one file. More come with a narrower filter. */
export const CSV_ROWS = 10_000;

/** What one bulk action does at most. */
export const BULK_LIMIT = 1_000;

export type Rows<T extends QueryResultRow> = Promise<T[]>;

export async function rows<T extends QueryResultRow>(
  pool: Pool,
  text: string,
  values: unknown[] = [],
): Rows<T> {
  return (await pool.query<T>(text, values)).rows;
}

/** count(*), cut off at COUNT_LIMIT, as in the view restore_overview. */
export const countOf = (from: string): string =>
  `(select count(*) from (select from ${from} limit ${COUNT_LIMIT}) c)::int`;

// What the database role may do.

export interface Rights {
  role: string;
  may_act: boolean;
}

/** A role without the operators' functions, or one that may only read, is offered no action. */
export const rights = async (pool: Pool): Promise<Rights> =>
  (
    await rows<Rights>(
      pool,
      `select current_user::text as role,
              current_setting('transaction_read_only') = 'off'
                and coalesce(has_function_privilege(to_regprocedure('retry_restore(uuid)'), 'execute'), false) as may_act`,
    )
  )[0] ?? { role: "?", may_act: false };

// The overview.

export interface Finding {
  rank: number;
  finding: string;
  problem: string;
  since: Date | null;
  count: number;
  what_to_do: string;
}

const FINDINGS = "select rank, finding, problem, since, count, what_to_do from findings";

/** On the worst night so much is stuck that counting it takes too long. The rest must show all the same. */
const TOO_MANY: Finding = {
  rank: 3,
  finding: "stuck",
  problem: "So many requests are stuck that counting them takes longer than 3 seconds",
  since: null,
  count: 1,
  what_to_do: "Look at some of them, and at what they have in common.",
};

export async function findings(pool: Pool): Promise<Finding[]> {
  try {
    return await rows<Finding>(pool, `${FINDINGS} order by rank, since`);
  } catch (error) {
    if (!isTooSlow(error)) throw error;
    const others = await rows<Finding>(pool, `${FINDINGS} where finding <> 'stuck' order by rank, since`);
    return [...others, TOO_MANY].toSorted((one, other) => one.rank - other.rank);
  }
}

export interface StateCount {
  restore_status: ListState;
  count: number;
  oldest: Date | null;
}

/** Open restores by status, and since when the oldest of each has it; held ones apart, if there are any. */
export const openStates = async (pool: Pool): Rows<StateCount> => {
  const held = "restore_details r where r.is_held";
  const found = await rows<StateCount>(
    pool,
    `select 'held' as restore_status, ${countOf(held)} as count, (select r.status_at from ${held} order by r.status_at limit 1) as oldest
     union all
     (select restore_status::text, open, oldest_since from restore_overview order by restore_overview.restore_status)`,
  );
  return found.filter(({ restore_status, count }) => restore_status !== "held" || count > 0);
};

/** When the last read came, repeats included: the silence that `findings` tells of is counted from then. */
export const lastRead = async (pool: Pool): Promise<Date | null> =>
  (await rows<{ last_read_at: Date | null }>(pool, "select last_read_at from read_silence"))[0]
    ?.last_read_at ?? null;

export interface Worker {
  id: string;
  started_at: Date;
  is_alive: boolean;
}

export const workers = (pool: Pool): Rows<Worker> =>
  rows(
    pool,
    "select id, started_at, is_alive from worker_status order by is_alive desc, started_at desc limit 100",
  );

export interface Task {
  task: string;
  succeeded_at: Date | null;
  failed_at: Date | null;
  error: string;
  waiting: number;
  failed: number;
  waiting_since: Date | null;
}

export const tasks = (pool: Pool): Rows<Task> =>
  rows(
    pool,
    "select task, succeeded_at, failed_at, error, waiting::int as waiting, failed::int as failed, waiting_since from job_status order by task",
  );

export interface Gate {
  is_open: boolean;
  closed_until: Date | null;
  reason: string;
  sender: string | null;
  calls_per_second: number;
  closed_since: Date | null;
  /** As it stands in actions; null: open. */
  closed_until_text: string | null;
}

export const gate = async (pool: Pool): Promise<Gate | undefined> =>
  (
    await rows<Gate>(
      pool,
      `select is_open, case when isfinite(closed_until) then closed_until end as closed_until, reason, sender, calls_per_second,
              closed_since, to_jsonb(closed_until) #>> '{}' as closed_until_text
         from mail_gate_status`,
    )
  )[0];

export interface MailCount {
  status: string;
  count: number;
  oldest: Date | null;
}

/** Mails that are not sent. Those that an operator had sent again are done with. */
export const openMails = (pool: Pool): Rows<MailCount> => {
  const of = "unsent_mails m where m.notification_status = s.status";
  return rows(
    pool,
    `select s.status::text as status, ${countOf(of)} as count, (select m.created_at from ${of} order by m.created_at limit 1) as oldest
       from unnest('{sealed,failed,unknown}'::notification_status[]) s (status)`,
  );
};

export interface Hour {
  hour: Date;
  opened: number;
  restored: number;
  failed: number;
  mails: number;
}

/** Each of the last hours, also those in which nothing happened. */
export const hours = (pool: Pool, back: number): Rows<Hour> =>
  rows(
    pool,
    `with counted as (
       select t.hour, coalesce(sum(t.n) filter (where t.metric = 'reads_opened'), 0)::int as opened,
              coalesce(sum(t.n) filter (where t.metric = 'restores' and t.labels ->> 'result' = 'restored'), 0)::int as restored,
              coalesce(sum(t.n) filter (where t.metric = 'restores' and t.labels ->> 'result' = 'failed'), 0)::int as failed,
              coalesce(sum(t.n) filter (where t.metric = 'mails' and t.labels ->> 'status' = 'sent'), 0)::int as mails
         from hourly_totals t
        where t.hour > now() - make_interval(hours => $1) and t.metric in ('reads_opened', 'restores', 'mails')
        group by t.hour)
     select h.hour, coalesce(c.opened, 0) as opened, coalesce(c.restored, 0) as restored, coalesce(c.failed, 0) as failed, coalesce(c.mails, 0) as mails
       from generate_series(date_trunc('hour', now(), 'UTC') - make_interval(hours => $1 - 1), date_trunc('hour', now(), 'UTC'), interval '1 hour') h (hour)
       left join counted c on c.hour = h.hour
      order by h.hour`,
    [back],
  );

export interface Took {
  storage_class: string;
  tier: string;
  count: number;
  half_s: number | null;
  most_s: number | null;
}

/** From the read to "readable", over the last 30 days: within how long half and 95 % of them were, by the buckets' bounds. */
export const tookTimes = (pool: Pool): Rows<Took> =>
  rows(
    pool,
    `with summed as (
       select b.*, sum(b.n) over (partition by b.storage_class, b.tier order by b.le) as upto,
              sum(b.n) over (partition by b.storage_class, b.tier) as total
         from times_to_readable b)
     select s.storage_class, s.tier, max(s.total)::int as count,
            nullif(min(s.le) filter (where s.upto >= 0.5 * s.total), 'infinity') as half_s,
            nullif(min(s.le) filter (where s.upto >= 0.95 * s.total), 'infinity') as most_s
       from summed s group by s.storage_class, s.tier order by count desc limit 20`,
  );

// Lists of restores.

export interface ListedRestore {
  id: string;
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  restore_status: ListState;
  at: Date;
  cursor_at: string;
  created_at: Date;
  closed_at: Date | null;
  storage_class: string | null;
  tier: string | null;
  size_bytes: string | null;
  /** It waits for approval. */
  is_held: boolean;
  failing_since: Date | null;
  failure_code: string | null;
  failure_message: string | null;
  /** At most 100 are counted. */
  readers: number;
  email: string | null;
}

const LISTED = `r.id, r.s3_bucket, r.s3_key, r.version_id, r.restore_status::text as restore_status, r.created_at, r.closed_at, r.storage_class,
  r.tier, r.size_bytes, r.is_held, r.failing_since, r.failure_code, r.failure_message,
  (select count(*)::int from (select from restore_readers q where q.restore_id = r.id limit 100) c) as readers,
  (select q.email from restore_readers q where q.restore_id = r.id and q.email is not null limit 1) as email`;

const STATUSES: ListState[] = ["not_started", "pending", "restored", "failed"];

interface Filter {
  time: string;
  /** By status, of s.status. */
  where: string;
  /** What waits for approval has an index of its own; undefined: it is not in this list. */
  held: string | undefined;
  values: unknown[];
}

const STATUSES_OF: Partial<Record<ListState, ListState[]>> = {
  open: STATUSES,
  held: [],
  closed: ["restored"],
};

/** The rows of `restore_details r` that a list shows; $1 are the statuses, if any. */
function filterOf({ state, from, to }: Omit<ListQuery, "after" | "order">): Filter {
  const isClosed = state === "closed";
  const time = isClosed ? "r.closed_at" : "r.status_at";
  const days = [
    `($2::date is null or ${time} >= $2::date::timestamp at time zone 'UTC')`,
    `($3::date is null or ${time} < ($3::date + 1)::timestamp at time zone 'UTC')`,
  ].join(" and ");
  return {
    time,
    where: `${isClosed ? "r.closed_at is not null" : "r.closed_at is null and r.restore_status = s.status and not r.is_held"} and ${days}`,
    held: state === "open" || state === "held" ? `r.is_held and ${days}` : undefined,
    values: [STATUSES_OF[state] ?? [state], from ?? null, to ?? null],
  };
}

/** One row more than asked for, if there is one: then there is a next page. */
export function listRestores(
  pool: Pool,
  query: ListQuery,
  cursor: Cursor | undefined,
  limit = PAGE_ROWS,
): Rows<ListedRestore> {
  const { time, where, held, values } = filterOf(query);
  const [direction, beyond] = query.order === "oldest" ? ["asc", ">"] : ["desc", "<"];
  const after = cursor === undefined ? "" : `and (${time}, r.id) ${beyond} ($5::timestamptz, $6::uuid)`;
  const some = (condition: string): string =>
    `(select r.id, ${time} as at from restore_details r where ${condition} ${after} order by ${time} ${direction}, r.id ${direction} limit $4)`;
  return rows(
    pool,
    `select p.at, p.at::text as cursor_at, ${LISTED}
       from (select o.id, o.at
               from (select l.id, l.at from unnest($1::restore_status[]) s (status) cross join lateral ${some(where)} l
                     ${held === undefined ? "" : `union all ${some(held)}`}) o
              order by o.at ${direction}, o.id ${direction} limit $4) p
       join restore_details r on r.id = p.id
      order by p.at ${direction}, p.id ${direction}`,
    [...values, limit + 1, ...(cursor === undefined ? [] : [cursor.at, cursor.id])],
  );
}

/** By Postgres's clock, which all times are of. */
export const databaseTime = async (pool: Pool): Promise<string> =>
  (await rows<{ now: string }>(pool, "select now()::text as now"))[0]?.now ?? "";

/**
 * Ids that a bulk action works on, the oldest first; one more than BULK_LIMIT when there are more. What has come into its state after
 * `as_of` is left out. Holds are decided as a whole.
 */
export async function matchingRestores(
  pool: Pool,
  query: Omit<ListQuery, "after" | "order">,
  as_of: string | undefined,
): Promise<string[]> {
  const { time, where, values } = filterOf(query);
  const found = await rows<{ id: string }>(
    pool,
    `select o.id from unnest($1::restore_status[]) s (status)
      cross join lateral (select r.id, ${time} as at from restore_details r where ${where} and ($5::timestamptz is null or ${time} <= $5) order by ${time}, r.id limit $4) o
      order by o.at, o.id limit $4`,
    [...values, BULK_LIMIT + 1, as_of ?? null],
  );
  return found.map(({ id }) => id);
}

export interface Stuck {
  id: string;
  restore_id: string;
  s3_bucket: string;
  s3_key: string;
  email: string | null;
  since: Date | null;
  problem: string;
  failure_code: string;
  failure_message: string;
  what_to_do: string;
  mail_id: string | null;
}

/** The oldest first. */
export const stuck = (pool: Pool, problem: string | undefined, limit: number): Rows<Stuck> =>
  rows(
    pool,
    `select s.id, s.restore_id, s.s3_bucket, s.s3_key, s.email, s.since, s.problem, s.failure_code, s.failure_message, s.what_to_do, s.mail_id
       from unnest(case when $1::text is null then stuck_problems() else array[$1] end) p (problem)
      cross join lateral oldest_stuck(p.problem, $2) s
      order by s.since, s.id limit $2`,
    [problem ?? null, limit],
  );

/** So many stuck requests are looked at for the restores behind them: a restore may have very many readers. */
const STUCK_LOOKED_AT = 10 * BULK_LIMIT;

/** The restores behind the stuck requests of one problem, the oldest first; when they are too many to sort, any of them. */
export async function stuckRestores(pool: Pool, problem: string): Promise<string[]> {
  const found = await rows<{ restore_id: string }>(
    pool,
    "select restore_id from oldest_stuck($1, $3) group by restore_id order by min(since), restore_id limit $2",
    [problem, BULK_LIMIT + 1, STUCK_LOOKED_AT],
  );
  return found.map(({ restore_id }) => restore_id);
}

// Search.

export const restoresOfObject = (pool: Pool, bucket: string, key: string): Rows<ListedRestore> => {
  const of = (over: string) =>
    `(select r.id from restore_details r where r.s3_bucket = $1 and r.s3_key = $2 and r.closed_at ${over} limit ${PAGE_ROWS})`;
  return rows(
    pool,
    `select r.created_at as at, r.created_at::text as cursor_at, ${LISTED}
       from (${of("is null")} union all ${of("is not null")}) p join restore_details r on r.id = p.id
      order by r.created_at desc, r.id limit ${PAGE_ROWS}`,
    [bucket, key],
  );
};

/** Where an id leads. */
export async function findId(
  pool: Pool,
  id: string,
): Promise<{ restore_id?: string; mail_id?: string; hold_id?: string }> {
  const [found] = await rows<{ restore_id: string | null; mail_id: string | null; hold_id: string | null }>(
    pool,
    `select coalesce((select r.id from restore_details r where r.id = $1), (select q.restore_id from restore_readers q where q.id = $1)) as restore_id,
            (select m.id from mail_status m where m.id = $1) as mail_id, (select h.id from hold_list h where h.id = $1) as hold_id`,
    [id],
  );
  return {
    ...(found?.restore_id && { restore_id: found.restore_id }),
    ...(found?.mail_id && { mail_id: found.mail_id }),
    ...(found?.hold_id && { hold_id: found.hold_id }),
  };
}

/** What a search for names means: `bucket` is the whole name of one, or how it begins. */
export interface Name {
  bucket: string;
  is_whole: boolean;
  key: string;
}

/** Restores of files whose keys begin so, by name; one row more than a page. */
export const restoresByName = (
  pool: Pool,
  { bucket, is_whole, key }: Name,
  after: string | undefined,
): Rows<ListedRestore> =>
  rows(
    pool,
    `select r.created_at as at, r.created_at::text as cursor_at, ${LISTED}
       from find_by_name($1, $2, $3, $4, ${PAGE_ROWS + 1}) with ordinality f (id, place) join restore_details r on r.id = f.id
      order by f.place`,
    [bucket, is_whole, key, after ?? null],
  );

export interface FoundRead {
  id: string;
  restore_id: string;
  s3_bucket: string;
  s3_key: string;
  reader: string;
  email: string | null;
  restore_status: ListState;
  is_held: boolean;
  closed_at: Date | null;
  failure_code: string | null;
  requested_at: Date;
}

/** Which function of lists.sql finds the reads; $1 is the text. */
const READS_OF = {
  address: "find_by_address($1, $2, $3)",
  reader: "find_by_reader(array[$1], $2, $3)",
  reader_prefix: "find_by_reader(array(select readers_like($1)), $2, $3)",
} as const;
export type ReadsOf = keyof typeof READS_OF;

/** The newest first; one row more than a page. */
export const searchReads = (
  pool: Pool,
  of: ReadsOf,
  text: string,
  after: string | undefined,
): Rows<FoundRead> =>
  rows(
    pool,
    `select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.reader, q.email, q.restore_status::text as restore_status, q.requested_at,
            r.is_held, r.closed_at, r.failure_code
       from ${READS_OF[of]} with ordinality f (id, place) join restore_readers q on q.id = f.id
      cross join lateral (select r.is_held, r.closed_at, r.failure_code from restore_details r where r.id = q.restore_id offset 0) r
      order by f.place`,
    [text, after ?? null, PAGE_ROWS + 1],
  );

// One restore.

export interface Restore extends ListedRestore {
  region: string | null;
  status_at: Date;
  archive_status: string | null;
  accepted_at: Date | null;
  /** How long S3 usually takes for it, from then on. */
  from_hours: number;
  to_hours: number;
  restored_at: Date | null;
  restore_expires_at: Date | null;
  last_checked_at: Date | null;
  /** When Thaw asks S3 by itself. */
  ask_after: Date | null;
  attempts: number;
  attempt_after: Date | null;
  lost_count: number;
  head_wanted_at: Date | null;
  hold_id: string | null;
  /** Whose limits it counts for. */
  payer: string | null;
  /** In dollars. */
  estimated_cost: string | null;
}

export const restore = async (pool: Pool, id: string): Promise<Restore | undefined> =>
  (
    await rows<Restore>(
      pool,
      `select r.status_at as at, r.status_at::text as cursor_at, ${LISTED}, r.region, r.status_at, r.archive_status, r.accepted_at, r.restored_at,
              r.restore_expires_at, r.last_checked_at, r.attempts, r.attempt_after, r.lost_count, r.head_wanted_at, r.hold_id, r.payer, r.estimated_cost,
              r.ask_after, h.from_hours, h.to_hours
         from restore_details r cross join lateral usual_hours(r.storage_class, r.archive_status, r.tier, r.size_bytes) h where r.id = $1`,
      [id],
    )
  )[0];

export interface Reader {
  id: string;
  reader: string;
  access_key_id: string;
  principal: string;
  email: string | null;
  resolved_by: string | null;
  requested_at: Date;
  read_count: number;
  last_read_at: Date | null;
  pre_notified: boolean;
  post_notified: boolean;
  pre_notification_id: string | null;
  post_notification_id: string | null;
}

/** By the reader's name, from the one after `after` on. */
export const readers = (pool: Pool, restore_id: string, after: string): Rows<Reader> =>
  rows(
    pool,
    `select id, reader, access_key_id, principal, email, resolved_by, requested_at, read_count, last_read_at,
            pre_notified, post_notified, pre_notification_id, post_notification_id
       from restore_readers where restore_id = $1 and reader > $2 order by reader limit ${PAGE_ROWS + 1}`,
    [restore_id, after],
  );

export interface Step {
  at: Date;
  from_status: string | null;
  to_status: string;
  code: string;
  by: string;
}

/** The newest first. */
export const steps = (pool: Pool, restore_id: string): Rows<Step> =>
  rows(
    pool,
    `select at, from_status, to_status, code, by from restore_steps where restore_id = $1 order by id desc limit 200`,
    [restore_id],
  );

// Mails.

export interface Mail {
  id: string;
  kind: string;
  email: string;
  status: string;
  created_at: Date;
  cursor_at: string;
  sent_at: Date | null;
  attempts: number;
  attempt_after: Date | null;
  resend_id: string | null;
  failure_code: string;
  failure_message: string;
  superseded_by: string | null;
}

const MAIL = `m.id, m.kind, m.email, m.status, m.created_at, m.created_at::text as cursor_at, m.sent_at, m.attempts,
  case when isfinite(m.attempt_after) then m.attempt_after end as attempt_after, m.resend_id, m.failure_code, m.failure_message, m.superseded_by`;

export const MAIL_STATUSES = ["waiting", "failed", "unknown"] as const;
export type MailStatus = (typeof MAIL_STATUSES)[number];

/** resend_notification refuses a mail that still waits: it is tried again by itself. */
export const mayBeResent = (status: string | undefined): status is "failed" | "unknown" =>
  status === "failed" || status === "unknown";

/** Mails that are not sent, the oldest first. Sent ones are found by their restore. */
export const mails = (
  pool: Pool,
  status: MailStatus | undefined,
  cursor: Cursor | undefined,
  limit = PAGE_ROWS,
): Rows<Mail> =>
  rows(
    pool,
    `select ${MAIL}
       from (select o.id
               from unnest($1::notification_status[]) s (status)
              cross join lateral (
                select m.id, m.created_at from unsent_mails m
                 where m.notification_status = s.status and (m.created_at, m.id) > ($3::timestamptz, $4::uuid)
                 order by m.created_at, m.id limit $2) o
              order by o.created_at, o.id limit $2) p
       join unsent_mails m on m.id = p.id
      order by m.created_at, m.id`,
    [
      status === undefined ? ["sealed", "failed", "unknown"] : [status === "waiting" ? "sealed" : status],
      limit + 1,
      cursor?.at ?? "-infinity",
      cursor?.id ?? "00000000-0000-0000-0000-000000000000",
    ],
  );

/** Mails that a bulk action sends again, the oldest first; one more than BULK_LIMIT when there are more. */
export async function matchingMails(pool: Pool, status: MailStatus): Promise<string[]> {
  const found = await rows<{ id: string }>(
    pool,
    "select m.id from unsent_mails m where m.status = $1 order by m.created_at, m.id limit $2",
    [status, BULK_LIMIT + 1],
  );
  return found.map(({ id }) => id);
}

export const mailsById = (pool: Pool, ids: string[]): Rows<Mail> =>
  rows(
    pool,
    `select ${MAIL} from mail_status m where m.id = any ($1::uuid[]) order by m.created_at desc, m.id`,
    [ids],
  );

export interface Told {
  restore_id: string;
  s3_bucket: string;
  s3_key: string;
}

/** Which files a mail tells of, one row more than a page. */
export const filesOfMail = (pool: Pool, id: string): Rows<Told> =>
  rows(
    pool,
    // Each part by itself: a mail may tell of a hundred thousand files.
    `(select restore_id, s3_bucket, s3_key from restore_readers where pre_notification_id = $1 limit ${PAGE_ROWS + 1})
     union (select restore_id, s3_bucket, s3_key from restore_readers where post_notification_id = $1 limit ${PAGE_ROWS + 1})
     limit ${PAGE_ROWS + 1}`,
    [id],
  );

// What operators did.

export interface Done {
  id: string;
  at: Date;
  cursor_at: string;
  actor: string;
  role: string;
  action: string;
  target: string;
  restore_id: string | null;
  before: string;
  after: string;
}

// As text: a parsed object must never get into a template. What a function said is a sentence already.
const DONE = `a.id::text as id, a.at, a.at::text as cursor_at, a.actor, a.role, a.action, a.target, a.restore_id,
  coalesce(nullif(a.before::text, '{}'), '') as before, coalesce(a.after ->> 'did', nullif(a.after::text, '{}'), '') as after`;

export const actionsOn = (pool: Pool, targets: string[], restore_id: string | null): Rows<Done> =>
  rows(
    pool,
    `select * from (
       select ${DONE} from operator_actions a where a.restore_id = $2
       union select ${DONE} from operator_actions a where a.target = any ($1::text[])) a
      order by a.at desc, a.id desc limit 100`,
    [targets, restore_id],
  );

export const actions = (pool: Pool, cursor: Cursor | undefined): Rows<Done> =>
  rows(
    pool,
    `select ${DONE} from operator_actions a
      where $1::timestamptz is null or (a.at, a.id) < ($1, $2::bigint)
      order by a.at desc, a.id desc limit ${PAGE_ROWS + 1}`,
    [cursor?.at ?? null, cursor?.id ?? null],
  );

/** It changed between the look and the click: nothing was done. */
export class Changed extends Error {
  override name = "Changed";
}

/**
 * Calls one of the operators' functions for somebody: `call` is its call with `values`. Returns what it said, and the rows that it
 * left in actions, the newest first. `confirmed` is what each of these must have found (actions.before); else nothing is done: somebody
 * confirmed to ask S3 again, and by now that would start a restore that costs money.
 *
 * @throws Changed
 */
export async function act(
  pool: Pool,
  actor: string,
  call: string,
  values: unknown[],
  confirmed: Record<string, string> = {},
): Promise<{ said: string[]; actions: string[] }> {
  const client = await pool.connect();
  let broken = true;
  try {
    await client.query("begin");
    await client.query("select set_config('thaw.actor', $1, true)", [actor]);
    const { rows: said } = await client.query<{ said: string }>(call, values);
    // The time of a row in actions is that of its transaction.
    const { rows: left } = await client.query<{ id: string; is_as_confirmed: boolean }>(
      `select id::text as id, before @> $2::jsonb as is_as_confirmed from operator_actions
        where at = now() and actor = $1 order by operator_actions.id desc`,
      [actor, JSON.stringify(confirmed)],
    );
    if (left.some(({ is_as_confirmed }) => !is_as_confirmed)) throw new Changed();
    await client.query("commit");
    broken = false;
    return { said: said.map((row) => row.said), actions: left.map(({ id }) => id) };
  } catch (error) {
    await client.query("rollback").then(
      () => (broken = false),
      () => {},
    );
    throw error;
  } finally {
    client.release(broken);
  }
}
