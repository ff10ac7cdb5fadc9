"""With exactly the grants that are generated, backups work on real servers and writing does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from cryptography.fernet import Fernet

from neuroca_backup import engines
from neuroca_backup.mongodb_session import connect
from neuroca_backup.sandbox import seed_milvus
from neuroca_backup.services.policies import grants
from neuroca_backup.settings import Settings
from support.airflow_database import bare_database, put_variables
from support.dumping import dump_to, restore_all
from support.redis_keys import client_of
from support.wiring import ask, session

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

PASSWORD = "only-in-this-test-7"
BACKUP, RESTORE = "neuroca_backup", "neuroca_restore"


def document(path: str, **sources: dict[str, Any]) -> str:
    """Return the text of one document for sources that all share the connection `it`."""
    settings = Settings.model_validate(
        {
            "schedule": {},
            "storage": {
                "primary": {"type": "local", "path": "/a"},
                "secondary": {"type": "local", "path": "/b"},
            },
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": "/c"},
            "sources": {name: {"connection": "it", **one} for name, one in sources.items()},
        }
    )
    found = {one.path: one.text for one in grants.documents(settings)}
    return found[f"databases/it/{path}"]


POSTGRES = {"component": "database", "engine": "postgresql"}
AIRFLOW = {"component": "configuration", "engine": "airflow_metadata"}
PHYSICAL = {"component": "database", "engine": "postgresql_physical"}
MONGODB = {"component": "database", "engine": "mongodb"}
EPISODIC = {"component": "memory_tiers", "engine": "episodic_memory"}
REDIS = {"component": "database", "engine": "redis_rdb"}
WORKING = {"component": "memory_tiers", "engine": "working_memory"}
MILVUS = {"component": "database", "engine": "milvus"}


@contextmanager
def postgres_user(server: Endpoint, text: str, user: str) -> Iterator[Endpoint]:
    """Apply `text` twice, as an administrator may; give the user a password for the block."""
    with session(server) as admin:
        for _ in range(2):
            admin.execute(text)  # type: ignore[call-overload]  # the document itself
        admin.execute(f"ALTER ROLE {user} PASSWORD '{PASSWORD}'")  # type: ignore[call-overload]
    try:
        yield replace(server, user=user, password=PASSWORD)
    finally:
        databases = "SELECT datname FROM pg_database WHERE datallowconn"
        with session(server) as admin:
            names = [row[0] for row in admin.execute(databases).fetchall()]
        for name in names:
            with session(server, name) as admin:
                admin.execute(f"DROP OWNED BY {user}")  # type: ignore[call-overload]
        with session(server) as admin:
            admin.execute(f"DROP ROLE {user}")  # type: ignore[call-overload]


def test_postgresql_is_dumped_and_restored_with_these_grants_and_never_written_to(
    fresh_database: Endpoint, postgres_twin: Endpoint, tmp_path: Path
) -> None:
    name = fresh_database.database
    with session(fresh_database) as admin:
        admin.execute("CREATE TABLE notes (id int PRIMARY KEY, text text)")
        admin.execute("INSERT INTO notes SELECT n, 'x' FROM generate_series(1, 50) n")
        admin.execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    text = document("backup.sql", postgres=POSTGRES)
    with postgres_user(fresh_database, text, BACKUP) as weak:
        made = dump_to(tmp_path / "dump", engines.named("postgresql"), weak, databases=[name])
        for statement in (
            "SET default_transaction_read_only = off; INSERT INTO notes VALUES (0, 'y')",
            "SET default_transaction_read_only = off; DELETE FROM notes",
            "SET default_transaction_read_only = off; DROP TABLE notes",
            "SET default_transaction_read_only = off; CREATE TABLE mine (id int)",
            "SET default_transaction_read_only = off; CREATE DATABASE mine",
            "INSERT INTO notes VALUES (0, 'y')",
        ):
            with pytest.raises(psycopg.Error), session(weak) as opened:
                opened.execute(statement)  # type: ignore[call-overload]
    text = document("restore.sql", postgres=POSTGRES)
    with postgres_user(postgres_twin, text, RESTORE) as strong:
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            session(strong)
        with session(postgres_twin) as admin:
            admin.execute(f"ALTER ROLE {RESTORE} LOGIN")  # type: ignore[call-overload]
        restore_all(engines.named("postgresql"), made.restorable(), strong)
        assert ask(strong, name, "SELECT count(*) FROM notes") == 50
        with session(postgres_twin) as admin:
            admin.execute(f'DROP DATABASE "{name}"')  # type: ignore[call-overload]


def test_a_whole_postgresql_server_is_copied_with_these_grants(
    postgres_alone: Endpoint, tmp_path: Path
) -> None:
    text = document("backup.sql", postgres=POSTGRES, postgres_physical=PHYSICAL)
    with postgres_user(postgres_alone, text, BACKUP) as weak:
        engine = engines.named("postgresql_physical")
        try:
            made = dump_to(tmp_path / "copy", engine, weak)
            engine.check(made.manifest, made.open)
        finally:
            with session(postgres_alone) as admin:
                admin.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                )
        with pytest.raises(psycopg.errors.InsufficientPrivilege), session(weak) as opened:
            opened.execute("CREATE DATABASE mine")


def test_the_rows_of_airflow_are_dumped_and_restored_with_these_grants_and_no_others(
    postgres: Endpoint, tmp_path: Path
) -> None:
    database = bare_database(postgres, "airflow_granted")
    key = Fernet.generate_key().decode()
    with session(database) as admin:
        admin.execute("CREATE TABLE alembic_version (version_num text)")
        admin.execute("CREATE TABLE dag_run (id int)")
    put_variables(database, key, {"kept": "7"})
    extra = {**database.extra, "fernet_key": key}
    engine = engines.named("airflow_metadata")
    with postgres_user(database, document("backup.sql", airflow=AIRFLOW), BACKUP) as weak:
        made = dump_to(tmp_path / "dump", engine, replace(weak, extra=extra))
        for statement in ("DELETE FROM variable", "SELECT FROM dag_run"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), session(weak) as opened:
                opened.execute(statement)
    put_variables(database, key, {"kept": "8"})
    with postgres_user(database, document("restore.sql", airflow=AIRFLOW), RESTORE) as strong:
        target = replace(strong, extra=extra)
        restore_all(engine, made.restorable(), target, replace=True)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), session(strong) as opened:
            opened.execute("SELECT FROM dag_run")


def mongo_role(text: str) -> dict[str, Any]:
    """Return the rights that a document gives, which only mongosh could run as a whole."""
    found = re.search(r"const role = (\{.*?\n\});", text, re.DOTALL)
    assert found is not None
    role: dict[str, Any] = json.loads(found[1])
    return role


@contextmanager
def mongo_user(server: Endpoint, text: str, user: str) -> Iterator[Endpoint]:
    with connect(server) as client:
        client.admin.command("createRole", user, **mongo_role(text))
        client.admin.command("createUser", user, pwd=PASSWORD, roles=[user])
    try:
        yield replace(server, user=user, password=PASSWORD)
    finally:
        with connect(server) as client:
            client.admin.command("dropUser", user)
            client.admin.command("dropRole", user)


def test_mongodb_is_dumped_and_restored_with_these_grants_and_never_written_to(
    mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - slow to import

    name = "granted"
    with connect(mongodb) as client:
        client[name].notes.insert_many([{"_id": n} for n in range(20)])
    try:
        text = document("backup.js", mongodb=MONGODB)
        with mongo_user(mongodb, text, BACKUP) as weak:
            made = dump_to(tmp_path / "dump", engines.named("mongodb"), weak, databases=[name])
            with connect(weak) as client:
                for write in (
                    lambda: client[name].notes.insert_one({"_id": 99}),
                    lambda: client[name].notes.delete_one({"_id": 1}),
                    client[name].notes.drop,
                    lambda: client.drop_database(name),
                ):
                    with pytest.raises(OperationFailure):
                        write()
        text = document("restore.js", mongodb=MONGODB)
        with mongo_user(mongodb_twin, text, RESTORE) as strong:
            restore_all(engines.named("mongodb"), made.restorable(), strong)
            with connect(strong) as client:
                assert client[name].notes.count_documents({}) == 20
    finally:
        for server in (mongodb, mongodb_twin):
            with connect(server) as client:
                client.drop_database(name)


def test_episodic_memory_alone_needs_to_read_no_more_than_its_database(
    mongodb: Endpoint, tmp_path: Path
) -> None:
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - slow to import

    with connect(mongodb) as client:
        client["tier_granted"].episodes.insert_many([{"_id": n} for n in range(20)])
        client["tier_other"].notes.insert_one({"_id": 1})
    options = {"collections": ["tier_granted.*"]}
    try:
        text = document("backup.js", episodic={**EPISODIC, "options": options})
        with mongo_user(mongodb, text, BACKUP) as weak:
            dump_to(tmp_path / "dump", engines.named("episodic_memory"), weak, **options)
            with connect(weak) as client, pytest.raises(OperationFailure):
                client["tier_other"].notes.find_one()
            with connect(weak) as client, pytest.raises(OperationFailure):
                client["tier_granted"].episodes.delete_one({})
    finally:
        with connect(mongodb) as client:
            client.drop_database("tier_granted")
            client.drop_database("tier_other")


@contextmanager
def redis_user(server: Endpoint, text: str, user: str) -> Iterator[Endpoint]:
    with client_of(server) as client:
        for _ in range(2):
            client.execute_command(*text.split())
        client.execute_command("ACL", "SETUSER", user, f">{PASSWORD}")
        try:
            yield replace(server, user=user, password=PASSWORD)
        finally:
            client.execute_command("ACL", "DELUSER", user)


def test_redis_is_dumped_whole_and_by_tier_with_these_grants_and_never_written_to(
    redis_server: Endpoint, tmp_path: Path
) -> None:
    with client_of(redis_server) as client:
        client.set("memory:stm:granted", "kept")
        client.set("session:granted", "of nobody")
    try:
        text = document("backup.redis", redis=REDIS, working=WORKING)
        with redis_user(redis_server, text, BACKUP) as weak:
            dump_to(tmp_path / "rdb", engines.named("redis_rdb"), weak)
            dump_to(tmp_path / "tier", engines.named("working_memory"), weak)
            with client_of(weak) as client:
                for write in (
                    ("SET", "memory:stm:granted", "lost"),
                    ("DEL", "memory:stm:granted"),
                    ("GET", "session:granted"),
                    ("FLUSHALL",),
                    ("CONFIG", "SET", "maxmemory", "1"),
                    ("REPLICAOF", "127.0.0.1", "1"),
                ):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.execute_command(*write)
        with client_of(redis_server) as client:
            assert client.get("memory:stm:granted") == b"kept"
    finally:
        with client_of(redis_server) as client:
            client.delete("memory:stm:granted", "session:granted")


def test_redis_is_restored_with_these_grants(
    redis_server: Endpoint, redis_twin: Endpoint, tmp_path: Path
) -> None:
    with client_of(redis_server) as client:
        client.set("memory:stm:granted", "kept")
    try:
        made = dump_to(tmp_path / "tier", engines.named("working_memory"), redis_server)
        text = document("restore.redis", working=WORKING)
        with redis_user(redis_twin, text, RESTORE) as strong:
            restore_all(engines.named("working_memory"), made.restorable(), strong, replace=True)
            with client_of(strong) as client:
                assert client.get("memory:stm:granted") == b"kept"
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command("FLUSHALL")
    finally:
        for server in (redis_server, redis_twin):
            with client_of(server) as client:
                client.delete("memory:stm:granted")


def test_milvus_is_dumped_with_these_grants_and_never_written_to(
    milvus: Endpoint, tmp_path: Path
) -> None:
    import grpc  # noqa: PLC0415 - slow to import
    from pymilvus import MilvusClient, MilvusException  # noqa: PLC0415 - as above

    url = f"http://{milvus.host}:{milvus.port}"
    script = tmp_path / "backup.py"
    script.write_text(document("backup.py", vector=MILVUS))
    admin = MilvusClient(url, user=milvus.user, password=milvus.password)
    seed_milvus.seed(milvus, scale=0.02)
    try:
        subprocess.run(
            [sys.executable, "-W", "ignore", script, url, milvus.user],
            input=f"{milvus.password}\n{PASSWORD}\n",
            text=True,
            check=True,
            capture_output=True,
            timeout=120,
            start_new_session=True,  # without a terminal passwords come from stdin
        )
        weak = replace(milvus, user=BACKUP, password=PASSWORD)
        engine = engines.named("milvus")
        made = dump_to(tmp_path / "dump", engine, weak, collections=[seed_milvus.COLLECTION])
        engine.check(made.manifest, made.open)
        client = MilvusClient(url, user=BACKUP, password=PASSWORD)
        for write in (
            lambda: client.drop_collection(seed_milvus.COLLECTION),
            lambda: client.release_collection(seed_milvus.COLLECTION),
            lambda: client.create_collection("mine", dimension=4),
        ):
            with pytest.raises((MilvusException, grpc.RpcError), match="permission deny"):
                write()
    finally:
        admin.drop_user(BACKUP)
        for one in admin.describe_role(BACKUP).get("privileges", ()):
            admin.revoke_privilege(
                BACKUP, one["object_type"], one["privilege"], one["object_name"], db_name="*"
            )
        admin.drop_role(BACKUP)
        admin.drop_collection(seed_milvus.COLLECTION)
