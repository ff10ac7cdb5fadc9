-- Which migrations has this schema had?
SELECT number, name, sha256 FROM neuroca_backup.schema_migrations ORDER BY number;
