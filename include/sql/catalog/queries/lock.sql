-- Makes simultaneous migrations wait for each other until this transaction ends.
SELECT pg_advisory_xact_lock(hashtext('neuroca_backup.schema_migrations'));
