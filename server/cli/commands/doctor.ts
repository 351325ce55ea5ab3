import { reasonOf } from "../../log.ts";
import { EXIT, type Command } from "../command.ts";
import { checkUp } from "../doctor/checks.ts";
import { counted, fail, type Finding } from "../doctor/finding.ts";
import type { Terminal } from "../terminal.ts";

export const doctor: Command = {
  name: "doctor",
  args: "[BUCKET[/KEY] ...]",
  summary: "Checks for what would fail without an error, and says what to do; changes nothing",
  examples: [
    ["", "settings, Postgres, AWS, Resend, and the buckets of the last 90 days"],
    ["my-bucket my-bucket/films/a.mov", "these, and whether Thaw may restore that file"],
  ],
  async run(terminal, names) {
    const show = printer(terminal);
    const counts = { ok: 0, warn: 0, FAIL: 0, skip: 0 };
    try {
      for await (const finding of checkUp(terminal.env, names)) {
        counts[finding.level] += 1;
        show(finding);
      }
    } catch (error) {
      counts.FAIL += 1;
      show(fail("doctor", reasonOf(error), "This is a bug: report it"));
    }
    const { warn, FAIL } = counts;
    terminal.text("");
    terminal.text(
      FAIL + warn === 0
        ? "Nothing is wrong here."
        : `${counted(FAIL, "failure")}, ${counted(warn, "warning")}.`,
    );
    return FAIL > 0 ? EXIT.failed : EXIT.done;
  },
};

const MARKS: Record<Finding["level"], string> = { ok: "ok  ", warn: "warn", FAIL: "FAIL", skip: "-   " };

/** No check prints these; a library's error message may. */
const SECRETS = [
  "DATABASE_URL",
  "PAGES_DATABASE_URL",
  "OPS_PASSWORD",
  "METRICS_TOKEN",
  "RESTORE_SECRET",
  "RESEND_API_KEY",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
];

/** Shorter values are no secrets, but ordinary words ("embedded"). */
const SECRET_LENGTH = 16;

/** Shows a finding as one line, without secrets. */
function printer(terminal: Terminal): (finding: Finding) => void {
  const secrets = SECRETS.flatMap((name) => terminal.env[name]?.split(",") ?? [])
    .map((secret) => secret.trim())
    .filter((secret) => secret.length >= SECRET_LENGTH);
  const clean = (text: string): string =>
    secrets.reduce((left, secret) => left.replaceAll(secret, "(secret)"), text).replaceAll(/\p{Cc}+/gu, " ");
  return ({ level, what, found, todo }) => {
    const line = `${MARKS[level]}  ${what}: ${found}${todo === undefined ? "" : `. ${todo}`}`;
    const record = { level: level.toLowerCase(), what, found, ...(todo !== undefined && { todo }) };
    terminal.show(
      Object.fromEntries(Object.entries(record).map(([name, text]) => [name, clean(text)])),
      clean(line),
    );
  };
}
