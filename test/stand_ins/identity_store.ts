/** IAM Identity Center's identity store over real HTTP: DescribeUser and GetUserId (JSON 1.1), with faults on demand. */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export interface StoredUser {
  UserId: string;
  UserName: string;
  Emails?: { Value: string; Primary?: boolean; Type?: string }[];
  UserStatus?: "ENABLED" | "DISABLED";
}

/** `reset` breaks the connection off; the others say what AWS says. */
export type IdentityFault = "throttled" | "denied" | "internal" | "hang" | "reset";

export interface IdentityCall {
  operation: string;
  /** The user id or user name asked for. */
  of: string;
  at: number;
}

export interface IdentityStoreStandIn {
  /** For AWS_ENDPOINT_URL_IDENTITYSTORE. */
  url: string;
  id: string;
  /** May be changed while it runs. */
  users: StoredUser[];
  calls: IdentityCall[];
  /** What happens to each call; null: nothing. */
  fault: IdentityFault | null;
  /** The user name whose calls alone have the fault; null: everybody's. */
  fault_of: string | null;
  /** Adds a person, and returns the user id. */
  add(user: Omit<StoredUser, "UserId">): string;
  close(): Promise<void>;
}

const ID = "d-1234567890";

/** By AWS's names; all of them come with 400 but the last. */
const REFUSALS = {
  throttled: [400, "ThrottlingException", "Rate exceeded"],
  denied: [
    400,
    "AccessDeniedException",
    "User: arn:aws:sts::111122223333:assumed-role/thaw/x is not authorized to perform: identitystore:DescribeUser",
  ],
  internal: [500, "InternalServerException", "An unexpected error occurred"],
} as const;

export async function startIdentityStoreStandIn(): Promise<IdentityStoreStandIn> {
  const answer = (response: ServerResponse, status: number, body: object): void => {
    response.writeHead(status, {
      "content-type": "application/x-amz-json-1.1",
      "x-amzn-requestid": randomUUID(),
    });
    response.end(JSON.stringify(body));
  };
  const refuse = (response: ServerResponse, status: number, type: string, message: string, more = {}): void =>
    answer(response, status, { __type: type, Message: message, message, ...more });

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString()) as {
      IdentityStoreId?: string;
      UserId?: string;
      AlternateIdentifier?: { UniqueAttribute?: { AttributePath?: string; AttributeValue?: string } };
    };
    const operation = String(request.headers["x-amz-target"]).replace("AWSIdentityStore.", "");
    const name = body.AlternateIdentifier?.UniqueAttribute?.AttributeValue;
    store.calls.push({ operation, of: body.UserId ?? name ?? "", at: Date.now() });
    const fault = store.fault_of === null || store.fault_of === name ? store.fault : null;
    if (fault === "hang") return;
    if (fault === "reset") return void request.socket.destroy();
    if (fault !== null) {
      const [status, type, message] = REFUSALS[fault];
      return refuse(response, status, type, message);
    }
    const nobody = (ResourceType: string): void =>
      refuse(response, 400, "ResourceNotFoundException", `${ResourceType} not found.`, { ResourceType });
    if (body.IdentityStoreId !== ID) return nobody("IDENTITY_STORE");
    if (operation === "GetUserId") {
      // As AWS: user names are compared without regard to case.
      const found = store.users.find(({ UserName }) => UserName.toLowerCase() === name?.toLowerCase());
      return found === undefined
        ? nobody("USER")
        : answer(response, 200, { UserId: found.UserId, IdentityStoreId: ID });
    }
    if (!/^([0-9a-f]{10}-)?[A-Fa-f0-9]{8}(-[A-Fa-f0-9]{4}){3}-[A-Fa-f0-9]{12}$/.test(body.UserId ?? ""))
      return refuse(response, 400, "ValidationException", "userId failed to satisfy constraint");
    const user = store.users.find(({ UserId }) => UserId === body.UserId);
    return user === undefined ? nobody("USER") : answer(response, 200, { ...user, IdentityStoreId: ID });
  };

  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("unreachable");
  const store: IdentityStoreStandIn = {
    url: `http://127.0.0.1:${address.port}`,
    id: ID,
    users: [],
    calls: [],
    fault: null,
    fault_of: null,
    add(user) {
      const UserId = randomUUID();
      store.users.push({ UserId, ...user });
      return UserId;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return store;
}
