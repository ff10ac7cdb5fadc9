-- What a column is, for the rules about it: nothing where there is no such table or column.
SELECT c.oid::regclass::text AS name,
       c.relkind::text AS relkind,
       c.relhasrules AS has_rules,
       a.attnotnull AS not_null,
       a.attgenerated::text <> '' AS generated,
       a.attidentity::text <> '' AS identity,
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type,
       CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END - 4 AS length,
       ARRAY(
           SELECT g.tgname::text
           FROM pg_trigger AS g
           WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('A', 'R')
       ) AS triggers,
       a.attname::text AS attname
FROM pg_class AS c
LEFT JOIN pg_attribute AS a
    ON a.attrelid = c.oid AND a.attname = %(column)s AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.oid = to_regclass(quote_ident(%(schema)s) || '.' || quote_ident(%(table)s));
