-- The database `neuroca_memory`: long-term entries, how they relate, and their tags.
-- `neuroca.entries` (a setting of this session) says how many entries.

SET ROLE neuroca_owner;

CREATE TABLE ltm_entries (
    id bigint PRIMARY KEY,
    content text NOT NULL,
    embedding double precision[] NOT NULL,
    strength real NOT NULL,
    created_at timestamptz NOT NULL
);
INSERT INTO ltm_entries
SELECT n,
       format(E'Entry %s:\t"%s", a\\b', n, md5('entry ' || n)),
       ARRAY[n / 7.0, sqrt(n), -n, 1e-300 * n, n % 11 / 10.0]
           || CASE WHEN n % 100 = 0 THEN ARRAY['NaN', 'Infinity']::double precision[] END,
       n % 64 / 64.0,
       timestamptz '2026-01-05 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, current_setting('neuroca.entries')::bigint) AS n;

CREATE TABLE ltm_relationships (
    source_id bigint NOT NULL REFERENCES ltm_entries,
    target_id bigint NOT NULL REFERENCES ltm_entries,
    kind text NOT NULL,
    weight real NOT NULL,
    PRIMARY KEY (source_id, target_id, kind)
);
INSERT INTO ltm_relationships
SELECT n, 1 + n * 7 % current_setting('neuroca.entries')::bigint, kind, n % 100 / 100.0
FROM generate_series(1, current_setting('neuroca.entries')::bigint) AS n,
     unnest(ARRAY['causes', 'resembles']) AS kind;

CREATE TABLE ltm_tags (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id bigint NOT NULL REFERENCES ltm_entries ON DELETE CASCADE,
    tag text NOT NULL
);
INSERT INTO ltm_tags (entry_id, tag)
SELECT n, 'tag' || (n * t) % 53
FROM generate_series(1, current_setting('neuroca.entries')::bigint) AS n,
     generate_series(1, 3) AS t
ORDER BY n, t;
CREATE INDEX ON ltm_tags (tag);

CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('b83f0c6d1e57');
GRANT SELECT ON ALL TABLES IN SCHEMA public TO neuroca_readonly;
RESET ROLE;
