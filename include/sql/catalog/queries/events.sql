-- Who did what to which backup, newest first?
SELECT at, actor, action, subject, details
FROM neuroca_backup.events
ORDER BY at DESC, id DESC
LIMIT %(limit)s;
