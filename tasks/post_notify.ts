import type { Task } from "graphile-worker";

import { notify } from "../server/worker/mails.ts";

/** One mail per person with the outcome: what is ready, until when, and what failed, why. */
const post_notify: Task = (_payload, helpers) => notify("post", helpers);

export default post_notify;
