import type { Result } from "./table.ts";
import { bundle } from "./figures/bundle.ts";
import { history } from "./figures/history.ts";
import { idle } from "./figures/idle.ts";
import { hotObject, intake, intakeBesideWorker } from "./figures/intake.ts";
import { jit } from "./figures/jit.ts";
import { largeMap } from "./figures/map.ts";
import { mails } from "./figures/mails.ts";
import { manyPeople } from "./figures/many_people.ts";
import { pages } from "./figures/pages.ts";
import { poll } from "./figures/poll.ts";
import { reaction } from "./figures/reaction.ts";
import { burst, restores } from "./figures/restores.ts";
import { soak } from "./figures/soak.ts";
import type { World } from "./world.ts";

export interface Figure {
  numbers: number[];
  what: string;
  measure(world: World, options: BenchOptions): Promise<Result[]>;
}

export interface BenchOptions {
  /** Ten million closed rows instead of one. */
  full: boolean;
  /** Of the burst of many people. */
  objects: number;
  /** Of the soak. */
  minutes: number;
}

export const FIGURES: Figure[] = [
  { numbers: [1, 2], what: "reads taken in, against pgbench and against no Postgres", measure: intake },
  { numbers: [3], what: "reads taken in beside a worker", measure: intakeBesideWorker },
  { numbers: [4, 5], what: "objects restored, against rclone, s3cmd and a bare loop", measure: restores },
  { numbers: [6], what: "many readers of one object", measure: hotObject },
  { numbers: [7], what: "mails at Resend's limit", measure: mails },
  { numbers: [8], what: "cost with a long history, and with much open", measure: history },
  { numbers: [9], what: "reaction of an idle system", measure: reaction },
  { numbers: [10], what: "a poll of very many", measure: poll },
  { numbers: [11], what: "a burst, with S3 asking to slow down", measure: burst },
  { numbers: [12], what: "doing nothing", measure: idle },
  { numbers: [13], what: "a burst of very many objects by many people", measure: manyPeople },
  { numbers: [14], what: "reads taken in by a packaged Postgres, with JIT", measure: jit },
  { numbers: [15], what: "reads taken in with a large map", measure: largeMap },
  { numbers: [16], what: "a soak", measure: soak },
  { numbers: [17], what: "the operator's pages with a long history, and with much stuck", measure: pages },
  { numbers: [18], what: "events through the built function, in batches and one by one", measure: bundle },
];
