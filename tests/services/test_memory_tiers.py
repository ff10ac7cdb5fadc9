"""The memory tiers through the whole pipeline and by the commands, on real servers."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.sandbox import seed_mongodb, seed_redis
from support.doubles.qdrant_api import QdrantDouble
from support.engines import qdrant
from support.engines.mongodb import connected
from support.memory_items import add_items, items_of
from support.redis_keys import client_of, content, flush
from support.wiring import connection, local_places

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

NAME = "tiers_of_a_test"
Run = Callable[..., str]


@pytest.fixture
def stores(redis_server: Endpoint, mongodb: Endpoint) -> Iterator[QdrantDouble]:
    """The three stores with 200 items each: the double of Qdrant is given."""
    flush(redis_server)
    add_items(redis_server, 200)
    with connected(mongodb) as client, QdrantDouble() as double:
        client.drop_database(NAME)
        client[NAME]["episodes"].insert_many(
            {"_id": n, "session": f"s{n % 10}", "summary": "x"} for n in range(200)
        )
        qdrant.fill(double)
        yield double
        client.drop_database(NAME)
    flush(redis_server)


@pytest.fixture
def twins(redis_twin: Endpoint, mongodb_twin: Endpoint) -> Iterator[QdrantDouble]:
    flush(redis_twin)
    with connected(mongodb_twin) as client, QdrantDouble() as double:
        client.drop_database(NAME)
        yield double
        client.drop_database(NAME)
    flush(redis_twin)


@pytest.fixture
def run(
    stores: QdrantDouble,
    twins: QdrantDouble,
    redis_server: Endpoint,
    redis_twin: Endpoint,
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Run the command; its output is returned, its exit code is 0 or the one given."""
    places = local_places(tmp_path)
    engines = {
        "working": ("working_memory", {}),
        "episodic": ("episodic_memory", {"collections": [f"{NAME}.*"]}),
        "semantic": ("semantic_memory", {"embedding_model": "m"}),
    }
    settings = {
        "schedule": {"memory_tiers": "0 3 * * *"},
        "storage": places.storage,
        "retention": {"memory_tiers": "14d"},
        "encryption": places.encryption,
        "pipeline": {"spool": str(tmp_path / "spool")},
        "sources": {
            name: {
                "component": "memory_tiers",
                "engine": engine,
                "connection": name,
                "options": options,
            }
            for name, (engine, options) in engines.items()
        },
    }
    config = tmp_path / "backup.yaml"
    config.write_text(yaml.safe_dump({"backup": settings}))
    for name, endpoint, kind in (
        ("working", redis_server, "redis"),
        ("episodic", mongodb, "mongo"),
        ("semantic", qdrant.endpoint_of(stores), "qdrant"),
        ("other_working", redis_twin, "redis"),
        ("other_episodic", mongodb_twin, "mongo"),
        ("other_semantic", qdrant.endpoint_of(twins), "qdrant"),
    ):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", connection(endpoint, kind))

    def go(*words: str, code: int = 0) -> str:
        ended = CliRunner().invoke(app, ["--config-path", str(config), *words])
        assert ended.exit_code == code, ended.output
        return ended.output

    return go


def _targets() -> list[str]:
    return [
        word
        for tier in ("working", "episodic", "semantic")
        for word in ("--target-connection", f"{tier}=other_{tier}")
    ]


def test_all_tiers_go_through_the_pipeline_and_one_session_comes_back_in_place(
    run: Run, redis_server: Endpoint, mongodb: Endpoint, stores: QdrantDouble
) -> None:
    run("backup", "working", "episodic", "semantic")
    with client_of(redis_server) as client:
        client.delete(*(f"memory:stm:i{n}" for n in range(3, 200, 10)))
    with connected(mongodb) as client:
        client[NAME]["episodes"].delete_many({"session": "s3"})
        client[NAME]["episodes"].insert_one({"_id": "newer"})
    for source in ("working", "episodic"):
        told = run(
            *("restore", source, "--only", "session=s3"), *("--in-place", "--confirm", source)
        )
        # Nothing is kept beside, so the source is saved first.
        assert f"What {source} held before is saved and verified" in told
    assert items_of(redis_server) == {f"i{n}" for n in range(200)}
    with connected(mongodb) as client:
        assert client[NAME]["episodes"].count_documents({}) == 201
    del stores.points(qdrant.COLLECTION)[7]
    run("restore", "semantic", "--only", "id=7", "--in-place", "--confirm", "semantic")
    assert len(stores.points(qdrant.COLLECTION)) == 200


def test_tiers_that_are_restored_together_are_held_to_each_other(run: Run, tmp_path: Path) -> None:
    sessions = {"source": "working", "place": "memory:stm:metadata:*", "field": "session_id"}
    fits = {
        "name": "sessions of episodes",
        "every": {"source": "episodic", "place": "episodes", "field": "session"},
        "among": sessions,
    }
    config = tmp_path / "backup.yaml"
    document = yaml.safe_load(config.read_text())
    document["backup"]["agreement"] = [fits]
    config.write_text(yaml.safe_dump(document))
    told = run("backup", "all")
    told = run("restore", "all", "--in-place", "--confirm", "all")
    assert "sessions of episodes: of 10 values 0 are missing" in told

    document["backup"]["agreement"] = [
        {**fits, "name": "ids", "every": {**fits["every"], "field": "_id"}},
        {**fits, "name": "vectors", "every": {**sessions, "source": "semantic", "place": "gone"}},
    ]
    config.write_text(yaml.safe_dump(document))
    told = run("restore", "all", "--in-place", "--confirm", "all", code=ExitCode.DAMAGED)
    assert "ids: 200 of 200 values" in told
    assert "vectors: it could not be asked: agreement: place 'gone' is nothing that" in told
    assert not list((tmp_path / "spool").iterdir()), "no sample is left"


def test_an_export_is_private_and_an_import_brings_all_of_it_elsewhere(
    run: Run,
    redis_server: Endpoint,
    redis_twin: Endpoint,
    mongodb_twin: Endpoint,
    twins: QdrantDouble,
    tmp_path: Path,
) -> None:
    place = tmp_path / "tiers"
    told = run("memory-export", "--output", str(place))
    assert "in clear" in told
    for words in ("403 keys", "1 collections, 200 documents", "200 vectors of m"):
        assert words in told
    for path in (place, *place.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    add_items(redis_server, 100, first=200)
    run("memory-import", "--input", str(place), *_targets())
    assert items_of(redis_twin) == {f"i{n}" for n in range(200)}
    with connected(mongodb_twin) as client:
        assert client[NAME]["episodes"].count_documents({}) == 200
    assert len(twins.points(qdrant.COLLECTION)) == 200
    told = run("memory-export", "--output", str(place), code=1)
    assert "is there already" in told


def test_single_tiers_and_items_are_chosen_by_either_name(
    run: Run, redis_twin: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    place = tmp_path / "tiers"
    run("memory-export", "--stm", "--episodic-memory", "--output", str(place))
    assert sorted(path.name for path in place.iterdir()) == [
        "episodic",
        "export.json",
        "working",
    ]
    words = ("--only", "session=s3", "--target-connection", "mtm=other_episodic")
    run(*("memory-import", "--mtm", "--input", str(place)), *words)
    with connected(mongodb_twin) as client:
        assert client[NAME]["episodes"].count_documents({}) == 20
    assert content(redis_twin) == {}
    told = run("memory-import", "--ltm", "--input", str(place), code=2)
    assert "no export of semantic memory" in told


def test_nothing_is_touched_when_one_of_the_files_or_targets_is_wrong(
    run: Run, redis_server: Endpoint, redis_twin: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    place = tmp_path / "tiers"
    run("memory-export", "--output", str(place))
    # The last one's target holds something.
    with connected(mongodb_twin) as client:
        client[NAME]["episodes"].insert_one({"_id": "somebody's"})
        told = run("memory-import", "--input", str(place), *_targets(), code=1)
        assert "holds data" in told
        assert content(redis_twin) == {}
        client.drop_database(NAME)
    member = place / f"episodic/files/{NAME}/episodes.jsonl"
    member.write_bytes(member.read_bytes().replace(b'"s3"', b'"s4"', 1))
    told = run("memory-import", "--input", str(place), *_targets(), code=4)
    assert "episodes.jsonl" in told
    assert content(redis_twin) == {}
    words = ("memory-import", "--stm", "--input", str(place), "--replace", "--only")
    assert "session=none" in run(*words, "session=none", code=1)
    assert "selects nothing" in run(*words, "collection=episodes", code=2)
    told = run("memory-import", "--stm", "--input", str(place), code=1)
    assert "Restore into an empty server" in told
    run("memory-import", "--stm", "--input", str(place), "--replace")
    assert items_of(redis_server) == {f"i{n}" for n in range(200)}


def test_an_export_that_fails_leaves_nothing_of_its_source(
    run: Run, redis_server: Endpoint, tmp_path: Path
) -> None:
    flush(redis_server)
    place = tmp_path / "tiers"
    told = run("memory-export", "--working-memory", "--output", str(place), code=1)
    assert "no key like" in told
    assert list(tmp_path.glob("*tiers*")) == []


def test_the_defaults_fit_what_a_sandbox_is_filled_with(
    redis_server: Endpoint, mongodb: Endpoint, tmp_path: Path
) -> None:
    from neuroca_backup.engines import named  # noqa: PLC0415 - beside its only use
    from support.dumping import dump_to  # noqa: PLC0415 - as above

    seed_redis.seed(redis_server, scale=0.02)
    seed_mongodb.seed(mongodb, scale=0.02)
    try:
        found: dict[str, Any] = {
            kind: dump_to(tmp_path / kind, named(kind), endpoint).manifest.dump.facts
            for kind, endpoint in (("working_memory", redis_server), ("episodic_memory", mongodb))
        }
    finally:
        flush(redis_server)
        with connected(mongodb) as client:
            client.drop_database("neuroca_episodic")
    assert sorted(found["working_memory"]["databases"]) == ["0", "1"]
    assert sorted(found["episodic_memory"]["collections"]) == [
        "neuroca_episodic.consolidations",
        "neuroca_episodic.episodes",
        "neuroca_episodic.recent_episodes",
    ]
