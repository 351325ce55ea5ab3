import { resolveRequests } from "../server/postgres/people.ts";
import { task } from "../server/worker/task.ts";

/** Finds the people behind keys, roles and sessions: of rows not looked up yet, and of open rows whose reader is unknown. */
export default task({ runs: 1 }, async ({ db, debounce, settings, count }, signal) => {
  const rules = { debounce, session_domains: settings.SESSION_EMAIL_DOMAINS };
  count("looked_up", await resolveRequests(db, rules, signal));
});
