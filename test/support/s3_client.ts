import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";

/** A person's own client of a store on this machine, not Thaw's: one try per call. */
export const personsClient = (url: string, accessKeyId: string, more: S3ClientConfig = {}): S3Client =>
  new S3Client({
    endpoint: url,
    forcePathStyle: true,
    region: "us-east-1",
    credentials: { accessKeyId, secretAccessKey: "secret" },
    maxAttempts: 1,
    ...more,
  });
