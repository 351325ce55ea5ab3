/** `\d+ restores` must be enough for a DBA who has never seen Thaw. */
import { expect } from "vitest";

import { test } from "../support/database.ts";
import { query } from "../support/rows.ts";

test("every table, view, column, type and domain says what it means", async ({ pool }) => {
  const objects = await query(
    pool,
    `select c.relname || coalesce('.' || a.attname, '') as name,
            case when a.attname is null then obj_description(c.oid, 'pg_class') else col_description(c.oid, a.attnum) end as text
       from pg_class c
       left join lateral (select null::name as attname, 0 as attnum
                           union all
                          select o.attname, o.attnum from pg_attribute o where o.attrelid = c.oid and o.attnum > 0 and not o.attisdropped) a on true
      where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v')
      union all
     select t.typname, obj_description(t.oid, 'pg_type')
       from pg_type t left join pg_class c on c.oid = t.typrelid
      where t.typnamespace = 'public'::regnamespace and (t.typtype in ('e', 'd') or c.relkind = 'c')`,
  );
  expect(objects.length).toBeGreaterThan(200);
  expect(objects.filter(({ text }) => (text ?? "").trim() === "").map(({ name }) => name)).toEqual([]);
});
