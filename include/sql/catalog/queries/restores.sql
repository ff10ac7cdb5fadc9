-- Which restores were made, newest first?
SELECT
    restore_id, backup_id, store, target, actor, started_at, finished_at, seconds, bytes_restored,
    outcome, notes
FROM neuroca_backup.restores
ORDER BY started_at DESC, restore_id DESC
LIMIT %(limit)s;
