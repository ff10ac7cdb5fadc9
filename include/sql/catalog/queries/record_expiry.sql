-- Notes when a backup was marked to be deleted, or that it was taken back.
UPDATE neuroca_backup.backups
SET expired_at = %(expired_at)s
WHERE backup_id = %(backup_id)s;
