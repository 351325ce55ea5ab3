/** Bursts of reads that somebody has to approve, and one of them. */
import { html } from "hono/html";

import { estimated, dollars } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import type { HeldFile, Hold, HoldReader } from "./cost_queries.ts";
import { actionLink, facts, link, table, tag } from "./layout.ts";
import { PAGE_ROWS, type Done } from "./queries.ts";
import { actionTable, doneNote } from "./restore.ts";
import { objectLink, stateOf } from "./restores.ts";
import { capital, count, plain, things, time, visible, type Html } from "./text.ts";
import { cursorText, urls } from "./urls.ts";

/** "30 objects, 1.2 TB, an estimated $24.10". */
export const holdInWords = ({ objects, bytes, estimated_cost }: Hold): string =>
  `${things(objects, "object")}, ${size(bytes)}, ${estimated(estimated_cost)}`;

/** Holds have no state of their own in lists of restores: open ones wait. */
export const holdTag = ({ status }: Hold): Html => tag(status === "open" ? "held" : status);

const holdTable = (caption: string, list: Hold[], now: Date): Html =>
  table(
    caption,
    ["who reads", "state", "since", "objects", "size", "estimate", "why"],
    list.map((hold) => [
      link(urls.hold(hold.id), visible(hold.person)),
      html`${holdTag(hold)}${hold.decided_by === null ? "" : html` <small>by ${visible(hold.decided_by)}</small>`}`,
      time(hold.opened_at, now),
      count(hold.objects),
      size(hold.bytes),
      dollars(hold.estimated_cost),
      visible(capital(hold.reason)),
    ]),
  );

export function holdsPage(is_decided: boolean, rows: Hold[], now: Date): Html {
  const list = rows.slice(0, PAGE_ROWS);
  const last = list.at(-1);
  const decided = is_decided ? "yes" : undefined;
  return html`<p>
      What is beyond a limit, or what a policy says to hold, is restored when somebody approves it. Costs are
      estimates by published prices.
    </p>
    <p class="bar">
      ${is_decided ? html`${link(urls.holds(), "waiting")} <b>decided</b>` : html`<b>waiting</b> ${link(urls.holds({ decided: "yes" }), "decided")}`}
    </p>
    ${holdTable(is_decided ? "Decided, the newest first" : "Bursts that wait for approval, the oldest first", list, now)}
    ${rows.length > PAGE_ROWS && last !== undefined ? html`<p><a class="button" rel="next" href="${urls.holds({ ...(decided && { decided }), after: cursorText({ at: last.cursor_at, id: last.id }) })}">Next page</a></p>` : ""}`;
}

/** What happens now, in one sentence. */
const nowInWords = (hold: Hold, now: Date): Html =>
  hold.status === "open"
    ? html`Nothing of it is restored until somebody approves. If nobody decides, its readers are told so, and
      it ends ${time(hold.expires_at, now)}.`
    : hold.status === "expired"
      ? html`Nobody decided in time, so its restores failed, and their readers are told.
        ${time(hold.decided_at, now)}`
      : html`By ${visible(hold.decided_by ?? "")}, ${time(hold.decided_at, now)}.`;

export interface HoldFacts {
  hold: Hold;
  files: HeldFile[];
  readers: HoldReader[];
  actions: Done[];
  done: Done | undefined;
}

export function holdPage(
  { hold, files, readers, actions, done }: HoldFacts,
  now: Date,
  may_act: boolean,
): Html {
  const next = files.length > PAGE_ROWS ? files[PAGE_ROWS - 1] : undefined;
  const { id } = hold;
  return html`${doneNote(done, now)}
    <p>${holdTag(hold)} ${nowInWords(hold, now)}</p>
    ${may_act && hold.status === "open" ? html`<p class="bar">${actionLink(urls.confirm("approve", { id }), "Approve ...")} ${actionLink(urls.confirm("refuse", { id }), "Refuse ...")}</p>` : ""}
    <section class="card" aria-label="Facts">
      ${facts([
        ["Who reads", visible(hold.person)],
        ["Why it is held", visible(capital(hold.reason))],
        ["Objects", count(hold.objects)],
        ["Size", size(hold.bytes)],
        ["Estimated cost", `${dollars(hold.estimated_cost)}, without tax and download`],
        ["Since", time(hold.opened_at, now)],
        ["Last grew", time(hold.last_added_at, now)],
        [
          "Decided",
          hold.decided_at && html`${time(hold.decided_at, now)} by ${visible(hold.decided_by ?? "")}`,
        ],
        ["Hold", hold.id],
      ])}
    </section>
    <section>
      <h2>Readers</h2>
      ${table(
        "The ten who read most of its first 1,000 files",
        ["reader", "address", "files", "last read"],
        readers.map((reader) => [
          visible(reader.reader),
          reader.email === null ? "nobody known" : visible(reader.email),
          count(reader.files),
          time(reader.last_read_at, now),
        ]),
      )}
    </section>
    <section>
      <h2>Files</h2>
      ${table(
        "In no particular order",
        ["file", "state", "size", "class and tier", "estimate"],
        files
          .slice(0, PAGE_ROWS)
          .map((file) => [
            objectLink(file),
            tag(stateOf(file)),
            file.size_bytes === null ? "–" : size(file.size_bytes),
            plain([file.storage_class, file.tier].filter((word) => word !== null).join(", ")),
            file.estimated_cost === null ? "–" : dollars(file.estimated_cost),
          ]),
      )}
      ${next === undefined ? "" : html`<p><a class="button" rel="next" href="${urls.hold(id, { after: next.id })}">More files</a></p>`}
    </section>
    <section>
      <h2>What operators did</h2>
      ${actionTable("The newest first", actions, now)}
    </section>`;
}
