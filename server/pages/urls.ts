/** The addresses of the pages. Every link and form of a page is built here, so a text from elsewhere never becomes a scheme. */

export const BASE = "/ops";

export const LIST_STATES = [
  "open",
  "held",
  "not_started",
  "pending",
  "restored",
  "failed",
  "closed",
] as const;
/** What a list of restores may be filtered by: a status while it is open, all open ones, or those that are over. */
export type ListState = (typeof LIST_STATES)[number];
export const isListState = (text: string): text is ListState => LIST_STATES.some((state) => state === text);

type Query = Record<string, string | number | undefined>;

function url(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") parameters.set(name, String(value));
  }
  return parameters.size === 0 ? `${BASE}${path}` : `${BASE}${path}?${parameters.toString()}`;
}

/** A list as its address says: what, from when until when, from where on. */
export interface ListQuery {
  state: ListState;
  order?: "oldest" | undefined;
  /** Days, as YYYY-MM-DD, both included. */
  from?: string | undefined;
  to?: string | undefined;
  /** The last row of the page before. */
  after?: string | undefined;
}

export const urls = {
  overview: () => url(""),
  restores: (query: Partial<ListQuery> = {}) => url("/restores", { ...query }),
  restoresCsv: (query: ListQuery) => url("/restores.csv", { ...query }),
  restore: (id: string, query: { done?: string; readers_after?: string } = {}) =>
    url(`/restores/${id}`, query),
  stuck: (problem?: string) => url("/stuck", { problem }),
  search: (q?: string, after?: string) => url("/search", { q, after }),
  mails: (status?: string, after?: string) => url("/mails", { status, after }),
  mailsCsv: (status?: string) => url("/mails.csv", { status }),
  mail: (id: string, query: { done?: string } = {}) => url(`/mails/${id}`, query),
  holds: (query: { decided?: string; after?: string } = {}) => url("/holds", query),
  hold: (id: string, query: { done?: string; after?: string } = {}) => url(`/holds/${id}`, query),
  costs: (month?: string) => url("/costs", { month }),
  costsCsv: (by: string, month: string) => url("/costs.csv", { by, month }),
  workers: () => url("/workers"),
  actions: (query: { after?: string; done?: string } = {}) => url("/actions", query),
  /** Says what would happen, and changes nothing. */
  confirm: (action: string, target: Query = {}) => url(`/confirm/${action}`, target),
  /** Takes a POST only. */
  act: (action: string) => url(`/act/${action}`),
  asset: (name: string) => url(`/assets/${name}`),
};

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
export const isId = (text: string): boolean => UUID.test(text);

/** The last row of a page: its time as Postgres writes it (a Date would lose the microseconds), and its id. */
export interface Cursor {
  at: string;
  id: string;
}

export const cursorText = ({ at, id }: Cursor): string => `${at}_${id}`;

export function parseCursor(text: string | undefined): Cursor | undefined {
  const [, at, id] =
    /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00)_([0-9a-f-]{36}|\d{1,18})$/.exec(text ?? "") ?? [];
  return at === undefined || id === undefined || !(isId(id) || /^\d+$/.test(id)) ? undefined : { at, id };
}

/** A month as YYYY-MM, or nothing. */
export const parseMonth = (text: string | undefined): string | undefined =>
  text !== undefined && /^(19[7-9]\d|[2-9]\d{3})-(0[1-9]|1[0-2])$/.test(text) ? text : undefined;

/** A day of the calendar, or nothing. */
export const parseDay = (text: string | undefined): string | undefined =>
  text !== undefined && /^\d{4}-\d\d-\d\d$/.test(text) && text > "1970" && !Number.isNaN(Date.parse(text))
    ? new Date(text).toISOString().slice(0, 10)
    : undefined;
