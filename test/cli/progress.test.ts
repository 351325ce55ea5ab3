/** How far a long command is. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Progress } from "../../server/cli/progress.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("is a line every ten seconds where no terminal is", () => {
  const lines: string[] = [];
  const progress = new Progress("files handed in", undefined, (line) => lines.push(line));
  for (let second = 0; second <= 25; second++) {
    progress.at(second * 1000, 30_000);
    vi.advanceTimersByTime(1000);
  }
  progress.end();
  expect(lines).toEqual(["10,000 of 30,000 files handed in", "20,000 of 30,000 files handed in"]);
});

test("is drawn ten times a second on a terminal, with the time that is left, and taken away at the end", () => {
  const drawn: string[] = [];
  const progress = new Progress("files handed in", (line) => drawn.push(line), expect.unreachable);
  for (let tick = 0; tick < 10; tick++) {
    progress.at(tick * 1000, 40_000);
    vi.advanceTimersByTime(50);
  }
  vi.advanceTimersByTime(9500);
  progress.at(20_000, 40_000);
  progress.at(20_001, 40_000);
  progress.at(21_000);
  progress.end();
  expect(drawn).toEqual([
    "[----------------] 0 %  0 of 40,000 files handed in",
    ...[1, 2, 3, 4].map((n) =>
      expect.stringMatching(new RegExp(`^\\[[#-]{16}\\] .* {2}${n * 2},000 of 40,000 files handed in$`)),
    ),
    "[########--------] 50 %, 10 s left  20,000 of 40,000 files handed in",
    "",
  ]);
});
