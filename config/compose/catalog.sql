-- Runs once, when the metadata volume is new: the catalog has a database and a role of its own.
\set catalog_password `cat /run/secrets/catalog_password`
CREATE ROLE neuroca_catalog LOGIN PASSWORD :'catalog_password';
CREATE DATABASE neuroca_backup OWNER neuroca_catalog TEMPLATE template0 ENCODING 'UTF8';
