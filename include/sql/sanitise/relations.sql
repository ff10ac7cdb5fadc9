-- Everything that has rows of its own in this database: tables, partitions, materialised views.
SELECT c.oid::regclass::text AS name, c.relkind::text AS relkind, c.relispopulated AS populated
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\_toast%%' AND n.nspname NOT LIKE 'pg\_temp%%'
ORDER BY c.oid;
