import type { Task } from "graphile-worker";

import { notify } from "../server/worker/mails.ts";

/** One "your files are being restored" mail per person for all that S3 has accepted and they do not know of. */
const pre_notify: Task = (_payload, helpers) => notify("pre", helpers);

export default pre_notify;
