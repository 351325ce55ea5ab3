/** The operator's pages: their routes, who may use them, and what protects them. */
import { Hono, type Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import { csrf } from "hono/csrf";
import { HTTPException } from "hono/http-exception";
import { routePath } from "hono/route";
import { secureHeaders } from "hono/secure-headers";
import type { Pool } from "pg";

import { type Log, reasonOf } from "../log.ts";
import { ACTIONS, confirmPage, type Given } from "./actions.ts";
import { ASSETS } from "./assets.ts";
import { cached } from "./cached.ts";
import * as money from "./cost_queries.ts";
import { costsAsCsv, costsPage } from "./costs.ts";
import { holdPage, holdsPage } from "./holds.ts";
import { layout, link, type Page } from "./layout.ts";
import { mailPage, mailsAsCsv, mailsPage } from "./mails.ts";
import { createSnapshots, headline, overview } from "./overview.ts";
import { notFound, PageProblem, problemOf, problemPage } from "./problem.ts";
import * as queries from "./queries.ts";
import { actionTable, doneNote, restorePage } from "./restore.ts";
import { listPage, namesPage, readsPage, restoresAsCsv, restoreTable, stuckPage } from "./restores.ts";
import { searchOf } from "./search.ts";
import { signIn, type PagesEnv } from "./sign_in.ts";
import { plain, visible } from "./text.ts";
import {
  BASE,
  cursorText,
  isId,
  isListState,
  parseCursor,
  parseDay,
  parseMonth,
  urls,
  type ListQuery,
} from "./urls.ts";
import { workersPage } from "./workers.ts";
import { html } from "hono/html";

export interface PagesOptions {
  pool: Pool;
  /** OPS_PASSWORD. */
  password: string;
  /** What browsers see before the proxy. */
  public_url?: string | undefined;
  log: Log;
}

/** A form of ours is some hundred bytes. */
const BODY_BYTES = 16 * 1024;

/** Whether the database role may act changes with a migration only. */
const RIGHTS_MS = 10_000;

export function createPages({ pool, password, public_url, log }: PagesOptions): Hono<PagesEnv> {
  const app = new Hono<PagesEnv>();
  const snapshot = createSnapshots(pool);
  const rights = cached(() => queries.rights(pool), RIGHTS_MS);
  const origin = public_url === undefined ? undefined : new URL(public_url).origin;

  const send = (c: Context<PagesEnv>, page: Omit<Page, "now"> & { now?: Date }, status: 200 | 404 = 200) =>
    c.html(layout({ actor: c.get("actor"), now: new Date(), ...page }), status);

  app.onError((error, c) => {
    // Its own answer asks the browser for a name and a password.
    if (error instanceof HTTPException && error.status === 401) return error.getResponse();
    const problem = problemOf(error);
    if (problem.status >= 500) {
      const line = { path: routePath(c, -1), status: problem.status };
      if (problem.status === 500) log.error({ ...line, err: error }, "a page failed");
      else log.warn({ ...line, reason: reasonOf(error) }, "a page failed");
      c.header("Retry-After", "5");
    }
    return c.html(
      layout({ title: problem.title, main: problemPage(problem), now: new Date(), actor: c.get("actor") }),
      problem.status,
    );
  });
  app.notFound(() => {
    throw notFound();
  });

  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        styleSrc: ["'self'"],
        scriptSrc: ["'self'"],
        imgSrc: ["'self'"],
        connectSrc: ["'self'"],
        formAction: ["'self'"],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
      },
      // With no-referrer, browsers send "Origin: null" with forms, and csrf() refuses them.
      referrerPolicy: "same-origin",
      xFrameOptions: "DENY",
      // Other services may live on subdomains.
      strictTransportSecurity: "max-age=15552000",
    }),
  );

  app.use(async (c, next) => {
    c.header("Cache-Control", "no-store");
    await next();
  });

  const guards = [
    signIn(password, log),
    // Browsers send Basic credentials with forms of other sites, too.
    csrf({ origin: (from, c) => from === origin || from === new URL(c.req.url).origin }),
    bodyLimit({
      maxSize: BODY_BYTES,
      onError: () => {
        throw new PageProblem(413, "Not taken", "This form is too large.");
      },
    }),
  ] as const;
  for (const path of ["/", `${BASE}/*`]) app.use(path, ...guards);
  app.use(`${BASE}/*`, async (c, next) => {
    await next();
    if (c.req.method === "POST")
      log.info({ actor: c.get("actor"), path: routePath(c, -1), status: c.res.status }, "an action");
  });

  app.get("/", (c) => c.redirect(urls.overview()));

  for (const { name, type, text } of ASSETS) {
    app.get(urls.asset(name), (c) =>
      c.body(text, 200, { "Content-Type": type, "Cache-Control": "private, max-age=31536000, immutable" }),
    );
  }

  app.get(BASE, async (c) => {
    const [of, may] = await Promise.all([snapshot(), rights()]);
    return send(c, {
      title: headline(of),
      main: overview(of, may.may_act),
      now: of.now,
      place: "Overview",
      is_live: true,
      ...may,
    });
  });

  const listQuery = (c: Context): ListQuery => {
    const state = c.req.query("state") ?? "open";
    if (!isListState(state)) throw notFound();
    return {
      state,
      order: c.req.query("order") === "oldest" ? "oldest" : undefined,
      from: parseDay(c.req.query("from")),
      to: parseDay(c.req.query("to")),
    };
  };

  app.get(`${BASE}/restores`, async (c) => {
    const query = listQuery(c);
    const [rows, may] = await Promise.all([
      queries.listRestores(pool, query, parseCursor(c.req.query("after"))),
      rights(),
    ]);
    return send(c, {
      title: "Restores",
      main: listPage(query, rows, new Date(), may.may_act),
      place: "Restores",
      ...may,
    });
  });

  const sendCsv = (c: Context, name: string, text: string) =>
    c.body(text, 200, {
      "Content-Type": "text/csv; charset=utf-8",
      "Content-Disposition": `attachment; filename="${name}.csv"`,
    });

  app.get(`${BASE}/restores.csv`, async (c) =>
    sendCsv(
      c,
      "restores",
      restoresAsCsv(await allPages((cursor) => queries.listRestores(pool, listQuery(c), cursor, CSV_PAGE))),
    ),
  );

  app.get(`${BASE}/restores/:id`, async (c) => {
    const id = c.req.param("id");
    if (!isId(id)) throw notFound();
    const restore = await queries.restore(pool, id);
    if (restore === undefined) throw notFound();
    const readers = await queries.readers(pool, id, c.req.query("readers_after") ?? "");
    const mailIds = readers.flatMap((reader) =>
      [reader.pre_notification_id, reader.post_notification_id].filter((one) => one !== null),
    );
    const [mails, steps, actions, may] = await Promise.all([
      queries.mailsById(pool, [...new Set(mailIds)]),
      queries.steps(pool, id),
      queries.actionsOn(pool, [id, ...new Set(mailIds)], id),
      rights(),
    ]);
    const name = `s3://${restore.s3_bucket}/${restore.s3_key}`;
    const done = actions.find((one) => one.id === c.req.query("done"));
    return send(c, {
      title: plain(name),
      heading: visible(name),
      main: restorePage({ restore, readers, mails, steps, actions, done }, new Date(), may.may_act),
      place: "Restores",
      ...may,
    });
  });

  app.get(`${BASE}/stuck`, async (c) => {
    const problem = c.req.query("problem");
    const [rows, may] = await Promise.all([queries.stuck(pool, problem, queries.PAGE_ROWS + 1), rights()]);
    return send(c, {
      title: "Stuck",
      main: stuckPage(problem, rows, new Date(), may.may_act),
      place: "Stuck",
      ...may,
    });
  });

  /** The last row of the page before. */
  const afterOf = (c: Context): string | undefined => {
    const after = c.req.query("after") ?? "";
    return isId(after) ? after : undefined;
  };

  app.get(`${BASE}/search`, async (c) => {
    const q = (c.req.query("q") ?? "").trim();
    const search = searchOf(q);
    const after = afterOf(c);
    const now = new Date();
    const page = { title: q === "" ? "Search" : `Search: ${plain(q)}`, search: q };
    switch (search.kind) {
      case "nothing":
        return send(c, {
          ...page,
          main: html`<p>
            Search for the id of a request, restore, mail or hold; s3://bucket/key; the beginning of a key; an
            address; an access key; an ARN, or its beginning with a * at the end.
          </p>`,
        });
      case "id": {
        const { restore_id, mail_id, hold_id } = await queries.findId(pool, search.text);
        if (restore_id !== undefined) return c.redirect(urls.restore(restore_id));
        if (mail_id !== undefined) return c.redirect(urls.mail(mail_id));
        if (hold_id !== undefined) return c.redirect(urls.hold(hold_id));
        return send(c, { ...page, main: html`<p>No request, restore, mail or hold has this id.</p>` }, 404);
      }
      case "object": {
        const rows = await queries.restoresOfObject(pool, search.bucket, search.text);
        const [only] = rows;
        if (rows.length === 1 && only !== undefined) return c.redirect(urls.restore(only.id));
        return send(c, {
          ...page,
          main:
            rows.length > 0
              ? restoreTable("Restores of this file", rows, now)
              : html`<p>
                  Nobody has read this file while it was archived.
                  ${link(urls.search(`${q}*`), "Search for files whose names begin like this")}
                </p>`,
        });
      }
      case "names":
        return send(c, {
          ...page,
          main: namesPage(q, await queries.restoresByName(pool, search, after), now),
        });
      case "reads":
        return send(c, {
          ...page,
          main: html`${
            search.of === "reader_prefix"
              ? html`<p>
                  Of the first 100 readers whose names begin so. Type more of the name to see others.
                </p>`
              : ""
          }${readsPage(q, await queries.searchReads(pool, search.of, search.text, after), now)}`,
        });
    }
  });

  const mailStatus = (c: Context): queries.MailStatus | undefined => {
    const status = c.req.query("status");
    if (status === undefined) return undefined;
    const known = queries.MAIL_STATUSES.find((one) => one === status);
    if (known === undefined) throw notFound();
    return known;
  };

  app.get(`${BASE}/mails`, async (c) => {
    const status = mailStatus(c);
    const [rows, gate, may] = await Promise.all([
      queries.mails(pool, status, parseCursor(c.req.query("after"))),
      queries.gate(pool),
      rights(),
    ]);
    return send(c, {
      title: "Mails",
      main: mailsPage(status, rows, gate, new Date(), may.may_act),
      place: "Mails",
      ...may,
    });
  });

  app.get(`${BASE}/mails.csv`, async (c) =>
    sendCsv(
      c,
      "mails",
      mailsAsCsv(
        await allPages(async (cursor) => {
          const rows = await queries.mails(pool, mailStatus(c), cursor, CSV_PAGE);
          return rows.map((row) => Object.assign(row, { at: row.created_at }));
        }),
      ),
    ),
  );

  app.get(`${BASE}/mails/:id`, async (c) => {
    const id = c.req.param("id");
    if (!isId(id)) throw notFound();
    const [mail] = await queries.mailsById(pool, [id]);
    if (mail === undefined) throw notFound();
    const [files, actions, may] = await Promise.all([
      queries.filesOfMail(pool, id),
      queries.actionsOn(pool, [id], null),
      rights(),
    ]);
    const done = actions.find((one) => one.id === c.req.query("done"));
    return send(c, {
      title: `Mail to ${plain(mail.email)}`,
      heading: html`Mail to ${visible(mail.email)}`,
      main: mailPage(mail, files, actions, done, new Date(), may.may_act),
      place: "Mails",
      ...may,
    });
  });

  app.get(`${BASE}/holds`, async (c) => {
    const is_decided = c.req.query("decided") !== undefined;
    const [rows, may] = await Promise.all([
      money.holds(pool, is_decided, parseCursor(c.req.query("after"))),
      rights(),
    ]);
    return send(c, { title: "Holds", main: holdsPage(is_decided, rows, new Date()), place: "Holds", ...may });
  });

  app.get(`${BASE}/holds/:id`, async (c) => {
    const id = c.req.param("id");
    const after = c.req.query("after");
    if (!isId(id)) throw notFound();
    const [hold, files, readers, actions, may] = await Promise.all([
      money.hold(pool, id),
      money.filesOfHold(pool, id, after !== undefined && isId(after) ? after : undefined),
      money.readersOfHold(pool, id),
      queries.actionsOn(pool, [id], null),
      rights(),
    ]);
    if (hold === undefined) throw notFound();
    const done = actions.find((one) => one.id === c.req.query("done"));
    return send(c, {
      title: `Hold of ${plain(hold.person)}`,
      heading: html`Hold of ${visible(hold.person)}`,
      main: holdPage({ hold, files, readers, actions, done }, new Date(), may.may_act),
      place: "Holds",
      ...may,
    });
  });

  const monthOf = (c: Context, now: Date): string =>
    parseMonth(c.req.query("month")) ?? now.toISOString().slice(0, 7);

  app.get(`${BASE}/costs`, async (c) => {
    const now = new Date();
    const month = monthOf(c, now);
    const [all, limits, persons, buckets, prefixes, ignored, may] = await Promise.all([
      money.costOfMonth(pool, month),
      money.spending(pool),
      money.costs(pool, "person", month),
      money.costs(pool, "bucket", month),
      money.costs(pool, "prefix", month),
      money.ignoredReads(pool, month),
      rights(),
    ]);
    const top: [money.By, money.Cost[]][] = [
      ["person", persons],
      ["bucket", buckets],
      ["prefix", prefixes],
    ];
    return send(c, {
      title: "Costs",
      main: costsPage({ month, all, limits, top, ignored }, now),
      place: "Costs",
      ...may,
    });
  });

  app.get(`${BASE}/costs.csv`, async (c) => {
    const month = monthOf(c, new Date());
    const by = money.BY.find((one) => one === c.req.query("by")) ?? "person";
    return sendCsv(
      c,
      `costs-by-${by}-${month}`,
      costsAsCsv(by, month, await money.costsForCsv(pool, by, month)),
    );
  });

  app.get(`${BASE}/workers`, async (c) => {
    const [workers, tasks, may] = await Promise.all([queries.workers(pool), queries.tasks(pool), rights()]);
    return send(c, {
      title: "Workers and tasks",
      main: workersPage(workers, tasks, new Date()),
      place: "Workers",
      ...may,
    });
  });

  app.get(`${BASE}/actions`, async (c) => {
    const [rows, may] = await Promise.all([
      queries.actions(pool, parseCursor(c.req.query("after"))),
      rights(),
    ]);
    const list = rows.slice(0, queries.PAGE_ROWS);
    const last = list.at(-1);
    const now = new Date();
    return send(c, {
      title: "What operators did",
      main: html`${doneNote(
        list.find((one) => one.id === c.req.query("done")),
        now,
      )}
      ${actionTable("By page, command or SQL function, the newest first", list, now)}
      ${rows.length > queries.PAGE_ROWS && last !== undefined ? html`<p><a class="button" rel="next" href="${urls.actions({ after: cursorText({ at: last.cursor_at, id: last.id }) })}">Next page</a></p>` : ""}`,
      place: "Actions",
      ...may,
    });
  });

  const actionOf = (c: Context) => {
    const name = c.req.param("action") ?? "";
    const action = Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
    if (action === undefined) throw notFound();
    return { name, action };
  };
  /** Hidden buttons are not enough: whoever may not act gets no form, and a POST does nothing. */
  const mustBeAllowed = async (): Promise<queries.Rights> => {
    const may = await rights();
    if (!may.may_act)
      throw new PageProblem(
        403,
        "This role may only look",
        `The pages are connected as ${may.role}, which may not act. Let PAGES_DATABASE_URL name thaw_operator.`,
      );
    return may;
  };

  app.get(`${BASE}/confirm/:action`, async (c) => {
    const { name, action } = actionOf(c);
    const may = await mustBeAllowed();
    const of = await action.confirm(pool, c.req.query(), new Date(), may.may_act);
    return send(c, { title: of.title, main: confirmPage(name, of), ...may });
  });

  app.post(`${BASE}/act/:action`, async (c) => {
    const { name, action } = actionOf(c);
    await mustBeAllowed();
    const body = await c.req.parseBody();
    const given: Given = Object.fromEntries(
      Object.entries(body).map(([field, value]) => [field, typeof value === "string" ? value : undefined]),
    );
    const { said, to } = await action.run(pool, given, c.get("actor"));
    log.info({ actor: c.get("actor"), action: name, said: reasonOf(said) }, "done by an operator");
    // A reload must not do it again.
    return c.redirect(to, 303);
  });
  app.all(`${BASE}/act/:action`, (c) => {
    c.header("Allow", "POST");
    throw new PageProblem(405, "Nothing was done", "An action is done by the button of its page.");
  });

  return app;
}

const CSV_PAGE = 1_000;

/** A file by pages: each query is short. */
async function allPages<T extends { id: string; cursor_at: string }>(
  page: (cursor: { at: string; id: string } | undefined) => Promise<T[]>,
): Promise<T[]> {
  const all: T[] = [];
  while (all.length < queries.CSV_ROWS) {
    const last = all.at(-1);
    const rows = await page(last && { at: last.cursor_at, id: last.id });
    all.push(...rows.slice(0, CSV_PAGE));
    if (rows.length <= CSV_PAGE) break;
  }
  return all;
}
