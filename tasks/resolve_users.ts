import { trustedSessions } from "../server/config.ts";
import { resolveRequests } from "../server/postgres/people.ts";
import { askIdentityStore } from "../server/worker/identities.ts";
import { task } from "../server/worker/task.ts";

/**
 * Finds the people behind keys, roles and sessions: of rows not looked up yet, and of open rows whose reader is unknown. Then, where
 * there is an identity store, asks it about those who are still unknown, and looks again after each page of answers.
 */
export default task({ runs: 1 }, async (context, signal) => {
  const { db, debounce, settings, identity_store, count } = context;
  const rules = { debounce, session_domains: trustedSessions(settings), identity_store: identity_store?.id };
  let asked: number;
  do {
    count("looked_up", await resolveRequests(db, rules, signal));
    asked = identity_store === undefined ? 0 : await askIdentityStore(context, identity_store, signal);
  } while (asked > 0 && !signal.aborted);
});
