import { resolveRequests } from "../server/postgres/people.ts";
import { task } from "../server/worker/task.ts";

/** Finds the people behind keys, roles and sessions: of rows not looked up yet, and of open rows whose reader is unknown. */
export default task({ runs: 1 }, async ({ db, notify_waits, settings, count }, signal) => {
  const rules = { notify_waits, session_domains: settings.SESSION_EMAIL_DOMAINS };
  count("looked_up", await resolveRequests(db, rules, signal));
});
