-- Which backups are there, newest first, and how far is each copy proven? A copy with a finding is
-- damaged: it counts as level 0.
SELECT
    backup.backup_id,
    backup.set_id,
    backup.component,
    backup.source,
    backup.engine,
    backup.kind,
    backup.started_at,
    backup.finished_at,
    backup.expires_at,
    backup.expired_at,
    backup.plain_size,
    backup.stored_size,
    backup.members,
    coalesce(
        (
            SELECT jsonb_object_agg(
                copy.store, CASE WHEN copy.findings = '[]' THEN copy.level ELSE 0 END
            )
            FROM neuroca_backup.copies AS copy
            WHERE copy.backup_id = backup.backup_id
        ),
        '{}'
    ) AS levels
FROM neuroca_backup.backups AS backup
WHERE (%(component)s::text IS NULL OR backup.component = %(component)s)
    AND (%(source)s::text IS NULL OR backup.source = %(source)s)
ORDER BY backup.started_at DESC, backup.backup_id DESC
LIMIT %(limit)s;
