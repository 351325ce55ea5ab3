/** Held by each vitest project: that it runs on the Postgres that it is named after. */
import { Client } from "pg";
import { expect, inject, test } from "vitest";

test("the tests run on the Postgres that their project is named after", async ({ task }) => {
  const client = new Client({ connectionString: inject("postgresUrl") });
  await client.connect();
  const { rows } = await client.query<{ major: string; jit: boolean }>(
    "select current_setting('server_version_num')::int / 10000 as major, pg_jit_available() as jit",
  );
  await client.end();

  const name = task.file.projectName ?? "";
  if (name === "postgres-packaged") expect(rows).toMatchObject([{ jit: true }]);
  else expect(rows).toEqual([{ major: Number(name.replace("postgres-", "")), jit: false }]);
});
