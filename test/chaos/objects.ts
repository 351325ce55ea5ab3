/** The files that people read in a storm. */
import type { S3Event, S3StandIn } from "../stand_ins/s3.ts";

export interface StormObject {
  bucket: string;
  key: string;
  /** Of the versioned bucket. */
  version_id?: string;
  /** missing: never there. */
  kind: "archived" | "readable" | "missing";
  /** Restores that S3 was made to forget after it had accepted them. */
  lost: number;
  /** Restores that somebody else began. */
  begun_by_others: number;
  /** When S3 had the copy ready, milliseconds since 1970. */
  ready_at: number | undefined;
}

/** One in twenty can be read at once, one in twenty was never there. */
export function putObjects(s3: S3StandIn, count: number, random: () => number): StormObject[] {
  s3.createBucket("plain");
  s3.createBucket("versioned", { versioning: "enabled" });
  return Array.from({ length: count }, (_, index) => {
    const dice = random();
    const bucket = dice < 0.2 ? "versioned" : "plain";
    const kind = dice > 0.95 ? "missing" : dice > 0.9 ? "readable" : "archived";
    // The token by which the mails are read; the rest of the key is what keys are like.
    const key = `films/${["ČR 100%", "a+b", "x//y", "it's <b>"][index % 4]}/obj-${String(index).padStart(5, "0")}.mov`;
    const object: StormObject = { bucket, key, kind, lost: 0, begun_by_others: 0, ready_at: undefined };
    if (kind === "missing") return object;
    const storage_class = kind === "readable" ? "STANDARD" : ["GLACIER", "DEEP_ARCHIVE"][index % 2];
    const { version_id } = s3.putObject({
      bucket,
      key,
      ...(storage_class && { storage_class }),
      body: key,
    });
    return { ...object, ...(version_id !== undefined && random() < 0.5 && { version_id }) };
  });
}

export const objectOf = (event: S3Event, objects: StormObject[]): StormObject | undefined => {
  const detail = event.detail as { bucket: { name: string }; object: { key: string } };
  return objects.find((object) => object.bucket === detail.bucket.name && object.key === detail.object.key);
};
