-- Appends to the audit trail; an event that is there already is not added again.
INSERT INTO neuroca_backup.events (at, actor, action, subject, details, sha256)
VALUES (%(at)s, %(actor)s, %(action)s, %(subject)s, %(details)s, %(sha256)s)
ON CONFLICT (sha256) DO NOTHING;
