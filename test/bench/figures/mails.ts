import { waitFor } from "../../support/wait_for.ts";
import type { Result } from "../table.ts";
import { LOOK_EVERY_MS, type World } from "../world.ts";

const PEOPLE = 2_000;
const LIMIT = 10;

/** Readers of one file that failed, all due at once. */
const ALL_DUE = `
  insert into restores (id, s3_bucket, s3_key, status, status_at, failure_code, failure_message)
    values ('00000000-0000-4000-8000-000000000000', 'bench', 'a', 'failed', now() - interval '1 hour', 'gone', 'Gone.');
  insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at)
  select gen_random_uuid(), r.id, 'bench', 'a', 'AKIA' || n, 'p' || n || '@example.com', true, r.status, r.status_at, now() - interval '1 hour', now()
    from restores r, generate_series(1, ${PEOPLE}) n;`;

export async function mails(world: World): Promise<Result[]> {
  const clouds = await world.clouds({ mails_per_second: LIMIT });
  await clouds.ask("refuse", "p1000@example.com");
  const { url: databaseUrl, pool } = await world.newDatabase();
  await pool.query(ALL_DUE);
  const workers = [await world.worker(databaseUrl, clouds), await world.worker(databaseUrl, clouds)];
  await waitFor(
    "all mails",
    async () => (await clouds.ask("mails")).length >= PEOPLE - 1,
    600_000,
    LOOK_EVERY_MS,
  );
  for (const worker of workers) await worker.stop();
  const sent = (await clouds.ask("mails")).map((mail) => mail.at);
  const calls = await clouds.ask("mailCalls");
  const refused = calls.filter((call) => call.status === 429).length;
  const rate = (sent.length - 1) / ((Math.max(...sent) - Math.min(...sent)) / 1000);
  const { rows } = await pool.query<{ bad: string }>(
    "select string_agg(email, ', ') as bad from notifications where status <> 'sent'",
  );
  await clouds.stop();
  return [
    {
      number: 7,
      figure: "mails to 2,000 people due at once, two workers",
      value: rate,
      unit: "/s",
      against: "Resend's limit",
      peer: LIMIT,
      ratio: rate / LIMIT,
      goal: ">= 0.95, at most 2 refusals",
      met: rate >= 0.95 * LIMIT && refused <= workers.length && rows[0]?.bad === "p1000@example.com",
      remark: `${refused} refused; not sent: ${rows[0]?.bad}`,
    },
  ];
}
