/** What keeps Thaw from asking S3 at all, told apart from what S3 answers. */
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { createServer as createHttpServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, describe, expect, test, vi } from "vitest";

import { createS3 } from "../../server/s3/s3.ts";
import { troubleOf, type Trouble } from "../../server/s3/trouble.ts";
import { withTimeLimit } from "../../server/time_limit.ts";

const OBJECT = { s3_bucket: "archive", s3_key: "k", version_id: "", region: null };
const TOKEN_FILE = join(tmpdir(), `thaw-token-${process.pid}`);

const closing: (() => unknown)[] = [];
afterEach(() => {
  vi.unstubAllEnvs();
  for (const close of closing.splice(0)) close();
});

async function listening(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.push(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What a worker with these settings notes about a file. */
async function troubleWith(env: Record<string, string>, limit_ms = 20_000): Promise<Trouble> {
  const without = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined, AWS_PROFILE: undefined };
  const files = { AWS_CONFIG_FILE: "/dev/null", AWS_SHARED_CREDENTIALS_FILE: "/dev/null" };
  const all = { ...without, ...files, AWS_EC2_METADATA_DISABLED: "true", ...env };
  for (const [name, value] of Object.entries(all)) vi.stubEnv(name, value);
  const s3 = createS3({
    AWS_REGION: "us-east-1",
    S3_FORCE_PATH_STYLE: "true",
    S3_CONCURRENCY: 1,
  });
  closing.push(() => s3.destroy());
  const never = new AbortController().signal;
  return withTimeLimit(limit_ms, never, (signal) => s3.headObject(OBJECT, signal)).then(
    (state) => expect.fail(`S3 was asked: ${state.state}`),
    troubleOf,
  );
}

const webIdentity = (sts: string): Record<string, string> => {
  writeFileSync(TOKEN_FILE, "a.token.of-our-own");
  return {
    AWS_WEB_IDENTITY_TOKEN_FILE: TOKEN_FILE,
    AWS_ROLE_ARN: "arn:aws:iam::111122223333:role/thaw",
    AWS_ENDPOINT_URL_STS: sts,
  };
};

describe("without credentials", () => {
  test("the provider's own words are told: there are none", async () => {
    expect(await troubleWith({})).toEqual({
      code: "CredentialsProviderError",
      message: expect.stringMatching(
        /^Thaw has no AWS credentials \(CredentialsProviderError: .+\)\. An administrator/,
      ),
    });
  });

  test("STS's AccessDenied is not S3's", async () => {
    const sts = createHttpServer((request, response) => {
      request.resume().on("end", () => {
        response.writeHead(403, { "content-type": "text/xml", "x-amzn-requestid": "c6104cbe" });
        response.end(
          '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error><RequestId>c6104cbe</RequestId></ErrorResponse>',
        );
      });
    });

    expect(await troubleWith(webIdentity(await listening(sts)))).toEqual({
      code: "CredentialsProviderError",
      message: expect.stringContaining("Not authorized to perform sts:AssumeRoleWithWebIdentity"),
    });
  });

  test("a token file that is gone is named", async () => {
    const gone = { ...webIdentity("http://127.0.0.1:9"), AWS_WEB_IDENTITY_TOKEN_FILE: "/no/such/token" };

    expect(await troubleWith(gone)).toEqual({
      code: "CredentialsProviderError",
      message: expect.stringContaining("/no/such/token"),
    });
  });

  test("an STS that is silent is not a silent S3", async () => {
    const silent = await listening(createServer((socket) => void closing.push(() => socket.destroy())));

    expect(await troubleWith(webIdentity(silent), 500)).toEqual({
      code: "CredentialsProviderError",
      message: expect.stringContaining("did not come in time"),
    });
  });
});
