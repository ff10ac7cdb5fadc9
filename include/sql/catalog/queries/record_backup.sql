-- Notes that a store holds a backup. A manifest that was rewritten (expiry, hold) wins; what is
-- known of the copy's verification stays.
WITH backup AS (
    INSERT INTO neuroca_backup.backups (
        backup_id, set_id, component, source, engine, kind, parent, started_at, finished_at,
        expires_at, hold, classification, product, members, plain_size, stored_size
    )
    VALUES (
        %(backup_id)s, %(set_id)s, %(component)s, %(source)s, %(engine)s, %(kind)s, %(parent)s,
        %(started_at)s, %(finished_at)s, %(expires_at)s, %(hold)s, %(classification)s,
        %(product)s, %(members)s, %(plain_size)s, %(stored_size)s
    )
    ON CONFLICT (backup_id) DO UPDATE SET
        component = excluded.component,
        engine = excluded.engine,
        kind = excluded.kind,
        parent = excluded.parent,
        started_at = excluded.started_at,
        finished_at = excluded.finished_at,
        expires_at = excluded.expires_at,
        hold = excluded.hold,
        classification = excluded.classification,
        product = excluded.product,
        members = excluded.members,
        plain_size = excluded.plain_size,
        stored_size = excluded.stored_size
)
INSERT INTO neuroca_backup.copies (backup_id, store)
VALUES (%(backup_id)s, %(store)s)
ON CONFLICT (backup_id, store) DO NOTHING;
