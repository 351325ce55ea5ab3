/** The metrics of Thaw: names, types, and how to use each. */
import { TIERS } from "../s3/storage_class.ts";

export type Labels = Record<string, string>;

interface Described {
  name: string;
  help: string;
}

/** The state of the moment: the rows of view `gauges` with that name, without the prefix. */
export type Gauge = Described & { type: "gauge" };

/** Counted for good: the sum of hourly_totals of that metric. */
export interface Total extends Described {
  type: "counter" | "histogram";
  total: string;
  /** Served from the start: Prometheus does not see the first increase of a series that begins with 1. */
  from_zero: Labels[];
  /** Its rows have labels that name persons, keys or buckets: they are summed up without any. */
  has_no_labels?: boolean;
}

export type Metric = Gauge | Total;

/** Any number of processes read one database. */
const SAME = "The same from every process: use max by, not sum.";

const gauge = (name: string, help: string): Gauge => ({
  type: "gauge",
  name: `thaw_${name}`,
  help: `${help} ${SAME}`,
});

const counter = (name: string, total: string, help: string, from_zero: Labels[] = [{}]): Total => ({
  type: "counter",
  name: `thaw_${name}`,
  total,
  from_zero,
  help: `${help} It survives restarts and retention. ${SAME}`,
});

const histogram = (name: string, help: string, from_zero: Labels[] = []): Total => ({
  type: "histogram",
  name: `thaw_${name}`,
  total: name,
  from_zero,
  help: `${help} Of all since Thaw was installed. Use histogram_quantile over max by (le, ...) of its rate. ${SAME}`,
});

export const METRICS: readonly Metric[] = [
  gauge(
    "restores_open",
    "Restores that are not over, by state (held: they wait for approval, and are not in not_started); at most 10,000 of each are counted.",
  ),
  gauge(
    "oldest_waiting_seconds",
    "How long the oldest restore has been in that state (looked: S3 is still to be asked whether it is archived); 0: none. Alert on this, not on how many wait.",
  ),
  gauge(
    "requests_untold",
    "Readers who are still to be told that a restore has begun (pre) or how it ended (post), those within the quiet window included; at most 10,000 are counted.",
  ),
  gauge(
    "mail_oldest_due_seconds",
    "Age of the oldest news that no mail has told yet, by kind of mail; 0: none. The debounce alone makes it NOTIFY_MAX_WAIT_SECONDS.",
  ),
  gauge(
    "mails",
    "Mails that are written and not sent (sealed), and those that need an operator: refused by Resend (failed), perhaps sent (unknown).",
  ),
  gauge("mail_gate_closed", "1 while no mail goes out: a limit, a quota, a revoked key, or an operator."),
  gauge(
    "mail_gate_closed_seconds",
    "How long no mail has gone out for a closed gate, kept while refusals close it anew; 0: it is open.",
  ),
  gauge("workers_alive", "Workers that hold their lock. 0: nothing is restored, and no mail goes out."),
  gauge(
    "task_last_success_timestamp_seconds",
    "When each task last did its work to the end; 0: never. Alert on time() minus this.",
  ),
  gauge("task_last_failure_timestamp_seconds", "When each task last failed; 0: never."),
  gauge("task_interval_seconds", "How often each task runs at least."),
  gauge("jobs", "Jobs that may start now (waiting), and those that were given up (failed), by task."),
  gauge(
    "findings",
    "What needs somebody, by kind of problem, as view findings says it: how many things are concerned. A kind without a problem is missing.",
  ),
  gauge("holds_open", "Bursts of reads that wait for approval."),
  gauge("hold_oldest_seconds", "How long the oldest of them has waited; 0: none waits."),
  gauge("held_objects", "Objects that wait for approval."),
  gauge(
    "limit_used_ratio",
    "Which part of a limit is used in its present day or month; 1 is all of it, more was approved. Of a limit for each person: of the one who has used most, and 0 while nobody has used four fifths. Which limit that is: npm run thaw -- limit list.",
  ),
  gauge("last_read_timestamp_seconds", "When the last read came, repeats included. None yet: missing."),
  gauge(
    "oldest_transaction_seconds",
    "Age of the oldest transaction in this database. A long one keeps vacuum from its work, and everything gets slower.",
  ),

  counter(
    "reads_total",
    "reads",
    "Failed reads that were taken in, repeats included; not what operators order.",
  ),
  {
    ...counter(
      "reads_ignored_total",
      "reads_ignored",
      "Failed reads that a policy ignores, by no label: a policy may name a person.",
    ),
    has_no_labels: true,
  },
  counter(
    "estimated_cost_dollars_total",
    "estimated_cost",
    "What restores cost, an estimate by published prices, by class and tier; observed: nothing was restored, it would have cost this.",
    ["GLACIER", "DEEP_ARCHIVE"].flatMap((storage_class) =>
      TIERS.filter((tier) => storage_class === "GLACIER" || tier !== "Expedited").flatMap((tier) =>
        ["false", "true"].map((observed) => ({ observed, storage_class, tier })),
      ),
    ),
  ),
  counter("restores_opened_total", "reads_opened", "Restores that a read has begun."),
  counter("restores_accepted_total", "accepted", "Restores that S3 has accepted."),
  counter(
    "restores_total",
    "restores",
    "Restores that ended, by result and tier; without a tier: readable without a restore of ours; observed: as a policy says, nothing was restored.",
    ["restored", "failed", "observed"].flatMap((result) => ["", ...TIERS].map((tier) => ({ result, tier }))),
  ),
  counter("restore_bytes_total", "restored_bytes", "Bytes that became readable."),
  {
    ...counter(
      "completion_events_total",
      "events",
      "Events of S3 that were taken in, those that meant no restore included.",
    ),
    has_no_labels: true,
  },
  {
    ...counter(
      "completions_lost_total",
      "completions_lost",
      "Restores that the poll found readable although no event of S3 had said so. More than one for twenty events: look at the event rule and its queue; npm run thaw -- status names a bucket of which no event comes.",
    ),
    has_no_labels: true,
  },
  counter(
    "false_ready_total",
    "ended_early",
    "Copies that S3 had called readable and that were archived again, replaced or deleted before their end. Should stay 0.",
  ),
  counter(
    "duplicate_announcements_total",
    "announced_twice",
    "Files of which a person was told the end in two mails, those apart that an operator sent again. Should stay 0.",
  ),
  counter(
    "mails_total",
    "mails",
    "Mails by kind and by what became of them.",
    ["pre", "post"].flatMap((kind) => ["sent", "failed", "unknown"].map((status) => ({ kind, status }))),
  ),

  histogram(
    "read_to_readable_seconds",
    "Time from the first read of a file until it was readable, by storage class and tier.",
  ),
  histogram(
    "ready_to_mail_seconds",
    "Time from the end of a restore, the oldest of its mail, until Resend took the mail.",
    [{}],
  ),
];
