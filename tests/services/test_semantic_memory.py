"""The engine of semantic memory: on a real Milvus, and on doubles of the APIs of two services."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qdrant_client import models

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.semantic_memory import ENGINE
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
)
from neuroca_backup.vectors import http_service
from support.doubles.pinecone_api import PineconeDouble
from support.doubles.qdrant_api import QdrantDouble
from support.dumping import Dumped, dump_to, restore_all
from support.engines import pinecone, qdrant
from support.memory_items import made_at
from support.milvus import client, drop_database
from support.vector_runs import begin, killed

if TYPE_CHECKING:
    from neuroca_backup.engines import Restorable
    from neuroca_backup.model.endpoint import Endpoint

COLLECTION = "neuroca_semantic"
DIMENSION = 8
MODEL = "all-mpnet-base-v2"


def _words(number: int) -> dict[str, Any]:
    """Return metadata as NCA keeps it: item n is of session s0 to s9 and of user 0 to 3."""
    return {
        "session_id": f"s{number % 10}",
        "user_id": number % 4,
        "created_at": made_at(number).isoformat(),
    }


def _vectors(first: int, count: int) -> Any:
    return np.random.default_rng([3, first]).random((count, DIMENSION), dtype=np.float32)


def _create(opened: Any, *, dimension: int = DIMENSION, loaded: bool = True) -> None:
    kinds: Any = import_module("pymilvus").DataType
    schema = opened.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("memory_id", kinds.VARCHAR, max_length=64)
    schema.add_field("metadata", kinds.JSON)
    schema.add_field("embedding", kinds.FLOAT_VECTOR, dim=dimension)
    opened.create_collection(COLLECTION, schema=schema, consistency_level="Strong")
    if loaded:
        index = opened.prepare_index_params()
        index.add_index("embedding", "FLAT", "flat", metric_type="COSINE")
        opened.create_index(COLLECTION, index)
        opened.load_collection(COLLECTION)


def _add(opened: Any, count: int, *, first: int = 0) -> None:
    vectors = _vectors(first, count)
    opened.insert(
        COLLECTION,
        [
            {
                "id": n,
                "memory_id": f"semantic-{n}",
                "metadata": _words(n),
                "embedding": vectors[n - first],
            }
            for n in range(first, first + count)
        ],
    )


def _rows(endpoint: Endpoint, expression: str = "id >= 0") -> dict[int, dict[str, Any]]:
    with client(endpoint) as opened:
        rows = opened.query(
            COLLECTION, filter=expression, output_fields=["*"], consistency_level="Strong"
        )
    return {row["id"]: dict(row) for row in rows}


@pytest.fixture(scope="module")
def source(milvus: Endpoint) -> Iterator[Endpoint]:
    """A database whose collection has 200 rows; the tests that write to it come last."""
    endpoint = replace(milvus, database="semantic_source")
    with client(replace(milvus, database="")) as opened:
        opened.create_database(endpoint.database)
    with client(endpoint) as opened:
        _create(opened)
        _add(opened, 200)
    yield endpoint
    drop_database(endpoint)


@pytest.fixture
def target(milvus: Endpoint) -> Iterator[Endpoint]:
    endpoint = replace(milvus, database=f"target_{secrets.token_hex(4)}")
    with client(replace(milvus, database="")) as opened:
        opened.create_database(endpoint.database)
    yield endpoint
    drop_database(endpoint)


@pytest.fixture(scope="module")
def dumped(source: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    made = _back_up(tmp_path_factory.mktemp("semantic") / "dump", source, dimension=DIMENSION)
    assert made.manifest.dump.facts["embedding_model"] == MODEL
    assert f"semantic memory: 1 collections, 200 vectors of {MODEL}" in ENGINE.summary(
        made.manifest
    )
    return made


def _back_up(root: Path, source: Endpoint, **options: Any) -> Dumped:
    made = dump_to(root, ENGINE, source, **{"embedding_model": MODEL, **options})
    ENGINE.check(made.manifest, made.open)
    return made


def _afresh(dumped: Dumped, tmp_path: Path, *words: str) -> Restorable:
    """Return a backup whose restore has not begun."""
    return replace(dumped.restorable(*words), work=tmp_path / "work")


def test_what_is_embedded_otherwise_there_is_refused_before_anything_is_touched(
    dumped: Dumped, target: Endpoint, tmp_path: Path
) -> None:
    for words, told in (
        ({"embedding_model": "text-embedding-3-small"}, f"of the model {MODEL}"),
        ({"embedding_dimension": 1536}, "takes 1536"),
    ):
        for only in ((), ("session=s1",)):
            with pytest.raises(IncompatibleVersionError, match=told):
                ENGINE.preflight(
                    _afresh(dumped, tmp_path, *only), RestoreTarget(replace(target, extra=words))
                )
    with pytest.raises(IncompatibleVersionError, match=r"the target .* is qdrant"):
        ENGINE.preflight(_afresh(dumped, tmp_path), RestoreTarget(replace(target, kind="qdrant")))
    with pytest.raises(ConfigurationError, match="vector store"):
        ENGINE.preflight(_afresh(dumped, tmp_path), RestoreTarget(replace(target, kind="redis")))
    same = {"embedding_model": MODEL, "embedding_dimension": str(DIMENSION)}
    assert not ENGINE.preflight(
        _afresh(dumped, tmp_path), RestoreTarget(replace(target, extra=same))
    )
    with client(target) as opened:
        assert opened.list_collections() == []
        _create(opened, dimension=16, loaded=False)
    for only in ((), ("session=s1",)):
        with pytest.raises(IncompatibleVersionError, match="embedding"):
            ENGINE.preflight(_afresh(dumped, tmp_path, *only), RestoreTarget(target, replace=True))


def test_vectors_of_another_dimension_than_the_option_says_are_no_backup(
    source: Endpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"of 8 dimensions, options\.dimension is 1536"):
        dump_to(tmp_path / "dump", ENGINE, source, dimension=1536)
    named = replace(source, extra={"embedding_model": "another"})
    with pytest.raises(ConfigurationError, match="says another"):
        dump_to(tmp_path / "named", ENGINE, named, embedding_model=MODEL)
    with pytest.raises(NotFoundError, match="no collection nowhere"):
        dump_to(tmp_path / "none", ENGINE, source, collections=["nowhere"])


def test_what_selects_nothing_or_nothing_known_is_an_error(
    dumped: Dumped, target: Endpoint, tmp_path: Path
) -> None:
    place = RestoreTarget(target)
    backup = _afresh(dumped, tmp_path, "session=nobody")
    ENGINE.preflight(backup, place)
    with pytest.raises(NotFoundError, match="session=nobody"):
        ENGINE.load(backup, place)
    for word in ("collection=x", "keys=x", "tier=stm"):
        with pytest.raises(ConfigurationError, match=word):
            ENGINE.preflight(_afresh(dumped, tmp_path, word), place)
    with client(target) as opened:
        assert opened.list_collections() == []


def test_two_hundred_vectors_come_back_and_nothing_of_the_hundred_after_them(
    dumped: Dumped, source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client(source) as opened:
        _add(opened, 100, first=200)
    restore_all(ENGINE, _afresh(dumped, tmp_path, "tier=semantic"), target)
    assert _rows(target).keys() == set(range(200))
    assert _rows(source).keys() == set(range(300))


def test_one_session_comes_back_beside_what_is_there(
    dumped: Dumped, source: Endpoint, tmp_path: Path
) -> None:
    before = _rows(source)
    with client(source) as opened:
        opened.delete(COLLECTION, ids=[3, 13, 23])
        for number, word in ((33, "spoilt"), (4, "newer")):
            row = {**before[number], "memory_id": word}
            opened.upsert(COLLECTION, [row])
    backup = _afresh(dumped, tmp_path, "session=s3")
    with pytest.raises(TargetRefusedError, match="has rows"):
        ENGINE.preflight(backup, RestoreTarget(source))
    restore_all(ENGINE, backup, source, replace=True)
    assert list(ENGINE.publish(backup, RestoreTarget(source, replace=True))) == []
    after = _rows(source)
    assert after.keys() == before.keys()
    assert after[4]["memory_id"] == "newer"
    assert all(after[n] == before[n] for n in after if n != 4)


def test_a_tier_in_process_memory_is_a_configuration_error_that_says_why() -> None:
    with pytest.raises(ConfigurationError, match="cannot be captured from outside") as caught:
        ENGINE.options({"backend": "memory"})
    assert "backend: vector" in caught.value.remedy
    with pytest.raises(ConfigurationError, match=r"options\.dimension"):
        ENGINE.options({"dimension": -1})


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_service, "PATIENCE_SECONDS", 3.0)


def _fill_qdrant(double: QdrantDouble) -> None:
    qdrant.fill(double, count=0)
    with qdrant.client_of(double) as opened:
        vectors = _vectors(0, 50)
        points = [
            models.PointStruct(id=n, vector=vectors[n].tolist(), payload={"metadata": _words(n)})
            for n in range(50)
        ]
        opened.upsert(COLLECTION, points, wait=True)


@pytest.mark.usefixtures("_impatient")
def test_a_session_in_qdrant_survives_kills_on_its_way_back(tmp_path: Path) -> None:
    with QdrantDouble() as double:
        _fill_qdrant(double)
        place = RestoreTarget(qdrant.endpoint_of(double), replace=True)
        made = _back_up(tmp_path / "dump", place.endpoint)
        before = dict(double.points(COLLECTION))
        for n in (3, 13):
            del double.points(COLLECTION)[n]
        double.points(COLLECTION)[4]["payload"] = {"newer": True}
        backup = made.restorable("session=s3")
        ENGINE.preflight(backup, place)
        for step in ("load", "publish"):
            killed(
                double,
                lambda step=step: begin(step, "semantic_memory", backup, place),
                method="PUT|DELETE",
                path=".*",
            )
            if step == "load":
                with pytest.raises(NotFoundError, match="not been loaded to its end"):
                    ENGINE.publish(backup, place)
                ENGINE.load(backup, place)
                assert list(ENGINE.compare(backup, place)) == []
        ENGINE.publish(backup, place)
        assert list(ENGINE.compare(backup, place)) == []
        assert list(double.stored) == [COLLECTION]
        after = double.points(COLLECTION)
        assert after.keys() == before.keys()
        assert after[4]["payload"] == {"newer": True}
        assert all(after[n] == before[n] for n in after if n != 4)


@pytest.mark.usefixtures("_impatient")
def test_one_session_goes_alone_into_an_empty_store(tmp_path: Path) -> None:
    with QdrantDouble() as one, QdrantDouble() as two:
        _fill_qdrant(one)
        made = _back_up(tmp_path / "dump", qdrant.endpoint_of(one))
        words = ("session=s3", "to=2026-11-02T00:00Z", "tier=ltm")
        notes = restore_all(ENGINE, made.restorable(*words), qdrant.endpoint_of(two))
        assert f"{COLLECTION}: 3 rows loaded" in notes
        assert list(two.stored) == [COLLECTION]
        kept = {n: one.points(COLLECTION)[n] for n in (3, 13, 23)}
        assert two.points(COLLECTION) == kept


@pytest.mark.usefixtures("_impatient")
def test_a_session_in_pinecone_comes_back_alone(tmp_path: Path) -> None:
    with PineconeDouble() as one, PineconeDouble(api_key="another_secret") as two:
        pinecone.create(one)
        with pinecone.index_of(one) as index:
            vectors = _vectors(0, 50)
            index.upsert(
                vectors=[
                    {"id": f"m{n}", "values": vectors[n].tolist(), "metadata": _words(n)}
                    for n in range(50)
                ]
            )
        made = _back_up(tmp_path / "dump", pinecone.endpoint_of(one), collections=[pinecone.INDEX])
        restore_all(ENGINE, made.restorable("session=s3"), pinecone.endpoint_of(two))
        assert set(two.vectors(pinecone.INDEX, "")) == {f"m{n}" for n in range(3, 50, 10)}
