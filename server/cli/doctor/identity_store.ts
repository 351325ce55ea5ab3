import { createIdentityStore, type IdentityStoreSettings } from "../../identity_store.ts";
import { reasonOf } from "../../log.ts";
import { fail, ok, within, type Finding } from "./finding.ts";

const WHAT = "identity store";

/** Ids that nobody has: the right to ask shows in that the store says so. */
const NOBODY = { id: "00000000-0000-0000-0000-000000000000", name: "thaw-doctor-asks-for-nobody" };

/** Undefined: IDENTITY_STORE_ID is not set, so it is not asked. */
export async function checkIdentityStore(settings: IdentityStoreSettings): Promise<Finding | undefined> {
  const store = createIdentityStore(settings);
  if (store === undefined) return undefined;
  try {
    const { signal } = new AbortController();
    await within(store.describeUser(NOBODY.id, signal));
    await within(store.findUser(NOBODY.name, signal));
    return ok(WHAT, `${store.id} in ${await store.region()} may be asked`);
  } catch (error) {
    const { name } = error as { name?: unknown };
    if (name === "AccessDeniedException") {
      return fail(
        WHAT,
        `Thaw may not ask ${store.id} (${reasonOf(error)})`,
        "Allow identitystore:DescribeUser and identitystore:GetUserId to Thaw's role (lambdas/thaw_policy.json)",
      );
    }
    if (name === "ResourceNotFoundException") {
      return fail(
        WHAT,
        `${store.id} is not in ${await store.region()}`,
        "Set IDENTITY_STORE_ID and IDENTITY_STORE_REGION as IAM Identity Center shows them (Settings: Identity store ID, Region)",
      );
    }
    return fail(WHAT, `cannot be asked (${reasonOf(error)})`, "Check IDENTITY_STORE_REGION and the network");
  } finally {
    store.destroy();
  }
}
