-- Does the schema exist?
SELECT EXISTS (
    SELECT FROM pg_tables WHERE schemaname = 'neuroca_backup' AND tablename = 'schema_migrations'
);
