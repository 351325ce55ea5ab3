/** A pipe that nobody reads any more, or a terminal that is gone. */
export const isClosedOutput = (error: NodeJS.ErrnoException): boolean =>
  error.code === "EPIPE" || error.code === "EIO";

/**
 * For whoever prints: a reader that has seen enough (`| head`) and a terminal that was closed are no errors. What was
 * begun goes on to its end and to its exit code, unread, unless `whenClosed` ends it.
 */
export function allowClosedOutput(whenClosed: () => void = () => {}): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (!isClosedOutput(error)) throw error;
      whenClosed();
    });
  }
}
