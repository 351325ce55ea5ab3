const runs = new Map<string, { again: boolean }>();

/**
 * One run of a kind at a time in this process: each commit brings a nudge, and a crowd of them, each waiting for
 * Resend, would leave the worker no room for other tasks. A nudge that comes meanwhile makes the run look again;
 * should the run die, its rows are still due, and the crontab finds them.
 */
export async function oneRun(kind: string, signal: AbortSignal, run: () => Promise<void>): Promise<void> {
  const running = runs.get(kind);
  if (running !== undefined) {
    running.again = true;
    return;
  }
  const current = { again: true };
  runs.set(kind, current);
  try {
    while (current.again && !signal.aborted) {
      current.again = false;
      await run();
    }
  } finally {
    runs.delete(kind);
  }
}
