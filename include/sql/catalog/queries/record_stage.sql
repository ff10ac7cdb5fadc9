-- Notes how long a stage took (seconds) and how many bytes it handled; the last try counts.
INSERT INTO neuroca_backup.stages (backup_id, stage, seconds, size)
VALUES (%(backup_id)s, %(stage)s, %(seconds)s, %(size)s)
ON CONFLICT (backup_id, stage) DO UPDATE SET
    seconds = excluded.seconds, size = excluded.size, recorded_at = excluded.recorded_at;
