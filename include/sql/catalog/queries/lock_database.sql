-- Makes simultaneous creations of the database wait for each other until this session ends.
SELECT pg_advisory_lock(hashtext('neuroca_backup.database'));
