import { describe, expect } from "vitest";

import { test as base, waitFor } from "./database.ts";
import { BUCKET, JANE, startThaw, type Thaw } from "./thaw.ts";

const test = base.extend<{ thaw: Thaw }>({
  thaw: async ({ databaseUrl }, use) => {
    // Long enough that "being restored" is still news when it is told.
    const thaw = await startThaw(databaseUrl, { s3: { restore_ms: 3_000 } });
    await use(thaw);
    await thaw.stop();
    expect(thaw.lambdaErrors).toEqual([]);
  },
});

const subjects = (thaw: Thaw) => thaw.resend.mails.map((mail) => `${mail.to.join()}: ${mail.subject}`);

describe("the journey of a read", () => {
  test("a failed read is restored, and its reader is told twice", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("films/holiday 1.mov");

    expect(await thaw.read("films/holiday 1.mov")).toBe("InvalidObjectState");
    await waitFor("both mails", async () => thaw.resend.mails.length === 2);

    expect(subjects(thaw)).toEqual([
      expect.stringMatching(/^jane@example.com: Your file is being restored/),
      expect.stringMatching(/^jane@example.com: Your file is ready/),
    ]);
    expect(await thaw.read("films/holiday 1.mov")).toBe("");
    expect(thaw.s3.look({ bucket: BUCKET, key: "films/holiday 1.mov" })?.restores_accepted).toBe(1);
    const { rows } = await thaw.pool.query("select * from restore_requests");
    expect(rows).toMatchObject([
      {
        restore_status: "restored",
        pre_notified: true,
        post_notified: true,
        email: "jane@example.com",
        read_count: 1,
      },
    ]);
  });
});
