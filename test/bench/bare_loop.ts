/**
 * HEAD and RestoreObject (or HEAD alone) for each of many objects, by the same client and as many at once, and nothing else.
 * Prints the most memory it ever held, in MiB.
 */
import { createS3 } from "../../server/s3/s3.ts";

const [prefix = "", count = "0", calls = "HEAD and RestoreObject"] = process.argv.slice(2);
/** S3_CONCURRENCY's default. */
const CONCURRENCY = 50;
const s3 = createS3({
  AWS_REGION: "us-east-1",
  AWS_ENDPOINT_URL_S3: process.env["AWS_ENDPOINT_URL_S3"],
  S3_FORCE_PATH_STYLE: "true",
  S3_CONCURRENCY: CONCURRENCY,
});
const signal = new AbortController().signal;
let next = 0;
await Promise.all(
  Array.from({ length: CONCURRENCY }, async () => {
    while (next < Number(count)) {
      const object = { s3_bucket: "bench", s3_key: `${prefix}${next++}`, version_id: "", region: null };
      const head = await s3.headObject(object, signal);
      if (calls === "HEAD") continue;
      if (head.state !== "archived") throw new Error(`${object.s3_key} is ${head.state}`);
      await s3.restoreObject({ ...object, ...head }, { tier: "Standard", days: 7 }, signal);
    }
  }),
);
console.log(process.resourceUsage().maxRSS / 1024);
process.exit(0);
