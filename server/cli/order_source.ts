/** What is ordered: a prefix, as S3 lists it, or a list of files, each as HEAD shows it. */
import { setTimeout } from "node:timers/promises";

import type { ListedObject, ListedPlace } from "../s3/list.ts";
import { untilItAnswers } from "../s3/patience.ts";
import { CALLS_TIMEOUT_MS, type S3 } from "../s3/s3.ts";
import { troubleOf } from "../s3/trouble.ts";
import { withTimeLimit } from "../time_limit.ts";
import { CommandError, EXIT } from "./command.ts";
import { readManifest, type ManifestEntry } from "./manifest.ts";
import { Spool } from "./spool.ts";
import { sentence, visible } from "./terminal.ts";

/** @throws CommandError when S3 refuses, with what would help. */
export async function* listedPages(
  s3: S3,
  place: ListedPlace,
  stop: AbortSignal,
): AsyncGenerator<ListedObject[]> {
  try {
    yield* s3.list(place, stop);
  } catch (error) {
    if (stop.aborted) return;
    const action = place.versions ? "s3:ListBucketVersions" : "s3:ListBucket";
    throw refusal(error, place.s3_bucket, {
      what: `list s3://${place.s3_bucket}/${visible(place.key_prefix)}`,
      action,
      resource: place.s3_bucket,
    });
  }
}

/** The files of a list: read and checked first, all of it. */
export class ManifestFiles {
  readonly count: number;
  /** How many keys look as if they were URL-encoded, and were taken as they are. */
  readonly looks_encoded: number;
  readonly #spool: Spool<ManifestEntry>;

  private constructor(spool: Spool<ManifestEntry>, count: number, looks_encoded: number) {
    this.#spool = spool;
    this.count = count;
    this.looks_encoded = looks_encoded;
  }

  /** @throws ConfigError with every bad line. */
  static async read(file: string, is_url_encoded: boolean): Promise<ManifestFiles> {
    const spool = await Spool.open<ManifestEntry>();
    try {
      const { entries, looks_encoded } = await readManifest(file, is_url_encoded, spool);
      return new ManifestFiles(spool, entries, looks_encoded);
    } catch (error) {
      await spool.close();
      throw error;
    }
  }

  /** As HEAD shows them now. @throws CommandError when S3 refuses. */
  async *pages(s3: S3, concurrency: number, stop: AbortSignal): AsyncGenerator<ListedObject[]> {
    for await (const entries of this.#spool.pages()) {
      const objects: ListedObject[] = [];
      let next = 0;
      const ask = async (): Promise<void> => {
        for (let index = next++; index < entries.length && !stop.aborted; index = next++) {
          const entry = entries[index] as ManifestEntry;
          objects[index] = await look(s3, entry, stop);
        }
      };
      try {
        await Promise.all(Array.from({ length: concurrency }, ask));
      } catch (error) {
        // The others stop at their next file.
        next = entries.length;
        if (!stop.aborted) throw error;
      }
      if (stop.aborted) return;
      yield objects;
      // Timers and signals get their turn, however fast S3 answers.
      await setTimeout(0);
    }
  }

  close(): Promise<void> {
    return this.#spool.close();
  }
}

async function look(s3: S3, entry: ManifestEntry, stop: AbortSignal): Promise<ListedObject> {
  const { s3_bucket, s3_key, version_id } = entry;
  const object = { s3_bucket, s3_key, version_id };
  try {
    const head = await untilItAnswers(stop, () =>
      withTimeLimit(CALLS_TIMEOUT_MS, stop, (signal) => s3.headObject({ ...object, region: null }, signal)),
    );
    if (head.state === "gone")
      return { ...object, storage_class: "", archive_status: null, size_bytes: null, state: "gone" };
    const { state, storage_class, archive_status, size_bytes } = head;
    return { ...object, state, storage_class, archive_status, size_bytes };
  } catch (error) {
    const version = version_id === "" ? "" : `, version ${visible(version_id)}`;
    throw refusal(error, s3_bucket, {
      what: `look at s3://${s3_bucket}/${visible(s3_key)}${version} (line ${entry.line} of the list)`,
      // S3 refuses what cannot be a version by its status alone.
      ...(version !== "" && { hint: " Is that no version? A key with a comma needs quotes around it." }),
      action: version_id === "" ? "s3:GetObject" : "s3:GetObjectVersion",
      resource: `${s3_bucket}/*`,
    });
  }
}

/** What S3 says, and what to do about it. */
function refusal(
  error: unknown,
  bucket: string,
  denied: { what: string; action: string; resource: string; hint?: string },
): CommandError {
  const { code, message } = troubleOf(error);
  if (code === "NoSuchBucket")
    return new CommandError(EXIT.not_found, `There is no bucket ${bucket}. Check its name, and the account.`);
  if (code === "AccessDenied") {
    const allow = { Effect: "Allow", Action: denied.action, Resource: `arn:aws:s3:::${denied.resource}` };
    return new CommandError(
      EXIT.failed,
      `Your AWS credentials may not ${denied.what}. Add this to their policy, or take others (AWS_PROFILE):\n  ${JSON.stringify(allow)}`,
    );
  }
  if ((error as Error | null)?.message === "Region is missing")
    return new CommandError(
      EXIT.failed,
      "No AWS region is set: set AWS_REGION, to any. A bucket's own is found by itself.",
    );
  if (code === "CredentialsProviderError")
    return new CommandError(
      EXIT.failed,
      `There are no AWS credentials (${message.replace(/^.*?\((.*)\).*$/s, "$1")}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.`,
    );
  return new CommandError(
    EXIT.failed,
    `S3 did not let us ${denied.what}: ${code}. ${sentence(message)}${denied.hint ?? ""}`,
  );
}
