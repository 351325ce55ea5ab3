export interface Walk<Row> {
  /** Claims up to `limit` rows that are due. An empty page ends the walk. */
  claim: (limit: number) => Promise<Row[]>;
  /** Does all of one row, noting its outcome included. An error ends the walk: throw only when Postgres fails. */
  work: (row: Row) => Promise<void>;
  concurrency: number;
  /** Ends the walk between two rows. Rows that are claimed but not begun become due when their lease expires. */
  signal: AbortSignal;
}

/**
 * Works through all that is due: claims a page at a time, works on `concurrency` rows at once, and claims the next page as
 * soon as the last is handed out, so that a slow row delays no other. Returns how many rows it worked on.
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
        over = true; // The other lanes finish their row, then stop.
        throw error;
      }),
    ),
  );
  for (const result of lanes) if (result.status === "rejected") throw result.reason;
  return worked;
}
