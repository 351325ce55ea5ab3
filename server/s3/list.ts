/** What lies under a prefix, as S3 lists it. */
import {
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  type ListObjectsV2CommandInput,
  type ObjectVersion,
  type S3Client,
  type _Object,
} from "@aws-sdk/client-s3";

import { withTimeLimit } from "../time_limit.ts";
import { isSigned, NotFromS3 } from "./answer.ts";
import type { S3Clients } from "./clients.ts";
import { timeAtS3, type ObjectFacts } from "./head.ts";
import { untilItAnswers } from "./patience.ts";
import { isArchived, takesDays } from "./storage_class.ts";

/** Where to look; `versions`: at all versions, not only the current ones. */
export interface ListedPlace {
  s3_bucket: string;
  key_prefix: string;
  versions: boolean;
}

/**
 * What a read would find. "maybe": Intelligent-Tiering, of which a list does not say whether it lies in an archive tier. "gone" is
 * never listed.
 */
export type Readable = "archived" | "restoring" | "readable" | "maybe" | "gone";

export interface ListedObject extends Pick<ObjectFacts, "storage_class" | "archive_status" | "size_bytes"> {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  state: Readable;
}

/** One page, retries of the SDK included. */
const PAGE_TIMEOUT_MS = 60_000;

/** Pages of up to 1,000, in S3's order. @throws what the SDK throws */
export async function* listPages(
  clients: S3Clients,
  place: ListedPlace,
  stop: AbortSignal,
): AsyncGenerator<ListedObject[]> {
  let next: Next | undefined = {};
  while (next !== undefined) {
    const from: Next = next;
    const page: Page = await untilItAnswers(stop, () =>
      withTimeLimit(PAGE_TIMEOUT_MS, stop, (signal) =>
        clients.ask(place.s3_bucket, null, signal, (client) =>
          (place.versions ? listVersions : listCurrent)(client, place, from, signal),
        ),
      ),
    );
    yield page.objects;
    next = page.next;
  }
}

/** Where the next page begins. */
interface Next {
  ContinuationToken?: string | undefined;
  KeyMarker?: string | undefined;
  VersionIdMarker?: string | undefined;
}

interface Page {
  objects: ListedObject[];
  next: Next | undefined;
}

/** XML cannot carry every character that a key may have, so keys are asked for URL-encoded; the SDK does not decode them. */
const ENCODED: Pick<ListObjectsV2CommandInput, "EncodingType" | "OptionalObjectAttributes"> = {
  EncodingType: "url",
  OptionalObjectAttributes: ["RestoreStatus"],
};

async function listCurrent(
  client: S3Client,
  { s3_bucket, key_prefix }: ListedPlace,
  { ContinuationToken }: Next,
  abortSignal: AbortSignal,
): Promise<Page> {
  const command = new ListObjectsV2Command({
    Bucket: s3_bucket,
    Prefix: key_prefix,
    ...ENCODED,
    ContinuationToken,
  });
  const answer = await client.send(command, { abortSignal });
  mustBeSigned(answer);
  const key = keyReader(answer.EncodingType);
  const now = timeAtS3(client);
  return {
    objects: (answer.Contents ?? []).map((object) => listed(s3_bucket, key(object.Key), "", object, now)),
    next: nextOf(answer.IsTruncated, { ContinuationToken: answer.NextContinuationToken }),
  };
}

/** Delete markers are left out: there is nothing to restore. */
async function listVersions(
  client: S3Client,
  { s3_bucket, key_prefix }: ListedPlace,
  { KeyMarker, VersionIdMarker }: Next,
  abortSignal: AbortSignal,
): Promise<Page> {
  const command = new ListObjectVersionsCommand({
    Bucket: s3_bucket,
    Prefix: key_prefix,
    ...ENCODED,
    KeyMarker,
    VersionIdMarker,
  });
  const answer = await client.send(command, { abortSignal });
  mustBeSigned(answer);
  const key = keyReader(answer.EncodingType);
  const now = timeAtS3(client);
  return {
    objects: (answer.Versions ?? []).map((object) =>
      listed(s3_bucket, key(object.Key), object.VersionId ?? "", object, now),
    ),
    next: nextOf(answer.IsTruncated, {
      KeyMarker: answer.NextKeyMarker === undefined ? undefined : key(answer.NextKeyMarker),
      VersionIdMarker: answer.NextVersionIdMarker,
    }),
  };
}

/** A page of some proxy would look like an empty list. */
function mustBeSigned({ $metadata }: { $metadata: Parameters<typeof isSigned>[0] }): void {
  if (!isSigned($metadata)) throw new NotFromS3("a list that is not S3's");
}

/** A store that says "there is more" and not from where would be asked for the same page for ever. */
function nextOf(is_truncated: boolean | undefined, next: Next): Next | undefined {
  if (is_truncated !== true) return undefined;
  if (next.ContinuationToken === undefined && next.KeyMarker === undefined) {
    throw new Error("S3 says that its list goes on, and does not say where");
  }
  return next;
}

/** A store that knows no encoding says so by leaving EncodingType out. */
const keyReader =
  (encoding: string | undefined) =>
  (key: string | undefined): string =>
    encoding === "url" ? decodeURIComponent((key ?? "").replaceAll("+", " ")) : (key ?? "");

function listed(
  s3_bucket: string,
  s3_key: string,
  version_id: string,
  object: _Object | ObjectVersion,
  now: Date,
): ListedObject {
  const facts = {
    storage_class: object.StorageClass ?? "STANDARD",
    archive_status: null,
    size_bytes: object.Size ?? null,
  };
  return { s3_bucket, s3_key, version_id, ...facts, state: stateOf(facts, object.RestoreStatus, now) };
}

/** As readHead decides, from what a list has. */
function stateOf(
  facts: Pick<ObjectFacts, "storage_class" | "archive_status">,
  restore: _Object["RestoreStatus"],
  now: Date,
): Readable {
  if (restore?.IsRestoreInProgress === true) return "restoring";
  if (facts.storage_class === "INTELLIGENT_TIERING") return "maybe";
  if (!isArchived(facts)) return "readable";
  const expires = restore?.RestoreExpiryDate;
  return expires !== undefined && expires > now && takesDays(facts) ? "readable" : "archived";
}
