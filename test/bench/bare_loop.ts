/** HEAD and RestoreObject for each of many objects, by the same client and as many at once, and nothing else. */
import { createS3 } from "../../server/s3.ts";

const [prefix = "", count = "0", concurrency = "50"] = process.argv.slice(2);
const s3 = createS3({
  AWS_REGION: "us-east-1",
  AWS_ENDPOINT_URL_S3: process.env["AWS_ENDPOINT_URL_S3"],
  S3_FORCE_PATH_STYLE: "true",
  S3_CONCURRENCY: Number(concurrency),
  RESTORE_DAYS: 7,
});
const signal = new AbortController().signal;
let next = 0;
await Promise.all(
  Array.from({ length: Number(concurrency) }, async () => {
    while (next < Number(count)) {
      const object = { s3_bucket: "bench", s3_key: `${prefix}${next++}`, version_id: "", region: null };
      const head = await s3.headObject(object, signal);
      if (head.state !== "archived") throw new Error(`${object.s3_key} is ${head.state}`);
      await s3.restoreObject({ ...object, ...head }, "Standard", signal);
    }
  }),
);
process.exit(0);
