-- Is every sequence past the largest value of its column? One that is not refuses the next insert.
WITH owned AS (
    SELECT s.oid AS sequence, n.nspname, c.relname, a.attname, q.seqincrement
      FROM pg_catalog.pg_depend AS d
      JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
      JOIN pg_catalog.pg_sequence AS q ON q.seqrelid = s.oid
      JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p')
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
      -- Without an index that begins with the column this would read the whole table.
      JOIN pg_catalog.pg_index AS i
        ON i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisunique AND i.indpred IS NULL
     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.deptype IN ('a', 'i')
       AND q.seqincrement > 0
       AND NOT q.seqcycle
), found AS (
    SELECT DISTINCT owned.*,
           -- The one way to run a statement that is made of names, without a function of our own.
           ((pg_catalog.xpath('/row/value/text()', pg_catalog.query_to_xml(
               format('SELECT max(%I)::bigint AS value FROM %I.%I', attname, nspname, relname),
               false, true, '')))[1]::text)::bigint AS largest
      FROM owned
)
SELECT format(
           'the sequence %s goes on from %s, and %I.%I.%I holds %s',
           sequence::pg_catalog.regclass,
           coalesce(pg_catalog.pg_sequence_last_value(sequence)::text, 'its beginning'),
           nspname, relname, attname, largest
       )
  FROM found
 WHERE largest > coalesce(
           pg_catalog.pg_sequence_last_value(sequence),
           (SELECT q.seqstart - 1 FROM pg_catalog.pg_sequence AS q WHERE q.seqrelid = sequence)
       );
