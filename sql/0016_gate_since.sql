-- Since when no mail goes out, for those who look. Null: the gate is open, or was closed before this was noted.
alter table mail_gate add column closed_since timestamptz;
