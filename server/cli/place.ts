/** `s3://bucket/prefix` as people type it. */
import { CommandError, EXIT } from "./command.ts";

/** As policies and limits keep it; bucket `*`: every one. */
export interface Place {
  s3_bucket: string;
  key_prefix: string;
}

/** Null: it is none. The key is taken as it is: never decoded, never normalised. */
export function readPlace(text: string): Place | null {
  const [, s3_bucket, key_prefix = ""] = /^s3:\/\/([^/]+)(?:\/(.*))?$/su.exec(text) ?? [];
  return s3_bucket === undefined ? null : { s3_bucket, key_prefix };
}

/** @throws CommandError */
export function placeOf(text: string): Place {
  const place = readPlace(text);
  if (place === null)
    throw new CommandError(
      EXIT.usage,
      `${text} is no place in S3: write s3://bucket/prefix, or s3://* for all.`,
    );
  return place;
}

export const placeText = ({ s3_bucket, key_prefix }: Place): string =>
  s3_bucket === "*" ? "s3://*" : `s3://${s3_bucket}/${key_prefix}`;
