-- Creates the schema and the table that says which migrations it has had. Run once, under the
-- lock of queries/lock.sql, before the first migration.
CREATE SCHEMA neuroca_backup;
COMMENT ON SCHEMA neuroca_backup IS
    'Catalog of NCA backups: an index, made again from the stores by "neuroca-backup catalog rebuild"';

CREATE TABLE neuroca_backup.schema_migrations (
    number     integer     PRIMARY KEY CHECK (number > 0),
    name       text        NOT NULL CHECK (name <> ''),
    sha256     text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE neuroca_backup.schema_migrations IS
    'Which files of include/sql/catalog/migrations this schema has had; sha256 is of the file';
