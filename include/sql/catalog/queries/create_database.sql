-- What statement creates the database of this name? Its collation does not matter: see migration 1.
SELECT format('CREATE DATABASE %%I TEMPLATE template0 ENCODING ''UTF8''', %(database)s::text);
