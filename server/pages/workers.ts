/** Who works, and how each task does. */
import { html } from "hono/html";

import { table } from "./layout.ts";
import { taskJobs } from "./overview.ts";
import type { Task, Worker } from "./queries.ts";
import { time, visible, visibleUnlessEmpty, type Html } from "./text.ts";

export const workersPage = (workers: Worker[], tasks: Task[], now: Date): Html =>
  html` ${workers.some(({ is_alive }) => is_alive) ? "" : html`<p class="card note"><b>No worker is alive.</b> Nothing is restored, and no mail goes out. Start one: <code>npm run worker</code>, or see why the service does not run: <code>systemctl status thaw-worker</code>.</p>`}
    ${table(
      "Workers. A living one holds its lock; of a dead one the others take back the work, and then its row goes.",
      ["worker", "state", "started"],
      workers.map((worker) => [
        visible(worker.id),
        worker.is_alive ? html`<span class="tag good">alive</span>` : html`<span class="tag bad">dead</span>`,
        time(worker.started_at, now),
      ]),
    )}
    <h2>Tasks</h2>
    ${table(
      "Each runs every five minutes, the poll each hour, and at once when there is work.",
      ["task", "last success", "last failure", "jobs", "waiting since", "error"],
      tasks.map((task) => [
        task.task,
        time(task.succeeded_at, now),
        time(task.failed_at, now),
        taskJobs(task),
        time(task.waiting_since, now),
        visibleUnlessEmpty(task.error),
      ]),
    )}`;
