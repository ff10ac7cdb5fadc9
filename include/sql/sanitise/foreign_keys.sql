-- Every foreign key, a column a row: what refers to what.
SELECT k.conname::text AS name,
       k.conrelid::regclass::text AS child,
       a.attname::text AS child_column,
       k.confrelid::regclass::text AS parent,
       b.attname::text AS parent_column
FROM pg_constraint AS k
CROSS JOIN unnest(k.conkey, k.confkey) AS pair (child_number, parent_number)
JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = pair.child_number
JOIN pg_attribute AS b ON b.attrelid = k.confrelid AND b.attnum = pair.parent_number
WHERE k.contype = 'f'
ORDER BY k.conrelid, k.conname;
