-- Since when no mail goes out, for those who look. Null: the gate is open.
alter table mail_gate add column closed_since timestamptz;
-- Nobody noted it before: at least since now.
update mail_gate set closed_since = now() where closed_until > now();
