-- Large objects lie in a catalog, a piece of 2 KB a row.
COPY (SELECT encode(data, 'escape') FROM pg_catalog.pg_largeobject) TO STDOUT;
