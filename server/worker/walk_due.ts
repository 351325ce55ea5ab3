export interface Walk<Row> {
  /** Claims up to `limit` rows that are due; none: the walk is over. */
  claim: (limit: number) => Promise<Row[]>;
  /** Does one row, its outcome included. Only trouble with Postgres may be thrown: it ends the walk. */
  work: (row: Row) => Promise<void>;
  concurrency: number;
  /** Ends the walk between two rows; what is claimed by then comes back when its lease ends. */
  signal: AbortSignal;
}

/**
 * Works through all that is due, a page claimed at a time and `concurrency` rows at once. The next page is
 * claimed as soon as the last is handed out, so a slow row holds up nobody but itself. Answers how many rows.
 */
export async function walkDue<Row>({ claim, work, concurrency, signal }: Walk<Row>): Promise<number> {
  let page: Row[] = [];
  let claiming: Promise<void> | undefined;
  let over = false;
  let worked = 0;

  const refill = async (): Promise<void> => {
    page = await claim(concurrency);
    over ||= page.length === 0;
  };
  const next = async (): Promise<Row | undefined> => {
    if (over || signal.aborted) return undefined;
    const row = page.shift();
    if (row !== undefined) return row;
    claiming ??= refill().finally(() => (claiming = undefined));
    await claiming;
    return next();
  };
  const lane = async (): Promise<void> => {
    for (let row = await next(); row !== undefined; row = await next()) {
      await work(row);
      worked++;
    }
  };

  const lanes = await Promise.allSettled(
    Array.from({ length: concurrency }, () =>
      lane().catch((error: unknown) => {
        over = true; // The other lanes finish their row and stop.
        throw error;
      }),
    ),
  );
  for (const result of lanes) if (result.status === "rejected") throw result.reason;
  return worked;
}
