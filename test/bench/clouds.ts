/** The stand-ins for S3 and Resend in a process of their own, so that they take no time from who is measured. */
import { startResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type S3StandInOptions } from "../stand_ins/s3.ts";

export interface CloudOptions {
  s3: S3StandInOptions;
  mails_per_second?: number;
}

const options = JSON.parse(process.argv[2] ?? "{}") as CloudOptions;
const s3 = await startS3StandIn({
  keep_requests: 1_000_000,
  ...options.s3,
  restore_ms: options.s3.restore_ms ?? Infinity,
});
const resend = await startResendStandIn({ requests_per_second: options.mails_per_second ?? 100_000 });
s3.createBucket("bench");

/** What the measuring process may ask; each answers one value. */
const CALLS = {
  addresses: () => ({ s3: { url: s3.url }, resend: { url: resend.url, api_key: resend.api_key } }),
  archive: (prefix: string, count: number) => {
    for (let index = 0; index < count; index++) {
      s3.putObject({ bucket: "bench", key: `${prefix}${index}`, storage_class: "GLACIER", size_bytes: 1 });
    }
  },
  beginRestores: (prefix: string, count: number) => {
    for (let index = 0; index < count; index++)
      s3.beginRestore({ bucket: "bench", key: `${prefix}${index}` }, { days: 7 });
  },
  finishRestores: (prefix: string, count: number) => {
    for (let index = 0; index < count; index++)
      s3.finishRestore({ bucket: "bench", key: `${prefix}${index}` });
  },
  finishRestore: (key: string) => s3.finishRestore({ bucket: "bench", key }),
  counts: () => Object.fromEntries(s3.counts),
  restoreTimes: () => s3.requests.filter((request) => request.accepted === true).map((request) => request.at),
  headTimes: () =>
    s3.requests.filter((request) => request.operation === "HeadObject").map((request) => request.at),
  requestTimes: (key: string) =>
    s3.requests.filter((request) => request.key === key).map(({ operation, at }) => ({ operation, at })),
  acceptedTimes: () =>
    s3.requests.filter((request) => request.accepted === true).map(({ key, at }) => ({ key, at })),
  clear: () => s3.clearRequests(),
  refuse: (address: string) => void resend.refuse(address),
  mails: () => resend.mails.map((mail) => ({ to: mail.to[0] ?? "", at: mail.at.getTime() })),
  mailCalls: () => resend.requests.map(({ at, status }) => ({ at, status })),
};
export type Calls = typeof CALLS;

process.on("message", ({ id, call, args }: { id: number; call: keyof Calls; args: never[] }) => {
  const value: unknown = Reflect.apply(CALLS[call], undefined, args);
  process.send?.({ id, value });
});
process.on("disconnect", () => process.exit(0));
process.send?.("ready");
