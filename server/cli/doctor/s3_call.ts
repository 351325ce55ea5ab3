import type { S3Client } from "@aws-sdk/client-s3";

import { reasonOf } from "../../log.ts";
import { answerOf, isSigned } from "../../s3/answer.ts";
import { NoCredentials, type S3Clients } from "../../s3/clients.ts";
import { CALL_TIMEOUT_MS, LATE, within } from "./finding.ts";

/** The result of one call: its output, or S3's refusal. */
export type Outcome<T> = { output: T } | Refusal;
export interface Refusal {
  code: string;
  status: number;
  region: string | undefined;
  /** Whether S3 itself responded. */
  signed: boolean;
}

interface Options {
  abortSignal: AbortSignal;
}

/** Makes one call as Thaw does, within the doctor's time-out. */
export async function ask<T extends { $metadata: object }>(
  s3: S3Clients,
  bucket: string,
  call: (client: S3Client, options: Options) => Promise<T>,
): Promise<Outcome<T>> {
  const abortSignal = AbortSignal.timeout(CALL_TIMEOUT_MS);
  try {
    const output = await within(s3.ask(bucket, null, abortSignal, (client) => call(client, { abortSignal })));
    if (isSigned(output.$metadata)) return { output };
    return { code: "no request id", status: 200, region: undefined, signed: false };
  } catch (error) {
    const answer = answerOf(error);
    const reason = (): string =>
      abortSignal.aborted ? LATE : reasonOf(error instanceof NoCredentials ? error.cause : error);
    return {
      code: answer === undefined ? reason() : (answer.code ?? "no code"),
      status: answer?.status ?? 0,
      region: answer?.headers["x-amz-bucket-region"],
      signed: answer?.signed ?? false,
    };
  }
}
