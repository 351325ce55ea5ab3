-- It gets another argument; with the old one kept, a call that leaves the argument out would be ambiguous.
drop function if exists claim_notifications(notification_kind, integer, text);
