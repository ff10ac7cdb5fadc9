-- How is everything defined that is not data? One line an object, in a fixed order, with its kind.
WITH user_schema AS (
    SELECT n.oid, n.nspname
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND n.nspname NOT LIKE 'pg\_%'
), relation AS (
    SELECT c.*, s.nspname
      FROM pg_catalog.pg_class AS c
      JOIN user_schema AS s ON s.oid = c.relnamespace
     WHERE NOT EXISTS (
               SELECT 1
                 FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass
                  AND d.objid = c.oid
                  AND d.deptype = 'e'
           )
), line (kind, definition) AS (
    SELECT 'columns',
           format(
               '%I.%I.%I %s%s%s %s',
               r.nspname, r.relname, a.attname,
               pg_catalog.format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
               coalesce(' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''),
               a.attidentity::text || a.attgenerated::text
           )
      FROM relation AS r
      JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = r.oid AND d.adnum = a.attnum
     WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT 'owners and privileges',
           format(
               '%s %I.%I %s %s',
               r.relkind, r.nspname, r.relname,
               pg_catalog.pg_get_userbyid(r.relowner),
               (
                   SELECT string_agg(
                              format(
                                  '%s:%s%s',
                                  CASE WHEN g.grantee = 0 THEN 'public'
                                       ELSE pg_catalog.pg_get_userbyid(g.grantee) END,
                                  g.privilege_type,
                                  CASE WHEN g.is_grantable THEN '*' ELSE '' END
                              ),
                              ',' ORDER BY g.grantee = 0, pg_catalog.pg_get_userbyid(g.grantee),
                              g.privilege_type
                          )
                     FROM pg_catalog.aclexplode(
                              coalesce(
                                  r.relacl,
                                  pg_catalog.acldefault(
                                      CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                      r.relowner
                                  )
                              )
                          ) AS g
               )
           )
      FROM relation AS r
     WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'indexes', pg_catalog.pg_get_indexdef(i.indexrelid)
      FROM relation AS r
      JOIN pg_catalog.pg_index AS i ON i.indrelid = r.oid AND i.indisvalid
    UNION ALL
    SELECT 'constraints',
           format(
               '%I.%I.%I %s',
               r.nspname, r.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid)
           )
      FROM relation AS r
      JOIN pg_catalog.pg_constraint AS k ON k.conrelid = r.oid
    UNION ALL
    SELECT 'views', format('%I.%I %s', r.nspname, r.relname, pg_catalog.pg_get_viewdef(r.oid))
      FROM relation AS r
     WHERE r.relkind IN ('v', 'm')
    UNION ALL
    SELECT 'triggers', pg_catalog.pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
      FROM relation AS r
      JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT 'row policies',
           format(
               '%I.%I.%I %s %s %s',
               r.nspname, r.relname, p.polname, p.polcmd,
               pg_catalog.pg_get_expr(p.polqual, p.polrelid),
               pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
           )
      FROM relation AS r
      JOIN pg_catalog.pg_policy AS p ON p.polrelid = r.oid
    UNION ALL
    SELECT 'sequences',
           format(
               '%I.%I %s %s %s %s %s',
               r.nspname, r.relname, q.seqtypid::regtype, q.seqstart, q.seqincrement,
               q.seqmin, q.seqmax
           )
      FROM relation AS r
      JOIN pg_catalog.pg_sequence AS q ON q.seqrelid = r.oid
    UNION ALL
    SELECT 'functions',
           pg_catalog.pg_get_functiondef(p.oid) || pg_catalog.pg_get_userbyid(p.proowner)
      FROM pg_catalog.pg_proc AS p
      JOIN user_schema AS s ON s.oid = p.pronamespace
     WHERE p.prokind <> 'a'
       AND NOT EXISTS (
               SELECT 1
                 FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                  AND d.objid = p.oid
                  AND d.deptype = 'e'
           )
    UNION ALL
    SELECT 'enums', format('%I.%I %s %s', s.nspname, t.typname, e.enumsortorder, e.enumlabel)
      FROM pg_catalog.pg_enum AS e
      JOIN pg_catalog.pg_type AS t ON t.oid = e.enumtypid
      JOIN user_schema AS s ON s.oid = t.typnamespace
    UNION ALL
    SELECT 'extensions', x.extname
      FROM pg_catalog.pg_extension AS x
)
SELECT kind, definition
  FROM line
 ORDER BY kind COLLATE "C", definition COLLATE "C";
