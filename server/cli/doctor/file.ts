import { HeadObjectCommand, RestoreObjectCommand, type HeadObjectCommandOutput } from "@aws-sdk/client-s3";

import type { S3Clients } from "../../s3/clients.ts";
import { readHead, timeAtS3, type ObjectState } from "../../s3/head.ts";
import { isUnknownArchive } from "../../s3/storage_class.ts";
import { fail, ok, skip, warn, type Finding } from "./finding.ts";
import { ask } from "./s3_call.ts";

/** One file of a bucket: its state, and whether Thaw may restore it. */
export async function checkFile(s3: S3Clients, bucket: string, key: string): Promise<Finding[]> {
  const what = `file ${bucket}/${key}`;
  const head = await ask(s3, bucket, async (client, options) => {
    const output = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), options);
    return { ...output, now: timeAtS3(client) };
  });
  if ("output" in head) {
    const { now, ...output } = head.output;
    return [stateOf(what, readHead(output, now)), await checkRestore(s3, bucket, key, output)];
  }
  const restoring = skip(`${what}, restoring`, "HEAD tells nothing of it");
  if (head.status === 404 && head.signed)
    return [fail(what, "is not there", "Check its key: case and spaces count"), restoring];
  return [
    head.status === 403
      ? fail(
          what,
          "Thaw may not look at it",
          `Allow Thaw's role s3:GetObject on arn:aws:s3:::${bucket}/* (without s3:ListBucket it may also just not be there)`,
        )
      : fail(
          what,
          `S3 answers ${head.status} (${head.code})`,
          "Try again; see the bucket's encryption if it stays",
        ),
    restoring,
  ];
}

function stateOf(what: string, object: ObjectState): Finding {
  if (object.state === "gone") return fail(what, "is not there", "Check its key");
  const { storage_class, archive_status } = object;
  const until =
    object.state === "readable" && object.restore_expires_at !== null
      ? ` until ${object.restore_expires_at.toISOString()}`
      : "";
  const found = `${[storage_class, archive_status].filter(Boolean).join(" ")}, ${object.state}${until}`;
  return isUnknownArchive(object)
    ? warn(
        what,
        `${found}: Thaw does not know this class, so it counts as archived`,
        "Read the file, and see whether this store restores it when Thaw asks",
      )
    : ok(what, found);
}

/** Classes that S3 never restores. With any other class the call could start a paid restore. */
const NEVER_RESTORED = new Set(["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "REDUCED_REDUNDANCY"]);

/**
 * S3 has no dry run of a restore. But it refuses to restore a file that is not archived: with InvalidObjectState if the caller
 * may restore, with AccessDenied if not.
 */
async function checkRestore(
  s3: S3Clients,
  bucket: string,
  key: string,
  head: HeadObjectCommandOutput,
): Promise<Finding> {
  const what = `file ${bucket}/${key}, restoring`;
  if (!NEVER_RESTORED.has(head.StorageClass ?? "STANDARD")) {
    return skip(
      what,
      `s3:RestoreObject cannot be checked without cost on this class. Name a file beside it that is not archived`,
    );
  }
  const answer = await ask(s3, bucket, (client, options) =>
    client.send(
      new RestoreObjectCommand({
        Bucket: bucket,
        Key: key,
        // The version that HEAD reported: a newer one may have another class.
        ...(head.VersionId !== undefined && { VersionId: head.VersionId }),
        RestoreRequest: { Days: 1, GlacierJobParameters: { Tier: "Bulk" } },
      }),
      options,
    ),
  );
  const code = "code" in answer ? answer.code : "no refusal";
  if (code === "InvalidObjectState") return ok(what, "allowed (S3 refuses it for the file's class only)");
  // About the call, not the file: HEAD has just found it.
  if (code === "NotImplemented" || code === "MethodNotAllowed") {
    return fail(
      what,
      `this store does not know RestoreObject (${code}): nothing can be restored`,
      "See whether a newer version of it does",
    );
  }
  return code === "AccessDenied"
    ? fail(
        what,
        "s3:RestoreObject is missing: nothing can be restored",
        `Allow it to Thaw's role on arn:aws:s3:::${bucket}/*`,
      )
    : warn(what, `S3 answers ${code}, which does not tell whether it is allowed`, "Try another file");
}
