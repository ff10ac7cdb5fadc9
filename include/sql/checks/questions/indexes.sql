-- Is every index valid and used?
SELECT format('the index %s is not valid', indexrelid::pg_catalog.regclass)
  FROM pg_catalog.pg_index
 WHERE NOT (indisvalid AND indisready AND indislive);
