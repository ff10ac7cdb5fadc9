-- Notes a restore; one that was resumed replaces what was noted of it before.
INSERT INTO neuroca_backup.restores (
    restore_id, backup_id, store, target, actor, started_at, finished_at, seconds, bytes_restored,
    outcome, notes
)
VALUES (
    %(restore_id)s, %(backup_id)s, %(store)s, %(target)s, %(actor)s, %(started_at)s,
    %(finished_at)s, %(seconds)s, %(bytes_restored)s, %(outcome)s, %(notes)s
)
ON CONFLICT (restore_id) DO UPDATE SET
    backup_id = excluded.backup_id,
    store = excluded.store,
    target = excluded.target,
    actor = excluded.actor,
    started_at = excluded.started_at,
    finished_at = excluded.finished_at,
    seconds = excluded.seconds,
    bytes_restored = excluded.bytes_restored,
    outcome = excluded.outcome,
    notes = excluded.notes,
    recorded_at = excluded.recorded_at;
