import type { S3Client } from "@aws-sdk/client-s3";

import { reasonOf } from "../../log.ts";
import { BUCKET_NAME } from "../../s3/names.ts";
import { fail, ok, within, type Finding } from "./finding.ts";

export const NAME_ONE = "Name one: npm run doctor -- my-bucket";

/** Returns whether S3 can be called. */
export async function* checkAws(s3: S3Client): AsyncGenerator<Finding, boolean> {
  const region = await within(s3.config.region()).catch(() => undefined);
  yield region === undefined
    ? fail("AWS region", "none is set", "Set AWS_REGION, to any region: a bucket's own is found by itself")
    : ok("AWS region", region);

  const missing = await within(s3.config.credentials()).then(() => undefined, reasonOf);
  yield missing === undefined
    ? ok("AWS credentials", "found")
    : fail(
        "AWS credentials",
        `none (${missing})`,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (temporary ones: AWS_SESSION_TOKEN too) or AWS_PROFILE, or give this machine a role",
      );
  return region !== undefined && missing === undefined;
}

const NAMED = new RegExp(`^(?:s3://)?(${BUCKET_NAME})(?:/(.*))?$`, "su");

/** `bucket`, `bucket/key` or `s3://bucket/key`: the buckets, each with its keys. */
export function bucketsNamed(names: string[]): { buckets: Map<string, string[]>; problems: Finding[] } {
  const buckets = new Map<string, string[]>();
  const problems: Finding[] = [];
  for (const name of names) {
    const [, bucket, key = ""] = NAMED.exec(name) ?? [];
    if (bucket === undefined) {
      problems.push(
        fail(name, "is no bucket's name", "Name it as S3 does: my-bucket, or my-bucket/a/key.bin"),
      );
    } else {
      buckets.set(bucket, [...(buckets.get(bucket) ?? []), ...(key === "" ? [] : [key])]);
    }
  }
  return { buckets, problems };
}
