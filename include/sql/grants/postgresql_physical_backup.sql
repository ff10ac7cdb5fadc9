-- Copies of the whole server need the right to replicate, and end with a mark in its log (WAL),
-- which a transaction that may only read cannot write. Nothing else may be written.
-- pg_hba.conf has to let this user in: host replication {user} ADDRESS scram-sha-256
ALTER ROLE {user} REPLICATION;
ALTER ROLE {user} RESET default_transaction_read_only;
