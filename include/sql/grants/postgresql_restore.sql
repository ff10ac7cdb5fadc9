-- A restore makes databases, roles and extensions and gives everything its owner: a superuser's
-- work. So this user cannot log in until a restore begins, and never again after it ended:
--   ALTER ROLE {user} LOGIN;      \password {user}      (restore)      ALTER ROLE {user} NOLOGIN;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{user}') THEN
        CREATE ROLE {user};
    END IF;
END
$$;
ALTER ROLE {user} SUPERUSER NOLOGIN;
