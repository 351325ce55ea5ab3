import {
  S3ServiceException,
  type ArchiveStatus,
  type HeadObjectCommandOutput,
  type StorageClass,
} from "@aws-sdk/client-s3";
import { describe, expect, test } from "vitest";

import { readHead } from "../../server/s3/head.ts";
import { NotFromS3 } from "../../server/s3/answer.ts";
import { NoCredentials } from "../../server/s3/clients.ts";
import { troubleOf } from "../../server/s3/trouble.ts";
import { hasExpedited, takesDays } from "../../server/s3/storage_class.ts";

const NOW = new Date("2026-11-22T12:00:00Z");
const UNTIL = new Date("2026-11-30T00:00:00Z");
const READY = 'ongoing-request="false", expiry-date="Mon, 30 Nov 2026 00:00:00 GMT"';
const RUNNING = 'ongoing-request="true"';

const head = (more: Partial<HeadObjectCommandOutput>): HeadObjectCommandOutput => ({
  $metadata: {},
  ETag: '"e"',
  ...more,
});

/** As a store answers that has classes of its own. */
const unknown = (name: string): { StorageClass: StorageClass } => ({ StorageClass: name as StorageClass });
const archiveStatus = (name: string): ArchiveStatus => name as ArchiveStatus;

const ended = (date: string): string => `ongoing-request="false", expiry-date="${date}"`;

describe("what HEAD says", () => {
  test.for<[string, Partial<HeadObjectCommandOutput>, string]>([
    ["GLACIER", { StorageClass: "GLACIER" }, "archived"],
    ["DEEP_ARCHIVE", { StorageClass: "DEEP_ARCHIVE" }, "archived"],
    ["GLACIER, running", { StorageClass: "GLACIER", Restore: RUNNING }, "restoring"],
    ["DEEP_ARCHIVE, running", { StorageClass: "DEEP_ARCHIVE", Restore: RUNNING }, "restoring"],
    ["GLACIER, copy", { StorageClass: "GLACIER", Restore: READY }, "readable until"],
    ["DEEP_ARCHIVE, copy", { StorageClass: "DEEP_ARCHIVE", Restore: READY }, "readable until"],
    [
      "a copy that ended a second ago",
      { StorageClass: "GLACIER", Restore: ended("Sun, 22 Nov 2026 11:59:59 GMT") },
      "archived",
    ],
    [
      "a copy that ends now",
      { StorageClass: "GLACIER", Restore: ended("Sun, 22 Nov 2026 12:00:00 GMT") },
      "archived",
    ],
    [
      "a wrong weekday in the expiry",
      { StorageClass: "GLACIER", Restore: ended("Fri, 30 Nov 2026 00:00:00 GMT") },
      "readable until",
    ],
    ["no expiry", { StorageClass: "GLACIER", Restore: 'ongoing-request="false"' }, "archived"],
    ["an expiry that is none", { StorageClass: "GLACIER", Restore: ended("tomorrow") }, "archived"],
    ["an empty header", { StorageClass: "GLACIER", Restore: "" }, "archived"],
    ["a header cut short", { StorageClass: "GLACIER", Restore: 'ongoing-request="fal' }, "archived"],
    [
      "an expiry without the rest",
      { StorageClass: "GLACIER", Restore: 'expiry-date="Mon, 30 Nov 2026 00:00:00 GMT"' },
      "archived",
    ],
    [
      "Intelligent-Tiering, archive",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: "ARCHIVE_ACCESS" },
      "archived",
    ],
    [
      "Intelligent-Tiering, deep archive",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: "DEEP_ARCHIVE_ACCESS" },
      "archived",
    ],
    [
      "Intelligent-Tiering, archive, running",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: "ARCHIVE_ACCESS", Restore: RUNNING },
      "restoring",
    ],
    [
      "Intelligent-Tiering, archive, a header that says copy",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: "ARCHIVE_ACCESS", Restore: READY },
      "archived",
    ],
    ["Intelligent-Tiering, active", { StorageClass: "INTELLIGENT_TIERING" }, "readable"],
    [
      "Intelligent-Tiering, active, header lingers",
      { StorageClass: "INTELLIGENT_TIERING", Restore: READY },
      "readable",
    ],
    ["STANDARD (no class)", {}, "readable"],
    ["STANDARD_IA", { StorageClass: "STANDARD_IA" }, "readable"],
    ["ONEZONE_IA", { StorageClass: "ONEZONE_IA" }, "readable"],
    ["GLACIER_IR", { StorageClass: "GLACIER_IR" }, "readable"],
    ["EXPRESS_ONEZONE", { StorageClass: "EXPRESS_ONEZONE" }, "readable"],
    ["REDUCED_REDUNDANCY", { StorageClass: "REDUCED_REDUNDANCY" }, "readable"],
    ["OUTPOSTS", { StorageClass: "OUTPOSTS" }, "readable"],
    ["SNOW", { StorageClass: "SNOW" }, "readable"],
    ["FSX_OPENZFS", { StorageClass: "FSX_OPENZFS" }, "readable"],
    ["FSX_ONTAP", { StorageClass: "FSX_ONTAP" }, "readable"],
    ["an unknown class", unknown("location-dmf-v1"), "archived"],
    ["another unknown class", unknown("CLOUDTIER"), "archived"],
    ["a class of backups", unknown("AWS_BACKUP_WARM"), "archived"],
    ["a class in small letters", unknown("standard"), "archived"],
    ["an empty class", unknown(""), "archived"],
    ["an unknown class, running", { ...unknown("CLOUDTIER"), Restore: RUNNING }, "restoring"],
    ["an unknown class, copy", { ...unknown("location-dmf-v1"), Restore: READY }, "readable until"],
    [
      "an unknown class, a copy without an end",
      { ...unknown("CLOUDTIER"), Restore: 'ongoing-request="false"' },
      "archived",
    ],
    [
      "an unknown class, a copy that has ended",
      { ...unknown("CLOUDTIER"), Restore: ended("Sun, 22 Nov 2026 11:59:59 GMT") },
      "archived",
    ],
    ["STANDARD, running", { Restore: RUNNING }, "restoring"],
    [
      "Intelligent-Tiering, active, running",
      { StorageClass: "INTELLIGENT_TIERING", Restore: RUNNING },
      "restoring",
    ],
    [
      "Intelligent-Tiering, an unknown archive status",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: archiveStatus("COLDEST_ACCESS") },
      "archived",
    ],
    ["STANDARD, with an archive status", { ArchiveStatus: archiveStatus("ARCHIVE_ACCESS") }, "archived"],
    [
      "an empty archive status",
      { StorageClass: "INTELLIGENT_TIERING", ArchiveStatus: archiveStatus("") },
      "archived",
    ],
  ])("%s", ([, answer, expected]) => {
    const state = readHead(head(answer), NOW);

    expect(state).toMatchObject(
      expected.startsWith("readable")
        ? { state: "readable", restore_expires_at: expected === "readable until" ? UNTIL : null }
        : { state: expected },
    );
    expect("restore_expires_at" in state).toBe(state.state === "readable");
  });

  test("its facts are kept, and what S3 leaves out has a value", () => {
    expect(
      readHead(
        head({
          StorageClass: "INTELLIGENT_TIERING",
          ArchiveStatus: "DEEP_ARCHIVE_ACCESS",
          ContentLength: 5_000_000_000_000,
          VersionId: "null",
        }),
        NOW,
      ),
    ).toEqual({
      state: "archived",
      storage_class: "INTELLIGENT_TIERING",
      archive_status: "DEEP_ARCHIVE_ACCESS",
      size_bytes: 5_000_000_000_000,
      etag: '"e"',
      pinned_version_id: "null",
    });
    expect(readHead(head({}), NOW)).toEqual({
      state: "readable",
      restore_expires_at: null,
      storage_class: "STANDARD",
      archive_status: null,
      size_bytes: null,
      etag: '"e"',
      pinned_version_id: "",
    });
  });
});

describe("the tier asked for", () => {
  test.for([
    ["GLACIER", null, "Expedited", "Expedited"],
    ["DEEP_ARCHIVE", null, "Expedited", "Standard"],
    ["INTELLIGENT_TIERING", "ARCHIVE_ACCESS", "Expedited", "Expedited"],
    ["INTELLIGENT_TIERING", "DEEP_ARCHIVE_ACCESS", "Expedited", "Standard"],
    ["INTELLIGENT_TIERING", "COLDEST_ACCESS", "Expedited", "Standard"],
    ["location-dmf-v1", null, "Expedited", "Standard"],
  ] as const)("%s %s: %s becomes %s", ([storage_class, archive_status, wanted, tier]) => {
    expect(hasExpedited({ storage_class, archive_status })).toBe(tier === wanted);
  });
});

describe("an archive that nobody here has heard of", () => {
  test("is asked for with Days, which all but Intelligent-Tiering want", () => {
    expect(takesDays({ storage_class: "CLOUDTIER", archive_status: null })).toBe(true);
    expect(takesDays({ storage_class: "INTELLIGENT_TIERING", archive_status: "COLDEST_ACCESS" })).toBe(false);
  });
});

/** An error as the SDK throws it for an answer of S3. */
const answered = (name: string, httpStatusCode: number, headers: Record<string, string> = {}): Error =>
  Object.assign(
    new S3ServiceException({
      name,
      $fault: "client",
      $metadata: { httpStatusCode, requestId: "4RTEHTT2H8YZ1AY1" },
    }),
    { $response: { statusCode: httpStatusCode, headers } },
  );

/** ... and for one that somebody else gave. */
const unsigned = (name: string, httpStatusCode: number): Error =>
  new S3ServiceException({ name, $fault: "client", $metadata: { httpStatusCode } });

/** A refusal of STS. */
const ofSts = (name: string, message: string): Error =>
  Object.assign(new Error(message), {
    name,
    $fault: "client",
    $metadata: { httpStatusCode: 403, requestId: "a" },
  });

const named = (name: string, more: object = {}): Error => Object.assign(new Error("text"), { name, ...more });

describe("why S3 did not do it", () => {
  test.for<[string, unknown, string, RegExp]>([
    ["denied", answered("AccessDenied", 403), "AccessDenied", /not allowed.* administrator/],
    ["denied, by HEAD", answered("Unknown", 403), "AccessDenied", /not allowed.* administrator/],
    ["denied or deleted, by HEAD", answered("Unknown", 403), "AccessDenied", /deleted.*s3:ListBucket/],
    ["another 403", answered("InvalidPayer", 403), "InvalidPayer", /answered 403 \(InvalidPayer\)/],
    ["a bad token", answered("InvalidToken", 400), "InvalidToken", /credentials are not valid/],
    ["a token to renew", answered("TokenRefreshRequired", 400), "TokenRefreshRequired", /expired/],
    ["the account", answered("AccountProblem", 403), "AccountProblem", /account/],
    ["a key switched off", answered("KMS.DisabledException", 400), "KMS.DisabledException", /encrypted.*KMS/],
    ["a key deleted", answered("KMS.NotFoundException", 400), "KMS.NotFoundException", /encrypted.*KMS/],
    [
      "a key to be deleted",
      answered("KMS.KMSInvalidStateException", 400),
      "KMS.KMSInvalidStateException",
      /encrypted.*KMS/,
    ],
    ["a slow line", answered("RequestTimeout", 400), "RequestTimeout", /broke off.*tries again/],
    ["a limit", answered("GlacierJobLimitExceeded", 429), "GlacierJobLimitExceeded", /busy.*tries again/],
    ["another 400", answered("InvalidRequest", 400), "InvalidRequest", /did not understand.*report/],
    ["another 301", answered("Redirected", 301), "Redirected", /answered 301 \(Redirected\)/],
    ["no service", answered("ServiceUnavailable", 503), "ServiceUnavailable", /busy.*tries again/],
    ["another 503", answered("Draining", 503), "Draining", /answered 503 \(Draining\).*tries again/],
    ["not there", answered("NotImplemented", 501), "NotImplemented", /does not know how to restore/],
    [
      "signed for elsewhere",
      answered("AuthorizationHeaderMalformed", 400),
      "AuthorizationHeaderMalformed",
      /AWS_REGION/,
    ],
    [
      "a code in a header, as MinIO has it",
      answered("Unknown", 403, { "x-minio-error-code": "InvalidAccessKeyId" }),
      "InvalidAccessKeyId",
      /credentials are not/,
    ],
    ["not S3's 403", unsigned("Unknown", 403), "NotFromS3", /Something else than S3/],
    ["not S3's 404", unsigned("NotFound", 404), "NotFromS3", /Something else than S3/],
    ["not S3's 405", unsigned("Unknown", 405), "NotFromS3", /Something else than S3/],
    ["not S3's 301", unsigned("Unknown", 301), "NotFromS3", /Something else than S3/],
    ["a store without ids, with S3's words", unsigned("AccessDenied", 403), "AccessDenied", /not allowed/],
    ["no HEAD here", answered("Unknown", 405), "MethodNotAllowed", /does not know how/],
    [
      "STS refuses",
      new NoCredentials(ofSts("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")),
      "CredentialsProviderError",
      /no AWS credentials \(AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity\)/,
    ],
    [
      "STS refuses in the middle of a call",
      ofSts("ExpiredTokenException", "The security token included in the request is expired"),
      "CredentialsProviderError",
      /no AWS credentials \(ExpiredTokenException: The security token/,
    ],
    [
      "no token file",
      new NoCredentials(named("Error", { code: "ENOENT", message: "ENOENT: no such file, open '/token'" })),
      "CredentialsProviderError",
      /no AWS credentials \(Error: ENOENT.*'\/token'\)/,
    ],
    [
      "STS is away",
      new NoCredentials(
        named("Error", { code: "ENOTFOUND", message: "getaddrinfo ENOTFOUND sts.us-east-1.amazonaws.com" }),
      ),
      "CredentialsProviderError",
      /ENOTFOUND sts/,
    ],
    [
      "a program that gives none",
      new NoCredentials(new Error("Command failed: vault --token=hunter2\nno")),
      "CredentialsProviderError",
      /no AWS credentials \(Error: credential_process failed\)/,
    ],
    ["bad key", answered("InvalidAccessKeyId", 403), "InvalidAccessKeyId", /credentials are not valid/],
    ["bad secret", answered("SignatureDoesNotMatch", 403), "SignatureDoesNotMatch", /credentials are not/],
    ["old token", answered("ExpiredToken", 400), "ExpiredToken", /expired/],
    ["wrong clock", answered("RequestTimeTooSkewed", 403), "RequestTimeTooSkewed", /clock .* is wrong/],
    ["refused, by HEAD", answered("Unknown", 400), "BadRequest", /encrypted.*or Thaw's AWS credentials/],
    ["no bucket", answered("NoSuchBucket", 404), "NoSuchBucket", /bucket does not exist/],
    ["elsewhere", answered("PermanentRedirect", 301), "PermanentRedirect", /another region/],
    ["elsewhere, by HEAD", answered("Unknown", 301), "PermanentRedirect", /another region/],
    ["busy", answered("SlowDown", 503), "SlowDown", /busy.*tries again/],
    ["throttled", answered("ThrottlingException", 503), "ThrottlingException", /busy.*tries again/],
    [
      "throttled, with a 400",
      answered("ThrottlingException", 400),
      "ThrottlingException",
      /busy.*tries again/,
    ],
    ["our mistake", answered("MalformedXML", 400), "MalformedXML", /did not understand.*report/],
    ["S3's mistake", answered("InternalError", 500), "InternalError", /answered 500.*tries again/],
    ["S3's mistake, by HEAD", answered("Unknown", 500), "HTTP500", /answered 500.*tries again/],
    ["a name that is a status", answered("503", 503), "SlowDown", /busy.*tries again/],
    [
      "an answer that is no XML",
      named("Error", { $metadata: { httpStatusCode: 502 } }),
      "HTTP502",
      /answered 502.*tries again/,
    ],
    ["a proxy's answer", new NotFromS3("text"), "NotFromS3", /Something else than S3/],
    ["no credentials", named("CredentialsProviderError"), "CredentialsProviderError", /no AWS credentials/],
    ["time-out", named("TimeoutError"), "Timeout", /did not answer.*tries again/],
    ["our own time-out", AbortSignal.abort().reason, "Timeout", /did not answer.*tries again/],
    ["cut off", named("TimeoutError", { code: "ECONNRESET" }), "ECONNRESET", /did not answer/],
    ["nobody there", named("Error", { code: "ECONNREFUSED" }), "ECONNREFUSED", /did not answer/],
    ["cannot ask", new Error("Region is missing"), "Error", /cannot ask S3 \(Region is missing\)/],
    ["not even an error", "what?", "Error", /cannot ask S3 \(what\?\)/],
    ["nothing at all", undefined, "Error", /cannot ask S3/],
  ])("%s", ([, error, code, sentence]) => {
    const trouble = troubleOf(error);
    expect(trouble.code).toBe(code);
    expect(trouble.message).toMatch(sentence);
  });
});
