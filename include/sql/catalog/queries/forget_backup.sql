-- Removes a backup and its copies from the index; stages, verifications, restores and events stay.
WITH copies AS (
    DELETE FROM neuroca_backup.copies WHERE backup_id = %(backup_id)s
)
DELETE FROM neuroca_backup.backups WHERE backup_id = %(backup_id)s;
