/** Thaw with one promise broken: what the auditor is there to find. */
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ROOT } from "../support/root.ts";

export interface Mutant {
  name: string;
  file: string;
  /** Must stand there exactly once, or the mutant is of another time. */
  from: string;
  to: string;
  /** The finding that gives it away. */
  caught: RegExp;
}

export const MUTANTS: Mutant[] = [
  {
    name: "sends without an idempotency key",
    file: "server/mail/resend.ts",
    from: "idempotencyKey: `thaw/${mail.id}`,",
    to: "",
    caught: /delivered \d+ times/,
  },
  {
    name: "writes a mail again for each try",
    file: "server/mail/resend.ts",
    from: "JSON.parse(mail.body)",
    to: "{ ...JSON.parse(mail.body), subject: `Your files, ${Date.now()}` }",
    caught: /ended as unknown/,
  },
  {
    name: "marks a mail sent before it is",
    file: "server/worker/mails.ts",
    from: "const answer = await mailer.send(mail, signal);",
    to: "await sql`select mark_notification_sent(${mail.id}, 'hopefully')`.execute(db);\nconst answer = await mailer.send(mail, signal);",
    caught: /noted as sent, never delivered/,
  },
  {
    name: "takes S3's 202 for its having the file ready",
    file: "sql/transitions.sql",
    from: "set status = 'pending', status_at = now(), accepted_at = now(),",
    to: "set status = 'restored', status_at = now(), accepted_at = now(),",
    caught: /called restored/,
  },
  {
    name: "calls a file ready on an event",
    file: "sql/transitions.sql",
    from: "set head_wanted_at = now(),\n           attempt_after = case when r.claim_id is not null",
    to: "set status = 'restored', status_at = now(), restore_expires_at = now() + interval '7 days',\n           attempt_after = case when r.claim_id is not null",
    caught: /called restored/,
  },
  {
    name: "sends what it should hold",
    file: "sql/cost.sql",
    from: "if v_over is null then",
    to: "if true then",
    caught: /beyond the limit/,
  },
  {
    name: "gives back what S3 has started",
    file: "tasks/trigger_restores.ts",
    from: "return { ...pending, tier };",
    to: "return { ...pending, tier, gives_back: true };",
    caught: /accepted by S3, and charged to nobody/,
  },
];

/** A checkout with that mutant in it. */
export async function checkoutOf(mutant: Mutant): Promise<{ root: string; remove: () => Promise<void> }> {
  const root = await mkdtemp(join(tmpdir(), "thaw-mutant-"));
  for (const part of ["package.json", "crontab", "server", "sql", "tasks"]) {
    await cp(join(ROOT, part), join(root, part), { recursive: true });
  }
  await symlink(join(ROOT, "node_modules"), join(root, "node_modules"));
  const text = await readFile(join(root, mutant.file), "utf8");
  if (text.split(mutant.from).length !== 2)
    throw new Error(`${mutant.file} does not hold exactly once: ${mutant.from}`);
  await writeFile(
    join(root, mutant.file),
    text.replace(mutant.from, () => mutant.to),
  );
  return { root, remove: () => rm(root, { recursive: true }) };
}
