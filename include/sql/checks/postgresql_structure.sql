-- Which tables are not sound, and where? Needs the extension amcheck, and reads every table once.
-- https://www.postgresql.org/docs/current/amcheck.html
SELECT 'table ' || c.oid::regclass::text AS relation,
       'block ' || h.blkno || ', item ' || coalesce(h.offnum::text, '?') || ': ' || h.msg AS finding
  FROM pg_catalog.pg_class AS c
 CROSS JOIN LATERAL {schema}.verify_heapam(c.oid::regclass) AS h
 WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
   AND c.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'heap');
