-- Which tables hold data that a logical dump carries, and of which columns (name, type, and the
-- element type of an array) a row consists? Tables that belong to an extension are its own affair.
SELECT n.nspname,
       c.relname,
       coalesce(
           (
               SELECT json_agg(
                          json_build_array(
                              a.attname,
                              t.typname,
                              coalesce(e.typname, '')
                          )
                          ORDER BY a.attnum
                      )
                 FROM pg_catalog.pg_attribute AS a
                 JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
                 LEFT JOIN pg_catalog.pg_type AS e
                   ON e.oid = t.typelem AND t.typcategory = 'A'
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           ),
           '[]'::json
       )
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r'
   AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname NOT LIKE 'pg\_temp\_%'
   AND n.nspname NOT LIKE 'pg\_toast\_temp\_%'
   AND NOT EXISTS (
           SELECT 1
             FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass
              AND d.objid = c.oid
              AND d.deptype = 'e'
       )
 ORDER BY n.nspname, c.relname;
