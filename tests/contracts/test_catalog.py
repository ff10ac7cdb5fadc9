"""One contract for every catalog, and what only the one in PostgreSQL must keep."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql as statements

from neuroca_backup import sql
from neuroca_backup.catalog import AuditEvent, Catalog, CatalogEntry, RestoreRecord
from neuroca_backup.catalog import postgres as postgres_catalog
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.catalog.null import NullCatalog
from neuroca_backup.catalog.postgres import PostgresCatalog
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    PermanentError,
    UnreachableError,
)
from neuroca_backup.model import document
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.postgres_session import connect
from neuroca_backup.sandbox.postgres import installed_programs
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.stores.local import LocalStore
from support.moments import MOMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.stores import Store

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DIGEST = "ab" * 32
PRIMARY, SECONDARY = "primary", "secondary"


def manifest(source: str = "postgres", *, at: datetime = NOON, **changes: Any) -> Manifest:
    set_id = f"{at:%Y%m%dT%H%M%SZ}-1f0c9a3e"
    fields: dict[str, Any] = {
        "backup_id": f"{set_id}-{source}",
        "set_id": set_id,
        "component": Component.DATABASE,
        "source": source,
        "engine": "postgresql",
        "attempt": "0badcafe",
        "stages": ("compression", "sealing"),
        "dump": Dump(server_version="18.0", consistency=MOMENT, facts={"tables": 3}),
        "members": (
            Member(
                name="globals.sql",
                plain=Digest(size=1000, sha256=DIGEST),
                stored=Digest(size=400, sha256=DIGEST),
            ),
            Member(
                name="dump/toc.dat",
                plain=Digest(size=6 * 2**40, sha256=DIGEST),
                stored=Digest(size=2**40, sha256=DIGEST),
            ),
        ),
        "started_at": at,
        "finished_at": at + 3 * MINUTE,
        "expires_at": at + timedelta(days=30),
        "product": "neuroca-backup 0.1.0",
    }
    return Manifest.model_validate(fields | changes)


def verification(
    level: Level, *, at: datetime = NOON, store: str = PRIMARY, findings: tuple[Finding, ...] = ()
) -> Verification:
    return Verification(
        backup_id=manifest().backup_id,
        store=store,
        level=level,
        findings=findings,
        checked_at=at,
        seconds=1.5,
        bytes_read=2**40,
    )


def restore(restore_id: str = "r-1", *, at: datetime = NOON, **changes: Any) -> RestoreRecord:
    fields: dict[str, Any] = {
        "restore_id": restore_id,
        "backup_id": manifest().backup_id,
        "store": SECONDARY,
        "target": "sandbox",
        "actor": "on-call",
        "started_at": at,
        "finished_at": at + MINUTE,
        "seconds": {"fetch": 12.25, "load": 40.0},
        "bytes_restored": 2**41,
        "outcome": "restored",
        "notes": ("primary was damaged: 'toc.dat'", "größer"),
    }
    return RestoreRecord.model_validate(fields | changes)


def event(action: str = "restore.approved", *, at: datetime = NOON, **details: Any) -> AuditEvent:
    return AuditEvent(
        at=at, actor="on-call", action=action, subject=manifest().backup_id, details=details
    )


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A real server of this module's own; its superuser's address."""
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="catalog-", dir="/tmp"))
    if account:
        shutil.chown(folder, account["user"], account["group"])
    password = secrets.token_hex(16)
    (folder / "password").write_text(password)
    programs, data = installed_programs(), folder / "data"
    arguments = [*("-D", data, "-U", "admin", "--pwfile", folder / "password")]
    subprocess.run(
        [programs / "initdb", *arguments, "--auth=scram-sha-256", "--no-sync", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        **account,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_directories=",
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), *settings],
            stderr=log,
            cwd=folder,
            **account,
        )
    endpoint = Endpoint(
        kind="postgres",
        host="127.0.0.1",
        port=port,
        user="admin",
        password=password,
        database="postgres",
        extra={"sslmode": "disable"},
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            with connect(endpoint):
                break
        except UnreachableError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield endpoint
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres: Endpoint) -> Iterator[Endpoint]:
    """The address of a database that does not exist yet; it is dropped afterwards."""
    endpoint = replace(postgres, database=f"catalog_{secrets.token_hex(6)}")
    yield endpoint
    drop = statements.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    with connect(postgres, database="postgres", autocommit=True) as connection:
        connection.execute(drop.format(statements.Identifier(endpoint.database)))


@pytest.fixture
def prepared(database: Endpoint) -> PostgresCatalog:
    catalog = PostgresCatalog(database)
    catalog.prepare()
    return catalog


@pytest.fixture(params=["memory", "postgres"])
def catalog(request: pytest.FixtureRequest) -> Catalog:
    if request.param == "memory":
        return MemoryCatalog()
    prepared: PostgresCatalog = request.getfixturevalue("prepared")
    return prepared


def only(catalog: Catalog) -> CatalogEntry:
    (entry,) = catalog.backups()
    return entry


def contents(catalog: Catalog) -> tuple[Any, ...]:
    return (list(catalog.backups()), list(catalog.restores()), list(catalog.events()))


# The contract


def test_an_expired_backup_is_marked_and_can_be_taken_back(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    backup_id = manifest().backup_id
    assert [one.expired_at for one in catalog.backups()] == [None]
    catalog.record_expiry(backup_id, NOON)
    catalog.record_expiry(backup_id, NOON + MINUTE)
    catalog.record_expiry("20261123T120000Z-1f0c9a3e-unknown", NOON)
    catalog.record_backup(manifest(), store=SECONDARY)
    assert [one.expired_at for one in catalog.backups()] == [NOON + MINUTE]
    catalog.record_expiry(backup_id, None)
    assert [one.expired_at for one in catalog.backups()] == [None]
    catalog.record_expiry(backup_id, NOON)
    catalog.forget_backup(backup_id)
    catalog.record_backup(manifest(), store=PRIMARY)
    assert [one.expired_at for one in catalog.backups()] == [None]


def test_a_new_catalog_is_empty(catalog: Catalog) -> None:
    assert contents(catalog) == ([], [], [])


def test_a_recorded_backup_is_listed_with_the_facts_of_its_manifest(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    assert only(catalog) == CatalogEntry(
        backup_id="20261123T120000Z-1f0c9a3e-postgres",
        set_id="20261123T120000Z-1f0c9a3e",
        component=Component.DATABASE,
        source="postgres",
        engine="postgresql",
        kind="full",
        started_at=NOON,
        finished_at=NOON + 3 * MINUTE,
        expires_at=NOON + timedelta(days=30),
        plain_size=6 * 2**40 + 1000,
        stored_size=2**40 + 400,
        members=2,
        levels={PRIMARY: Level.NONE},
    )


def test_every_kind_of_record_written_twice_is_one_record(catalog: Catalog) -> None:
    def write() -> None:
        catalog.prepare()
        catalog.record_backup(manifest(), store=PRIMARY)
        catalog.record_backup(manifest(), store=SECONDARY)
        catalog.record_stage(manifest().backup_id, "dump", seconds=1.0, size=10)
        catalog.record_verification(verification(Level.PARSED))
        catalog.record_restore(restore())
        catalog.record_event(event(tier="hot", retries=2))

    write()
    once = contents(catalog)
    write()
    assert contents(catalog) == once
    assert [len(records) for records in once] == [1, 1, 1]


def test_the_same_instant_in_another_time_zone_is_the_same_event(catalog: Catalog) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    catalog.record_event(event())
    catalog.record_event(event(at=elsewhere))
    assert list(catalog.events()) == [event()]


def test_a_copy_that_was_never_read_back_has_no_level(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_backup(manifest(), store=SECONDARY)
    catalog.record_verification(verification(Level.READABLE, store=SECONDARY))
    assert only(catalog).levels == {PRIMARY: Level.NONE, SECONDARY: Level.READABLE}


def test_the_newest_verification_is_the_level_in_whatever_order_they_arrive(
    catalog: Catalog,
) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_verification(verification(Level.PARSED, at=NOON + MINUTE))
    catalog.record_verification(verification(Level.RESTORED, at=NOON))
    assert only(catalog).levels == {PRIMARY: Level.PARSED}
    catalog.record_verification(verification(Level.INTACT, at=NOON + 2 * MINUTE))
    assert only(catalog).levels == {PRIMARY: Level.INTACT}
    catalog.record_verification(verification(Level.PARSED, at=NOON + MINUTE))
    assert only(catalog).levels == {PRIMARY: Level.INTACT}


def test_an_older_finding_does_not_damage_a_copy_that_was_sound_later(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_verification(verification(Level.PARSED, at=NOON + MINUTE))
    damage = Finding(key="a/b", problem="wrong digest")
    catalog.record_verification(verification(Level.PRESENT, at=NOON, findings=(damage,)))
    assert only(catalog).levels == {PRIMARY: Level.PARSED}


def test_a_copy_with_a_finding_counts_as_unproven_whatever_level_it_claims(
    catalog: Catalog,
) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    damage = Finding(key="a/b", problem="wrong digest")
    catalog.record_verification(verification(Level.PARSED, findings=(damage,)))
    assert only(catalog).levels == {PRIMARY: Level.NONE}


def test_a_verification_may_arrive_before_its_backup(catalog: Catalog) -> None:
    catalog.record_verification(verification(Level.INTACT))
    assert list(catalog.backups()) == []
    catalog.record_backup(manifest(), store=PRIMARY)
    assert only(catalog).levels == {PRIMARY: Level.INTACT}


def test_a_rewritten_manifest_changes_the_entry_and_keeps_its_levels(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_verification(verification(Level.PARSED))
    catalog.record_backup(manifest(expires_at=None, hold=True), store=PRIMARY)
    assert only(catalog).expires_at is None
    assert only(catalog).levels == {PRIMARY: Level.PARSED}


def test_a_forgotten_backup_leaves_its_history_and_no_level(catalog: Catalog) -> None:
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_verification(verification(Level.PARSED))
    catalog.record_restore(restore())
    catalog.record_event(event())
    catalog.forget_backup(manifest().backup_id)
    catalog.forget_backup(manifest().backup_id)
    assert contents(catalog) == ([], [restore()], [event()])
    catalog.record_backup(manifest(), store=SECONDARY)
    assert only(catalog).levels == {SECONDARY: Level.NONE}


def test_forgetting_one_backup_leaves_the_others(catalog: Catalog) -> None:
    catalog.record_backup(manifest("postgres"), store=PRIMARY)
    catalog.record_backup(manifest("postgres2"), store=PRIMARY)
    catalog.forget_backup(manifest("postgres").backup_id)
    assert only(catalog).source == "postgres2"
    assert only(catalog).levels == {PRIMARY: Level.NONE}


def test_backups_are_listed_newest_first_filtered_and_limited(catalog: Catalog) -> None:
    redis = manifest("redis", at=NOON + MINUTE)
    working = manifest("redis", at=NOON + 2 * MINUTE, component=Component.MEMORY_TIERS)
    later = manifest("postgres", at=NOON + 3 * MINUTE)
    for each in (redis, later, manifest(), working):
        catalog.record_backup(each, store=PRIMARY)

    def listed(**filters: Any) -> list[str]:
        return [entry.backup_id for entry in catalog.backups(**filters)]

    ids = [later.backup_id, working.backup_id, redis.backup_id, manifest().backup_id]
    assert listed() == ids
    assert listed(limit=2) == ids[:2]
    assert listed(limit=0) == []
    assert listed(source="redis") == [working.backup_id, redis.backup_id]
    assert listed(component=Component.DATABASE, source="redis") == [redis.backup_id]
    assert listed(component=Component.LOGS) == []


def test_backups_of_one_instant_are_ordered_by_id_as_the_stores_order_them(
    catalog: Catalog,
) -> None:
    names = ("a_b", "ab", "a0", "a")
    for name in names:
        catalog.record_backup(manifest(name), store=PRIMARY)
    assert [entry.source for entry in catalog.backups()] == ["ab", "a_b", "a0", "a"]


def test_restores_come_back_whole_and_newest_first(catalog: Catalog) -> None:
    older = restore("r-2", at=NOON - MINUTE, notes=(), seconds={}, outcome="failed")
    catalog.record_restore(restore())
    catalog.record_restore(older)
    assert list(catalog.restores()) == [restore(), older]
    assert list(catalog.restores(limit=1)) == [restore()]


def test_a_resumed_restore_replaces_what_was_noted_of_it(catalog: Catalog) -> None:
    catalog.record_restore(restore(outcome="failed"))
    catalog.record_restore(restore(outcome="restored"))
    assert [record.outcome for record in catalog.restores()] == ["restored"]


def test_events_come_back_whole_and_newest_first(catalog: Catalog) -> None:
    first = event("backup.deleted", nested={"keys": [1, 2.5, None, "ü"]}, ok=True)
    second = event("restore.approved")
    older = event("restore.requested", at=NOON - MINUTE)
    for each in (first, second, older):
        catalog.record_event(each)
    assert list(catalog.events()) == [second, first, older]
    assert list(catalog.events(limit=1)) == [second]


def test_events_that_differ_only_in_their_details_are_two(catalog: Catalog) -> None:
    catalog.record_event(event(step=1))
    catalog.record_event(event(step=2))
    assert len(catalog.events()) == 2


def test_the_null_catalog_takes_everything_and_holds_nothing() -> None:
    catalog: Catalog = NullCatalog()
    catalog.prepare()
    catalog.record_backup(manifest(), store=PRIMARY)
    catalog.record_stage(manifest().backup_id, "dump", seconds=1.0, size=10)
    catalog.record_verification(verification(Level.PARSED))
    catalog.record_restore(restore())
    catalog.record_event(event())
    catalog.forget_backup(manifest().backup_id)
    assert (
        list(catalog.backups(component=Component.DATABASE)),
        list(catalog.restores()),
        list(catalog.events()),
    ) == ([], [], [])


def test_a_rebuilt_catalog_equals_the_original(catalog: Catalog, tmp_path: Path) -> None:
    original = MemoryCatalog()
    stores: dict[str, Store] = {}
    for name in (PRIMARY, SECONDARY):
        store = LocalStore(name, tmp_path / name)
        store.initialise()
        stores[name] = store
        checked = verification(Level.PARSED, at=NOON + MINUTE, store=name)
        for each in (manifest(), manifest("redis", at=NOON + MINUTE)):
            store.put(each.ref.manifest_key, SealedManifest.seal(each, lambda _: "5ea1").encode())
            original.record_backup(each, store=name)
        body = document.encode(checked.model_dump(mode="json"))
        store.put(manifest().ref.verification_key, body)
        original.record_verification(checked)
    catalog.record_backup(manifest("gone"), store=PRIMARY)
    report = rebuild(catalog, stores)
    assert list(catalog.backups()) == list(original.backups())
    assert (report.backups, report.copies, report.complete) == (2, 4, True)
    assert report.forgotten == [manifest("gone").backup_id]


# Only PostgreSQL: history


def rows(endpoint: Endpoint, query: bytes) -> list[tuple[Any, ...]]:
    with connect(endpoint) as connection:
        return connection.execute(query).fetchall()


def test_the_last_try_of_a_stage_is_the_one_that_is_kept(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    prepared.record_stage(manifest().backup_id, "dump", seconds=9.0, size=1)
    prepared.record_stage(manifest().backup_id, "dump", seconds=2.5, size=2**40)
    prepared.forget_backup(manifest().backup_id)
    assert rows(database, b"SELECT stage, seconds, size FROM neuroca_backup.stages") == [
        ("dump", 2.5, 2**40)
    ]


def test_every_verification_stays_in_the_history(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    damage = Finding(key="a/b", problem="wrong digest")
    for at in (NOON + MINUTE, NOON, NOON):
        prepared.record_verification(verification(Level.INTACT, at=at, findings=(damage,)))
    prepared.forget_backup(manifest().backup_id)
    query = b"SELECT checked_at, level, findings FROM neuroca_backup.verifications ORDER BY 1"
    assert rows(database, query) == [
        (NOON, 2, [damage.model_dump()]),
        (NOON + MINUTE, 2, [damage.model_dump()]),
    ]


def test_simultaneous_verifications_leave_the_newest_as_the_level(
    prepared: PostgresCatalog,
) -> None:
    prepared.record_backup(manifest(), store=PRIMARY)
    levels = [Level.PARSED, Level.INTACT, Level.READABLE, Level.RESTORED] * 5
    checks = [verification(level, at=NOON + n * MINUTE) for n, level in enumerate(levels)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(prepared.record_verification, reversed(checks)))
    assert only(prepared).levels == {PRIMARY: checks[-1].level}


@pytest.mark.parametrize(
    "change",
    [
        b"UPDATE neuroca_backup.events SET actor = 'nobody'",
        b"DELETE FROM neuroca_backup.events",
        b"TRUNCATE neuroca_backup.events",
        b"SET session_replication_role = replica; DELETE FROM neuroca_backup.events",
        (
            b"INSERT INTO neuroca_backup.events (at, actor, action, subject, details, sha256) "
            b"SELECT at, actor, action, subject, details, sha256 FROM neuroca_backup.events "
            b"ON CONFLICT (sha256) DO UPDATE SET actor = 'nobody'"
        ),
    ],
)
def test_the_audit_trail_cannot_be_changed_even_by_the_superuser(
    prepared: PostgresCatalog, database: Endpoint, change: bytes
) -> None:
    prepared.record_event(event())
    with pytest.raises(AccessDeniedError, match="audit trail is refused"), connect(database) as it:
        it.execute(change)
    assert list(prepared.events()) == [event()]


# Only PostgreSQL: the schema


def test_eight_processes_that_prepare_at_once_make_one_schema(database: Endpoint) -> None:
    program = (
        "import sys; from neuroca_backup.catalog.postgres import PostgresCatalog;"
        "from neuroca_backup.model.endpoint import Endpoint;"
        "host, port, user, name, mode = sys.argv[1:]; sys.stdout.write('ready\\n');"
        "sys.stdout.flush(); password = sys.stdin.readline().strip();"
        "PostgresCatalog(Endpoint(kind='postgres', host=host, port=int(port), user=user,"
        "password=password, database=name, extra={'sslmode': mode})).prepare()"
    )
    mode = str(database.extra.get("sslmode", "prefer"))
    address = [database.host, str(database.port), database.user, database.database, mode]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, *address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(8)
    ]
    for child in children:  # all have started before any of them may go
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(database.password + "\n")
        child.stdin.flush()
    ends = [(child.communicate(timeout=60)[1], child.returncode) for child in children]
    assert ends == [("", 0)] * 8
    applied = rows(database, b"SELECT number, sha256 FROM neuroca_backup.schema_migrations")
    assert applied == [(step.number, step.sha256) for step in postgres_catalog.migrations()]


def test_a_migration_that_was_edited_after_it_was_applied_is_refused(
    prepared: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = postgres_catalog.migrations()
    edited = replace(first, text=first.text + "\n-- a second thought\n")
    monkeypatch.setattr(postgres_catalog, "migrations", lambda: [edited, *rest])
    with pytest.raises(PermanentError, match=r"Migration 1 .* was applied .* new migration"):
        prepared.prepare()


def test_a_database_migrated_by_a_newer_program_is_refused(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    with connect(database) as connection:
        connection.execute(
            b"INSERT INTO neuroca_backup.schema_migrations (number, name, sha256)"
            b" VALUES (99, 'of_the_future', repeat('ab', 32))"
        )
    with pytest.raises(IncompatibleVersionError, match="migrated to 99 by a newer program"):
        prepared.prepare()


def test_a_new_migration_is_applied_to_an_old_schema_once(
    prepared: PostgresCatalog, database: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared.record_event(event())
    known = postgres_catalog.migrations()
    added = postgres_catalog.Migration(
        len(known) + 1, "added", "CREATE TABLE neuroca_backup.added (n integer);"
    )
    monkeypatch.setattr(postgres_catalog, "migrations", lambda: [*known, added])
    prepared.prepare()
    prepared.prepare()
    assert rows(database, b"SELECT n FROM neuroca_backup.added") == []
    assert list(prepared.events()) == [event()]


@pytest.mark.parametrize(
    ("name", "last", "complaint"),
    [("broken", "SELECT 1/0;", "division by zero"), ("", "", "schema_migrations")],
    ids=["its text fails", "it cannot be recorded"],
)
def test_a_migration_that_fails_leaves_nothing_of_itself(
    prepared: PostgresCatalog,
    database: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    last: str,
    complaint: str,
) -> None:
    known = postgres_catalog.migrations()
    text = f"CREATE TABLE neuroca_backup.half (n integer); {last}"
    broken = postgres_catalog.Migration(len(known) + 1, name, text)
    monkeypatch.setattr(postgres_catalog, "migrations", lambda: [*known, broken])
    with pytest.raises(PermanentError, match=complaint):
        prepared.prepare()
    applied = rows(database, b"SELECT count(*) FROM neuroca_backup.schema_migrations")
    assert applied == [(len(known),)]
    with pytest.raises(NotFoundError, match="half"):
        rows(database, b"SELECT n FROM neuroca_backup.half")


def test_every_table_says_what_it_is_and_every_time_has_a_zone(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    tables = rows(
        database,
        b"SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        b" WHERE relnamespace = 'neuroca_backup'::regnamespace AND relkind = 'r'",
    )
    assert {name for name, _ in tables} == {
        *("backups", "copies", "stages", "verifications", "restores", "events"),
        "schema_migrations",
    }
    assert [name for name, comment in tables if not comment] == []
    naive = (
        b"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema ="
        b" 'neuroca_backup' AND data_type LIKE 'timestamp without%'"
    )
    assert rows(database, naive) == []


def test_the_newest_backups_of_a_source_are_found_by_an_index(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    with connect(database) as connection:
        connection.execute(b"SET enable_seqscan = off; SET enable_sort = off")
        plan = connection.execute(
            b"EXPLAIN SELECT backup_id FROM neuroca_backup.backups"
            b" WHERE component = 'database' AND source = 'postgres'"
            b" ORDER BY started_at DESC, backup_id DESC LIMIT 1"
        ).fetchall()
    assert any("backups_newest_of_source" in line for (line,) in plan), plan


# Only PostgreSQL: what goes wrong, and that no password is ever told


def complaint(error: BackupError) -> str:
    return "".join((str(error), repr(error), repr(error.facts), *traceback.format_exception(error)))


def test_a_server_that_is_not_there_is_unreachable(database: Endpoint) -> None:
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nowhere = replace(database, host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(UnreachableError) as caught:
            PostgresCatalog(nowhere).backups()
        with pytest.raises(UnreachableError):
            PostgresCatalog(nowhere).prepare()
    assert nowhere.label in str(caught.value)
    assert database.password not in complaint(caught.value)


def test_a_server_that_accepts_and_says_nothing_is_unreachable(database: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        extra = {**database.extra, "connect_timeout": 2}
        endpoint = replace(database, host="127.0.0.1", port=mute.getsockname()[1], extra=extra)
        with pytest.raises(UnreachableError) as caught:
            PostgresCatalog(endpoint).events()
    assert database.password not in complaint(caught.value)


def test_a_wrong_password_is_access_denied_and_is_not_told(
    prepared: PostgresCatalog,
    database: Endpoint,
) -> None:
    wrong = replace(database, password="hunter2-&@:/ %")
    with pytest.raises(AccessDeniedError) as caught:
        PostgresCatalog(wrong).record_event(event())
    assert "hunter2" not in complaint(caught.value)
    assert "hunter2" not in repr(PostgresCatalog(wrong))


def test_an_unknown_role_is_access_denied(database: Endpoint) -> None:
    with pytest.raises(AccessDeniedError):
        PostgresCatalog(replace(database, user="stranger")).prepare()


def test_a_missing_database_is_not_found(database: Endpoint) -> None:
    with pytest.raises(NotFoundError, match=database.database):
        PostgresCatalog(database).restores()


def test_a_missing_schema_names_the_command_that_makes_it(
    prepared: PostgresCatalog, database: Endpoint
) -> None:
    with connect(database) as connection:
        connection.execute(b"DROP SCHEMA neuroca_backup CASCADE")
    for call in (prepared.backups, lambda: prepared.record_event(event())):
        with pytest.raises(PermanentError, match="neuroca-backup catalog rebuild"):
            call()


@pytest.fixture
def clerk(postgres: Endpoint) -> Iterator[Endpoint]:
    """A role that may log in and nothing else."""
    role = replace(postgres, user=f"clerk_{secrets.token_hex(4)}", password="clerk-secret")
    name = statements.Identifier(role.user)
    with connect(postgres, autocommit=True) as connection:
        connection.execute(
            statements.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, role.password)
        )
    yield role
    with connect(postgres, autocommit=True) as connection:
        connection.execute(statements.SQL("DROP OWNED BY {}").format(name))
        connection.execute(statements.SQL("DROP ROLE {}").format(name))


def test_a_role_that_may_not_create_the_database_is_told_what_to_ask_for(
    clerk: Endpoint, database: Endpoint
) -> None:
    with pytest.raises(AccessDeniedError, match=rf"{database.database}.*CREATEDB") as caught:
        PostgresCatalog(replace(clerk, database=database.database)).prepare()
    assert clerk.password not in complaint(caught.value)


def test_a_database_that_an_administrator_made_needs_no_right_to_create_any(
    clerk: Endpoint, database: Endpoint, postgres: Endpoint
) -> None:
    create = statements.SQL("CREATE DATABASE {} OWNER {}")
    with connect(postgres, autocommit=True) as connection:
        names = (statements.Identifier(name) for name in (database.database, clerk.user))
        connection.execute(create.format(*names))
    catalog = PostgresCatalog(replace(clerk, database=database.database))
    catalog.prepare()
    catalog.record_backup(manifest(), store=PRIMARY)
    assert only(catalog).backup_id == manifest().backup_id
    with connect(postgres, database=database.database, autocommit=True) as connection:
        connection.execute(
            statements.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(
                statements.Identifier(database.database)
            )
        )
        connection.execute(b"DROP SCHEMA neuroca_backup CASCADE")


def test_a_connection_without_a_database_is_a_configuration_error(postgres: Endpoint) -> None:
    with pytest.raises(ConfigurationError, match="names no database"):
        PostgresCatalog(replace(postgres, database=""))


@pytest.mark.parametrize(
    "extra", [{"sslmod": "verify-full"}, {"sslmode": "sometimes"}, {"options": "-c x=y"}]
)
def test_a_wrong_extra_is_a_configuration_error(database: Endpoint, extra: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        PostgresCatalog(replace(database, extra=extra)).backups()


def test_a_session_is_named_and_speaks_utc(postgres: Endpoint) -> None:
    query = b"SELECT current_setting('application_name'), current_setting('TimeZone')"
    assert rows(postgres, query) == [("neuroca-backup", "UTC")]


def test_a_block_that_raises_is_rolled_back(prepared: PostgresCatalog, database: Endpoint) -> None:
    with pytest.raises(KeyError), connect(database) as connection:  # noqa: PT012 - the rollback
        connection.execute(
            sql.read("catalog/queries/record_stage.sql").encode(),
            {"backup_id": "x", "stage": "dump", "seconds": 1, "size": 1},
        )
        raise KeyError
    assert rows(database, b"SELECT count(*) FROM neuroca_backup.stages") == [(0,)]


def test_a_session_that_the_server_ends_is_unreachable_not_refused(postgres: Endpoint) -> None:
    with pytest.raises(UnreachableError), connect(postgres) as connection:  # noqa: PT012 - cut off
        pid = connection.info.backend_pid
        with connect(postgres) as other:
            other.execute(b"SELECT pg_terminate_backend(%s, 5000)", [pid])
        connection.execute(b"SELECT 1")


def test_an_error_that_the_caller_expects_can_be_caught_inside_the_block(
    postgres: Endpoint,
) -> None:
    with (
        connect(postgres, autocommit=True) as connection,
        pytest.raises(psycopg.errors.DivisionByZero),
    ):
        connection.execute(b"SELECT 1/0")
