import {
  DescribeUserCommand,
  GetUserIdCommand,
  IdentitystoreClient,
  ResourceNotFoundException,
  ValidationException,
} from "@aws-sdk/client-identitystore";

import { inTime } from "./time_limit.ts";

/** Both calls take a fraction of a second; what takes longer counts as no answer. */
const CALL_TIMEOUT_MS = 5_000;

/** Named like the settings. */
export interface IdentityStoreSettings {
  IDENTITY_STORE_ID?: string | undefined;
  IDENTITY_STORE_REGION?: string | undefined;
  AWS_REGION?: string | undefined;
  AWS_ENDPOINT_URL_IDENTITYSTORE?: string | undefined;
}

/** A person of IAM Identity Center. */
export interface IdentityUser {
  is_enabled: boolean;
  /** The primary address first. */
  emails: string[];
}

/** IAM Identity Center's list of people. Both calls throw when the store itself fails, and return undefined for nobody. */
export interface IdentityStore {
  /** The store's id: IDENTITY_STORE_ID. */
  id: string;
  describeUser(user_id: string, signal: AbortSignal): Promise<IdentityUser | undefined>;
  /** The id of the user with this user name. */
  findUser(user_name: string, signal: AbortSignal): Promise<string | undefined>;
  region(): Promise<string>;
  destroy(): void;
}

/** Undefined without IDENTITY_STORE_ID. */
export function createIdentityStore(settings: IdentityStoreSettings): IdentityStore | undefined {
  const id = settings.IDENTITY_STORE_ID;
  if (id === undefined) return undefined;
  const region = settings.IDENTITY_STORE_REGION ?? settings.AWS_REGION;
  const endpoint = settings.AWS_ENDPOINT_URL_IDENTITYSTORE;
  const client = new IdentitystoreClient({
    ...(region !== undefined && { region }),
    ...(endpoint !== undefined && { endpoint }),
    // sql/people.sql has a backoff for all workers together.
    maxAttempts: 1,
    requestHandler: {
      requestTimeout: CALL_TIMEOUT_MS,
      throwOnRequestTimeout: true,
      connectionTimeout: 3_000,
    },
  });

  /** Credentials included, whose provider takes no signal. */
  const call = async <T>(sent: Promise<T>): Promise<T | undefined> => {
    try {
      return await inTime(CALL_TIMEOUT_MS, sent, () => new DOMException("no answer in time", "TimeoutError"));
    } catch (error) {
      if (isNobody(error)) return undefined;
      throw error;
    }
  };

  return {
    id,
    async describeUser(user_id, abortSignal) {
      const user = await call(
        client.send(new DescribeUserCommand({ IdentityStoreId: id, UserId: user_id }), { abortSignal }),
      );
      if (user === undefined) return undefined;
      const emails = (user.Emails ?? []).toSorted(
        (a, b) => Number(b.Primary === true) - Number(a.Primary === true),
      );
      return {
        is_enabled: user.UserStatus !== "DISABLED",
        emails: emails.flatMap(({ Value }) => Value?.trim() || []),
      };
    },
    async findUser(user_name, abortSignal) {
      const UniqueAttribute = { AttributePath: "userName", AttributeValue: user_name };
      const found = await call(
        client.send(new GetUserIdCommand({ IdentityStoreId: id, AlternateIdentifier: { UniqueAttribute } }), {
          abortSignal,
        }),
      );
      return found?.UserId;
    },
    region: () => client.config.region(),
    destroy: () => client.destroy(),
  };
}

/** The store has no such user, or none can have such an id. A store that is not there (a wrong id or region) is no answer. */
function isNobody(error: unknown): boolean {
  // "Reason" is about the key that encrypts the store.
  if (error instanceof ValidationException) return error.Reason === undefined;
  return (
    error instanceof ResourceNotFoundException &&
    error.Reason === undefined &&
    error.ResourceType !== "IDENTITY_STORE"
  );
}
