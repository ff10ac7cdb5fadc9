-- The user of backups may log in and read everything, past row-level security, and change nothing.
-- Run as a superuser: psql -d postgres -f this. Then give it a password: \password {user}
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{user}') THEN
        CREATE ROLE {user};
    END IF;
END
$$;
ALTER ROLE {user} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS;
ALTER ROLE {user} SET default_transaction_read_only = on;
GRANT pg_read_all_data TO {user};
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT datname FROM pg_catalog.pg_database WHERE datallowconn LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO {user}', name);
    END LOOP;
END
$$;
