-- The user of backups may read the tables of Airflow's database that are backed up, and no others.
-- Run as a superuser in that database: psql -d airflow -f this. Then: \password {user}
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{user}') THEN
        CREATE ROLE {user};
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO {user}', current_database());
END
$$;
ALTER ROLE {user} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
GRANT USAGE ON SCHEMA public TO {user};
GRANT SELECT ON connection, variable, slot_pool, alembic_version TO {user};
