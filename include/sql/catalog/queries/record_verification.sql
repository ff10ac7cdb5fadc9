-- Adds a check to the history; it becomes the copy's level only when it is newer than the one
-- that gave the level, in whatever order they arrive.
WITH history AS (
    INSERT INTO neuroca_backup.verifications (
        backup_id, store, checked_at, level, findings, seconds, bytes_read
    )
    VALUES (
        %(backup_id)s, %(store)s, %(checked_at)s, %(level)s, %(findings)s, %(seconds)s,
        %(bytes_read)s
    )
    ON CONFLICT (backup_id, store, checked_at) DO NOTHING
)
INSERT INTO neuroca_backup.copies AS copy (backup_id, store, level, checked_at, findings)
VALUES (%(backup_id)s, %(store)s, %(level)s, %(checked_at)s, %(findings)s)
ON CONFLICT (backup_id, store) DO UPDATE SET
    level = excluded.level, checked_at = excluded.checked_at, findings = excluded.findings
WHERE copy.checked_at IS NULL OR copy.checked_at < excluded.checked_at;
