"""Milvus: what its contract does not say, on a real server."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.milvus import ENGINE, bulk
from neuroca_backup.engines.milvus.database import MilvusDatabase
from neuroca_backup.errors import (
    AccessDeniedError,
    ChainBrokenError,
    ConfigurationError,
    EmptySourceError,
    IncompatibleVersionError,
    InterruptedToolError,
    NotFoundError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder
from neuroca_backup.vectors import parts
from neuroca_backup.vectors.model import Name
from support.milvus import add_rows, client, create, drop_database, rows
from support.wiring import connection


@pytest.fixture
def database(milvus: Endpoint) -> Iterator[Endpoint]:
    """A database of its own, to be backed up."""
    with scratch(milvus, "source") as endpoint:
        with client(milvus) as opened:
            opened.create_database(endpoint.database)
        yield endpoint


@pytest.fixture(scope="module")
def filled(milvus: Endpoint) -> Iterator[Endpoint]:
    """A database with 300 rows that tests only read, or add to."""
    with scratch(milvus, "filled") as endpoint:
        with client(milvus) as opened:
            opened.create_database(endpoint.database)
        with client(endpoint) as opened:
            create(opened, "items")
            add_rows(opened, "items", first=0, count=300)
        yield endpoint


@pytest.fixture
def target(milvus: Endpoint) -> Iterator[Endpoint]:
    """A database that is not there yet, to restore to."""
    with scratch(milvus, "target") as endpoint:
        yield endpoint


@contextmanager
def scratch(milvus: Endpoint, word: str) -> Iterator[Endpoint]:
    endpoint = replace(milvus, database=f"{word}_{secrets.token_hex(4)}")
    try:
        yield endpoint
    finally:
        drop_database(endpoint)


def back_up(
    endpoint: Endpoint, root: Path, *, only: Sequence[str] = (), **options: Any
) -> Restorable:
    """Dump into a folder and return it as a restore gets it."""
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    sink = SpoolSink(folder, Progress("dump"))
    begun = datetime.now(UTC)
    found = ENGINE.dump(endpoint, sink, ENGINE.options(options))
    of = set_id(at=begun, run=str(root))
    manifest = Manifest(
        backup_id=BackupRef.of(of, Component.DATABASE, "vector").backup_id,
        set_id=of,
        component=Component.DATABASE,
        source="vector",
        engine="milvus",
        attempt="a1b2c3d4",
        stages=(),
        dump=found,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
        ),
        started_at=begun,
        finished_at=datetime.now(UTC),
        product="test",
    )
    manifest = Manifest.model_validate_json(manifest.model_dump_json())
    ENGINE.check(manifest, lambda name: (folder.files / name).open("rb"))
    return Restorable(
        chain=(manifest,), folders=(folder.files,), work=root / "work", only=tuple(only)
    )


def restore(backup: Restorable, endpoint: Endpoint, *, replace_it: bool = False) -> list[str]:
    place = RestoreTarget(endpoint, replace=replace_it)
    notes = [*ENGINE.preflight(backup, place), *ENGINE.load(backup, place)]
    assert list(ENGINE.compare(backup, place)) == []
    return [*notes, *ENGINE.publish(backup, place)]


def everything(endpoint: Endpoint, name: str, *, order: str = "id") -> list[dict[str, Any]]:
    with client(endpoint) as opened:
        was = str(opened.get_load_state(name)["state"])
        if "Loaded" not in was:
            opened.load_collection(name)
        found = opened.query(
            name, filter="medium >= 0", output_fields=["*"], consistency_level="Strong"
        )
        return sorted((dict(row) for row in found), key=lambda row: row[order])


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as comparable values."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in ((name, row[name]) for name in sorted(row))
    } | {name: list(row[name]) for name in ("tags", "numbers", "embedding")}


def state(endpoint: Endpoint, name: str) -> tuple[str, list[str]]:
    with client(endpoint) as opened:
        return str(opened.get_load_state(name)["state"]), sorted(opened.list_indexes(name))


def test_partitions_aliases_and_properties_come_back(
    database: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client(database) as opened:
        create(opened, "items", text_key=True, properties={"collection.ttl.seconds": "864000"})
        for partition, first in (("_default", 0), ("north", 100), ("south", 300)):
            if partition != "_default":
                opened.create_partition("items", partition)
            opened.insert(
                "items",
                [{**row, "id": f'key "{row["id"]:05d}"'} for row in rows(first, 50)],
                partition_name=partition,
            )
        opened.create_alias("items", "current")
        before = opened.describe_collection("items")
    backup = back_up(database, tmp_path / "dump")
    assert backup.last.dump.facts["collections"]["items"]["partitions"] == {
        "_default": 50,
        "north": 50,
        "south": 50,
    }
    restore(backup, target)
    with client(target) as opened:
        after = opened.describe_collection("items")
        south = opened.query(
            "items",
            output_fields=["count(*)"],
            partition_names=["south"],
            consistency_level="Strong",
        )
    assert south[0]["count(*)"] == 50
    assert after["aliases"] == ["current"]
    for word in ("fields", "properties", "consistency_level", "description", "num_shards"):
        assert after[word] == before[word], word
    assert list(map(plain, everything(target, "items"))) == list(
        map(plain, everything(database, "items"))
    )


def test_collections_that_are_not_loaded_or_indexed_are_read_and_left_as_they_were(
    database: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client(database) as opened:
        create(opened, "released", loaded=False)
        add_rows(opened, "released", first=0, count=150)
        create(opened, "bare", binary=True, indexed=False)
        opened.insert(
            "bare", [{**row, "embedding": bytes([row["id"] % 256, 1])} for row in rows(0, 90)]
        )
    before = state(database, "released"), state(database, "bare")
    backup = back_up(database, tmp_path / "dump")
    assert (state(database, "released"), state(database, "bare")) == before
    assert ENGINE.summary(backup.last) == "2 collections, 240 vectors"
    with pytest.raises(ConfigurationError, match="third"):
        ENGINE.preflight(replace(backup, only=("third",)), RestoreTarget(target))
    restore(replace(backup, only=("bare",)), target)
    assert state(target, "bare") == before[1]
    with client(target) as opened:
        assert opened.list_collections() == ["bare"]


def test_rows_whose_keys_the_server_makes_are_compared_by_what_they_hold(
    database: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client(database) as opened:
        create(opened, "made", auto_id=True)
        opened.insert("made", [{n: v for n, v in row.items() if n != "id"} for row in rows(0, 120)])
    backup = back_up(database, tmp_path / "dump")
    notes = restore(backup, target)
    assert any("makes its own keys" in note for note in notes)
    ours, theirs = (everything(one, "made", order="medium") for one in (database, target))
    assert [{**plain(row), "id": 0} for row in ours] == [{**plain(row), "id": 0} for row in theirs]
    with client(target) as opened:
        victim = theirs[5]
        opened.delete("made", ids=[victim["id"]])
        opened.insert("made", [{**{n: v for n, v in victim.items() if n != "id"}, "score": 7.0}])
    found = ENGINE.compare(backup, RestoreTarget(target))
    assert len(found) == 1
    assert "none" in str(found[0])


def test_the_servers_own_import_gives_the_same_rows(
    database: Endpoint, target: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "WORTHWHILE_BYTES", 1)
    monkeypatch.setattr(parts, "PART_BYTES", 30_000)
    monkeypatch.setattr(parts, "BATCH_BYTES", 30_000)
    with client(database) as opened:
        create(opened, "items")
        add_rows(opened, "items", first=0, count=200)
    backup = back_up(database, tmp_path / "dump")
    assert len(backup.last.members) > 2
    notes = restore(backup, target)
    assert any("the server's own import" in note for note in notes), notes
    assert list(map(plain, everything(target, "items"))) == list(
        map(plain, everything(database, "items"))
    )
    shared = Path(str(target.extra["bulk_import_path"]))
    assert list(shared.iterdir()) == []


def test_a_folder_that_the_server_cannot_reach_is_named(
    database: Endpoint, target: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "WORTHWHILE_BYTES", 1)
    with client(database) as opened:
        create(opened, "items", loaded=False)
        add_rows(opened, "items", first=0, count=10)
    backup = back_up(database, tmp_path / "dump")
    (tmp_path / "shared").mkdir()
    wrong = replace(
        target,
        extra={
            "bulk_import_path": str(tmp_path / "shared"),
            "bulk_import_server_path": "/nonexistent",
        },
    )
    with pytest.raises(Exception, match="bulk_import_server_path"):
        ENGINE.load(backup, RestoreTarget(wrong))
    assert list((tmp_path / "shared").iterdir()) == []
    with pytest.raises(ConfigurationError, match="bulk_import_path"):
        ENGINE.load(
            backup, RestoreTarget(replace(target, extra={"bulk_import_path": "/nonexistent"}))
        )


def test_a_restore_in_place_keeps_the_old_and_moves_the_aliases_even_when_killed(
    database: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(database) as opened:
        create(opened, "items")
        add_rows(opened, "items", first=0, count=100)
        opened.create_alias("items", "current")
    backup = back_up(database, tmp_path / "dump")
    with client(database) as opened:
        add_rows(opened, "items", first=100, count=50)
    place = RestoreTarget(database, replace=True)
    with pytest.raises(TargetRefusedError, match="items"):
        ENGINE.preflight(backup, RestoreTarget(database))
    (told,) = ENGINE.preflight(backup, place)
    ENGINE.load(backup, place)
    with client(database) as opened:
        # A kill between the two renames.
        kept = told.rpartition(" ")[2]
        opened.rename_collection("items", kept)
    assert list(ENGINE.compare(backup, place)) == []
    ENGINE.publish(backup, place)
    assert list(ENGINE.publish(backup, place)) == []
    with client(database) as opened:
        assert sorted(opened.list_collections()) == sorted(["items", kept])
        assert opened.describe_collection("current")["collection_name"] in {"items", kept}
        counts = {
            name: opened.query(name, output_fields=["count(*)"], consistency_level="Strong")[0]
            for name in ("items", kept)
        }
    assert {name: one["count(*)"] for name, one in counts.items()} == {"items": 100, kept: 150}


def test_a_load_that_was_killed_begins_again_from_nothing(
    database: Endpoint, target: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(database) as opened:
        create(opened, "items", loaded=False)
        add_rows(opened, "items", first=0, count=100)
    backup = back_up(database, tmp_path / "dump")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MilvusDatabase, "build", killed)
        with pytest.raises(KeyboardInterrupt):
            ENGINE.load(backup, RestoreTarget(target))
    # What it left is nobody's data.
    with pytest.raises(EmptySourceError):
        back_up(target, tmp_path / "other")
    restore(backup, target)
    assert len(everything(target, "items")) == 100


def test_another_dimension_is_refused_before_anything_is_touched(
    database: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client(database) as opened:
        create(opened, "items", loaded=False)
        add_rows(opened, "items", first=0, count=10)
    backup = back_up(database, tmp_path / "dump")
    with client(replace(target, database="")) as opened:
        opened.create_database(target.database)
    with client(target) as opened:
        create(opened, "items", dimension=32, loaded=False)
    with pytest.raises(IncompatibleVersionError, match=r"32 dimensions, the backup's have 16"):
        ENGINE.preflight(backup, RestoreTarget(target, replace=True))
    with client(target) as opened:
        assert opened.list_collections() == ["items"]
        opened.rename_collection("items", "others")
        opened.create_alias("others", "items")
    with pytest.raises(TargetRefusedError, match="alias there, of others"):
        ENGINE.preflight(backup, RestoreTarget(target, replace=True))


def test_what_an_old_server_cannot_hold_is_refused_with_both_sides_named(
    filled: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    backup = back_up(filled, tmp_path / "dump")
    facts = backup.last.dump.facts
    vector = next(
        one for one in facts["collections"]["items"]["schema"]["fields"] if one["dimension"]
    )
    vector["kind"] = "float16_vector"
    with pytest.raises(IncompatibleVersionError, match=r"2\.3\.5.*float16_vector"):
        ENGINE.preflight(backup, RestoreTarget(target))


def test_an_export_that_was_cut_short_is_no_backup(
    filled: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MilvusDatabase._query

    def short(self: Any, at: Name, expression: str, **words: Any) -> Any:
        found = whole(self, at, expression, **words)
        return found if "count(*)" in words["output_fields"] else list(found)[:40]

    monkeypatch.setattr(MilvusDatabase, "_query", short)
    with pytest.raises(InterruptedToolError, match=r"40 rows.*counts \d{3}"):
        back_up(filled, tmp_path / "dump")


def test_a_collection_that_is_dropped_during_the_export_fails_it_by_its_name(
    database: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(database) as opened:
        create(opened, "items")
        add_rows(opened, "items", first=0, count=200)
    whole = MilvusDatabase._query
    asked = []

    def dropping(self: Any, at: Name, expression: str, **words: Any) -> Any:
        found = whole(self, at, expression, **words)
        asked.append(expression)
        if len(asked) == 2:
            with client(database) as opened:
                opened.drop_collection("items")
        return found

    monkeypatch.setattr(MilvusDatabase, "_query", dropping)
    with pytest.raises(NotFoundError, match="items"):
        back_up(database, tmp_path / "dump")


def test_a_server_that_fails_for_a_moment_is_asked_again_from_where_it_was(
    filled: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MilvusDatabase._query
    failed: list[str] = []

    def failing(self: Any, at: Name, expression: str, **words: Any) -> Any:
        if "id > 63" in expression and not failed:
            failed.append(expression)
            raise UnreachableError("Milvus is not ready", remedy="Wait.")
        return whole(self, at, expression, **words)

    monkeypatch.setattr(MilvusDatabase, "_query", failing)
    monkeypatch.setattr("neuroca_backup.engines.milvus.database._PAUSE_SECONDS", 0)
    backup = back_up(filled, tmp_path / "dump")
    assert failed
    assert backup.last.dump.facts["collections"]["items"]["count"] in {300, 350}


def test_rows_that_are_written_during_the_export_are_told(
    filled: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MilvusDatabase._query
    asked = []

    def writing(self: Any, at: Name, expression: str, **words: Any) -> Any:
        asked.append(expression)
        if len(asked) == 2:
            with client(filled) as opened:
                add_rows(opened, "items", first=1000, count=50)
        return whole(self, at, expression, **words)

    monkeypatch.setattr(MilvusDatabase, "_query", writing)
    backup = back_up(filled, tmp_path / "dump")
    (note,) = backup.last.dump.notes
    assert "300 rows before, 350 after" in note


def test_a_store_without_rows_is_no_backup_unless_that_is_allowed(
    database: Endpoint, tmp_path: Path
) -> None:
    with pytest.raises(EmptySourceError, match="none"):
        back_up(database, tmp_path / "nothing")
    with client(database) as opened:
        create(opened, "items", loaded=False)
    backup = back_up(database, tmp_path / "allowed", allow_empty=True)
    assert backup.last.dump.empty


def test_wrong_words_are_refused_each_with_its_name(milvus: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"options\.collections"):
        ENGINE.options({"collections": "some"})
    with pytest.raises(NotFoundError, match="nowhere"):
        back_up(milvus, tmp_path / "a", databases=["nowhere"])
    with pytest.raises(NotFoundError, match="nothing"):
        back_up(milvus, tmp_path / "b", collections=["nothing"])
    with pytest.raises(NotFoundError, match="database not found"):
        back_up(replace(milvus, database="nowhere"), tmp_path / "c")
    with pytest.raises(ConfigurationError, match="surprise"):
        ENGINE.probe(replace(milvus, extra={"surprise": 1}))
    with pytest.raises(AccessDeniedError) as caught:
        ENGINE.probe(replace(milvus, password="wrong-Password1"))
    assert "wrong-Password1" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ChainBrokenError):
        ENGINE.dump(milvus, SpoolSink(Folder(tmp_path / "d"), Progress("d")), {}, object())  # type: ignore[arg-type]


def test_a_file_of_json_lines_carries_a_collection_to_another_store(
    database: Endpoint, target: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(database) as opened:
        create(opened, "items")
        add_rows(opened, "items", first=0, count=120)
    config = tmp_path / "backup.yaml"
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {
            name: {"type": "local", "path": str(tmp_path / name)}
            for name in ("primary", "secondary")
        },
        "retention": {"database": "30d"},
        "encryption": {"key_management": "local", "local_key_file": str(tmp_path / "key")},
        "pipeline": {"spool": str(tmp_path / "spool")},
        "sources": {"vector": {"component": "database", "engine": "milvus", "connection": "store"}},
    }
    config.write_text(yaml.safe_dump({"backup": settings}))
    for word, one in (("STORE", database), ("OTHER", target)):
        monkeypatch.setenv(f"AIRFLOW_CONN_{word}", connection(one, "milvus"))

    def run(*words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, ["--config-path", str(config), *words])
        return ended.exit_code, ended.output

    run("configure", "--initialise-stores")
    file, wrong = tmp_path / "vectors.jsonl.gz", tmp_path / "wrong.jsonl"
    assert run("vector-export", "--source", "vector", "--output", str(file)) == (
        0,
        f"items: 120 vectors written to {file}.\n",
    )
    wrong.write_bytes(gzip.decompress(file.read_bytes())[:-20] + b"\n")
    code, said = run("vector-import", "--target-connection", "other", "--input", str(wrong))
    assert code == ExitCode.USAGE
    assert "line 121 is not JSON" in said
    with client(replace(target, database="")) as opened:
        assert target.database not in opened.list_databases()
    words = ("vector-import", "--target-connection", "other", "--input", str(file))
    assert run(*words) == (0, "items: 120 vectors imported.\n")
    code, said = run(*words)
    assert code == ExitCode.FAILED
    assert "--add" in said
    assert list(map(plain, everything(target, "items"))) == list(
        map(plain, everything(database, "items"))
    )
