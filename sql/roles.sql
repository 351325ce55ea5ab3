-- The five roles, none of them a superuser. Run once per Postgres server, as a role that may create roles:
--
--   psql "$ADMIN_URL" -f sql/roles.sql
--   psql "$ADMIN_URL" -c "create database thaw owner thaw_migrator"
--   psql "$ADMIN_URL" -c '\connect thaw' -c "revoke create on schema public from public; grant create on schema public to thaw_migrator"
--
-- Then give each a password (alter role thaw_server password '...') and its own DATABASE_URL. The rights of each are in
-- privileges.sql, which every `npm run migrate` applies, also to a database that is older than its roles.
--
-- The last line is for Postgres 14 and for databases upgraded from it, and needs a superuser: there every role may create objects
-- in schema public, and could gain the owner's rights by that (sql/README.md, "Roles").

create role thaw_migrator login; -- npm run migrate, npm run users. Owns all tables and functions.
create role thaw_server login;   -- npm run server. May hand in events, and reads no table.
create role thaw_worker login;   -- npm run worker. Works on graphile-worker's rows, and owns nothing.
create role thaw_reader login;   -- people and dashboards. Sees the views.
create role thaw_operator login; -- people on call, the pages. Sees the views, calls the operators' functions, and owns nothing.

-- So that a migration can take back what early versions gave to the worker.
grant thaw_worker to thaw_migrator;
-- So that the role that creates these can also create a database for them.
grant thaw_migrator to current_user;

-- A client that vanishes in the middle of a transaction must not keep its locks for long.
alter role thaw_server set idle_in_transaction_session_timeout = '30s';
alter role thaw_worker set idle_in_transaction_session_timeout = '60s';
alter role thaw_reader set idle_in_transaction_session_timeout = '60s';
alter role thaw_reader set statement_timeout = '60s';
alter role thaw_reader set default_transaction_read_only = on;
alter role thaw_operator set idle_in_transaction_session_timeout = '60s';
-- Since when a transaction of somebody else is open, and so keeps vacuum from its work, is shown to these only (finding
-- old_transaction). The owner of the function that the view calls needs it, not who looks: it shows what everybody runs, in all
-- databases. Since Postgres 16 it takes a superuser to grant it, and without it all else works.
do $$ begin
  grant pg_read_all_stats to thaw_migrator;
exception when insufficient_privilege then
  raise notice 'Let a superuser run: grant pg_read_all_stats to thaw_migrator';
end $$;
