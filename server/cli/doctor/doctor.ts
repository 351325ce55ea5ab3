/**
 * `npm run doctor [-- bucket | bucket/key ...]`: checks for what would fail without an error, and says what to
 * do about it. Changes nothing. Ends with 1 when something is broken, with 0 when there is at most a warning.
 */
import { allowClosedOutput, reasonOf } from "../../log.ts";
import { checkUp } from "./checks.ts";
import { counted, fail, type Finding } from "./finding.ts";

// oxlint-disable-next-line node/no-process-env -- an entry point, like main.ts.
const env = process.env;

const MARKS: Record<Finding["level"], string> = { ok: "ok  ", warn: "warn", FAIL: "FAIL", skip: "-   " };

/** No check prints these; a library's error message may. */
const SECRETS = [
  "DATABASE_URL",
  "RESTORE_SECRET",
  "RESEND_API_KEY",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
].flatMap((name) => env[name]?.split(",") ?? []);

/** Shorter values are no secrets, but ordinary words ("embedded"). */
const SECRET_LENGTH = 16;

/** One line, whatever characters a bucket's name or an error has. */
function lineOf({ level, what, found, todo }: Finding): string {
  let line = `${MARKS[level]}  ${what}: ${found}${todo === undefined ? "" : `. ${todo}`}`;
  for (const secret of SECRETS) {
    if (secret.trim().length >= SECRET_LENGTH) line = line.replaceAll(secret.trim(), "(secret)");
  }
  return line.replaceAll(/\p{Cc}+/gu, " ");
}

allowClosedOutput();
const counts = { ok: 0, warn: 0, FAIL: 0, skip: 0 };
try {
  for await (const finding of checkUp(env, process.argv.slice(2))) {
    counts[finding.level] += 1;
    console.log(lineOf(finding));
  }
} catch (error) {
  counts.FAIL += 1;
  console.log(lineOf(fail("doctor", reasonOf(error), "This is a bug: report it")));
}
const { warn, FAIL } = counts;
console.log(
  FAIL + warn === 0
    ? "\nNothing is wrong here."
    : `\n${counted(FAIL, "failure")}, ${counted(warn, "warning")}.`,
);
// Not only the exit code: calls that timed out may still be pending.
process.exit(FAIL > 0 ? 1 : 0);
