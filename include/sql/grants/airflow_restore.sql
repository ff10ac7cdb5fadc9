-- The user of restores may replace the rows that are backed up, and nothing else.
-- Run as a superuser in Airflow's database: psql -d airflow -f this. Then: \password {user}
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{user}') THEN
        CREATE ROLE {user};
    END IF;
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO {user}', current_database());
END
$$;
ALTER ROLE {user} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
GRANT USAGE ON SCHEMA public TO {user};
GRANT SELECT ON alembic_version TO {user};
GRANT SELECT, INSERT, UPDATE, DELETE ON connection, variable, slot_pool TO {user};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user};
