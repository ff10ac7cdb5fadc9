-- Notes that a migration was applied; part of the migration's own transaction.
INSERT INTO neuroca_backup.schema_migrations (number, name, sha256)
VALUES (%(number)s, %(name)s, %(sha256)s);
