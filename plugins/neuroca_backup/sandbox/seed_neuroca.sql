-- The database `neuroca`: users, sessions and memory items, with one of everything that a backup
-- can forget. `neuroca.items` (a setting of this session) says how many items. Every value is
-- computed from the row's number, so the same number of items always gives the same content.

CREATE EXTENSION pg_trgm;
CREATE SCHEMA memory AUTHORIZATION neuroca_owner;
GRANT USAGE ON SCHEMA memory TO neuroca_readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE neuroca_owner IN SCHEMA memory
    GRANT SELECT ON TABLES TO neuroca_readonly;
SET ROLE neuroca_owner;

CREATE TABLE memory.alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO memory.alembic_version VALUES ('7c1d5e9a42b0');

CREATE TYPE memory.tier AS ENUM ('working', 'episodic', 'semantic');

CREATE TABLE memory.users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE,
    display_name text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);
INSERT INTO memory.users
SELECT md5('user ' || n)::uuid,
       format('user%s@example.org', n),
       format('Učo Müller-%s 🧠', n),
       jsonb_build_object('locale', (ARRAY['en', 'de', 'ja'])[1 + n % 3], 'quota_mb', 64 + n % 7),
       timestamptz '2026-01-01 00:00:00+00' + n * interval '7 minutes'
FROM generate_series(1, greatest(1, current_setting('neuroca.items')::int / 100)) AS n;

CREATE TABLE memory.sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES memory.users ON DELETE CASCADE,
    client inet,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK (ended_at IS NULL OR ended_at >= started_at)
);
INSERT INTO memory.sessions
SELECT md5('session ' || n)::uuid,
       md5('user ' || 1 + n % greatest(1, current_setting('neuroca.items')::int / 100))::uuid,
       inet '10.0.0.0' + n,
       timestamptz '2026-01-02 00:00:00+00' + n * interval '90 seconds',
       CASE WHEN n % 10 > 0
            THEN timestamptz '2026-01-02 00:20:00+00' + n * interval '90 seconds' END
FROM generate_series(1, greatest(1, current_setting('neuroca.items')::int / 20)) AS n;
CREATE INDEX ON memory.sessions (user_id);

-- Sentences and embeddings are drawn from pools: making each one anew would take minutes.
CREATE TEMP TABLE sentences AS
SELECT n AS number, (
    SELECT string_agg(words[1 + ('x' || substr(md5(n || ' ' || w), 1, 7))::bit(28)::int % 40], ' ')
    FROM generate_series(1, 9) AS w
) AS text
FROM generate_series(0, 1999) AS n,
     (SELECT string_to_array(
         'memory recall agent context episode signal decay reward plan attention tool answer '
         'question belief goal trace neuron cortex pattern link evidence summary weight sleep '
         'focus emotion language vision token graph edge anchor dream habit skill error '
         'surprise novelty reason quiet', ' ') AS words) AS vocabulary;
CREATE UNIQUE INDEX ON sentences (number);
CREATE TEMP TABLE embeddings AS
SELECT n AS number, (
    SELECT array_agg((('x' || substr(md5(n || '/' || d), 1, 6))::bit(24)::int / 8388608.0 - 1)::real
                     ORDER BY d)
    FROM generate_series(1, 64) AS d
) AS vector
FROM generate_series(0, 2002) AS n;
CREATE UNIQUE INDEX ON embeddings (number);
ANALYZE sentences, embeddings;

CREATE TABLE memory.memory_items (
    id uuid NOT NULL,
    session_id uuid,
    tier memory.tier NOT NULL,
    content jsonb NOT NULL,
    embedding real[] NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    search tsvector NOT NULL,
    importance numeric(4, 3) NOT NULL CHECK (importance BETWEEN 0 AND 1),
    created_at timestamptz NOT NULL,
    last_accessed timestamptz,
    expires_at timestamptz
);
INSERT INTO memory.memory_items
SELECT md5('item ' || n)::uuid,
       CASE WHEN n % 25 > 0 THEN
           md5('session ' || 1 + n % greatest(1, current_setting('neuroca.items')::int / 20))::uuid
       END,
       (ARRAY['working', 'episodic', 'semantic'])[1 + n % 3]::memory.tier,
       jsonb_build_object('id', n, 'text', first.text || '. ' || second.text, 'role',
                          (ARRAY['user', 'agent', 'tool', 'system'])[1 + n % 4]),
       vector,
       jsonb_build_object('tags', jsonb_build_array('tag' || n % 97, 'topic' || n % 31),
                          'source', md5('source ' || n), 'version', 1 + n % 5),
       to_tsvector('simple', first.text),
       n % 1000 / 1000.0,
       timestamptz '2026-01-03 00:00:00+00' + n * interval '11 seconds',
       CASE WHEN n % 7 > 0
            THEN timestamptz '2026-02-03 00:00:00+00' + n * interval '13 seconds' END,
       CASE WHEN n % 3 = 0
            THEN timestamptz '2099-01-01 00:00:00+00' + n * interval '1 second' END
FROM generate_series(1, current_setting('neuroca.items')::int) AS n
JOIN sentences AS first ON first.number = n % 2000
JOIN sentences AS second ON second.number = n % 1999
JOIN embeddings ON embeddings.number = n % 2003;

ALTER TABLE memory.memory_items ADD PRIMARY KEY (id);
ALTER TABLE memory.memory_items
    ADD FOREIGN KEY (session_id) REFERENCES memory.sessions ON DELETE SET NULL;
CREATE INDEX memory_items_search ON memory.memory_items USING gin (search);
CREATE INDEX memory_items_metadata ON memory.memory_items USING gin (metadata jsonb_path_ops);
CREATE INDEX memory_items_working ON memory.memory_items (created_at) WHERE tier = 'working';

CREATE SEQUENCE memory.audit_number START 1000 INCREMENT 5;
SELECT setval('memory.audit_number', 41005);

CREATE VIEW memory.recent_items AS
SELECT id, tier, content ->> 'text' AS text, created_at
FROM memory.memory_items WHERE importance >= 0.9;

CREATE FUNCTION memory.items_of(wanted memory.tier) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT count(*) FROM memory.memory_items WHERE tier = wanted);

COMMENT ON TABLE memory.memory_items IS 'One memory of one tier.';
GRANT SELECT ON ALL TABLES IN SCHEMA memory TO neuroca_readonly;

SELECT lo_from_bytea(424242, decode(repeat(md5('large object'), 4096), 'hex'));
GRANT SELECT ON LARGE OBJECT 424242 TO neuroca_readonly;
RESET ROLE;
