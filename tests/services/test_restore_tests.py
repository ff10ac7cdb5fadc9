"""A restore test of every source with one command: what it records, and what it leaves."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.cli.app import app
from neuroca_backup.connections import FileConnections
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.restore_test import MARKDOWN, PREFIX, REPORT, RestoreTest
from neuroca_backup.model.status import Level
from neuroca_backup.runtime import Runtime
from neuroca_backup.sandbox import seed_files, seed_milvus, seed_mongodb, seed_redis
from neuroca_backup.services import sanitise
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.settings import load
from support.engines.mongodb import connected
from support.every_source import backup_yaml, declared
from support.milvus import client as milvus_client
from support.redis_keys import flush
from support.wiring import connection, local_places, scratch_database, session

SCALE = 0.02
PERSON = "Zdeňka O'Hara-Ångström"
MAIL = "zdenka@personal.example.net"
SECRETS = (PERSON.encode(), MAIL.encode(), json.dumps(PERSON)[1:-1].encode())

RULES: dict[str, list[dict[str, Any]]] = {
    "postgres": [
        {"table": "memory.items", "column": "content", "action": "fake", "kind": "text"},
        {"table": "memory.people", "column": "mail", "action": "fake", "kind": "email"},
        {"table": "memory.people", "column": "name", "action": "hash"},
        {"table": "memory.letters", "column": "sender", "action": "hash"},
        {"table": "memory.people", "column": "notes", "field": "by", "action": "drop"},
    ],
    "mongodb": [
        {
            "collection": f"{seed_mongodb.DATABASE}.episodes",
            "field": "summary",
            "action": "fake",
            "kind": "text",
        }
    ],
    "redis": [
        {"keys": "memory:*:metadata:*", "field": "source", "action": "hash"},
        {"keys": "memory:???:????????????????????????????????", "field": "content", "action": None},
    ],
    "vector": [
        {"collection": seed_milvus.COLLECTION, "field": "content", "action": "hash"},
        {"collection": seed_milvus.COLLECTION, "field": "embedding", "action": "drop"},
    ],
    "working": [{"keys": "memory:*", "action": "drop"}],
    "episodic": [{"collection": f"{seed_mongodb.DATABASE}.episodes", "action": "drop"}],
    "models": [],
}


@dataclass
class Stand:
    """An installation of which every source has a verified backup."""

    folder: Path

    def run(self, *words: str, code: int = 0) -> str:
        config = str(self.folder / "backup.yaml")
        ended = CliRunner().invoke(app, ["--config-path", config, *words])
        assert ended.exit_code == code, f"{words}: {ended.output}"
        return ended.output

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def runtime(self) -> Runtime:
        made = Runtime.build(load(self.folder / "backup.yaml"), FileConnections())
        made.__dict__["catalog"] = MemoryCatalog()
        return made

    def reports(self) -> list[Path]:
        return sorted((self.folder / "primary" / PREFIX).glob(f"*/{REPORT}"))


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Endpoint,
    mongodb: Endpoint,
    redis_server: Endpoint,
    milvus: Endpoint,
) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("restore-tests")
    flush(redis_server)
    for seed, endpoint in (
        (seed_mongodb, mongodb),
        (seed_redis, redis_server),
        (seed_milvus, milvus),
    ):
        seed.seed(endpoint, scale=SCALE)
    with connected(mongodb) as client:
        client[seed_mongodb.DATABASE]["episodes"].update_many({}, {"$set": {"summary": PERSON}})
    seed_files.seed(folder / "files", scale=SCALE)
    environ = {
        "postgres": connection(postgres, "postgres"),
        "mongodb": connection(mongodb, "mongo"),
        "redis": connection(redis_server, "redis"),
        "milvus": connection(milvus, "milvus"),
    }
    with (
        scratch_database(postgres, f"tested_{secrets.token_hex(4)}") as database,
        pytest.MonkeyPatch.context() as patched,
    ):
        _people(database)
        for name, value in environ.items():
            patched.setenv(f"AIRFLOW_CONN_{name.upper()}", value)
        made = Stand(folder)
        sources = declared(folder / "files", database=database.database)
        del sources["semantic"]  # restored to the same server as `vector`, which takes seconds
        document = backup_yaml(folder, local_places(folder), sources)
        document["backup"]["sanitise"] = RULES
        (folder / "backup.yaml").write_text(yaml.safe_dump(document))
        made.run("backup", "all")
        yield made
    flush(redis_server)
    with connected(mongodb) as client:
        client.drop_database(seed_mongodb.DATABASE)
    with milvus_client(milvus) as client:
        client.drop_collection(seed_milvus.COLLECTION)


def _people(database: Endpoint) -> None:
    """Make tables with all that stands in the way of changing a value."""
    with session(database) as opened:
        opened.execute(
            """
            CREATE TABLE memory.people (
                name text PRIMARY KEY, mail varchar(80) NOT NULL UNIQUE CHECK (mail LIKE '%@%'),
                domain text GENERATED ALWAYS AS (split_part(mail, '@', 2)) STORED, notes jsonb);
            CREATE TABLE memory.letters (
                id int PRIMARY KEY, sender text REFERENCES memory.people (name));
            CREATE TABLE memory.audit (was text);
            CREATE FUNCTION memory.note() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO memory.audit VALUES (OLD.mail); RETURN NEW; END$$;
            CREATE TRIGGER noted BEFORE UPDATE ON memory.people
                FOR EACH ROW EXECUTE FUNCTION memory.note();
            """
        )
        opened.execute(
            "INSERT INTO memory.people (name, mail, notes)"
            " SELECT %s || n, n || %s, jsonb_build_object('by', %s::text, 'n', n)"
            " FROM generate_series(1, 50) AS n",
            [PERSON, MAIL, PERSON],
        )
        opened.execute(
            "INSERT INTO memory.letters SELECT n, %s || n FROM generate_series(1, 50) n", [PERSON]
        )
        opened.execute("CREATE MATERIALIZED VIEW memory.directory AS SELECT * FROM memory.people")
        opened.execute("ANALYZE")


def test_one_command_tests_every_source_records_it_and_leaves_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bytes] = {}
    ports: list[int] = []
    real = sanitise.sanitise

    def watched(endpoint: Endpoint, facts: Mapping[str, Any], rules: Any) -> Any:
        done = real(endpoint, facts, rules)
        with sanitise.copies.opened(endpoint, facts) as copy:
            seen[endpoint.kind] = b"".join(copy.pieces())
        if endpoint.kind == "mongo":
            with connected(endpoint) as client:
                assert "oplog.rs" not in client["local"].list_collection_names(), "it has all of it"
        ports.append(endpoint.port or 0)
        return done

    monkeypatch.setattr(sanitise, "sanitise", watched)
    told = stand.run("test-restore", "--sandbox-env", "--output", str(stand.folder / "out"))

    # The record: in both stores, as a file, and in words.
    (path,) = stand.reports()
    test = RestoreTest.decode(path.read_bytes(), name=f"{PREFIX}/{path.parent.name}/{REPORT}")
    assert test.passed, told
    assert {one.source.partition("__")[0] for one in test.sources} == {
        *("postgres", "mongodb", "redis", "vector", "working", "episodic"),
        *("configuration", "models", "logs"),
    }
    for one in test.sources:
        assert {*one.restoring, "sandbox", "sample", "sanitise", "tear_down"} <= {*one.seconds}
        assert one.size > 0
        assert one.records > 0
        assert one.rate
        assert one.removed
        assert one.stores
    by_source = {one.source: one for one in test.sources}
    assert by_source["postgres"].sanitised == "yes"
    assert by_source["logs"].sanitised == "no rules"
    assert (
        by_source[
            "models__embed"
            if "models__embed" in by_source
            else next(name for name in by_source if name.startswith("models__"))
        ].sanitised
        == "nothing personal"
    )
    markdown = (stand.folder / "secondary" / PREFIX / test.test_id / MARKDOWN).read_text()
    assert markdown == (stand.folder / "out" / "report.md").read_text() == test.markdown()
    assert f"{len(test.sources)} of {len(test.sources)} sources passed" in told
    assert json.loads((stand.folder / "out" / "report.json").read_text())["success_rate"] == 1

    # Nothing personal: searched for in everything that the copies held.
    assert set(seen) == {"postgres", "mongo", "redis", "milvus"}
    for kind, content in seen.items():
        assert content or kind in {"mongo", "milvus", "redis"}
        for secret in SECRETS:
            assert secret not in content, kind
    assert b"@example.com" in seen["postgres"]
    assert not any(secret in path.read_bytes() for secret in SECRETS)

    # Nothing left: no file, no process, no port.
    assert not stand.spool.exists() or list(stand.spool.iterdir()) == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0

    # What the stores say now, and a catalog that is made from them.
    runtime = stand.runtime()
    found = next(
        Inventory(runtime.stores).newest_first(test.sources[0].component, test.sources[0].source)
    )
    assert Level.RESTORED in {one.level for one in found.verifications.values()}
    catalog = MemoryCatalog()
    report = rebuild(catalog, runtime.stores)
    assert report.complete, report.problems
    assert report.tests == 1
    assert {one.restore_id for one in catalog.restores()} == {
        one.restore_id for one in test.sources
    }
    assert runtime.retention.sweep(actor="test").strangers == []
