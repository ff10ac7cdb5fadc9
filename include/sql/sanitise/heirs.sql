-- A table and everything that holds rows of it: its partitions and what inherits from it.
WITH RECURSIVE heirs (oid) AS (
    SELECT to_regclass(%(name)s)::oid
    UNION
    SELECT i.inhrelid FROM pg_inherits AS i JOIN heirs ON heirs.oid = i.inhparent
)
SELECT c.oid::regclass::text
FROM heirs JOIN pg_class AS c USING (oid)
WHERE c.relkind = 'r'
ORDER BY c.oid;
