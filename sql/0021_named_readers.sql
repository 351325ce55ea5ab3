-- Somebody orders restores for a person (npm run thaw -- restore): the reader is mailto:<address>, and this rule finds the address in
-- it. Postgres lets nobody use the new value before this transaction has ended, so pages cast it from text.
alter type resolution_rule add value if not exists 'named' before 'access_key';
