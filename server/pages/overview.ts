/** The first screen: what needs somebody, since when, and what to do. Then how everything is. */
import { html } from "hono/html";
import type { Pool } from "pg";

import { isPoolBusy, isTooSlow } from "../postgres/errors.ts";
import { cached } from "./cached.ts";
import { hourChart } from "./chart.ts";
import { actionLink, facts, link, table, tag } from "./layout.ts";
import {
  COUNT_LIMIT,
  findings,
  gate,
  hours,
  lastRead,
  openMails,
  openStates,
  tasks,
  tookTimes,
  workers,
  type Finding,
  type Gate,
} from "./queries.ts";
import { capital, count, duration, plain, things, time, visible, type Html } from "./text.ts";
import { urls } from "./urls.ts";

/** Charts show two days. */
const HOURS = 48;

/** However many look, and however often. */
const KEEP_MS = 5_000;

/** A part that is too slow must not take the others with it. Everything else that fails, fails the page. */
type Part<T> = { value: T } | { too_slow: true };
const part = <T>(query: Promise<T>): Promise<Part<T>> =>
  query.then(
    (value) => ({ value }),
    (error: unknown) => {
      if (isTooSlow(error) || isPoolBusy(error)) return { too_slow: true };
      throw error;
    },
  );

export interface Snapshot {
  now: Date;
  findings: Part<Finding[]>;
  states: Part<Awaited<ReturnType<typeof openStates>>>;
  last_read: Part<Date | null>;
  workers: Part<Awaited<ReturnType<typeof workers>>>;
  tasks: Part<Awaited<ReturnType<typeof tasks>>>;
  gate: Part<Gate | undefined>;
  mails: Part<Awaited<ReturnType<typeof openMails>>>;
  hours: Part<Awaited<ReturnType<typeof hours>>>;
  took: Part<Awaited<ReturnType<typeof tookTimes>>>;
}

export const createSnapshots = (pool: Pool): (() => Promise<Snapshot>) =>
  cached(async () => {
    const [found, states, last_read, alive, ran, mail_gate, mails, counted, took] = await Promise.all([
      part(findings(pool)),
      part(openStates(pool)),
      part(lastRead(pool)),
      part(workers(pool)),
      part(tasks(pool)),
      part(gate(pool)),
      part(openMails(pool)),
      part(hours(pool, HOURS)),
      part(tookTimes(pool)),
    ]);
    return {
      now: new Date(),
      findings: found,
      states,
      last_read,
      workers: alive,
      tasks: ran,
      gate: mail_gate,
      mails,
      hours: counted,
      took,
    };
  }, KEEP_MS);

const show = <T>(of: Part<T>, render: (value: T) => unknown): unknown =>
  "value" in of
    ? render(of.value)
    : html`<p class="card note">This took longer than 3 seconds, so it is left out. Reload to try again.</p>`;

/** "All is well." or "3 things need you." */
export const headline = ({ findings: found }: Snapshot): string => {
  if (!("value" in found)) return "What needs you took too long to find out";
  const n = found.value.length;
  return n === 0 ? "All is well." : `${things(n, "thing")} ${n === 1 ? "needs" : "need"} you`;
};

/** Where to look at a finding, and what to do about it there. */
function whereTo({ finding, problem }: Finding, may_act: boolean): Html | "" {
  switch (finding) {
    case "stuck":
      return link(
        urls.stuck(problem.startsWith("So many") ? undefined : problem.replace(/\.$/, "")),
        "Show them",
      );
    case "mail_gate_closed":
      return html`${may_act ? html`${actionLink(urls.confirm("open_gate"), "Open the gate ...")} ` : ""}${link(urls.mails(), "Mails that wait")}`;
    case "holds_open":
      return link(urls.holds(), "Show them, approve or refuse");
    case "limit_used":
      return link(urls.costs(), "Limits and who uses them");
    case "no_worker":
    case "task_failing":
    case "task_late":
      return link(urls.workers(), "Workers and tasks");
    default:
      return "";
  }
}

const findingCard = (found: Finding, now: Date, may_act: boolean): Html =>
  html`<li class="finding">
    <h2>${visible(capital(found.problem))}</h2>
    <p>
      ${found.count > 1 ? html`<b>${count(found.count)}</b> of them. ` : ""}${found.since === null ? "" : html`Since ${time(found.since, now)}. `}
      <b>What to do:</b> ${visible(found.what_to_do)} ${whereTo(found, may_act)}
    </p>
  </li>`;

export function overview(snapshot: Snapshot, may_act: boolean): Html {
  const { now } = snapshot;
  return html` <section aria-label="What needs you">
      ${show(snapshot.findings, (found) =>
        found.length === 0
          ? html`<p class="card well">
              Nothing needs you. Checked: workers, tasks, restores, mails, the mail gate, reads, events, holds
              and limits.
            </p>`
          : html`<ul class="findings">
              ${found.map((one) => findingCard(one, now, may_act))}
            </ul>`,
      )}
    </section>
    <div class="grid">
      <section>
        <h2>Open restores</h2>
        ${show(snapshot.states, (states) =>
          table(
            "By state",
            ["state", "restores", "the oldest"],
            states.map((state) => [
              link(
                state.restore_status === "held"
                  ? urls.holds()
                  : urls.restores({ state: state.restore_status, order: "oldest" }),
                tag(state.restore_status, state.count),
              ),
              count(state.count, COUNT_LIMIT),
              time(state.oldest, now),
            ]),
          ),
        )}
        <p>
          ${show(snapshot.last_read, (at) => (at === null ? "No read has come in yet." : html`The last read came in ${time(at, now)}.`))}
        </p>
      </section>
      <section>
        <h2>Workers</h2>
        ${show(snapshot.workers, (list) => {
          const alive = list.filter(({ is_alive }) => is_alive);
          const dead = list.length - alive.length;
          return html`<p>
            ${alive.length === 0 ? html`<span class="tag bad">none is alive</span>` : html`<span class="tag good">${count(alive.length)} alive</span>`}
            ${alive[0] === undefined ? "" : html` the newest since ${time(alive[0].started_at, now)}.`}
            ${dead > 0 ? `${things(dead, "dead one")} not cleaned up yet.` : ""}
            ${link(urls.workers(), "All of them")}
          </p>`;
        })}
        ${show(snapshot.tasks, (list) =>
          table(
            "Tasks",
            ["task", "last success", "jobs"],
            list.map((task) => [task.task, time(task.succeeded_at, now), taskJobs(task)]),
          ),
        )}
      </section>
      <section>
        <h2>Mails</h2>
        ${show(snapshot.gate, (one) => (one === undefined ? "" : gateFacts(one, now, may_act)))}
        ${show(snapshot.mails, (list) =>
          table(
            "Not sent",
            ["state", "mails", "the oldest"],
            list.map((mail) => [
              link(
                urls.mails(mail.status === "sealed" ? "waiting" : mail.status),
                tag(mail.status, mail.count),
              ),
              count(mail.count, COUNT_LIMIT),
              time(mail.oldest, now),
            ]),
          ),
        )}
      </section>
      <section>
        <h2>How long it takes</h2>
        ${show(snapshot.took, (list) =>
          table(
            "From the read to readable, in 30 days",
            ["class and tier", "restores", "half within", "95 % within"],
            list.map((took) => [
              plain(`${took.storage_class || "unknown class"}, ${took.tier || "unknown tier"}`),
              count(took.count),
              took.half_s === null ? "longer than 2 d" : duration(took.half_s),
              took.most_s === null ? "longer than 2 d" : duration(took.most_s),
            ]),
          ),
        )}
      </section>
    </div>
    ${show(snapshot.hours, (list) => {
      const at = list.map(({ hour }) => hour);
      return html`<div class="grid">
        <section>
          <h2>Restores per hour</h2>
          ${hourChart("restores-chart", "Restores", at, [
            { name: "opened", values: list.map(({ opened }) => opened) },
            { name: "became readable", values: list.map(({ restored }) => restored) },
            { name: "failed", values: list.map(({ failed }) => failed) },
          ])}
        </section>
        <section>
          <h2>Mails per hour</h2>
          ${hourChart("mails-chart", "Mails", at, [{ name: "sent", values: list.map(({ mails }) => mails) }])}
        </section>
      </div>`;
    })}`;
}

export const taskJobs = ({ waiting, failed }: { waiting: number; failed: number }): Html =>
  failed > 0
    ? html`<span class="tag bad">${count(failed)} failed</span>`
    : html`${waiting === 0 ? "none waits" : things(waiting, "waits", "wait")}`;

export const gateFacts = (gate: Gate, now: Date, may_act: boolean): Html =>
  gate.is_open
    ? html`<p>
        <span class="tag good">The gate is open</span> at
        ${gate.calls_per_second.toLocaleString("en", { maximumFractionDigits: 1 })} mails a second.
      </p>`
    : html`<p>
          <span class="tag bad">The gate is closed</span>
          ${gate.closed_since === null ? "" : html`since ${time(gate.closed_since, now)},`}
          ${gate.closed_until === null ? "until somebody opens it" : html`until ${time(gate.closed_until, now)}`}${
            gate.sender === null ? "" : html`, for mails from ${visible(gate.sender)}`
          }.
        </p>
        ${facts([["Why", visible(gate.reason)]])}${may_act ? html`<p>${actionLink(urls.confirm("open_gate"), "Open the gate ...")}</p>` : ""}`;
