/** One load at a time, and its result for so long: however many look, the database is asked as often as by one. */
export function cached<T>(load: () => Promise<T>, keep_ms: number): () => Promise<T> {
  let until = 0;
  let current: Promise<T> | undefined;
  return () => {
    if (current !== undefined && performance.now() < until) return current;
    until = Infinity;
    const loading = load().then(
      (value) => {
        until = performance.now() + keep_ms;
        return value;
      },
      (error: unknown) => {
        if (current === loading) current = undefined;
        throw error;
      },
    );
    current = loading;
    return loading;
  };
}
