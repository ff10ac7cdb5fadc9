-- Identifiers are COLLATE "C": they then sort as the program and the stores sort them.
-- Tables do not refer to each other by foreign keys: a stage is recorded before its backup exists,
-- and the history of a backup outlives it.

CREATE TABLE neuroca_backup.backups (
    backup_id      text COLLATE "C" PRIMARY KEY,
    set_id         text COLLATE "C" NOT NULL,
    component      text COLLATE "C" NOT NULL CHECK (component <> ''),
    source         text COLLATE "C" NOT NULL CHECK (source <> ''),
    engine         text        NOT NULL CHECK (engine <> ''),
    kind           text        NOT NULL CHECK (kind IN ('full', 'incremental')),
    parent         text COLLATE "C",
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    expires_at     timestamptz,
    hold           boolean     NOT NULL,
    classification text        NOT NULL,
    product        text        NOT NULL,
    members        integer     NOT NULL CHECK (members >= 0),
    plain_size     bigint      NOT NULL CHECK (plain_size >= 0),
    stored_size    bigint      NOT NULL CHECK (stored_size >= 0),
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (backup_id = set_id || '-' || source)
);
COMMENT ON TABLE neuroca_backup.backups IS
    'One row for each manifest; sizes in bytes, plain as dumped and stored as one store holds it';
CREATE INDEX backups_newest
    ON neuroca_backup.backups (started_at DESC, backup_id DESC);
CREATE INDEX backups_newest_of_source
    ON neuroca_backup.backups (component, source, started_at DESC, backup_id DESC);

CREATE TABLE neuroca_backup.copies (
    backup_id  text COLLATE "C" NOT NULL,
    store      text COLLATE "C" NOT NULL CHECK (store <> ''),
    level      smallint    NOT NULL DEFAULT 0 CHECK (level BETWEEN 0 AND 5),
    checked_at timestamptz,
    findings   jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(findings) = 'array'),
    PRIMARY KEY (backup_id, store),
    CHECK (checked_at IS NOT NULL OR (level = 0 AND findings = '[]'))
);
COMMENT ON TABLE neuroca_backup.copies IS
    'Which store holds which backup, and its newest verification there; level 0 none, 1 present, '
    '2 intact, 3 readable, 4 parsed, 5 restored; any finding means damaged, whatever the level';

CREATE TABLE neuroca_backup.stages (
    backup_id   text COLLATE "C" NOT NULL,
    stage       text             NOT NULL CHECK (stage <> ''),
    seconds     double precision NOT NULL CHECK (seconds >= 0),
    size        bigint           NOT NULL CHECK (size >= 0),
    recorded_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (backup_id, stage)
);
COMMENT ON TABLE neuroca_backup.stages IS
    'How long each stage of a backup took and how many bytes it handled; the last try counts';

CREATE TABLE neuroca_backup.verifications (
    backup_id   text COLLATE "C" NOT NULL,
    store       text COLLATE "C" NOT NULL CHECK (store <> ''),
    checked_at  timestamptz      NOT NULL,
    level       smallint         NOT NULL CHECK (level BETWEEN 0 AND 5),
    findings    jsonb            NOT NULL CHECK (jsonb_typeof(findings) = 'array'),
    seconds     double precision NOT NULL CHECK (seconds >= 0),
    bytes_read  bigint           NOT NULL CHECK (bytes_read >= 0),
    recorded_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (backup_id, store, checked_at)
);
COMMENT ON TABLE neuroca_backup.verifications IS
    'Every check of every copy, also of backups that are no longer held';
CREATE INDEX verifications_newest ON neuroca_backup.verifications (checked_at DESC);

CREATE TABLE neuroca_backup.restores (
    restore_id     text COLLATE "C" PRIMARY KEY CHECK (restore_id <> ''),
    backup_id      text COLLATE "C" NOT NULL,
    store          text        NOT NULL,
    target         text        NOT NULL,
    actor          text        NOT NULL,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    seconds        jsonb       NOT NULL CHECK (jsonb_typeof(seconds) = 'object'),
    bytes_restored bigint      NOT NULL CHECK (bytes_restored >= 0),
    outcome        text        NOT NULL,
    notes          jsonb       NOT NULL CHECK (jsonb_typeof(notes) = 'array'),
    recorded_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE neuroca_backup.restores IS
    'Every restore, whatever its outcome; seconds by step, notes as an array of sentences';
CREATE INDEX restores_newest ON neuroca_backup.restores (started_at DESC, restore_id DESC);
CREATE INDEX restores_of_backup ON neuroca_backup.restores (backup_id, started_at DESC);

CREATE TABLE neuroca_backup.events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    actor       text        NOT NULL,
    action      text        NOT NULL CHECK (action <> ''),
    subject     text        NOT NULL,
    details     jsonb       NOT NULL CHECK (jsonb_typeof(details) = 'object'),
    sha256      text        NOT NULL UNIQUE CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE neuroca_backup.events IS
    'Audit trail: who did what to which backup, when. Rows can be added, never changed or removed';
COMMENT ON COLUMN neuroca_backup.events.sha256 IS
    'Of the event as canonical JSON: an event that is recorded twice is one event';
CREATE INDEX events_newest ON neuroca_backup.events (at DESC, id DESC);
CREATE INDEX events_of_subject ON neuroca_backup.events (subject, at DESC);

CREATE FUNCTION neuroca_backup.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of the audit trail is refused: it can only be added to', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER events_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON neuroca_backup.events
    FOR EACH STATEMENT EXECUTE FUNCTION neuroca_backup.refuse_change();
-- Also for sessions that switch ordinary triggers off (session_replication_role = replica).
ALTER TABLE neuroca_backup.events ENABLE ALWAYS TRIGGER events_are_append_only;
