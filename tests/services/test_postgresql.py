"""PostgreSQL end to end: what is dumped from one real server is what a second one gets back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from neuroca_backup import postgres_facts as facts
from neuroca_backup.engines.postgresql import dump
from neuroca_backup.errors import ConfigurationError, NotFoundError, TargetRefusedError
from support.wiring import (
    BOTH,
    Restored,
    add_rows,
    ask,
    back_up,
    count_rows,
    create_database,
    databases,
    drop_databases,
    local_places,
    plan_of,
    region_places,
    restore,
    scratch_database,
    session,
    wire,
)

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.runtime import Runtime

WEIRD = ".Weird näme/with \"quotes\" and 'ticks' = % \\ 100"

# Of everything that a database can hold, one thing each.
CONTENT = [
    "CREATE EXTENSION pg_trgm",
    "CREATE EXTENSION hstore WITH SCHEMA public",
    "CREATE SCHEMA memory AUTHORIZATION {owner}",
    "CREATE TYPE memory.tier AS ENUM ('working', 'episodic', 'semantic')",
    "CREATE DOMAIN memory.score AS numeric CHECK (VALUE BETWEEN 0 AND 1)",
    "CREATE TABLE memory.items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    " content text NOT NULL, tier memory.tier DEFAULT 'working', score memory.score DEFAULT 0.5,"
    " embedding real[], tags hstore, document jsonb, payload bytea,"
    " shouted text GENERATED ALWAYS AS (upper(content)) STORED,"
    " made_at timestamptz DEFAULT now(), span tstzrange, vec int2vector, seen inet)",
    "CREATE INDEX ON memory.items USING gin (content gin_trgm_ops)",
    "INSERT INTO memory.items (content, embedding, tags, document, payload, span, vec, seen)"
    " SELECT E'line\\n\\t\\\\' || n, ARRAY[n, 0.1, 'NaN']::real[], hstore('n', n::text),"
    " jsonb_build_object('n', n), decode(md5(n::text), 'hex'),"
    " tstzrange(now(), now() + n * interval '1 day'), '1 2 3', '10.0.0.1/8'"
    " FROM generate_series(1, 200) AS n",
    "CREATE TABLE memory.empty (id int)",
    "CREATE TABLE memory.no_columns ()",
    "INSERT INTO memory.no_columns DEFAULT VALUES",
    "CREATE UNLOGGED TABLE memory.unlogged AS SELECT n FROM generate_series(1, 7) AS n",
    "CREATE TABLE memory.events (at date NOT NULL, what text) PARTITION BY RANGE (at)",
    "CREATE TABLE memory.events_2025 PARTITION OF memory.events"
    " FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE memory.events_rest PARTITION OF memory.events DEFAULT",
    "INSERT INTO memory.events SELECT date '2025-12-30' + n, n FROM generate_series(0, 4) AS n",
    "CREATE SEQUENCE memory.tickets START 1000",
    "SELECT nextval('memory.tickets') FROM generate_series(1, 5)",
    "CREATE VIEW memory.recent AS SELECT id, content FROM memory.items WHERE id > 190",
    "CREATE MATERIALIZED VIEW memory.summary AS SELECT count(*) AS items FROM memory.items",
    "CREATE MATERIALIZED VIEW memory.unfilled AS SELECT 1 AS one WITH NO DATA",
    "CREATE FUNCTION memory.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'",
    "CREATE FUNCTION memory.touch() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN NEW.made_at := now(); RETURN NEW; END'",
    "CREATE TRIGGER touched BEFORE UPDATE ON memory.items"
    " FOR EACH ROW EXECUTE FUNCTION memory.touch()",
    "ALTER TABLE memory.events ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY only_2025 ON memory.events USING (at < '2026-01-01')",
    "CREATE SCHEMA {weird}",
    "CREATE TABLE {weird}.{weird} ({weird} text)",
    "INSERT INTO {weird}.{weird} VALUES ('kept')",
    'CREATE SCHEMA "a.b"',
    'CREATE SCHEMA "a"',
    'CREATE TABLE "a.b"."c" AS SELECT 1 AS one',
    'CREATE TABLE "a"."b.c" AS SELECT generate_series(1, 2) AS two',
    'CREATE TABLE "a"."line\nbreak" AS SELECT 3 AS three',
    "SELECT lo_from_bytea(0, decode('00ff00ff', 'hex'))",
    "SELECT lo_from_bytea(0, convert_to('large object', 'UTF8'))",
    "GRANT USAGE ON SCHEMA memory TO {reader}",
    "GRANT SELECT ON memory.items TO {reader} WITH GRANT OPTION",
    "ALTER TABLE memory.items OWNER TO {owner}",
    "COMMENT ON TABLE memory.items IS 'what NCA remembers'",
    "REFRESH MATERIALIZED VIEW memory.summary",
    # What a materialised view shows may be older than its tables; a restore computes it anew.
    "INSERT INTO memory.unlogged VALUES (8)",
    "CREATE MATERIALIZED VIEW memory.stale AS SELECT count(*) AS n FROM memory.unlogged",
    "INSERT INTO memory.unlogged VALUES (9)",
]


@dataclass(frozen=True)
class Shape:
    """What was backed up, with its names, and what came of the restore."""

    source: Endpoint
    twin: Endpoint
    database: str
    bare: str
    owner: str
    reader: str
    login: str
    restored: Restored
    left: list[str]


def _within_63_bytes(name: str) -> str:
    return name.encode()[:63].decode(errors="ignore")


@pytest.fixture(scope="module", params=BOTH)
def shape(
    request: pytest.FixtureRequest,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    object_stores: dict[str, Endpoint],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shape]:
    mode = request.param
    mark = f"shape {mode}"
    names = {
        word: _within_63_bytes(f"{mark} {word} {WEIRD}") for word in ("owner", "reader", "login")
    }
    database, bare = f"{WEIRD} {mark}", f"{mark} without tables"
    words = {word: sql.Identifier(name) for word, name in names.items()}
    words["weird"] = sql.Identifier(WEIRD)
    words["database"] = sql.Identifier(database)

    def run(endpoint: Endpoint, *statements: str) -> None:
        with session(endpoint) as opened:
            for statement in statements:
                opened.execute(sql.SQL(statement).format(**words))  # type: ignore[arg-type]

    run(
        postgres,
        "CREATE ROLE {owner} NOLOGIN",
        "CREATE ROLE {reader} NOLOGIN",
        "CREATE ROLE {login} LOGIN PASSWORD 'correct horse' CONNECTION LIMIT 7",
        "COMMENT ON ROLE {login} IS 'signs\nin'",
        "GRANT {reader} TO {login}",
        "GRANT {owner} TO {login} WITH ADMIN OPTION",
        "ALTER ROLE {login} SET work_mem = '12MB'",
        "SET allow_in_place_tablespaces = on",
    )
    with session(postgres) as opened:
        opened.execute("SET allow_in_place_tablespaces = on")
        opened.execute(
            sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(f"{mark} disk"))
        )
        opened.execute(
            sql.SQL("GRANT CREATE ON TABLESPACE {} TO {}").format(
                sql.Identifier(f"{mark} disk"), words["reader"]
            )
        )
    seeded = create_database(
        postgres, database, "TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
    )
    create_database(postgres, bare)
    run(seeded, *CONTENT)
    run(
        postgres,
        "ALTER DATABASE {database} OWNER TO {owner}",
        "ALTER DATABASE {database} SET work_mem = '9MB'",
        "ALTER DATABASE {database} SET search_path = memory, public",
        "ALTER ROLE {login} IN DATABASE {database} SET statement_timeout = '77s'",
        "ALTER DATABASE {database} CONNECTION LIMIT 42",
        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT, CREATE ON DATABASE {database} TO {login}",
        "COMMENT ON DATABASE {database} IS 'it''s the\nmemory'",
    )
    spool = tmp_path_factory.mktemp("spool", numbered=True)
    runtime = wire(
        region_places(object_stores),
        postgres=postgres,
        spool=spool,
        mode=mode,
        options={"databases": [database, bare]},
        catalog=create_database(postgres, f"{mark} catalog"),
    )
    runtime.catalog.prepare()
    try:
        back_up(runtime)
        run(
            seeded,
            "INSERT INTO memory.items (content) SELECT 'later' FROM generate_series(1, 100)",
        )
        restored = restore(runtime, postgres_twin)
        yield Shape(
            source=postgres,
            twin=postgres_twin,
            database=database,
            bare=bare,
            restored=restored,
            left=[path.name for path in spool.iterdir()],
            **names,
        )
    finally:
        for server in (postgres, postgres_twin):
            drop_databases(server, like=mark)
            with session(server) as opened:
                opened.execute(
                    sql.SQL("DROP TABLESPACE IF EXISTS {}").format(sql.Identifier(f"{mark} disk"))
                )
                for role in (names["login"], names["reader"], names["owner"]):
                    opened.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def twin(shape: Shape, question: str, *values: Any) -> Any:
    return ask(shape.twin, shape.database, question, *values)


def test_a_restore_gives_the_rows_of_the_backup_and_none_that_came_later(shape: Shape) -> None:
    assert ask(shape.source, shape.database, "SELECT count(*) FROM memory.items") == 300
    assert twin(shape, "SELECT count(*) FROM memory.items") == 200


@pytest.mark.parametrize(
    "question",
    [
        "SELECT string_agg(i::text, '|' ORDER BY id) FROM memory.items AS i WHERE id <= 200",
        "SELECT string_agg(e::text, '|' ORDER BY at) FROM memory.events AS e",
        "SELECT string_agg(c.relname || c.relkind::text || c.relpersistence::text, '|'"
        " ORDER BY c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE nspname = 'memory'",
        "SELECT count(*) FROM memory.empty",
        "SELECT count(*) FROM memory.no_columns",
        "SELECT count(*) FROM memory.unlogged",
        "SELECT last_value FROM memory.tickets",
        "SELECT string_agg(r::text, '|') FROM memory.recent AS r WHERE id <= 200",
        "SELECT items FROM memory.summary",
        "SELECT memory.twice(21)",
        "SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum",
        "SELECT string_agg(extname, ',' ORDER BY extname) FROM pg_extension",
        "SELECT string_agg(encode(lo_get(oid), 'hex'), ',' ORDER BY oid)"
        " FROM pg_largeobject_metadata",
        'SELECT one::text FROM "a.b".c',
        'SELECT count(*) FROM a."b.c"',
        'SELECT three FROM a."line\nbreak"',
        "SELECT obj_description('memory.items'::regclass)",
        "SELECT string_agg(relacl::text, ',') FROM pg_class WHERE oid = 'memory.items'::regclass",
        "SELECT polname FROM pg_policy",
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'memory.items'::regclass",
        # of the database as a whole
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()",
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
        " WHERE datname = current_database()",
        "SELECT datconnlimit FROM pg_database WHERE datname = current_database()",
        "SELECT datlocprovider::text || datlocale FROM pg_database"
        " WHERE datname = current_database()",
        "SELECT string_agg(coalesce(r.rolname, '') || setconfig::text, ',' ORDER BY setconfig)"
        " FROM pg_db_role_setting LEFT JOIN pg_roles AS r ON r.oid = setrole"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "SELECT string_agg(who || ':' || privilege_type, ',' ORDER BY who, privilege_type)"
        " FROM pg_database, aclexplode(datacl), LATERAL (SELECT CASE grantee WHEN 0 THEN 'public'"
        " ELSE pg_get_userbyid(grantee) END AS who) AS named WHERE datname = current_database()",
    ],
)
def test_what_the_source_says_the_restored_twin_says(shape: Shape, question: str) -> None:
    expected = ask(shape.source, shape.database, question)
    assert expected is not None
    assert twin(shape, question) == expected


def test_names_of_every_kind_come_back(shape: Shape) -> None:
    with session(shape.twin, shape.database) as opened:
        name = sql.Identifier(WEIRD)
        found = opened.execute(
            sql.SQL("SELECT {} FROM {}").format(name, sql.Identifier(WEIRD, WEIRD))
        ).fetchall()
    assert found == [("kept",)]


def test_a_database_without_tables_comes_back(shape: Shape) -> None:
    assert shape.bare in databases(shape.twin)


def test_a_role_can_log_in_with_its_old_password(shape: Shape) -> None:
    with session(shape.twin, shape.database, user=shape.login, password="correct horse") as opened:
        assert opened.execute("SHOW statement_timeout").fetchone() == ("77s",)
        assert opened.execute("SHOW search_path").fetchone() == ("memory, public",)


def test_roles_come_back_with_their_memberships_and_settings(shape: Shape) -> None:
    question = (
        "SELECT string_agg(concat_ws(' ', r.rolname, m.admin_option, l.rolconfig::text,"
        " l.rolconnlimit, shobj_description(l.oid, 'pg_authid')), ',' ORDER BY r.rolname)"
        " FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.roleid"
        " JOIN pg_roles AS l ON l.oid = m.member WHERE l.rolname = %s"
    )
    expected = ask(shape.source, shape.database, question, shape.login)
    assert shape.reader in expected
    assert shape.owner in expected
    assert twin(shape, question, shape.login) == expected


def test_a_tablespace_is_named_in_the_report_because_it_is_not_created(shape: Shape) -> None:
    assert any("TABLESPACE" in note and "Not created" in note for note in shape.restored.notes)


def test_the_role_that_works_is_left_as_it_is(shape: Shape) -> None:
    with session(shape.twin) as opened:
        assert opened.execute("SELECT current_user").fetchone() == (shape.twin.user,)


def test_nothing_stays_in_the_spool(shape: Shape) -> None:
    assert shape.left == []


def test_nothing_but_the_restored_databases_is_new_on_the_twin(shape: Shape) -> None:
    assert not [name for name in databases(shape.twin) if name.startswith("restoring_")]


# Everything below needs no bucket: two directories are as good, and faster.


@pytest.fixture
def plain(
    request: pytest.FixtureRequest, postgres: Endpoint, postgres_twin: Endpoint, tmp_path: Path
) -> Iterator[tuple[Endpoint, Endpoint, Runtime]]:
    """A database of 200 rows, a twin to restore to, and a runtime over two directories."""
    name = f"plain_{abs(hash(request.node.name)):x}"
    with scratch_database(postgres, name, also_on=[postgres_twin]) as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            options={"databases": [name]},
        )
        yield source, postgres_twin, runtime


Plain = tuple["Endpoint", "Endpoint", "Runtime"]


def test_a_target_with_data_is_refused_before_anything_is_touched(plain: Plain) -> None:
    source, _, runtime = plain
    back_up(runtime)
    before = databases(source)
    with pytest.raises(TargetRefusedError, match=source.database):
        restore(runtime, source)
    assert databases(source) == before
    assert count_rows(source, source.database) == 200


def test_what_an_in_place_restore_replaces_is_kept_and_the_report_says_where(plain: Plain) -> None:
    source, _, runtime = plain
    back_up(runtime)
    kept_names = []
    for later in (300, 207):
        add_rows(source, later - count_rows(source, source.database))
        restored = restore(runtime, source, replace=True)
        assert count_rows(source, source.database) == 200
        # The report says where, before and after.
        (kept,) = [
            name
            for name in databases(source)
            if name.startswith(source.database[:34]) and "_before_" in name
            if name not in kept_names
        ]
        kept_names.append(kept)
        assert len([note for note in restored.notes if kept in note]) == 2
        assert count_rows(source, kept) == later


def test_clients_that_keep_coming_back_do_not_block_the_swap(plain: Plain) -> None:
    source, _, runtime = plain
    other = create_database(source, f"{source.database} other")
    with session(other) as opened:
        opened.execute("CREATE TABLE one AS SELECT 1 AS n")
    chosen = [source.database, other.database]
    places = local_places(runtime.settings.pipeline.spool.parent)
    runtime = wire(
        places,
        postgres=source,
        spool=runtime.settings.pipeline.spool,
        options={"databases": chosen},
    )
    back_up(runtime)
    done = threading.Event()
    connected = threading.Semaphore(0)

    def come_back(endpoint: Endpoint) -> None:
        while not done.is_set():
            try:
                with session(endpoint) as client:
                    connected.release()
                    client.execute("SELECT pg_sleep(60)")
            except psycopg.Error:
                continue

    clients = [
        threading.Thread(target=come_back, args=(one,)) for one in (source, other) for _ in range(2)
    ]
    for client in clients:
        client.start()
    try:
        for _ in clients:
            assert connected.acquire(timeout=30)
        restore(runtime, source, replace=True)
        assert count_rows(source, source.database) == 200
    finally:
        done.set()
        with session(source, "postgres") as opened:
            while any(client.is_alive() for client in clients):
                opened.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = ANY(%s)",
                    [chosen],
                )
                for client in clients:
                    client.join(0.05)


def test_facts_equal_the_dump_while_rows_are_written(plain: Plain) -> None:
    source, twin_server, runtime = plain
    done, written = threading.Event(), threading.Semaphore(0)

    def write() -> None:
        with session(source) as opened:
            while not done.is_set():
                opened.execute("INSERT INTO memory.items (content) VALUES ('meanwhile')")
                opened.execute("DELETE FROM memory.items WHERE id % 7 = 0")
                opened.execute("UPDATE memory.items SET content = content || '.' WHERE id % 5 = 0")
                written.release()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.acquire(timeout=30)
        refs = [back_up(runtime) for _ in range(2)]  # PARSED counts every row of the dump
    finally:
        done.set()
        writer.join()
    restored = restore(runtime, twin_server, ref=refs[0])  # compares the rows' checksums
    manifest = runtime.verifier.verify(refs[0])
    assert manifest["secondary"].sound
    rows = count_rows(twin_server, source.database)
    assert rows != count_rows(source, source.database)
    assert restored.fetched.size > 0


def test_all_databases_are_backed_up_but_not_an_unused_maintenance_one(
    plain: Plain, postgres: Endpoint
) -> None:
    source, _, runtime = plain
    everything = wire(
        local_places(runtime.settings.pipeline.spool.parent),
        postgres=postgres,
        spool=runtime.settings.pipeline.spool,
    )
    with scratch_database(postgres, f"{source.database}_second"):
        ref = back_up(everything)
    plan = plan_of(everything, ref)
    fetched = everything.restores.fetch(plan)
    place = everything.settings.pipeline.spool / plan.restore_id / fetched.place
    found = {path.name for path in (place / "files" / ref.backup_id / "databases").iterdir()}
    assert {source.database, f"{source.database}_second"} <= found
    assert "postgres" not in found
    everything.restores.clear(plan.restore_id)


def test_an_unknown_database_is_told_with_those_that_exist(plain: Plain) -> None:
    source, _, runtime = plain
    wrong = wire(
        local_places(runtime.settings.pipeline.spool.parent),
        postgres=source,
        spool=runtime.settings.pipeline.spool,
        options={"databases": [source.database, "neuroka"]},
    )
    with pytest.raises(NotFoundError, match=r"no database neuroka; it has .*plain_"):
        back_up(wrong)
    assert not list(runtime.stores["primary"].list("database")), "only the audit trail tells of it"


def test_what_an_interrupted_restore_left_half_loaded_is_not_dumped(
    fresh_database: Endpoint,
) -> None:
    half_loaded = "restoring_0123456789ab"
    with session(fresh_database) as connection:
        connection.execute(f"CREATE DATABASE {half_loaded}")
        try:
            found = dump._databases(fresh_database, "all")
        finally:
            connection.execute(f"DROP DATABASE {half_loaded}")
    assert fresh_database.database in found
    assert half_loaded not in found


@pytest.mark.parametrize("databases", ["neuroca", "everything"])
def test_a_databases_option_that_is_one_word_is_refused(plain: Plain, databases: str) -> None:
    _, _, runtime = plain
    with pytest.raises(ConfigurationError, match="Write `all`, or a list"):
        back_up(
            wire(
                local_places(runtime.settings.pipeline.spool.parent),
                postgres=plain[0],
                spool=runtime.settings.pipeline.spool,
                options={"databases": databases},
            )
        )


@pytest.mark.parametrize(
    ("schema", "table"),
    [("memory", "items"), ("a.b", "c"), ("a", "b.c"), ('"', '".".'), ("", " "), ("ü", "\n")],
)
def test_the_key_of_a_table_names_its_schema_and_itself(schema: str, table: str) -> None:
    assert facts.names_in(facts.table_key(schema, table)) == (schema, table)
